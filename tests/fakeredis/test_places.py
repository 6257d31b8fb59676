"""One place in the lane for each intent: that of its first entry, however many of them the queue holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts import ExecutionIntent
from tests.conftest import AnyRedis, make_intent
from tests.desk import KEYS, Desk, answers, dead, enqueue, unfinished
from tests.mock_broker import MockBroker
from worker.clock import ManualClock

#: Seconds after which an entry is taken from a worker that is silent.
SILENT = 0.05

Make = Callable[..., Desk]


@pytest.fixture
def client(any_redis: AnyRedis) -> Any:
    return any_redis.connect()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def desk(any_redis: AnyRedis, clock: ManualClock) -> Make:
    def make(broker: Any, name: str, **options: Any) -> Desk:
        return Desk(any_redis.connect(), broker, clock, name=name, min_idle=SILENT, **options)

    return make


def order(intent_id: str, **changes: Any) -> ExecutionIntent:
    return make_intent(intent_id=intent_id, **changes)


def take_and_die(desk: Make, broker: MockBroker) -> None:
    """A worker takes all there is, and is killed before it has claimed any of it."""
    list(desk(broker, "gone").door.take())


def wait_for_what_the_dead_left(clock: ManualClock) -> None:
    """Redis's clock tells how long somebody has been silent, and the worker's own when to look."""
    time.sleep(2 * SILENT)
    clock.advance(3)


def placed(broker: MockBroker) -> list[str]:
    return [request.client_order_id for request in broker.placed]


def test_an_intent_asked_for_again_keeps_the_place_of_the_entry_that_a_dead_worker_had(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker()
    worker = desk(broker, "w1")
    enqueue(client, order("a"), order("b"))
    take_and_die(desk, broker)
    enqueue(client, order("a"))

    worker.work()
    wait_for_what_the_dead_left(clock)
    worker.work()

    assert placed(broker) == ["a", "b"] and len(answers(client)) == 2
    assert unfinished(client) == {}


def test_of_two_entries_of_an_intent_the_later_one_being_claimed_first_does_not_let_others_pass(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker()
    worker = desk(broker, "w1")
    enqueue(client, order("x"))
    worker.take()
    worker.engine.turn()
    enqueue(client, order("a"), order("b"))
    take_and_die(desk, broker)
    enqueue(client, order("a"), order("b"))

    worker.work()
    wait_for_what_the_dead_left(clock)
    worker.work()

    assert placed(broker) == ["x", "a", "b"] and unfinished(client) == {}


def test_an_order_on_its_way_is_not_joined_by_another_when_its_own_first_entry_comes_back(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker()
    worker = desk(broker, "w1")
    enqueue(client, order("x"))
    worker.take()
    worker.engine.turn()
    enqueue(client, order("a"), order("b"))
    take_and_die(desk, broker)
    enqueue(client, order("a"))
    worker.take()
    worker.engine.turn()

    # x is answered, and a is handed on and launched. It has not left yet when its first entry is taken over.
    worker.orders.work()
    while worker.engine.turn():
        pass
    wait_for_what_the_dead_left(clock)
    worker.take()
    while worker.engine.turn():
        pass

    states = [client.hget(KEYS.intent(one), "state") for one in ("a", "b")]
    assert states == [b"in_flight", b"parked"]
    worker.work()
    assert placed(broker) == ["x", "a", "b"] and unfinished(client) == {}


def test_an_intent_whose_first_entry_comes_back_while_it_waits_has_its_turn_when_that_is_first(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker()
    worker = desk(broker, "w1")
    enqueue(client, order("a"))
    take_and_die(desk, broker)
    enqueue(client, order("b"))
    other = desk(broker, "w2")
    list(other.door.take())  # and so does the next one
    enqueue(client, order("b"))
    worker.work()
    assert placed(broker) == []

    wait_for_what_the_dead_left(clock)
    worker.work()

    assert placed(broker) == ["a", "b"] and unfinished(client) == {}


def test_the_burial_of_a_conflicting_first_entry_lets_nobody_pass_the_order_that_is_out(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker()
    worker = desk(broker, "w1")
    enqueue(client, order("x"))
    worker.take()
    worker.engine.turn()
    enqueue(client, order("a", quantity=1), order("b"))
    take_and_die(desk, broker)
    enqueue(client, order("a", quantity=2))
    worker.take()
    worker.engine.turn()
    worker.orders.work()
    while worker.engine.turn():
        pass
    wait_for_what_the_dead_left(clock)
    worker.take()
    while worker.engine.turn():
        pass

    assert client.hget(KEYS.intent("b"), "state") == b"parked"
    worker.work()
    assert placed(broker) == ["x", "a", "b"] and unfinished(client) == {}
    assert [reason for reason, _ in dead(client)] == ["conflict"]


def test_an_intent_that_expires_while_it_waits_keeps_the_time_at_which_it_was_made(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker()
    worker = desk(broker, "w1", room=1)
    made = datetime.now(UTC)
    enqueue(client, order("x"), order("a", created_at=made, expires_at=made + timedelta(seconds=0.2)))
    worker.take()
    worker.engine.turn()
    time.sleep(0.3)

    handed, _ = worker.ledger.sweep(1)

    # Whatever else may be said of it later, a doubt about it must not begin in 1970.
    assert len(handed) == 1
    assert client.hget(KEYS.intent("a"), "times") == b"%d:0" % (made.timestamp() * 1000)
