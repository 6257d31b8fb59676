"""Orders that cannot be, told so before anything leaves, with what would be right."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from contracts import Code, OrderRequest, Side, TimeInForce
from worker.markets import PLAIN, Calendar, Country, Denial, Phase, Venue, check, price_limits

OPEN = datetime.fromisoformat("2026-11-23T10:00+09:00")
NEW_YORK_OPEN = datetime.fromisoformat("2026-11-23T23:45+09:00")


def request(**changes: Any) -> OrderRequest:
    """A LIMIT BUY of 10 005930 at 71000 on KRX, with the given fields changed."""
    fields: dict[str, Any] = {
        "client_order_id": "intent-1",
        "symbol": "005930",
        "side": Side.BUY,
        "quantity": Decimal(10),
        "limit_price": Decimal(71000),
        "venue": "KRX",
    }
    return OrderRequest(**(fields | changes))


def denied(found: Denial | None) -> Denial:
    assert found is not None
    return found


@pytest.mark.parametrize("venue", ["KRX", "NXT", "SOR"])
@pytest.mark.parametrize("force", TimeInForce)
def test_a_proper_order_passes(venue: str, force: TimeInForce) -> None:
    assert check(request(venue=venue, time_in_force=force), OPEN) is None


@pytest.mark.parametrize("venue", ["NASDAQ", "NASD", "NYSE", "AMEX"])
def test_an_american_limit_order_passes(venue: str) -> None:
    order = request(symbol="AAPL", limit_price=Decimal("201.37"), venue=venue)

    assert check(order, NEW_YORK_OPEN) is None


def test_a_price_off_the_grid_is_told_both_neighbours() -> None:
    found = denied(check(request(limit_price=Decimal(71050)), OPEN))

    assert found.code is Code.PRETRADE and found.field == "limit_price"
    assert found.nearest == (71000, 71100)
    assert "71000 or 71100" in found.message


def test_a_price_that_only_a_fund_has_says_where_to_name_it_as_one() -> None:
    order = request(symbol="0005A0", limit_price=Decimal(10005))

    assert "funds" in denied(check(order, OPEN)).message
    assert check(order, OPEN, funds={"0005A0"}) is None


@pytest.mark.parametrize("symbol", ["069500", "Q530031"])
def test_known_etfs_and_etns_have_the_grid_of_funds(symbol: str) -> None:
    assert check(request(symbol=symbol, limit_price=Decimal(38005)), OPEN) is None
    assert denied(check(request(symbol=symbol, limit_price=Decimal(38003)), OPEN)).nearest == (38000, 38005)


def test_shares_are_whole() -> None:
    found = denied(check(request(quantity=Decimal("1.5")), OPEN))

    assert (found.code, found.field, found.nearest) == (Code.PRETRADE, "quantity", (1, 2))


def test_under_one_share_the_nearest_is_one() -> None:
    assert denied(check(request(quantity=Decimal("0.5")), OPEN)).nearest == (1,)


def test_a_venue_that_nobody_knows_is_told_those_that_are() -> None:
    found = denied(check(request(venue="LSE"), OPEN))

    assert found.field == "venue" and "KRX, NXT, SOR" in found.message


def test_an_order_without_a_venue_does_not_get_one_by_guess() -> None:
    assert denied(check(request(venue=None), OPEN)).field == "venue"


@pytest.mark.parametrize(
    ("venue", "changes", "field"),
    [
        ("NXT", {"limit_price": None}, "time_in_force"),
        ("NASDAQ", {"limit_price": None}, "intent_type"),
        ("NASDAQ", {"limit_price": Decimal(200), "time_in_force": TimeInForce.IOC}, "time_in_force"),
    ],
)
def test_what_a_venue_never_takes_is_denied_at_any_hour(
    venue: str, changes: dict[str, Any], field: str
) -> None:
    for at in (OPEN, NEW_YORK_OPEN, datetime.fromisoformat("2026-11-22T10:00+09:00")):
        found = denied(check(request(venue=venue, **changes), at))
        assert (found.code, found.field) == (Code.PRETRADE, field)
        assert "at any hour" in found.message


def test_a_market_order_that_does_not_rest_passes_on_nxt() -> None:
    order = request(venue="NXT", limit_price=None, time_in_force=TimeInForce.FOK)

    assert check(order, OPEN) is None


def test_an_order_that_an_auction_cannot_take_is_told_what_it_takes() -> None:
    at = datetime.fromisoformat("2026-11-23T15:25+09:00")

    found = denied(check(request(time_in_force=TimeInForce.IOC), at))

    assert (found.code, found.field) == (Code.PRETRADE, "time_in_force")
    assert "closing auction" in found.message and "LIMIT (DAY)" in found.message


@pytest.mark.parametrize("price", [49650, 92400])
def test_a_price_outside_the_days_limits_is_told_the_limit(price: int) -> None:
    limits = price_limits(Decimal(71000), Venue.KRX)

    found = denied(check(request(limit_price=Decimal(price)), OPEN, limits=limits))

    assert found.code is Code.PRETRADE
    assert found.nearest == ((limits.lower,) if price < 71000 else (limits.upper,))
    assert "49700 to 92300" in found.message


@pytest.mark.parametrize("price", [49700, 92300])
def test_the_limits_themselves_pass(price: int) -> None:
    limits = price_limits(Decimal(71000), Venue.KRX)

    assert check(request(limit_price=Decimal(price)), OPEN, limits=limits) is None


@pytest.mark.parametrize("moment", ["2026-11-22T10:00", "2026-11-23T08:29:59", "2026-11-23T15:45"])
def test_a_closed_market_is_no_fault_of_the_order_and_says_when_it_opens(moment: str) -> None:
    found = denied(check(request(), datetime.fromisoformat(f"{moment}+09:00")))

    assert found.code is Code.MARKET_CLOSED
    assert "08:30 KST" in found.message


def test_an_order_on_a_day_that_nobody_knows_is_not_sent() -> None:
    found = denied(check(request(), datetime.fromisoformat("2028-01-03T10:00+09:00")))

    assert found.code is Code.MARKET_CLOSED and "unknown" in found.message


def test_the_brokers_word_on_an_unknown_day_lets_orders_through() -> None:
    calendar = Calendar(broker={Country.KR: lambda day: True})

    assert check(request(), datetime.fromisoformat("2028-01-04T11:00+09:00"), calendar=calendar) is None


def test_funds_do_not_trade_in_the_after_market_of_krx() -> None:
    at = datetime.fromisoformat("2026-11-23T17:00+09:00")
    phases = PLAIN | {Phase.KRX_AFTER}

    assert check(request(), at, phases=phases) is None
    fund = request(symbol="069500", limit_price=Decimal(38005))
    assert denied(check(fund, at, phases=phases)).code is Code.MARKET_CLOSED


def test_what_is_impossible_at_any_hour_is_told_before_the_hour() -> None:
    at = datetime.fromisoformat("2026-11-22T10:00+09:00")

    assert denied(check(request(limit_price=Decimal(71050)), at)).code is Code.PRETRADE
