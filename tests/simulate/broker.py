"""A KIS simulator as a test holds it: called without HTTP, on a clock that the test moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from worker.clock import ManualClock
from worker.simulate.exchange import Mishap
from worker.simulate.kis import KISOptions, KISSimulator
from worker.simulate.kis.calls import CALLS
from worker.simulate.kis.wire import Asked, Reply

#: A Monday at ten in the morning in Seoul.
MORNING = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
KEYS = {"appkey": "test-key", "appsecret": "test-secret"}
ACCOUNT = {"CANO": "12345678", "ACNT_PRDT_CD": "01"}
BUY, SELL, CHANGE, DAILY = "TTTC0012U", "TTTC0011U", "TTTC0013U", "TTTC0081R"
#: Far below and far above every price of the day that 005930 trades at, and inside its limits.
LOW, HIGH = 60_000, 80_000


def order_body(**changes: Any) -> dict[str, Any]:
    """A limit buy of 10 005930 at 60,000, which rests, with the given keys changed."""
    body = ACCOUNT | {
        "PDNO": "005930",
        "ORD_DVSN": "00",
        "ORD_QTY": "10",
        "ORD_UNPR": str(LOW),
        "EXCG_ID_DVSN_CD": "KRX",
        "SLL_TYPE": "",
        "CNDT_PRIC": "",
    }
    return body | {name: str(value) for name, value in changes.items()}


def change_body(number: str, what: str = "02", **changes: Any) -> dict[str, Any]:
    """A cancel of the whole rest of that order, with the given keys changed."""
    body = ACCOUNT | {
        "KRX_FWDG_ORD_ORGNO": "91252",
        "ORGN_ODNO": number,
        "ORD_DVSN": "00",
        "RVSE_CNCL_DVSN_CD": what,
        "ORD_QTY": "0",
        "ORD_UNPR": "0",
        "QTY_ALL_ORD_YN": "Y",
        "EXCG_ID_DVSN_CD": "KRX",
    }
    return body | {name: str(value) for name, value in changes.items()}


def daily_query(**changes: Any) -> dict[str, Any]:
    """Everything of 2026-11-23, newest first, with the given parameters changed."""
    query = ACCOUNT | {
        "INQR_STRT_DT": "20261123",
        "INQR_END_DT": "20261123",
        "SLL_BUY_DVSN_CD": "00",
        "INQR_DVSN": "00",
        "PDNO": "",
        "CCLD_DVSN": "00",
        "ORD_GNO_BRNO": "",
        "ODNO": "",
        "INQR_DVSN_3": "00",
        "INQR_DVSN_1": "",
        "EXCG_ID_DVSN_CD": "ALL",
        "CTX_AREA_FK100": "",
        "CTX_AREA_NK100": "",
    }
    return query | changes


def a_simulator(clock: ManualClock | None = None, **options: Any) -> KISSimulator:
    """Without limits and lags, unless the test asks for them."""
    calm: dict[str, Any] = {"rate": 0, "ledger_rate": 0, "token_interval": 0, "visibility_lag": 0}
    return KISSimulator(KISOptions(**calm | options), clock=clock or ManualClock(MORNING))


@dataclass
class Broker:
    """A client of a simulator, without HTTP in between."""

    simulator: KISSimulator
    keys: dict[str, str] = field(default_factory=lambda: dict(KEYS))
    token: str = ""

    def __post_init__(self) -> None:
        self.sign_in()

    def sign_in(self) -> Reply:
        reply = self.simulator.desk.gatehouse.issue({"grant_type": "client_credentials"} | self.keys)
        self.token = reply.body.get("access_token", self.token)
        return reply

    def call(
        self, name: str, tr_id: str, params: dict[str, Any], mishap: Mishap | None = None, **headers: str
    ) -> Reply:
        call = next(one for one in CALLS if one.name == name)
        sent = self.keys | {
            "authorization": f"Bearer {self.token}",
            "content-type": "application/json; charset=utf-8",
            "tr_id": tr_id,
            "custtype": "P",
        }
        asked = Asked(call, params, sent | headers)
        return self.simulator.desk.check(asked) or self.simulator.desk.carry_out(asked, mishap or Mishap())

    def buy(self, mishap: Mishap | None = None, **changes: Any) -> Reply:
        return self.call("order", self._id(BUY), order_body(**changes), mishap)

    def sell(self, **changes: Any) -> Reply:
        return self.call("order", self._id(SELL), order_body(**changes))

    def change(self, number: str, what: str = "02", **changes: Any) -> Reply:
        return self.call("change", self._id(CHANGE), change_body(number, what, **changes))

    def daily(self, **changes: Any) -> list[dict[str, str]]:
        reply = self.call("daily", self._id(DAILY), daily_query(**changes))
        assert reply.body["rt_cd"] == "0", reply.body
        return list(reply.body["output1"])

    def balance(self) -> Reply:
        query = {"AFHR_FLPR_YN": "N", "INQR_DVSN": "02", "UNPR_DVSN": "01", "PRCS_DVSN": "00"}
        return self.call("balance", self._id("TTTC8434R"), ACCOUNT | query)

    def _id(self, real: str) -> str:
        return f"V{real[1:]}" if self.simulator.options.is_paper else real


def number_of(reply: Reply) -> str:
    """The order number of an answer that took one."""
    assert reply.body["rt_cd"] == "0", reply.body
    return str(reply.body["output"]["ODNO"])


def code_of(reply: Reply) -> str:
    return str(reply.body["msg_cd"])
