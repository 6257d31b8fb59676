"""US stocks: order, order-rvsecncl, inquire-nccs, inquire-ccnl, inquire-balance, inquire-psamount."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from contracts import Side
from worker.simulate.book import Account, Position
from worker.simulate.exchange import Mishap
from worker.simulate.kis.codes import FOUND, FOUND_NONE_PAPER
from worker.simulate.kis.desk import Desk, decimal_number, whole_number
from worker.simulate.kis.divisions import US_DIVISIONS, US_VENUES
from worker.simulate.kis.domestic import SIDE_NAMES, SIDE_NUMBERS
from worker.simulate.kis.options import PAPER_PAGE, REAL_PAGE
from worker.simulate.kis.wire import Asked, Page, Reply, answered, continued_after, page_of, paged, refused
from worker.simulate.orders import Kind, Order, OrderKey, What
from worker.simulate.rules import Ask, Reason, Refusal
from worker.simulate.universe import Instrument, universe
from worker.simulate.venues import NEW_YORK, SEOUL, US_REGULAR

#: A round figure; nothing is converted with it.
KRW_PER_USD = "1400.0000"
_SIDES = {"01": Side.SELL, "02": Side.BUY}
_KIND_NUMBERS = {Kind.NEW: "00", Kind.MODIFY: "01", Kind.CANCEL: "02"}


def order(desk: Desk, asked: Asked, mishap: Mishap) -> Reply:
    """``order``: a limit order."""
    ids = asked.call.paper if desk.options.is_paper else asked.call.real
    ask = _ask(desk, asked, Side.BUY if ids[asked.tr_id] == "buy" else Side.SELL)
    if whole_number(asked.text("ORD_QTY")) == 0:
        raise refused("IGW00007")
    # The real server takes orders before the opening; the paper server does not.
    if desk.options.is_paper:
        venues, now = desk.exchange.rules.venues, desk.exchange.time.now()
        if venues.takes("NYSE", frozenset({US_REGULAR}), now) and not venues.trades(
            "NYSE", frozenset({US_REGULAR}), now
        ):
            raise Refusal(Reason.BEFORE_OPEN)
    return desk.ordered(desk.exchange.place(ask, mishap))


def change(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``order-rvsecncl``: of the whole rest, as this call has no parts."""
    account, number = desk.account(asked), asked.text("ORGN_ODNO").zfill(10)
    wanted, today = asked.text("RVSE_CNCL_DVSN_CD"), desk.exchange.time.today()
    if wanted not in ("01", "02"):
        raise refused("IGW00007")
    with desk.exchange.lock:
        desk.exchange.advance()
        # New York's day ends in the middle of the Korean one: the order may be of yesterday.
        keys = [OrderKey(account, day, number) for day in (today, today - timedelta(days=1))]
        found = [
            one for key in keys if (one := desk.exchange.book.find(key)) is not None and one.market == "US"
        ]
        if not found:
            raise Refusal(Reason.NO_ORDER)
        original = next((one for one in found if one.remaining), found[0])
        ask = _ask(desk, asked, original.side).of(max(original.remaining, 1))
        act = desk.exchange.cancel if wanted == "02" else desk.exchange.modify
        return desk.changed(act(original.key, ask))


def unfilled(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``inquire-nccs``."""
    account = desk.account(asked)
    today = desk.exchange.time.today()
    with desk.exchange.lock:
        desk.exchange.advance()
        rows = [one for one in _seen(desk, account, today - timedelta(days=1), today) if one.remaining]
    return _listed(desk, asked, [one for one in rows if _is_of(asked.text("OVRS_EXCG_CD", ""), one)])


def orders(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``inquire-ccnl``: by the dates of New York."""
    account = desk.account(asked)
    first, last = (_day(asked.text(name)) for name in ("ORD_STRT_DT", "ORD_END_DT"))
    if asked.text("ODNO", ""):
        raise refused("IGW00007")
    side = _SIDES.get(asked.text("SLL_BUY_DVSN", "00"))
    state, symbol, venue = (
        asked.text("CCLD_NCCS_DVSN", "00"),
        asked.text("PDNO", ""),
        asked.text("OVRS_EXCG_CD", ""),
    )
    if desk.options.is_paper and (side or state not in ("", "00") or symbol.strip("%") or venue.strip("%")):
        raise refused("IGW00007")
    with desk.exchange.lock:
        desk.exchange.advance()
        found = [
            one
            for one in _seen(desk, account, first, last + timedelta(days=1))
            if first <= _local_day(one) <= last
            and side in (None, one.side)
            and symbol in ("", "%", one.symbol)
            and _is_of(venue, one)
            and (state != "01" or one.filled)
            and (state != "02" or one.remaining)
        ]
    return _listed(desk, asked, found)


def balance(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``inquire-balance``: the US shares of the account."""
    venue = asked.text("OVRS_EXCG_CD", "")
    with desk.exchange.lock:
        account = desk.exchange.account(desk.account(asked))
        rows = [
            _holding(desk, account, universe()[symbol], position)
            for symbol, position in sorted(account.positions.items())
            if position.quantity
            and universe()[symbol].market == "US"
            and venue in ("", "NASD", universe()[symbol].venue)
        ]
        cost = sum(
            (one.cost for symbol, one in account.positions.items() if universe()[symbol].market == "US"),
            Decimal(),
        )
    code = FOUND_NONE_PAPER if desk.options.is_paper and not rows else FOUND
    reply = paged(asked, Page(rows, None), "200", code, output1=rows)
    return Reply(reply.status, dict(reply.body) | {"output2": {"frcr_pchs_amt1": f"{cost:.5f}"}}, "D")


def buying_power(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``inquire-psamount``."""
    price = decimal_number(asked.text("OVRS_ORD_UNPR"))
    with desk.exchange.lock:
        free = desk.exchange.account(desk.account(asked)).free_cash("USD")
    quantity = str(free // price if price else 0)
    output = {
        "tr_crcy_cd": "USD",
        "ord_psbl_frcr_amt": f"{free:.2f}",
        "frcr_ord_psbl_amt1": f"{free:.2f}",
        "ovrs_ord_psbl_amt": f"{free:.2f}",
        "max_ord_psbl_qty": quantity,
        "ovrs_max_ord_psbl_qty": quantity,
        "ord_psbl_qty": quantity,
        "exrt": KRW_PER_USD,
    }
    return answered(FOUND, output=output)


def _ask(desk: Desk, asked: Asked, side: Side) -> Ask:
    venue, division = asked.text("OVRS_EXCG_CD"), asked.text("ORD_DVSN", "00") or "00"
    if venue not in US_VENUES or division not in US_DIVISIONS:
        raise Refusal(Reason.VENUE_TYPE)
    symbol = asked.text("PDNO")
    known = universe().get(symbol)
    if known is not None and known.venue != venue:
        raise Refusal(Reason.SYMBOL)
    quantity, price = whole_number(asked.text("ORD_QTY")), decimal_number(asked.text("OVRS_ORD_UNPR"))
    terms = US_DIVISIONS[division]
    return Ask(desk.account(asked), desk.branch, venue, symbol, side, quantity, price, terms)


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a date has no zone
    except ValueError:
        raise refused("IGW00007") from None


def _local_day(one: Order) -> date:
    return one.placed_at.astimezone(NEW_YORK).date()


def _is_of(venue: str, one: Order) -> bool:
    # NASD stands for all of the US.
    return venue in ("", "%", "NASD", one.venue)


def _seen(desk: Desk, account: str, first: date, last: date) -> Iterable[Order]:
    for one in desk.exchange.book.orders(account, first, last):
        if one.market == "US" and (seen := desk.exchange.seen(one)) is not None:
            yield seen


def _listed(desk: Desk, asked: Asked, found: list[Order]) -> Reply:
    size = PAPER_PAGE if desk.options.is_paper else REAL_PAGE
    places = [((one.day, one.number), one) for one in found]
    newest_first = asked.text("SORT_SQN", "DS") != "AS"
    page = page_of(places, size, continued_after(asked, "200"), newest_first)
    code = FOUND_NONE_PAPER if desk.options.is_paper and not page.rows else FOUND
    rows = [_row(one) for one in page.rows]
    return paged(asked, Page(rows, page.ends_at), "200", code, output=rows)


def _row(one: Order) -> dict[str, Any]:
    local, korean = one.placed_at.astimezone(NEW_YORK), one.placed_at.astimezone(SEOUL)
    refused_shares = one.count(What.REFUSED)
    done = one.kind is Kind.CANCEL or one.filled == one.quantity
    return {
        "ord_dt": f"{local:%Y%m%d}",
        "ord_gno_brno": one.branch,
        "odno": one.number,
        "orgn_odno": one.original,
        "sll_buy_dvsn_cd": SIDE_NUMBERS[one.side],
        "sll_buy_dvsn_cd_name": SIDE_NAMES[one.side],
        "rvse_cncl_dvsn": _KIND_NUMBERS[one.kind],
        "rvse_cncl_dvsn_cd": _KIND_NUMBERS[one.kind],
        "pdno": one.symbol,
        "prdt_name": universe()[one.symbol].name,
        "ft_ord_qty": str(one.quantity),
        "ft_ord_unpr3": f"{one.price:.8f}",
        "ft_ccld_qty": str(one.filled),
        "ft_ccld_unpr3": f"{one.amount / one.filled if one.filled else 0:.8f}",
        "ft_ccld_amt3": f"{one.amount:.5f}",
        "nccs_qty": str(one.remaining),
        # A cancelled original stays in transmission; the cancel is a row of its own.
        "prcs_stat_name": "거부" if refused_shares else "완료" if done else "전송",
        "rjct_rson": "9999" if refused_shares else "",
        "rjct_rson_name": "거래소 거부" if refused_shares else "",
        "ord_tmd": f"{korean:%H%M%S}",
        "thco_ord_tmd": f"{korean:%H%M%S}",
        "dmst_ord_dt": f"{one.day:%Y%m%d}",
        "tr_mket_name": one.venue,
        "tr_natn": "840",
        "tr_crcy_cd": "USD",
        "ovrs_excg_cd": one.venue,
    }


def _holding(desk: Desk, account: Account, instrument: Instrument, held: Position) -> dict[str, str]:
    last = desk.exchange.quote_price(instrument.symbol)
    worth = held.quantity * last
    return {
        "ovrs_pdno": instrument.symbol,
        "ovrs_item_name": instrument.name,
        "frcr_evlu_pfls_amt": f"{worth - held.cost:.5f}",
        "pchs_avg_pric": f"{held.cost / held.quantity:.4f}",
        "ovrs_cblc_qty": str(held.quantity),
        "ord_psbl_qty": str(account.free_shares(instrument.symbol)),
        "frcr_pchs_amt1": f"{held.cost:.5f}",
        "ovrs_stck_evlu_amt": f"{worth:.5f}",
        "now_pric2": f"{last:.4f}",
        "tr_crcy_cd": "USD",
        "ovrs_excg_cd": instrument.venue,
        "loan_dt": "",
    }
