"""
Execution notices over WebSocket: who may subscribe, what a frame holds, how it is sealed.

A connection is a `Session`; the `Noticeboard` holds them all and turns what happens on the exchange into frames.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from contracts import Side, TimeInForce
from worker.simulate.kis.options import KISOptions
from worker.simulate.orders import Change, Kind, Order, What
from worker.simulate.universe import universe
from worker.simulate.venues import SEOUL

DOMESTIC_NOTICES = {"real": "H0STCNI0", "paper": "H0STCNI9"}
OVERSEAS_NOTICES = {"real": "H0GSCNI0", "paper": "H0GSCNI9"}
#: Registrations of one app key.
MOST_SUBSCRIPTIONS = 41
_KINDS = {Kind.NEW: "0", Kind.MODIFY: "1", Kind.CANCEL: "2"}
_CONDITIONS = {TimeInForce.DAY: "0", TimeInForce.IOC: "1", TimeInForce.FOK: "2"}
_EXCHANGES = {"KRX": "1", "NXT": "2", "SOR": "3"}
_US_MARKETS = {"NASD": "6", "NYSE": "7", "AMEX": "8"}


@dataclass(frozen=True, slots=True)
class _Subscription:
    tr_id: str
    tr_key: str
    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)

    def frame(self, fields: list[str]) -> str:
        padder = PKCS7(128).padder()
        padded = padder.update("^".join(fields).encode()) + padder.finalize()
        sealer = Cipher(algorithms.AES(self.key), modes.CBC(self.iv)).encryptor()
        sealed = base64.b64encode(sealer.update(padded) + sealer.finalize()).decode()
        return f"1|{self.tr_id}|001|{sealed}"


class Session:
    """One connection. Frames go out by ``send``, which may be called on the loop's thread only."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self.send = send
        self.app_key: str | None = None
        self.subscriptions: dict[tuple[str, str], _Subscription] = {}


class Noticeboard:
    """All sessions of the server, and the words of the protocol."""

    def __init__(
        self,
        options: KISOptions,
        app_key_of: Callable[[str], str | None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._ids = (DOMESTIC_NOTICES[options.mode], OVERSEAS_NOTICES[options.mode])
        self._options = options
        self._app_key_of = app_key_of
        self._loop = loop
        self._sessions: list[Session] = []

    def join(self, session: Session) -> None:
        self._sessions.append(session)

    def leave(self, session: Session) -> None:
        self._sessions.remove(session)

    def hear(self, order: Order, change: Change | None) -> None:
        """Something happened on the exchange, in whatever thread. Sent at once: it may overtake the order's reply."""
        if says(order, change):
            self._loop.call_soon_threadsafe(self._tell, order, change)

    def answer(self, session: Session, text: str) -> str | None:
        """
        What to say to a client's message; none to its PINGPONG.

        Raises:
            ConnectionAbortedError: the HTS id is not the account's: the connection just ends.
        """
        try:
            message = json.loads(text)
            header = message["header"]
            if header.get("tr_id") == "PINGPONG":
                return None
            wanted = message["body"]["input"]
            tr_id, tr_key, leaves = str(wanted["tr_id"]), str(wanted["tr_key"]), header["tr_type"] == "2"
            approval_key = str(header["approval_key"])
        except (ValueError, KeyError, TypeError):
            return _said("", "", "1", "OPSP9991", "JSON PARSING ERROR")
        return self._subscribe(session, approval_key, tr_id, tr_key, leaves)

    def _subscribe(self, session: Session, approval_key: str, tr_id: str, tr_key: str, leaves: bool) -> str:
        app_key = self._app_key_of(approval_key)
        if app_key is None:
            return _said(tr_id, tr_key, "1", "OPSP0011", "invalid approval : NOT FOUND")
        if any(other is not session and other.app_key == app_key for other in self._sessions):
            return _said(tr_id, tr_key, "9", "OPSP8996", "ALREADY IN USE appkey")
        session.app_key = app_key
        place = (tr_id, tr_key)
        if leaves:
            if session.subscriptions.pop(place, None) is None:
                return _said(tr_id, tr_key, "1", "OPSP0003", "UNSUBSCRIBE ERROR(not found!)")
            return _said(tr_id, tr_key, "0", "OPSP0001", "UNSUBSCRIBE SUCCESS")
        if tr_id not in self._ids:
            return _said(tr_id, tr_key, "1", "OPSP8992", "INVALID tr_id")
        if self._options.hts_id not in (None, tr_key):
            raise ConnectionAbortedError("another HTS id")
        if place in session.subscriptions:
            return _said(tr_id, tr_key, "1", "OPSP0002", "ALREADY IN SUBSCRIBE")
        if len(session.subscriptions) >= MOST_SUBSCRIPTIONS:
            return _said(tr_id, tr_key, "1", "OPSP0008", "MAX SUBSCRIBE OVER")
        key, iv = secrets.token_hex(16), secrets.token_hex(8)
        session.subscriptions[place] = _Subscription(tr_id, tr_key, key.encode(), iv.encode())
        return _said(tr_id, tr_key, "0", "OPSP0000", "SUBSCRIBE SUCCESS", {"iv": iv, "key": key})

    def _tell(self, order: Order, change: Change | None) -> None:
        domestic = order.market == "KR"
        for session in self._sessions:
            for subscription in session.subscriptions.values():
                if subscription.tr_id == self._ids[0 if domestic else 1]:
                    record = domestic_record if domestic else overseas_record
                    fields = record(subscription.tr_key, order, change, old=self._options.old_notices)
                    session.send(subscription.frame(fields))


def ping(now: datetime) -> str:
    """The server's sign of life; clients send it back."""
    return json.dumps({"header": {"tr_id": "PINGPONG", "datetime": f"{now.astimezone(SEOUL):%Y%m%d%H%M%S}"}})


def says(order: Order, change: Change | None) -> bool:
    """Whether a change makes a notice: an expiry makes none, and a cancel or modification speaks for its original."""
    if change is None or change.what in (What.FILLED, What.REFUSED):
        return True
    return change.what is What.CANCELLED and (order.kind is Kind.CANCEL or order.force is not TimeInForce.DAY)


def domestic_record(hts_id: str, order: Order, change: Change | None, *, old: bool = False) -> list[str]:
    """The 26 fields of H0STCNI0, in order; the 23 of servers before, when ``old``."""
    name = universe()[order.symbol].name
    credit = ["10", "", name, str(order.price)]
    tail = [name, *credit] if old else ["0", _EXCHANGES[order.venue], "Y", "", *credit]
    return [
        hts_id,
        order.account,
        order.number,
        order.original,
        "02" if order.side is Side.BUY else "01",
        _KINDS[order.kind],
        order.division,
        _CONDITIONS[order.force],
        order.symbol,
        str(change.quantity if change else order.quantity),
        str(change.price if change else 0),
        f"{_at(order, change):%H%M%S}",
        *_state(order, change),
        order.branch,
        str(order.quantity),
        "모의계좌",
        *tail,
    ]


def overseas_record(hts_id: str, order: Order, change: Change | None, *, old: bool = False) -> list[str]:
    """The 25 fields of H0GSCNI0, in order; the first 21 when ``old``. Its price has four decimals and no point."""
    price = change.price if change else 0
    return [
        hts_id,
        order.account,
        order.number,
        order.original,
        "02" if order.side is Side.BUY else "01",
        _KINDS[order.kind],
        "2",
        order.symbol,
        str(change.quantity if change else order.quantity),
        str(int(price * 10_000)),
        f"{_at(order, change):%H%M%S}",
        *_state(order, change),
        order.branch,
        str(order.quantity) if change else "",
        "모의계좌",
        universe()[order.symbol].name,
        _US_MARKETS[order.venue],
        "10",
        "",
        *([] if old else ["", "", "", f"{price:.8f}"]),
    ]


# RFUS_YN, CNTG_YN, ACPT_YN.
def _state(order: Order, change: Change | None) -> tuple[str, str, str]:
    if change is None:
        return "0", "1", "1"
    if change.what is What.FILLED:
        return "0", "2", "2"
    if change.what is What.REFUSED:
        return "1", "1", "1"
    return "0", "1", "2" if order.kind is Kind.CANCEL else "3"


def _at(order: Order, change: Change | None) -> datetime:
    return (change.at if change else order.placed_at).astimezone(SEOUL)


def _said(
    tr_id: str, tr_key: str, rt_cd: str, code: str, message: str, output: dict[str, str] | None = None
) -> str:
    body: dict[str, Any] = {"rt_cd": rt_cd, "msg_cd": code, "msg1": message}
    if output is not None:
        body["output"] = output
    header = {"tr_id": tr_id, "tr_key": tr_key, "encrypt": "Y" if output else "N"}
    return json.dumps({"header": header, "body": body})
