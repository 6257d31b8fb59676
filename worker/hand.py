"""What passes between the engine and the threads that send: an intent in hand, and how a try to send it ended."""

from __future__ import annotations

from typing import NamedTuple

from contracts import ExecutionIntent, ExecutionResponse, OrderQuery, Outcome
from worker.errors import OutcomeUnknown
from worker.intake import Delivery


class Held:
    """One intent in this worker's hands, from its claim to its end. The engine's thread alone changes it."""

    __slots__ = (
        "attempt",
        "claimed_at",
        "created",
        "deliveries",
        "in_flight",
        "intent",
        "reference",
        "retries",
        "send_before",
        "target",
        "token",
        "wire",
    )

    def __init__(self, intent: ExecutionIntent, token: str, claimed_at: float) -> None:
        self.intent = intent
        #: When the strategy decided, in seconds since the epoch.
        self.created = intent.created_at.timestamp()
        #: The proof of the claim; it exists here and in the ledger only.
        self.token = token
        #: Seconds on CLOCK_BOOTTIME.
        self.claimed_at = claimed_at
        #: What to acknowledge at the end; nothing for an intent that the ledger handed over.
        self.deliveries: list[Delivery] = []
        #: The number of the last launch; 0 before the first.
        self.attempt = 0
        #: Launches so far that provably sent nothing because the broker could not be reached.
        self.retries = 0
        #: Launched, and its end not known yet.
        self.in_flight = False
        #: Seconds on CLOCK_BOOTTIME.
        self.send_before = 0.0
        #: What a later cancel needs besides the broker's number.
        self.reference = ""
        #: What the adapter told of its last call, for the audit trail.
        self.wire = ""
        #: For a CANCEL: the order to cancel.
        self.target: OrderQuery | None = None

    def refer(self, reference: str) -> None:
        """What a later cancel of the order needs."""
        self.reference = reference

    def hear(self, wire: str) -> None:
        """What the adapter tells of its call."""
        self.wire = wire

    def launched(self, send_before: float) -> Held:
        """The ledger has noted one more launch."""
        self.attempt += 1
        self.wire = ""
        self.send_before = send_before
        self.in_flight = True
        return self


class Hands:
    """All that one worker holds of one route. Each change is one dict operation, so any thread may make it."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def take(self, held: Held, delivery: Delivery | None = None) -> None:
        if delivery is not None:
            held.deliveries.append(delivery)
        self._held[held.intent.intent_id] = held

    def forget(self, held: Held) -> list[Delivery]:
        """It is no longer ours to work on. Returns what is to be acknowledged or released."""
        if self._held.get(held.intent.intent_id) is held:
            del self._held[held.intent.intent_id]
        deliveries, held.deliveries = held.deliveries, []
        return deliveries

    def is_empty(self) -> bool:
        return not self._held

    def any_in_flight(self) -> bool:
        return any(one.in_flight for one in list(self._held.values()))

    def leases(self, now: float, silent_after: float) -> list[tuple[str, str]]:
        """
        What is worked on, as (intent_id, token): the leases to renew. An order that has not come back from the
        broker's side ``silent_after`` seconds past its deadline is left out, so that its doubt is announced.
        """
        return [
            (one.intent.intent_id, one.token)
            for one in list(self._held.values())
            if not (one.in_flight and now > one.send_before + silent_after)
        ]


class Answered(NamedTuple):
    """It ended with an answer."""

    held: Held
    response: ExecutionResponse
    #: Seconds that the broker took.
    seconds: float

    @property
    def is_smooth(self) -> bool:
        return self.response.outcome is Outcome.ACCEPTED


class InDoubt(NamedTuple):
    """It left, and nothing proves either way."""

    held: Held
    error: OutcomeUnknown
    seconds: float

    @property
    def is_smooth(self) -> bool:
        return False


class Unsent(NamedTuple):
    """It was launched, and then never given to the broker: free to be launched again."""

    held: Held

    @property
    def is_smooth(self) -> bool:
        return False


Ended = Answered | InDoubt | Unsent
