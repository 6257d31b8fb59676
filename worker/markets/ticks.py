"""Tick grids: which prices exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal
from functools import cache
from typing import Final, NamedTuple

from worker.markets.tables import table
from worker.markets.values import Country, Kind, Venue

#: Room for every digit that an amount of a message can have; the default context would round.
_EXACT: Final = Context(prec=60)


class Nearest(NamedTuple):
    """The grid's prices around a price; both are the price itself where it is on the grid."""

    #: Absent under the lowest price that exists.
    below: Decimal | None
    above: Decimal

    def both(self) -> tuple[Decimal, ...]:
        """What there is of them, lowest first, each once."""
        return tuple(dict.fromkeys(price for price in self if price is not None))


def is_on_grid(price: Decimal, venue: Venue, kind: Kind = Kind.STOCK, on: date | None = None) -> bool:
    """Whether that price exists on the venue, by the grid in force on that local date (default: the newest)."""
    return price > 0 and _EXACT.remainder(price, tick(price, venue, kind, on)) == 0


def nearest(price: Decimal, venue: Venue, kind: Kind = Kind.STOCK, on: date | None = None) -> Nearest:
    """The prices around a price above zero."""
    step = tick(price, venue, kind, on)
    # A band begins on both grids, its own and that of the band below it: one step never jumps over the border.
    below = _EXACT.subtract(price, _EXACT.remainder(price, step))
    above = below if below == price else _EXACT.add(below, step)
    return Nearest(below if below > 0 else None, above)


def tick(price: Decimal, venue: Venue, kind: Kind = Kind.STOCK, on: date | None = None) -> Decimal:
    """
    The step of prices at that price, in the venue's currency.

    Raises:
        LookupError: the date lies before the first grid that is known.
    """
    for band in reversed(_grid(venue.country, kind, on)):
        if price >= band.since:
            return band.tick
    raise ValueError(f"a price cannot be negative: {price}")


@dataclass(frozen=True, slots=True)
class _Band:
    #: From this price on.
    since: Decimal
    tick: Decimal


@cache
def _grid(country: Country, kind: Kind, on: date | None) -> Sequence[_Band]:
    kinds = (kind, Kind.STOCK) if country is Country.US else (kind,)
    grids = [
        grid
        for grid in table("ticks")["grid"]
        if grid["country"] == country and grid["kind"] in kinds and (on is None or grid["since"] <= on)
    ]
    if not grids:
        raise LookupError(f"no grid is known for {country} {kind} on {on}")
    newest = max(grids, key=lambda grid: grid["since"])
    return tuple(_Band(Decimal(since), Decimal(step)) for since, step in newest["bands"])
