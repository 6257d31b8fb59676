"""The only module that reads time."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Time as the worker sees it. Redis's own clock decides leases and expiry; this one decides deadlines."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""

    def boottime(self) -> float:
        """Seconds on a clock that never jumps and runs on through suspend."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for the event for at most so many seconds; true when it is set."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def boottime(self) -> float:
        return _boottime()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


class ManualClock:
    """A clock that a test moves. ``wait`` moves it and returns at once."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
        self._boottime = 1000.0

    def now(self) -> datetime:
        return self._now

    def boottime(self) -> float:
        return self._boottime

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self.advance(seconds)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._boottime += seconds


if hasattr(time, "CLOCK_BOOTTIME"):

    def _boottime() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:  # macOS: its monotonic clock is the nearest it has

    def _boottime() -> float:
        return time.monotonic()
