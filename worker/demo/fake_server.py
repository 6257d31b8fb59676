"""A Redis made of Python (fakeredis) on a free loopback port, which it prints. Runs until it is ended."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler
from redis.exceptions import ResponseError


class _Patient:
    """Writes all of a reply. fakeredis makes its sockets non-blocking, where ``sendall`` fails half-way."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            select.select([], [self._connection], [])
            try:
                rest = rest[self._connection.send(rest) :]
            except BlockingIOError:
                continue

    def flush(self) -> None:
        pass


class _Handler(TCPFakeRequestHandler):
    # With Nagle's algorithm each reply waits 40 ms for the client's delayed acknowledgement.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.writer.writer = _Patient(self.connection)  # type: ignore[assignment]  # all that it calls
        client: Any = self.current_client
        client.read_response = partial(_reply, client.read_response)


# fakeredis hangs up after an error reply; a server sends it and goes on.
def _reply(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ResponseError as error:
        return error


def main() -> None:
    """Serve until a signal ends the process."""
    server = TcpFakeServer(("127.0.0.1", 0))
    server.RequestHandlerClass = _Handler
    server.daemon_threads = True
    print(server.server_address[1], flush=True)  # noqa: T201  the demo reads it
    server.serve_forever()


if __name__ == "__main__":
    main()
