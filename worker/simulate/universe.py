"""What can be traded: a small dated file of real symbols, and the price grid each of them lives on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from types import MappingProxyType

#: KRW below which a price moves in that tick; unified for KOSPI, KOSDAQ and KONEX on 2023-01-25 (press of that day).
STOCK_TICKS = ((2_000, 1), (5_000, 5), (20_000, 10), (50_000, 50), (200_000, 100), (500_000, 500))
STOCK_TICK_ABOVE = 1_000
#: The same for ETF and ETN, since December 2023.
FUND_TICKS = ((2_000, 1),)
FUND_TICK_ABOVE = 5
#: Per cent that a Korean price may move from its base, on every venue.
LIMIT_PERCENT = 30
US_TICK, US_TICK_BELOW_ONE = Decimal("0.01"), Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Instrument:
    """One symbol."""

    symbol: str
    name: str
    #: ``KR`` or ``US``.
    market: str
    #: The price of the last close: KRW, or USD. It never moves with the days.
    base: Decimal
    #: The exchange of a US symbol, as KIS writes it; empty for Korean ones, which trade on every venue.
    venue: str = ""
    #: An ETF or ETN: another tick table, and no KRX after-market.
    fund: bool = False

    @property
    def currency(self) -> str:
        return "KRW" if self.market == "KR" else "USD"

    def tick(self, price: Decimal) -> Decimal:
        """The smallest step at that price."""
        if self.market == "US":
            return US_TICK if price >= 1 else US_TICK_BELOW_ONE
        table, above = (FUND_TICKS, FUND_TICK_ABOVE) if self.fund else (STOCK_TICKS, STOCK_TICK_ABOVE)
        return Decimal(next((tick for below, tick in table if price < below), above))

    def on_grid(self, price: Decimal) -> bool:
        return price % self.tick(price) == 0

    def rounded(self, price: Decimal) -> Decimal:
        """The legal price at or below."""
        tick = self.tick(price)
        return price // tick * tick

    def limits(self) -> tuple[Decimal, Decimal] | None:
        """The lowest and the highest price of a Korean day, both rounded inward; none for US symbols."""
        if self.market == "US":
            return None
        lower, upper = (self.base * (100 + way * LIMIT_PERCENT) / 100 for way in (-1, 1))
        floor = self.rounded(lower)
        return (floor if floor == lower else floor + self.tick(lower)), self.rounded(upper)


@cache
def universe() -> MappingProxyType[str, Instrument]:
    """Every instrument by its symbol, from the dated file beside this module."""
    found = json.loads((files(__package__) / "universe.json").read_text("utf-8"))["instruments"]
    return MappingProxyType(
        {each["symbol"]: Instrument(**(each | {"base": Decimal(each["base"])})) for each in found}
    )
