"""What one channel has in hand: entries handed over and not yet answered for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from worker.connection import CONNECTION_ERRORS
from worker.transport.source import by_queue

if TYPE_CHECKING:
    import redis

    from worker.line import Line, Reply
    from worker.transport.options import Options

#: Ids in one command.
_CHUNK = 1000


class Hand:
    """
    The entries in hand, and the acks not yet sent. Any thread may answer for an entry; one thread adds them.

    An entry is pending in Redis until its ack arrives there, so losing this object loses nothing.
    """

    def __init__(self, client: redis.Redis, options: Options, line: Line | None = None) -> None:
        """With a ``line``, acks do not wait for their confirmation; it is read before the next ones leave."""
        self._client = client
        self._options = options
        #: Tag → when it was taken. Each change is one dict operation, so no lock is needed.
        self._taken: dict[str, float] = {}
        self._acks: deque[str] = deque()
        self._line = line
        self._unconfirmed: list[tuple[list[str], Reply]] = []
        self._flushing = threading.Lock()

    def __len__(self) -> int:
        return len(self._taken)

    def __contains__(self, tag: object) -> bool:
        return tag in self._taken

    def add_many(self, tags: Iterable[str], now: float) -> None:
        self._taken.update(dict.fromkeys(tags, now))

    @property
    def has_acks(self) -> bool:
        """Whether acks wait to be sent."""
        return bool(self._acks)

    def tags(self) -> list[str]:
        return list(self._taken)

    def ack(self, tag: str) -> None:
        """Free the slot, and acknowledge with the next flush."""
        self._taken.pop(tag, None)
        self._acks.append(tag)

    def ack_many(self, tags: Iterable[str]) -> None:
        """
        Acknowledge now, one command a queue.

        Raises:
            redis.RedisError: it may not have arrived; the acks are kept and go out with the next flush.
        """
        for tag in tags:
            self._taken.pop(tag, None)
            self._acks.append(tag)
        self.flush()

    def forget(self, tag: str) -> None:
        """Free the slot. The entry stays pending, and comes back once ``min_idle`` is over."""
        self._taken.pop(tag, None)

    def put_back(self, tags: Iterable[str]) -> None:
        """Free the slots and let anybody take the entries over at once. They keep their ids and their order."""
        tags = list(tags)
        for tag in tags:
            self._taken.pop(tag, None)
        self._touch(tags, idle_ms=int(self._options.min_idle * 1000))

    def flush(self) -> None:
        """
        Send the acks that wait.

        Raises:
            redis.RedisError: they may not have arrived; they are kept and go out with the next flush.
        """
        with self._flushing:
            if not self._acks:
                return
            self.confirm()
            tags = [self._acks.popleft() for _ in range(len(self._acks))]
            try:
                for queue, ids in by_queue(tags).items():
                    for start in range(0, len(ids), _CHUNK):
                        self._ack(queue, ids[start : start + _CHUNK])
            except CONNECTION_ERRORS:
                # Acknowledging twice does no harm.
                self._acks.extendleft(reversed(tags))
                raise

    def _ack(self, queue: str, ids: list[str]) -> None:
        group = self._options.group
        if self._line is None:
            self._client.xack(queue, group, *ids)
            return
        tags = [f"{entry}@{queue}" for entry in ids]
        self._unconfirmed.append((tags, self._line.send("XACK", queue, group, *ids)))

    def confirm(self) -> None:
        """Wait until what was sent is confirmed; what was not goes out with the next flush."""
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        for tags, reply in unconfirmed:
            try:
                reply.get()
            except CONNECTION_ERRORS:
                self._acks.extend(tags)

    def keep_alive(self, now: float) -> None:
        """Tell Redis that what is long in hand is still being worked on, so that nobody takes it over."""
        before = now - self._options.min_idle / 3
        self._touch([tag for tag, taken in list(self._taken.items()) if taken <= before], idle_ms=0)

    def _touch(self, tags: list[str], *, idle_ms: int) -> None:
        options = self._options
        for queue, ids in by_queue(tags).items():
            for start in range(0, len(ids), _CHUNK):
                self._client.xclaim(
                    queue,
                    options.group,
                    options.consumer,
                    min_idle_time=0,
                    message_ids=list(ids[start : start + _CHUNK]),
                    idle=idle_ms,
                    justid=True,
                )
