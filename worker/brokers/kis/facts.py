"""
What KIS publishes about itself, as dated data: hosts, paths, TR ids, pages, lags.

From the portal's pages and notices as of 2026-09-30 unless a line says otherwise. A change of theirs is a change here
and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from contracts import Side

#: Every date and time of KIS, those of overseas orders' receipt too.
KST: Final = ZoneInfo("Asia/Seoul")
NEW_YORK: Final = ZoneInfo("America/New_York")
#: The hour in Seoul at which no US order of the day before is left: New York's last session ends at 10:00 at the latest.
US_NIGHT_ENDS: Final = 12


class Environment(StrEnum):
    """Which of the two servers a pair of keys belongs to. The pairs are not interchangeable."""

    REAL = "real"
    PAPER = "paper"


HOSTS: Final = {
    Environment.REAL: "https://openapi.koreainvestment.com:9443",
    Environment.PAPER: "https://openapivts.koreainvestment.com:29443",
}

#: Where notices come from: WebSocket without TLS; KIS offers no other. (portal, 2026-09-30)
NOTICE_HOSTS: Final = {
    Environment.REAL: "ws://ops.koreainvestment.com:21000",
    Environment.PAPER: "ws://ops.koreainvestment.com:31000",
}

NOTICE_PATH: Final = "/tryitout"
APPROVAL_PATH: Final = "/oauth2/Approval"
TOKEN_PATH: Final = "/oauth2/tokenP"
ORDER_PATH: Final = "/uapi/domestic-stock/v1/trading/order-cash"
CHANGE_PATH: Final = "/uapi/domestic-stock/v1/trading/order-rvsecncl"
DAILY_PATH: Final = "/uapi/domestic-stock/v1/trading/inquire-daily-ccld"
HOLIDAY_PATH: Final = "/uapi/domestic-stock/v1/quotations/chk-holiday"
US_ORDER_PATH: Final = "/uapi/overseas-stock/v1/trading/order"
US_CHANGE_PATH: Final = "/uapi/overseas-stock/v1/trading/order-rvsecncl"
US_DAILY_PATH: Final = "/uapi/overseas-stock/v1/trading/inquire-ccnl"


@dataclass(frozen=True, slots=True)
class TrId:
    """A transaction id on either server, with the id that it replaced where it has one."""

    real: str
    paper: str
    #: What the real server took before; KIS may switch it off without notice.
    formerly: str | None = None
    #: When the ids were last looked at.
    seen: date = date(2026, 9, 30)

    def of(self, environment: Environment) -> str:
        return self.real if environment is Environment.REAL else self.paper


ORDER_IDS: Final = {
    Side.BUY: TrId("TTTC0012U", "VTTC0012U", "TTTC0802U"),
    Side.SELL: TrId("TTTC0011U", "VTTC0011U", "TTTC0801U"),
}
CHANGE_ID: Final = TrId("TTTC0013U", "VTTC0013U", "TTTC0803U")
#: Orders of the last three months.
DAILY_ID: Final = TrId("TTTC0081R", "VTTC0081R", "TTTC8001R")
US_ORDER_IDS: Final = {
    Side.BUY: TrId("TTTT1002U", "VTTT1002U"),
    # Breaks the rule that paper's first letter is a V: the portal's correction of 2026-07-09. Its samples still
    # derive VTTT1006U.
    Side.SELL: TrId("TTTT1006U", "VTTT1001U"),
}
US_CHANGE_ID: Final = TrId("TTTT1004U", "VTTT1004U")
US_DAILY_ID: Final = TrId("TTTS3035R", "VTTS3035R")

#: Execution notices. One subscription covers all accounts of an HTS id.
NOTICE_ID: Final = TrId("H0STCNI0", "H0STCNI9")
US_NOTICE_ID: Final = TrId("H0GSCNI0", "H0GSCNI9")

#: Trading days ahead. Real only; paper has no such call.
HOLIDAY_ID: Final = "CTCA0903R"

#: Rows of a full page of an order list.
PAGE_ROWS: Final = {Environment.REAL: 100, Environment.PAPER: 15}

#: Seconds until an accepted order shows in the lists for certain. KIS's sample application protects new rows for 15 s
#: [official, 2026-09]. Paper is slower: orders were absent from the first polls [1src], so it is given twice that [?].
VISIBILITY_LAG: Final = {Environment.REAL: 15.0, Environment.PAPER: 30.0}

#: REST calls a second and app key, of every kind but for tokens [official notice of 2026-04-20; paper was 2 until then].
RATE_LIMIT: Final = {Environment.REAL: 18.0, Environment.PAPER: 1.0}

#: Order lists and balances a second and account, by all who ask; KIS names no number. (field reports, 2026-09)
LEDGER_RATE_LIMIT: Final = 1.0

#: One token a minute and app key; sooner is EGW00133.
TOKEN_INTERVAL: Final = 60.0

#: Seconds without a word, not even a PINGPONG, after which nobody is there any more; KIS names no number. (field
#: reports, 2026-09: one comes every ten seconds or so [?])
NOTICE_SILENCE: Final = 60.0
#: Seconds until KIS has forgotten a connection that broke off; sooner it answers OPSP8996. (field reports, 2026-09: up to
#: a minute)
NOTICE_FORGETS: Final = 15.0
