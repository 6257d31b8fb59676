"""
One small HTTP server per process: ``/metrics`` for Prometheus, ``/livez`` and ``/readyz`` for probes, ``/state``.

``/livez`` asks nobody else: a Redis that is away must not get a worker killed, only made not ready.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from worker.errors import ConfigError
from worker.logs import Event, Logger, silent

#: Where the server listens when no port is configured; a taken one falls forward to the next.
PORT_DEFAULT: Final = 9464
_PORTS_TRIED = 200
#: Seconds that a client may take to send its request or take its answer.
_CLIENT_TIMEOUT = 5.0

#: Asked by a probe: ``None`` when all is well, or the reason why not, for people.
Check = Callable[[], str | None]
_Page = tuple[HTTPStatus, str, bytes]


class HealthServer:
    """Answers probes and scrapes from threads of its own; what it answers comes from the callables it is given."""

    def __init__(
        self,
        host: str,
        port: int | None,
        *,
        registry: CollectorRegistry,
        live: Check,
        ready: Check,
        state: Callable[[], Mapping[str, object]],
        logger: Logger | None = None,
    ) -> None:
        self._host = host
        self._wanted = port
        self._pages: dict[str, Callable[[str], _Page]] = {
            "/metrics": lambda accept: _metrics(registry, accept),
            "/livez": lambda _: _probe(live()),
            "/readyz": lambda _: _probe(ready()),
            "/state": lambda _: _json(state()),
        }
        self._logger = logger or silent()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on. Present once started."""
        if self._server is None:
            raise RuntimeError("the health server is not started")
        return int(self._server.server_address[1])

    def start(self) -> int:
        """
        Listen, and return the port.

        Raises:
            ConfigError: the configured port or host cannot be had.
        """
        self._server = self._bind()
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="health", daemon=True
        )
        self._thread.start()
        return self.port

    def try_port(self) -> int:
        """
        The port that `start` would get now, without listening on it.

        Raises:
            ConfigError: as `start`.
        """
        with self._bind() as server:
            return int(server.server_address[1])

    def stop(self) -> None:
        """Stop listening. May be called twice, or before the start."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None

    def _bind(self) -> _Server:
        last = PORT_DEFAULT + _PORTS_TRIED - 1
        ports = range(PORT_DEFAULT, last + 1) if self._wanted is None else (self._wanted,)
        for port in ports:
            try:
                return _Server(self._host, port, self._pages, self._logger)
            except socket.gaierror:
                raise ConfigError([self._no_such_host("is no known name")]) from None
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise ConfigError([self._no_such_host("is not an address of this machine")]) from None
                raise ConfigError([self._no_port(port, error.strerror or str(error))]) from None
        if self._wanted is not None:
            raise ConfigError([self._no_port(self._wanted, "another process has it")])
        raise ConfigError(
            [f"EXECWORKER_METRICS_PORT: no port from {PORT_DEFAULT} to {last} is free; name one that is"]
        )

    def _no_such_host(self, why: str) -> str:
        return f"EXECWORKER_METRICS_HOST: {self._host} {why}; give 127.0.0.1, 0.0.0.0 or one that is"

    def _no_port(self, port: int, why: str) -> str:
        return (
            f"EXECWORKER_METRICS_PORT (or PORT): cannot listen on {self._host} port {port}: {why}; "
            "give another port, or leave both out to take the next free one"
        )


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, host: str, port: int, pages: Mapping[str, Callable[[str], _Page]], logger: Logger
    ) -> None:
        self.pages = pages
        self._logger = logger
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        super().__init__(address, _Handler)  # type: ignore[arg-type]  # its stub knows IPv4 only

    def server_bind(self) -> None:
        # Not HTTPServer's own: that one looks the host up in the DNS, and may hang there for seconds.
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Called while the error is handled. A client that went away is no fault of anybody's.
        error = sys.exc_info()[1]
        if isinstance(error, (ConnectionError, TimeoutError)):
            return
        with contextlib.suppress(OSError):
            request.sendall(
                b"HTTP/1.0 500 Internal Server Error\r\n\r\nA fault of the worker; its log has the stack.\n"
            )
        self._logger.error(Event.HEALTH_FAULT, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "execworker"
    sys_version = ""
    timeout = _CLIENT_TIMEOUT

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        page = self.server.pages.get(path.rstrip("/") or "/")
        if page is None:
            paths = " ".join(self.server.pages)
            status, kind, body = _text(HTTPStatus.NOT_FOUND, f"There is no {path} here, only: {paths}")
        else:
            status, kind, body = page(self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        # A probe a second is not worth a line.
        pass


def _metrics(registry: CollectorRegistry, accept: str) -> _Page:
    encode, kind = choose_encoder(accept)
    return HTTPStatus.OK, kind, encode(registry)


def _probe(reason: str | None) -> _Page:
    return _text(HTTPStatus.OK, "ok") if reason is None else _text(HTTPStatus.SERVICE_UNAVAILABLE, reason)


def _json(value: Mapping[str, object]) -> _Page:
    body = json.dumps(value, default=str, ensure_ascii=False, indent=2) + "\n"
    return HTTPStatus.OK, "application/json", body.encode()


def _text(status: HTTPStatus, text: str) -> _Page:
    return status, "text/plain; charset=utf-8", f"{text}\n".encode()
