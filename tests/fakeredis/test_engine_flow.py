"""How much the engine takes, how far ahead it works, when it is woken, and what it tells of its work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest

from contracts import OrderResponse, load_intent
from tests.conftest import AnyRedis, make_intent
from tests.desk import KEYS, Desk, Wire, answers, end_leases, enqueue, published, state
from tests.mock_broker import MockBroker
from worker.brokers import NoopBroker
from worker.clock import ManualClock
from worker.errors import NotSent, OutcomeUnknown, Rejected
from worker.ledger.control import Control
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
    assert worker.engine.appetite() == 3 * 8


def test_orders_that_are_on_their_way_keep_a_fast_broker_as_busy_as_those_it_still_takes(
    desk: Make, client: Any
) -> None:
    worker = desk(room=100, engine={"concurrency": 8})
    enqueue(client, *(make_intent(intent_id=f"i{n}", symbol=f"S{n}") for n in range(60)))
    worker.take()
    worker.engine.turn()

    assert worker.orders.in_flight == 60
    assert worker.engine.appetite() == 3 * 100


def test_what_was_handed_over_takes_from_its_room_before_it_is_looked_at(desk: Make) -> None:
    engine = desk(room=8).engine

    engine.hand([Mock(), Mock()])

    assert engine.room() == 8 * 3 // 2 - 2


def test_it_has_to_settle_while_an_order_is_on_its_way_and_until_its_answer_is_written(
    desk: Make, client: Any
) -> None:
    worker = desk()
    assert worker.engine.has_to_settle() is False
    enqueue(client, make_intent(intent_id="a"))
    worker.take()

    assert worker.engine.turn() is True
    assert worker.engine.has_to_settle() is True
    worker.orders.work()
    assert worker.engine.has_to_settle() is True
    worker.work()
    assert worker.engine.has_to_settle() is False


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
    worker.engine._read()
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


@pytest.mark.parametrize("ahead", [False, True])
def test_an_order_that_can_leave_at_once_costs_two_calls_of_the_ledger(
    any_redis: AnyRedis, clock: ManualClock, ahead: bool
) -> None:
    wire = Wire()
    worker = Desk(wire.tap(any_redis.connect()), MockBroker(), clock, ahead=ahead)
    enqueue(any_redis.connect(), make_intent(intent_id="a"))

    worker.work()

    assert [name for name in wire.names if name in ("claim", "launch", "settle")] == ["claim", "settle"]
    assert answers(any_redis.connect())["a"].accepted


def test_a_claim_that_is_sent_ahead_is_answered_later(any_redis: AnyRedis, clock: ManualClock) -> None:
    worker = Desk(any_redis.connect(), MockBroker(), clock, ahead=True)
    line = worker.ledger._line
    before = line.sent  # type: ignore[union-attr]

    asked = worker.ledger.ask_claim([], 0)

    assert line.sent == before + 1  # type: ignore[union-attr]
    assert asked.get() == []


def test_a_noop_is_answered_in_the_engines_own_words(desk: Make, client: Any) -> None:
    nothing = {"side": None, "quantity": None, "limit_price": None}
    enqueue(client, make_intent(intent_id="a", intent_type="NOOP", **nothing))

    desk().work()

    answer = answers(client)["a"]
    assert (answer.route, answer.message) == ("default", "a NOOP travels the whole path and sends nothing")
    assert answer.attempts == 0


def test_a_noop_between_two_orders_is_not_launched(desk: Make, client: Any) -> None:
    worker = desk(room=0)
    nothing = {"side": None, "quantity": None, "limit_price": None}
    enqueue(
        client,
        make_intent(intent_id="a", symbol="A"),
        make_intent(intent_id="b", symbol="B", intent_type="NOOP", **nothing),
        make_intent(intent_id="c", symbol="C"),
    )
    worker.take()
    worker.engine.turn()
    worker.orders.size = 8

    worker.engine.turn()

    assert [one.intent.intent_id for one in worker.orders.waiting] == ["a"]
    worker.work()
    assert {name: one.attempts for name, one in answers(client).items()} == {"a": 1, "b": 0, "c": 1}


def test_an_intent_that_was_handed_over_is_renewed_from_then_on(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    enqueue(client, make_intent(intent_id="a"))
    dead = desk(room=0)
    dead.take()
    dead.engine.turn()
    end_leases(client)

    heir = desk(name="w2", room=0)
    assert heir.sweep() == []
    heir.engine.turn()

    assert [one for one, *_ in heir.engine.hands.leases(clock.boottime(), 15.0)] == ["a"]


def test_what_another_worker_has_taken_over_is_let_go(desk: Make, client: Any) -> None:
    told = Mock()
    enqueue(client, make_intent(intent_id="a"))
    slow = desk(room=0, journal=told)
    slow.take()
    slow.engine.turn()
    end_leases(client)
    heir = desk(name="w2")
    heir.sweep()
    heir.work()

    slow.orders.size = 8
    slow.work()

    assert [one.intent_id for one in published(client)] == ["a"]
    assert slow.engine.is_empty() and len(slow.door.hand) == 0
    [lost] = told.lease_lost.call_args.args
    assert lost.intent.intent_id == "a"


def test_a_drain_lets_go_of_every_delivery(desk: Make, client: Any) -> None:
    worker = desk(room=0)
    enqueue(client, make_intent(intent_id="a"), b"no intent")
    worker.take()
    worker.engine.turn()
    enqueue(client, make_intent(intent_id="b", symbol="000660"))
    worker.take()
    worker.engine.drain()

    worker.engine.turn()

    assert worker.engine.is_empty() and len(worker.door.hand) == 0
    assert published(client) == []


def test_it_tells_of_each_batch_how_many_came_how_many_left_and_how_long_it_took(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    told = Mock()
    worker = desk(room=1, journal=told)
    enqueue(client, make_intent(intent_id="a", symbol="A"), make_intent(intent_id="b", symbol="B"))
    ask = worker.ledger.ask_claim

    def ask_slowly(*given: Any) -> Any:
        clock.advance(0.25)
        return ask(*given)

    worker.ledger.ask_claim = ask_slowly  # type: ignore[method-assign]
    worker.work()

    assert [call.args[0].entry for call in told.received.call_args_list] == [
        name.decode() for name, _ in client.xrange(KEYS.intents)
    ]
    # One left with its claim, the other when there was room.
    assert told.claimed.call_args.args == (2, 1, 0.25)
    assert [[one.intent.intent_id for one in call.args[0]] for call in told.launched.call_args_list] == [
        ["a"],
        ["b"],
    ]
    assert [call.args[1] for call in told.launched.call_args_list] == [0.0, 0.0]


def test_a_dead_letter_is_told_once_with_its_answer_if_it_got_one(desk: Make, client: Any) -> None:
    told = Mock()
    worker = desk(journal=told)
    enqueue(client, b"no intent", b'{"intent_id": "x"}', b'{"intent_id": "x", "side": 1}')

    worker.work()

    assert [(call.args[0].reason, call.args[1] is None) for call in told.buried.call_args_list] == [
        ("invalid", True),
        ("invalid", False),
        ("invalid", True),
    ]


def test_garbage_of_a_queue_that_numbers_nothing_is_buried_too(desk: Make, client: Any) -> None:
    worker = desk()
    enqueue(client, b"no intent")
    [delivery] = worker.door.take()
    worker.engine.deliver(replace(delivery, entry=""))

    worker.engine.turn()

    [(_, fields)] = client.xrange(KEYS.dead)
    assert (fields[b"body"], fields[b"entry_id"]) == (b"no intent", b"")


def test_an_intent_that_comes_again_is_told_with_its_state(desk: Make, client: Any) -> None:
    told = Mock()
    worker = desk(journal=told)
    for _ in range(2):
        enqueue(client, make_intent(intent_id="a"))
        worker.work()

    [known] = told.replay.call_args_list
    assert (known.args[0].intent_id, known.args[1]) == ("a", "settled")


def test_a_turn_that_buried_something_was_not_idle(desk: Make, client: Any) -> None:
    worker = desk()
    enqueue(client, b"no intent", b"none either")
    worker.take()

    assert [worker.engine.turn() for _ in range(3)] == [True, True, False]
    assert client.xlen(KEYS.dead) == 2


def test_an_unreadable_entry_that_the_ledger_works_on_is_no_dead_letter(desk: Make, client: Any) -> None:
    told = Mock()
    worker = desk(room=0, journal=told)
    enqueue(client, make_intent(intent_id="a"))
    [delivery] = worker.door.take()
    worker.engine.deliver(delivery)
    worker.engine.turn()

    worker.engine.deliver(replace(delivery, fault="its reader died three times"))
    worker.engine.turn()

    assert not told.buried.called
    assert client.xlen(KEYS.dead) == 0


def test_all_cancels_that_can_leave_do_so_in_one_turn_and_have_the_order_timeout_to_leave(
    desk: Make, client: Any, clock: ManualClock
) -> None:
    worker = desk()
    enqueue(client, *(make_intent(intent_id=f"i{n}", symbol=f"S{n}") for n in range(3)))
    worker.work()
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    for n in range(3):
        enqueue(client, make_intent(intent_id=f"c{n}", symbol=f"S{n}", target_intent_id=f"i{n}", **gone))
    worker.take()
    worker.cancels.size = 0
    worker.engine.turn()
    assert worker.cancels.in_flight == 0
    worker.cancels.size = 8

    assert worker.engine.turn() is True

    assert worker.cancels.in_flight == 3
    left = [one.send_before - clock.boottime() for one in worker.cancels.waiting]
    assert left == [worker.ledger.rules.order_timeout] * 3


def test_a_cancel_has_no_longer_to_leave_than_it_lives(desk: Make, client: Any, clock: ManualClock) -> None:
    worker = desk()
    enqueue(client, make_intent(intent_id="a"))
    worker.work()
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    ends = clock.now() + timedelta(seconds=2)
    enqueue(client, make_intent(intent_id="c", target_intent_id="a", expires_at=ends, **gone))
    worker.take()

    worker.engine.turn()

    [leaving] = worker.cancels.waiting
    assert 0 < leaving.send_before - clock.boottime() <= 2.0


def test_where_nothing_is_sent_all_cancels_are_answered_in_one_turn(
    any_redis: AnyRedis, client: Any, clock: ManualClock
) -> None:
    worker = Desk(any_redis.connect(), NoopBroker(), clock)
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    for n in range(3):
        enqueue(client, make_intent(intent_id=f"c{n}", symbol=f"S{n}", target_intent_id=f"i{n}", **gone))
    worker.take()

    worker.engine.turn()
    worker.engine.turn()

    assert len(published(client)) == 3


@pytest.mark.parametrize("box", ["orders", "cancels"])
def test_a_turn_in_which_one_sender_did_something_was_not_idle(desk: Make, box: str) -> None:
    worker = desk()
    assert worker.engine.turn() is False

    getattr(worker, box).turn = Mock(side_effect=[True, False, False, False])

    assert worker.engine.turn() is True
    assert worker.engine.turn() is False


def test_an_order_that_comes_back_unsent_to_a_worker_that_leaves_is_answered(desk: Make, client: Any) -> None:
    worker = desk(NotSent("connection refused"))
    enqueue(client, make_intent(intent_id="a"))
    worker.take()
    worker.engine.turn()
    worker.engine.drain()

    worker.work()

    assert answers(client)["a"].outcome == "NOT_SENT"
    assert worker.engine.is_empty()


def test_an_order_that_came_back_just_before_the_drain_is_answered_too(desk: Make, client: Any) -> None:
    worker = desk()
    enqueue(client, make_intent(intent_id="a"))
    worker.take()
    worker.engine.turn()
    held = worker.orders.waiting.popleft()

    worker.engine._take_back(held, 0.0)
    worker.engine.drain()
    worker.work()

    assert answers(client)["a"].outcome == "NOT_SENT"


@pytest.mark.parametrize(("step", "is_held"), [(0.5, True), ("stale", False), ("waiting", False)])
def test_a_cancel_that_may_not_leave_now_is_kept_and_one_that_is_not_ours_any_more_is_let_go(
    desk: Make, client: Any, monkeypatch: pytest.MonkeyPatch, step: Any, is_held: bool
) -> None:
    told = Mock()
    worker = desk(journal=told)
    enqueue(client, make_intent(intent_id="a"))
    worker.work()
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    enqueue(client, make_intent(intent_id="c", target_intent_id="a", **gone))
    monkeypatch.setattr("worker.engine.decide_cancel", lambda *_: step)

    worker.work()

    assert worker.engine.is_empty() is not is_held
    assert worker.engine.patience(5.0) == (0.5 if is_held else 5.0)
    assert told.lease_lost.called is (step == "stale")


@pytest.mark.parametrize("shows_ids", [True, False])
def test_where_the_brokers_rows_show_no_ids_orders_are_known_by_their_keys(
    any_redis: AnyRedis, client: Any, clock: ManualClock, shows_ids: bool
) -> None:
    broker = MockBroker(Rejected("insufficient funds", code="40310000"))
    broker.client_order_ids = shows_ids  # type: ignore[misc]
    worker = Desk(any_redis.connect(), broker, clock)
    enqueue(client, make_intent(intent_id="a"))

    worker.work()

    kinds = {name.split(b":")[0] for name in client.hkeys(KEYS.owned)}
    assert kinds == (set() if shows_ids else {b"refused"})


def test_a_turn_that_only_gave_back_deliveries_was_not_idle(desk: Make, client: Any) -> None:
    worker = desk()
    enqueue(client, make_intent(intent_id="a"))
    [delivery] = worker.door.take()
    worker.engine.drain()
    assert worker.engine.turn() is False

    worker.engine._arrived.append(worker.engine._reader.read(delivery))

    assert worker.engine.turn() is True


def test_an_order_that_never_left_is_not_on_its_way_once_it_is_given_up(desk: Make, client: Any) -> None:
    worker = desk(NotSent("connection refused"))
    enqueue(client, make_intent(intent_id="a"))
    worker.work()
    worker.engine.drain()

    worker.engine.turn()

    assert not worker.engine.hands.any_in_flight()
    worker.work()
    assert answers(client)["a"].outcome == "NOT_SENT"


def test_an_order_that_may_not_leave_is_not_on_its_way(desk: Make, client: Any) -> None:
    worker = desk(room=0)
    enqueue(client, make_intent(intent_id="a"))
    worker.take()
    worker.engine.turn()
    Control(client, "default").halt("hong", "lunch")
    worker.orders.size = 8

    worker.engine.turn()

    assert not worker.engine.hands.any_in_flight()
    worker.work()
    assert answers(client)["a"].code == "HALTED"


def test_a_parked_intent_is_read_once_as_long_as_few_are_kept(
    desk: Make, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.KEPT_MAX", 1)
    read = Mock(wraps=load_intent)
    monkeypatch.setattr("worker.engine.load_intent", read)
    worker = desk()
    enqueue(client, *(make_intent(intent_id=f"i{n}") for n in range(3)))

    worker.work()

    # Two were parked behind the first; the later one pushed the earlier out.
    assert [load_intent(call.args[0]).intent_id for call in read.call_args_list] == ["i1"]
    assert len(answers(client)) == 3


def test_an_order_that_never_left_is_no_doubt_however_long_it_waits_for_its_lane(
    any_redis: AnyRedis, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker(OrderResponse("N1", "held"), NotSent("no route"), cancels=[OutcomeUnknown("lost")])
    worker = Desk(any_redis.connect(), broker, clock)
    enqueue(client, make_intent(intent_id="a"))
    worker.work()
    enqueue(client, make_intent(intent_id="b"))
    worker.work()
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    enqueue(client, make_intent(intent_id="c", target_intent_id="a", **gone))
    worker.work()
    assert (state(client, "b"), state(client, "c")) == ("in_flight", "in_doubt")

    for _ in range(30):
        clock.advance(1)
        worker.work()

    assert "b" in [name for name, _ in worker.engine.hands.leases(clock.boottime(), 15.0)]


def test_what_a_worker_of_a_newer_version_parked_ends_no_older_one(
    any_redis: AnyRedis, client: Any, clock: ManualClock
) -> None:
    broker = MockBroker(OutcomeUnknown("lost"), OrderResponse("N2", "held"))
    worker = Desk(any_redis.connect(), broker, clock)
    told = Mock()
    worker.engine._journal._log = told
    enqueue(client, make_intent(intent_id="a"), make_intent(intent_id="b"))
    worker.work()
    assert (state(client, "a"), state(client, "b")) == ("in_doubt", "parked")
    client.hset(KEYS.intent("b"), "body", b'{"intent_id":"b","a_field_of_tomorrow":1}')
    worker.engine._kept.clear()
    end_doubt(worker, client, "a")

    worker.sweep()
    worker.work()

    assert state(client, "b") == "claimed" and len(broker.placed) == 1
    [call] = told.error.call_args_list
    assert call.kwargs["intent_id"] == "b" and "a_field_of_tomorrow" in call.kwargs["reason"]


def end_doubt(worker: Desk, client: Any, intent_id: str) -> None:
    """A person has seen the order."""
    flight = client.hget(KEYS.intent(intent_id), "flight").decode().split(":")
    client.hset(KEYS.intent(intent_id), "flight", ":".join([*flight[:4], "1"]))
    Control(client, "default").resolve_by_hand(
        intent_id, broker_order_id="N1", not_placed=False, actor="kim", reason="seen"
    )
