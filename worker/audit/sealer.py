"""Seals the audit trail of a route, and forgets what is older than the retention. One worker does it for all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import redis

from worker.audit.chain import Entry, Seal, Tip, place_of, seal
from worker.clock import Clock
from worker.connection import is_unavailable
from worker.errors import Unavailable
from worker.keys import RouteKeys
from worker.logs import Event, Logger
from worker.script import Script

#: Seconds between two seals, while there is something to seal.
EVERY: Final = 3.0
#: Seconds that a sealer may be silent before another one takes over.
LEASE: Final = 20.0
#: Seconds between two cuts.
CUT_EVERY: Final = 600.0
#: Entries under one seal, and seals that are made in one turn, at most.
ENTRIES_MAX, SEALS_MAX = 1000, 5
#: Entries of the seals that are read in one go.
_PAGE: Final = 20

_SEAL, _CUT = (Script("worker.audit", name) for name in ("seal", "cut"))


@dataclass(frozen=True, slots=True)
class _End:
    """The end of the chain as it was read, and the two places by which a change since then shows."""

    #: The last seal; ``None`` before the first.
    tip: Tip | None
    #: What the route's state remembers, and the newest entry of the seals; empty for none.
    remembered: bytes = b""
    newest: bytes = b""


class Sealer:
    """
    One route's sealer. ``turn`` does what is due; it raises ``Unavailable`` when Redis does not answer: call it again.

    All that it knows is in Redis, so it may end at any moment, and two of them may run at once.
    """

    def __init__(
        self,
        client: redis.Redis,
        route: str,
        *,
        retention: float,
        log: Logger,
        clock: Clock,
        worker: str,
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        """``retention``: seconds that an entry of the trail is kept."""
        self._client: Any = client
        self._keys = RouteKeys(route)
        self._retention = retention
        self._log = log
        self._clock = clock
        self._worker = worker
        self._entries_max = entries_max
        #: The chain's end as far as this worker knows; ``None`` while it has to be read.
        self._end: _End | None = None
        #: The newest seal that this worker has seen, and the last loss that it has told.
        self._seen: Tip | None = None
        self._told = ""
        self._cut_from = 0.0

    def turn(self) -> None:
        """Seal what is not sealed yet, if it is this worker's turn. Call it every `EVERY` seconds."""
        with _unavailable():
            if not self._lead():
                return
            for _ in range(SEALS_MAX):
                if self._seal_next() < self._entries_max:
                    break
            if self._clock.boottime() >= self._cut_from:
                self._cut_from = self._clock.boottime() + CUT_EVERY
                self._forget()

    def leave(self) -> None:
        """Seal what is left, and let another worker go on at once."""
        self.turn()
        with _unavailable():
            if self._client.get(self._keys.sealer) == self._worker.encode():
                self._client.delete(self._keys.sealer)

    def _lead(self) -> bool:
        key, lease = self._keys.sealer, round(LEASE * 1000)
        if self._client.set(key, self._worker, nx=True, px=lease):
            return True
        # Two that both hold it for a moment make one chain all the same.
        if self._client.get(key) != self._worker.encode():
            return False
        return bool(self._client.pexpire(key, lease))

    def _seal_next(self) -> int:
        """Make one seal. Returns how many entries it covers; none also where another sealer was faster."""
        end = self._end = self._end or self._read_end()
        after = f"({end.tip.last}" if end.tip else "-"
        rows = self._client.xrange(self._keys.audit, after, "+", count=self._entries_max)
        if not rows:
            return 0
        made = seal(end.tip, [Entry(*row) for row in rows])
        flat = [part for pair in made.fields().items() for part in pair]
        keys = [self._keys.seals, self._keys.state]
        # If this raises, nobody knows whether it is sealed.
        self._end = None
        match _SEAL(self._client, keys, end.remembered, end.newest, made.tip.text, *flat):
            case [b"sealed", newest]:
                self._end = _End(made.tip, made.tip.text.encode(), newest)
            case [b"changed"]:
                return 0
            case other:
                raise AssertionError(other)
        self._seen = made.tip
        self._log.info(Event.AUDIT_SEALED, seal=made.name, entries=made.count)
        return len(rows)

    def _read_end(self) -> _End:
        """
        Where the chain goes on. Another worker has sealed, or this one has just begun.

        What the state remembers counts, and the seals behind it: those of workers that do not remember. It goes on from
        there also where seals are gone: the gap then stays for all to see. What is no seal is passed over.
        """
        remembered = self._client.hget(self._keys.state, "seal") or b""
        newest = b""
        base = _tip(remembered)
        found: list[Seal] = []
        for entry, one in self._backwards("+"):
            newest = newest or entry
            if one is not None:
                found.append(one)
                if base is None or one.number <= base.number:
                    break
        if base is None:
            base = found[0].tip if found else self._seen
        self._tell_loss(remembered, base, found)
        for one in reversed(found):
            if base is not None and one.follows(base):
                base = one.tip
        self._seen = base
        return _End(base, remembered, newest)

    def _tell_loss(self, remembered: bytes, base: Tip | None, found: list[Seal]) -> None:
        """Nobody takes the newest seals away. The trail tells of it too, for the log may end up elsewhere."""
        kept = found[0].name if found else "none"
        names = {one.name for one in found}
        if base is not None and base.name not in names:
            gone = base.name
        elif self._seen is not None and (not found or found[0].number < self._seen.number):
            gone = self._seen.name
        elif remembered and _tip(remembered) is None:
            gone = "unreadable in the state"
        else:
            return
        told = f"{gone}, kept {kept}"
        if told == self._told:
            return
        self._told = told
        self._log.error(Event.AUDIT_CUT_OFF, seal=gone, kept=kept)
        records = json.dumps([[CUT_OFF, "", told, ""]], separators=(",", ":"))
        self._client.xadd(self._keys.audit, {"worker": self._worker, "records": records})

    def _backwards(self, start: str) -> Iterator[tuple[bytes, Seal | None]]:
        """The entries of the seals, newest first. Anybody may have put something there that is none."""
        while rows := self._client.xrevrange(self._keys.seals, start, "-", count=_PAGE):
            for entry, fields in rows:
                try:
                    yield entry, Seal.read(fields)
                except ValueError:
                    yield entry, None
            start = f"({rows[-1][0].decode()}"

    def _forget(self) -> None:
        """Cut behind the newest seal that is wholly older than the retention. The first seal has no anchor before it."""
        seconds, _ = self._client.time()
        oldest = max(0, round((seconds - self._retention) * 1000))
        old = ((entry, one) for entry, one in self._backwards(f"({oldest}") if one is not None)
        entry, anchor = next(old, (b"", None))
        kept = self._client.xrange(self._keys.seals, count=1)
        if anchor is None or not kept or entry == kept[0][0]:
            return
        ms, seq = place_of(anchor.last)
        records = json.dumps([[CUT, "", anchor.name, ""]], separators=(",", ":"))
        _CUT(
            self._client,
            [self._keys.seals, self._keys.audit],
            entry,
            f"{ms}-{seq + 1}",
            self._worker,
            records,
        )


#: The event by which the trail tells where it was cut: its detail is the anchor's name.
CUT: Final = "cut"
#: The event by which it tells that a sealer found seals gone: its detail names the newest that is gone.
CUT_OFF: Final = "cut_off"


def _tip(remembered: bytes) -> Tip | None:
    try:
        return Tip.read(remembered)
    except ValueError:
        return None


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        if not is_unavailable(error):
            raise
        raise Unavailable(f"Redis does not answer: {error}") from error
