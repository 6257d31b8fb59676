"""The rows of KIS's order lists, as `OrderRecord`. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Context, Decimal
from types import MappingProxyType
from typing import Final

from contracts import OrderRecord, OrderStatus, Side
from worker.brokers.kis.numbers import OrderNumber, moment
from worker.brokers.kis.payload import KR_VENUES, US_VENUES, Placed

#: ``prcs_stat_name`` of a US row; quantities and the cancel's own row say the rest. Domestic rows have no such word:
#: their status is in their quantities. (portal, 2026-09-30)
KIS_STATUS_TO_ORDER_STATUS: Final[Mapping[str, OrderStatus]] = MappingProxyType(
    {"전송": OrderStatus.WORKING, "완료": OrderStatus.FILLED, "거부": OrderStatus.REFUSED}
)

#: Of an average, where a division must end somewhere.
_AVERAGES: Final = Context(prec=12)
#: Plain digits, as the lists have them.
_AMOUNT: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20}", re.ASCII)
_SIDES: Final = {"01": Side.SELL, "02": Side.BUY}
#: Divisions that carry no price: market orders, and those at the best price of a side.
_PRICELESS: Final = frozenset({"01", "03", "04", "05", "06", "13", "14", "15", "16", "21", "23", "24"})
#: In the words for a row's side (매수취소*): it asks for a cancel and is no order.
_CANCEL_WORD: Final = "취소"
_US_CANCEL: Final = "02"
#: ``excg_dvsn_cd``, where ``excg_id_dvsn_cd`` is missing. (1src, 2026-09)
_VENUE_NUMBERS: Final = {"02": "KRX", "03": "SOR", "04": "NXT"}


class _RowFault(ValueError):
    """A row cannot be read."""


@dataclass(frozen=True, slots=True)
class KISOrderRecord(OrderRecord):
    """An order of a list, with what only KIS says of it."""

    #: ``ORD_DVSN``: limit or market, and for how long.
    division: str = ""
    #: The number of the order that it modified, on the same day and branch; empty for a new one.
    modifies: str = ""


@dataclass(frozen=True, slots=True)
class ReadRows:
    """The orders in some rows, and the faults of rows that could not be read: with any, nothing is proved absent."""

    orders: tuple[KISOrderRecord, ...]
    faults: tuple[str, ...]


def domestic_orders(rows: Iterable[Mapping[str, str]], today: date) -> ReadRows:
    """
    The orders in rows of ``inquire-daily-ccld``. Rows that ask for a cancel are left out: the cancelled order's own
    row tells of it. ``today`` is KIS's date: what is left of an older order is over.
    """
    return _read(lambda row: _domestic(row, today), [row for row in rows if not _asks_for_a_cancel(row)])


def us_orders(rows: Iterable[Mapping[str, str]], today: date) -> ReadRows:
    """
    The orders in rows of the overseas ``inquire-ccnl``. A cancelled order keeps its state there and the cancel is a
    row of its own, so all rows of the days are needed at once. ``today`` is New York's date.
    """
    rows = list(rows)
    cancelled = {
        (row.get("ord_dt", ""), row.get("orgn_odno", "").zfill(10))
        for row in rows
        if _is_us_cancel(row) and row.get("prcs_stat_name") != "거부"
    }
    return _read(lambda row: _us(row, cancelled, today), [row for row in rows if not _is_us_cancel(row)])


def _read(
    read_one: Callable[[Mapping[str, str]], KISOrderRecord], rows: Iterable[Mapping[str, str]]
) -> ReadRows:
    orders, faults = [], []
    for row in rows:
        try:
            orders.append(read_one(row))
        except _RowFault as fault:
            faults.append(str(fault))
    return ReadRows(tuple(orders), tuple(faults))


def _domestic(row: Mapping[str, str], today: date) -> KISOrderRecord:
    placed_at, number = _placed_at(row, "ord_dt"), _number(row, "ord_dt")
    quantity, price = _amount(row, "ord_qty"), _amount(row, "ord_unpr")
    filled = _amount(row, "tot_ccld_qty")
    venue = row.get("excg_id_dvsn_cd") or _VENUE_NUMBERS.get(row.get("excg_dvsn_cd", "")) or KR_VENUES[0]
    division = row.get("ord_dvsn_cd", "00")
    has_price = price > 0 and division not in _PRICELESS
    return KISOrderRecord(
        broker_order_id=str(number),
        symbol=_required(row, "pdno"),
        side=_side(row),
        quantity=quantity,
        status=_domestic_status(row, quantity, filled, number.day < today),
        placed_at=placed_at,
        limit_price=price if has_price else None,
        filled_quantity=filled,
        average_price=_average(row, filled, "tot_ccld_amt", "avg_prvs"),
        venue=venue,
        reference=str(Placed(venue, division, str(int(quantity)))),
        division=division,
        modifies=_original(row),
    )


def _domestic_status(
    row: Mapping[str, str], quantity: Decimal, filled: Decimal, is_over: bool
) -> OrderStatus:
    if filled >= quantity > 0:
        return OrderStatus.FILLED
    if filled + _amount(row, "rjct_qty") >= quantity > filled:
        return OrderStatus.REFUSED
    cancelled = _amount(row, "cncl_cfrm_qty" if "cncl_cfrm_qty" in row else "cnc_cfrm_qty")
    left = _amount(row, "rmn_qty")
    if filled + cancelled >= quantity or (row.get("cncl_yn") == "Y" and not left):
        return OrderStatus.CANCELLED
    # IOC and FOK: the exchange gave up what it could not fill at once.
    if not left and row.get("ccld_cndt_name", "") in ("IOC", "FOK"):
        return OrderStatus.CANCELLED
    if is_over:
        return OrderStatus.EXPIRED
    return OrderStatus.PARTIALLY_FILLED if filled else OrderStatus.WORKING


def _us(row: Mapping[str, str], cancelled: Collection[tuple[str, str]], today: date) -> KISOrderRecord:
    # The receipt is told in Korean time, the order's day in New York's.
    placed_at, number = _placed_at(row, "dmst_ord_dt"), _number(row, "dmst_ord_dt")
    quantity, price = _amount(row, "ft_ord_qty"), _amount(row, "ft_ord_unpr3")
    filled = _amount(row, "ft_ccld_qty")
    is_cancelled = (row.get("ord_dt", ""), number.number) in cancelled
    local = moment(row.get("ord_dt", ""), "000000")
    status = _us_status(row, quantity, filled, is_cancelled, local is not None and local.date() < today)
    venue = US_VENUES.get(row.get("ovrs_excg_cd", ""), "NASD")
    division = "00"
    return KISOrderRecord(
        broker_order_id=str(number),
        symbol=_required(row, "pdno"),
        side=_side(row),
        quantity=quantity,
        status=status,
        placed_at=placed_at,
        limit_price=price or None,
        filled_quantity=filled,
        average_price=_average(row, filled, "ft_ccld_amt3", "ft_ccld_unpr3"),
        venue=venue,
        reference=str(Placed(venue, division, str(int(quantity)))),
        division=division,
        modifies=_original(row),
    )


def _us_status(
    row: Mapping[str, str], quantity: Decimal, filled: Decimal, is_cancelled: bool, is_over: bool
) -> OrderStatus:
    if filled >= quantity > 0:
        return OrderStatus.FILLED
    said = KIS_STATUS_TO_ORDER_STATUS.get(row.get("prcs_stat_name", ""))
    if said is OrderStatus.REFUSED:
        return OrderStatus.REFUSED
    if is_cancelled:
        return OrderStatus.CANCELLED
    if is_over:
        return OrderStatus.EXPIRED
    return OrderStatus.PARTIALLY_FILLED if filled else OrderStatus.WORKING


def _original(row: Mapping[str, str]) -> str:
    number = row.get("orgn_odno", "")
    return number if number.strip("0") else ""


def _asks_for_a_cancel(row: Mapping[str, str]) -> bool:
    return bool(_original(row)) and _CANCEL_WORD in row.get("sll_buy_dvsn_cd_name", "")


def _is_us_cancel(row: Mapping[str, str]) -> bool:
    return row.get("rvse_cncl_dvsn", row.get("rvse_cncl_dvsn_cd", "")) == _US_CANCEL


def _placed_at(row: Mapping[str, str], day: str) -> datetime:
    found = moment(_required(row, day), row.get("ord_tmd", ""))
    if found is None:
        raise _RowFault(f"{day} and ord_tmd are no moment")
    return found


def _number(row: Mapping[str, str], day: str) -> OrderNumber:
    number = _required(row, "odno")
    found = OrderNumber.parse(f"{_required(row, day)}-{row.get('ord_gno_brno', '')}-{number}")
    if found is None:
        raise _RowFault("odno, ord_gno_brno and the date are no order number")
    return found


def _side(row: Mapping[str, str]) -> Side:
    side = _SIDES.get(row.get("sll_buy_dvsn_cd", ""))
    if side is None:
        raise _RowFault("sll_buy_dvsn_cd is no side")
    return side


def _required(row: Mapping[str, str], name: str) -> str:
    value = row.get(name, "")
    if not value:
        raise _RowFault(f"{name} is missing")
    return value


def _amount(row: Mapping[str, str], name: str) -> Decimal:
    text = row.get(name, "") or "0"
    # Decimal itself reads digits of every script, and a few characters of it can stand for more than memory holds.
    if _AMOUNT.fullmatch(text) is None:
        raise _RowFault(f"{name} is no amount")
    return _plain(Decimal(text))


def _average(row: Mapping[str, str], filled: Decimal, paid: str, average: str) -> Decimal | None:
    if not filled:
        return None
    # The average of a Korean row is rounded to whole won; what was paid is exact.
    exact = _plain(_AVERAGES.divide(_amount(row, paid), filled))
    return exact or _amount(row, average) or None


def _plain(number: Decimal) -> Decimal:
    # As a person would write it: the lists pad prices with zeros.
    text = f"{number:f}"
    return Decimal(text.rstrip("0").rstrip(".")) if "." in text else number
