"""What the tests of the KIS adapter share: credentials, requests, a scripted server, and a server to count on."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any

from pydantic import SecretStr

from contracts import OrderRequest, Side
from worker.brokers.kis import Account, Credentials, Environment
from worker.clock import SystemClock

APP_KEY, APP_SECRET = "PSkey-of-the-tests-0123456789abcdef", "secret-of-the-tests/" + "s" * 160
ACCOUNT = "12345678-01"


def credentials(environment: Environment = Environment.REAL, base_url: str = "") -> Credentials:
    return Credentials(
        environment, SecretStr(APP_KEY), SecretStr(APP_SECRET), Account.parse(ACCOUNT), base_url
    )


def options(base_url: str | None = None, **changes: Any) -> dict[str, Any]:
    """A route's options: real keys, in front of a server that never closes."""
    given: dict[str, Any] = {
        "environment": "real",
        "app_key": APP_KEY,
        "app_secret": APP_SECRET,
        "account": ACCOUNT,
        "base_url": base_url,
        "check_hours": False,
    }
    return given | changes


def request(**changes: Any) -> OrderRequest:
    """A limit buy of 10 005930 at 60,000, with the given fields changed."""
    fields: dict[str, Any] = {
        "client_order_id": "intent-1",
        "symbol": "005930",
        "side": Side.BUY,
        "quantity": Decimal(10),
        "limit_price": Decimal(60_000),
    }
    return OrderRequest(**(fields | changes))


TOKEN = {"access_token": "token-of-the-tests-abcdef", "token_type": "Bearer", "expires_in": 86400}
TAKEN = {
    "rt_cd": "0",
    "msg_cd": "APBK0013",
    "msg1": "주문 전송 완료 되었습니다.",
    "output": {"KRX_FWDG_ORD_ORGNO": "91252", "ODNO": "0000117057", "ORD_TMD": "100000", "SOR_ODNO": ""},
}


def http(body: Any, status: int = 200, **headers: str) -> bytes:
    """A response with its length."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\n{lines}\r\n".encode() + data


class QuickClock(SystemClock):
    """The system's clock, but nobody waits on it."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.is_set()


#: What a server does with a connection when it has read a whole request: the bytes to answer, or ``None`` to close.
Script = Callable[[bytes, socket.socket], bytes | None]


class RawServer:
    """A server of sockets. It answers the token call by itself, and leaves the rest to a script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        #: Whole requests but for those for a token, in the order of their arrival.
        self.requests: list[bytes] = []
        #: Connections that were accepted.
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._accepts_no_more = threading.Event()
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                self._accepts_no_more.set()
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def stop(self) -> None:
        _close(self._listening)
        # One may have been accepted at the last moment.
        self._accepts_no_more.wait(5)
        for one in self._open:
            _close(one)

    def _serve(self, connection: socket.socket) -> None:
        try:
            while (found := _read_request(connection)) is not None:
                if found.startswith(b"POST /oauth2/tokenP"):
                    connection.sendall(http(TOKEN))
                    continue
                self.requests.append(found)
                answer = self.script(found, connection)
                if answer is None:
                    connection.close()
                    return
                connection.sendall(answer)
        except OSError:
            return


def _close(one: socket.socket) -> None:
    # A close alone does not wake who waits in accept or recv.
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def raw_server(script: Script) -> Iterator[RawServer]:
    server = RawServer(script)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(5)


def _read_request(connection: socket.socket) -> bytes | None:
    found = b""
    while b"\r\n\r\n" not in found:
        part = connection.recv(65536)
        if not part:
            return None
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        ),
        0,
    )
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            return None
        body += part
    return head + b"\r\n\r\n" + body
