"""
What a market takes, as pure functions over values: tick grids, price limits, trading days, sessions, and one check.

::

    check(request, at)        None, or a `Denial`: the field, why, and the nearest legal values
    session(venue, at)        OPEN, CLOSED or UNKNOWN, what is taken now, and when it opens next
    is_on_grid(price, venue)  nearest(price, venue)  tick(price, venue)
    price_limits(base, venue) the lowest and the highest price of a Korean stock's day

Time is a parameter everywhere. The facts are in ``data/*.toml``, each with its source and the dates it holds for; a
day that no table covers is UNKNOWN, neither open nor closed. `Calendar` adds what an operator or the broker says; an
adapter reads its option ``calendar`` with `Calendar.from_options`, and hands its option ``funds`` to `check`.
"""

from worker.markets.calendar import Calendar, Day
from worker.markets.check import check
from worker.markets.hours import session
from worker.markets.limits import PriceLimits, price_limits
from worker.markets.ticks import Nearest, is_on_grid, nearest, tick
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

__all__ = [
    "PLAIN",
    "Calendar",
    "Country",
    "Day",
    "Denial",
    "Kind",
    "Nearest",
    "Phase",
    "PriceLimits",
    "Session",
    "State",
    "Take",
    "Venue",
    "check",
    "is_on_grid",
    "known_funds",
    "nearest",
    "price_limits",
    "session",
    "tick",
]
