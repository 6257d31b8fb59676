"""What becomes of an intent, from the queue to its answer, on both kinds of Redis; the engine turned by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from contracts import (
    Code,
    ExecutionIntent,
    FailsafeType,
    OrderRecord,
    OrderRequest,
    OrderResponse,
    OrderStatus,
    Outcome,
    dump,
)
from tests.conftest import AnyRedis, make_intent
from tests.desk import (
    KEYS,
    Desk,
    Wire,
    answers,
    dead,
    end_leases,
    enqueue,
    events,
    kinds,
    published,
    state,
    unfinished,
)
from tests.mock_broker import MockBroker
from worker.brokers import NoopBroker
from worker.clock import ManualClock
from worker.errors import NotSent, OutcomeUnknown, Rejected, Unavailable

NOWHERE = NotSent("connection refused")
LOST = OutcomeUnknown("the reply was lost")
NO = Rejected("insufficient funds", code="40310000")


@pytest.fixture
def client(any_redis: AnyRedis) -> Any:
    return any_redis.connect()


@pytest.fixture
def clock() -> ManualClock:
    """Starts with Redis's own clock, which no test can move."""
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def desk(any_redis: AnyRedis, clock: ManualClock) -> Callable[..., Desk]:
    def make(broker: Any, **options: Any) -> Desk:
        return Desk(any_redis.connect(), broker, clock, **options)

    return make


Make = Callable[..., Desk]


def order(intent_id: str, symbol: str | None = None, **changes: Any) -> ExecutionIntent:
    """An order with a lane of its own unless it names a symbol."""
    return make_intent(intent_id=intent_id, symbol=symbol or intent_id.upper(), **changes)


def cancel(intent_id: str, target: str, symbol: str | None = None, **changes: Any) -> ExecutionIntent:
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    return make_intent(
        intent_id=intent_id, symbol=symbol or target.upper(), target_intent_id=target, **gone | changes
    )


def noop(intent_id: str) -> ExecutionIntent:
    gone = {"side": None, "quantity": None, "limit_price": None}
    return make_intent(intent_id=intent_id, intent_type="NOOP", **gone)


def placed(broker: MockBroker) -> list[str]:
    return [request.client_order_id for request in broker.placed]


# Orders and their ends.


def test_an_accepted_order_is_answered_with_the_brokers_number(desk: Make, client: Any) -> None:
    broker = MockBroker()
    enqueue(client, order("a"))

    desk(broker).work()

    answer = answers(client)["a"]
    assert (answer.outcome, answer.broker, answer.broker_order_id) == (Outcome.ACCEPTED, "mock", "M1")
    assert (answer.route, answer.attempts) == ("default", 1) and answer.sent_at is not None
    assert placed(broker) == ["a"] and kinds(client) == [] and unfinished(client) == {}


def test_amounts_reach_the_broker_exactly_as_the_strategy_wrote_them(desk: Make, client: Any) -> None:
    broker = MockBroker()
    enqueue(client, order("a", quantity="0.100000000001", limit_price="123456789012345678.5"))

    desk(broker).work()

    request = broker.placed[0]
    assert (str(request.quantity), str(request.limit_price)) == ("0.100000000001", "123456789012345678.5")


def test_a_refused_order_is_answered_rejected_with_the_brokers_own_code(desk: Make, client: Any) -> None:
    broker = MockBroker(NO)
    enqueue(client, order("a"))

    desk(broker).work()

    answer = answers(client)["a"]
    assert (answer.outcome, answer.code) == (Outcome.REJECTED, Code.BROKER_REJECTED)
    assert (answer.broker, answer.broker_code) == ("mock", "40310000")
    assert placed(broker) == ["a"] and unfinished(client) == {}


def test_an_order_that_never_left_is_tried_again_and_answered_when_it_went_through(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker(NOWHERE, NOWHERE, _held)
    worker = desk(broker)
    enqueue(client, order("a"))

    for _ in range(3):
        worker.work()
        clock.advance(1)
    worker.work()

    answer = answers(client)["a"]
    assert answer.accepted and answer.attempts == 3
    assert placed(broker) == ["a", "a", "a"] and unfinished(client) == {}


def _held(request: OrderRequest) -> OrderResponse:
    return OrderResponse("M9", "held")


def test_an_order_that_cannot_be_sent_is_answered_not_sent_after_its_retries(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker(NOWHERE)
    worker = desk(broker, engine={"not_sent_retries": 2})
    enqueue(client, order("a"))

    for _ in range(5):
        worker.work()
        clock.advance(1)

    answer = answers(client)["a"]
    assert (answer.outcome, answer.code) == (Outcome.NOT_SENT, Code.BROKER_UNREACHABLE)
    assert answer.attempts == len(broker.placed) == 3 and unfinished(client) == {}
    # Three tries of one intent are one failure.
    assert client.hget(KEYS.state, "guard_failures").count(b",") == 0


def test_an_order_whose_reply_is_lost_is_in_doubt_announced_and_never_sent_again(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker(LOST)
    worker = desk(broker)
    enqueue(client, order("a"))

    worker.work()
    for _ in range(5):
        enqueue(client, order("a"))
        end_leases(client)
        worker.sweep()
        worker.work()
        clock.advance(20)

    assert placed(broker) == ["a"] and published(client) == []
    assert state(client, "a") == "in_doubt" and kinds(client) == ["INTENT_IN_DOUBT"]
    assert events(client)[0].symbol == "A" and events(client)[0].reason == "the reply was lost"


def test_a_fault_of_ours_after_the_launch_is_a_doubt_and_an_alarm(desk: Make, client: Any) -> None:
    broker = MockBroker(ValueError("no such field: odno"))
    enqueue(client, order("a"))

    desk(broker).work()

    assert published(client) == [] and state(client, "a") == "in_doubt"
    assert kinds(client) == ["INTENT_IN_DOUBT", "ADAPTER_FAULT"]
    assert "ValueError" in str(events(client)[1].reason) and "odno" not in str(events(client)[1].reason)


def test_a_success_without_a_number_is_a_doubt(desk: Make, client: Any) -> None:
    enqueue(client, order("a"))

    desk(MockBroker(lambda request: OrderResponse(" "))).work()

    assert published(client) == [] and state(client, "a") == "in_doubt"


def test_orders_of_one_run_behind_a_failure_go_back_to_the_guard_and_are_not_lost(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker(NO, NO, NO, _held)
    enqueue(client, *(order(name) for name in "abcdef"))

    desk(broker, run=6).work()

    found = answers(client)
    assert [found[name].outcome for name in placed(broker)] == [Outcome.REJECTED] * 3
    denied = [one for one in found.values() if one.code is Code.FAILSAFE_TRIPPED]
    assert len(denied) == 3 and len(broker.placed) == 3 and unfinished(client) == {}


# Twice the same id.


def test_the_same_intent_again_trades_nothing_and_is_answered_once(desk: Make, client: Any) -> None:
    broker = MockBroker()
    worker = desk(broker)
    same = order("a")
    enqueue(client, same, same)

    worker.work()
    enqueue(client, same)
    worker.work()

    assert placed(broker) == ["a"] and list(answers(client)) == ["a"]
    assert dead(client) == [] and unfinished(client) == {}


def test_the_same_id_with_other_content_is_never_traded_and_the_first_outcome_stands(
    desk: Make, client: Any
) -> None:
    broker = MockBroker()
    worker = desk(broker)
    other = order("a", quantity=99)
    enqueue(client, order("a"), other)

    worker.work()
    enqueue(client, other)
    worker.work()

    assert [str(request.quantity) for request in broker.placed] == ["10"]
    assert answers(client)["a"].accepted and unfinished(client) == {}
    assert dead(client) == [("conflict", dump(other))] * 2
    assert kinds(client) == ["INTENT_CONFLICT"] * 2 and events(client)[0].intent_id == "a"


def test_a_conflict_does_not_hold_up_the_lane_it_names(desk: Make, client: Any) -> None:
    broker = MockBroker()
    worker = desk(broker)
    enqueue(client, order("a", "005930"), order("a", "000660"), order("b", "000660"))

    worker.work()
    worker.sweep()
    worker.work()

    assert placed(broker) == ["a", "b"] and unfinished(client) == {}


# What is no intent.


def test_unreadable_bytes_with_an_id_are_buried_and_answered_once(desk: Make, client: Any) -> None:
    worker = desk(MockBroker())
    bad = b'{"intent_id":"bad","intent_type":"LIMIT","symbol":"005930","quantity":0.1}'
    enqueue(client, bad, bad)

    worker.work()

    answer = answers(client)["bad"]
    assert (answer.outcome, answer.code, answer.broker) == (Outcome.DENIED, Code.INVALID_INTENT, "worker")
    assert "quantity" in answer.message and "used up" in answer.message
    assert ("invalid", bad) in dead(client) and unfinished(client) == {}


def test_unreadable_bytes_never_hold_up_the_lane_they_seem_to_be_of(desk: Make, client: Any) -> None:
    broker = MockBroker()
    worker = desk(broker)
    bad = b'{"intent_id":"bad","intent_type":"LIMIT","symbol":"005930","quantity":0.1}'

    enqueue(client, bad, bad, order("good", "005930"))
    worker.work()
    worker.sweep()
    worker.work()

    assert placed(broker) == ["good"] and unfinished(client) == {}


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"[]", b'{"intent_id":7}', b"{" * 5000, b"null"])
def test_garbage_goes_to_the_dead_letters_as_it_came_and_stops_nothing(
    desk: Make, client: Any, garbage: bytes
) -> None:
    broker = MockBroker()
    enqueue(client, garbage, order("a"))

    desk(broker).work()

    assert dead(client) == [("invalid", garbage)]
    assert list(answers(client)) == ["a"] and unfinished(client) == {}


def test_an_entry_without_a_body_is_a_dead_letter_too(desk: Make, client: Any) -> None:
    client.xadd(KEYS.intents, {"payload": "x"})

    desk(MockBroker()).work()

    assert dead(client) == [("invalid", b'{"payload": "x"}')] and unfinished(client) == {}


def test_an_entry_that_ends_whoever_reads_it_is_buried_in_the_end(desk: Make, client: Any) -> None:
    worker = desk(MockBroker())
    enqueue(client, order("a"))
    delivery = next(worker.door.take())
    delivery.count = 26

    worker.engine.deliver(delivery)
    worker.work()

    assert [reason for reason, _ in dead(client)] == ["poison"]
    assert published(client) == [] and unfinished(client) == {}


def test_an_entry_that_the_ledger_works_on_is_never_poison(desk: Make, client: Any) -> None:
    worker = desk(MockBroker())
    enqueue(client, order("a"))
    delivery = next(worker.door.take())
    worker.engine.deliver(delivery)
    worker.engine.turn()
    delivery.count = 26

    worker.engine.deliver(delivery)
    worker.engine.turn()
    worker.work()

    assert dead(client) == [] and answers(client)["a"].accepted


# What our own rules deny.


def test_what_is_too_old_is_answered_expired_and_never_placed(desk: Make, client: Any) -> None:
    broker = MockBroker()
    now = datetime.now(UTC)
    old = order("old", created_at=now - timedelta(seconds=61))
    past = order("past", created_at=now - timedelta(seconds=9), expires_at=now - timedelta(seconds=1))
    enqueue(client, old, past)

    desk(broker).work()

    for answer in answers(client).values():
        assert (answer.outcome, answer.code) == (Outcome.EXPIRED, Code.EXPIRED)
        assert (answer.broker, answer.attempts) == ("worker", 0)
    assert len(answers(client)) == 2 and broker.placed == [] and unfinished(client) == {}


def test_an_entry_that_waited_too_long_in_the_queue_expires_whatever_its_producer_says(
    desk: Make, client: Any
) -> None:
    broker = MockBroker()
    client.xadd(KEYS.intents, {"body": dump(order("a"))}, id=f"{int(time.time() * 1000) - 61_000}-0")

    desk(broker).work()

    assert answers(client)["a"].outcome is Outcome.EXPIRED and broker.placed == []


def test_an_intent_from_the_future_is_denied(desk: Make, client: Any) -> None:
    broker = MockBroker()
    enqueue(client, order("a", created_at=datetime.now(UTC) + timedelta(seconds=30)))

    desk(broker).work()

    answer = answers(client)["a"]
    assert (answer.outcome, answer.code, answer.broker) == (Outcome.DENIED, Code.INVALID_INTENT, "worker")
    assert broker.placed == [] and unfinished(client) == {}


def test_a_halted_route_answers_everything_in_the_name_of_the_failsafe(desk: Make, client: Any) -> None:
    broker = MockBroker()
    worker = desk(broker)
    worker.ledger.command("halt", "kim@desk", "the prices look odd")
    enqueue(client, order("a"), order("b"))

    worker.work()

    for answer in answers(client).values():
        assert (answer.outcome, answer.code, answer.broker) == (Outcome.DENIED, Code.HALTED, "failsafe")
        assert "the prices look odd" in answer.message
    assert len(answers(client)) == 2 and broker.placed == []
    worker.ledger.command("resume", "kim@desk", "fine")
    enqueue(client, order("c"))
    worker.work()
    assert placed(broker) == ["c"]


@pytest.mark.parametrize(
    "failure", [NO, LOST, ValueError("ours"), NOWHERE], ids=["rejected", "lost", "bug", "not_sent"]
)
def test_after_the_third_failure_in_a_row_every_worker_answers_failsafe_without_calling_the_broker(
    desk: Make, client: Any, failure: Exception
) -> None:
    broker = MockBroker(failure)
    one = desk(broker, engine={"not_sent_retries": 0})
    two = desk(broker, name="w2")
    enqueue(client, order("a"), order("b"), order("c"))
    one.work()

    enqueue(client, order("d"))
    two.work()
    enqueue(client, order("e"))
    one.work()

    assert len(broker.placed) == 3 and kinds(client).count("GUARD_TRIPPED") == 1
    for name in "de":
        answer = answers(client)[name]
        assert (answer.accepted, answer.outcome, answer.code) == (
            False,
            Outcome.DENIED,
            Code.FAILSAFE_TRIPPED,
        )
        assert (answer.broker, answer.safety_code) == ("failsafe", "FS040")


def test_a_success_between_failures_keeps_the_guard_open(desk: Make, client: Any) -> None:
    broker = MockBroker(NO, NO, _held, NO, NO, _held)
    worker = desk(broker)

    for name in "abcdef":
        enqueue(client, order(name))
        worker.work()

    assert len(broker.placed) == 6 and kinds(client) == []


def test_a_route_may_be_set_not_to_count_the_brokers_refusals(desk: Make, client: Any) -> None:
    broker = MockBroker(NO)
    enqueue(client, *(order(name) for name in "abcde"))

    desk(broker, engine={"count_rejected": False}).work()

    assert len(broker.placed) == 5 and kinds(client) == []


def test_mode_off_denies_orders_and_cancels_and_says_so(desk: Make, client: Any) -> None:
    broker = NoopBroker(Code.NOOP, "the route's mode is off: nothing was sent")
    enqueue(client, order("a"), cancel("c", "a"), order("b", "A"))

    desk(broker).work()

    for answer in answers(client).values():
        assert (answer.outcome, answer.code, answer.broker) == (Outcome.DENIED, Code.NOOP, "noop")
        assert "mode is off" in answer.message
    assert len(answers(client)) == 3 and unfinished(client) == {}


def test_live_without_the_second_key_denies_everything(desk: Make, client: Any) -> None:
    enqueue(client, order("a"))

    desk(NoopBroker(Code.LIVE_NOT_ALLOWED)).work()

    answer = answers(client)["a"]
    assert (answer.outcome, answer.code, answer.broker) == (Outcome.DENIED, Code.LIVE_NOT_ALLOWED, "noop")


def test_a_noop_travels_the_whole_path_and_sends_nothing(desk: Make, client: Any) -> None:
    broker = MockBroker()
    enqueue(client, noop("n"), order("a"), noop("m"))

    desk(broker).work()

    for name in "nm":
        answer = answers(client)[name]
        assert (answer.outcome, answer.code, answer.broker) == (Outcome.DENIED, Code.NOOP, "worker")
    assert placed(broker) == ["a"] and unfinished(client) == {}


def test_while_the_halt_file_exists_nothing_is_launched(desk: Make, client: Any, tmp_path: Path) -> None:
    broker = MockBroker()
    file = tmp_path / "halt"
    file.touch()
    worker = desk(broker, engine={"halt_file": file})
    enqueue(client, order("a"))
    worker.work()

    file.unlink()
    enqueue(client, order("b"))
    worker.work()

    answer = answers(client)["a"]
    assert (answer.code, answer.broker) == (Code.HALTED, "failsafe") and str(file) in answer.message
    assert placed(broker) == ["b"] and unfinished(client) == {}


# Cancels.


def test_a_cancel_of_a_working_order_asks_the_broker_and_names_the_targets_number(
    desk: Make, client: Any
) -> None:
    broker = MockBroker()
    worker = desk(broker)
    enqueue(client, order("a"))
    worker.work()
    enqueue(client, cancel("c", "a"))

    worker.work()

    answer = answers(client)["c"]
    assert (answer.outcome, answer.broker_order_id) == (Outcome.ACCEPTED, "M1")
    assert [(one.broker_order_id, one.client_order_id) for one in broker.cancelled] == [("M1", "a")]
    assert unfinished(client) == {} and client.exists(KEYS.cancelling) == 0


def test_cancels_pass_a_tripped_guard_and_a_halt(desk: Make, client: Any) -> None:
    broker = MockBroker(_held, NO)
    worker = desk(broker)
    enqueue(client, *(order(name) for name in "abcd"))
    worker.work()
    worker.ledger.command("halt", "kim", "odd")
    assert "GUARD_TRIPPED" in kinds(client)

    enqueue(client, cancel("c1", placed(broker)[0]))
    worker.work()

    assert answers(client)["c1"].accepted


def test_a_cancel_of_what_nobody_knows_is_denied_and_stops_the_target_should_it_come(
    desk: Make, client: Any
) -> None:
    broker = MockBroker()
    worker = desk(broker)
    enqueue(client, cancel("c", "a"))
    worker.work()

    enqueue(client, order("a"))
    worker.work()

    found = answers(client)
    assert (found["c"].outcome, found["c"].code) == (Outcome.DENIED, Code.TARGET_UNKNOWN)
    assert (found["a"].outcome, found["a"].code) == (Outcome.DENIED, Code.CANCELLED)
    assert found["c"].broker == found["a"].broker == "worker"
    assert broker.placed == [] and unfinished(client) == {}


def test_a_cancel_in_the_queue_together_with_its_target_is_read_first(desk: Make, client: Any) -> None:
    broker = MockBroker()
    enqueue(client, order("a"), cancel("c", "a"))

    desk(broker).work()

    assert broker.placed == [] and answers(client)["a"].code is Code.CANCELLED


def test_a_cancel_does_not_wait_behind_orders_that_keep_a_slow_broker_busy(desk: Make, client: Any) -> None:
    broker = MockBroker()
    worker = desk(broker, room=2, engine={"concurrency": 2})
    enqueue(client, order("a"))
    worker.work()
    enqueue(client, *(order(f"o{number}") for number in range(40)))
    for _ in range(5):
        worker.take()
        worker.engine.turn()
    assert worker.orders.in_flight == 2

    enqueue(client, cancel("c", "a"))
    for _ in range(3):
        worker.take()
        worker.engine.turn()
        worker.cancels.work()

    assert answers(client)["c"].accepted and placed(broker) == ["a"]


def test_a_cancel_among_the_orders_works_too(desk: Make, client: Any) -> None:
    broker = MockBroker()
    worker = desk(broker)
    enqueue(client, order("a"))
    worker.work()

    client.xadd(KEYS.intents, {"body": dump(cancel("c", "a"))})
    worker.work()

    assert answers(client)["c"].accepted and len(broker.cancelled) == 1 and unfinished(client) == {}


def test_a_cancel_stops_a_target_that_was_claimed_and_has_not_left(desk: Make, client: Any) -> None:
    broker = MockBroker()
    one, two = desk(broker, room=0), desk(broker, name="w2")
    enqueue(client, order("a"))
    one.work()
    enqueue(client, cancel("c", "a"))
    two.work()

    one.orders.size = 8
    one.work()

    found = answers(client)
    assert (found["c"].outcome, found["c"].code) == (Outcome.DENIED, Code.CANCELLED)
    assert (found["a"].outcome, found["a"].code) == (Outcome.DENIED, Code.CANCELLED)
    assert broker.placed == [] and unfinished(client) == {}


def test_a_cancel_stops_a_target_that_waits_for_its_lane(desk: Make, client: Any) -> None:
    broker = MockBroker()
    worker = desk(broker)
    enqueue(client, order("a", "005930"), order("b", "005930"))
    worker.take()
    worker.engine.turn()
    assert state(client, "b") == "parked"

    enqueue(client, cancel("c", "b", "005930"))
    worker.take()
    worker.engine.turn()
    worker.sweep()
    worker.engine.turn()
    worker.engine.turn()

    found = answers(client)
    assert found["b"].code is Code.CANCELLED and found["c"].code is Code.CANCELLED
    worker.work()
    assert placed(broker) == ["a"] and unfinished(client) == {}


def test_a_cancel_waits_for_a_target_that_is_being_sent(desk: Make, client: Any) -> None:
    broker = MockBroker()
    worker = desk(broker)
    enqueue(client, order("a"))
    worker.take()
    worker.engine.turn()
    enqueue(client, cancel("c", "a"))
    worker.take()
    worker.engine.turn()
    assert state(client, "c") == "parked" and broker.cancelled == []

    worker.work()
    worker.sweep()
    worker.work()

    assert answers(client)["a"].accepted and answers(client)["c"].accepted
    assert len(broker.cancelled) == 1 and unfinished(client) == {}


def test_a_cancel_of_an_intent_in_doubt_leaves_the_moment_the_doubt_ends(desk: Make, client: Any) -> None:
    broker = MockBroker(LOST)
    worker = desk(broker)
    enqueue(client, order("a"))
    worker.work()
    enqueue(client, cancel("c", "a"))
    worker.work()
    assert broker.cancelled == []

    broker.orders.append(row_of(broker.placed[0], "M1"))
    assert worker.resolver is not None and worker.resolver.step() == 1
    worker.sweep()
    worker.work()

    found = answers(client)
    assert found["a"].broker_order_id == found["c"].broker_order_id == "M1" and found["c"].accepted
    assert unfinished(client) == {}


def row_of(request: OrderRequest, number: str) -> OrderRecord:
    return OrderRecord(
        broker_order_id=number,
        symbol=request.symbol,
        side=request.side,
        quantity=request.quantity,
        status=OrderStatus.WORKING,
        placed_at=datetime.now(UTC),
        client_order_id=request.client_order_id,
    )


def test_a_cancel_of_what_ended_without_an_order_is_denied_as_done(desk: Make, client: Any) -> None:
    broker = MockBroker(NO)
    worker = desk(broker)
    enqueue(client, order("a"))
    worker.work()
    enqueue(client, cancel("c", "a"))

    worker.work()

    answer = answers(client)["c"]
    assert (answer.outcome, answer.code) == (Outcome.DENIED, Code.TARGET_DONE)
    assert broker.cancelled == [] and unfinished(client) == {}


def test_a_cancel_that_the_broker_refuses_is_rejected_and_does_not_count_as_a_failure(
    desk: Make, client: Any
) -> None:
    broker = MockBroker(cancels=[Rejected("filled already", code="40330000")])
    worker = desk(broker)
    enqueue(client, order("a"))
    worker.work()

    for name in ("c1", "c2", "c3", "c4"):
        enqueue(client, cancel(name, "a"))
        worker.work()

    found = answers(client)
    assert [found[name].code for name in ("c1", "c2", "c3", "c4")] == [Code.BROKER_REJECTED] * 4
    assert kinds(client) == [] and unfinished(client) == {}


def test_a_cancel_past_its_own_expiry_is_answered_expired_and_an_old_one_without_is_not(
    desk: Make, client: Any
) -> None:
    broker = MockBroker()
    worker = desk(broker)
    enqueue(client, order("a"))
    worker.work()
    past = datetime.now(UTC) - timedelta(hours=2)

    enqueue(client, cancel("late", "a", created_at=past, expires_at=past + timedelta(hours=1)))
    worker.work()
    enqueue(client, cancel("old", "a", created_at=past))
    worker.work()

    found = answers(client)
    assert (found["late"].outcome, found["late"].code) == (Outcome.EXPIRED, Code.EXPIRED)
    assert found["old"].accepted and len(broker.cancelled) == 1 and unfinished(client) == {}


def test_a_cancel_that_could_not_be_sent_is_tried_again(desk: Make, client: Any, clock: ManualClock) -> None:
    broker = MockBroker(cancels=[NOWHERE, lambda query: OrderResponse("M1")])
    worker = desk(broker)
    enqueue(client, order("a"))
    worker.work()
    enqueue(client, cancel("c", "a"))

    worker.work()
    clock.advance(1)
    worker.work()

    assert answers(client)["c"].accepted and answers(client)["c"].attempts == 2
    assert unfinished(client) == {} and client.exists(KEYS.cancelling) == 0


def test_while_a_cancel_is_open_its_lane_launches_nothing_new(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker()
    worker = desk(broker)
    enqueue(client, order("a", "005930"))
    worker.work()
    enqueue(client, cancel("c", "a", "005930"), order("b", "005930"))

    worker.take()
    worker.engine.turn()
    worker.engine.turn()
    assert placed(broker) == ["a"]
    worker.work()
    clock.advance(1)
    worker.work()

    assert answers(client)["c"].accepted and placed(broker) == ["a", "b"] and unfinished(client) == {}


# Lanes.


def test_two_workers_bring_one_symbol_to_the_broker_in_queue_order_one_at_a_time(
    desk: Make, client: Any
) -> None:
    broker = MockBroker()
    workers = [desk(broker, name="w1"), desk(broker, name="w2")]
    names = [f"i{number:02d}" for number in range(20)]
    enqueue(client, *(order(name, "005930") for name in names))

    for turn in range(400):
        worker = workers[(turn * 7 + turn // 3) % 2]
        for delivery in worker.door.take(1 + turn % 3):
            worker.engine.deliver(delivery)
        worker.engine.turn()
        assert sum(one.orders.in_flight for one in workers) <= 1
        if turn % 2:
            workers[0].orders.work() or workers[1].orders.work()
        if turn % 5 == 0:
            worker.sweep()
    for worker in workers:
        worker.sweep()
        worker.work()

    assert placed(broker) == names and len(answers(client)) == 20 and unfinished(client) == {}


def test_a_blocked_lane_holds_up_no_other(desk: Make, client: Any) -> None:
    broker = MockBroker(LOST, _held)
    enqueue(client, order("a", "005930"), order("b", "005930"), order("c", "000660"), order("d", "000660"))

    desk(broker).work()

    assert placed(broker) == ["a", "c", "d"] and sorted(answers(client)) == ["c", "d"]


def test_a_route_set_to_go_on_beside_a_doubt_does_so_when_the_entry_comes_again(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker(LOST, _held)
    rules = {"lane_on_doubt": "continue"}
    gone = desk(broker, ledger=rules, min_idle=0.01)
    enqueue(client, order("a", "005930"))
    gone.take()
    gone.engine.turn()
    # It is killed after the launch; somebody announces the doubt, and the queue hands the entry over again.
    end_leases(client)
    worker = desk(MockBroker(), name="w2", ledger=rules, min_idle=0.01)
    assert worker.sweep() == ["a"]
    _redeliver(worker, clock)
    worker.work()

    enqueue(client, order("b", "005930"))
    worker.work()

    assert answers(client)["b"].accepted and state(client, "a") == "in_doubt"


def _redeliver(worker: Desk, clock: ManualClock) -> None:
    """What another consumer left comes to this worker."""
    time.sleep(0.02)
    clock.advance(1)
    worker.take()


# Leaving.


def test_a_drain_gives_back_what_was_not_launched_and_settles_what_is_on_its_way(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker()
    leaving = desk(broker, room=1, min_idle=0.01)
    enqueue(client, order("a"), order("b"), order("c", "A"), order("d"))
    leaving.take()
    leaving.engine.turn()
    enqueue(client, order("e"))
    leaving.take()
    assert leaving.orders.in_flight == 1

    leaving.engine.drain()
    assert leaving.engine.has_to_settle() and not leaving.engine.wants_more() and leaving.engine.room() == 0
    leaving.work()
    assert leaving.engine.is_empty() and len(broker.placed) == 1 and len(answers(client)) == 1

    other = desk(broker, name="w2", min_idle=0.01)
    other.sweep()
    other.work()
    _redeliver(other, clock)
    other.work()

    assert sorted(placed(broker)) == ["a", "b", "c", "d", "e"] and len(answers(client)) == 5
    assert all(one.accepted for one in answers(client).values()) and unfinished(client) == {}


def test_what_the_intake_still_brings_to_a_draining_worker_is_given_back_too(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker()
    leaving = desk(broker, min_idle=0.01)
    enqueue(client, order("a"))
    in_the_midst = list(leaving.door.take())
    leaving.engine.drain()
    leaving.work()

    leaving.engine.deliver(in_the_midst[0])
    assert not leaving.engine.is_empty()
    leaving.work()

    assert leaving.engine.is_empty() and broker.placed == []
    other = desk(broker, name="w2", min_idle=0.01)
    _redeliver(other, clock)
    other.work()
    assert placed(broker) == ["a"] and answers(client)["a"].accepted


def test_an_order_that_never_left_is_answered_when_its_worker_leaves(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker(NOWHERE)
    leaving = desk(broker)
    enqueue(client, order("a"))
    leaving.work()
    assert published(client) == []

    leaving.engine.drain()
    leaving.work()

    assert answers(client)["a"].outcome is Outcome.NOT_SENT and leaving.engine.is_empty()
    assert unfinished(client) == {}


# A worker that fell silent.


def test_what_a_dead_worker_had_not_launched_is_worked_by_another(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker()
    gone = desk(broker, room=0, min_idle=0.01)
    enqueue(client, order("a"))
    gone.work()
    end_leases(client)

    other = desk(broker, name="w2", min_idle=0.01)
    assert other.sweep() == []
    other.work()
    gone.orders.size = 8
    gone.work()
    _redeliver(other, clock)
    other.work()

    assert placed(broker) == ["a"] and answers(client)["a"].accepted and unfinished(client) == {}


def test_the_late_answer_of_a_worker_thought_dead_ends_the_doubt_about_its_order(
    desk: Make, client: Any
) -> None:
    broker = MockBroker()
    slow = desk(broker)
    enqueue(client, order("a"))
    slow.take()
    slow.engine.turn()
    end_leases(client)
    assert desk(broker, name="w2").sweep() == ["a"]

    slow.work()

    assert answers(client)["a"].broker_order_id == "M1" and unfinished(client) == {}
    assert kinds(client) == ["INTENT_IN_DOUBT", "DOUBT_RESOLVED"]


def test_a_worker_does_not_lose_what_it_works_on_as_long_as_it_renews(desk: Make, client: Any) -> None:
    broker = MockBroker()
    slow, other = desk(broker), desk(broker, name="w2")
    enqueue(client, order("a"))
    slow.take()
    slow.engine.turn()
    end_leases(client)

    slow.renew()

    assert other.sweep() == []


# Redis away.


def _story(desk: Make, client: Any, wire: Wire, broker: MockBroker, clock: ManualClock) -> None:
    """A bit of everything: a lane of two, another lane, a replay, a conflict, garbage, a cancel before its target."""
    worker = desk(broker, min_idle=0.02)
    wire.tap(worker.client)
    enqueue(client, order("a1", "005930"), order("a2", "005930"), order("b"), order("b"))
    enqueue(client, order("b", quantity=3), b"garbage", cancel("c", "d"), order("d"))
    worker.work_through_outages()
    for _ in range(40):
        if not unfinished(client):
            return
        end_leases(client)
        time.sleep(0.005)
        clock.advance(1)
        with suppress(Unavailable):
            worker.sweep()
        worker.work_through_outages()
    raise AssertionError(unfinished(client))


def _commands_of_the_story(any_redis: AnyRedis, clock: ManualClock) -> int:
    wire = Wire()
    _story(_maker(any_redis, clock), any_redis.connect(), wire, MockBroker(), clock)
    return wire.calls


def _maker(any_redis: AnyRedis, clock: ManualClock) -> Make:
    return lambda broker, **options: Desk(any_redis.connect(), broker, clock, **options)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_redis_may_go_away_at_any_command_and_nothing_is_lost_or_doubled(
    any_redis: AnyRedis, client: Any, clock: ManualClock, after: bool
) -> None:
    for number in range(1, _commands_of_the_story(any_redis, clock) + 1):
        client.flushall()
        wire, broker = Wire(), MockBroker()
        wire.strike(number, after=after, error=redis.ConnectionError("away"))

        _story(_maker(any_redis, clock), client, wire, broker, clock)

        where = f"command {number} ({wire.names[number - 1 : number]})"
        found = answers(client)
        assert sorted(found) == ["a1", "a2", "b", "c", "d"], where
        assert sorted(placed(broker)) == sorted(
            name for name in found if found[name].accepted and name != "c"
        ), where
        assert [name for name in placed(broker) if name[0] == "a"] == ["a1", "a2"], where
        assert found["b"].accepted, where
        # The CANCEL itself may come late; then it goes to the broker.
        assert found["d"].code is Code.CANCELLED or found["c"].accepted, where
        assert sorted(reason for reason, _ in dead(client)) == ["conflict", "invalid"], where
        assert kinds(client) == [FailsafeType.INTENT_CONFLICT], where


def test_a_launch_whose_reply_was_lost_and_then_met_a_halt_is_answered_and_not_left_in_doubt(
    desk: Make, client: Any
) -> None:
    broker = MockBroker()
    # Claimed without room to leave, so that its launch is a call of its own; and the server knows the script.
    worker = desk(broker, room=0)
    worker.ledger.launch([("nobody", "x", 1)])
    enqueue(client, order("a"))
    worker.work()
    worker.orders.size = 8
    wire = Wire()
    wire.tap(worker.client)
    wire.strike(1, after=True, error=redis.ConnectionError("away"))
    with pytest.raises(Unavailable):
        worker.engine.turn()
    assert state(client, "a") == "in_flight"

    worker.ledger.command("halt", "kim", "odd")
    worker.work()

    assert broker.placed == [] and answers(client)["a"].code is Code.HALTED
    assert unfinished(client) == {} and kinds(client) == ["HALTED"]


def test_a_launch_whose_reply_was_lost_before_the_worker_leaves_is_answered_and_not_left_in_doubt(
    desk: Make, client: Any
) -> None:
    broker = MockBroker()
    worker = desk(broker, room=0)
    worker.ledger.launch([("nobody", "x", 1)])
    enqueue(client, order("a"))
    worker.work()
    worker.orders.size = 8
    wire = Wire()
    wire.tap(worker.client)
    wire.strike(1, after=True, error=redis.ConnectionError("away"))
    with pytest.raises(Unavailable):
        worker.engine.turn()
    assert state(client, "a") == "in_flight"

    worker.engine.drain()
    worker.work()

    assert worker.engine.is_empty() and broker.placed == []
    assert answers(client)["a"].outcome is Outcome.NOT_SENT and unfinished(client) == {}


def test_an_intent_from_any_language_is_worked_from_a_bare_entry(desk: Make, client: Any) -> None:
    broker = MockBroker()
    created = datetime.now(UTC).isoformat()
    body = (
        '{"intent_id":"x:1","intent_type":"MARKET","symbol":"005930","side":"SELL","quantity":3,'
        f'"created_at":"{created}"}}'
    )
    client.execute_command("XADD", KEYS.intents, "*", "body", body)

    desk(broker).work()

    assert answers(client)["x:1"].accepted and unfinished(client) == {}
