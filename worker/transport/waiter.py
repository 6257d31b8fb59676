"""A read that blocks, and can be ended from another thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

if TYPE_CHECKING:
    import redis

    from worker.clock import Clock

#: Seconds that `Waiter.wake` goes on trying: longer than any one read blocks.
_TRY_FOR = 1.0


class Waiter:
    """Waits for entries on a connection of its own, so that nobody else's command waits behind it."""

    def __init__(self, client: redis.Redis, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._connection: Any = None
        self._id = 0
        self._blocked = False
        self._woken = threading.Event()
        #: Set when a prefetch slot may have become free.
        self.room = threading.Event()

    @property
    def woken(self) -> bool:
        return self._woken.is_set()

    def reset(self) -> None:
        """Take note of the wake; the next read blocks again."""
        self._woken.clear()

    def rest(self, seconds: float) -> None:
        """Wait for room or a wake, with nothing to read."""
        if not self.woken:
            self._clock.wait(self.room, seconds)
        self.room.clear()

    def read(self, after: dict[str, str], seconds: float) -> None:
        """
        Return once a stream has an entry after its id, the time is over, or somebody wakes us.

        Raises:
            redis.RedisError: the server is away.
        """
        connection = self._connect()
        self._blocked = True
        try:
            # A wake that came before the line above saw no blocked read; one that comes later keeps trying.
            if self.woken:
                return
            block_ms = max(1, int(seconds * 1000))
            connection.send_command(
                "XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", *after.keys(), *after.values()
            )
            connection.read_response()
        except BaseException:
            # A reply may still be under way: this connection is of no more use.
            self.close()
            raise
        finally:
            self._blocked = False

    def wake(self) -> None:
        """End the read that blocks now, or else the next one. Any thread."""
        self._woken.set()
        self.room.set()
        give_up = self._clock.boottime() + _TRY_FOR
        while self._blocked and self._clock.boottime() < give_up:
            try:
                if self._client.client_unblock(self._id):
                    return
            except RedisError:
                return  # Then the read fails as well.
            # It is about to block: sent, and not yet with the server.
            self._clock.wait(_NEVER, 0.001)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._client.connection_pool.release(connection)

    def _connect(self) -> Any:
        if self._connection is None:
            self._connection = self._client.connection_pool.get_connection()
            self._connection.send_command("CLIENT", "ID")
            self._id = int(self._connection.read_response())
        return self._connection


_NEVER = threading.Event()
