"""Several commands under way on one connection of its own: sent at once, answered when somebody asks."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import hiredis
import redis

#: In place of a reply that is not here yet.
_NOTHING = object()


class Sent(Protocol):
    """What is on its way."""

    def get(self) -> Any:
        """
        Wait for the answer.

        Raises:
            redis.RedisError: what the server said, or that the connection broke: nothing is known of the command.
        """


class Reply:
    """The answer to one command."""

    __slots__ = ("_line", "_value")

    def __init__(self, line: Line) -> None:
        self._line = line
        self._value: Any = _NOTHING

    def get(self) -> Any:
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
        #: Commands sent so far.
        self.sent = 0

    def send(self, *command: Any) -> Reply:
        """
        Send one command: its words as ``str``, ``bytes``, ``int`` or ``float``.

        Raises:
            redis.RedisError: it may or may not have arrived.
        """
        try:
            # No health check: its PING would take the place of a reply that is out.
            self._connect().send_packed_command([hiredis.pack_command(command)], check_health=False)
        except BaseException as error:
            self._break(error)
            raise
        reply = Reply(self)
        self._out.append(reply)
        self.sent += 1
        return reply

    def eval(self, text: str, digest: str, keys: Sequence[str], args: Sequence[Any]) -> Sent:
        """
        Send a call of a script, by its digest. A server that does not know it yet is told when the answer is got.

        Raises:
            redis.RedisError: it may or may not have arrived.
        """
        return _Eval(
            self, self.send("EVALSHA", digest, len(keys), *keys, *args), (text, len(keys), *keys, *args)
        )

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

    @property
    def address(self) -> str:
        """
        Where the server is, as this client reached it.

        Raises:
            redis.RedisError: the server is away.
        """
        connection = self._connect()
        host, port = getattr(connection, "host", None), getattr(connection, "port", None)
        return f"{host}:{port}" if host else str(getattr(connection, "path", ""))

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


class _Eval:
    def __init__(self, line: Line, reply: Reply, again: tuple[Any, ...]) -> None:
        self._line = line
        self._reply = reply
        self._again = again

    def get(self) -> Any:
        try:
            return self._reply.get()
        except redis.exceptions.NoScriptError:
            # Nothing ran: a restart or SCRIPT FLUSH.
            return self._line.send("EVAL", *self._again).get()
