"""How much the engine takes, how far ahead it works, and when it is woken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest

from tests.conftest import AnyRedis, make_intent
from tests.desk import Desk, enqueue
from tests.mock_broker import MockBroker
from worker.clock import ManualClock
from worker.errors import NotSent
from worker.settler import BATCH

Make = Callable[..., Desk]


@pytest.fixture
def client(any_redis: AnyRedis) -> Any:
    return any_redis.connect()


@pytest.fixture
def clock() -> ManualClock:
    """Starts with Redis's own clock, which no test can move."""
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def desk(any_redis: AnyRedis, clock: ManualClock) -> Make:
    def make(*errors: Any, **options: Any) -> Desk:
        return Desk(any_redis.connect(), MockBroker(*errors), clock, **options)

    return make


def in_another_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    ("room", "concurrency", "depth"), [(8, 8, 8), (1, 8, 8), (100, 8, 100), (10_000, 8, 2 * BATCH)]
)
def test_it_takes_half_as_much_again_as_keeps_the_broker_busy_and_holds_three_times_that(
    desk: Make, room: int, concurrency: int, depth: int
) -> None:
    engine = desk(room=room, engine={"concurrency": concurrency}).engine

    assert engine.room() == depth * 3 // 2
    assert engine.appetite() == 3 * depth


def test_what_is_in_hand_already_takes_from_its_room(desk: Make, client: Any) -> None:
    worker = desk(room=8)
    enqueue(client, *(make_intent(intent_id=f"i{n}", symbol=f"S{n}") for n in range(20)))
    worker.take()
    worker.engine.turn()

    # Eight are at the broker's door, the rest were granted.
    assert worker.orders.in_flight == 8
    assert worker.engine.room() == 0


def test_a_worker_that_drains_takes_nothing(desk: Make) -> None:
    engine = desk().engine
    engine.drain()

    assert (engine.room(), engine.wants_more()) == (0, False)


def test_it_reads_ahead_two_batches_and_no_more(desk: Make, client: Any) -> None:
    worker = desk()
    enqueue(client, *(make_intent(intent_id=f"i{n}", symbol=f"S{n}") for n in range(2 * BATCH + 1)))
    for number, delivery in enumerate(worker.door.take(2 * BATCH + 1)):
        assert worker.engine.wants_more() is (number < 2 * BATCH)
        worker.engine.deliver(delivery)

    assert worker.engine.wants_more() is False


def test_what_other_threads_bring_wakes_it_and_its_own_work_does_not(desk: Make) -> None:
    woken = Mock()
    engine = desk(wake=woken).engine
    engine.turn()
    woken.reset_mock()

    engine.hand([])
    assert not woken.called

    in_another_thread(lambda: engine.hand([]))
    woken.assert_called_once_with()


def test_an_order_that_never_left_comes_back_and_wakes_it(desk: Make, client: Any) -> None:
    woken = Mock()
    worker = desk(NotSent("connection refused"), wake=woken)
    enqueue(client, make_intent(intent_id="a"))
    worker.take()
    worker.engine.turn()
    woken.reset_mock()

    in_another_thread(worker.orders.work)

    assert woken.called


def test_it_is_patient_until_the_first_delayed_order_is_due(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    worker = desk(NotSent("connection refused"))
    enqueue(client, make_intent(intent_id="a"))
    assert worker.engine.patience(5.0) == 5.0
    worker.work()

    left = worker.engine.patience(5.0)
    assert 0.001 < left < 5.0
    assert worker.engine.patience(left / 2) == left / 2
    clock.advance(left + 1)
    assert worker.engine.patience(5.0) == 0.001
