"""Domestic orders and lists: order-cash, order-rvsecncl, inquire-psbl-rvsecncl, inquire-daily-ccld."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from contracts import Side, TimeInForce
from worker.simulate.exchange import Mishap
from worker.simulate.kis.calls import OLD_ORDER_IDS
from worker.simulate.kis.codes import FOUND, FOUND_NONE_PAPER
from worker.simulate.kis.desk import Desk, whole_number
from worker.simulate.kis.divisions import DOMESTIC_DIVISIONS, TAKES_NO_PRICE
from worker.simulate.kis.options import CHANGEABLE_PAGE, PAPER_PAGE, REAL_PAGE
from worker.simulate.kis.wire import Asked, Page, Reply, continued_after, page_of, paged, refused
from worker.simulate.orders import Kind, Order, OrderKey, What
from worker.simulate.rules import Ask, Pricing, Reason, Refusal
from worker.simulate.universe import universe
from worker.simulate.venues import SEOUL

#: Older days belong to a TR of their own.
RECENT = timedelta(days=92)
EXCHANGE_NUMBERS = {"KRX": "02", "NXT": "04", "SOR": "03"}
_SIDE_CODES = {"01": Side.SELL, "02": Side.BUY}
SIDE_NAMES = {Side.SELL: "매도", Side.BUY: "매수"}
SIDE_NUMBERS = {Side.SELL: "01", Side.BUY: "02"}
_KIND_NAMES = {Kind.NEW: "", Kind.MODIFY: "정정*", Kind.CANCEL: "취소*"}
_CONDITIONS = {TimeInForce.DAY: "없음", TimeInForce.IOC: "IOC", TimeInForce.FOK: "FOK"}


def order(desk: Desk, asked: Asked, mishap: Mishap) -> Reply:
    """``order-cash``."""
    ids = asked.call.paper if desk.options.is_paper else asked.call.real
    ask = _ask(desk, asked, asked.text("PDNO"), Side.BUY if ids[asked.tr_id] == "buy" else Side.SELL)
    return desk.ordered(desk.exchange.place(ask, mishap))


def change(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``order-rvsecncl``: a modification or a cancel; both get a number of their own."""
    account, number = desk.account(asked), asked.text("ORGN_ODNO").zfill(10)
    key = OrderKey(account, desk.exchange.time.today(), number)
    wanted = asked.text("RVSE_CNCL_DVSN_CD")
    whole = asked.text("QTY_ALL_ORD_YN")
    if wanted not in ("01", "02") or whole not in ("Y", "N"):
        raise refused("IGW00007")
    with desk.exchange.lock:
        desk.exchange.advance()
        original = desk.exchange.book.find(key)
        # Clients that send no branch at all are let through. [?]
        if original is None or asked.text("KRX_FWDG_ORD_ORGNO", "") not in ("", original.branch):
            raise Refusal(Reason.NO_ORDER)
        ask = _ask(desk, asked, original.symbol, original.side, cancels=wanted == "02")
        if whole == "Y":
            ask = ask.of(max(original.remaining, 1))
        if wanted == "02":
            return desk.changed(desk.exchange.cancel(key, ask))
        return desk.changed(desk.exchange.modify(key, ask))


def changeable(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``inquire-psbl-rvsecncl``: what may still be changed or cancelled."""
    account, today = desk.account(asked), desk.exchange.time.today()
    side = {"0": None, "1": Side.SELL, "2": Side.BUY}.get(asked.text("INQR_DVSN_2", "0"))
    with desk.exchange.lock:
        desk.exchange.advance()
        rows = [
            ((seen.day, seen.number), _changeable_row(seen))
            for seen in _seen(desk, account, today, today)
            if seen.remaining and side in (None, seen.side)
        ]
    page = page_of(rows, CHANGEABLE_PAGE, continued_after(asked, "100"), newest_first=True)
    return paged(asked, page, "100", FOUND, output=page.rows)


def daily(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``inquire-daily-ccld``: the orders of some days, and what became of them."""
    account = desk.account(asked)
    ids = asked.call.paper if desk.options.is_paper else asked.call.real
    first, last = (_day(asked.text(name)) for name in ("INQR_STRT_DT", "INQR_END_DT"))
    recent = desk.exchange.time.today() - RECENT
    first, last = (first, min(last, recent)) if ids[asked.tr_id] == "old" else (max(first, recent), last)
    with desk.exchange.lock:
        desk.exchange.advance()
        period = list(_seen(desk, account, first, last))
    places = [((one.day, one.number), one) for one in filter(_wanted(asked), period)]
    size = PAPER_PAGE if desk.options.is_paper else REAL_PAGE
    newest_first = asked.text("INQR_DVSN", "00") != "01"
    page = page_of(places, size, continued_after(asked, "100"), newest_first)
    code = FOUND_NONE_PAPER if desk.options.is_paper and not page.rows else FOUND
    shown = Page([_row(one) for one in page.rows], page.ends_at)
    return paged(asked, shown, "100", code, output1=shown.rows, output2=_totals(period))


# --- Reading ------------------------------------------------------------------------------------------------


def _ask(desk: Desk, asked: Asked, symbol: str, side: Side, *, cancels: bool = False) -> Ask:
    division, price_text = asked.text("ORD_DVSN"), asked.text("ORD_UNPR")
    quantity, price = whole_number(asked.text("ORD_QTY")), Decimal(whole_number(price_text or "0"))
    venue = asked.text("EXCG_ID_DVSN_CD", "KRX") or "KRX"
    terms = DOMESTIC_DIVISIONS.get(division)
    if venue not in EXCHANGE_NUMBERS:
        raise refused("IGW00007")
    if venue != "KRX" and (desk.options.is_paper or asked.tr_id in OLD_ORDER_IDS):
        raise Refusal(Reason.VENUE_TYPE)
    if terms is None:
        raise Refusal(Reason.VENUE_TYPE)
    whole = cancels or asked.params.get("QTY_ALL_ORD_YN") == "Y"
    if (quantity == 0 and not whole) or (price and division in TAKES_NO_PRICE):
        raise refused("IGW00007")
    shown = price if terms.pricing is Pricing.LIMIT else Decimal()
    return Ask(desk.account(asked), desk.branch, venue, symbol, side, quantity, shown, terms)


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a date has no zone
    except ValueError:
        raise refused("IGW00007") from None


def _seen(desk: Desk, account: str, first: date, last: date) -> Iterable[Order]:
    for one in desk.exchange.book.orders(account, first, last):
        if one.market == "KR" and (seen := desk.exchange.seen(one)) is not None:
            yield seen


def _wanted(asked: Asked) -> Callable[[Order], bool]:
    side = _SIDE_CODES.get(asked.text("SLL_BUY_DVSN_CD", "00"))
    filled, venue = asked.text("CCLD_DVSN", "00"), asked.text("EXCG_ID_DVSN_CD", "")
    symbol, number, branch = (asked.text(name, "") for name in ("PDNO", "ODNO", "ORD_GNO_BRNO"))

    def is_wanted(one: Order) -> bool:
        return (
            side in (None, one.side)
            and symbol in ("", one.symbol)
            and number in ("", one.number)
            and branch in ("", one.branch)
            and venue in ("", "ALL", one.venue)
            and (filled != "01" or one.filled > 0)
            and (filled != "02" or unfilled(one) > 0)
        )

    return is_wanted


# --- Writing ------------------------------------------------------------------------------------------------


def unfilled(one: Order) -> int:
    """What a list shows as left: shares that expired with the session still stand there."""
    return one.remaining + one.count(What.EXPIRED)


def _common(one: Order) -> dict[str, Any]:
    terms = DOMESTIC_DIVISIONS[one.division]
    return {
        "ord_gno_brno": one.branch,
        "odno": one.number,
        "orgn_odno": one.original,
        "ord_tmd": f"{one.placed_at.astimezone(SEOUL):%H%M%S}",
        "pdno": one.symbol,
        "prdt_name": universe()[one.symbol].name,
        "sll_buy_dvsn_cd": SIDE_NUMBERS[one.side],
        "ord_dvsn_cd": one.division,
        "ord_dvsn_name": terms.name,
        "ord_qty": str(one.quantity),
        "ord_unpr": str(one.price),
        "tot_ccld_qty": str(one.filled),
        "tot_ccld_amt": str(one.amount),
        "excg_dvsn_cd": EXCHANGE_NUMBERS[one.venue],
        "excg_id_dvsn_cd": one.venue,
        "stpm_cndt_pric": "0",
    }


def _row(one: Order) -> dict[str, Any]:
    cancelled, filled = one.count(What.CANCELLED), one.filled
    return _common(one) | {
        "ord_dt": f"{one.day:%Y%m%d}",
        "sll_buy_dvsn_cd_name": SIDE_NAMES[one.side] + _KIND_NAMES[one.kind],
        "prdt_type_cd": "300",
        "avg_prvs": str(one.amount // filled if filled else 0),
        "rmn_qty": str(unfilled(one)),
        "cncl_yn": "Y" if cancelled else "N",
        "cncl_cfrm_qty": str(cancelled),
        "rjct_qty": str(one.count(What.REFUSED)),
        "ccld_cndt_name": _CONDITIONS[one.force],
        "loan_dt": "",
        "ordr_empno": "OpnAPI",
        "ctac_tlno": "",
        "inqr_ip_addr": "",
        "infm_tmd": f"{one.placed_at.astimezone(SEOUL):%H%M%S}",
        "ord_orgno": one.branch,
        "rsvn_ord_end_dt": "",
        "stpm_efct_occr_dtmd": "",
    }


def _changeable_row(one: Order) -> dict[str, Any]:
    return _common(one) | {
        "rvse_cncl_dvsn_name": SIDE_NAMES[one.side] + _KIND_NAMES[one.kind],
        "psbl_qty": str(one.remaining),
        "mgco_aptm_odno": "",
        "excg_id_dvsn_name": one.venue,
        "stpm_efct_occr_yn": "N",
    }


def _totals(period: Iterable[Order]) -> dict[str, str]:
    kept = [one for one in period if one.kind is not Kind.CANCEL]
    filled, amount = sum(one.filled for one in kept), sum((one.amount for one in kept), Decimal())
    return {
        "tot_ord_qty": str(sum(one.quantity for one in kept)),
        "tot_ccld_qty": str(filled),
        "tot_ccld_amt": str(amount),
        "pchs_avg_pric": str(amount // filled if filled else 0),
        "prsm_tlex_smtl": "0",
    }
