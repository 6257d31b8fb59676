"""
What the conformance suite needs of an adapter's simulator. A new adapter adds one case to `cases`.

A case makes the adapter under one condition at the broker, on a clock that the test moves, and can look into the
broker's own book: what it holds in truth, whatever it says.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol

from kis_case import Host, KISCase

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
    #: Takes the order, and says nothing until the adapter gives up.
    STAYS_SILENT = "stays silent"
    #: Takes the order, and answers when the adapter has given up.
    ANSWERS_TOO_LATE = "answers too late"
    #: Takes the order when the adapter has given up.
    TAKES_IT_LATE = "takes it late"
    #: Reads the order, and breaks the connection off without taking it.
    BREAKS_OFF = "breaks off"
    #: Something in front of it answers for it, with a page for people.
    SHOWS_A_PAGE = "shows a page"
    #: Takes the order, and sends half an answer.
    GARBLES_THE_REPLY = "garbles the reply"
    #: Takes the order, says so, and does not say under which number.
    NAMES_NO_NUMBER = "names no number"
    #: Takes the order once, and sends its answer twice.
    ANSWERS_TWICE = "answers twice"
    #: Takes the order, and answers that it has failed.
    FAILS_AND_HOLDS_IT = "fails and holds it"
    #: Takes the order, and answers that something inside did not answer it.
    TIMES_OUT_INSIDE = "times out inside"
    #: Its gate turns the order away: too many calls.
    HAS_TOO_MANY_CALLS = "has too many calls"
    #: Somebody behind its gate turns the order away: too many calls.
    HAS_TOO_MANY_CALLS_INSIDE = "has too many calls inside"
    #: Answers with a code that is on nobody's list.
    SAYS_WHAT_NOBODY_KNOWS = "says what nobody knows"
    #: Its gate turns the order away: it knows the access token no more.
    FORGETS_THE_TOKEN = "forgets the token"


#: Seconds of `Condition.SHOWS_LATE`.
LAG = 5.0


class AdapterCase(Protocol):
    """One adapter and its simulator."""

    name: str
    #: What its simulator can do.
    conditions: Collection[Condition]

    def make(self, condition: Condition, clock: ManualClock, folder: Path) -> BaseBrokerAdapter:
        """The adapter before a broker in that condition. Calls with the same folder meet the same broker."""

    def book(self, folder: Path) -> dict[str, Decimal]:
        """The quantity of each order that the broker of that folder has ever taken, by its number."""

    def close(self) -> None:
        """The test is over."""


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

    @property
    def conditions(self) -> Collection[Condition]:
        return self._OPTIONS

    def book(self, folder: Path) -> dict[str, Decimal]:
        book = folder / "book.jsonl"
        lines = [json.loads(line) for line in book.read_text("utf-8").splitlines()] if book.exists() else []
        return {line["broker_order_id"]: Decimal(line["quantity"]) for line in lines if "intent_id" in line}

    def close(self) -> None:
        pass

    def _book(self, folder: Path) -> dict[str, Any]:
        return {"book": folder / "book.jsonl"}


class KISAdapterCase(KISCase):
    conditions: Collection[Condition] = tuple(Condition)


def cases(host: Host) -> dict[str, AdapterCase]:
    """Every case by its name; simulators are served by ``host``."""
    found: list[AdapterCase] = [SimulatedCase(), KISAdapterCase("real", host), KISAdapterCase("paper", host)]
    return {one.name: one for one in found}


#: Name and condition of everything that can be tried.
TRIED: list[tuple[str, Condition]] = [
    (name, condition) for name, case in cases(Host()).items() for condition in case.conditions
]
NAMES: list[str] = list(dict.fromkeys(name for name, _ in TRIED))
