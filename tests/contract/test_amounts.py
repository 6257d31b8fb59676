"""Money is exact: what a producer writes is what the broker is asked for, to the last digit."""

from __future__ import annotations

import decimal
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts import ExecutionIntent, OrderEvent, OrderStatus, dump, load_intent
from contracts._base import plain

NOW = datetime(2026, 11, 23, tzinfo=UTC)

amounts = st.decimals(min_value=0, max_value=10**18, places=12, allow_nan=False).filter(
    lambda d: 0 < d < 10**18
)


def limit(**changes: Any) -> ExecutionIntent:
    fields: dict[str, Any] = {
        "intent_id": "a",
        "intent_type": "LIMIT",
        "symbol": "AAPL",
        "side": "BUY",
        "quantity": 1,
        "limit_price": 1,
        "created_at": NOW,
    }
    return ExecutionIntent(**(fields | changes))


@given(quantity=amounts, price=amounts)
def test_an_amount_arrives_as_it_left(quantity: Decimal, price: Decimal) -> None:
    intent = limit(quantity=quantity, limit_price=price)

    arrived = load_intent(dump(intent))

    assert (arrived.quantity, arrived.limit_price) == (quantity, price)
    assert arrived.fingerprint() == intent.fingerprint()


@given(one=amounts, other=amounts)
def test_two_different_amounts_never_share_a_fingerprint(one: Decimal, other: Decimal) -> None:
    same = limit(quantity=one).fingerprint() == limit(quantity=other).fingerprint()

    assert same is (one == other)


def test_an_amount_is_exact_whatever_precision_a_strategy_calculates_with() -> None:
    with decimal.localcontext(prec=4):
        written = json.loads(dump(limit(quantity="123456789.123456789012")))

    assert written["quantity"] == "123456789.123456789012"


@pytest.mark.parametrize(
    ("value", "spelling"),
    [
        ("10.50", "10.5"),
        ("1.05E+1", "10.5"),
        ("1E+5", "100000"),
        ("100", "100"),
        ("100.000", "100"),
        ("0.000000000001", "0.000000000001"),
        ("999999999999999999.999999999999", "999999999999999999.999999999999"),
    ],
)
def test_an_amount_has_one_spelling(value: str, spelling: str) -> None:
    assert plain(Decimal(value)) == spelling


@pytest.mark.parametrize(
    "spellings", [("10", 10, Decimal("10.00"), "0010", "10.0"), ("0.5", Decimal("5E-1"), "0.500")]
)
def test_the_same_amount_in_another_spelling_is_a_replay(spellings: tuple[Any, ...]) -> None:
    assert len({limit(quantity=spelling).fingerprint() for spelling in spellings}) == 1


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        10.0,
        float("nan"),
        float("inf"),
        True,
        "1e5",
        "１０",
        "NaN",
        "-1",
        0,
        -1,
        "",
        " 1",
        b"1",
        None,
        [1],
    ]
    + [Decimal(text) for text in ("NaN", "sNaN", "Infinity", "-1", "0", "-0", "1E-13", "1E+18")],
    ids=repr,
)
@pytest.mark.parametrize("field", ["quantity", "limit_price"])
def test_an_amount_that_is_not_exact_and_positive_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        limit(**{field: value})


def test_an_average_price_may_have_as_many_digits_as_the_broker_gives() -> None:
    thirds = Decimal("70933." + "3" * 40)
    event = OrderEvent(
        intent_id="a",
        route="default",
        broker="kis",
        broker_order_id="1",
        symbol="005930",
        status=OrderStatus.PARTIALLY_FILLED,
        filled_quantity=Decimal("-0"),
        average_price=thirds,
        seen_by="list",
        timestamp=NOW,
    )

    written = json.loads(dump(event))

    assert written["average_price"] == str(thirds)
    assert written["filled_quantity"] == "0"


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 11, 23, tzinfo=UTC).replace(tzinfo=None),
        1795392000,
        1795392000.0,
        "2026-11-23T09:00:00",
        "1795392000",
        None,
    ],
)
def test_a_time_without_a_zone_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValidationError, match="created_at"):
        limit(created_at=value)
