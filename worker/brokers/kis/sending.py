"""
How a request leaves this machine: in one piece, once, in time or not at all, and knowing whether it left.

A request waits in memory until its last byte is there. Right before the first byte goes to the kernel a timer of the
kernel's is armed whose signal ends the process, then the clock is looked at, then all of it is written, then the timer
is disarmed. A look and a write are two steps, and a process that was frozen between them would otherwise write late
when it wakes. And as bytes leave in one place only, `Departure.left` tells *not sent* from *unknown* whatever the error.

The sockets have TCP_USER_TIMEOUT of 1 s and SO_LINGER (1, 0): the kernel does not go on delivering for a dead process.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import h11
import httpcore2
import httpx2
from httpcore2 import ConnectionPool as Connections

from worker.brokers.kis.deadline import killed_after
from worker.clock import Clock, SystemClock

#: Milliseconds that the kernel may try to deliver what nobody acknowledges.
USER_TIMEOUT_MS: Final = 1000
#: What is left until the deadline must be at least so many seconds at the last look, so that an honest write is
#: over before the timer fires.
MARGIN: Final = 0.05

_SOCKET_OPTIONS: Final[list[tuple[int, int, int] | tuple[int, int, bytes | bytearray]]] = [
    (socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
]
if hasattr(socket, "TCP_USER_TIMEOUT"):
    _SOCKET_OPTIONS.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS))

#: Bytes of an answer's head, as httpcore2 takes them.
_HEAD_MAX: Final = 100 * 1024
#: Bytes of a whole answer. The longest that KIS gives is a page of a list, of a hundred rows.
_ANSWER_MAX: Final = 4 * 1024 * 1024


class TooLate(Exception):
    """The deadline was over at the last look. No byte left."""


class Departure:
    """One request on its way out, in the thread that sends it."""

    def __init__(self, send_before: float | None, reply_timeout: float) -> None:
        #: Seconds on ``CLOCK_BOOTTIME``.
        self.send_before = send_before
        self.reply_timeout = reply_timeout
        #: Bytes of it were handed to the kernel; whether all of them, nobody knows.
        self.left = False
        self.answer_by: float | None = None
        #: What came back so far, as it came.
        self.received = bytearray()
        self.stream: httpcore2.NetworkStream | None = None

    def distrust(self) -> None:
        """Never use its connection again: what may still come on it would be taken for the answer to another."""
        if self.stream is not None:
            self.stream.close()


class OneWay:
    """
    Sends requests of httpx2, each once and never again: no redirect, proxy, cookie or repetition, and no log of a URL
    with an account in it. Connections are kept open. Safe to share between threads.
    """

    def __init__(self, clock: Clock, connections: int, tls: ssl.SSLContext | None) -> None:
        self._gate = _Gate(clock)
        self._pool = Connections(
            ssl_context=tls,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=30.0,
            retries=0,
            network_backend=_Backend(self._gate),
        )

    @contextmanager
    def send(self, request: httpx2.Request, departure: Departure) -> Iterator[httpx2.Response]:
        """
        Send a request and read the whole answer. While the block runs, nobody else can use the connection: judge the
        answer in it, and `Departure.distrust` the connection if need be.

        Raises:
            TooLate: the deadline was over; no byte left.
            httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError: no answer. ``departure``
                tells whether it left.
        """
        self._gate.open(departure)
        found: httpcore2.Response | None = None
        try:
            found = self._pool.handle_request(_as_httpcore(request))
            content = found.read()
            if not _is_one_answer(bytes(departure.received)):
                departure.distrust()
            # Nobody asked for a packed answer, and a few bytes of one can unpack to more than memory holds.
            headers = [(name, value) for name, value in found.headers if name.lower() != b"content-encoding"]
            yield httpx2.Response(found.status, headers=headers, content=content)
        finally:
            if found is not None:
                found.close()
            self._gate.close()

    def close(self) -> None:
        self._pool.close()


def _as_httpcore(request: httpx2.Request) -> httpcore2.Request:
    url = httpcore2.URL(
        scheme=request.url.raw_scheme,
        host=request.url.raw_host,
        port=request.url.port,
        target=request.url.raw_path,
    )
    return httpcore2.Request(
        request.method,
        url,
        headers=request.headers.raw,
        content=request.content,
        extensions=request.extensions,
    )


def _is_one_answer(data: bytes) -> bool:
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_MAX)
    reader.send(h11.Request(method="POST", target="/", headers=[("host", "kis"), ("content-length", "0")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(data)
    while not isinstance(event := reader.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            return False
    return not reader.trailing_data[0]


class _Gate(threading.local):
    # A request is one thread's from its start to its end.
    departure: Departure | None = None

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        # A clock that a test moves is set against the kernel's; the system's own is the kernel's.
        self.skew = 0.0 if isinstance(clock, SystemClock) else SystemClock().boottime() - clock.boottime()

    def open(self, departure: Departure) -> None:
        self.departure = departure

    def close(self) -> None:
        self.departure = None

    def pass_through(self, stream: httpcore2.NetworkStream, data: bytes, timeout: float | None) -> None:
        departure = self.departure
        if departure is None or departure.left:
            raise RuntimeError("a request leaves once, through send()")
        if departure.send_before is None:
            departure.left = True
            stream.write(data, timeout)
        else:
            # The first look only spares the process its timer where lateness is plain.
            self._time_left(departure.send_before)
            with killed_after(departure.send_before + self.skew):
                left = self._time_left(departure.send_before) - MARGIN / 2
                departure.left = True
                stream.write(data, left if timeout is None else min(timeout, left))
        departure.answer_by = self.clock.boottime() + departure.reply_timeout

    def received(self, stream: httpcore2.NetworkStream, data: bytes) -> None:
        if self.departure is not None:
            self.departure.stream = stream
            self.departure.received += data
            if len(self.departure.received) > _ANSWER_MAX:
                raise httpcore2.ReadError("the answer has no end")

    def _time_left(self, send_before: float) -> float:
        left = send_before - self.clock.boottime()
        if left < MARGIN:
            raise TooLate
        return left

    def patience(self, timeout: float | None) -> float | None:
        """A server that sends byte by byte gets no more time than one that is silent."""
        departure = self.departure
        if departure is None or departure.answer_by is None or timeout is None:
            return timeout
        return max(min(timeout, departure.answer_by - self.clock.boottime()), 0.001)


class _Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream, gate: _Gate) -> None:
        self._inner = inner
        self._gate = gate
        self._waiting = bytearray()
        self._was_used = False
        self._timeout: float | None = None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._waiting += buffer
        self._timeout = timeout

    # Whoever reads has written all of the request.
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._waiting:
            data = bytes(self._waiting)
            self._waiting.clear()
            if self._was_used and self._inner.get_extra_info("is_readable"):
                # Closed meanwhile, or there is an answer to nothing, which would be taken for the one to this.
                # (On a new connection it may be TLS that has something to say.)
                raise httpcore2.ReadError("the connection was not at rest")
            self._was_used = True
            self._gate.pass_through(self._inner, data, self._timeout)
        found = self._inner.read(max_bytes, self._gate.patience(timeout))
        self._gate.received(self, found)
        return found

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._gate)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, gate: _Gate) -> None:
        self._inner = httpcore2.SyncBackend()
        self._gate = gate

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        found = self._inner.connect_tcp(host, port, timeout, local_address, _SOCKET_OPTIONS)
        return _Stream(found, self._gate)

    def sleep(self, seconds: float) -> None:
        raise RuntimeError("nothing is tried again down here")
