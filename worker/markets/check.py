"""The check before an order leaves: can it exist on that venue, and does the venue take it now?"""

from __future__ import annotations

from collections.abc import Collection, Set
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from contracts import Code, IntentType, OrderRequest
from worker.markets.calendar import Calendar
from worker.markets.hours import ever_takes, session, spelt
from worker.markets.limits import PriceLimits
from worker.markets.ticks import is_on_grid, nearest
from worker.markets.values import (
    PLAIN,
    Country,
    Denial,
    Kind,
    Phase,
    Session,
    State,
    Take,
    Venue,
    known_funds,
)

_BUILT_IN: Final = Calendar()


def check(
    request: OrderRequest,
    at: datetime,
    *,
    calendar: Calendar = _BUILT_IN,
    funds: Collection[str] = frozenset(),
    limits: PriceLimits | None = None,
    phases: frozenset[Phase] = PLAIN,
) -> Denial | None:
    """
    Why the order may not leave at that moment, or ``None``. What is impossible at any hour comes before the hour.

    The request names its venue. ``funds`` are Korean symbols that trade on the grid of ETFs and ETNs, over and above
    `known_funds`; ``limits`` are the symbol's price limits of that day, where known; ``phases`` are those that the
    broker can reach.

    Raises:
        ValueError: the moment has no zone.
    """
    try:
        venue = Venue(request.venue or "")
    except ValueError:
        return _pretrade("venue", f"must be one of {', '.join(Venue)}, not {request.venue}")
    kind = _kind(request.symbol, venue, funds)
    if kind is Kind.FUND:
        # KRX's after-market has no ETF and ETN. (2026-09)
        phases -= {Phase.KRX_AFTER}
    take = Take(_intent_type(request), request.time_in_force)
    ever = ever_takes(venue, phases)
    now = session(venue, at, calendar=calendar, phases=phases)
    return (
        _quantity(request.quantity)
        or _type(take, ever, f"{venue} takes {spelt(ever)}, at any hour")
        or _price(request, venue, kind, at.astimezone(venue.country.zone).date())
        or _limits(request.limit_price, limits)
        or _hour(now)
        or _type(take, now.takes, now.text)
    )


def _intent_type(request: OrderRequest) -> IntentType:
    return IntentType.MARKET if request.limit_price is None else IntentType.LIMIT


def _kind(symbol: str, venue: Venue, funds: Collection[str]) -> Kind:
    # An ETN's code begins with Q where the broker wants seven characters. Nothing else shows in a code.
    if venue.country is not Country.KR:
        return Kind.STOCK
    is_fund = symbol in funds or symbol in known_funds() or (len(symbol) == 7 and symbol.startswith("Q"))
    return Kind.FUND if is_fund else Kind.STOCK


def _quantity(quantity: Decimal) -> Denial | None:
    whole = int(quantity)
    if quantity == whole:
        return None
    around = tuple(Decimal(number) for number in (whole, whole + 1) if number > 0)
    return _pretrade(
        "quantity", f"must be whole shares, not {_plain(quantity)}; the nearest: {_list(around)}", around
    )


def _type(take: Take, takes: Set[Take], where: str) -> Denial | None:
    if take in takes:
        return None
    same_type = any(taken.kind is take.kind for taken in takes)
    return _pretrade("time_in_force" if same_type else "intent_type", f"no {take} here; {where}")


def _price(request: OrderRequest, venue: Venue, kind: Kind, on: date) -> Denial | None:
    price = request.limit_price
    if price is None or is_on_grid(price, venue, kind, on):
        return None
    around = nearest(price, venue, kind, on).both()
    text = f"{_plain(price)} is no price of {venue}; the nearest: {_list(around)}"
    if venue.country is Country.KR and kind is Kind.STOCK and is_on_grid(price, venue, Kind.FUND, on):
        text += (
            f". {request.symbol} is taken for a stock; if it is an ETF or ETN, add it to the route's funds"
        )
    return _pretrade("limit_price", text, around)


def _limits(price: Decimal | None, limits: PriceLimits | None) -> Denial | None:
    if price is None or limits is None or limits.lower <= price <= limits.upper:
        return None
    end = limits.lower if price < limits.lower else limits.upper
    text = f"{_plain(price)} is outside the day's limits {_plain(limits.lower)} to {_plain(limits.upper)}"
    return _pretrade("limit_price", text, (end,))


def _hour(now: Session) -> Denial | None:
    if now.state is State.OPEN:
        return None
    return Denial(Code.MARKET_CLOSED, "venue", now.text)


def _pretrade(field: str, what: str, around: tuple[Decimal, ...] = ()) -> Denial:
    return Denial(Code.PRETRADE, field, f"{field}: {what}", around)


def _list(values: tuple[Decimal, ...]) -> str:
    return " or ".join(_plain(value) for value in values)


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
