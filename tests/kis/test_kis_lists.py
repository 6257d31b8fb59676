"""A list is whole only when it was read to its end and nothing in it contradicts itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from contracts import OrderStatus
from worker.brokers.kis import Account, Environment, ReadFailed, Reply
from worker.brokers.kis.lists import daily_call, us_daily_call
from worker.brokers.kis.payload import Call
from worker.brokers.kis.rows import domestic_orders, us_orders
from worker.brokers.kis.scan import DOMESTIC, US, read_list

TODAY = date(2026, 11, 23)
ACCOUNT = Account.parse("12345678-01")
CALL = daily_call(ACCOUNT, Environment.REAL, TODAY, TODAY)
SIZE = 3


def row(number: int, **changes: str) -> dict[str, str]:
    """A resting buy of 10 005930 at 60,000, with the given fields changed."""
    fields = {
        "ord_dt": "20261123",
        "ord_tmd": "100000",
        "ord_gno_brno": "91252",
        "odno": f"{number:010}",
        "orgn_odno": "",
        "sll_buy_dvsn_cd": "02",
        "sll_buy_dvsn_cd_name": "현금매수",
        "pdno": "005930",
        "ord_dvsn_cd": "00",
        "ord_qty": "10",
        "ord_unpr": "60000",
        "tot_ccld_qty": "0",
        "avg_prvs": "0",
        "rmn_qty": "10",
        "cncl_yn": "N",
        "cncl_cfrm_qty": "0",
        "rjct_qty": "0",
        "ccld_cndt_name": "없음",
        "excg_id_dvsn_cd": "KRX",
    }
    return fields | changes


def page(
    numbers: list[int], key: str = "", tr_cont: str = "D", total: int | None = None, **more: Any
) -> Reply:
    fields = {
        "rt_cd": "0",
        "output1": [row(number) for number in numbers],
        "output2": {} if total is None else {"tot_ord_qty": str(total)},
        "ctx_area_fk100": "query".ljust(100),
        "ctx_area_nk100": key.ljust(100),
    }
    return Reply(200, fields | more, tr_cont)


class Server:
    """Answers with pages, one after the other, and notes how it was asked."""

    def __init__(self, *pages: Reply | ReadFailed) -> None:
        self.pages = list(pages)
        self.asked: list[tuple[str, bool]] = []

    def get(self, call: Call, *, continued: bool = False) -> Reply:
        keys = [text for name, text in sorted(call.fields.items()) if name.startswith("CTX_AREA_")]
        self.asked.append(("/".join(filter(None, keys)), continued))
        found = self.pages.pop(0)
        if isinstance(found, ReadFailed):
            raise found
        return found


def numbers_of(rows: tuple[Mapping[str, str], ...]) -> list[int]:
    return [int(one["odno"]) for one in rows]


def test_pages_are_read_to_the_end_mark_with_the_keys_of_the_page_before() -> None:
    server = Server(page([1, 2, 3], "a", "F", 70), page([4, 5, 6], "b", "M"), page([7], "", "D"))

    found = read_list(server, CALL, DOMESTIC, page_rows=SIZE)

    assert (numbers_of(found.rows), found.fault) == ([1, 2, 3, 4, 5, 6, 7], "")
    assert server.asked == [("", False), ("query/a", True), ("query/b", True)]


@pytest.mark.parametrize(
    "last", [page([4], "", "E"), page([4], "", ""), page([4, 5, 6], "^^", "M"), page([], "", "D")]
)
def test_each_end_mark_ends_a_list(last: Reply) -> None:
    found = read_list(Server(page([1, 2, 3], "a", "F"), last), CALL, DOMESTIC, page_rows=SIZE)

    assert found.fault == ""


@pytest.mark.parametrize("rows", [[], None, ""])
def test_a_day_without_orders_is_a_whole_list(rows: Any) -> None:
    assert read_list(Server(page([], output1=rows)), CALL, DOMESTIC, page_rows=SIZE).fault == ""


CONTRADICTIONS: dict[str, tuple[list[Reply | ReadFailed], str]] = {
    "a page that fails": ([page([1, 2, 3], "a", "F"), ReadFailed("no answer")], "page 2 did not come"),
    "a repeated page": ([page([1, 2, 3], "a", "F"), page([1, 2, 3], "b", "M")], "came twice"),
    "a row that moved to the next page": ([page([1, 2, 3], "a", "F"), page([3, 4], "")], "came twice"),
    "a key that repeats": ([page([1, 2, 3], "a", "F"), page([4, 5, 6], "a", "M")], "was read"),
    "more pages and no key": ([page([1, 2, 3], "", "F")], "no key"),
    "a page that is not full in the middle": ([page([1, 2], "a", "F")], "2 rows of 3"),
    "an empty page in the middle": ([page([], "a", "F")], "0 rows of 3"),
    "fewer orders than the total promises": ([page([1, 2, 3], "a", "F", 50), page([4], "")], "promises 50"),
    "an order of which the quantity cannot be read": (
        [page([1, 2], total=21, output1=[row(1), row(2), row(3, ord_qty="?")])],
        "promises 21",
    ),
    "rows that are no list": ([page([], output1={"odno": "1"})], "no list"),
    "an answer to something else": ([Reply(200, {"rt_cd": "0", "output": {}})], "no list"),
}


@pytest.mark.parametrize(("pages", "fault"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_contradiction_makes_a_list_incomplete(pages: list[Reply | ReadFailed], fault: str) -> None:
    found = read_list(Server(*pages), CALL, DOMESTIC, page_rows=SIZE)

    assert fault in found.fault
    # What was read may still show that an order is there.
    first = pages[0]
    assert isinstance(first, Reply)
    assert numbers_of(found.rows)[:3] == numbers_of(tuple(first.rows("output1") or ()))


def test_an_order_that_came_while_the_list_was_read_is_no_contradiction() -> None:
    server = Server(page([1, 2, 3], "a", "F", 40), page([4, 5], ""))

    assert read_list(server, CALL, DOMESTIC, page_rows=SIZE).fault == ""


def test_a_list_that_goes_on_for_500_pages_is_no_list() -> None:
    pages = [page([number], str(number), "M") for number in range(501)]

    found = read_list(Server(*pages), CALL, DOMESTIC, page_rows=1)

    assert (len(found.rows), found.fault) == (500, "more than 500 pages")


@pytest.mark.parametrize(("digits", "is_a_total"), [(30, True), (31, False)])
def test_a_total_that_no_day_can_have_is_no_total(digits: int, is_a_total: bool) -> None:
    found = read_list(Server(page([1], total=int("9" * digits))), CALL, DOMESTIC, page_rows=SIZE)

    assert bool(found.fault) is is_a_total


def test_a_filtered_list_is_not_held_to_the_total_of_all() -> None:
    server = Server(page([1], total=70))

    assert read_list(server, CALL, DOMESTIC, page_rows=SIZE, is_filtered=True).fault == ""


def test_a_list_without_totals_is_whole_by_its_end_mark() -> None:
    call = us_daily_call(ACCOUNT, Environment.REAL, TODAY, TODAY)
    first = Reply(
        200,
        {"output": [us_row(1)], "ctx_area_fk200": "query", "ctx_area_nk200": "a"},
        "M",
    )
    server = Server(first, Reply(200, {"output": [us_row(2)]}, "D"))

    found = read_list(server, call, US, page_rows=1)

    assert (numbers_of(found.rows), found.fault) == ([1, 2], "")
    assert server.asked == [("", False), ("query/a", True)]


def test_what_makes_a_list_incomplete_is_in_the_log_and_nothing_else_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read_list(Server(page([1])), CALL, DOMESTIC, page_rows=SIZE)
    assert caplog.messages == []

    read_list(Server(page([1, 2], "a", "F")), CALL, DOMESTIC, page_rows=SIZE)

    [told] = caplog.messages
    assert told.startswith("kis_list_incomplete") and "rows=2" in told


def test_a_first_page_that_fails_says_nothing_at_all() -> None:
    with pytest.raises(ReadFailed):
        read_list(Server(ReadFailed("no answer")), CALL, DOMESTIC, page_rows=SIZE)


# --- Rows ------------------------------------------------------------------------------------------------

STATUSES: list[tuple[dict[str, str], OrderStatus]] = [
    ({}, OrderStatus.WORKING),
    ({"tot_ccld_qty": "3", "rmn_qty": "7"}, OrderStatus.PARTIALLY_FILLED),
    ({"tot_ccld_qty": "10", "rmn_qty": "0"}, OrderStatus.FILLED),
    ({"tot_ccld_qty": "10", "rmn_qty": "0", "cncl_yn": "Y"}, OrderStatus.FILLED),
    ({"cncl_yn": "Y", "cncl_cfrm_qty": "10", "rmn_qty": "0"}, OrderStatus.CANCELLED),
    ({"tot_ccld_qty": "3", "cncl_cfrm_qty": "7", "rmn_qty": "0"}, OrderStatus.CANCELLED),
    # A part of it was cancelled; the rest works on.
    ({"cncl_yn": "Y", "cncl_cfrm_qty": "4", "rmn_qty": "6"}, OrderStatus.WORKING),
    ({"rjct_qty": "10", "rmn_qty": "0"}, OrderStatus.REFUSED),
    ({"ccld_cndt_name": "IOC", "tot_ccld_qty": "3", "rmn_qty": "0"}, OrderStatus.CANCELLED),
    # On its way through the exchange.
    ({"ccld_cndt_name": "IOC"}, OrderStatus.WORKING),
    # Nothing is left, and nothing says where it went: not over.
    ({"rmn_qty": "0"}, OrderStatus.WORKING),
    ({"cncl_yn": "Y", "rmn_qty": "0"}, OrderStatus.CANCELLED),
    ({"ord_qty": "1", "tot_ccld_qty": "1", "rmn_qty": "0"}, OrderStatus.FILLED),
    ({"ord_dt": "20261120"}, OrderStatus.EXPIRED),
    ({"ord_dt": "20261120", "tot_ccld_qty": "3", "rmn_qty": "7"}, OrderStatus.EXPIRED),
    ({"ord_dt": "20261120", "tot_ccld_qty": "10"}, OrderStatus.FILLED),
]


@pytest.mark.parametrize(("changes", "status"), STATUSES)
def test_a_domestic_row_has_the_status_of_its_quantities(
    changes: dict[str, str], status: OrderStatus
) -> None:
    [order] = domestic_orders([row(1, **changes)], TODAY).orders

    assert order.status is status


def test_a_row_holds_all_that_an_order_is_known_by() -> None:
    changes = {
        "tot_ccld_qty": "3",
        "avg_prvs": "59900.0000",
        "sll_buy_dvsn_cd": "01",
        "excg_id_dvsn_cd": "SOR",
    }

    [order] = domestic_orders([row(7, **changes)], TODAY).orders

    assert order.broker_order_id == "20261123-91252-0000000007"
    assert (order.symbol, order.side, order.quantity) == ("005930", "SELL", Decimal(10))
    assert (order.limit_price, order.filled_quantity, order.average_price) == (60000, 3, 59900)
    assert order.placed_at.isoformat() == "2026-11-23T10:00:00+09:00"
    assert (order.venue, order.reference, order.division) == ("SOR", "SOR/00/10", "00")


def test_a_row_may_spell_the_cancelled_quantity_in_either_way() -> None:
    spelled = row(1, cnc_cfrm_qty="10")
    del spelled["cncl_cfrm_qty"]

    [order] = domestic_orders([spelled], TODAY).orders

    assert order.status is OrderStatus.CANCELLED


def test_what_was_paid_is_exact_and_the_average_of_the_row_is_not() -> None:
    rows = [
        row(1, tot_ccld_qty="3", tot_ccld_amt="200000", avg_prvs="66667"),
        row(2, tot_ccld_qty="4", tot_ccld_amt="240400", avg_prvs="60100.0000"),
    ]

    found = domestic_orders(rows, TODAY).orders

    assert [str(order.average_price) for order in found] == ["66666.6666667", "60100"]


def test_numbers_are_as_a_person_would_write_them() -> None:
    [order] = domestic_orders([row(1, ord_qty="10.00", ord_unpr="60000.50")], TODAY).orders

    assert (str(order.quantity), str(order.limit_price)) == ("10", "60000.5")


@pytest.mark.parametrize(("price", "limit"), [("0", None), ("1", 1)])
def test_a_limit_of_nothing_is_none(price: str, limit: int | None) -> None:
    [order] = domestic_orders([row(1, ord_unpr=price)], TODAY).orders

    assert order.limit_price == limit


def test_an_original_number_of_noughts_is_none() -> None:
    [order] = domestic_orders(
        [row(1, orgn_odno="0000000000", sll_buy_dvsn_cd_name="매수취소*")], TODAY
    ).orders

    assert order.modifies == ""


@pytest.mark.parametrize("division", ["01", "13", "14"])
def test_a_market_order_has_no_price_whatever_the_row_says(division: str) -> None:
    [order] = domestic_orders([row(1, ord_dvsn_cd=division, ord_unpr="78000")], TODAY).orders

    assert order.limit_price is None


def test_a_row_that_asks_for_a_cancel_is_no_order_and_a_modification_is_one() -> None:
    rows = [
        row(1, cncl_cfrm_qty="10", rmn_qty="0"),
        row(2, orgn_odno="0000000001", sll_buy_dvsn_cd_name="매수취소*"),
        row(3, orgn_odno="0000000001", sll_buy_dvsn_cd_name="매수정정*"),
    ]

    found = domestic_orders(rows, TODAY).orders

    assert [(order.broker_order_id[-1], order.modifies) for order in found] == [
        ("1", ""),
        ("3", "0000000001"),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"odno": ""},
        {"odno": "12a"},
        {"ord_dt": "2026"},
        {"ord_tmd": "246000"},
        {"sll_buy_dvsn_cd": "03"},
        {"ord_qty": "ten"},
        {"pdno": ""},
    ],
)
def test_a_row_that_cannot_be_read_is_told_and_costs_no_other(changes: dict[str, str]) -> None:
    found = domestic_orders([row(1), row(2, **changes), row(3)], TODAY)

    assert [order.broker_order_id[-1] for order in found.orders] == ["1", "3"]
    assert len(found.faults) == 1


def us_row(number: int, **changes: str) -> dict[str, str]:
    fields = {
        "ord_dt": "20261120",
        "dmst_ord_dt": "20261121",
        "ord_tmd": "003000",
        "ord_gno_brno": "91252",
        "odno": f"{number:010}",
        "orgn_odno": "",
        "sll_buy_dvsn_cd": "02",
        "rvse_cncl_dvsn": "00",
        "pdno": "AAPL",
        "ft_ord_qty": "10",
        "ft_ord_unpr3": "200.50000000",
        "ft_ccld_qty": "0",
        "ft_ccld_unpr3": "0.00000000",
        "nccs_qty": "10",
        "prcs_stat_name": "전송",
        "ovrs_excg_cd": "NASD",
    }
    return fields | changes


US_DAY = date(2026, 11, 20)
US_STATUSES: list[tuple[dict[str, str], OrderStatus]] = [
    ({}, OrderStatus.WORKING),
    ({"ft_ccld_qty": "4", "ft_ccld_unpr3": "200.1"}, OrderStatus.PARTIALLY_FILLED),
    ({"ft_ccld_qty": "10", "prcs_stat_name": "완료"}, OrderStatus.FILLED),
    ({"prcs_stat_name": "거부"}, OrderStatus.REFUSED),
    ({"ft_ord_qty": "1", "ft_ccld_qty": "1"}, OrderStatus.FILLED),
]


@pytest.mark.parametrize(("changes", "status"), US_STATUSES)
def test_a_us_row_has_the_status_of_its_word_and_quantities(
    changes: dict[str, str], status: OrderStatus
) -> None:
    [order] = us_orders([us_row(1, **changes)], US_DAY).orders

    assert order.status is status
    # The number is of the Korean date.
    assert order.broker_order_id == "20261121-91252-0000000001"
    assert order.limit_price == Decimal("200.5")


@pytest.mark.parametrize(
    ("word", "status"),
    [("완료", OrderStatus.CANCELLED), ("전송", OrderStatus.CANCELLED), ("거부", OrderStatus.WORKING)],
)
def test_a_us_order_is_cancelled_by_the_row_of_its_cancel(word: str, status: OrderStatus) -> None:
    cancel = us_row(2, orgn_odno="0000000001", rvse_cncl_dvsn="02", prcs_stat_name=word)

    [order] = us_orders([us_row(1), cancel], US_DAY).orders

    assert order.status is status


def test_a_us_order_of_an_earlier_day_of_new_york_is_over() -> None:
    [order] = us_orders([us_row(1)], date(2026, 11, 21)).orders

    assert order.status is OrderStatus.EXPIRED


@pytest.mark.parametrize("make", [daily_call, us_daily_call])
def test_paper_lists_are_asked_for_without_filters(make: Callable[..., Call]) -> None:
    fields = make(ACCOUNT, Environment.PAPER, TODAY, TODAY).fields

    assert all(type(value) is str for value in fields.values())
    assert fields.get("EXCG_ID_DVSN_CD", "KRX") == "KRX"
    assert fields.get("OVRS_EXCG_CD", "") == ""
    assert fields["PDNO"] == ""
