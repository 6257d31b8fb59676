"""Whether the audit trail is what was sealed: what was altered, removed or inserted since, and what is not sealed yet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

import redis

from worker.audit.chain import GENESIS, Entry, Seal, Tip, place_of, seal
from worker.audit.records import Record, moment, records_of
from worker.audit.sealer import CUT, CUT_OFF
from worker.keys import RouteKeys

#: Entries and seals that are read in one go.
_ENTRIES, _SEALS = 1000, 200
#: How often a trail is read anew that was cut while it was read.
_TRIES = 5
#: While any worker lives, what happens is sealed within seconds. So many are too many.
UNSEALED_SECONDS: Final = 60.0
#: How a copy of a seal is written.
_COPY: Final = re.compile(r"[1-9][0-9]{0,17}:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fault:
    """The first place at which the trail is not what was sealed."""

    #: ``altered``, ``removed``, ``inserted`` or ``reordered``: an entry; ``seal``: a seal itself; ``beginning`` and
    #: ``end``: something was cut off there; ``remembered``: the seal that the route's state remembers is not in the
    #: chain, or cannot be read; ``against``: a copy of a seal is not.
    what: str
    #: The number of the seal that shows it; 0 for none.
    seal: int
    #: The id of the entry, where it is one.
    entry: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What a walk along the trail of one route has found."""

    route: str
    #: Entries under seals that were walked and found as they were sealed.
    entries: int
    seals: int
    first: str | None
    last: str | None
    #: The newest seal's name: keep a copy of it elsewhere.
    newest: str | None
    #: Entries that no seal covers yet, and the id of the oldest of them.
    unsealed: int
    unsealed_from: str | None
    fault: Fault | None
    #: What is no proof of anything, and should be looked at.
    warnings: tuple[str, ...] = ()


def is_copy(text: str) -> bool:
    """Whether it has the form of a copy of a seal: ``NUMBER:HASH``, the hash in 64 hexadecimal digits."""
    return _COPY.fullmatch(text.strip().lower()) is not None


def verify(client: redis.Redis, route: str, against: Sequence[str] = ()) -> Verified:
    """
    Walk the whole trail and compute it anew. ``against``: copies of seals, each as `is_copy` wants it.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    walk = _Walk(client, route, against)
    for _ in range(_TRIES):
        found = walk.run()
        # It may be cut at any moment, and be sound from there.
        if found.fault is None or not walk.was_cut_meanwhile():
            break
        walk = _Walk(client, route, against)
    return found


@dataclass
class _Walk:
    client: Any
    route: str
    against: Sequence[str]
    anchor: Seal | None = None
    previous: Seal | None = None
    entries: int = 0
    seals: int = 0
    first: str | None = None
    #: The trail's own notes of where it was cut, and the copies that were met.
    cuts: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = RouteKeys(self.route)

    def run(self) -> Verified:
        ends, remembered = self._ends()
        rows = _Rows(self.client, self.keys.audit)
        fault = self._sealed(rows)
        unsealed, unsealed_from = (0, None) if fault else self._count_unsealed(rows)
        fault = (
            fault
            or self._fault_at_the_ends(ends)
            or self._fault_of_the_remembered(remembered)
            or self._fault_of_the_copies()
        )
        return Verified(
            route=self.route,
            entries=self.entries,
            seals=self.seals,
            first=self.first,
            last=self.previous.last if self.previous else None,
            newest=self.previous.name if self.previous else None,
            unsealed=unsealed,
            unsealed_from=unsealed_from,
            fault=fault,
            warnings=tuple(self.warnings),
        )

    def was_cut_meanwhile(self) -> bool:
        kept = self.client.xrange(self.keys.seals, count=1)
        try:
            oldest = Seal.read(kept[0][1]).number if kept else 0
        except ValueError:
            return False
        return oldest > (self.anchor.number if self.anchor else 1)

    def _sealed(self, rows: _Rows) -> Fault | None:
        number = 0
        for entry_id, fields in _pages(self.client, self.keys.seals, _SEALS):
            try:
                found = Seal.read(fields)
            except ValueError:
                return _seal_fault(number + 1, f"the entry {entry_id.decode()} of the seals is no seal")
            if self.previous is None and found.number > 1:
                self._begin_at(found, rows)
            elif fault := self._step(found, rows):
                return fault
            number, self.previous = found.number, found
            self.met.add(found.name)
        return None

    def _begin_at(self, anchor: Seal, rows: _Rows) -> None:
        """What it covers has been forgotten; the chain goes on from its hash."""
        self.anchor = anchor
        for one in rows.passing(place_of(anchor.last)):
            self._note_cuts([one])

    def _step(self, found: Seal, rows: _Rows) -> Fault | None:
        before = self.previous
        expected = before.number + 1 if before else 1
        if found.number != expected:
            return _seal_fault(
                expected, f"seal {expected} is missing: seal {found.number} comes in its place"
            )
        if found.previous != (before.hash if before else GENESIS):
            return _seal_fault(found.number, f"seal {found.number} does not go on from the one before it")
        entries = rows.take(place_of(found.last))
        if not entries or seal(before, entries) != found:
            return _compared(found, entries)
        self._walked(entries)
        return None

    def _walked(self, entries: Sequence[Entry]) -> None:
        self.entries += len(entries)
        self.seals += 1
        self.first = self.first or entries[0].id.decode()
        self._note_cuts(entries)

    def _note_cuts(self, entries: Sequence[Entry]) -> None:
        for one in entries:
            # Few entries have one, and there may be millions.
            if b'"cut' in one.fields.get(b"records", b""):
                for record in records_of(one):
                    self._note_cut(record)

    def _note_cut(self, record: Record) -> None:
        if record.event == CUT:
            self.cuts.add(record.detail)
        elif record.event == CUT_OFF:
            self.warnings.append(
                f"at {record.at:%Y-%m-%d %H:%M:%S} UTC worker {record.worker} found seals gone: {record.detail}; "
                "compare with the log lines audit_sealed"
            )

    def _count_unsealed(self, rows: _Rows) -> tuple[int, str | None]:
        count, first = 0, None
        for one in rows.rest():
            count, first = count + 1, first or one
            self._note_cuts([one])
        if first is None:
            return 0, None
        seconds, _ = self.client.time()
        age = seconds - moment(first.place[0]).timestamp()
        if age > UNSEALED_SECONDS:
            self.warnings.append(
                f"the oldest entry that is not sealed is {age:.0f} s old, and nothing proves that it was not altered: "
                "a live worker seals within seconds (see the log for upkeep_fault)"
            )
        return count, first.id.decode()

    def _ends(self) -> tuple[list[str], bytes | None]:
        """
        The last id that each stream has ever given out, if its entry is gone, and the seal that the route's state
        remembers; all at one moment, before the walk: the chain may only have grown since.
        """
        pipe = self.client.pipeline(transaction=True)
        for stream in (self.keys.audit, self.keys.seals):
            pipe.xinfo_stream(stream)
        pipe.hget(self.keys.state, "seal")
        *streams, remembered = pipe.execute(raise_on_error=False)
        if isinstance(remembered, Exception):
            raise remembered
        return [_last_ids(found) for found in streams], remembered

    def _fault_of_the_remembered(self, remembered: bytes | None) -> Fault | None:
        """The state remembers the last seal, written in one step with it: who takes seals away has to change both."""
        if remembered is None:
            if self.previous is not None:
                self.warnings.append(
                    "the route's state remembers no seal: workers of an older version made them all, or somebody took it away"
                )
            return None
        try:
            tip = Tip.read(remembered)
        except ValueError as error:
            return Fault("remembered", 0, None, f"the seal that the route's state remembers is {error}")
        if tip.name in self.met or (self.anchor is not None and tip.number < self.anchor.number):
            return None
        if self.previous is None or self.previous.number < tip.number:
            words = f"the chain ends before seal {tip.number}, which the route's state remembers: seals were removed"
        else:
            words = f"seal {tip.number} is not the one that the route's state remembers: the chain was written anew"
        return Fault("remembered", tip.number, None, words)

    def _fault_at_the_ends(self, ends: list[str]) -> Fault | None:
        audit, seals = ends
        if seals:
            return Fault("end", 0, None, f"the newest seals were removed, the last of them {seals}")
        if audit and self.previous is not None:
            return Fault("end", 0, audit, f"the newest entries were removed, the last of them {audit}")
        if self.anchor is not None and self.anchor.name not in self.cuts:
            words = f"what came before seal {self.anchor.number} is gone, and the trail tells of no such cut"
            return Fault("beginning", self.anchor.number, None, words)
        return None

    def _fault_of_the_copies(self) -> Fault | None:
        for copy in self.against:
            if copy.strip().lower() not in self.met:
                return Fault("against", 0, None, f"{copy}: {self._why_not_met(copy)}")
        return None

    def _why_not_met(self, copy: str) -> str:
        number = int(copy.partition(":")[0])
        oldest = self.anchor.number if self.anchor else 1
        if self.previous is None or number > self.previous.number:
            return "the chain does not reach that seal: its end was cut off, or all of it was written anew"
        if number < oldest:
            return f"the oldest seal that is kept is {oldest}; give a copy of a later one"
        return "no seal that is kept has this hash: the chain was written anew"


class _Rows:
    """The entries of the trail, one after the other."""

    def __init__(self, client: Any, stream: str) -> None:
        self._rows = (Entry(*row) for row in _pages(client, stream, _ENTRIES))
        self._next = next(self._rows, None)

    def passing(self, upto: tuple[int, int]) -> Iterator[Entry]:
        while self._next is not None and self._next.place <= upto:
            yield self._next
            self._next = next(self._rows, None)

    def take(self, upto: tuple[int, int]) -> list[Entry]:
        return list(self.passing(upto))

    def rest(self) -> Iterator[Entry]:
        while self._next is not None:
            yield self._next
            self._next = next(self._rows, None)


def _pages(client: Any, stream: str, count: int) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    start = "-"
    while rows := client.xrange(stream, start, "+", count=count):
        yield from rows
        start = f"({rows[-1][0].decode()}"


def _last_ids(found: Any) -> str:
    """The last id, if its entry is there no more; a stream that does not exist has given out none."""
    if isinstance(found, redis.ResponseError):
        return ""
    if isinstance(found, Exception):
        raise found
    newest, entry = found["last-generated-id"], found["last-entry"]
    if newest == b"0-0" or (entry and entry[0] == newest):
        return ""
    return str(newest.decode())


def _seal_fault(number: int, text: str) -> Fault:
    return Fault("seal", number, None, text)


def _compared(found: Seal, entries: Sequence[Entry]) -> Fault:
    """Which entry it is that is not as it was sealed."""
    try:
        marks = found.unpacked()
    except ValueError as error:
        return _seal_fault(found.number, f"seal {found.number} was altered: {error}")
    for mark, entry in zip_longest(marks, entries):
        if mark is None or (entry is not None and entry.place < mark.place):
            return _entry_fault("inserted", found, entry.id.decode())
        if entry is None or entry.place > mark.place:
            return _entry_fault("removed", found, mark.id)
        if entry.mark.digest != mark.digest:
            moved = entry.mark.digest in {one.digest for one in marks if one.place != mark.place}
            return _entry_fault("reordered" if moved else "altered", found, mark.id)
    return _seal_fault(found.number, f"seal {found.number} was altered: it is not that of its entries")


def _entry_fault(what: str, found: Seal, entry_id: str) -> Fault:
    return Fault(what, found.number, entry_id, f"entry {entry_id}, under seal {found.number}, was {what}")
