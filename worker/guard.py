"""
Counts failures in a row, trips at the Nth, and waits for a named person.

::

                  a failure                 the Nth failure
      NORMAL ──────────────────▶ WARNING ──────────────────▶ FAIL       (LOCKDOWN when no success came
        ▲  ▲      a success         │                          │         between the last reset and this trip)
        │  └────────────────────────┘                          │
        └──────────────────────────────────────────────────────┘
             reset by a person (from LOCKDOWN with approval)

One policy with two homes: here, for library use, and in Redis (``ledger/lua/guard.lua``), shared by all
workers of a route. A test drives both with the same histories and demands the same answers.

Order is launch order, not time: each launch carries its sequence number, and the guard's generation at that
moment. What was launched before the newest trip or reset counts for nothing after it.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from contracts import FailsafeType, GuardState, Outcome
from worker.errors import Refused

#: Failures in a row that trip a guard nobody configured.
THRESHOLD_DEFAULT = 3

_OPEN = (GuardState.NORMAL, GuardState.WARNING)

#: Why a reset is refused in each state that refuses one, and what to do instead.
RESET_REFUSED: Final[dict[GuardState, str]] = {
    GuardState.NORMAL: "nothing to reset: the guard is NORMAL and launches pass",
    GuardState.WARNING: (
        "nothing to reset: the guard is in WARNING and launches still pass; "
        "the next success clears its count. To stop the route, halt it"
    ),
    GuardState.LOCKDOWN: (
        "the guard is in LOCKDOWN: it tripped again before any success after the last reset. "
        "Find the cause at the broker first, then reset with approval (--approve)"
    ),
}


class Effect(StrEnum):
    """What an outcome means for the guard."""

    #: A success: forgives the failures launched before it.
    FORGIVES = "forgives"
    COUNTS = "counts"
    #: Counts unless the route's ``count_rejected`` is off.
    COUNTS_IF_SET = "counts_if_set"
    NOTHING = "nothing"


#: What each outcome of an order does to the guard; ``None`` is *in doubt*. A CANCEL's outcome does nothing.
EFFECTS: Final[dict[Outcome | None, Effect]] = {
    Outcome.ACCEPTED: Effect.FORGIVES,
    Outcome.REJECTED: Effect.COUNTS_IF_SET,
    Outcome.NOT_SENT: Effect.COUNTS,
    None: Effect.COUNTS,
    Outcome.NOT_PLACED: Effect.NOTHING,  # it was counted when it went into doubt
    Outcome.DENIED: Effect.NOTHING,
    Outcome.EXPIRED: Effect.NOTHING,
}


def counts(outcome: Outcome | None, *, count_rejected: bool = True) -> bool:
    """Whether an outcome counts as a failure; ``None`` is *in doubt*."""
    effect = EFFECTS[outcome]
    return effect is Effect.COUNTS or (effect is Effect.COUNTS_IF_SET and count_rejected)


@dataclass(frozen=True, slots=True)
class Guard:
    """The guard of one route, as a value. Methods answer the next value and the edge it crossed, if any."""

    #: Failures in a row that trip it; at least 1.
    threshold: int = THRESHOLD_DEFAULT
    state: GuardState = GuardState.NORMAL
    #: Launch sequence numbers of the counted failures in a row, ascending. Kept while tripped.
    failures: tuple[int, ...] = ()
    #: Highest launch sequence number of a success; 0 when there was none.
    last_success: int = 0
    #: Grows by one with every trip and every reset.
    generation: int = 0
    #: A reset happened and no success since: the next trip is a LOCKDOWN.
    probation: bool = False

    def __post_init__(self) -> None:
        if self.threshold < 1:
            raise ValueError(f"max_consecutive_failures: must be at least 1, not {self.threshold}")

    @property
    def admits(self) -> bool:
        """Whether orders may be launched."""
        return self.state in _OPEN

    def succeeded(self, sequence: int, generation: int) -> tuple[Guard, FailsafeType | None]:
        """The broker holds the order of this launch: forgive the failures launched before it, no others."""
        if generation != self.generation or not self.admits:
            return self, None
        failures = self.failures[bisect_right(self.failures, sequence) :]
        state = GuardState.WARNING if failures else GuardState.NORMAL
        last_success = max(sequence, self.last_success)
        return Guard(self.threshold, state, failures, last_success, generation, False), None

    def failed(self, sequence: int, generation: int) -> tuple[Guard, FailsafeType | None]:
        """This launch failed, by an outcome that counts. The Nth in a row trips."""
        if generation != self.generation or not self.admits:
            return self, None
        if sequence <= self.last_success or sequence in self.failures:
            return self, None
        row = [*self.failures]
        insort(row, sequence)
        if len(row) < self.threshold:
            state, edge = GuardState.WARNING, None
        elif self.probation:
            state, edge = GuardState.LOCKDOWN, FailsafeType.LOCKDOWN
        else:
            state, edge = GuardState.FAIL, FailsafeType.GUARD_TRIPPED
        generation += edge is not None
        return Guard(self.threshold, state, tuple(row), self.last_success, generation, self.probation), edge

    def reset(self, *, approve: bool = False) -> tuple[Guard, FailsafeType]:
        """
        A named person opens a tripped guard again.

        Raises:
            Refused: nothing changed; the text says what to do instead.
        """
        if self.admits or (self.state is GuardState.LOCKDOWN and not approve):
            raise Refused(RESET_REFUSED[self.state])
        fresh = Guard(self.threshold, GuardState.NORMAL, (), self.last_success, self.generation + 1, True)
        return fresh, FailsafeType.GUARD_RESET


class GuardHome(Protocol):
    """Where a guard lives, as a broker sees it. Methods are atomic and answer the edge they crossed."""

    def launched(self) -> tuple[int, int] | None:
        """Note a launch and answer its (sequence, generation); ``None`` when tripped: send nothing."""

    def succeeded(self, sequence: int, generation: int) -> FailsafeType | None:
        """See `Guard.succeeded`."""

    def failed(self, sequence: int, generation: int) -> FailsafeType | None:
        """See `Guard.failed`."""

    def reset(self, *, approve: bool = False) -> FailsafeType:
        """See `Guard.reset`."""


class LocalGuard:
    """A guard of this process alone, safe to share between threads. It forgets with the process."""

    def __init__(self, threshold: int = THRESHOLD_DEFAULT) -> None:
        self._lock = threading.Lock()
        self._guard = Guard(threshold)
        self._sequence = 0

    @property
    def value(self) -> Guard:
        return self._guard

    def launched(self) -> tuple[int, int] | None:
        with self._lock:
            if not self._guard.admits:
                return None
            self._sequence += 1
            return self._sequence, self._guard.generation

    def succeeded(self, sequence: int, generation: int) -> FailsafeType | None:
        with self._lock:
            self._guard, edge = self._guard.succeeded(sequence, generation)
        return edge

    def failed(self, sequence: int, generation: int) -> FailsafeType | None:
        with self._lock:
            self._guard, edge = self._guard.failed(sequence, generation)
        return edge

    def reset(self, *, approve: bool = False) -> FailsafeType:
        with self._lock:
            self._guard, edge = self._guard.reset(approve=approve)
        return edge


class OpenGuard:
    """No guard at all: admits every launch and counts nothing. For a worker, whose guard lives in Redis."""

    def launched(self) -> tuple[int, int] | None:
        return 0, 0

    def succeeded(self, sequence: int, generation: int) -> FailsafeType | None:
        return None

    def failed(self, sequence: int, generation: int) -> FailsafeType | None:
        return None

    def reset(self, *, approve: bool = False) -> FailsafeType:
        raise Refused(
            "this broker has no guard of its own: reset the route's guard with `worker guard reset`"
        )
