"""What time it is on the exchange: the clock's own time, or shifted to a moment of somebody's choice."""

from __future__ import annotations

from datetime import date, datetime

from worker.clock import Clock
from worker.simulate.venues import SEOUL


class TradingTime:
    """The exchange's clock. With ``start`` it shows that moment first, and runs on from there."""

    def __init__(self, clock: Clock, start: datetime | None = None) -> None:
        self._clock = clock
        self._shift = None if start is None else start - clock.now()

    def now(self) -> datetime:
        """The moment, aware, in UTC."""
        now = self._clock.now()
        return now if self._shift is None else now + self._shift

    def today(self) -> date:
        """The Korean date, which all order numbers belong to."""
        return self.now().astimezone(SEOUL).date()
