"""
The seeded price path: smooth noise around each symbol's base price, the same in every run of a seed.

Any second of it can be asked for without those before, so nothing needs to be kept, and a restart changes nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from worker.simulate.universe import Instrument

#: Seconds between two knots of a wave, and the part of the base price that it may move it by.
WAVES = ((3600, 0.010), (600, 0.005), (60, 0.003), (7, 0.0015))


@dataclass(frozen=True, slots=True)
class Quote:
    """What a symbol's market shows in one second."""

    last: Decimal
    #: Somebody buys at this, one tick below the last price.
    bid: Decimal
    #: Somebody sells at this, which is the last price.
    ask: Decimal


class PricePath:
    """The market of every symbol at every second. ``depth`` is the mean number of shares on a side, in one second."""

    def __init__(self, seed: int, depth: int) -> None:
        self._seed = seed
        self._depth = depth

    def quote(self, instrument: Instrument, second: int) -> Quote:
        """The prices of that second, counted from 1970."""
        return _quote(self._seed, instrument, second)

    def depth(self, instrument: Instrument, second: int) -> int:
        """The shares on either side, in that second."""
        draw = random.Random(f"{self._seed} {instrument.symbol} depth {second}").random()
        return max(1, round(self._depth * (0.5 + draw)))


@lru_cache(maxsize=4096)
def _quote(seed: int, instrument: Instrument, second: int) -> Quote:
    moved = sum(part * _wave(seed, instrument.symbol, second, knots) for knots, part in WAVES)
    ask = instrument.rounded(instrument.base * Decimal(str(round(1 + moved, 6))))
    return Quote(ask, ask - instrument.tick(ask), ask)


# From -1 to 1: knots by chance, and a curve through them.
def _wave(seed: int, symbol: str, second: int, knots: int) -> float:
    left, part = second // knots, second % knots / knots
    smooth = part * part * (3 - 2 * part)
    return _knot(seed, symbol, knots, left) * (1 - smooth) + _knot(seed, symbol, knots, left + 1) * smooth


@lru_cache(maxsize=4096)
def _knot(seed: int, symbol: str, knots: int, number: int) -> float:
    return random.Random(f"{seed} {symbol} {knots} {number}").uniform(-1, 1)
