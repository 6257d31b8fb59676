"""The lowest and the highest price of a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from worker.markets.ticks import nearest, tick
from worker.markets.values import Kind, Venue

#: Of the base price, up and down; KOSPI and KOSDAQ since 2015-06-15, NXT and the KRX after-market too.
RATE: Final = Decimal("0.3")


@dataclass(frozen=True, slots=True)
class PriceLimits:
    """Both ends are legal prices."""

    lower: Decimal
    upper: Decimal


def price_limits(
    base: Decimal, venue: Venue, kind: Kind = Kind.STOCK, on: date | None = None, *, rate: Decimal = RATE
) -> PriceLimits:
    """
    The limits of a Korean stock's day from its base price, normally the previous KRX close.

    By KRX's rule the width is cut to the tick of the base price, and each end to its own tick (global.krx.co.kr,
    "Price Limit", read 2026-11-22). They do not hold on a first day of listing. A leveraged ETF has a ``rate`` of 0.3
    times its leverage. Where the broker states the day's limits, its own are to be preferred.

    Raises:
        ValueError: the venue has no daily limits.
    """
    if venue.country != "KR":
        raise ValueError(f"{venue} has no daily price limits")
    step = tick(base, venue, kind, on)
    width = (base * rate / step).to_integral_value(ROUND_FLOOR) * step
    upper = nearest(base + width, venue, kind, on).below
    lower = nearest(base - width, venue, kind, on).above
    return PriceLimits(lower, upper or lower)
