"""What is sent, to the byte; and what is denied before anything is."""

from __future__ import annotations

from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from kis_bench import request

from contracts import Side, TimeInForce
from worker.brokers.kis import (
    Account,
    Environment,
    OrderNumber,
    PretradeDenied,
    build_kis_cancel_payload,
    build_kis_order_payload,
)
from worker.brokers.kis.facts import CHANGE_ID, DAILY_ID, ORDER_IDS
from worker.brokers.kis.payload import Call, Placed, division_of

ACCOUNT = Account.parse("12345678-01")
REAL, PAPER = Environment.REAL, Environment.PAPER


def build(environment: Environment = REAL, **changes: Any) -> Any:
    return build_kis_order_payload(request(**changes), ACCOUNT, environment)


def test_a_limit_buy_is_sent_as_these_bytes() -> None:
    call = build()

    assert (call.path, call.tr_id) == ("/uapi/domestic-stock/v1/trading/order-cash", "TTTC0012U")
    assert call.body() == (
        b'{"CANO":"12345678","ACNT_PRDT_CD":"01","PDNO":"005930","ORD_DVSN":"00","ORD_QTY":"10",'
        b'"ORD_UNPR":"60000","EXCG_ID_DVSN_CD":"KRX","SLL_TYPE":"","CNDT_PRIC":""}'
    )


def test_a_market_sell_is_sent_as_these_bytes() -> None:
    call = build(side=Side.SELL, limit_price=None)

    assert call.tr_id == "TTTC0011U"
    assert call.body() == (
        b'{"CANO":"12345678","ACNT_PRDT_CD":"01","PDNO":"005930","ORD_DVSN":"01","ORD_QTY":"10",'
        b'"ORD_UNPR":"0","EXCG_ID_DVSN_CD":"KRX","SLL_TYPE":"01","CNDT_PRIC":""}'
    )


def test_a_us_buy_is_sent_as_these_bytes() -> None:
    call = build(symbol="AAPL", venue="NASDAQ", limit_price=Decimal("200.50"))

    assert (call.path, call.tr_id) == ("/uapi/overseas-stock/v1/trading/order", "TTTT1002U")
    assert call.body() == (
        b'{"CANO":"12345678","ACNT_PRDT_CD":"01","OVRS_EXCG_CD":"NASD","PDNO":"AAPL","ORD_QTY":"10",'
        b'"OVRS_ORD_UNPR":"200.5","CTAC_TLNO":"","MGCO_APTM_ODNO":"","SLL_TYPE":"",'
        b'"ORD_SVR_DVSN_CD":"0","ORD_DVSN":"00"}'
    )


def test_a_cancel_is_sent_as_these_bytes() -> None:
    number = OrderNumber.parse("20261123-91252-0000117057")
    assert number is not None

    call = build_kis_cancel_payload(number, "005930", Placed("SOR", "11", "10"), ACCOUNT)

    assert (call.path, call.tr_id) == ("/uapi/domestic-stock/v1/trading/order-rvsecncl", "TTTC0013U")
    assert call.body() == (
        b'{"CANO":"12345678","ACNT_PRDT_CD":"01","KRX_FWDG_ORD_ORGNO":"91252","ORGN_ODNO":"0000117057",'
        b'"ORD_DVSN":"11","RVSE_CNCL_DVSN_CD":"02","ORD_QTY":"0","ORD_UNPR":"0","QTY_ALL_ORD_YN":"Y",'
        b'"EXCG_ID_DVSN_CD":"SOR","CNDT_PRIC":""}'
    )


def test_a_us_sell_is_marked_as_one_and_a_whole_price_keeps_its_zeros() -> None:
    call = build(symbol="AAPL", venue="NYSE", side=Side.SELL, limit_price=Decimal("200"))

    assert (call.fields["SLL_TYPE"], call.fields["OVRS_ORD_UNPR"]) == ("00", "200")


def test_a_us_cancel_is_sent_as_these_bytes() -> None:
    number = OrderNumber.parse("20261123--0000117057")
    assert number is not None

    call = build_kis_cancel_payload(number, "AAPL", Placed("NASD", "00", "10"), ACCOUNT)

    assert (call.path, call.tr_id) == ("/uapi/overseas-stock/v1/trading/order-rvsecncl", "TTTT1004U")
    assert call.body() == (
        b'{"CANO":"12345678","ACNT_PRDT_CD":"01","OVRS_EXCG_CD":"NASD","PDNO":"AAPL",'
        b'"ORGN_ODNO":"0000117057","RVSE_CNCL_DVSN_CD":"02","ORD_QTY":"10","OVRS_ORD_UNPR":"0",'
        b'"CTAC_TLNO":"","MGCO_APTM_ODNO":"","ORD_SVR_DVSN_CD":"0"}'
    )


def test_what_a_cancel_must_repeat_reads_back_and_nothing_else_is_taken_for_it() -> None:
    assert str(Placed("SOR", "11", "10")) == "SOR/11/10"
    assert Placed.parse("SOR/11/10") == Placed("SOR", "11", "10")
    assert Placed.parse("") is None and Placed.parse("SOR/11") is None


def test_the_audit_trail_is_told_what_is_sent_but_for_the_accounts_number() -> None:
    assert build().told(ACCOUNT) == (
        "TTTC0012U /uapi/domestic-stock/v1/trading/order-cash CANO=…678-01 "
        "PDNO=005930 ORD_DVSN=00 ORD_QTY=10 ORD_UNPR=60000 EXCG_ID_DVSN_CD=KRX"
    )


def test_other_alphabets_leave_as_utf_8_and_not_escaped() -> None:
    assert Call("/path", "TR", {"NAME": "주문"}).body() == '{"NAME":"주문"}'.encode()


@pytest.mark.parametrize("text", ["", "1234567-01", "12345678-1", "12345678_01"])
def test_what_is_no_account_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="12345678-01"):
        Account.parse(text)


@pytest.mark.parametrize(
    ("environment", "symbol", "side", "tr_id"),
    [
        (REAL, "005930", Side.BUY, "TTTC0012U"),
        (REAL, "005930", Side.SELL, "TTTC0011U"),
        (PAPER, "005930", Side.BUY, "VTTC0012U"),
        (PAPER, "005930", Side.SELL, "VTTC0011U"),
        (REAL, "AAPL", Side.BUY, "TTTT1002U"),
        (REAL, "AAPL", Side.SELL, "TTTT1006U"),
        (PAPER, "AAPL", Side.BUY, "VTTT1002U"),
        # The exception: not VTTT1006U.
        (PAPER, "AAPL", Side.SELL, "VTTT1001U"),
    ],
)
def test_side_and_server_have_their_own_transaction_id(
    environment: Environment, symbol: str, side: Side, tr_id: str
) -> None:
    venue = None if symbol == "005930" else "NYSE"

    assert build(environment, symbol=symbol, side=side, venue=venue).tr_id == tr_id


def test_the_old_transaction_ids_are_known_and_not_sent() -> None:
    ids = (*ORDER_IDS.values(), CHANGE_ID, DAILY_ID)

    assert [one.formerly for one in ids] == ["TTTC0802U", "TTTC0801U", "TTTC0803U", "TTTC8001R"]
    assert all(one.formerly not in (one.real, one.paper) for one in ids)


DIVISIONS = {
    (True, TimeInForce.DAY): "00",
    (True, TimeInForce.IOC): "11",
    (True, TimeInForce.FOK): "12",
    (False, TimeInForce.DAY): "01",
    (False, TimeInForce.IOC): "13",
    (False, TimeInForce.FOK): "14",
}


@pytest.mark.parametrize(
    ("venue", "is_limit", "force"), list(product(("KRX", "NXT", "SOR"), (True, False), TimeInForce))
)
def test_each_type_and_time_in_force_has_its_division_on_each_korean_venue(
    venue: str, is_limit: bool, force: TimeInForce
) -> None:
    changes = {"venue": venue, "time_in_force": force, "limit_price": Decimal(60000) if is_limit else None}
    if (venue, is_limit, force) == ("NXT", False, TimeInForce.DAY):
        with pytest.raises(PretradeDenied, match="send a LIMIT, or a MARKET with IOC or FOK"):
            build(**changes)
        return

    call = build(**changes)

    assert call.fields["ORD_DVSN"] == DIVISIONS[is_limit, force]
    assert call.fields["EXCG_ID_DVSN_CD"] == venue
    assert call.fields["ORD_UNPR"] == ("60000" if is_limit else "0")


@pytest.mark.parametrize("symbol", ["005930", "00104K", "Q500001", "0001A0"])
@pytest.mark.parametrize("changes", [{}, {"side": Side.SELL}, {"limit_price": None}])
def test_every_key_is_upper_case_and_every_value_is_a_string(symbol: str, changes: dict[str, Any]) -> None:
    fields = build(symbol=symbol, **changes).fields

    assert all(name == name.upper() and type(value) is str for name, value in fields.items())


DENIED: list[tuple[dict[str, Any], str, str, tuple[int, ...]]] = [
    ({"quantity": Decimal("1.5")}, "quantity", "whole shares.*1 or 2", (1, 2)),
    ({"quantity": Decimal("0.5")}, "quantity", "the nearest: 1", (1,)),
    ({"quantity": Decimal(10**10)}, "quantity", "at most 9999999999", (9999999999,)),
    ({"limit_price": Decimal("60000.5")}, "limit_price", "whole won.*60000 or 60001", (60000, 60001)),
    ({"symbol": "SAMSUNG ELEC"}, "symbol", "neither a Korean code", ()),
    ({"venue": "NASD"}, "venue", "trades on KRX, NXT or SOR", ()),
    ({"symbol": "AAPL"}, "venue", "no venue is given; say NASD, NYSE or AMEX", ()),
    ({"symbol": "AAPL", "venue": "KRX"}, "venue", "cannot trade on KRX", ()),
    ({"symbol": "AAPL", "venue": "NASD", "limit_price": None}, "intent_type", "send a LIMIT", ()),
    ({"symbol": "AAPL", "venue": "NASD", "time_in_force": TimeInForce.IOC}, "time_in_force", "send DAY", ()),
]


@pytest.mark.parametrize(("changes", "field", "text", "nearest"), DENIED)
def test_an_impossible_order_is_denied_with_its_cure(
    changes: dict[str, Any], field: str, text: str, nearest: tuple[int, ...]
) -> None:
    with pytest.raises(PretradeDenied, match=text) as denied:
        build(**changes)

    assert denied.value.field == field
    assert denied.value.nearest == tuple(map(Decimal, nearest))


def test_the_largest_quantity_that_kis_has_room_for_is_sent() -> None:
    assert build(quantity=Decimal(9_999_999_999)).fields["ORD_QTY"] == "9999999999"


def test_a_us_order_is_a_limit_order() -> None:
    assert division_of(request(symbol="AAPL", venue="NASD"), "NASD", REAL) == "00"


@pytest.mark.parametrize("venue", ["NXT", "SOR"])
def test_paper_trading_knows_krx_only(venue: str) -> None:
    with pytest.raises(PretradeDenied, match="KRX only"):
        build(PAPER, venue=venue)


def test_a_call_shows_no_account_number() -> None:
    assert "12345678" not in repr(build())
    assert "12345678" not in repr(ACCOUNT)


@pytest.mark.parametrize("text", ["20261123-91252-0000117057", "20261123--0000000001"])
def test_an_order_number_reads_back(text: str) -> None:
    assert str(OrderNumber.parse(text)) == text


@pytest.mark.parametrize("text", ["", "no-such-number", "20261399-91252-1", "2026112-91252-1", "117057"])
def test_what_is_no_order_number_is_not_taken_for_one(text: str) -> None:
    assert OrderNumber.parse(text) is None
