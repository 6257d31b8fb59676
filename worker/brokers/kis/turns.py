"""Whose turn it is to read a list: KIS's ledger answers few readers a second, and all workers of an account share it."""

from __future__ import annotations

import threading
from typing import Final, Protocol

from worker.brokers.kis.facts import LEDGER_RATE_LIMIT
from worker.clock import Clock

#: Seconds between two turns, with a twentieth for calls that take longer to KIS than the one before.
TURN_INTERVAL: Final = 1.05 / LEDGER_RATE_LIMIT


class Turns(Protocol):
    """Hands out turns, one after the other."""

    def take(self) -> float:
        """
        Take the next free turn. Returns in how many seconds it begins.

        Raises:
            Unavailable: nobody answers who knows. Read nothing.
        """


class LocalTurns:
    """The turns of one process that is alone on the account."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._next = float("-inf")

    def take(self) -> float:
        with self._lock:
            now = self._clock.boottime()
            turn = max(now, self._next)
            self._next = turn + TURN_INTERVAL
            return turn - now
