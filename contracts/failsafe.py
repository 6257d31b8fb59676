"""The published facts that something was stopped, is in doubt, or needs a person."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from contracts._base import Amount, IntentId, Message, RouteName, Time
from contracts.intent import Side


class SafetyCode(StrEnum):
    #: Execution failure.
    FS040 = "FS040"
    #: Fill data missing.
    FS041 = "FS041"
    #: Time-out or delay.
    FS042 = "FS042"


class GuardState(StrEnum):
    #: No failure since the last success.
    NORMAL = "NORMAL"
    #: At least one failure in a row, fewer than the threshold.
    WARNING = "WARNING"
    #: Tripped: nothing is launched until a named person resets.
    FAIL = "FAIL"
    #: Tripped again before any success after a reset: a reset needs approval.
    LOCKDOWN = "LOCKDOWN"


class FailsafeType(StrEnum):
    GUARD_TRIPPED = "GUARD_TRIPPED"
    GUARD_RESET = "GUARD_RESET"
    LOCKDOWN = "LOCKDOWN"
    HALTED = "HALTED"
    RESUMED = "RESUMED"
    INTENT_IN_DOUBT = "INTENT_IN_DOUBT"
    DOUBT_RESOLVED = "DOUBT_RESOLVED"
    DOUBT_ESCALATED = "DOUBT_ESCALATED"
    INTENT_CONFLICT = "INTENT_CONFLICT"
    ORPHAN_ORDER = "ORPHAN_ORDER"
    FOREIGN_ORDER = "FOREIGN_ORDER"
    ADAPTER_FAULT = "ADAPTER_FAULT"
    NO_LIVE_WORKER = "NO_LIVE_WORKER"


class FailsafeEvent(Message):
    """One fact of the failsafe stream. Each edge into or out of FAIL, LOCKDOWN and halt is published once."""

    schema_version: Literal[1] = 1
    event_id: str
    type: FailsafeType
    route: RouteName
    safety_code: SafetyCode | None = None
    #: The guard's state after the event.
    state: GuardState | None = None
    #: Grows by one with each edge of the route's guard or halt.
    epoch: int | None = Field(default=None, ge=0)
    consecutive_failures: int | None = Field(default=None, ge=0)
    threshold: int | None = Field(default=None, ge=1)
    intent_id: IntentId | None = None
    #: Who did it: a person as ``user@host``, or a worker's name.
    actor: str | None = None
    reason: str | None = None
    #: For people.
    message: str
    timestamp: Time
    broker: str | None = None
    broker_order_id: str | None = None
    symbol: str | None = None
    side: Side | None = None
    quantity: Amount | None = None
