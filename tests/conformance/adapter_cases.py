"""
What the conformance suite needs of an adapter's simulator. A new adapter adds one case to `CASES`.

A case makes the adapter under one condition at the broker, on a clock that the test moves, and can look into the
broker's own book: what it holds in truth, whatever it says.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol

from worker.brokers import BaseBrokerAdapter
from worker.brokers.simulated import SimulatedBrokerAdapter
from worker.clock import ManualClock


class Condition(StrEnum):
    """What the broker does with the next requests; one for each row of the outcome table that it can cause."""

    ANSWERS = "answers"
    #: Refuses, with a code on the adapter's own list.
    REFUSES = "refuses"
    #: Cannot be reached: nothing leaves.
    UNREACHABLE = "unreachable"
    #: Takes the order, and its reply is lost.
    LOSES_THE_REPLY = "loses the reply"
    #: Takes the order, and shows it in its list `LAG` seconds later.
    SHOWS_LATE = "shows late"


#: Seconds of `Condition.SHOWS_LATE`.
LAG = 5.0


class AdapterCase(Protocol):
    """One adapter and its simulator."""

    name: str

    def make(self, condition: Condition, clock: ManualClock, folder: Path) -> BaseBrokerAdapter:
        """The adapter before a broker in that condition. Calls with the same folder meet the same broker."""

    def held(self, folder: Path) -> int:
        """How many orders the broker of that folder has ever taken."""


class SimulatedCase:
    name = "simulated"

    _OPTIONS: ClassVar[dict[Condition, dict[str, Any]]] = {
        Condition.ANSWERS: {},
        Condition.REFUSES: {"reject_rate": 1},
        Condition.UNREACHABLE: {"fail_rate": 1},
        Condition.LOSES_THE_REPLY: {"lose_reply_rate": 1},
        Condition.SHOWS_LATE: {"visibility_lag": LAG},
    }

    def make(self, condition: Condition, clock: ManualClock, folder: Path) -> BaseBrokerAdapter:
        options = self._OPTIONS[condition] | self._book(folder)
        return SimulatedBrokerAdapter.from_options(options, mode="paper", clock=clock)

    def held(self, folder: Path) -> int:
        book = folder / "book.jsonl"
        return book.read_bytes().count(b'"intent_id"') if book.exists() else 0

    def _book(self, folder: Path) -> dict[str, Any]:
        return {"book": folder / "book.jsonl"}


CASES: tuple[AdapterCase, ...] = (SimulatedCase(),)
