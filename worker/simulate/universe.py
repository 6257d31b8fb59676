"""What can be traded: a small dated file of real symbols, each on the price grid of its market."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from worker.markets import Kind, PriceLimits, Venue, is_on_grid, nearest, price_limits, tick


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
        return tick(price, self._grid, self._kind)

    def on_grid(self, price: Decimal) -> bool:
        return is_on_grid(price, self._grid, self._kind)

    def rounded(self, price: Decimal) -> Decimal:
        """The legal price at or below; the lowest one where there is none."""
        around = nearest(price, self._grid, self._kind)
        found = around.below or around.above
        return found.quantize(self.tick(found))

    def limits(self) -> PriceLimits | None:
        """The lowest and the highest price of a Korean day; none for US symbols."""
        return None if self.market == "US" else price_limits(self.base, self._grid, self._kind)

    @property
    def _grid(self) -> Venue:
        return Venue.KRX if self.market == "KR" else Venue.NASDAQ

    @property
    def _kind(self) -> Kind:
        return Kind.FUND if self.fund else Kind.STOCK


@cache
def universe() -> MappingProxyType[str, Instrument]:
    """Every instrument by its symbol, from the dated file beside this module."""
    found = json.loads((files(__package__) / "universe.json").read_text("utf-8"))["instruments"]
    return MappingProxyType(
        {each["symbol"]: Instrument(**(each | {"base": Decimal(each["base"])})) for each in found}
    )
