"""From a delivery to what can be claimed, or to what is no intent and has to be buried. Needs no Redis."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Literal

from contracts import ContractError, ExecutionResponse, IntentType, load_intent
from contracts.wire import readable_intent_id
from worker import answers
from worker.clock import Clock
from worker.hand import Held
from worker.intake import Delivery
from worker.ledger import new_token
from worker.ledger.records import Entry
from worker.transport import padded

#: An entry handed over this often without ever reaching the ledger ends the process that reads it.
POISON_COUNT = 25
#: The year 2100, in milliseconds.
NEVER = 4_102_444_800_000
#: What asks for an order, and so has a lane.
ORDERS: frozenset[IntentType] = frozenset({IntentType.MARKET, IntentType.LIMIT})


@dataclass(slots=True)
class Candidate:
    """A delivery that was read, on its way to its claim."""

    delivery: Delivery
    held: Held
    entry: Entry


@dataclass(slots=True)
class Burial:
    """A delivery on its way to the dead-letter stream."""

    delivery: Delivery
    reason: Literal["invalid", "conflict", "poison"]
    error: str
    intent_id: str = ""
    response: ExecutionResponse | None = None


class Reader:
    """Reads the deliveries of one route."""

    def __init__(self, route: str, max_age: float, clock: Clock) -> None:
        self._route = route
        self._max_age_ms = int(max_age * 1000)
        self._clock = clock
        self._count = count()
        self._secret = new_token() + "."

    def read(self, delivery: Delivery) -> Candidate | Burial:
        """What the delivery is: an intent to claim, or something to bury."""
        if delivery.count > POISON_COUNT and not delivery.fault:
            error = (
                f"handed over {delivery.count} times without reaching the ledger: it ends whoever reads it"
            )
            return Burial(delivery, "poison", error, readable_intent_id(delivery.body) or "")
        try:
            if delivery.fault:
                raise ContractError([delivery.fault], readable_intent_id(delivery.body))
            intent = load_intent(delivery.body)
        except ContractError as error:
            response = answers.unreadable(error, route=self._route, now=self._clock.now())
            return Burial(delivery, "invalid", str(error), error.intent_id or "", response)
        # The token is unguessable for everybody else, and another one for each delivery.
        held = Held(intent, f"{self._secret}{next(self._count)}", self._clock.boottime())
        return Candidate(delivery, held, self._entry(held, delivery))

    def _entry(self, held: Held, delivery: Delivery) -> Entry:
        intent = held.intent
        created = _ledger_time(held.created)
        entry = padded(delivery.entry) if delivery.entry else ""
        return Entry(
            intent.intent_id,
            held.token,
            intent.fingerprint(),
            intent.symbol if intent.intent_type in ORDERS else "",
            entry,
            created,
            self._not_after(held, created, delivery.entry),
            intent.target_intent_id or "",
            delivery.body,
        )

    def _not_after(self, held: Held, created: int, entry_id: str) -> int:
        intent = held.intent
        # A CANCEL honours its own expires_at only: an old wish to be out is still a wish to be out.
        not_after = NEVER if intent.intent_type is IntentType.CANCEL else created + self._max_age_ms
        if entry_id and intent.intent_type is not IntentType.CANCEL:
            not_after = min(not_after, int(entry_id.partition("-")[0]) + self._max_age_ms)
        if intent.expires_at is not None:
            not_after = min(not_after, _ledger_time(intent.expires_at.timestamp()))
        return not_after


def _ledger_time(seconds: float) -> int:
    """In the ledger's milliseconds, which have no sign: all that was before 1970 is as old as 1970."""
    return max(0, int(seconds * 1000))
