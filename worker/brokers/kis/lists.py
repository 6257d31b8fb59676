"""The calls that ask for order lists. No I/O."""

from __future__ import annotations

from datetime import date
from typing import Final

from worker.brokers.kis import facts
from worker.brokers.kis.facts import Environment
from worker.brokers.kis.numbers import OrderNumber
from worker.brokers.kis.payload import Account, Call

#: Days that the list of recent orders reaches back: KIS says three months. (portal, 2026-09-30)
DAYS_MAX: Final = 85


def daily_call(
    account: Account, environment: Environment, first: date, last: date, number: OrderNumber | None = None
) -> Call:
    """Domestic orders of some Korean dates, oldest first, of every exchange; or only the one with that number."""
    fields = account.fields | {
        "INQR_STRT_DT": f"{first:%Y%m%d}",
        "INQR_END_DT": f"{last:%Y%m%d}",
        "SLL_BUY_DVSN_CD": "00",
        "INQR_DVSN": "01",
        "PDNO": "",
        "CCLD_DVSN": "00",
        "ORD_GNO_BRNO": number.branch if number else "",
        "ODNO": number.number if number else "",
        "INQR_DVSN_3": "00",
        "INQR_DVSN_1": "",
        # Paper knows KRX only, and no ALL.
        "EXCG_ID_DVSN_CD": "ALL" if environment is Environment.REAL else "KRX",
        "CTX_AREA_FK100": "",
        "CTX_AREA_NK100": "",
    }
    return Call(facts.DAILY_PATH, facts.DAILY_ID.of(environment), fields)


def us_daily_call(account: Account, environment: Environment, first: date, last: date) -> Call:
    """Orders for US stocks of some dates of New York, oldest first. There is no search by number."""
    is_real = environment is Environment.REAL
    fields = account.fields | {
        # Paper takes no filter at all.
        "PDNO": "%" if is_real else "",
        "ORD_STRT_DT": f"{first:%Y%m%d}",
        "ORD_END_DT": f"{last:%Y%m%d}",
        "SLL_BUY_DVSN": "00",
        "CCLD_NCCS_DVSN": "00",
        # NASD stands for all of the US.
        "OVRS_EXCG_CD": "NASD" if is_real else "",
        "SORT_SQN": "AS",
        "ORD_DT": "",
        "ORD_GNO_BRNO": "",
        "ODNO": "",
        "CTX_AREA_NK200": "",
        "CTX_AREA_FK200": "",
    }
    return Call(facts.US_DAILY_PATH, facts.US_DAILY_ID.of(environment), fields)
