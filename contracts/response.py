"""The one final answer to an intent."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from contracts._base import IntentId, Message, RouteName, Time
from contracts.failsafe import SafetyCode


class Outcome(StrEnum):
    """What became of an intent. There is no member for "we do not know": a doubt is not an answer."""

    #: The broker confirmed that it holds the order.
    ACCEPTED = "ACCEPTED"
    #: The broker said no, on its own evidence.
    REJECTED = "REJECTED"
    #: Our own rules said no; nothing left.
    DENIED = "DENIED"
    #: Too old to trade; nothing left.
    EXPIRED = "EXPIRED"
    #: It provably never left this machine.
    NOT_SENT = "NOT_SENT"
    #: It may have left, and the broker provably does not hold it.
    NOT_PLACED = "NOT_PLACED"


class Code(StrEnum):
    """Why an intent was not accepted. A closed set."""

    FAILSAFE_TRIPPED = "FAILSAFE_TRIPPED"
    HALTED = "HALTED"
    EXPIRED = "EXPIRED"
    LIVE_NOT_ALLOWED = "LIVE_NOT_ALLOWED"
    NOOP = "NOOP"
    INVALID_INTENT = "INVALID_INTENT"
    CANCELLED = "CANCELLED"
    TARGET_UNKNOWN = "TARGET_UNKNOWN"
    TARGET_DONE = "TARGET_DONE"
    MARKET_CLOSED = "MARKET_CLOSED"
    PRETRADE = "PRETRADE"
    ROLLOUT = "ROLLOUT"
    BROKER_REJECTED = "BROKER_REJECTED"
    BROKER_UNREACHABLE = "BROKER_UNREACHABLE"
    NOT_PLACED = "NOT_PLACED"


class ExecutionResponse(Message):
    """
    The one final answer to an intent: published once, never changed.

    What happens to an accepted order later (fills, a cancel, a refusal by the exchange) is told on the orders
    stream. Readers should ignore fields they do not know.
    """

    schema_version: Literal[1] = 1
    intent_id: IntentId
    #: True exactly when ``outcome`` is ACCEPTED: the broker holds the order that ``broker_order_id`` names.
    accepted: bool
    #: Who answered: a broker's name, ``failsafe`` (tripped or halted), ``noop``, or ``worker`` (our other
    #: denials).
    broker: str
    #: For people. Programs read ``outcome`` and ``code``.
    message: str
    timestamp: Time
    outcome: Outcome
    #: Absent when ACCEPTED.
    code: Code | None = None
    #: The broker's own code, as it sent it.
    broker_code: str | None = None
    #: Present when ACCEPTED. For an accepted CANCEL it is the target's number.
    broker_order_id: str | None = None
    safety_code: SafetyCode | None = None
    route: RouteName | None = None
    #: How often the order was launched; 0 when it never was.
    attempts: int = Field(default=0, ge=0)
    #: When the order was handed to the broker; absent when it never was.
    sent_at: Time | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.accepted != (self.outcome is Outcome.ACCEPTED):
            raise ValueError("accepted: must be true exactly when outcome is ACCEPTED")
        if self.accepted and not self.broker_order_id:
            raise ValueError("broker_order_id: an accepted order has the broker's number")
        if self.accepted != (self.code is None):
            raise ValueError("code: must be absent exactly when accepted")
        return self
