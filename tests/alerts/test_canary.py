"""Canaries prove the way from the queue to the answer, by one worker, and disturb nobody."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from contracts import ExecutionIntent, GuardState, IntentType, Outcome, load_intent
from tests.conftest import AnyRedis, make_intent
from tests.desk import KEYS, Desk, answers, enqueue, unfinished
from tests.mock_broker import MockBroker
from worker.canary import KEPT, LEASE, LOOK_EVERY, PATIENCE, Canary
from worker.clock import ManualClock
from worker.errors import Rejected, Unavailable
from worker.ledger.control import Control
from worker.logs import configure
from worker.metrics import PREFIX, Metrics

EVERY = 30.0


class Worker:
    """The part of a worker that sends canaries, and the figures that it shows."""

    def __init__(self, client: Any, clock: ManualClock, name: str) -> None:
        self._metrics = Metrics(["default"])
        self.client = client
        self.canary = Canary(
            client,
            "default",
            interval=EVERY,
            retention=7 * 86400.0,
            metrics=self._metrics.route("default"),
            log=configure("error"),
            clock=clock,
            worker=name,
        )

    def shows(self, name: str) -> float:
        found = self._metrics.registry.get_sample_value(f"{PREFIX}canary_{name}", {"route": "default"})
        assert found is not None
        return found

    @property
    def passed(self) -> int:
        return int(self.shows("seconds_count"))

    @property
    def failed(self) -> int:
        return int(self.shows("failures_total"))


class Case:
    """A route with one engine that is turned by hand."""

    def __init__(self, any_redis: AnyRedis) -> None:
        self._connect = any_redis.connect
        self.client = any_redis.connect()
        self.clock = ManualClock(datetime.now(UTC))
        self.broker = MockBroker()
        self.desk = Desk(self.client, self.broker, self.clock)

    def worker(self, name: str = "w1") -> Worker:
        return Worker(self._connect(), self.clock, name)

    def sent(self) -> list[ExecutionIntent]:
        return [load_intent(fields[b"body"]) for _, fields in self.client.xrange(KEYS.intents)]

    def send_and_see(self, worker: Worker) -> None:
        """One canary, from its enqueuing to the look that finds its answer."""
        worker.canary.turn()
        self.desk.work()
        self.clock.advance(0.02)
        worker.canary.turn()


@pytest.fixture(name="case")
def _case(any_redis: AnyRedis) -> Case:
    return Case(any_redis)


def test_a_canary_goes_the_whole_way_is_measured_and_asks_nothing_of_the_broker(case: Case) -> None:
    worker = case.worker()

    case.send_and_see(worker)

    (canary,) = case.sent()
    assert canary.intent_id.startswith("canary-") and canary.intent_type is IntentType.NOOP
    assert answers(case.client)[canary.intent_id].outcome is Outcome.DENIED
    assert (worker.passed, worker.failed) == (1, 0)
    assert worker.shows("seconds_sum") == pytest.approx(0.02)
    assert worker.shows("last_success_timestamp_seconds") == case.clock.now().timestamp()
    assert worker.shows("interval_seconds") == EVERY
    assert case.broker.placed == [] and case.broker.orders == []
    assert case.client.exists(KEYS.slots) == 0
    assert unfinished(case.client) == {}


def test_canaries_leave_in_their_interval_and_one_is_on_its_way_at_a_time(case: Case) -> None:
    worker = case.worker()
    case.send_and_see(worker)

    for _ in range(int(EVERY) - 1):
        assert worker.canary.turn() <= LOOK_EVERY
        case.clock.advance(LOOK_EVERY)
    assert len(case.sent()) == 1
    case.clock.advance(LOOK_EVERY)
    worker.canary.turn()
    for _ in range(5):
        case.clock.advance(1.0)
        worker.canary.turn()

    assert len(case.sent()) == 2
    assert len({one.intent_id for one in case.sent()}) == 2


def test_canaries_neither_help_nor_hurt_the_guard(case: Case) -> None:
    case.desk = Desk(case.client, MockBroker(Rejected("no cash")), case.clock)
    enqueue(case.client, make_intent())
    case.desk.work()
    worker = case.worker()

    for _ in range(5):
        case.send_and_see(worker)
        case.clock.advance(EVERY)

    status = Control(case.client, "default").status()
    assert worker.passed == 5
    assert (status.consecutive_failures, status.guard_state) == (1, GuardState.WARNING)


def test_a_canary_comes_back_from_a_halted_route_while_orders_do_not_leave(case: Case) -> None:
    Control(case.client, "default").halt("somebody", "a drill")
    worker = case.worker()
    enqueue(case.client, make_intent())

    case.send_and_see(worker)

    assert (worker.passed, worker.failed) == (1, 0)
    assert case.broker.placed == []


def test_a_canary_that_nobody_answers_counts_as_lost_and_the_next_one_is_sent_in_its_time(case: Case) -> None:
    worker = case.worker()
    worker.canary.turn()

    case.clock.advance(PATIENCE - 0.1)
    worker.canary.turn()
    assert worker.failed == 0
    case.clock.advance(0.2)
    worker.canary.turn()
    assert (worker.passed, worker.failed) == (0, 1)
    assert worker.shows("last_success_timestamp_seconds") == 0

    case.clock.advance(EVERY)
    case.send_and_see(worker)
    assert (worker.passed, worker.failed) == (1, 1)


def test_a_wrong_answer_counts_as_a_failure(case: Case) -> None:
    worker = case.worker()
    worker.canary.turn()
    (canary,) = case.sent()
    case.desk.work()
    text = case.client.hget(KEYS.intent(canary.intent_id), "response")
    case.client.hset(KEYS.intent(canary.intent_id), "response", text.replace(b'"NOOP"', b'"INVALID_INTENT"'))

    worker.canary.turn()

    assert (worker.passed, worker.failed) == (0, 1)


def test_of_many_workers_one_sends_and_another_takes_over_at_once_when_it_is_gone(case: Case) -> None:
    one, other = case.worker("w1"), case.worker("w2")
    case.send_and_see(one)
    for _ in range(3):
        case.send_and_see(other)
        case.clock.advance(LOOK_EVERY)
    assert (one.passed, other.passed) == (1, 0)

    one.canary.leave()
    case.send_and_see(other)
    assert other.passed == 1

    case.clock.advance(LOOK_EVERY)
    one.canary.turn()
    case.client.delete(KEYS.canary)  # as if its lease were over
    case.clock.advance(LOOK_EVERY)
    case.send_and_see(one)
    assert one.passed == 2 and len(case.sent()) == 3
    assert 0 < case.client.pttl(KEYS.canary) <= LEASE * 1000


def test_a_worker_keeps_the_right_to_send_while_its_canary_is_on_its_way(case: Case) -> None:
    one, other = case.worker("w1"), case.worker("w2")
    one.canary.turn()

    case.client.pexpire(KEYS.canary, 100_000)  # seen to be set anew
    case.clock.advance(LOOK_EVERY)
    one.canary.turn()
    other.canary.turn()

    assert case.client.pttl(KEYS.canary) <= LEASE * 1000
    assert len(case.sent()) == 1


def test_a_worker_that_leaves_takes_nobody_elses_right_to_send(case: Case) -> None:
    one, other = case.worker("w1"), case.worker("w2")
    case.send_and_see(one)

    other.canary.leave()

    assert case.client.get(KEYS.canary) == b"w1"


def test_an_answered_canary_leaves_the_ledger_long_before_an_order_does(case: Case) -> None:
    enqueue(case.client, make_intent())
    worker = case.worker()
    case.send_and_see(worker)

    canary = case.sent()[-1].intent_id
    assert 0 < case.client.pttl(KEYS.intent(canary)) <= KEPT * 1000
    assert case.client.pttl(KEYS.intent("intent-1")) > 24 * KEPT * 1000


def test_one_that_is_still_open_is_never_taken_out_of_the_ledger(case: Case) -> None:
    worker = case.worker()
    worker.canary.turn()
    (canary,) = case.sent()
    case.desk.take()
    case.desk.engine.turn()
    case.client.hdel(KEYS.intent(canary.intent_id), "response")
    case.client.persist(KEYS.intent(canary.intent_id))

    case.clock.advance(PATIENCE + 1)
    worker.canary.turn()

    assert worker.failed == 1
    assert case.client.pttl(KEYS.intent(canary.intent_id)) == -1


def test_a_redis_that_was_away_for_a_moment_costs_no_canary(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = case.worker()
    worker.canary.turn()
    case.desk.work()

    with monkeypatch.context() as away:
        away.setattr(worker.client, "pipeline", _away)
        assert worker.canary.turn() > 0
    worker.canary.turn()

    assert (worker.passed, worker.failed) == (1, 0)


def test_a_redis_that_stays_away_costs_the_canary_on_its_way_and_then_the_turn_says_so(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = case.worker()
    worker.canary.turn()

    with monkeypatch.context() as away:
        away.setattr(worker.client, "pipeline", _away)
        away.setattr(worker.client, "set", _away)
        case.clock.advance(PATIENCE + 1)
        worker.canary.turn()
        assert worker.failed == 1
        case.clock.advance(LOOK_EVERY)
        with pytest.raises(Unavailable):
            worker.canary.turn()

    case.clock.advance(EVERY)
    case.send_and_see(worker)
    assert (worker.passed, worker.failed) == (1, 1)


def test_a_canary_whose_enqueuing_was_not_confirmed_is_looked_for_all_the_same(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = case.worker()
    pipeline = worker.client.pipeline

    def enqueued_but_not_confirmed(**options: Any) -> Any:
        pipe = pipeline(**options)
        execute = pipe.execute
        monkeypatch.undo()
        pipe.execute = lambda: (execute(), _away())
        return pipe

    monkeypatch.setattr(worker.client, "pipeline", enqueued_but_not_confirmed)
    with pytest.raises(Unavailable):
        worker.canary.turn()
    case.desk.work()
    worker.canary.turn()

    assert (worker.passed, worker.failed, len(case.sent())) == (1, 0, 1)


def _away(*_args: Any, **_options: Any) -> Any:
    raise redis.ConnectionError("nobody there")
