"""
The records of execution notices (체결통보), as `OrderNotice`. No I/O.

A record names an order by its number alone, and a cancel says how many shares it took, not how many are left. What is
missing was said before, when the order was received; so `Hearing` remembers it. What cannot be told for certain is
left to KIS's list, which shows both.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from contracts import OrderNotice, OrderStatus
from worker.brokers.kis.facts import KST, US_NIGHT_ENDS
from worker.brokers.kis.frames import FrameFault
from worker.brokers.kis.numbers import OrderNumber, clock_time

#: ``ODER_COND`` of an overseas record: NASDAQ, NYSE, AMEX; and the markets of other countries, whose prices have other
#: decimals. (portal, 2026-09-30)
_US_MARKETS: Final = frozenset("678")
_OTHER_MARKETS: Final = frozenset("4CA5BDEF")
#: A US price has so many decimals and no point. (portal, 2026-09-30)
_US_DECIMALS: Final = 4
#: Where the symbol stands. What comes before it is the same in all records, and so is what follows it.
_SYMBOL_AT, _US_SYMBOL_AT = 8, 7
#: Behind the symbol: amount, price, time, refused, what, state, branch, the order's quantity.
_AFTER_SYMBOL: Final = 8
_US_MARKET_AT: Final = 18
#: Orders that are remembered, and executions.
_REMEMBERED, _EXECUTIONS = 10_000, 256

_NUMBER: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]{0,16}", re.ASCII)
_BRANCH: Final = re.compile(r"[0-9A-Z]{0,5}", re.ASCII)


class _Kind(StrEnum):
    # RCTF_CLS. A modification and a cancel are orders about an order, with numbers of their own.
    NEW = "0"
    MODIFY = "1"
    CANCEL = "2"


class _What(StrEnum):
    # CNTG_YN.
    ORDER = "1"
    EXECUTION = "2"


class _State(StrEnum):
    # ACPT_YN, of an order's own notice.
    RECEIVED = "1"
    CONFIRMED = "2"
    #: The exchange gave up what an IOC or FOK order could not fill at once.
    GIVEN_UP = "3"


class Untold(Exception):
    """Something happened to an order, but which order it is, or what is left of it, only the list knows."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record, read."""

    #: Eight digits and two.
    account: str = field(repr=False)
    number: str
    #: Of a modification or cancel: the order that it is about.
    original: str
    kind: _Kind
    symbol: str
    #: Shares: of this execution, or of this order.
    amount: Decimal
    price: Decimal
    #: ``HHMMSS``, KST. Some have none.
    tmd: str
    is_refused: bool
    what: _What
    #: Of an order's own notice.
    state: _State | None
    branch: str
    #: Of the order; 0 where it is not said.
    quantity: Decimal
    is_us: bool


def read_record(fields: tuple[str, ...], *, is_us: bool) -> Record | None:
    """
    A record of ``H0STCNI0`` or, with ``is_us``, of ``H0GSCNI0``; ``None`` for a stock of another country. Only fields
    that have kept their places are read; those behind them may be more or fewer.

    Raises:
        FrameFault: it cannot be read.
    """
    fields = tuple(one.strip() for one in fields)
    at = _US_SYMBOL_AT if is_us else _SYMBOL_AT
    if len(fields) < (_US_MARKET_AT + 1 if is_us else at + _AFTER_SYMBOL + 1):
        raise FrameFault("a record with too few fields")
    if is_us and (market := fields[_US_MARKET_AT]) not in _US_MARKETS:
        if market in _OTHER_MARKETS:
            return None
        raise FrameFault("a record of an unknown market")
    symbol, amount, price, tmd, refused, what, state, branch, quantity = fields[at : at + _AFTER_SYMBOL + 1]
    number, original, kind = fields[2], fields[3], fields[5]
    if not symbol or not _names_an_order(number) or _BRANCH.fullmatch(branch) is None:
        raise FrameFault("a record that names no order")
    if refused not in ("0", "1"):
        raise FrameFault("a record with an unknown word in RFUS_YN")
    try:
        return Record(
            fields[1],
            number.zfill(10),
            original.zfill(10) if _names_an_order(original) else "",
            _Kind(kind),
            symbol,
            _amount(amount),
            _amount(price, _US_DECIMALS if is_us else 0),
            tmd,
            refused == "1",
            _What(what),
            _State(state) if what == _What.ORDER else None,
            branch,
            _amount(quantity),
            is_us,
        )
    except ValueError:
        raise FrameFault("a record with an unknown word or number") from None


@dataclass(slots=True)
class _Heard:
    #: The Korean date on which it was received; ``None``: two orders of the night share number and symbol.
    day: date | None
    quantity: Decimal
    #: Shares that were filled or cancelled.
    gone: Decimal = Decimal(0)


class Hearing:
    """What one account's records say, from one interruption to the next."""

    def __init__(self, account: str) -> None:
        """``account`` is its ten digits. Records of the customer's other accounts come on the same line."""
        self._account = account
        self._orders: OrderedDict[tuple[str, str, str], _Heard] = OrderedDict()
        self._executions: deque[Record] = deque(maxlen=_EXECUTIONS)

    def tell(self, record: Record, at: datetime) -> OrderNotice | None:
        """
        What a record, heard at ``at``, says about an order; ``None`` when that is nothing.

        Raises:
            Untold: it says something, but not enough. Read the list.
        """
        if record.account != self._account:
            return None
        if record.what is _What.EXECUTION:
            return self._executed(record, at)
        if record.is_refused:
            # A refused request to cancel or modify leaves its order as it was.
            return self._ended(record, at, OrderStatus.REFUSED) if record.kind is _Kind.NEW else None
        if record.kind is _Kind.CANCEL:
            return self._cancelled(record) if record.state is _State.CONFIRMED else None
        if record.state is _State.GIVEN_UP:
            return self._ended(record, at, OrderStatus.CANCELLED)
        return self._stands(record, at)

    def _stands(self, record: Record, at: datetime) -> OrderNotice:
        quantity = record.quantity or record.amount
        name = (record.branch, record.number, record.symbol)
        if record.state is not _State.RECEIVED:
            # Confirmed whenever the exchange had it: that is no receipt, and its date may be another.
            return self._notice(record, self._day(record, at), OrderStatus.WORKING, quantity)
        day = _date(record, at)
        heard = self._orders.get(name)
        if heard is None or (heard.day != day and (not record.is_us or heard.gone >= heard.quantity)):
            self._orders[name] = _Heard(day, quantity)
            if len(self._orders) > _REMEMBERED:
                self._orders.popitem(last=False)
        elif heard.day != day:
            heard.day = None
        return self._notice(record, day, OrderStatus.WORKING, quantity)

    def _executed(self, record: Record, at: datetime) -> OrderNotice:
        if not record.amount or not record.price:
            raise FrameFault("an execution without an amount or a price")
        # They have no number. Two that are the same in all may be one that came twice, and no share is counted twice.
        if record in self._executions:
            raise Untold("an execution like one before")
        self._executions.append(record)
        heard = self._heard(record, record.number)
        if heard is not None:
            heard.gone += record.amount
        return OrderNotice(
            str(OrderNumber(self._day(record, at), record.branch, record.number)),
            record.symbol,
            OrderStatus.PARTIALLY_FILLED,
            quantity=record.quantity or (heard.quantity if heard else None),
            filled_quantity=record.amount,
            price=record.price,
        )

    # It says how much it took. The order is over only where all of it is known to be gone: a part of an order can be
    # cancelled too, by hand, and the rest still trades.
    def _cancelled(self, record: Record) -> OrderNotice:
        heard = self._heard(record, record.original)
        if heard is not None:
            heard.gone += record.amount
        if heard is None or heard.day is None or heard.gone < heard.quantity:
            raise Untold("a cancel of an order of which something may be left")
        number = OrderNumber(heard.day, record.branch, record.original)
        return OrderNotice(str(number), record.symbol, OrderStatus.CANCELLED, quantity=heard.quantity)

    def _ended(self, record: Record, at: datetime, status: OrderStatus) -> OrderNotice:
        heard = self._heard(record, record.number)
        day = self._day(record, at)
        if heard is not None:
            heard.gone = heard.quantity
        return self._notice(record, day, status, record.quantity or (heard.quantity if heard else None))

    def _notice(
        self, record: Record, day: date, status: OrderStatus, quantity: Decimal | None
    ) -> OrderNotice:
        number = OrderNumber(day, record.branch, record.number)
        return OrderNotice(str(number), record.symbol, status, quantity=quantity or None)

    def _heard(self, record: Record, number: str) -> _Heard | None:
        return self._orders.get((record.branch, number, record.symbol))

    # The date is part of an order's name, and it is that of its receipt in Korea, as the lists have it (ord_dt, and
    # dmst_ord_dt of US orders). No Korean session crosses midnight, so there it is the notice's own. A US order may
    # be received before midnight and trade after it, while numbers begin anew: then the receipt must have been heard.
    def _day(self, record: Record, at: datetime) -> date:
        heard = self._heard(record, record.number)
        if heard is not None and record.is_us:
            if heard.day is None:
                raise Untold("two US orders of one night with the same number and symbol")
            return heard.day
        time = clock_time(record.tmd)
        if record.is_us and (time[0] if time else at.astimezone(KST).hour) < US_NIGHT_ENDS:
            raise Untold("a US order after midnight whose receipt was not heard")
        return _date(record, at)


def _date(record: Record, at: datetime) -> date:
    return OrderNumber.received(record.branch, record.number, record.tmd, at).day


def _names_an_order(number: str) -> bool:
    return _NUMBER.fullmatch(number) is not None and int(number) != 0


def _amount(text: str, decimals: int = 0) -> Decimal:
    if _DIGITS.fullmatch(text) is None:
        raise ValueError("no amount")
    found = Decimal(text or "0").scaleb(-decimals)
    # As the list is read: no zeros behind the point.
    plain = f"{found:f}"
    return Decimal(plain.rstrip("0").rstrip(".")) if "." in plain else found
