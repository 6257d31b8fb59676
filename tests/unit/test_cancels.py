"""What a claimed CANCEL does next, for each thing that the ledger may say."""

from __future__ import annotations

from typing import Any

import pytest

from contracts import Code, ExecutionResponse, Outcome, dump
from tests.conftest import make_intent
from worker.cancels import CancelStep, decide_cancel
from worker.clock import ManualClock
from worker.hand import Held
from worker.ledger.records import CancelDecision, CancelGate

CLOCK = ManualClock()
WORKING = ExecutionResponse(
    intent_id="t",
    accepted=True,
    broker="mock",
    broker_order_id="A-7",
    timestamp=CLOCK.now(),
    outcome=Outcome.ACCEPTED,
    message="held",
)


class Says:
    """A ledger that says one thing, and keeps what it was asked."""

    def __init__(self, decision: CancelDecision) -> None:
        self.decision = decision
        self.asked: list[tuple[object, ...]] = []

    def cancel(self, *args: object) -> CancelDecision:
        self.asked.append(args)
        return self.decision


def a_cancel(**changes: Any) -> Held:
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    intent = make_intent(intent_id="c", target_intent_id="t", **gone | changes)
    return Held(intent, "token", 0.0)


def decide(held: Held, gate: CancelGate, **fields: Any) -> CancelStep:
    says = Says(CancelDecision(gate, **fields))
    step = decide_cancel(says, held, "default", "KRX", CLOCK)  # type: ignore[arg-type]
    assert says.asked[0][0] == "c" and says.asked[0][3] == "t"
    return step


def test_it_leaves_for_the_number_that_the_broker_gave_the_order() -> None:
    held = a_cancel()

    step = decide(held, CancelGate.LAUNCHED, response=dump(WORKING), reference="06010", send_before=5.0)

    assert step == "launched" and held.in_flight and held.attempt == 1
    assert held.target is not None
    assert (held.target.broker_order_id, held.target.client_order_id) == ("A-7", "t")
    assert (held.target.reference, held.target.venue, held.target.send_before) == ("06010", "KRX", 5.0)


def test_its_own_venue_wins_over_the_routes_and_what_was_not_kept_is_not_made_up() -> None:
    held = a_cancel(venue="NXT")

    decide(held, CancelGate.LAUNCHED, response=dump(WORKING))

    assert held.target is not None
    assert (held.target.venue, held.target.reference) == ("NXT", None)


def test_without_a_slot_it_asks_again_when_it_was_told_to() -> None:
    assert decide(a_cancel(), CancelGate.LATER, later=1.5) == 1.5


def test_it_waits_in_the_ledger_unless_it_was_launched_before() -> None:
    assert decide(a_cancel(), CancelGate.WAITING) == "waiting"
    assert decide(a_cancel().launched(5.0), CancelGate.WAITING) == 0.25


def test_one_that_another_worker_holds_is_left_to_it() -> None:
    assert decide(a_cancel(), CancelGate.STALE) == "stale"


@pytest.mark.parametrize(
    ("gate", "response", "code"),
    [
        (CancelGate.EXPIRED, b"", Code.EXPIRED),
        (CancelGate.NEVER_SENT, b"", Code.CANCELLED),
        (CancelGate.UNKNOWN, b"", Code.TARGET_UNKNOWN),
        (CancelGate.DONE, dump(WORKING), Code.TARGET_DONE),
    ],
)
def test_where_there_is_nothing_to_cancel_the_answer_says_why(
    gate: CancelGate, response: bytes, code: Code
) -> None:
    step = decide(a_cancel().launched(5.0), gate, response=response)

    assert isinstance(step, ExecutionResponse)
    assert (step.accepted, step.code, step.attempts, step.route) == (False, code, 1, "default")
