"""
What is sent: one order or one cancel as KIS wants it on the wire. No I/O.

Keys are upper case and values are strings, and every key is sent, with ``""`` where it says nothing: the relay cannot
build its message from a shorter body (IGW00007).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from contracts import OrderRequest, Side, TimeInForce
from worker.brokers.kis import facts
from worker.brokers.kis.denied import PretradeDenied
from worker.brokers.kis.facts import Environment
from worker.brokers.kis.numbers import OrderNumber

KRX, NXT, SOR = "KRX", "NXT", "SOR"
KR_VENUES: Final = (KRX, NXT, SOR)
#: Our spelling of a US exchange → KIS's ``OVRS_EXCG_CD``.
US_VENUES: Final = {"NASD": "NASD", "NASDAQ": "NASD", "NYSE": "NYSE", "AMEX": "AMEX"}

#: ``ORD_DVSN`` of a limit order and of a market order, by time in force. (portal's order-cash page, 2026-09-30)
LIMIT_DIVISIONS: Final = {TimeInForce.DAY: "00", TimeInForce.IOC: "11", TimeInForce.FOK: "12"}
MARKET_DIVISIONS: Final = {TimeInForce.DAY: "01", TimeInForce.IOC: "13", TimeInForce.FOK: "14"}
#: What a venue has no such order of. NXT takes no plain market orders.
_NOT_OFFERED: Final = {(NXT, "01")}
#: The only division that paper takes for US stocks, and the only one that both sides have in the regular session.
_US_LIMIT: Final = "00"

#: ETN codes begin with Q where others have six characters, the first a digit.
_KR_SYMBOL: Final = re.compile(r"[0-9][0-9A-Z]{5}|Q[0-9]{6}", re.ASCII)
_US_SYMBOL: Final = re.compile(r"[A-Z][A-Z0-9]{0,7}(?:[./][A-Z0-9]{1,3})?", re.ASCII)
_PLACED: Final = re.compile(r"([A-Z]+)/([0-9]{2})/([0-9]+)", re.ASCII)
_ACCOUNT: Final = re.compile(r"(?P<number>[0-9]{8})-?(?P<product>[0-9]{2})", re.ASCII)

#: Digits of ``ORD_QTY``.
_QUANTITY_DIGITS: Final = 10


@dataclass(frozen=True, slots=True)
class Account:
    """An account: eight digits and the two of its product."""

    number: str = field(repr=False)
    product: str

    @classmethod
    def parse(cls, text: str) -> Account:
        """
        Read ``12345678-01``, with or without the dash.

        Raises:
            ValueError: it is none.
        """
        found = _ACCOUNT.fullmatch(text.strip())
        if found is None:
            raise ValueError("must be the account's eight digits and the two of its product, as 12345678-01")
        return cls(found["number"], found["product"])

    @property
    def shown(self) -> str:
        """The end of it, for people."""
        return f"…{self.number[-3:]}-{self.product}"

    @property
    def fields(self) -> dict[str, str]:
        """As every call begins."""
        return {"CANO": self.number, "ACNT_PRDT_CD": self.product}


@dataclass(frozen=True, slots=True)
class Call:
    """One request: a POST with a body, or a GET with its parameters."""

    path: str
    tr_id: str
    #: The account number is in it.
    fields: Mapping[str, str] = field(repr=False)

    def body(self) -> bytes:
        """The JSON of a POST, whole: the gateway cannot read chunks."""
        return json.dumps(self.fields, ensure_ascii=False, separators=(",", ":")).encode()

    def told(self, account: Account) -> str:
        """For the audit trail: what is sent, but for the account's number."""
        sent = (
            f"{name}={value}" for name, value in self.fields.items() if value and name not in account.fields
        )
        return " ".join([self.tr_id, self.path, f"CANO={account.shown}", *sent])


@dataclass(frozen=True, slots=True)
class Placed:
    """How an order was placed, as far as its cancel must repeat it; travels as ``OrderResponse.reference``."""

    venue: str
    division: str
    #: Whole shares; ``0`` where nobody remembers.
    quantity: str

    def __str__(self) -> str:
        return f"{self.venue}/{self.division}/{self.quantity}"

    @classmethod
    def parse(cls, text: str) -> Placed | None:
        """Read what `__str__` wrote; ``None`` for anything else."""
        found = _PLACED.fullmatch(text)
        return cls(*found.groups()) if found is not None else None


def is_korean(symbol: str) -> bool:
    """Whether it has the shape of a Korean code."""
    return _KR_SYMBOL.fullmatch(symbol) is not None


def venue_of(symbol: str, venue: str | None) -> str:
    """
    Where an order of that symbol goes, as KIS spells it. A Korean one without a venue goes to KRX.

    Raises:
        PretradeDenied: symbol and venue do not fit, or cannot be told; the text says what to give.
    """
    if is_korean(symbol):
        if venue is None or venue in KR_VENUES:
            return venue or KRX
        raise PretradeDenied(f"venue: {symbol} trades on KRX, NXT or SOR, not on {venue}", field="venue")
    if not _US_SYMBOL.fullmatch(symbol):
        raise PretradeDenied(
            f"symbol: {symbol} is neither a Korean code (six characters such as 005930, an ETN with Q in front) "
            "nor a US ticker (such as AAPL)",
            field="symbol",
        )
    if venue in US_VENUES:
        return US_VENUES[venue]
    given = "no venue is given" if venue is None else f"it cannot trade on {venue}"
    raise PretradeDenied(
        f"venue: {symbol} is no Korean code, and {given}; say NASD, NYSE or AMEX", field="venue"
    )


def division_of(request: OrderRequest, venue: str, environment: Environment) -> str:
    """
    The ``ORD_DVSN`` of an order at a venue.

    Raises:
        PretradeDenied: the venue has no such order; the text says what it has.
    """
    if venue not in KR_VENUES:
        return _us_division(request)
    if venue != KRX and environment is Environment.PAPER:
        raise PretradeDenied(f"venue: paper trading has KRX only, not {venue}", field="venue")
    divisions = MARKET_DIVISIONS if request.limit_price is None else LIMIT_DIVISIONS
    division = divisions[request.time_in_force]
    if (venue, division) in _NOT_OFFERED:
        raise PretradeDenied(
            f"intent_type: {venue} takes no market order for the day; send a LIMIT, or a MARKET with IOC or FOK",
            field="intent_type",
        )
    return division


def build_kis_order_payload(
    request: OrderRequest, account: Account, environment: Environment = Environment.REAL
) -> Call:
    """
    The call that places an order: path, TR id and body.

    Raises:
        PretradeDenied: KIS has no such order. Nothing was sent; the text names the field and the cure.
    """
    venue = venue_of(request.symbol, request.venue)
    division = division_of(request, venue, environment)
    quantity = _whole(request.quantity, "quantity", "shares")
    if venue not in KR_VENUES:
        return _us_order(request, account, environment, venue, quantity)
    price = "0" if request.limit_price is None else _whole(request.limit_price, "limit_price", "won")
    fields = account.fields | {
        "PDNO": request.symbol,
        "ORD_DVSN": division,
        "ORD_QTY": quantity,
        "ORD_UNPR": price,
        "EXCG_ID_DVSN_CD": venue,
        # 01: a plain sell.
        "SLL_TYPE": "01" if request.side is Side.SELL else "",
        "CNDT_PRIC": "",
    }
    return Call(facts.ORDER_PATH, facts.ORDER_IDS[request.side].of(environment), fields)


def build_kis_cancel_payload(
    number: OrderNumber,
    symbol: str,
    placed: Placed,
    account: Account,
    environment: Environment = Environment.REAL,
) -> Call:
    """The call that cancels all that is left of an order. ``placed`` is how it was placed: KIS finds no original on
    another exchange (APBK0344)."""
    if placed.venue not in KR_VENUES:
        fields = account.fields | {
            "OVRS_EXCG_CD": placed.venue,
            "PDNO": symbol,
            "ORGN_ODNO": number.number,
            "RVSE_CNCL_DVSN_CD": "02",
            # This call has no word for "all of it": KIS's samples give the ordered quantity. (2025-07)
            "ORD_QTY": placed.quantity,
            "OVRS_ORD_UNPR": "0",
            "CTAC_TLNO": "",
            "MGCO_APTM_ODNO": "",
            "ORD_SVR_DVSN_CD": "0",
        }
        return Call(facts.US_CHANGE_PATH, facts.US_CHANGE_ID.of(environment), fields)
    fields = account.fields | {
        "KRX_FWDG_ORD_ORGNO": number.branch,
        "ORGN_ODNO": number.number,
        "ORD_DVSN": placed.division,
        "RVSE_CNCL_DVSN_CD": "02",
        "ORD_QTY": "0",
        "ORD_UNPR": "0",
        "QTY_ALL_ORD_YN": "Y",
        "EXCG_ID_DVSN_CD": placed.venue,
        "CNDT_PRIC": "",
    }
    return Call(facts.CHANGE_PATH, facts.CHANGE_ID.of(environment), fields)


def _us_division(request: OrderRequest) -> str:
    if request.limit_price is None:
        raise PretradeDenied(
            "intent_type: KIS has no market order for US stocks; send a LIMIT", field="intent_type"
        )
    if request.time_in_force is not TimeInForce.DAY:
        raise PretradeDenied(
            f"time_in_force: KIS has no {request.time_in_force} for US stocks; send DAY",
            field="time_in_force",
        )
    return _US_LIMIT


def _us_order(
    request: OrderRequest, account: Account, environment: Environment, venue: str, quantity: str
) -> Call:
    assert request.limit_price is not None
    fields = account.fields | {
        "OVRS_EXCG_CD": venue,
        "PDNO": request.symbol,
        "ORD_QTY": quantity,
        "OVRS_ORD_UNPR": _plain(request.limit_price),
        "CTAC_TLNO": "",
        "MGCO_APTM_ODNO": "",
        "SLL_TYPE": "00" if request.side is Side.SELL else "",
        "ORD_SVR_DVSN_CD": "0",
        "ORD_DVSN": _US_LIMIT,
    }
    return Call(facts.US_ORDER_PATH, facts.US_ORDER_IDS[request.side].of(environment), fields)


def _whole(value: Decimal, name: str, of: str) -> str:
    whole = int(value)
    if value != whole:
        around = tuple(Decimal(one) for one in (whole, whole + 1) if one > 0)
        nearest = " or ".join(str(one) for one in around)
        raise PretradeDenied(
            f"{name}: must be whole {of}, not {_plain(value)}; the nearest: {nearest}",
            field=name,
            nearest=around,
        )
    if len(str(whole)) > _QUANTITY_DIGITS:
        most = Decimal(10) ** _QUANTITY_DIGITS - 1
        raise PretradeDenied(
            f"{name}: KIS takes at most {most} {of}, not {whole}", field=name, nearest=(most,)
        )
    return str(whole)


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
