"""What is asked of a run, and how it went."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from tests.soak.script import Strike, script

#: Seconds, of the route.
LEASE, ORDER_TIMEOUT, MAX_AGE = 2.0, 1.0, 20.0


@dataclass(frozen=True)
class Plan:
    """What was asked for. The same plan gives the same adversary."""

    seed: int
    seconds: float
    broker: Literal["simulated", "kis"] = "simulated"
    workers: int = 3
    kills: int = 20
    faults: tuple[str, ...] = ("kill",)
    #: Intents a second.
    rate: float = 20.0
    #: Start each process afresh, instead of forking it.
    exec: bool = False

    @property
    def script(self) -> list[Strike]:
        return script(
            self.seed,
            self.seconds,
            workers=self.workers,
            kills=self.kills,
            faults=self.faults,
            lease=LEASE,
        )


@dataclass
class Result:
    """How it went."""

    plan: Plan
    #: What was done, by kind.
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    #: How many answers of each outcome there were.
    outcomes: Counter[str] = field(default_factory=Counter)
    #: Seconds from the end of the storm until everything was at rest.
    rest: float = 0.0
    #: What was broken, in words.
    broken: list[str] = field(default_factory=list)
    #: Where everything lies, if anything was broken.
    evidence: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON can hold it."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return found | {"plan": asdict(self.plan)}
