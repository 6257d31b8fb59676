"""The answers that are ours to give: what our own rules deny, and what a look-up at the broker found."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from contracts import Code, ContractError, ExecutionResponse, Outcome, SafetyCode
from worker.ledger.records import Barred, Gate


class Denial(NamedTuple):
    """How one kind of denial reads."""

    outcome: Outcome
    code: Code
    broker: str
    safety_code: SafetyCode | None
    message: str


#: One row for each reason that `launch` may bar an intent; a test demands it.
GATES: Final[dict[Gate, Denial]] = {
    Gate.TRIPPED: Denial(
        Outcome.DENIED,
        Code.FAILSAFE_TRIPPED,
        "failsafe",
        SafetyCode.FS040,
        "the guard has tripped after failures in a row: nothing is sent on this route until a person resets it "
        "(worker guard reset)",
    ),
    Gate.HALTED: Denial(
        Outcome.DENIED,
        Code.HALTED,
        "failsafe",
        None,
        "halted, nothing is sent: {detail}",
    ),
    Gate.ROLLOUT: Denial(
        Outcome.DENIED,
        Code.ROLLOUT,
        "worker",
        None,
        "live workers of this route differ in version or settings, so nothing is sent: finish the rollout, or open a "
        "window for it (worker rollout open)",
    ),
    Gate.EXPIRED: Denial(
        Outcome.EXPIRED,
        Code.EXPIRED,
        "worker",
        None,
        "past expires_at or the route's max_age before it could be sent; nothing was sent",
    ),
    Gate.FUTURE: Denial(
        Outcome.DENIED,
        Code.INVALID_INTENT,
        "worker",
        None,
        "created_at lies in the future: set the producer's clock; this intent_id is used up, send a new one",
    ),
    Gate.CANCELLED: Denial(
        Outcome.DENIED,
        Code.CANCELLED,
        "worker",
        None,
        "cancelled by {detail} before it was sent; it never will be",
    ),
}


def barred(intent_id: str, bar: Barred, *, route: str, attempts: int, now: datetime) -> ExecutionResponse:
    """The answer to an intent that may not leave."""
    row = GATES[bar.gate]
    return refusal(
        intent_id,
        row.outcome,
        row.code,
        row.message.replace("{detail}", bar.detail),
        broker=row.broker,
        safety_code=row.safety_code,
        route=route,
        attempts=attempts,
        now=now,
    )


def refusal(
    intent_id: str,
    outcome: Outcome,
    code: Code,
    message: str,
    *,
    route: str,
    now: datetime,
    broker: str = "worker",
    safety_code: SafetyCode | None = None,
    attempts: int = 0,
    sent_at: datetime | None = None,
) -> ExecutionResponse:
    """An answer that is not ACCEPTED."""
    return ExecutionResponse(
        intent_id=intent_id,
        accepted=False,
        broker=broker,
        message=message,
        timestamp=now,
        outcome=outcome,
        code=code,
        safety_code=safety_code,
        route=route,
        attempts=attempts,
        sent_at=sent_at,
    )


def unreadable(error: ContractError, *, route: str, now: datetime) -> ExecutionResponse | None:
    """The answer to bytes that are no intent; ``None`` where no id can be read."""
    if error.intent_id is None:
        return None
    message = f"not a valid intent, nothing was sent: {error}. This intent_id is used up: correct it under a new one"
    return refusal(error.intent_id, Outcome.DENIED, Code.INVALID_INTENT, message[:2000], route=route, now=now)
