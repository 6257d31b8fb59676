"""What can be found: severities, ailments with their cures, and findings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from worker.doctor.patient import Patient


class Severity(StrEnum):
    """The gravest first. Only an error makes the exit code 1."""

    #: It will hurt: nothing trades, or money is at risk.
    ERROR = "error"
    #: It may hurt later, or hurts somebody else.
    WARNING = "warning"
    #: It could not be asked. Never taken for ok.
    UNKNOWN = "unknown"
    #: Worth knowing.
    INFO = "info"
    OK = "ok"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``id`` is stable: scripts may go by it."""

    id: str
    severity: Severity
    #: What was seen.
    evidence: str
    #: What to do; empty when all is well.
    cure: str = ""
    #: Which route it is about; absent for what concerns all.
    route: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a check saw, before the route and the full id are put to it."""

    word: str
    severity: Severity
    evidence: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Ailment:
    """One thing that a check can find. Its id is the check's area, a full stop and ``word``."""

    word: str
    severity: Severity
    meaning: str
    #: ``ROUTE`` stands for the route's name.
    cure: str
    #: The severity where no live route is concerned, if that makes a difference.
    otherwise: Severity | None = None
    #: Where that is so, for the table.
    otherwise_where: str = "nothing is live"

    def found(self, evidence: str, *, live: bool = True, cure: str | None = None) -> Found:
        severity = self.severity if live or self.otherwise is None else self.otherwise
        return Found(self.word, severity, evidence, cure or self.cure)


def well(evidence: str) -> Found:
    """All is well there, and this is how it looks."""
    return Found("", Severity.OK, evidence)


def unknown(evidence: str, cure: str = "") -> Found:
    """It could not be asked."""
    return Found("unknown", Severity.UNKNOWN, evidence, cure)


#: What to do about a question that nobody answers.
LOOK_BY_HAND: Final = (
    "Ask whoever runs the server, or let the user of EXECWORKER_REDIS_URL ask; then look by hand."
)


def missing_right(error: Exception) -> str:
    """What to do where the server says NOPERM: which right is missing, as ACL rules write it, and where to add it."""
    command = re.search(r"run the '([^']+)' command", str(error))
    what = f"+{command[1]}" if command else "~exec:*" if "key" in str(error) else "the right that is named"
    return (
        f"Give the user of EXECWORKER_REDIS_URL {what}: add it in deploy/redis/users.acl, then redis-cli ACL LOAD; "
        "or run doctor with a user who has it."
    )


@dataclass(frozen=True, slots=True)
class Check:
    """One look at one thing."""

    #: The first part of its findings' ids, and the whole id when all is well.
    area: str
    #: What it looks at; true when all is well.
    promise: str
    look: Callable[[Patient], Iterable[Found]]
    ailments: tuple[Ailment, ...] = ()
    #: It is done once for each route.
    per_route: bool = False
    needs_redis: bool = True
    #: What to do when it cannot be told.
    unknown_cure: str = LOOK_BY_HAND
