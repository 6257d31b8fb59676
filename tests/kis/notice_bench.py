"""What the tests of KIS's notices share: a listener in a thread, a scripted server, and records to send."""

from __future__ import annotations

import base64
import json
import logging
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from kis_bench import http
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from contracts import OrderNotice
from worker.brokers.base import BaseBrokerAdapter
from worker.clock import ManualClock

HTS_ID = "trader1"
#: The seal of every subscription at the scripted server.
KEY, IV = "k" * 16 + "0123456789abcdef", "iv-of-the-tests!"
PATIENCE = 20.0
# What is looked for in the logs is what our end writes.
_silent = logging.getLogger("scripted KIS")
_silent.setLevel(logging.CRITICAL)


class PacedClock(ManualClock):
    """A clock that the test moves. Waits are noted, move it, and take a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        super().wait(event, seconds)
        return event.wait(0.01)


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Wait for it."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.005)


class Listener:
    """One call of ``notices``, and what it has told."""

    def __init__(self, adapter: BaseBrokerAdapter) -> None:
        self.notices: list[OrderNotice] = []
        self.gaps = 0
        #: ``gap`` and the notices, in order.
        self.told: list[OrderNotice | str] = []
        self.raised: list[BaseException] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(adapter,), daemon=True)
        self.thread.start()

    def _run(self, adapter: BaseBrokerAdapter) -> None:
        try:
            adapter.notices(self._heard, self._gap, self.stop)
        except BaseException as error:  # noqa: BLE001
            self.raised.append(error)

    def _heard(self, notice: OrderNotice) -> None:
        self.notices.append(notice)
        self.told.append(notice)

    def _gap(self) -> None:
        self.gaps += 1
        self.told.append("gap")

    def wait_for_gaps(self, count: int = 1) -> None:
        until(lambda: self.gaps >= count or self.raised)
        assert self.raised == []

    def wait_for_notices(self, count: int) -> list[OrderNotice]:
        until(lambda: len(self.notices) >= count or self.raised)
        assert self.raised == []
        return self.notices

    def end(self, seconds: float = PATIENCE) -> None:
        self.stop.set()
        self.thread.join(seconds)
        assert not self.thread.is_alive()
        assert self.raised == []


@contextmanager
def listening(adapter: BaseBrokerAdapter) -> Iterator[Listener]:
    listener = Listener(adapter)
    try:
        yield listener
    finally:
        listener.end()


# --- A server that does as it is told -------------------------------------------------------------------------


class Wire:
    """The server's end of one WebSocket connection."""

    def __init__(self, one: socket.socket) -> None:
        one.settimeout(PATIENCE)
        self.socket = one
        self._protocol = ServerProtocol(logger=_silent)
        self._heard: deque[str] = deque()
        #: What was asked for, in order.
        self.asked: list[dict[str, Any]] = []

    def shake_hands(self) -> None:
        while self._protocol.state is not State.OPEN:
            self._receive()

    def recv(self) -> str:
        """
        Raises:
            OSError: the other end has left.
        """
        while not self._heard:
            self._receive()
        return self._heard.popleft()

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data or self._protocol.state is State.CLOSED:
            raise OSError("the other end has left")
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self._heard.append(bytes(event.data).decode())
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.socket.sendall(data)
            else:
                self.half_close()

    def ask(self) -> dict[str, Any]:
        """Read one subscription."""
        self.asked.append(json.loads(self.recv()))
        return self.asked[-1]

    def answer(self, asked: Mapping[str, Any], code: str = "OPSP0000", rt_cd: str = "0") -> None:
        tr_id = asked["body"]["input"]["tr_id"]
        body: dict[str, Any] = {"rt_cd": rt_cd, "msg_cd": code, "msg1": f"words about {code}"}
        if rt_cd == "0":
            body["output"] = {"key": KEY, "iv": IV}
        self.say(json.dumps({"header": {"tr_id": tr_id, "tr_key": HTS_ID, "encrypt": "Y"}, "body": body}))

    def grant(self, count: int = 1) -> None:
        """Grant so many subscriptions."""
        for _ in range(count):
            self.answer(self.ask())

    def say(self, text: str | bytes) -> None:
        if isinstance(text, str):
            self._protocol.send_text(text.encode())
        else:
            self._protocol.send_binary(text)
        self._flush()

    def stay(self) -> None:
        """Read until the other end leaves."""
        with suppress(OSError):
            while True:
                self.recv()

    def bid_farewell(self, words: str = "") -> None:
        self._protocol.send_close(1008, words)
        self._flush()
        self.stay()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)


#: What the server does with one connection.
Script = Callable[[Wire], None]


class ScriptedKIS:
    """Approval keys and WebSockets on one port. The first connection has the first script, and so on; the last stays."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        #: Answers of the approval call, before it answers as it should.
        self.approvals: list[bytes] = []
        self.keys_given = 0
        #: Called before a handshake is answered.
        self.before_handshake: Callable[[socket.socket], object] = lambda one: None
        self.wires: list[Wire] = []
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    @contextmanager
    def serve(self) -> Iterator[ScriptedKIS]:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            with suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            thread.join(5)
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def _run(self) -> None:
        while True:
            try:
                one, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(one)
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one: socket.socket) -> None:
        with suppress(OSError):
            if one.recv(4, socket.MSG_PEEK) == b"POST":
                self._approve(one)
                return
            self.before_handshake(one)
            wire = Wire(one)
            wire.shake_hands()
            self.wires.append(wire)
            self._scripts[min(len(self.wires), len(self._scripts)) - 1](wire)

    def _approve(self, one: socket.socket) -> None:
        found = b""
        while not found.endswith(b"}"):
            found += one.recv(65536)
        if self.approvals:
            one.sendall(self.approvals.pop(0))
        else:
            self.keys_given += 1
            one.sendall(http({"approval_key": f"approval-{self.keys_given}"}))
        one.close()


def stay(wire: Wire) -> None:
    """Grant what is asked for, and keep the line."""
    wire.grant()
    wire.stay()


# --- What it says ---------------------------------------------------------------------------------------------

_FIELDS = (
    "CUST_ID ACNT_NO ODER_NO OODER_NO SELN_BYOV_CLS RCTF_CLS ODER_KIND ODER_COND STCK_SHRN_ISCD CNTG_QTY CNTG_UNPR "
    "STCK_CNTG_HOUR RFUS_YN CNTG_YN ACPT_YN BRNC_NO ODER_QTY ACNT_NAME ORD_COND_PRC ORD_EXG_GB POPUP_YN FILLER "
    "CRDT_CLS CRDT_LOAN_DATE CNTG_ISNM40 ODER_PRC"
)
_US_FIELDS = (
    "CUST_ID ACNT_NO ODER_NO OODER_NO SELN_BYOV_CLS RCTF_CLS ODER_KIND2 STCK_SHRN_ISCD CNTG_QTY CNTG_UNPR "
    "STCK_CNTG_HOUR RFUS_YN CNTG_YN ACPT_YN BRNC_NO ODER_QTY ACNT_NAME CNTG_ISNM ODER_COND DEBT_GB DEBT_DATE "
    "START_TM END_TM TM_DIV_TP CNTG_UNPR12"
)
_BASE = {
    "CUST_ID": HTS_ID,
    "ACNT_NO": "1234567801",
    "ODER_NO": "0000117057",
    "SELN_BYOV_CLS": "02",
    "RCTF_CLS": "0",
    "CNTG_QTY": "10",
    "CNTG_UNPR": "0",
    "STCK_CNTG_HOUR": "100000",
    "RFUS_YN": "0",
    "CNTG_YN": "1",
    "ACPT_YN": "1",
    "BRNC_NO": "91252",
    "ACNT_NAME": "somebody",
}


def record(**changes: str) -> tuple[str, ...]:
    """A domestic record: 10 005930 were received at ten; with the given fields changed."""
    found = _BASE | {"ODER_KIND": "00", "STCK_SHRN_ISCD": "005930", "ODER_QTY": "10"} | changes
    return tuple(found.get(name, "") for name in _FIELDS.split())


def us_record(**changes: str) -> tuple[str, ...]:
    """An overseas record: 10 AAPL were received at ten in the evening; with the given fields changed."""
    found = (
        _BASE
        | {"ODER_KIND2": "2", "STCK_SHRN_ISCD": "AAPL", "ODER_COND": "6", "STCK_CNTG_HOUR": "220000"}
        | changes
    )
    return tuple(found.get(name, "") for name in _US_FIELDS.split())


def execution(quantity: int, price: str) -> dict[str, str]:
    """The fields of an execution."""
    return {"CNTG_YN": "2", "ACPT_YN": "2", "CNTG_QTY": str(quantity), "CNTG_UNPR": price}


def sealed(text: str, key: str = KEY, iv: str = IV) -> str:
    padder = PKCS7(128).padder()
    padded = padder.update(text.encode()) + padder.finalize()
    sealer = Cipher(algorithms.AES(key.encode()), modes.CBC(iv.encode())).encryptor()
    return base64.b64encode(sealer.update(padded) + sealer.finalize()).decode()


def frame(*records: tuple[str, ...], tr_id: str = "H0STCNI0") -> str:
    """Records in one sealed frame."""
    text = "^".join("^".join(each) for each in records)
    return f"1|{tr_id}|{len(records):03}|{sealed(text)}"
