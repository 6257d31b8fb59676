"""A read that blocks, and can be ended from another thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis

from worker.line import Line, Reply

if TYPE_CHECKING:
    from worker.bell import Bell
    from worker.clock import Clock

#: Seconds that the server takes at most to say that nothing came.
_BLOCK = 0.5
#: Seconds after which a server that says nothing at all counts as away.
_DEAD = 5.0
#: Seconds that a read blocks on a connection that cannot be watched beside the bell.
_BLIND = 0.02


class Waiter:
    """
    Waits for entries on a connection of its own, so that nobody else's command waits behind it. A read that the bell
    has ended stays out, and the next wait goes on with it.
    """

    def __init__(self, client: redis.Redis, bell: Bell, clock: Clock) -> None:
        self.bell = bell
        self._line = Line(client)
        self._clock = clock
        self._reply: Reply | None = None
        self._dead_at = 0.0
        self._is_waiting = False

    def read(self, after: dict[str, str], seconds: float) -> list[str]:
        """
        Return once a stream has an entry after its id, the time is over, or the bell rings. The streams that have
        one are named.

        Raises:
            redis.RedisError: the server is away.
        """
        if self._reply is None:
            self._send(after, seconds)
        fd = self._line.fileno()
        reply = self._reply
        if reply is not None and (fd is None or self._wait(seconds, fd)):
            self._reply = None
            # Pairs of name and entries; fakeredis makes a dict of them.
            return [name.decode() for name in dict(reply.get() or ())]
        if self._clock.boottime() > self._dead_at:
            self.close()
            raise redis.TimeoutError("the server has not said for seconds that nothing came")
        return []

    def arm(self, after: dict[str, str]) -> None:
        """Send the read now, for the next wait to find its answer."""
        if after and self._reply is None and self._line.fileno() is not None:
            self._send(after, _BLOCK)

    def rest(self, seconds: float) -> None:
        """Wait with nothing to read."""
        self._wait(seconds, None)

    def stir(self) -> None:
        """End a wait that is on: a slot may have become free. Any thread."""
        if self._is_waiting:
            self.bell.ring()

    def close(self) -> None:
        """Hang up, whatever is out."""
        self._reply = None
        self._line.close()

    def _wait(self, seconds: float, fd: int | None) -> bool:
        self._is_waiting = True
        try:
            return self.bell.wait(seconds, beside=fd)
        finally:
            self._is_waiting = False

    def _send(self, after: dict[str, str], seconds: float) -> None:
        watched = self._line.fileno() is not None
        seconds = _BLOCK if watched else min(_BLIND, seconds)
        block = ("BLOCK", max(1, round(seconds * 1000))) if seconds > 0 else ()
        self._dead_at = self._clock.boottime() + _BLOCK + _DEAD
        self._reply = self._line.send("XREAD", "COUNT", 1, *block, "STREAMS", *after.keys(), *after.values())
