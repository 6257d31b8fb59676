"""What the settler hands on: to the ledger, to the queue, to those who count, and back to be launched again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import Code, ExecutionResponse, Outcome
from tests.conftest import make_intent
from worker import settler as settler_module
from worker.answers import refusal
from worker.brokers import AdapterFault
from worker.clock import ManualClock
from worker.errors import OutcomeUnknown
from worker.hand import Answered, Hands, Held, InDoubt, Unsent
from worker.ledger.records import Handed, Settled, Settlement
from worker.settler import BATCH, Settler


class Around:
    """All that a settler talks to. What it is told is kept; the ledger answers what ``answers`` says, else SETTLED."""

    def __init__(self, **changes: Any) -> None:
        self.clock = ManualClock()
        self.hands = Hands()
        self.asked: list[list[Settlement]] = []
        self.answers: list[Settled] = []
        self.handed: list[Handed] = []
        self.acked: list[Any] = []
        self.released: list[list[Any]] = []
        self.returned: list[tuple[str, float]] = []
        self.taken: list[Handed] = []
        self.wakes = 0
        self.counted: list[list[float]] = []
        self.batches: list[tuple[int, list[Settled], float]] = []
        self.failures: list[tuple[str, str, str, BaseException | None]] = []
        journal = SimpleNamespace(
            submitted=self.counted.append,
            broker_failure=self._failed,
            settled=lambda batch, answers, seconds: self.batches.append((len(batch), answers, seconds)),
        )
        options: dict[str, Any] = {"count_rejected": True, "not_sent_retries": 2} | changes
        self.settler = Settler(
            self,  # type: ignore[arg-type]
            self.hands,
            self,
            journal,  # type: ignore[arg-type]
            self.clock,
            returned=lambda held, seconds: self.returned.append((held.intent.intent_id, seconds)),
            hand=self.taken.extend,
            room=lambda: 7,
            wake=self._wake,
            key_of=lambda intent: f"key of {intent.intent_id}",
            **options,
        )

    def _wake(self) -> None:
        self.wakes += 1

    # The ledger.
    def ask_settle(self, settlements: Sequence[Settlement], want: int) -> Any:
        assert want == 7
        self.asked.append(list(settlements))
        answers = self.answers or [Settled.SETTLED] * len(settlements)
        return SimpleNamespace(get=lambda: (answers, self.handed))

    # The queue.
    def ack(self, deliveries: Any) -> None:
        self.acked += deliveries

    def release(self, deliveries: Any) -> None:
        self.released.append(list(deliveries))

    def _failed(self, held: Held, reason: str, text: str, fault: BaseException | None = None) -> None:
        self.failures.append((held.intent.intent_id, reason, text, fault))

    def hold(self, intent_id: str, **changes: Any) -> Held:
        held = Held(make_intent(intent_id=intent_id, **changes), f"token of {intent_id}", 0.0)
        self.hands.take(held, f"delivery of {intent_id}")  # type: ignore[arg-type]
        return held.launched(5.0)

    def settle(self, seconds: float = 0.0) -> None:
        while (finish := self.settler.ask()) is not None:
            self.clock.advance(seconds)
            finish()


def answer(held: Held, outcome: Outcome = Outcome.ACCEPTED) -> ExecutionResponse:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    if outcome is Outcome.ACCEPTED:
        return ExecutionResponse(
            intent_id=held.intent.intent_id,
            accepted=True,
            broker="mock",
            broker_order_id="A-7",
            timestamp=now,
            outcome=outcome,
            message="ok",
        )
    code = Code.BROKER_UNREACHABLE if outcome is Outcome.NOT_SENT else Code.BROKER_REJECTED
    return refusal(held.intent.intent_id, outcome, code, "no", route="default", now=now)


def test_an_answer_is_settled_counted_and_acknowledged() -> None:
    around = Around()
    held = around.hold("a")

    around.settler.ended([Answered(held, answer(held), 0.25)])
    around.settle(seconds=0.5)

    [[told]] = around.asked
    assert (told.intent_id, told.token, told.attempt) == ("a", "token of a", 1)
    assert (told.verdict, told.outcome, told.effect, told.key) == (
        "answer",
        "ACCEPTED",
        "success",
        "key of a",
    )
    assert around.acked == ["delivery of a"] and around.released == []
    assert around.batches == [(1, [Settled.SETTLED], 0.5)]
    assert around.counted == [[0.25]] and not held.in_flight
    assert around.hands.is_empty()


def test_the_engine_is_woken_for_what_comes_back_and_for_what_is_answered() -> None:
    around = Around()
    first, second = around.hold("a"), around.hold("b")

    around.settler.ended([Answered(first, answer(first), 0.1)])
    assert around.wakes == 1
    around.settler.answer(second, answer(second))
    assert around.wakes == 2


def test_what_is_stale_comes_back_and_is_not_acknowledged() -> None:
    around = Around()
    kept, lost = around.hold("a"), around.hold("b")
    around.answers = [Settled.SETTLED, Settled.STALE]

    for held in (kept, lost):
        around.settler.answer(held, answer(held))
    around.settle()

    assert around.acked == ["delivery of a"]
    assert around.released == [["delivery of b"]]


def test_a_ledger_that_answers_for_fewer_than_it_was_told_is_not_believed() -> None:
    around = Around()
    for name in "ab":
        held = around.hold(name)
        around.settler.answer(held, answer(held))
    around.answers = [Settled.SETTLED]

    with pytest.raises(ValueError, match="zip"):
        around.settle()

    assert around.acked == []


def test_lanes_that_come_with_a_settlement_are_handed_on() -> None:
    around = Around()
    held = around.hold("a")
    around.handed = [Handed("b", b"{}", "token")]

    around.settler.answer(held, answer(held))
    around.settle()

    assert around.taken == [Handed("b", b"{}", "token")]


def test_no_batch_is_larger_than_the_ledger_takes() -> None:
    around = Around()
    for number in range(BATCH + 1):
        held = around.hold(f"i{number}")
        around.settler.answer(held, answer(held))

    around.settle()

    assert [len(one) for one in around.asked] == [BATCH, 1]


def test_nothing_to_settle_asks_nothing_and_counts_nothing() -> None:
    around = Around()

    assert around.settler.ask() is None
    assert (around.asked, around.batches, around.counted) == ([], [], [])


def test_it_is_empty_only_when_redis_has_confirmed_everything() -> None:
    around = Around()
    held = around.hold("a")
    empty = [around.settler.is_empty()]

    around.settler.ended([Answered(held, answer(held), 0.1)])
    empty.append(around.settler.is_empty())
    finish = around.settler.ask()
    empty.append(around.settler.is_empty())
    assert finish is not None
    finish()
    empty.append(around.settler.is_empty())

    assert empty == [True, False, False, True]

    around.settler.answer(around.hold("b"), answer(held))
    assert not around.settler.is_empty()


def test_an_order_that_never_reached_the_broker_comes_back_after_a_pause_that_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    around = Around()
    held = around.hold("a")

    for chance in (0.0, 1.0):
        monkeypatch.setattr(settler_module.random, "random", lambda chance=chance: chance)
        around.settler.ended([Answered(held, answer(held, Outcome.NOT_SENT), 0.1)])
        assert around.settler.ask() is None

    assert around.returned == [("a", pytest.approx(0.05)), ("a", pytest.approx(0.3))]
    assert [one[1] for one in around.failures] == ["not_sent", "not_sent"]
    assert held.in_flight, "in the ledger's eyes it is: only its token may launch it again"

    around.settler.ended([Answered(held, answer(held, Outcome.NOT_SENT), 0.1)])
    around.settle()

    assert around.asked[0][0].outcome == "NOT_SENT" and not held.in_flight


def test_an_order_that_was_not_given_to_the_broker_comes_back_at_once_and_took_no_time() -> None:
    around = Around()
    held = around.hold("a")

    around.settler.ended([Unsent(held)])

    assert around.settler.ask() is None
    assert around.returned == [("a", 0.0)] and around.counted == []


def test_a_lost_reply_is_a_doubt_and_no_fault_of_ours() -> None:
    around = Around()
    held = around.hold("a")
    held.hear("POST 500")

    around.settler.ended([InDoubt(held, OutcomeUnknown("x" * 600), 0.5)])
    around.settle()

    [[told]] = around.asked
    assert (told.verdict, told.outcome, told.effect, told.wire) == ("doubt", "FS042", "none", "POST 500")
    assert told.payload == "x" * 500, "a reason is cut to what an event may hold"
    assert around.failures == [("a", "in_doubt", "x" * 600, None)]
    assert around.acked == ["delivery of a"] and not held.in_flight


def test_a_bug_on_the_way_to_the_broker_is_a_doubt_told_with_its_stack() -> None:
    around = Around()
    held, bug = around.hold("a"), AdapterFault("KeyError in our adapter")

    around.settler.ended([InDoubt(held, bug, 0.5)])
    around.settle()

    assert around.asked[0][0].effect == "bug"
    assert around.failures == [("a", "bug", "KeyError in our adapter", bug)]


@pytest.mark.parametrize(
    ("outcome", "count_rejected", "effect"),
    [
        (Outcome.ACCEPTED, True, "success"),
        (Outcome.REJECTED, True, "failure"),
        (Outcome.REJECTED, False, "none"),
        (Outcome.DENIED, True, "none"),
    ],
)
def test_the_guard_hears_of_orders_what_each_outcome_means(
    outcome: Outcome, count_rejected: bool, effect: str
) -> None:
    around = Around(count_rejected=count_rejected)
    held = around.hold("a")

    around.settler.answer(held, answer(held, outcome))
    around.settle()

    assert around.asked[0][0].effect == effect


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.REJECTED])
def test_the_guard_hears_nothing_of_cancels(outcome: Outcome) -> None:
    around = Around()
    gone = {"side": None, "quantity": None, "limit_price": None}
    held = around.hold("c", intent_type="CANCEL", target_intent_id="a", **gone)

    around.settler.answer(held, answer(held, outcome))
    around.settle()

    assert around.asked[0][0].effect == "none"


def test_what_was_never_launched_has_no_key_at_the_broker() -> None:
    around = Around()
    held = Held(make_intent(intent_id="a"), "token", 0.0)

    around.settler.answer(held, answer(held, Outcome.DENIED))
    around.settle()

    assert (around.asked[0][0].attempt, around.asked[0][0].key) == (0, "")
