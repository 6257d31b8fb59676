"""One queue as one consumer reads it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any

from worker.transport.entry import StreamMessage, tag_of
from worker.transport.scripts import Script

if TYPE_CHECKING:
    import redis

    from worker.transport.options import Options

_TAKE = Script("take")

#: Seconds between two looks for what silent consumers left, at least.
_LOOK_AGAIN = 0.2
#: Seconds between two looks whether full lanes have become emptier.
_FULL_AGAIN = 0.02
_FIRST = "0-0"


class Source:
    """A stream, and how far this consumer has looked through it."""

    def __init__(self, client: redis.Redis, queue: str, options: Options) -> None:
        self.queue = queue
        #: The id to wait after; None when an entry may be there already.
        self.last: str | None = None
        #: Whether the lanes are full, so that nothing new may be taken.
        self.full = False
        #: When to look again for what silent consumers left.
        self.look_at = 0.0
        self._client = client
        self._options = options
        self._keys = [queue, options.lanes.get(queue, queue), options.dead.get(queue, queue)]
        self._cursor = _FIRST
        self._again_at = 0.0

    @property
    def due_at(self) -> float:
        """When to take again, on CLOCK_BOOTTIME: there may be something new, or something left by a silent consumer."""
        if self.full:
            return min(self._again_at, self.look_at)
        return 0.0 if self.last is None else self.look_at

    def take(self, channel: Any, count: int, in_hand: Container[str]) -> list[StreamMessage]:
        """Take at most ``count`` entries, without waiting, and leave out what is ``in_hand`` (delivery tags)."""
        options, now = self._options, self._options.clock.boottime()
        looks = now >= self.look_at
        reply = _TAKE(
            self._client,
            self._keys,
            options.group,
            options.consumer,
            min(count, options.batch),
            int(options.min_idle * 1000) if looks else -1,
            self._cursor,
            options.max_entry_bytes,
            options.lanes_max,
        )
        silent: list[Any]
        new: list[Any]
        match reply:
            case [b"taken", cursor, silent, new]:
                # One that did not get as many as it asked for has seen the end.
                is_end = bool(new) and len(silent) + len(new) < min(count, options.batch)
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
            pause = options.min_idle / 5 if self._cursor == _FIRST else 0.0
            self.look_at = now + max(_LOOK_AGAIN, pause)
        queue = self.queue
        # What we hold ourselves may have been silent for too long; then we took it over from ourselves.
        messages = [
            StreamMessage(channel, queue, entry.decode(), fields, times)
            for entry, fields, times in silent
            if tag_of(entry.decode(), queue) not in in_hand
        ]
        messages += [StreamMessage(channel, queue, entry.decode(), fields, 1) for entry, fields in new]
        return messages

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
