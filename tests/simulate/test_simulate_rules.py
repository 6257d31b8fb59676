"""What the simulated KIS refuses, with its own codes: real and paper, keys and limits, pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.simulate.broker import (
    ACCOUNT,
    MORNING,
    Broker,
    a_simulator,
    code_of,
    daily_query,
    number_of,
    order_body,
)
from worker.clock import ManualClock
from worker.simulate.kis.notices import domestic_record, overseas_record
from worker.simulate.kis.wire import Reply, hash_of
from worker.simulate.orders import Change, Order

SUNDAY = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)
NIGHT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAWN = datetime(2026, 11, 22, 21, 0, tzinfo=UTC)
EVENING = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def a_broker(mode: str = "real", at: datetime = MORNING, **options: Any) -> Broker:
    return Broker(a_simulator(ManualClock(at), mode=mode, **options))


def assert_refused(broker: Broker, reply: Reply, code: str) -> None:
    assert code_of(reply) == code, reply.body
    assert reply.body["rt_cd"] != "0"
    assert reply.body["msg1"]
    assert "output" not in reply.body
    assert broker.simulator.orders() == []


# --- The exchange's and the account's rules ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "real", "paper"),
    [
        ({"ORD_UNPR": 70_050}, "APBK0506", "40030000"),
        ({"ORD_UNPR": 92_400}, "APBK0406", "40270000"),
        ({"ORD_UNPR": 49_600}, "APBK0407", "40270000"),
        ({"PDNO": "999999"}, "APBK0656", "40070000"),
        ({"PDNO": "AAPL"}, "APBK0656", "40070000"),
        ({"ORD_QTY": 1_000_000}, "APBK0952", "40250000"),
        ({"ORD_DVSN": "41"}, "APBK0918", "40580000"),
        ({"CANO": "1234"}, "OPSQ2000", "OPSQ2000"),
        ({"ORD_QTY": 0}, "IGW00007", "IGW00007"),
        ({"ORD_UNPR": "70000.0"}, "IGW00007", "IGW00007"),
        ({"EXCG_ID_DVSN_CD": "XXX"}, "IGW00007", "IGW00007"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("mode", ["real", "paper"])
def test_a_bad_order_is_refused_with_the_code_of_that_server(
    changes: dict[str, Any], real: str, paper: str, mode: str
) -> None:
    broker = a_broker(mode)

    assert_refused(broker, broker.buy(**changes), real if mode == "real" else paper)


@pytest.mark.parametrize(("mode", "code"), [("real", "APBK0400"), ("paper", "40240000")])
def test_nobody_sells_what_he_does_not_have(mode: str, code: str) -> None:
    broker = a_broker(mode, holdings={})

    assert_refused(broker, broker.sell(), code)


def test_shares_of_an_open_sell_cannot_be_sold_again() -> None:
    broker = a_broker(holdings={"005930": 10})
    number_of(broker.sell(ORD_UNPR=90_000))

    assert code_of(broker.sell(ORD_UNPR=90_000)) == "APBK0400"


def test_a_market_buy_is_reckoned_at_the_upper_limit() -> None:
    broker = a_broker(cash={"KRW": 800_000})
    asked = {
        "PDNO": "005930",
        "ORD_UNPR": "",
        "ORD_DVSN": "01",
        "CMA_EVLU_AMT_ICLD_YN": "N",
        "OVRS_ICLD_YN": "N",
    }

    power = broker.call("buying_power", "TTTC8908R", ACCOUNT | asked).body["output"]

    assert (power["psbl_qty_calc_unpr"], power["nrcvb_buy_qty"]) == ("92300", "8")
    assert code_of(broker.buy(ORD_DVSN="01", ORD_QTY=9, ORD_UNPR=0)) == "APBK0952"
    assert number_of(broker.buy(ORD_DVSN="01", ORD_QTY=8, ORD_UNPR=0))


@pytest.mark.parametrize(
    ("mode", "at", "changes", "code"),
    [
        ("real", SUNDAY, {}, "APBK0919"),
        ("real", DAWN, {}, "APBK0918"),
        ("real", NIGHT, {}, "APBK0918"),
        ("real", EVENING, {}, "APBK3013"),
        ("real", MORNING, {"ORD_DVSN": "01", "EXCG_ID_DVSN_CD": "NXT", "ORD_UNPR": 0}, "APBK1943"),
        ("paper", SUNDAY, {}, "40100000"),
        ("paper", DAWN, {}, "40570000"),
        ("paper", NIGHT, {}, "40580000"),
        ("paper", MORNING, {"EXCG_ID_DVSN_CD": "NXT"}, "90000000"),
    ],
)
def test_an_order_at_the_wrong_time_or_place_is_refused(
    mode: str, at: datetime, changes: dict[str, Any], code: str
) -> None:
    broker = a_broker(mode, at)

    assert_refused(broker, broker.buy(**changes), code)


def test_the_after_market_takes_its_own_types() -> None:
    broker = a_broker(at=EVENING)

    assert number_of(broker.buy(ORD_DVSN="41"))
    assert number_of(broker.buy(EXCG_ID_DVSN_CD="NXT"))


def test_the_first_trading_day_of_a_year_opens_late() -> None:
    half_past_nine = datetime(2027, 1, 4, 0, 30, tzinfo=UTC)

    waiting = a_broker(at=half_past_nine, depth=10_000)
    waiting.buy(ORD_UNPR=80_000)

    assert waiting.simulator.orders()[0].filled == 0
    assert a_broker(at=half_past_nine.replace(hour=1)).buy(ORD_UNPR=80_000).body["rt_cd"] == "0"


def test_an_open_simulator_never_closes() -> None:
    broker = a_broker(at=SUNDAY, always_open=True)

    assert number_of(broker.buy())


# --- The gateway ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"appkey": ""}, "EGW00102"),
        ({"appsecret": ""}, "EGW00104"),
        ({"appsecret": "another"}, "EGW00105"),
        ({"authorization": ""}, "EGW00122"),
        ({"authorization": "Bearer abc.def"}, "EGW00121"),
        ({"content-type": "text/plain"}, "EGW00132"),
        ({"transfer-encoding": "chunked"}, "EGW00202"),
        ({"hashkey": "0" * 64}, "EGW00131"),
        ({"custtype": "X"}, "EGW00208"),
    ],
)
def test_the_gateway_says_what_is_wrong_with_a_call(headers: dict[str, str], code: str) -> None:
    broker = a_broker()

    reply = broker.call("order", "TTTC0012U", order_body(), **headers)

    assert_refused(broker, reply, code)
    assert reply.status == 500


def test_the_real_server_does_not_know_the_ids_of_the_paper_server() -> None:
    broker = a_broker()

    assert_refused(broker, broker.call("order", "VTTC0012U", order_body()), "EGW00310")


def test_another_app_key_is_not_let_in() -> None:
    simulator = a_simulator(app_key="test-key", app_secret="test-secret")

    stranger = Broker(simulator, {"appkey": "other", "appsecret": "test-secret"})

    assert stranger.sign_in().body["error_code"] == "EGW00103"
    assert code_of(stranger.buy()) == "EGW00103"
    assert number_of(Broker(simulator).buy())


def test_a_right_hashkey_is_taken() -> None:
    broker = a_broker()

    assert number_of(broker.call("order", "TTTC0012U", order_body(), hashkey=hash_of(order_body())))


@pytest.mark.parametrize("name", ["changeable", "sellable", "holiday", "us_unfilled"])
def test_paper_does_not_have_every_call(name: str) -> None:
    broker = a_broker("paper")

    assert code_of(broker.call(name, "VTTC0084R", ACCOUNT)) == "EGW02006"


def test_one_token_a_minute() -> None:
    clock = ManualClock(MORNING)
    broker = Broker(a_simulator(clock, token_interval=60))

    too_soon = broker.sign_in()
    clock.advance(60)

    assert (too_soon.status, too_soon.body["error_code"]) == (403, "EGW00133")
    assert broker.sign_in().status == 200


def test_the_same_token_is_issued_again_for_six_hours() -> None:
    clock = ManualClock(MORNING)
    broker = Broker(a_simulator(clock))
    first = broker.token

    clock.advance(6 * 3600 - 1)
    broker.sign_in()
    same = broker.token
    clock.advance(1)
    broker.sign_in()

    assert same == first != broker.token


def test_a_token_ends_when_its_life_is_over_or_somebody_revokes_it() -> None:
    clock = ManualClock(MORNING)
    broker = Broker(a_simulator(clock, token_life=60))
    simulator = broker.simulator

    clock.advance(60)
    expired = code_of(broker.buy())
    broker.sign_in()
    good = code_of(broker.buy())
    simulator.desk.gatehouse.revoke({"token": broker.token} | broker.keys)
    revoked = code_of(broker.buy())
    broker.sign_in()
    simulator.desk.gatehouse.revoke_all()
    all_revoked = code_of(broker.buy())
    broker.sign_in()

    assert [expired, good, revoked, all_revoked] == ["EGW00123", "APBK0013", "EGW00121", "EGW00121"]
    assert code_of(broker.buy()) == "APBK0013"


def test_a_token_outlives_a_restart_of_the_server() -> None:
    before, after = Broker(a_simulator()), Broker(a_simulator())

    after.token = before.token

    assert number_of(after.buy())


@pytest.mark.parametrize(("mode", "limit"), [("real", 18), ("paper", 1)])
def test_no_window_of_a_second_holds_more_calls_than_the_limit(mode: str, limit: int) -> None:
    clock = ManualClock(MORNING)
    broker = Broker(a_simulator(clock, mode=mode, rate=None))
    passed = []
    for _ in range(300):
        if code_of(broker.buy()) not in ("EGW00201",):
            passed.append(clock.boottime())
        clock.advance(0.01)

    windows = [sum(start <= at < start + 0.9999 for at in passed) for start in passed]
    assert max(windows) == limit
    assert len(passed) == 3 * limit
    assert broker.simulator.desk.refusals["EGW00201"] == 300 - 3 * limit


def test_the_ledger_has_a_limit_of_its_own() -> None:
    clock = ManualClock(MORNING)
    broker = Broker(a_simulator(clock, ledger_rate=1))

    codes = [code_of(broker.balance()) for _ in range(2)]
    order = code_of(broker.buy())
    clock.advance(1)

    assert codes == ["MCA00000", "EGW00215"]
    assert order == "APBK0013"
    assert code_of(broker.balance()) == "MCA00000"


# --- Pages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "page", "first"), [("real", 100, "F"), ("paper", 15, "F")])
@pytest.mark.parametrize("oldest_first", [True, False])
def test_every_order_is_on_exactly_one_page(mode: str, page: int, first: str, oldest_first: bool) -> None:
    broker = a_broker(mode)
    numbers = [number_of(broker.buy(ORD_QTY=1)) for _ in range(2 * page + 3)]
    tr_id = "TTTC0081R" if mode == "real" else "VTTC0081R"
    query = daily_query(INQR_DVSN="01" if oldest_first else "00")

    pages, marks, more = [], [], ""
    while True:
        reply = broker.call("daily", tr_id, query, tr_cont=more)
        pages.append([row["odno"] for row in reply.body["output1"]])
        marks.append(reply.tr_cont)
        if reply.tr_cont not in ("F", "M"):
            break
        # What comes in between two pages is on none of them, or on a later one.
        broker.buy(ORD_QTY=1)
        keys = {name.upper(): value for name, value in reply.body.items() if name.startswith("ctx_")}
        assert all(len(value) == 100 for value in keys.values())
        query, more = query | keys, "N"

    assert marks == [first, "M", "D"]
    listed = [number for one in pages for number in one]
    assert len(listed) == len(set(listed))
    assert [number for number in (listed if oldest_first else listed[::-1]) if number in numbers] == numbers
    assert [len(one) for one in pages[:2]] == [page, page]


def test_a_page_asked_for_with_a_strange_key_is_refused() -> None:
    broker = a_broker()

    reply = broker.call("daily", "TTTC0081R", daily_query(CTX_AREA_NK100="nonsense"), tr_cont="N")

    assert code_of(reply) == "IGW00007"


def test_the_list_can_be_narrowed() -> None:
    broker = a_broker(depth=10_000)
    filled = number_of(broker.buy(ORD_UNPR=80_000))
    resting = number_of(broker.buy(EXCG_ID_DVSN_CD="SOR"))
    sold = number_of(broker.sell(PDNO="000660", ORD_UNPR=230_000))

    def found(**changes: str) -> list[str]:
        return [row["odno"] for row in broker.daily(**changes)]

    assert found(CCLD_DVSN="01") == [filled]
    assert found(CCLD_DVSN="02") == [sold, resting]
    assert found(SLL_BUY_DVSN_CD="01") == found(PDNO="000660") == [sold]
    assert found(EXCG_ID_DVSN_CD="SOR") == [resting]
    assert found(ODNO=filled) == [filled]
    assert found(INQR_STRT_DT="20261101", INQR_END_DT="20261122") == []


def test_the_changeable_list_holds_what_still_works() -> None:
    broker = a_broker()
    kept, gone = number_of(broker.buy()), number_of(broker.buy())
    broker.change(gone)

    rows = broker.call("changeable", "TTTC0084R", ACCOUNT | {"INQR_DVSN_1": "0", "INQR_DVSN_2": "0"}).body[
        "output"
    ]

    assert [(row["odno"], row["psbl_qty"]) for row in rows] == [(kept, "10")]


# --- What else is asked --------------------------------------------------------------------------------------


def test_the_calendar_knows_week_ends_and_holidays() -> None:
    rows = a_broker().call("holiday", "CTCA0903R", {"BASS_DT": "20261224"}).body["output"]

    opened = {row["bass_dt"]: row["opnd_yn"] for row in rows}
    assert [opened[f"202612{day}"] for day in (24, 25, 26, 28, 31)] == ["Y", "N", "N", "Y", "N"]
    assert rows[0]["wday_dvsn_cd"] == "05"


def test_a_price_stands_on_its_grid_and_inside_its_limits() -> None:
    broker = a_broker()

    for symbol in ("005930", "207940", "069500", "114800"):
        found = broker.call("price", "FHKST01010100", {"FID_INPUT_ISCD": symbol}).body["output"]
        last = int(found["stck_prpr"])
        assert last % int(found["aspr_unit"]) == 0
        assert int(found["stck_llam"]) < last < int(found["stck_mxpr"])


@pytest.mark.parametrize(("symbol", "on_nxt"), [("005930", "Y"), ("069500", "N")])
def test_funds_do_not_trade_on_nxt(symbol: str, on_nxt: str) -> None:
    broker = a_broker()

    listed = broker.call("listing", "CTPF1002R", {"PRDT_TYPE_CD": "300", "PDNO": symbol}).body["output"]
    order = broker.buy(PDNO=symbol, EXCG_ID_DVSN_CD="NXT", ORD_UNPR=60_000 if on_nxt == "Y" else 30_000)

    assert listed["cptt_trad_tr_psbl_yn"] == on_nxt
    assert code_of(order) == ("APBK0013" if on_nxt == "Y" else "APBK1943")


def test_a_long_balance_has_pages() -> None:
    broker = a_broker("paper")

    first = broker.balance()
    key = {"CTX_AREA_FK100": "", "CTX_AREA_NK100": first.body["ctx_area_nk100"]}
    second = broker.call("balance", "VTTC8434R", ACCOUNT | key, tr_cont="N")

    pages = [[row["pdno"] for row in reply.body["output1"]] for reply in (first, second)]
    assert [first.tr_cont, second.tr_cont] == ["F", "D"]
    assert [len(page) for page in pages] == [20, 6]
    assert not set(pages[0]) & set(pages[1])


def test_what_can_be_sold_is_what_no_open_sell_holds() -> None:
    broker = a_broker()
    broker.sell(ORD_QTY=40, ORD_UNPR=90_000)

    found = broker.call("sellable", "TTTC8408R", ACCOUNT | {"PDNO": "005930"}).body["output"]

    assert (found["cblc_qty"], found["ord_psbl_qty"]) == ("1000", "960")


# --- US ------------------------------------------------------------------------------------------------------

US_OPEN = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
US_BEFORE = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
US_ORDER = ACCOUNT | {
    "OVRS_EXCG_CD": "NASD",
    "PDNO": "AAPL",
    "ORD_QTY": "5",
    "OVRS_ORD_UNPR": "150.00",
    "CTAC_TLNO": "",
    "MGCO_APTM_ODNO": "",
    "SLL_TYPE": "",
    "ORD_SVR_DVSN_CD": "0",
    "ORD_DVSN": "00",
}
US_LIST = ACCOUNT | {
    "PDNO": "%",
    "ORD_STRT_DT": "20261123",
    "ORD_END_DT": "20261123",
    "SLL_BUY_DVSN": "00",
    "CCLD_NCCS_DVSN": "00",
    "OVRS_EXCG_CD": "%",
    "SORT_SQN": "AS",
    "ORD_DT": "",
    "ORD_GNO_BRNO": "",
    "ODNO": "",
    "CTX_AREA_NK200": "",
    "CTX_AREA_FK200": "",
}


def test_a_us_order_is_taken_listed_and_cancelled_across_the_korean_midnight() -> None:
    clock = ManualClock(datetime(2026, 11, 23, 14, 55, tzinfo=UTC))
    broker = Broker(a_simulator(clock))
    number = number_of(broker.call("us_order", "TTTT1002U", US_ORDER))
    clock.advance(600)

    (open_row,) = broker.call(
        "us_unfilled", "TTTS3018R", ACCOUNT | {"OVRS_EXCG_CD": "NASD", "SORT_SQN": "DS"}
    ).body["output"]
    cancel = US_ORDER | {"ORGN_ODNO": number, "RVSE_CNCL_DVSN_CD": "02", "OVRS_ORD_UNPR": "0"}
    number_of(broker.call("us_change", "TTTT1004U", cancel))
    rows = broker.call("us_orders", "TTTS3035R", US_LIST).body["output"]

    assert (open_row["odno"], open_row["nccs_qty"], open_row["dmst_ord_dt"]) == (number, "5", "20261123")
    assert [(row["rvse_cncl_dvsn"], row["nccs_qty"], row["ord_dt"]) for row in rows] == [
        ("00", "0", "20261123"),
        ("02", "0", "20261123"),
    ]
    assert rows[1]["dmst_ord_dt"] == "20261124"


@pytest.mark.parametrize(
    ("mode", "tr_id", "at", "changes", "code"),
    [
        ("real", "TTTT1006U", US_OPEN, {"OVRS_ORD_UNPR": "300.00"}, "APBK0013"),
        ("real", "TTTT1002U", US_BEFORE, {}, "APBK0013"),
        ("real", "TTTT1002U", MORNING, {}, "APBK1664"),
        ("real", "TTTT1002U", US_OPEN, {"OVRS_ORD_UNPR": "150.005"}, "APBK0506"),
        ("paper", "VTTT1001U", US_OPEN, {"OVRS_ORD_UNPR": "300.00"}, "40590000"),
        ("paper", "VTTT1006U", US_OPEN, {"OVRS_ORD_UNPR": "300.00"}, "EGW02006"),
        ("paper", "VTTT1002U", US_BEFORE, {}, "40570000"),
    ],
)
def test_us_orders_have_ids_and_hours_of_their_own(
    mode: str, tr_id: str, at: datetime, changes: dict[str, str], code: str
) -> None:
    broker = a_broker(mode, at)

    assert code_of(broker.call("us_order", tr_id, US_ORDER | changes)) == code


def test_us_money_and_shares_are_apart_from_the_korean_ones() -> None:
    broker = a_broker(at=US_OPEN, depth=10_000)
    broker.call("us_order", "TTTT1002U", US_ORDER | {"OVRS_ORD_UNPR": "300.00"})

    power = broker.call("us_buying_power", "TTTS3007R", US_ORDER | {"ITEM_CD": "AAPL"}).body["output"]
    held = broker.call(
        "us_balance", "TTTS3012R", ACCOUNT | {"OVRS_EXCG_CD": "NASD", "TR_CRCY_CD": "USD"}
    ).body

    assert float(power["ord_psbl_frcr_amt"]) < 1_000_000
    apple = next(row for row in held["output1"] if row["ovrs_pdno"] == "AAPL")
    assert apple["ovrs_cblc_qty"] == "1005"
    assert broker.balance().body["output2"][0]["prvs_rcdl_excc_amt"] == "1000000000"


def test_a_us_notice_writes_its_price_without_a_point() -> None:
    told: list[tuple[Order, Change | None]] = []
    broker = a_broker(at=US_OPEN, depth=10_000)
    broker.simulator.exchange.listen(lambda order, change: told.append((order, change)))
    broker.call("us_order", "TTTT1002U", US_ORDER | {"OVRS_ORD_UNPR": "300.00"})

    placed, filled = (overseas_record("me", *one) for one in told)

    assert [len(placed), len(filled)] == [25, 25]
    assert (placed[9], placed[12:14], placed[15]) == ("0", ["1", "1"], "")
    assert filled[9] == str(int(told[1][0].amount / 5 * 10_000))
    assert (filled[8], filled[12], filled[18]) == ("5", "2", "6")


def test_old_notices_have_the_fields_of_their_time() -> None:
    told: list[tuple[Order, Change | None]] = []
    broker = a_broker(depth=10_000)
    broker.simulator.exchange.listen(lambda order, change: told.append((order, change)))
    broker.buy(ORD_UNPR=80_000)

    new, old = (domestic_record("me", *told[1], old=age) for age in (False, True))

    assert (len(new), len(old)) == (26, 23)
    assert new[:18] == old[:18]
    assert new[24:] == old[21:] == ["삼성전자", "80000"]
