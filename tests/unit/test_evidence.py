"""What an order list proves where no row carries an id of ours: the rules of evidence, one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from contracts import OrderRecord, OrderScan, OrderStatus, Side
from tests.conftest import make_intent
from worker.evidence import (
    Absent,
    Found,
    NoVerdict,
    Reading,
    Wanted,
    judge_by_key,
    order_key,
    order_key_of_row,
)

LAUNCHED = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
LIMIT = make_intent(intent_id="a", quantity=10, limit_price="70100")
WANTED = Wanted(LIMIT, LAUNCHED, LAUNCHED + timedelta(seconds=6), {}, (), exclusive=True, session_over=False)


def row(number: str = "N1", **changes: Any) -> OrderRecord:
    order = OrderRecord(
        number,
        LIMIT.symbol,
        Side.BUY,
        Decimal(10),
        OrderStatus.WORKING,
        LAUNCHED + timedelta(seconds=1),
        limit_price=Decimal("70100.00"),
    )
    return replace(order, **changes)


def reading(*rows: OrderRecord, started: float = 100.0, complete: bool = True) -> Reading:
    return Reading(OrderScan(rows, complete), started)


def verdict(*readings: Reading, **wanted: Any) -> Any:
    return judge_by_key(replace(WANTED, **wanted), readings, absence_from=100.0)


def later(number: str = "OURS") -> dict[str, Any]:
    """An order of ours that left when nothing of this one could arrive any more, and which the lists then show."""
    return {"owned": {number: WANTED.quiet + timedelta(seconds=1)}}


OURS = row("OURS", symbol="000660")


def test_the_one_unowned_row_that_looks_like_the_order_is_the_order() -> None:
    assert verdict(reading(row(), started=1.0, complete=False)) == Found(row())


def test_on_an_account_that_others_trade_on_it_is_a_proposal_that_names_the_row() -> None:
    told = verdict(reading(row()), exclusive=False)

    assert isinstance(told, NoVerdict) and "N1" in told.why and "account_exclusive" in told.why


def test_two_rows_that_could_be_it_are_for_a_person() -> None:
    told = verdict(reading(row("N1"), row("N2")))

    assert isinstance(told, NoVerdict) and "N1, N2" in told.why
    assert "account_exclusive" not in told.why


def test_a_person_is_shown_the_rows_of_its_time_before_all_others() -> None:
    told = verdict(reading(row("NOW"), row("OLD", placed_at=LAUNCHED - timedelta(hours=1))))

    assert isinstance(told, NoVerdict) and "NOW" in told.why and "OLD" not in told.why


@pytest.mark.parametrize(
    ("placed", "is_it"),
    [
        (LAUNCHED - timedelta(seconds=60), True),
        (LAUNCHED - timedelta(seconds=61), False),
        (WANTED.quiet + timedelta(seconds=60), True),
        (WANTED.quiet + timedelta(seconds=61), False),
    ],
)
def test_the_brokers_clock_may_be_a_minute_wrong_and_no_more(placed: datetime, is_it: bool) -> None:
    assert isinstance(verdict(reading(row(placed_at=placed))), Found) is is_it


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": Decimal(11)},
        {"limit_price": Decimal(70200)},
        {"limit_price": None},
        {"placed_at": LAUNCHED - timedelta(hours=1)},
        {"placed_at": LAUNCHED + timedelta(hours=1)},
    ],
)
def test_an_unowned_row_of_its_symbol_and_side_proves_neither_presence_nor_absence(changes: Any) -> None:
    stranger = row(**changes)

    assert isinstance(verdict(reading(stranger), reading(stranger), session_over=True), NoVerdict)
    assert isinstance(verdict(reading(row(), replace(stranger, broker_order_id="N2"))), NoVerdict)


@pytest.mark.parametrize("changes", [{"symbol": "000660"}, {"side": Side.SELL}])
def test_rows_of_another_symbol_or_side_are_no_matter(changes: Any) -> None:
    other = row(**changes)

    assert verdict(reading(other, row())) == Found(row())
    assert isinstance(verdict(reading(other), reading(other), session_over=True), Absent)


def test_a_row_that_another_intent_owns_is_not_this_one() -> None:
    owned = {"N1": LAUNCHED - timedelta(seconds=5)}

    assert isinstance(verdict(reading(row()), reading(row()), owned=owned, session_over=True), Absent)


def test_a_row_noted_as_foreign_before_the_launch_is_not_this_one() -> None:
    assert isinstance(
        verdict(reading(row()), reading(row()), foreign_before=["N1"], session_over=True), Absent
    )


def test_absence_needs_two_complete_lists_after_the_lag_that_reach_past_the_launch() -> None:
    assert isinstance(verdict(reading(OURS), reading(OURS, started=101.0), **later()), Absent)
    assert isinstance(verdict(reading(OURS, started=99.0), reading(OURS), **later()), NoVerdict)
    assert isinstance(verdict(reading(OURS), reading(OURS, complete=False), **later()), NoVerdict)
    assert isinstance(verdict(reading(OURS), **later()), NoVerdict)


def test_lists_without_a_later_order_of_ours_prove_no_absence_before_the_session_is_over() -> None:
    assert isinstance(verdict(reading(), reading()), NoVerdict)
    assert isinstance(verdict(reading(OURS), reading(), **later()), NoVerdict)
    assert isinstance(verdict(reading(), reading(), session_over=True), Absent)


@pytest.mark.parametrize("seconds", [-1, 3, 6])
def test_an_order_that_left_while_this_one_could_still_arrive_does_not_reach_past_it(seconds: int) -> None:
    early = {"owned": {"OURS": LAUNCHED + timedelta(seconds=seconds)}}

    assert isinstance(verdict(reading(OURS), reading(OURS, started=101.0), **early), NoVerdict)


def test_of_a_time_whose_launches_redis_forgot_nothing_is_told_by_looks() -> None:
    assert isinstance(verdict(reading(row()), forgotten=True), NoVerdict)
    assert isinstance(verdict(reading(), reading(), session_over=True, forgotten=True), NoVerdict)


def test_a_market_order_is_known_by_a_row_without_a_price_or_with_zero() -> None:
    market = make_intent(intent_type="MARKET", limit_price=None, quantity=10)

    for price in (None, Decimal(0)):
        assert order_key(market) == order_key_of_row(row(limit_price=price))
    assert order_key(market) != order_key_of_row(row())


def test_a_key_spells_an_amount_in_one_way() -> None:
    assert order_key(LIMIT) == order_key_of_row(row(quantity=Decimal("10.0"))) == "005930|BUY|10|70100"


@pytest.mark.parametrize("missing", ["side", "quantity"])
def test_what_is_no_order_has_no_key_that_a_row_could_show(missing: str) -> None:
    nothing = LIMIT.model_copy(update={missing: None})

    assert order_key(nothing) == ""
