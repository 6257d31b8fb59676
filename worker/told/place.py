"""Which worker tells a route's events over a channel, and how far it has come, in Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import redis

from worker.connection import is_unavailable
from worker.errors import Unavailable
from worker.keys import RouteKeys

#: Events that are read in one go.
BATCH: Final = 50
#: A channel that is new tells what happened since so many seconds ago, and not a week's history.
BEFORE: Final = 60.0


class Fact(NamedTuple):
    """One entry of the failsafe stream."""

    entry_id: bytes
    kind: str
    #: The event as JSON.
    body: bytes

    @property
    def is_event(self) -> bool:
        """Whether it is one at all, also of a newer version; anybody may have put something else there."""
        try:
            event = json.loads(self.body)
        except (ValueError, RecursionError):
            return False
        return isinstance(event, dict) and isinstance(event.get("type"), str)


class Place:
    """
    One channel's place in one route's failsafe stream. Every method raises ``Unavailable`` when Redis does not answer:
    make the same call again.
    """

    def __init__(self, client: redis.Redis, route: str, channel: str) -> None:
        self._client: Any = client
        self._keys = RouteKeys(route)
        self._teller = self._keys.teller(channel)
        self._channel = channel
        self.stream = self._keys.failsafe

    def lead(self, worker: str, seconds: float) -> bool:
        """Whether it is this worker that tells for all, for so long from now."""
        with _unavailable():
            lease = round(seconds * 1000)
            if self._client.set(self._teller, worker, nx=True, px=lease):
                return True
            # Two that both hold it for a moment tell an event twice, and lose none.
            if self._client.get(self._teller) != worker.encode():
                return False
            return bool(self._client.pexpire(self._teller, lease))

    def resign(self, worker: str) -> None:
        """Let another worker tell at once."""
        with _unavailable():
            if self._client.get(self._teller) == worker.encode():
                self._client.delete(self._teller)

    def waiting(self) -> list[Fact]:
        """The next events that were not told, oldest first; none when all are."""
        with _unavailable():
            rows = self._client.xrange(self._keys.failsafe, f"({self._position()}", "+", count=BATCH)
        return [
            Fact(entry_id, fields.get(b"type", b"").decode("utf-8", "replace"), fields.get(b"body", b""))
            for entry_id, fields in rows
        ]

    def done(self, fact: Fact) -> None:
        """It is told, or is not to be told. Never goes back behind what another worker has told since."""

        def move(pipe: Any) -> None:
            told = pipe.hget(self._keys.told, self._channel) or b"0-0"
            pipe.multi()
            if _order(fact.entry_id) > _order(told):
                pipe.hset(self._keys.told, self._channel, fact.entry_id)

        with _unavailable():
            self._client.transaction(move, self._keys.told)

    def _position(self) -> str:
        found = self._client.hget(self._keys.told, self._channel)
        if found is None:
            seconds, _ = self._client.time()
            start = f"{max(0, round((seconds - BEFORE) * 1000))}-0"
            self._client.hsetnx(self._keys.told, self._channel, start)
            found = self._client.hget(self._keys.told, self._channel)
        return str(found.decode())


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        if not is_unavailable(error):
            raise
        raise Unavailable(f"Redis does not answer: {error}") from error
