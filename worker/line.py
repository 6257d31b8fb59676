"""Several commands under way on one connection of its own: sent at once, answered when somebody asks."""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

import redis

#: In place of a reply that is not here yet.
_NOTHING = object()


class Reply:
    """The answer to one command."""

    __slots__ = ("_line", "_value")

    def __init__(self, line: Line) -> None:
        self._line = line
        self._value: Any = _NOTHING

    def get(self) -> Any:
        """
        Wait for it.

        Raises:
            redis.RedisError: what the server said, or that the connection broke: nothing is known of the command.
        """
        if self._value is _NOTHING:
            self._line.read_until(self)
        if isinstance(self._value, Exception):
            raise self._value
        return self._value

    @property
    def is_here(self) -> bool:
        return self._value is not _NOTHING

    def fill(self, value: Any) -> None:
        self._value = value


class Line:
    """
    A connection whose commands do not wait for each other's replies; the server works them in order. For one thread.
    It repeats nothing: when the connection breaks, every reply that is still out is that error.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        self._connection: Any = None
        self._out: deque[Reply] = deque()

    def send(self, *command: str | bytes | int | float) -> Reply:
        """
        Send one command.

        Raises:
            redis.RedisError: it may or may not have arrived.
        """
        try:
            connection = self._connect()
            # No health check: its PING would take the place of a reply that is out.
            connection.send_packed_command(connection.pack_command(*command), check_health=False)
        except BaseException as error:
            self._break(error)
            raise
        reply = Reply(self)
        self._out.append(reply)
        return reply

    def read_until(self, wanted: Reply) -> None:
        """Read replies up to this one."""
        while not wanted.is_here:
            value: Any
            try:
                value = self._connection.read_response()
            except redis.ResponseError as error:
                value = error
            except BaseException as error:
                self._break(error)
                raise
            self._out.popleft().fill(value)

    def fileno(self) -> int | None:
        """
        Readable once a reply comes in; none where the connection is no socket, as in tests.

        Raises:
            redis.RedisError: the server is away.
        """
        link = getattr(self._connect(), "_sock", None)
        return link.fileno() if isinstance(link, socket.socket) else None

    def close(self) -> None:
        """Hang up. It may be used again."""
        self._break(redis.ConnectionError("the connection was closed"))

    def _connect(self) -> Any:
        if self._connection is None:
            self._connection = self._pool.get_connection()
        return self._connection

    def _break(self, error: BaseException) -> None:
        fault = error if isinstance(error, Exception) else redis.ConnectionError(repr(error))
        while self._out:
            self._out.popleft().fill(fault)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)
