"""What is different about a worker of the soak, done before it begins: its clock, and how slow it takes its broker for."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import timedelta
from types import ModuleType

#: Seconds by which the wall clock of the process is wrong.
SHIFT = "SOAK_CLOCK_SHIFT"
#: Set where KIS shall be taken for a quicker server than it is: its lists show orders after two seconds instead of 15,
#: may be read more often than once a second, and a token may be had every two seconds. The simulator is told the same.
QUICK = "SOAK_QUICK_BROKER"
QUICK_LAG = 2.0


def prepare(environ: MutableMapping[str, str]) -> None:
    """Make this process what the environment says. The variables are taken out: the product knows no such names."""
    shift = float(environ.pop(SHIFT, "0"))
    if shift:
        _shift_clock(timedelta(seconds=shift))
    if environ.pop(QUICK, ""):
        _take_broker_for_quick()


def _shift_clock(by: timedelta) -> None:
    from worker.clock import SystemClock

    right = SystemClock.now
    setattr(SystemClock, "now", lambda clock: right(clock) + by)  # noqa: B010  not for the type checker


def _take_broker_for_quick() -> None:
    from worker.brokers.kis import auth, facts, shared, turns

    quick: tuple[tuple[ModuleType, str, object], ...] = (
        (facts, "VISIBILITY_LAG", dict.fromkeys(facts.VISIBILITY_LAG, QUICK_LAG)),
        (auth, "TOKEN_INTERVAL", 2.0),
        (shared, "TOKEN_INTERVAL", 2.0),
        (shared, "TURN_INTERVAL", 0.05),
        (turns, "TURN_INTERVAL", 0.05),
    )
    for module, name, value in quick:
        if not hasattr(module, name):
            raise AttributeError(f"{module.__name__} has no {name} any more: correct the soak")
        setattr(module, name, value)
