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
        #: For a CANCEL: the order to cancel.
        self.target: OrderQuery | None = None

    def launched(self, send_before: float) -> Held:
        """The ledger has noted one more launch."""
        self.attempt += 1
        self.send_before = send_before
        self.in_flight = True
        return self


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
