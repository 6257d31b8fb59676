"""Money, shares, prices and the calendar: what a client asks before and after it orders."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from contracts import Side
from worker.markets import PriceLimits
from worker.simulate.book import Account, Position
from worker.simulate.exchange import Mishap
from worker.simulate.kis.codes import FOUND, FOUND_NONE_PAPER
from worker.simulate.kis.desk import Desk, whole_number
from worker.simulate.kis.divisions import DOMESTIC_DIVISIONS
from worker.simulate.kis.options import BALANCE_PAGE, PAPER_BALANCE_PAGE
from worker.simulate.kis.wire import Asked, Page, Reply, answered, paged, refused
from worker.simulate.rules import Pricing, Reason, Refusal
from worker.simulate.universe import Instrument, universe

CALENDAR_DAYS = 24
#: Of ``inquire-price``: clients read them, and this market has none.
_UNKNOWN_FIGURES = ("acml_vol", "acml_tr_pbmn", "prdy_vrss_vol_rate", "hts_avls", "per", "pbr", "eps", "bps")


def balance(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``inquire-balance``: shares, and money as of today, tomorrow and the day after."""
    with desk.exchange.lock:
        account = desk.exchange.account(desk.account(asked))
        held = [
            (universe()[symbol], position)
            for symbol, position in sorted(account.positions.items())
            if position.quantity and universe()[symbol].market == "KR"
        ]
        rows = [_holding(desk, account, *one) for one in held]
        totals = _money(desk, account, held)
    size = PAPER_BALANCE_PAGE if desk.options.is_paper else BALANCE_PAGE
    start = whole_number(asked.text("CTX_AREA_NK100", "") or "0") if asked.is_continued else 0
    more = len(rows) > start + size
    code = FOUND_NONE_PAPER if desk.options.is_paper and not rows else FOUND
    reply = paged(asked, Page(rows[start : start + size], None), "100", code)
    body = dict(reply.body) | {"output1": rows[start : start + size], "output2": [totals]}
    if more:
        body["ctx_area_nk100"] = str(start + size).ljust(100)
    return Reply(reply.status, body, ("M" if asked.is_continued else "F") if more else "D")


def buying_power(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``inquire-psbl-order``: a market order is reckoned at the day's upper limit."""
    symbol = asked.text("PDNO")
    terms = DOMESTIC_DIVISIONS.get(asked.text("ORD_DVSN"))
    given = Decimal(whole_number(asked.text("ORD_UNPR") or "0"))
    with desk.exchange.lock:
        free = desk.exchange.account(desk.account(asked)).free_cash("KRW")
        price = given
        if symbol:
            instrument = _korean(symbol)
            limits = instrument.limits()
            if terms is not None and terms.pricing is not Pricing.LIMIT and limits:
                price = limits.upper
    quantity = free // price if price else Decimal()
    output = {
        "ord_psbl_cash": str(free),
        "ord_psbl_sbst": "0",
        "ruse_psbl_amt": "0",
        "fund_rpch_chgs": "0",
        "psbl_qty_calc_unpr": str(price),
        "nrcvb_buy_amt": str(free),
        "nrcvb_buy_qty": str(quantity),
        "max_buy_amt": str(free),
        "max_buy_qty": str(quantity),
        "cma_evlu_amt": "0",
        "ovrs_re_use_amt_wcrc": "0",
        "ord_psbl_frcr_amt_wcrc": "0",
    }
    return answered(FOUND, output=output)


def sellable(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``inquire-psbl-sell``."""
    instrument = _korean(asked.text("PDNO"))
    with desk.exchange.lock:
        account = desk.exchange.account(desk.account(asked))
        held = account.positions.get(instrument.symbol, Position(0, Decimal()))
        price = desk.exchange.quote_price(instrument.symbol)
        free = account.free_shares(instrument.symbol)
    output = _valued(instrument, held, price) | {
        "buy_qty": "0",
        "sll_qty": "0",
        "cblc_qty": str(held.quantity),
        "nsvg_qty": "0",
        "ord_psbl_qty": str(free),
        "now_pric": str(price),
    }
    return answered(FOUND, output=output)


def price(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``inquire-price``."""
    instrument = _korean(asked.text("FID_INPUT_ISCD"))
    last = desk.exchange.quote_price(instrument.symbol)
    limits = instrument.limits() or PriceLimits(last, last)
    moved = last - instrument.base
    output = {
        "stck_shrn_iscd": instrument.symbol,
        "iscd_stat_cls_code": "00",
        "stck_prpr": str(last),
        "prdy_vrss": str(moved),
        "prdy_vrss_sign": "2" if moved > 0 else "5" if moved < 0 else "3",
        "prdy_ctrt": f"{moved / instrument.base * 100:.2f}",
        "stck_sdpr": str(instrument.base),
        "stck_mxpr": str(limits.upper),
        "stck_llam": str(limits.lower),
        "aspr_unit": str(instrument.tick(last)),
        "hts_kor_isnm": instrument.name,
        # The day's path is not kept: it opened at the base price, and has been nowhere but there and here.
        "stck_oprc": str(instrument.base),
        "stck_hgpr": str(max(last, instrument.base)),
        "stck_lwpr": str(min(last, instrument.base)),
        "w52_hgpr": str(max(last, instrument.base)),
        "w52_lwpr": str(min(last, instrument.base)),
        "w52_hgpr_date": f"{desk.exchange.time.today():%Y%m%d}",
        "w52_lwpr_date": f"{desk.exchange.time.today():%Y%m%d}",
        "mrkt_warn_cls_code": "00",
        "temp_stop_yn": "N",
        "short_over_yn": "N",
        **dict.fromkeys(_UNKNOWN_FIGURES, "0"),
    }
    return answered(FOUND, output=output)


def listing(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``search-stock-info``: where a symbol trades. Everything but funds trades on NXT too [?]."""
    instrument = _korean(asked.text("PDNO"))
    output = {
        "pdno": instrument.symbol,
        "prdt_type_cd": "300",
        "prdt_name": instrument.name,
        "prdt_abrv_name": instrument.name,
        "scty_grp_id_cd": "EF" if instrument.fund else "ST",
        "cptt_trad_tr_psbl_yn": "N" if instrument.fund else "Y",
        "nxt_tr_stop_yn": "N",
        "tr_stop_yn": "N",
        "admn_item_yn": "N",
    }
    return answered(FOUND, output=output)


def holiday(desk: Desk, asked: Asked, _: Mishap) -> Reply:
    """``chk-holiday``: the calendar from a day on."""
    try:
        first = datetime.strptime(asked.text("BASS_DT"), "%Y%m%d").date()  # noqa: DTZ007 - a date has no zone
    except ValueError:
        raise refused("IGW00007") from None
    days = (first + timedelta(days=number) for number in range(CALENDAR_DAYS))
    rows = [_calendar_row(day, desk.exchange.rules.venues.is_open_day("KRX", day)) for day in days]
    return answered(FOUND, ctx_area_fk=" " * 20, ctx_area_nk=" " * 20, output=rows)


def _korean(symbol: str) -> Instrument:
    found = universe().get(symbol)
    if found is None or found.market != "KR":
        raise Refusal(Reason.SYMBOL)
    return found


def _calendar_row(day: date, is_open: bool) -> dict[str, str]:
    flag = "Y" if is_open else "N"
    return {
        "bass_dt": f"{day:%Y%m%d}",
        # 01 is Sunday.
        "wday_dvsn_cd": f"{day.isoweekday() % 7 + 1:02d}",
        "bzdy_yn": flag,
        "tr_day_yn": flag,
        "opnd_yn": flag,
        "sttl_day_yn": flag,
    }


def _valued(instrument: Instrument, held: Position, price: Decimal) -> dict[str, str]:
    worth = held.quantity * price
    return {
        "pdno": instrument.symbol,
        "prdt_name": instrument.name,
        "pchs_avg_pric": f"{held.cost / held.quantity if held.quantity else 0:.4f}",
        "pchs_amt": f"{held.cost:.0f}",
        "evlu_amt": str(worth),
        "evlu_pfls_amt": f"{worth - held.cost:.0f}",
        "evlu_pfls_rt": f"{(worth - held.cost) / held.cost * 100 if held.cost else 0:.2f}",
    }


def _holding(desk: Desk, account: Account, instrument: Instrument, held: Position) -> dict[str, Any]:
    today, symbol = desk.exchange.time.today(), instrument.symbol
    last = desk.exchange.quote_price(symbol)
    return _valued(instrument, held, last) | {
        "trad_dvsn_name": "현금",
        "hldg_qty": str(held.quantity),
        "ord_psbl_qty": str(account.free_shares(symbol)),
        "prpr": str(last),
        "bfdy_buy_qty": "0",
        "bfdy_sll_qty": "0",
        "thdt_buyqty": str(account.traded[today, symbol, Side.BUY]),
        "thdt_sll_qty": str(account.traded[today, symbol, Side.SELL]),
        "loan_dt": "",
        "loan_amt": "0",
        "expd_dt": "",
    }


def _money(desk: Desk, account: Account, held: Iterable[tuple[Instrument, Position]]) -> dict[str, str]:
    cash = account.cash.get("KRW", Decimal())
    # Settled money knows nothing of today, nor does tomorrow's; the day after tomorrow's does.
    settled = cash - account.flows[desk.exchange.time.today(), "KRW"]
    worth = sum((one.quantity * desk.exchange.quote_price(of.symbol) for of, one in held), Decimal())
    cost = sum((one.cost for _, one in held), Decimal())
    return {
        "dnca_tot_amt": f"{settled:.0f}",
        "nxdy_excc_amt": f"{settled:.0f}",
        "prvs_rcdl_excc_amt": f"{cash:.0f}",
        "scts_evlu_amt": f"{worth:.0f}",
        "tot_evlu_amt": f"{cash + worth:.0f}",
        "nass_amt": f"{cash + worth:.0f}",
        "pchs_amt_smtl_amt": f"{cost:.0f}",
        "evlu_amt_smtl_amt": f"{worth:.0f}",
        "evlu_pfls_smtl_amt": f"{worth - cost:.0f}",
    }
