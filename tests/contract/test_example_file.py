"""The example file that people try first holds orders that the exchange would take."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from contracts import ExecutionIntent
from worker.cli.rows import Format, Source

FILE = Path(__file__).parents[1] / "data/krx200.csv"

#: KRX, since 2023-01-25: below this price, the price moves in this step.
TICKS = [(2_000, 1), (5_000, 5), (20_000, 10), (50_000, 50), (200_000, 100), (500_000, 500)]


def step(price: Decimal) -> int:
    return next((tick for limit, tick in TICKS if price < limit), 1_000)


@pytest.fixture(scope="module")
def intents() -> list[ExecutionIntent]:
    with FILE.open("rb") as file, Source(file, Format.CSV) as source:
        rows = list(source.rows(lambda: datetime.now(UTC)))
    assert not [row.faults for row in rows if row.faults]
    return [row.intent for row in rows if row.intent is not None]


def test_the_file_has_two_hundred_orders_in_fifty_stocks(intents: list[ExecutionIntent]) -> None:
    assert len(intents) == 200
    assert len({intent.symbol for intent in intents}) == 50


def test_every_price_is_one_that_the_exchange_takes(intents: list[ExecutionIntent]) -> None:
    for intent in intents:
        assert intent.limit_price is not None
        assert intent.limit_price % step(intent.limit_price) == 0, f"{intent.symbol} at {intent.limit_price}"


def test_every_symbol_has_the_six_digits_that_a_spreadsheet_would_cut(intents: list[ExecutionIntent]) -> None:
    assert all(len(intent.symbol) == 6 for intent in intents)


def test_no_two_orders_are_the_same_by_mistake(intents: list[ExecutionIntent]) -> None:
    assert len({intent.fingerprint() for intent in intents}) == len(intents)
