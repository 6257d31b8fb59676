"""Prices that exist, and those that do not."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.markets import Kind, Venue, is_on_grid, nearest, price_limits, tick
from worker.markets.tables import table

#: Every grid there is, as it is asked for.
GRIDS = [
    (Venue.KRX, Kind.STOCK),
    (Venue.KRX, Kind.FUND),
    (Venue.KRX, Kind.ELW),
    (Venue.NXT, Kind.STOCK),
    (Venue.NASDAQ, Kind.STOCK),
]
grids = st.sampled_from(GRIDS)
#: As wide as an amount of a message can be: 18 digits before the point and 12 after it.
prices = st.decimals(min_value=Decimal("0.000000000001"), max_value=Decimal(10**18 - 1), places=12)
everyday_prices = st.integers(1, 2_000_000).map(Decimal)


@pytest.mark.parametrize(
    ("price", "step"),
    [
        (1, 1),
        (1999, 1),
        (2000, 5),
        (4995, 5),
        (5000, 10),
        (19990, 10),
        (20000, 50),
        (49950, 50),
        (50000, 100),
        (199900, 100),
        (200000, 500),
        (499500, 500),
        (500000, 1000),
        (3000000, 1000),
    ],
)
@pytest.mark.parametrize("venue", [Venue.KRX, Venue.NXT, Venue.SOR])
def test_a_korean_stock_steps_by_its_price(venue: Venue, price: int, step: int) -> None:
    assert tick(Decimal(price), venue) == step


@pytest.mark.parametrize(("price", "step"), [(1999, 1), (2000, 5), (71005, 5), (1000000, 5)])
def test_a_fund_steps_by_five_from_two_thousand_on(price: int, step: int) -> None:
    assert tick(Decimal(price), Venue.KRX, Kind.FUND) == step


@pytest.mark.parametrize(("price", "step"), [("0.5", "0.0001"), ("0.9999", "0.0001"), ("1", "0.01")])
def test_an_american_stock_steps_by_a_cent_from_a_dollar_on(price: str, step: str) -> None:
    assert tick(Decimal(price), Venue.NYSE) == Decimal(step)


@pytest.mark.parametrize(
    ("price", "below", "above"),
    [
        ("71050", 71000, 71100),
        ("71000", 71000, 71000),
        ("71000.5", 71000, 71100),
        ("1999.5", 1999, 2000),
        ("199999", 199900, 200000),
        ("200001", 200000, 200500),
        ("499999.999999999999", 499500, 500000),
    ],
)
def test_a_price_between_two_steps_is_told_both(price: str, below: int, above: int) -> None:
    assert nearest(Decimal(price), Venue.KRX) == (below, above)


def test_under_the_lowest_price_there_is_only_one_above() -> None:
    around = nearest(Decimal("0.5"), Venue.KRX)

    assert around == (None, 1)
    assert around.both() == (1,)


@settings(deadline=None)
@given(grids, prices)
def test_the_nearest_prices_are_prices(grid: tuple[Venue, Kind], price: Decimal) -> None:
    around = nearest(price, *grid)

    assert all(is_on_grid(one, *grid) for one in around.both())


@settings(deadline=None)
@given(grids, prices)
def test_the_nearest_prices_of_a_price_of_the_grid_are_itself(
    grid: tuple[Venue, Kind], price: Decimal
) -> None:
    above = nearest(price, *grid).above

    assert nearest(above, *grid) == (above, above)


@settings(deadline=None)
@given(grids, prices)
def test_a_price_lies_between_its_nearest_ones(grid: tuple[Venue, Kind], price: Decimal) -> None:
    below, above = nearest(price, *grid)

    assert (below or 0) <= price <= above
    assert is_on_grid(price, *grid) == (below == price == above)


@settings(deadline=None)
@given(grids, everyday_prices)
def test_no_price_is_left_out_between_the_nearest_ones(grid: tuple[Venue, Kind], price: Decimal) -> None:
    below, above = nearest(price, *grid)

    assert not any(
        is_on_grid(Decimal(one), *grid)
        for one in range(int(below or 0) + 1, int(above))
        if grid[0] != "NASDAQ"
    )


@settings(deadline=None)
@given(grids, everyday_prices, everyday_prices)
def test_a_higher_price_never_has_lower_neighbours(
    grid: tuple[Venue, Kind], one: Decimal, other: Decimal
) -> None:
    low, high = sorted((one, other))

    assert nearest(low, *grid).above <= nearest(high, *grid).above


def test_a_band_begins_on_both_grids_so_that_a_step_never_jumps_over_the_border() -> None:
    for grid in table("ticks")["grid"]:
        bands = [(Decimal(since), Decimal(step)) for since, step in grid["bands"]]
        for (_, below), (since, above) in pairwise(bands):
            assert since % below == 0 and since % above == 0


def test_every_fact_has_a_source_and_a_date() -> None:
    for grid in table("ticks")["grid"]:
        assert grid["source"] and isinstance(grid["since"], date)


def test_a_grid_from_before_the_first_table_is_not_made_up() -> None:
    with pytest.raises(LookupError, match="no grid is known"):
        tick(Decimal(1000), Venue.KRX, on=date(2022, 12, 31))


@pytest.mark.parametrize(
    ("base", "lower", "upper"),
    [
        # KRX's own example, on its page "Price Limit", by the ticks of today.
        (9940, 6960, 12920),
        (71000, 49700, 92300),
        # The width is cut to the tick of the base: 60150 to 60000.
        (200500, 140500, 260500),
        # The upper end falls into a wider step.
        (1995, 1397, 2590),
        (1, 1, 1),
        # 0.3 of two is cut to nothing.
        (2, 2, 2),
    ],
)
def test_limits_are_thirty_per_cent_cut_inwards(base: int, lower: int, upper: int) -> None:
    limits = price_limits(Decimal(base), Venue.KRX)

    assert (limits.lower, limits.upper) == (lower, upper)


@settings(deadline=None)
@given(everyday_prices)
def test_both_limits_are_prices_within_thirty_per_cent(price: Decimal) -> None:
    base = nearest(price, Venue.KRX).above

    limits = price_limits(base, Venue.KRX)

    assert is_on_grid(limits.lower, Venue.KRX) and is_on_grid(limits.upper, Venue.KRX)
    assert base * Decimal("0.7") <= limits.lower <= base <= limits.upper <= base * Decimal("1.3")


def test_america_has_no_daily_limits() -> None:
    with pytest.raises(ValueError, match="no daily price limits"):
        price_limits(Decimal(100), Venue.NYSE)
