"""Seals the audit trail of a route, and forgets what is older than the retention. One worker does it for all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import redis

from worker.audit.chain import Entry, Seal, place_of, seal
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
#: So many entries that are no seals are looked behind.
_STRANGERS_MAX: Final = 100

_SEAL, _CUT = (Script("worker.audit", name) for name in ("seal", "cut"))


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
        #: The last seal as far as this worker knows.
        self._last: Seal | None = None
        self._cut_from = 0.0

    def turn(self) -> None:
        """Seal what is not sealed yet, if it is this worker's turn. Call it every `EVERY` seconds."""
        with _unavailable():
            if not self._lead():
                return
            if self._last is None:
                self._read_last()
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
        after = f"({self._last.last}" if self._last else "-"
        rows = self._client.xrange(self._keys.audit, after, "+", count=self._entries_max)
        if not rows:
            return 0
        made = seal(self._last, [Entry(*row) for row in rows])
        flat = [part for pair in made.fields().items() for part in pair]
        number = self._last.number if self._last else 0
        keys = [self._keys.seals, self._keys.state]
        how = _SEAL(self._client, keys, made.previous, number, made.remembered, *flat)
        if how == b"changed":
            self._read_last()
            return 0
        if how == b"gone" and self._last is not None:
            self._tell_cut_off(self._last, None)
        self._last = made
        self._log.info(Event.AUDIT_SEALED, seal=made.name, entries=made.count)
        return len(rows)

    def _read_last(self) -> None:
        """
        Another worker has sealed, or this one has just begun. The chain goes on from the seal that the route remembers; if
        somebody has taken that away, its gap stays for `verify` to see.
        """
        text = self._client.hget(self._keys.state, "sealed")
        found = Seal.recall(text.decode()) if text else self._newest_kept()
        known, self._last = self._last, found
        if known is not None and (found is None or found.number <= known.number):
            self._tell_cut_off(known, found)

    def _tell_cut_off(self, known: Seal, kept: Seal | None) -> None:
        self._log.error(Event.AUDIT_CUT_OFF, seal=known.name, kept=kept.name if kept else "none")

    def _newest_kept(self) -> Seal | None:
        """The newest seal of the stream. What a stranger has put behind it is for `verify` to name."""
        for _, fields in self._client.xrevrange(self._keys.seals, count=_STRANGERS_MAX):
            with suppress(ValueError):
                return Seal.read(fields)
        return None

    def _forget(self) -> None:
        """Cut behind the newest seal that is wholly older than the retention. The first seal has no anchor before it."""
        seconds, _ = self._client.time()
        oldest = max(0, round((seconds - self._retention) * 1000))
        found = self._client.xrevrange(self._keys.seals, f"({oldest}", "-", count=1)
        kept = self._client.xrange(self._keys.seals, count=1)
        if not found or found[0][0] == kept[0][0]:
            return
        try:
            entry, anchor = found[0][0], Seal.read(found[0][1])
        except ValueError:
            return  # no seal: nothing is cut before a person has looked at it
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


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        if not is_unavailable(error):
            raise
        raise Unavailable(f"Redis does not answer: {error}") from error
