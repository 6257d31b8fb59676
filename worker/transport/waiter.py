"""Reads that block, beside a bell that ends the wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis

from worker.line import Line, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.bell import Bell
    from worker.clock import Clock

#: Seconds that the server takes at most to say that nothing came.
_BLOCK = 0.5
#: Seconds after which a server that says nothing at all counts as away.
_DEAD = 5.0
#: Seconds between two looks where connections are no sockets, as in tests.
_BLIND = 0.02


class Waiter:
    """
    Waits for entries, for each stream on a connection of its own: nobody's command waits behind a read. One that the
    bell has ended stays out, and the next wait goes on with it.
    """

    def __init__(self, client: redis.Redis, bell: Bell, clock: Clock) -> None:
        self.bell = bell
        self._client = client
        self._clock = clock
        self._watches: dict[str, _Watch] = {}
        self._is_waiting = False

    def arm(self, after: Mapping[str, str]) -> None:
        """
        Let the server tell from now on of entries after these ids (stream → id); the next wait finds the answer.

        Raises:
            redis.RedisError: the server is away.
        """
        for stream, entry in after.items():
            watch = self._watches.get(stream)
            if watch is None:
                watch = self._watches[stream] = _Watch(self._client, stream)
            if watch.reply is None and watch.line.fileno() is not None:
                watch.send(entry, _BLOCK, self._clock.boottime() + _BLOCK + _DEAD)

    def read(self, after: Mapping[str, str], seconds: float) -> list[str]:
        """
        Return once a stream has an entry after its id, the time is over, or the bell rings. The streams that have
        one are named.

        Raises:
            redis.RedisError: the server is away.
        """
        self.arm(after)
        watches = [self._watches[stream] for stream in after]
        by_fd = {watch.line.fileno(): watch for watch in watches}
        if None in by_fd:
            return self._read_blind(after, seconds)
        ready = self._wait(seconds, [fd for fd in by_fd if fd is not None])
        now = self._clock.boottime()
        if any(now > watch.dead_at for fd, watch in by_fd.items() if fd not in ready):
            raise redis.TimeoutError("the server has not said for seconds that nothing came")
        return [by_fd[fd].stream for fd in ready if by_fd[fd].has_news()]

    def rest(self, seconds: float) -> None:
        """Wait with nothing to read."""
        self._wait(seconds, [])

    def stir(self) -> None:
        """End a wait that is on: a slot may have become free. Any thread."""
        if self._is_waiting:
            self.bell.ring()

    def close(self) -> None:
        """Hang up, whatever is out."""
        for watch in self._watches.values():
            watch.line.close()
        self._watches.clear()

    def _read_blind(self, after: Mapping[str, str], seconds: float) -> list[str]:
        found = []
        for stream, entry in after.items():
            watch = self._watches[stream]
            watch.send(entry, 0, 0)
            if watch.has_news():
                found.append(stream)
        if not found and seconds > 0:
            self._wait(min(seconds, _BLIND), [])
        return found

    def _wait(self, seconds: float, fds: list[int]) -> list[int]:
        self._is_waiting = True
        try:
            return self.bell.wait(seconds, *fds)
        finally:
            self._is_waiting = False


class _Watch:
    """One stream's read."""

    def __init__(self, client: redis.Redis, stream: str) -> None:
        self.stream = stream
        self.line = Line(client)
        self.reply: Reply | None = None
        #: Seconds on CLOCK_BOOTTIME.
        self.dead_at = 0.0

    def send(self, after: str, block: float, dead_at: float) -> None:
        """``block``: seconds, 0 for no wait."""
        wait = ("BLOCK", round(block * 1000)) if block else ()
        self.dead_at = dead_at
        self.reply = self.line.send("XREAD", "COUNT", 1, *wait, "STREAMS", self.stream, after)

    def has_news(self) -> bool:
        reply, self.reply = self.reply, None
        return reply is not None and bool(reply.get())
