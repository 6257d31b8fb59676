"""The life of one order, from what two witnesses say of it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import OrderNotice, OrderRecord, OrderStatus, Side
from worker.fills.life import Life, dump_life, load_life

PLACED = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
OURS = Life("N1", since=1000).after_answer("intent-1")


def notice(status: str = "PARTIALLY_FILLED", filled: Any = 0, price: Any = None, **more: Any) -> OrderNotice:
    paid = None if price is None else Decimal(price)
    fields = {"quantity": Decimal(10), **more}
    return OrderNotice(
        "N1", "005930", OrderStatus(status), filled_quantity=Decimal(filled), price=paid, **fields
    )


def row(status: str = "WORKING", filled: Any = 0, average: Any = None, quantity: int = 10) -> OrderRecord:
    return OrderRecord(
        "N1",
        "005930",
        Side.BUY,
        Decimal(quantity),
        OrderStatus(status),
        PLACED,
        filled_quantity=Decimal(filled),
        average_price=None if average is None else Decimal(average),
    )


def test_executions_add_up_to_a_quantity_and_an_average_price() -> None:
    life = OURS.after_notice(notice(filled=3, price=71000), "ear", 1)
    life = life.after_notice(notice(filled=1, price=71400), "ear", 2)

    assert life.shown == (OrderStatus.PARTIALLY_FILLED, Decimal(4), Decimal(71100))


def test_the_last_execution_fills_the_order_and_ends_its_life() -> None:
    life = OURS.after_notice(notice(filled=4, price=71000), "ear", 1)
    life = life.after_notice(notice(filled=6, price=71500), "ear", 2)

    assert life.shown == (OrderStatus.FILLED, Decimal(10), Decimal(71300))
    assert life.is_over


def test_a_notice_that_is_written_twice_counts_once() -> None:
    life = OURS.after_notice(notice(filled=3, price=71000), "ear", 1)

    assert life.after_notice(notice(filled=3, price=71000), "ear", 1) == life


def test_what_another_listener_hears_is_another_execution() -> None:
    life = OURS.after_notice(notice(filled=3, price=71000), "ear", 7)
    life = life.after_notice(notice(filled=3, price=71000), "other", 1)

    assert life.filled == 6


def test_the_list_makes_up_for_executions_that_nobody_heard_of() -> None:
    life = OURS.after_notice(notice(filled=3, price=71000), "ear", 1).after_row(
        row("PARTIALLY_FILLED", 8, 71200)
    )

    assert life.shown == (OrderStatus.PARTIALLY_FILLED, Decimal(8), Decimal(71200))


def test_a_notice_of_what_the_list_has_shown_already_is_not_counted_on_top() -> None:
    life = OURS.after_row(row("PARTIALLY_FILLED", 3, 71000)).after_notice(
        notice(filled=3, price=71000), "ear", 1
    )

    assert life.filled == 3


def test_a_list_that_lags_behind_the_notices_takes_nothing_back() -> None:
    life = OURS.after_notice(notice(filled=10, price=71000), "ear", 1).after_row(
        row("PARTIALLY_FILLED", 3, 71000)
    )

    assert life.shown == (OrderStatus.FILLED, Decimal(10), Decimal(71000))


def test_a_cancelled_order_stays_cancelled_whatever_an_older_list_shows() -> None:
    life = OURS.after_notice(notice("CANCELLED"), "ear", 1).after_row(row("WORKING"))

    assert life.status is OrderStatus.CANCELLED
    assert not life.is_over


def test_an_execution_that_crossed_the_cancel_still_counts() -> None:
    cancelled = OURS.after_notice(notice("CANCELLED"), "ear", 1)

    life = cancelled.after_row(row("CANCELLED", 4, 71000))

    assert life.shown == (OrderStatus.CANCELLED, Decimal(4), Decimal(71000))
    assert life.is_over


def test_a_refusal_by_the_exchange_keeps_its_words() -> None:
    life = OURS.after_notice(notice("REFUSED", message="가격제한폭 초과"), "ear", 1)

    assert (life.status, life.message) == (OrderStatus.REFUSED, "가격제한폭 초과")


def test_a_notice_may_come_before_the_answer_that_says_whose_order_it_is() -> None:
    early = Life("N1", since=1000).after_notice(notice(filled=10, price=71000), "ear", 1)
    assert not early.is_known
    assert not early.is_over

    life = early.after_answer("intent-1")

    assert life.shown == (OrderStatus.FILLED, Decimal(10), Decimal(71000))
    assert life.is_over


def test_an_order_that_nobody_has_seen_yet_has_nothing_to_tell() -> None:
    assert not OURS.is_known
    assert OURS.after_row(row()).is_known


def test_fills_without_a_price_have_no_average() -> None:
    assert OURS.after_row(row("PARTIALLY_FILLED", 3)).average_price is None


def test_an_order_of_which_nothing_is_filled_has_no_average_whatever_the_list_says() -> None:
    assert OURS.after_row(row("WORKING", 0, 71000)).average_price is None


def test_executions_without_a_price_have_no_average() -> None:
    assert OURS.after_notice(notice(filled=3), "ear", 1).average_price is None


def test_where_both_witnesses_have_seen_the_same_the_list_says_what_was_paid() -> None:
    life = OURS.after_notice(notice(filled=3, price=71000), "ear", 1).after_row(row(filled=3, average=71200))

    assert life.average_price == 71200


def test_a_list_that_has_seen_more_brings_its_average_and_one_without_any_takes_none_away() -> None:
    first = OURS.after_row(row("PARTIALLY_FILLED", 3, 71000))

    assert first.after_row(row("PARTIALLY_FILLED", 3)).average_price == 71000
    assert first.after_row(row("PARTIALLY_FILLED", 4, 71100)).average_price == 71100
    assert first.after_row(row("PARTIALLY_FILLED", 4)).average_price is None


def test_an_average_that_comes_after_the_quantity_is_taken() -> None:
    late = OURS.after_row(row("PARTIALLY_FILLED", 3)).after_row(row("PARTIALLY_FILLED", 3, 71000))

    assert late.average_price == 71000


def test_an_average_that_never_ends_is_told_to_twelve_digits_and_one_that_ends_with_no_noughts_behind() -> (
    None
):
    endless = OURS.after_notice(notice(filled=1, price=10), "ear", 1).after_notice(notice(filled=2), "ear", 2)
    round_ = OURS.after_notice(notice(filled=4, price="71100.50"), "ear", 1)

    assert (str(endless.average_price), str(round_.average_price)) == ("3.33333333333", "71100.5")


@pytest.mark.parametrize(
    ("said", "filled", "status"), [("WORKING", 3, "PARTIALLY_FILLED"), ("PARTIALLY_FILLED", 0, "WORKING")]
)
def test_whether_it_is_filled_in_part_shows_in_the_quantity(said: str, filled: int, status: str) -> None:
    assert OURS.after_notice(notice(said, filled, 71000), "ear", 1).status == status
    assert OURS.after_row(row(said, filled, 71000)).status == status


def test_a_number_that_was_answered_once_stays_with_its_intent() -> None:
    assert OURS.after_answer("intent-2").intent_id == "intent-1"
    assert OURS.is_ours is True


SIGHTS = st.one_of(
    st.tuples(st.just("notice"), st.sampled_from(list(OrderStatus)), st.integers(0, 4)),
    st.tuples(st.just("row"), st.sampled_from(list(OrderStatus)), st.integers(0, 10)),
)


@given(st.lists(SIGHTS, max_size=12))
def test_nothing_that_is_seen_ever_takes_back_what_was_told(
    sights: list[tuple[str, OrderStatus, int]],
) -> None:
    life, told = OURS, OURS.shown
    for number, (witness, status, filled) in enumerate(sights):
        if witness == "notice":
            life = life.after_notice(notice(status, filled, 71000), "ear", number)
        else:
            life = life.after_row(row(status, filled, 71000))
        assert life.filled >= told[1]
        assert life.status == told[0] or not told[0].is_final
        assert load_life(dump_life(life)) == life
        told = life.shown
