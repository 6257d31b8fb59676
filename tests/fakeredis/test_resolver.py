"""How doubts end, and what is said of orders that should not exist, on both kinds of Redis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import Mock

import pytest

from contracts import Code, ExecutionIntent, OrderRecord, OrderResponse, OrderScan, OrderStatus, Outcome, Side
from tests.conftest import AnyRedis, make_intent
from tests.desk import KEYS, Desk, answers, end_leases, enqueue, events, kinds, published, state, unfinished
from tests.mock_broker import MockBroker
from worker.clock import ManualClock
from worker.errors import BrokerError, OutcomeUnknown, Refused, Rejected, Unavailable
from worker.evidence import Absent, Found, NoVerdict, Reading, judge, moment, order_key
from worker.ledger.control import Control

LOST = OutcomeUnknown("the reply was lost")
HELD = OrderResponse("N1", "held")
QUIET = 6.0


def row(intent_id: str | None, number: str = "N1", **changes: Any) -> OrderRecord:
    order = OrderRecord(
        number,
        "005930",
        Side.BUY,
        Decimal(10),
        OrderStatus.WORKING,
        datetime.now(UTC),
        client_order_id=intent_id,
    )
    return replace(order, **changes)


# What a list proves: a pure function.


def reading(*rows: OrderRecord, started: float = 100.0, complete: bool = True) -> Reading:
    return Reading(OrderScan(rows, complete), started)


def verdict(*readings: Reading) -> Any:
    return judge("a", readings, absence_from=100.0)


def test_a_row_with_our_id_proves_the_order_however_early_or_incomplete_the_list_is() -> None:
    ours = row("a")

    assert verdict(reading(ours, row("b"), started=1.0, complete=False)) == Found(ours)


def test_of_two_rows_the_first_placed_is_ours_and_the_other_should_not_exist() -> None:
    late = row("a", "N2")
    early = row("a", "N9", placed_at=late.placed_at - timedelta(seconds=1))

    assert verdict(reading(late, early)) == Found(early, (late,))


def test_absence_needs_two_complete_readings_started_after_the_brokers_lag() -> None:
    assert isinstance(verdict(), NoVerdict)
    assert isinstance(verdict(reading()), NoVerdict)
    assert isinstance(verdict(reading(started=99.9), reading()), NoVerdict)
    assert verdict(reading(), reading(started=101.0)) == Absent(
        "in neither of two complete order lists read after the broker's lag"
    )


def test_an_incomplete_list_never_proves_an_absence() -> None:
    assert isinstance(verdict(*[reading(complete=False)] * 9), NoVerdict)
    assert isinstance(verdict(reading(), reading(complete=False)), NoVerdict)


def test_other_peoples_orders_prove_nothing_about_ours() -> None:
    assert isinstance(verdict(reading(row("b"), row(None))), NoVerdict)


# Doubts in the ledger.


class Bench:
    """A worker whose first order's reply is lost, and its broker."""

    def __init__(self, any_redis: AnyRedis, *replies: Any, exclusive: bool = False, **broker: Any) -> None:
        self.exclusive = exclusive
        self.redis = any_redis
        self.client = any_redis.connect()
        self.clock = ManualClock(datetime.now(UTC))
        self.broker = MockBroker(*(replies or (LOST,)))
        for name, value in broker.items():
            setattr(self.broker, name, value)
        self.desk = self.worker("w1")

    def worker(self, name: str) -> Desk:
        rules = {"order_timeout": 5.0}
        return Desk(
            self.redis.connect(), self.broker, self.clock, name=name, ledger=rules, exclusive=self.exclusive
        )

    def doubt(self, *intents: ExecutionIntent) -> None:
        enqueue(self.client, *intents or (make_intent(intent_id="a"),))
        self.desk.work()
        assert kinds(self.client)[:1] == ["INTENT_IN_DOUBT"]

    def look(self, seconds: float = 0.0) -> int:
        """Time goes by, and the next look-up is due."""
        self.clock.advance(seconds)
        self.due()
        assert self.desk.resolver is not None
        return self.desk.resolver.step()

    def due(self) -> None:
        """The next look-up at every doubt."""
        for member in self.client.zrange(KEYS.doubts, 0, -1):
            self.client.zadd(KEYS.doubts, {member: 1})

    def scan(self) -> None:
        assert self.desk.resolver is not None
        self.desk.resolver.scan()


@pytest.fixture
def bench(any_redis: AnyRedis) -> Callable[..., Bench]:
    return lambda *replies, **broker: Bench(any_redis, *replies, **broker)


Make = Callable[..., Bench]


def test_an_order_found_at_the_broker_is_accepted_with_its_number(bench: Make) -> None:
    here = bench()
    here.doubt()
    here.broker.orders.append(row("a", "N7"))

    assert here.look() == 1

    answer = answers(here.client)["a"]
    assert (answer.outcome, answer.broker_order_id, answer.attempts) == (Outcome.ACCEPTED, "N7", 1)
    assert kinds(here.client) == ["INTENT_IN_DOUBT", "DOUBT_RESOLVED"] and unfinished(here.client) == {}


def test_an_order_that_two_late_lists_do_not_show_was_not_placed(bench: Make) -> None:
    here = bench()
    here.doubt()

    assert [here.look(), here.look(QUIET), here.look(1), here.look(1)] == [0, 0, 1, 0]

    answer = answers(here.client)["a"]
    assert (answer.outcome, answer.code) == (Outcome.NOT_PLACED, Code.NOT_PLACED)
    assert kinds(here.client) == ["INTENT_IN_DOUBT", "DOUBT_RESOLVED"] and unfinished(here.client) == {}


def test_a_doubt_that_each_of_several_workers_looks_at_now_and_then_ends_soon_all_the_same(
    bench: Make,
) -> None:
    here = bench()
    here.doubt()
    resolvers = [here.worker(name).resolver for name in ("w2", "w3", "w4")]

    # The ledger has handed it to each of them once, and puts off the next look for long.
    for one in resolvers:
        assert one is not None
        here.due()
        assert one.step() == 0
    here.client.zadd(KEYS.doubts, {"a": 2**41})
    ended = []
    for seconds in (QUIET, 1, 1):
        here.clock.advance(seconds)
        ended += [one.step() for one in resolvers if one is not None]

    assert sum(ended) == 1 and answers(here.client)["a"].outcome is Outcome.NOT_PLACED


def test_a_list_that_proves_nothing_is_read_again_twice_and_then_when_the_ledger_asks(bench: Make) -> None:
    here = bench(complete=False)
    here.doubt()
    here.look(QUIET)
    read, before = [0], here.broker.list_orders

    def count(since: datetime) -> OrderScan:
        read[0] += 1
        return before(since)

    here.broker.list_orders = count  # type: ignore[method-assign]
    here.client.zadd(KEYS.doubts, {"a": 2**41})
    assert here.desk.resolver is not None
    for _ in range(10):
        here.clock.advance(10)
        here.desk.resolver.step()

    assert read == [2]


def test_nothing_is_said_about_an_absence_before_the_order_can_have_arrived(bench: Make) -> None:
    here = bench()
    here.doubt()

    assert [here.look(0.5) for _ in range(10)] == [0] * 10
    here.broker.orders.append(row("a", "N7"))
    assert here.look() == 1

    assert answers(here.client)["a"].accepted


def test_a_list_that_was_not_read_to_its_end_proves_no_absence_however_often(bench: Make) -> None:
    here = bench(complete=False)
    here.doubt()

    assert [here.look(60) for _ in range(5)] == [0] * 5

    assert published(here.client) == [] and state(here.client, "a") == "in_doubt"


def test_a_broker_that_cannot_be_asked_leaves_the_doubt_as_it_is(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bench()
    here.doubt()

    def refuse(since: datetime) -> OrderScan:
        raise BrokerError("maintenance")

    with monkeypatch.context() as patch:
        patch.setattr(here.broker, "list_orders", refuse)
        assert [here.look(60) for _ in range(5)] == [0] * 5
    assert published(here.client) == []
    here.look(), here.look(1)

    assert answers(here.client)["a"].outcome is Outcome.NOT_PLACED


def test_a_broker_whose_list_shows_no_ids_of_ours_leaves_the_doubt_to_a_person(bench: Make) -> None:
    here = bench(client_order_ids=False)
    here.doubt()
    here.broker.orders.append(row(None, "N7"))

    assert [here.look(60) for _ in range(5)] == [0] * 5

    assert state(here.client, "a") == "in_doubt"


def test_the_lane_goes_on_when_the_doubt_ends(bench: Make) -> None:
    here = bench(LOST, lambda request: HELD)
    here.doubt(make_intent(intent_id="a"), make_intent(intent_id="b"))
    assert [one.client_order_id for one in here.broker.placed] == ["a"]
    here.broker.orders.append(row("a"))

    here.look()
    here.desk.sweep()
    here.desk.work()

    assert [one.client_order_id for one in here.broker.placed] == ["a", "b"]
    assert answers(here.client)["b"].accepted and unfinished(here.client) == {}


def test_a_second_order_of_the_same_intent_is_an_orphan_and_halts_the_route(bench: Make) -> None:
    here = bench()
    here.doubt()
    here.broker.orders += [row("a", "N1"), row("a", "N2")]

    here.look()

    assert answers(here.client)["a"].broker_order_id == "N1"
    assert kinds(here.client) == ["INTENT_IN_DOUBT", "DOUBT_RESOLVED", "ORPHAN_ORDER", "HALTED"]
    assert events(here.client)[2].broker_order_id == "N2"


def listen(here: Bench) -> Any:
    """What the resolver counts and logs, from here on."""
    ears = Mock()
    assert here.desk.resolver is not None
    here.desk.resolver._metrics, here.desk.resolver._log = ears.metrics, ears.log
    return ears


def test_why_a_doubt_is_open_is_told_once_for_each_reason_and_its_end_is_counted(bench: Make) -> None:
    here = bench()
    here.doubt()
    ears = listen(here)

    for seconds in (0, 0.5, QUIET, 0.5):
        here.look(seconds)

    *open_, end = [call.kwargs["reason"] for call in ears.log.info.call_args_list]
    assert [why[:6] for why in open_] == ["0 of 2", "1 of 2"] and end.startswith("in neither")
    ears.metrics.doubt_resolved.assert_called_once_with("not_placed")
    ears.metrics.processed.assert_called_once_with(Outcome.NOT_PLACED)


def test_a_clock_of_redis_that_is_set_ahead_makes_no_absence_of_an_order_that_may_still_leave(
    bench: Make,
) -> None:
    here = bench(lambda request: HELD)
    enqueue(here.client, make_intent(intent_id="a"))
    here.desk.take()
    here.desk.engine.turn()
    end_leases(here.client)
    _later(here)
    other = here.worker("w2")
    assert other.sweep() == ["a"] and other.resolver is not None
    for seconds in (0, 1, 1, 1):
        here.clock.advance(seconds)
        here.due()
        assert other.resolver.step() == 0

    # Within its five seconds.
    here.desk.work()

    here.broker.orders.append(row("a"))
    here.due()
    other.resolver.step()
    assert answers(here.client)["a"].accepted and len(published(here.client)) == 1


@pytest.mark.parametrize("is_there", [True, False])
def test_the_answer_to_a_doubt_says_when_its_order_was_sent(bench: Make, is_there: bool) -> None:
    here = bench()
    here.doubt()
    launched = moment(int(here.client.hget(KEYS.intent("a"), "flight").decode().split(":")[3]))
    here.broker.orders += [row("a")] if is_there else []

    here.look(), here.look(QUIET), here.look(1)

    assert answers(here.client)["a"].accepted == is_there
    assert answers(here.client)["a"].sent_at == launched


def test_an_end_that_somebody_else_was_first_to_write_is_counted_as_stale(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bench()
    here.doubt()
    here.broker.orders.append(row("a"))
    ears = listen(here)
    monkeypatch.setattr(here.desk.ledger, "resolve", lambda *_, **__: False)

    assert here.look() == 0

    ears.metrics.stale_write.assert_called_once_with("resolve")
    ears.metrics.doubt_resolved.assert_not_called()


def test_nothing_is_remembered_of_a_doubt_that_has_ended(bench: Make) -> None:
    here = bench(complete=False)
    here.doubt()
    here.look(QUIET), go_on(here, 10, 10, 10)
    here.broker.orders.append(row("a"))
    assert _another_ends_it(here) == 1
    assert here.desk.resolver is not None

    here.clock.advance(60)
    here.desk.resolver.step()

    assert here.desk.resolver._watched == {}


def test_a_doubt_that_another_worker_has_ended_is_not_looked_up_again(bench: Make) -> None:
    here = bench()
    here.doubt()
    here.look()
    here.look(QUIET)
    here.broker.orders.append(row("a"))
    assert _another_ends_it(here) == 1
    read = reading_times(here)

    here.clock.advance(1)
    assert here.desk.resolver is not None
    here.desk.resolver.step()

    assert read == []


def test_whether_doubts_have_ended_is_asked_once_a_minute(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bench(complete=False)
    here.doubt()
    here.look(QUIET), go_on(here, 10, 10, 10, 31)
    assert here.desk.resolver is not None
    states = Mock(wraps=here.desk.ledger.states)
    monkeypatch.setattr(here.desk.ledger, "states", states)

    go_on(here, *[1] * 59)
    assert states.call_count == 0
    go_on(here, 1)

    states.assert_called_once_with(["a"])
    assert list(here.desk.resolver._watched) == ["a"]


def _another_ends_it(here: Bench) -> int:
    other = here.worker("w2").resolver
    assert other is not None
    here.due()
    return other.step()


def reading_times(here: Bench) -> list[float]:
    """When the broker's list is read, from here on, in seconds from now."""
    started, found, read = here.clock.boottime(), list[float](), here.broker.list_orders

    def note(since: datetime) -> OrderScan:
        found.append(round(here.clock.boottime() - started, 3))
        return read(since)

    here.broker.list_orders = note  # type: ignore[method-assign]
    return found


def go_on(here: Bench, *pauses: float) -> None:
    """Time goes by, and the ledger asks for no look-up."""
    here.client.zadd(KEYS.doubts, {"a": 2**41})
    for seconds in pauses:
        here.clock.advance(seconds)
        assert here.desk.resolver is not None
        here.desk.resolver.step()


def test_a_reading_long_after_the_last_is_followed_by_one_more_soon_and_by_no_third(bench: Make) -> None:
    here = bench(complete=False)
    here.doubt()
    here.look(QUIET)
    go_on(here, 10, 10, 10)

    read = reading_times(here)
    here.look(60)
    go_on(here, 0, 0.4, 0.1, 10, 10)

    assert read == [60, 60.5]


def test_two_readings_close_together_are_enough_and_bring_no_more(bench: Make) -> None:
    here = bench(complete=False)
    here.doubt()
    here.look(QUIET)
    go_on(here, 10, 10, 10)

    read = reading_times(here)
    here.look(60), here.look(1)
    go_on(here, 10, 10, 10)

    assert read == [60, 61]


# A CANCEL in doubt.


def _cancel_in_doubt(here: Bench) -> None:
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    enqueue(here.client, make_intent(intent_id="a"))
    here.desk.work()
    here.broker._cancels = [LOST]
    enqueue(here.client, make_intent(intent_id="c", target_intent_id="a", **gone))
    here.desk.work()
    assert state(here.client, "c") == "in_doubt"


@pytest.mark.parametrize(
    ("status", "outcome", "code"),
    [
        (OrderStatus.CANCELLED, Outcome.ACCEPTED, None),
        (OrderStatus.FILLED, Outcome.REJECTED, Code.TARGET_DONE),
        (OrderStatus.EXPIRED, Outcome.REJECTED, Code.TARGET_DONE),
    ],
)
def test_a_cancel_in_doubt_ends_by_what_became_of_its_target(
    bench: Make, status: OrderStatus, outcome: Outcome, code: Code | None
) -> None:
    here = bench(lambda request: HELD)
    _cancel_in_doubt(here)
    here.broker.orders.append(row("a", "N1", status=status))

    assert here.look() == 1

    answer = answers(here.client)["c"]
    assert (answer.outcome, answer.code) == (outcome, code)
    assert unfinished(here.client) == {} and here.client.exists(KEYS.cancelling) == 0


def test_a_cancel_whose_target_still_works_after_the_lag_did_not_arrive(bench: Make) -> None:
    here = bench(lambda request: HELD)
    _cancel_in_doubt(here)
    here.broker.orders.append(row("a", "N1"))

    assert [here.look(), here.look(QUIET), here.look(1)] == [0, 0, 1]

    assert answers(here.client)["c"].outcome is Outcome.NOT_PLACED and unfinished(here.client) == {}


def test_a_cancel_in_doubt_whose_target_is_not_shown_stays_in_doubt(bench: Make) -> None:
    here = bench(lambda request: HELD)
    _cancel_in_doubt(here)

    assert [here.look(60) for _ in range(4)] == [0] * 4


def test_a_cancel_in_doubt_whose_target_cannot_be_looked_up_stays_in_doubt(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bench(lambda request: HELD)
    _cancel_in_doubt(here)
    monkeypatch.setattr(here.broker, "get_order", Mock(side_effect=BrokerError("not now")))

    assert [here.look(60) for _ in range(4)] == [0] * 4


def test_a_cancel_in_doubt_is_looked_up_again_soon_without_being_asked_to(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bench(lambda request: HELD)
    _cancel_in_doubt(here)
    here.broker.orders.append(row("a", "N1"))
    here.look()

    here.client.zadd(KEYS.doubts, {"c": 2**41})
    assert here.desk.resolver is not None
    ended = []
    for seconds in (QUIET, 0.5):
        here.clock.advance(seconds)
        ended.append(here.desk.resolver.step())

    assert ended == [0, 1]


def test_a_cancel_in_doubt_whose_target_was_forgotten_stays_and_hinders_no_other(bench: Make) -> None:
    here = bench(lambda request: HELD, LOST)
    _cancel_in_doubt(here)
    here.client.delete(KEYS.intent("a"))
    enqueue(here.client, make_intent(intent_id="b", symbol="000660"))
    here.desk.work()
    here.broker.orders.append(row("b", "N9", symbol="000660"))
    ears = listen(here)

    assert here.look() == 1

    assert answers(here.client)["b"].accepted and state(here.client, "c") == "in_doubt"
    assert "forgotten its target" in ears.log.info.call_args_list[-1].kwargs["reason"]


def test_a_cancels_target_is_looked_up_with_what_was_kept_of_it(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bench(lambda request: OrderResponse("N1", "held", reference="06010"))
    _cancel_in_doubt(here)
    asked: list[Any] = []
    monkeypatch.setattr(here.broker, "get_order", asked.append)

    here.look()

    assert [(one.broker_order_id, one.client_order_id, one.reference) for one in asked] == [
        ("N1", "a", "06010")
    ]


# Orders that should not exist.


def test_an_order_that_appears_after_we_said_it_was_not_placed_is_told_once_and_halts_the_route(
    bench: Make,
) -> None:
    here = bench()
    here.doubt()
    here.look(), here.look(QUIET), here.look(1)
    assert answers(here.client)["a"].outcome is Outcome.NOT_PLACED
    here.broker.orders.append(row("a", "N7"))

    here.scan()
    here.scan()
    here.worker("w2").resolver.scan()  # type: ignore[union-attr]

    assert kinds(here.client)[2:] == ["ORPHAN_ORDER", "HALTED"]
    orphan = events(here.client)[2]
    assert (orphan.intent_id, orphan.broker_order_id, orphan.symbol) == ("a", "N7", "005930")
    assert answers(here.client)["a"].outcome is Outcome.NOT_PLACED
    enqueue(here.client, make_intent(intent_id="b"))
    here.desk.work()
    assert answers(here.client)["b"].code is Code.HALTED


def test_the_late_success_of_an_order_answered_not_placed_is_an_orphan_too(bench: Make) -> None:
    here = bench(lambda request: HELD)
    enqueue(here.client, make_intent(intent_id="a"))
    here.desk.take()
    here.desk.engine.turn()
    end_leases(here.client)
    other = here.worker("w2")
    assert other.sweep() == ["a"]
    here.look(), here.look(QUIET), here.look(1)
    assert answers(here.client)["a"].outcome is Outcome.NOT_PLACED

    here.desk.work()

    assert kinds(here.client)[-2:] == ["ORPHAN_ORDER", "HALTED"] and len(published(here.client)) == 1


def test_an_order_that_a_person_placed_is_noted_once_and_stops_nothing(bench: Make) -> None:
    here = bench()
    here.broker.orders += [row(None, "N7"), row("not-ours", "N8")]

    here.scan()
    here.scan()
    here.worker("w2").resolver.scan()  # type: ignore[union-attr]

    assert kinds(here.client) == ["FOREIGN_ORDER"] * 2
    assert {event.broker_order_id for event in events(here.client)} == {"N7", "N8"}


def test_what_a_part_of_the_list_did_not_show_is_found_by_a_later_scan(bench: Make) -> None:
    here = bench()
    stranger = row(None, "N7", placed_at=here.clock.now() - timedelta(seconds=300))
    here.broker.complete = False
    for _ in range(3):
        here.scan()
        here.clock.advance(86_400)
    here.broker.complete, here.broker.orders = True, [stranger]

    here.scan()

    assert kinds(here.client) == ["FOREIGN_ORDER"]


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_list_is_read_from_a_day_before_all_that_was_compared_for_good(
    bench: Make, monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    here = bench()
    begun = here.clock.now()
    here.scan()
    here.clock.advance(100)
    if interrupted:
        here.broker.orders.append(row("b"))
        monkeypatch.setattr(here.desk.ledger, "states", Mock(side_effect=Unavailable("gone")))
        with pytest.raises(Unavailable):
            here.scan()
    else:
        here.scan()
    read = Mock(return_value=OrderScan((), True))
    monkeypatch.setattr(here.broker, "list_orders", read)

    here.scan()

    compared_to = begun if interrupted else here.clock.now()
    read.assert_called_once_with(compared_to - timedelta(days=1))


@pytest.mark.parametrize(
    "listed",
    [row(None, "N7"), row("nobodys", "N7"), row("a", "N1"), row("a", "N2")],
    ids=lambda one: one.broker_order_id,
)
def test_what_was_compared_for_good_is_not_read_again_for_ever(
    bench: Make, monkeypatch: pytest.MonkeyPatch, listed: OrderRecord
) -> None:
    here = bench(lambda request: HELD)
    enqueue(here.client, make_intent(intent_id="a"))
    here.desk.work()
    here.broker.orders.append(replace(listed, placed_at=here.clock.now()))
    here.clock.advance(100)
    here.scan()
    read = Mock(return_value=OrderScan((), True))
    monkeypatch.setattr(here.broker, "list_orders", read)

    here.scan()

    read.assert_called_once_with(here.clock.now() - timedelta(days=1))


@pytest.mark.parametrize("shows_ids", [True, False])
def test_an_order_of_an_open_doubt_is_compared_when_the_doubt_has_ended_however_late(
    bench: Make, shows_ids: bool
) -> None:
    here = bench() if shows_ids else keyed(bench, exclusive=False)
    here.doubt()
    here.broker.orders.append(row("a") if shows_ids else unnamed())
    for _ in range(3):
        here.scan()
        here.clock.advance(86_400)
    _later(here)
    # Wrong: the broker's list shows it.
    assert _decide(here, None).outcome is Outcome.NOT_PLACED

    here.scan()

    assert kinds(here.client)[-2:] == ["ORPHAN_ORDER", "HALTED"]


def test_a_refused_second_try_does_not_make_the_late_order_of_the_first_a_strangers(bench: Make) -> None:
    here = keyed(bench, LOST, Rejected("not enough cash: the first order has it", code="APBK0952"))
    here.broker.session_over = lambda symbol, since: True  # type: ignore[method-assign]
    here.doubt()
    fields = here.client.hget(KEYS.intent("a"), "flight").decode().split(":")
    launched = int(fields[3]) - 100_000
    here.client.hset(KEYS.intent("a"), "flight", ":".join([*fields[:3], str(launched), fields[4]]))
    here.look(), here.look(QUIET), here.look(1)
    enqueue(here.client, make_intent(intent_id="b"))
    here.desk.work()
    assert [answers(here.client)[name].outcome for name in "ab"] == [Outcome.NOT_PLACED, Outcome.REJECTED]
    here.broker.orders.append(unnamed(placed_at=moment(launched)))

    here.scan()

    assert kinds(here.client)[-2:] == ["ORPHAN_ORDER", "HALTED"]
    assert events(here.client)[-2].intent_id == "a"


def test_a_foreign_order_is_written_down_once_by_each_worker(bench: Make) -> None:
    here = bench()
    here.broker.orders.append(row(None, "N7"))
    here.scan()
    note = Mock()
    here.desk.ledger.note = note  # type: ignore[method-assign]

    here.scan()

    note.assert_not_called()


def test_our_own_orders_are_neither_orphans_nor_foreign(bench: Make) -> None:
    here = bench(lambda request: HELD, LOST)
    enqueue(here.client, make_intent(intent_id="a"), make_intent(intent_id="b", symbol="000660"))
    here.desk.work()
    here.broker.orders += [row("a", "N1"), row("b", "N2", symbol="000660")]

    here.scan()

    assert kinds(here.client) == ["INTENT_IN_DOUBT"]


def test_another_order_of_an_accepted_intent_is_an_orphan(bench: Make) -> None:
    here = bench(lambda request: HELD)
    enqueue(here.client, make_intent(intent_id="a"))
    here.desk.work()
    here.broker.orders += [row("a", "N1"), row("a", "N2")]

    here.scan()

    assert kinds(here.client) == ["ORPHAN_ORDER", "HALTED"]
    assert events(here.client)[0].broker_order_id == "N2"


def test_an_order_of_an_intent_that_was_not_launched_is_an_orphan(bench: Make) -> None:
    here = bench()
    here.doubt(make_intent(intent_id="a"), make_intent(intent_id="b"))
    assert state(here.client, "b") == "parked"
    here.broker.orders.append(row("b", "N2"))

    here.scan()

    assert kinds(here.client)[1:] == ["ORPHAN_ORDER", "HALTED"]


def test_orphans_and_foreign_orders_are_counted_once_however_often_they_are_seen(bench: Make) -> None:
    here = bench(lambda request: HELD)
    enqueue(here.client, make_intent(intent_id="a"))
    here.desk.work()
    here.broker.orders += [row("a", "N2"), row(None, "N7")]
    ears = listen(here)

    here.scan(), here.scan(), here.scan()

    assert (ears.metrics.orphan_order.call_count, ears.metrics.foreign_order.call_count) == (1, 1)
    assert (ears.log.error.call_count, ears.log.warning.call_count) == (1, 1)


def test_what_was_found_to_be_ours_is_not_asked_about_again(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bench(lambda request: HELD)
    enqueue(here.client, make_intent(intent_id="a"))
    here.desk.work()
    here.broker.orders.append(row("a", "N1"))
    here.scan()

    ledger = Mock()
    assert here.desk.resolver is not None
    monkeypatch.setattr(here.desk.resolver, "_ledger", ledger)
    here.scan()

    assert ledger.mock_calls == []


def test_whose_an_order_is_need_not_be_asked_twice(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    here = keyed(bench, HELD)
    enqueue(here.client, make_intent(intent_id="a"))
    here.desk.work()
    here.broker.orders.append(unnamed("N1"))
    here.scan()
    asked = Mock()
    monkeypatch.setattr(here.desk.ledger, "owners", asked)

    here.scan()

    asked.assert_not_called()


# By hand.


def _later(here: Bench) -> None:
    """Long after the launch, on Redis's clock."""
    flight = here.client.hget(KEYS.intent("a"), "flight").decode().split(":")
    here.client.hset(KEYS.intent("a"), "flight", ":".join([*flight[:4], "1"]))


def _decide(here: Bench, number: str | None) -> Any:
    words = {"actor": "kim@desk", "reason": "seen on the phone with the broker"}
    return Control(here.client, "default").resolve_by_hand(
        "a", broker_order_id=number, not_placed=number is None, **words
    )


def test_a_person_cannot_decide_while_the_order_may_still_arrive(bench: Make) -> None:
    here = bench()
    here.doubt()

    with pytest.raises(Refused, match="on its way"):
        _decide(here, None)

    assert state(here.client, "a") == "in_doubt"


@pytest.mark.parametrize("number", ["N7", None])
def test_a_person_decides_a_doubt_once_and_it_is_audited(bench: Make, number: str | None) -> None:
    here = bench()
    here.doubt()
    _later(here)

    answer = _decide(here, number)

    assert answers(here.client)["a"] == answer and answer.accepted == (number is not None)
    resolved = events(here.client)[-1]
    assert (resolved.type, resolved.actor) == ("DOUBT_RESOLVED", "kim@desk")
    with pytest.raises(Refused, match="not in doubt"):
        _decide(here, "N8")
    assert unfinished(here.client) == {}


def test_a_person_cannot_give_an_intent_the_order_of_another(bench: Make) -> None:
    here = bench(LOST, lambda request: HELD)
    here.doubt(make_intent(intent_id="a"), make_intent(intent_id="b", symbol="000660"))
    assert answers(here.client)["b"].broker_order_id == "N1"
    _later(here)

    with pytest.raises(Refused, match="belongs to intent b"):
        _decide(here, "N1")

    assert state(here.client, "a") == "in_doubt"


# Brokers whose rows carry no ids of ours.


def keyed(bench: Make, *replies: Any, exclusive: bool = True) -> Bench:
    return bench(*replies, client_order_ids=False, exclusive=exclusive)


def unnamed(number: str = "N1", **changes: Any) -> OrderRecord:
    return row(None, number, limit_price=Decimal("71000"), **changes)


def test_where_rows_carry_no_ids_a_doubt_ends_by_the_one_row_that_nobody_owns(bench: Make) -> None:
    here = keyed(bench, HELD, LOST)
    enqueue(here.client, make_intent(intent_id="z"), make_intent(intent_id="a"))
    here.desk.work()
    here.broker.orders += [unnamed("N1"), unnamed("N2")]

    assert here.look() == 1

    found = answers(here.client)
    assert (found["z"].broker_order_id, found["a"].broker_order_id) == ("N1", "N2")
    here.scan()
    assert "ORPHAN_ORDER" not in kinds(here.client) and "FOREIGN_ORDER" not in kinds(here.client)


def test_on_a_shared_account_such_a_row_is_left_to_a_person(bench: Make) -> None:
    here = keyed(bench, exclusive=False)
    here.doubt()
    here.broker.orders.append(unnamed())

    assert [here.look(QUIET), here.look(1), here.look(1)] == [0, 0, 0]
    assert state(here.client, "a") == "in_doubt"


def test_an_order_that_turns_up_after_it_was_answered_not_placed_halts_the_route(bench: Make) -> None:
    here = keyed(bench)
    here.broker.session_over = lambda symbol, since: True  # type: ignore[method-assign]
    here.doubt()
    assert [here.look(), here.look(QUIET), here.look(1)] == [0, 0, 1]
    assert answers(here.client)["a"].outcome is Outcome.NOT_PLACED

    here.broker.orders.append(unnamed())
    here.scan()

    assert kinds(here.client)[-2:] == ["ORPHAN_ORDER", "HALTED"]


@pytest.mark.parametrize(
    ("seconds", "kind"),
    [
        (72.0, "ORPHAN_ORDER"),
        (-72.0, "ORPHAN_ORDER"),
        (72.001, "FOREIGN_ORDER"),
        (-72.001, "FOREIGN_ORDER"),
    ],
)
def test_a_row_like_an_order_that_was_not_placed_is_its_own_only_around_its_launch(
    bench: Make, seconds: float, kind: str
) -> None:
    here = keyed(bench)
    here.broker.session_over = lambda symbol, since: True  # type: ignore[method-assign]
    here.doubt()
    launched = moment(int(here.client.hget(KEYS.intent("a"), "flight").decode().split(":")[3]))
    here.look(), here.look(QUIET), here.look(1)
    assert answers(here.client)["a"].outcome is Outcome.NOT_PLACED

    # A minute for clocks that differ, and twice the time that an order may take.
    here.broker.orders.append(unnamed(placed_at=launched + timedelta(seconds=seconds)))
    here.scan()

    assert kinds(here.client)[2] == kind


def test_where_rows_carry_ids_no_order_key_is_kept(bench: Make) -> None:
    here = bench()
    here.doubt()
    here.look(), here.look(QUIET), here.look(1)
    assert answers(here.client)["a"].outcome is Outcome.NOT_PLACED

    assert here.desk.ledger.unplaced([order_key(make_intent(intent_id="a"))]) == {}


def test_a_row_that_may_be_an_order_under_way_is_not_called_foreign(bench: Make) -> None:
    here = keyed(bench, exclusive=False)
    here.doubt()
    here.broker.orders.append(unnamed())
    here.broker.orders.append(unnamed("N5", side=Side.SELL))

    here.scan()

    assert [event.broker_order_id for event in events(here.client) if event.type == "FOREIGN_ORDER"] == ["N5"]


def test_an_order_whose_reply_was_slow_does_not_prove_that_one_launched_meanwhile_is_absent(
    bench: Make,
) -> None:
    def slow(request: Any) -> OrderResponse:
        enqueue(here.client, make_intent(intent_id="a"))
        here.worker("w2").work()
        return HELD

    here = keyed(bench, slow, LOST)
    enqueue(here.client, make_intent(intent_id="c", symbol="000660"))
    here.desk.work()
    # The list is older than its lag: of the two orders it shows the first one.
    here.broker.orders.append(unnamed("N1", symbol="000660"))

    assert [here.look(), here.look(QUIET), here.look(1)] == [0, 0, 0]
    assert state(here.client, "a") == "in_doubt"


def test_what_was_read_of_a_doubt_that_redis_forgot_says_nothing_of_the_next_one(bench: Make) -> None:
    here = bench(LOST, LOST)
    here.doubt()
    here.look()
    here.clock.advance(QUIET + 1)
    # Another server: it knows neither the entry nor the doubt nor the number of its fence.
    here.client.delete(KEYS.intent("a"), KEYS.doubts)
    here.client.hdel(KEYS.state, "fence")
    enqueue(here.client, make_intent(intent_id="a"))
    here.desk.work()

    assert [here.look(), here.look()] == [0, 0]
    assert state(here.client, "a") == "in_doubt"


def test_a_verdict_on_a_doubt_that_redis_forgot_does_not_end_the_next_one(bench: Make) -> None:
    here = bench(LOST)
    here.doubt()
    (doubt,) = here.desk.ledger.look(1, base=1, ceiling=1, escalate_after=60)
    fence, launched = doubt.fence, doubt.launched_at
    here.client.hset(KEYS.intent("a"), "flight", f"1:1:1:{launched + 5}:{launched + 6000}")

    done = here.desk.ledger.resolve(
        doubt, outcome="NOT_PLACED", payload=b"{}", reference="", actor="w1", reason="absent"
    )

    assert not done and fence == doubt.fence
    assert state(here.client, "a") == "in_doubt"


def test_after_a_person_resumed_early_what_may_have_been_sent_before_is_given_its_time(bench: Make) -> None:
    here = bench(HELD)
    enqueue(here.client, make_intent(intent_id="a"))
    now = here.desk.ledger.now_ms()
    here.client.hset(KEYS.state, mapping={"unsure_since": now + 1000, "unsure_until": now + 7000})
    assert Control(here.client, "default").resume("kim", "looked")
    here.desk.work()

    assert state(here.client, "a") == "in_doubt"
    assert [here.look() for _ in range(3)] == [0, 0, 0]
    assert here.look(QUIET) + here.look(1) == 1
    assert answers(here.client)["a"].outcome is Outcome.NOT_PLACED
