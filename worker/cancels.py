"""What a claimed CANCEL does next."""

from __future__ import annotations

from typing import Literal

from contracts import Code, ExecutionResponse, OrderQuery, Outcome, load_response
from worker import answers
from worker.clock import Clock
from worker.hand import Held
from worker.ledger import Ledger
from worker.ledger.records import Barred, CancelDecision, CancelGate, Gate

#: ``launched``: send it. ``waiting``: the ledger keeps it and hands it out again. ``stale``: it is another's. A number:
#: ask again in so many seconds.
CancelStep = ExecutionResponse | float | Literal["launched", "waiting", "stale"]

#: Seconds between two questions about a CANCEL that was launched before and must wait.
_AGAIN = 0.25


def decide_cancel(
    ledger: Ledger, held: Held, route: str, default_venue: str | None, clock: Clock
) -> CancelStep:
    """Ask the ledger what the CANCEL may do, and make it ready to be sent if it may."""
    intent = held.intent
    target = intent.target_intent_id or ""
    decision = ledger.cancel(intent.intent_id, held.token, held.attempt + 1, target, intent.symbol)
    match decision.gate:
        case CancelGate.LAUNCHED:
            _prepare(held, decision, default_venue)
            return "launched"
        case CancelGate.WAITING:
            return _AGAIN if held.in_flight else "waiting"
        case CancelGate.LATER:
            return decision.later
        case CancelGate.STALE:
            return "stale"
        case CancelGate.EXPIRED:
            expired = Barred(Gate.EXPIRED)
            return answers.barred(
                intent.intent_id, expired, route=route, attempts=held.attempt, now=clock.now()
            )
        case gate:
            code, message = _closed(gate, target, decision.response)
            return answers.refusal(
                intent.intent_id,
                Outcome.DENIED,
                code,
                message,
                route=route,
                now=clock.now(),
                attempts=held.attempt,
            )


def _prepare(held: Held, decision: CancelDecision, default_venue: str | None) -> None:
    working = load_response(decision.response)
    held.launched(decision.send_before)
    held.target = OrderQuery(
        symbol=held.intent.symbol,
        broker_order_id=working.broker_order_id,
        client_order_id=working.intent_id,
        venue=held.intent.venue or default_venue,
        reference=decision.reference or None,
        send_before=decision.send_before,
    )


def _closed(gate: CancelGate, target: str, response: bytes) -> tuple[Code, str]:
    """Why there is nothing to cancel at the broker."""
    if gate is CancelGate.NEVER_SENT:
        return Code.CANCELLED, f"{target} had not been sent: it is answered CANCELLED and never will be"
    if gate is CancelGate.UNKNOWN:
        return Code.TARGET_UNKNOWN, f"{target} has not been seen: should it come, it is answered CANCELLED"
    ended = load_response(response)
    return Code.TARGET_DONE, f"{target} ended as {ended.outcome} without an order: there is nothing to cancel"
