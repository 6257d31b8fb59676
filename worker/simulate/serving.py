"""uvicorn, in a thread of its own or in this one; and what HTTP alone cannot do to a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

#: The connection under a request, in its scope.
TRANSPORT = "execution_worker.transport"


class _Protocol(H11Protocol):
    # An application of the usual kind never sees the connection; faults need it.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        inner: Any = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope[TRANSPORT] = self.transport
            await inner(scope, receive, send)

        self.app = with_transport


def reset(transport: asyncio.Transport) -> None:
    """End the connection with a reset: what was not delivered yet is gone."""
    transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    transport.abort()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        #: Set when it is up, or has failed to come up.
        self.decided = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.decided.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Calls that a fault keeps waiting would keep the server up.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def _server(app: ASGIApp) -> _Server:
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="websockets-sansio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=2,
    )
    return _Server(config)


def listen(host: str, port: int) -> socket.socket:
    """
    A listening socket; port 0 takes a free one.

    Raises:
        OSError: the address cannot be had.
    """
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it, each answer may wait for 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(256)
    except OSError:
        found.close()
        raise
    return found


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_until_stopped(app: ASGIApp, listening: socket.socket) -> None:
    """Serve in this thread, until SIGINT or SIGTERM."""
    _server(app).run(sockets=[listening])


@contextmanager
def served(app: ASGIApp, listening: socket.socket) -> Iterator[str]:
    """Serve in a thread of its own while the block runs. Yields the base URL."""
    server = _server(app)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="simulator", daemon=True
    )
    thread.start()
    server.decided.wait()
    try:
        if not server.started:
            raise RuntimeError("the simulator did not come up; its log says why")
        yield url_of(listening)
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
