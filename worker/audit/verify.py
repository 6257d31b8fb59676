"""Whether the audit trail is what was sealed: what was altered, removed or inserted since, and what is not sealed yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import redis

from worker.audit.chain import GENESIS, Entry, Seal, place_of, seal
from worker.audit.records import records_of
from worker.audit.sealer import CUT
from worker.keys import RouteKeys

#: Entries and seals that are read in one go.
_ENTRIES, _SEALS = 1000, 200
#: How often a trail is read anew that was cut while it was read.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """The first place at which the trail is not what was sealed."""

    #: ``altered``, ``removed``, ``inserted`` or ``reordered``: an entry; ``seal``: a seal itself; ``beginning`` and
    #: ``end``: something was cut off there; ``against``: a copy of a seal is not in the chain.
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
    #: How old that one is, in seconds. A worker that is alive seals within a few.
    unsealed_age: float | None
    fault: Fault | None


def verify(client: redis.Redis, route: str, against: Sequence[str] = ()) -> Verified:
    """
    Walk the whole trail and compute it anew. ``against``: copies of seals, ``NUMBER:HASH`` or the hash alone.

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

    def __post_init__(self) -> None:
        self.keys = RouteKeys(self.route)

    def run(self) -> Verified:
        seconds, ends, remembered = self._ends()
        rows = _Rows(self.client, self.keys.audit)
        fault = self._sealed(rows)
        unsealed, unsealed_from = (0, None) if fault else self._count_unsealed(rows)
        fault = fault or self._fault_of_what_is_remembered(remembered) or self._fault_at_the_ends(ends)
        fault = fault or self._fault_of_the_copies()
        return Verified(
            route=self.route,
            entries=self.entries,
            seals=self.seals,
            first=self.first,
            last=self.previous.last if self.previous else None,
            newest=self.previous.name if self.previous else None,
            unsealed=unsealed,
            unsealed_from=unsealed_from,
            unsealed_age=max(0.0, seconds - place_of(unsealed_from)[0] / 1000) if unsealed_from else None,
            fault=fault,
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
            self.met |= {found.name, found.hash}
        return None

    def _begin_at(self, anchor: Seal, rows: _Rows) -> None:
        """What it covers has been forgotten; the chain goes on from its hash."""
        self.anchor = anchor
        rows.skip(place_of(anchor.last))

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
            if f'"{CUT}"'.encode() in one.fields.get(b"records", b""):
                self.cuts |= {one.detail for one in records_of(one) if one.event == CUT}

    def _count_unsealed(self, rows: _Rows) -> tuple[int, str | None]:
        count, first = 0, None
        for one in rows.rest():
            count, first = count + 1, first or one.id.decode()
            self._note_cuts([one])
        return count, first

    def _ends(self) -> tuple[float, list[str], str]:
        """
        The time; the last id that each stream has ever given out, and the id of its last entry; and the seal that the route
        remembers beside the chain. All at one moment.
        """
        pipe = self.client.pipeline(transaction=True)
        for stream in (self.keys.audit, self.keys.seals):
            pipe.xinfo_stream(stream)
        pipe.hget(self.keys.state, "sealed")
        *ends, remembered = pipe.execute(raise_on_error=False)
        if isinstance(remembered, Exception):
            raise remembered
        seconds, _ = self.client.time()
        return float(seconds), [_last_ids(found) for found in ends], (remembered or b"").decode()

    def _fault_of_what_is_remembered(self, remembered: str) -> Fault | None:
        name = remembered.rpartition(":")[0]
        if not name or name in self.met:
            return None
        number = int(name.partition(":")[0])
        words = (
            f"the route remembers seal {name}, and it is not in the chain: seals were removed or written anew"
        )
        return Fault("end", number, None, words)

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
        number = int(copy.partition(":")[0]) if ":" in copy else None
        oldest = self.anchor.number if self.anchor else 1
        if self.previous is None or (number is not None and number > self.previous.number):
            return "the chain does not reach that seal: its end was cut off, or all of it was written anew"
        if number is not None and number < oldest:
            return f"the oldest seal that is kept is {oldest}; give a copy of a later one"
        return "no seal that is kept has this hash: the chain was written anew"


class _Rows:
    """The entries of the trail, one after the other."""

    def __init__(self, client: Any, stream: str) -> None:
        self._rows = (Entry(*row) for row in _pages(client, stream, _ENTRIES))
        self._next = next(self._rows, None)

    def skip(self, upto: tuple[int, int]) -> None:
        while self._next is not None and self._next.place <= upto:
            self._next = next(self._rows, None)

    def take(self, upto: tuple[int, int]) -> list[Entry]:
        found = []
        while self._next is not None and self._next.place <= upto:
            found.append(self._next)
            self._next = next(self._rows, None)
        return found

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
