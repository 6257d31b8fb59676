"""One queue as one consumer reads it."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from worker.script import Script
from worker.transport.entry import StreamMessage, tag_of

if TYPE_CHECKING:
    import redis

    from worker.line import Line
    from worker.transport.options import Options

_TAKE = Script("worker.transport", "take")

#: Seconds between two looks for what silent consumers left, at least.
_LOOK_AGAIN = 0.2
#: Seconds between two looks whether full lanes have become emptier.
_FULL_AGAIN = 0.02
_FIRST = "0-0"


class _Asked(NamedTuple):
    """A take on its way."""

    get: Callable[[], Any]
    limit: int
    #: Seconds on CLOCK_BOOTTIME.
    at: float
    #: Whether it looks for what silent consumers left.
    looks: bool


class Source:
    """A stream, and how far this consumer has looked through it."""

    def __init__(self, client: redis.Redis, queue: str, options: Options, line: Line | None = None) -> None:
        """``line`` lets `ask` send ahead of `take`."""
        self.queue = queue
        #: The id to wait after; None when an entry may be there already.
        self.last: str | None = None
        #: Whether the lanes are full, so that nothing new may be taken.
        self.full = False
        #: When to look again for what silent consumers left.
        self.look_at = 0.0
        self._client = client
        self._line = line
        self._asked: _Asked | None = None
        self._options = options
        self._keys = [queue, options.lanes.get(queue, queue), options.dead.get(queue, queue)]
        # Where nothing is oversized, nothing is too large to unpack either.
        self._bytes_max = options.max_entry_bytes if queue in options.dead else sys.maxsize - 1
        self._cursor = _FIRST
        self._again_at = 0.0

    @property
    def due_at(self) -> float:
        """When to take again, on CLOCK_BOOTTIME: there may be something new, or something left by a silent consumer."""
        if self._asked is not None:
            return 0.0
        if self.full:
            return min(self._again_at, self.look_at)
        return 0.0 if self.last is None else self.look_at

    def ask(self, count: int) -> None:
        """Send for at most ``count`` entries, if there may be some; the next `take` brings them."""
        if self._line is not None and self.last is None and not self.full:
            self._asked = self._send(count)

    @property
    def asked(self) -> int:
        """How many entries may be on their way."""
        return self._asked.limit if self._asked is not None else 0

    def take(self, channel: Any, count: int, in_hand: Container[str]) -> list[StreamMessage]:
        """
        Take at most ``count`` entries, or as many as were asked for, and leave out what is ``in_hand`` (delivery
        tags). Never waits for more to come.
        """
        asked, self._asked = self._asked or self._send(count), None
        now, looks = asked.at, asked.looks
        reply = asked.get()
        silent: list[Any]
        new: list[Any]
        match reply:
            case [b"taken", cursor, silent, new]:
                # One that did not get as many as it asked for has seen the end.
                is_end = bool(new) and len(silent) + len(new) < asked.limit
                self.last, self.full = new[-1][0].decode() if is_end else None, False
            case [b"empty", cursor, last]:
                silent, new = [], []
                self.last, self.full = last.decode(), False
            case [b"full", cursor, silent]:
                new = []
                self.last, self.full = None, True
                self._again_at = now + _FULL_AGAIN
            case other:
                raise AssertionError(other)
        if looks:
            self._cursor = cursor.decode()
            pause = self._options.min_idle / 5 if self._cursor == _FIRST else 0.0
            self.look_at = now + max(_LOOK_AGAIN, pause)
        queue, bytes_max = self.queue, self._bytes_max
        # What we hold ourselves may have been silent for too long; then we took it over from ourselves.
        messages = [
            StreamMessage(channel, queue, entry.decode(), fields, times, bytes_max)
            for entry, fields, times in silent
            if tag_of(entry.decode(), queue) not in in_hand
        ]
        messages += [
            StreamMessage(channel, queue, entry.decode(), fields, 1, bytes_max) for entry, fields in new
        ]
        return messages

    def _send(self, count: int) -> _Asked:
        options, now = self._options, self._options.clock.boottime()
        looks = now >= self.look_at
        count = min(count, options.batch)
        args = (
            options.group,
            options.consumer,
            count,
            int(options.min_idle * 1000) if looks else -1,
            self._cursor,
            options.max_entry_bytes,
            options.lanes_max,
        )
        if self._line is not None:
            return _Asked(_TAKE.ask(self._line, self._keys, *args), count, now, looks)
        reply = _TAKE(self._client, self._keys, *args)
        return _Asked(lambda: reply, count, now, looks)

    def look_soon(self) -> None:
        """Something was put back: look for it as soon as is fair."""
        self.look_at = min(self.look_at, self._options.clock.boottime() + _LOOK_AGAIN)


def by_queue(tags: Iterable[str]) -> dict[str, list[str]]:
    """Delivery tags as entry ids, by queue."""
    ids: dict[str, list[str]] = defaultdict(list)
    for tag in tags:
        entry, _, queue = tag.partition("@")
        ids[queue].append(entry)
    return ids
