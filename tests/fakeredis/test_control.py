"""What an operator is shown of a route, field by field, and when a decision by hand is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from contracts import Code, ExecutionResponse, GuardState, Outcome, dump
from tests.conftest import AnyRedis, make_intent
from tests.desk import KEYS, Desk, enqueue, published
from tests.mock_broker import MockBroker
from worker.clock import ManualClock
from worker.errors import OutcomeUnknown, Refused
from worker.keys import GROUP
from worker.ledger.control import Control, Doubt, RouteStatus, WorkerInfo

LOST = OutcomeUnknown("the reply was lost")


@pytest.fixture(name="client")
def _client(any_redis: AnyRedis) -> Any:
    return any_redis.connect()


@pytest.fixture(name="control")
def _control(client: Any) -> Control:
    return Control(client, "default")


def now_ms(client: Any) -> int:
    seconds, micros = client.time()
    return int(seconds * 1000 + micros // 1000)


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def test_a_route_that_nobody_has_touched_is_at_rest_and_unknown(control: Control) -> None:
    assert control.status() == RouteStatus(
        route="default",
        broker="",
        mode="",
        guard_state=GuardState.NORMAL,
        consecutive_failures=0,
        threshold=3,
        halted=False,
        halt_reason=None,
        halt_actor=None,
        builds_differ=False,
        rollout_until=None,
        unsure_since=None,
        epoch=0,
        queue_depth=0,
        queue_lag=0,
        oldest_age=None,
        parked=0,
        in_flight=0,
        in_doubt=0,
        oldest_doubt_age=None,
        dead=0,
        workers=[],
    )


def test_every_field_of_the_state_is_shown(client: Any, control: Control) -> None:
    now = now_ms(client)
    state = {
        "broker": "kis",
        "mode": "live",
        "guard_state": "FAIL",
        "guard_failures": "4,5",
        "guard_threshold": 2,
        "halted": 1,
        "halt_reason": "lunch",
        "halt_actor": "hong",
        "build": "",
        "rollout_until": now + 60_000,
        "unsure_since": now - 5000,
        "epoch": 7,
    }
    client.hset(KEYS.state, mapping=state)
    client.xadd(KEYS.dead, {"body": b"x"})

    found = control.status()

    assert (found.broker, found.mode, found.epoch, found.dead) == ("kis", "live", 7, 1)
    assert (found.guard_state, found.consecutive_failures, found.threshold) == (GuardState.FAIL, 2, 2)
    assert (found.halted, found.halt_reason, found.halt_actor) == (True, "lunch", "hong")
    assert (found.builds_differ, found.rollout_until) == (True, moment(now + 60_000))
    assert found.unsure_since == moment(now - 5000)


def test_a_window_that_is_over_is_not_shown(client: Any, control: Control) -> None:
    client.hset(KEYS.state, mapping={"rollout_until": now_ms(client) - 1, "build": "1/a"})

    found = control.status()

    assert (found.rollout_until, found.builds_differ) == (None, False)


def test_only_workers_that_were_heard_of_lately_are_alive_in_the_order_of_their_names(
    client: Any, control: Control
) -> None:
    now = now_ms(client)
    for name, ago in (("w2", 14.0), ("w1", -5.0), ("w3", 15.5)):
        beat = {"host": "h", "pid": 7, "port": 9108, "beat": now - round(ago * 1000)}
        client.hset(KEYS.workers, name, json.dumps(beat))

    one, two = control.status().workers

    # The first one's clock is ahead of Redis's.
    assert one == WorkerInfo("w1", "h", 7, 9108, 0.0)
    assert (two.name, round(two.age)) == ("w2", 14)


def queue(client: Any, *ages: float) -> list[bytes]:
    now = now_ms(client)
    return [client.xadd(KEYS.intents, {"body": b"x"}, id=f"{now - round(age * 1000)}-7") for age in ages]


def test_before_any_worker_came_all_that_lies_in_the_queue_waits(client: Any, control: Control) -> None:
    queue(client, 30.0, 20.0)

    found = control.status()

    assert (found.queue_depth, found.queue_lag, round(found.oldest_age or 0)) == (2, 2, 30)


def test_an_entry_from_the_future_has_waited_no_time(client: Any, control: Control) -> None:
    queue(client, -5.0)

    assert control.status().oldest_age == 0.0


def test_what_was_taken_and_not_finished_waits_too_and_others_reading_along_do_not_count(
    client: Any, control: Control
) -> None:
    queue(client, 30.0, 20.0, 10.0)
    for group in ("another", GROUP):
        client.xgroup_create(KEYS.intents, group, "0")
    taken = client.xreadgroup(GROUP, "w1", {KEYS.intents: ">"}, count=2)[0][1]
    client.xreadgroup("another", "x", {KEYS.intents: ">"}, count=3)

    found = control.status()
    assert (found.queue_depth, found.queue_lag, round(found.oldest_age or 0)) == (3, 1, 30)

    client.xack(KEYS.intents, GROUP, *(name for name, _ in taken))
    found = control.status()
    assert (found.queue_depth, found.queue_lag, round(found.oldest_age or 0)) == (1, 1, 10)

    [[_, [(last, _)]]] = client.xreadgroup(GROUP, "w1", {KEYS.intents: ">"})
    client.xack(KEYS.intents, GROUP, last)
    found = control.status()
    assert (found.queue_depth, found.queue_lag, found.oldest_age) == (0, 0, None)


def test_what_is_in_work_is_shown_by_its_state(client: Any, control: Control) -> None:
    for number, state in enumerate(["parked", "parked", "in_flight", "claimed"]):
        client.hset(KEYS.intent(f"i{number}"), "state", state)
        client.zadd(KEYS.open, {f"i{number}": number})
    client.zadd(KEYS.open, {"forgotten": 9})

    found = control.status()

    assert (found.parked, found.in_flight, found.queue_depth) == (2, 1, 2)


@pytest.mark.parametrize("key", [KEYS.state, KEYS.workers, KEYS.dead, KEYS.doubts, KEYS.intents])
def test_a_key_that_somebody_else_has_spoilt_is_not_shown_as_an_empty_route(
    client: Any, control: Control, key: str
) -> None:
    client.set(key, "spoilt")

    with pytest.raises(redis.ResponseError):
        control.status()


# --- Doubts -----------------------------------------------------------------------------------------------


@pytest.fixture(name="in_doubt")
def _in_doubt(any_redis: AnyRedis, client: Any) -> Callable[..., None]:
    """Puts an intent in doubt; it was launched so many milliseconds ago."""

    def make(intent_id: str, ago: int = 60_000, **changes: Any) -> None:
        desk = Desk(any_redis.connect(), MockBroker(LOST), ManualClock(datetime.now(UTC)))
        client.hset(KEYS.state, "sequence", 40)
        enqueue(client, make_intent(intent_id=intent_id, symbol=intent_id.upper(), **changes))
        desk.work()
        key = KEYS.intent(intent_id)
        flight = client.hget(key, "flight").split(b":")
        flight[3:5] = [b"%d" % (int(at) - ago) for at in flight[3:5]]
        client.hset(key, mapping={"flight": b":".join(flight), "since": now_ms(client) - ago})

    return make


def test_the_open_doubts_are_shown_oldest_first(
    client: Any, control: Control, in_doubt: Callable[..., None]
) -> None:
    in_doubt("a", 30_000, limit_price="71000", quantity="10")
    in_doubt("b", 50_000, intent_type="MARKET", limit_price=None)
    client.hset(KEYS.intent("a"), mapping={"looks": 3, "escalated": 1})
    client.zadd(KEYS.doubts, {"settled": 1})

    older, newer = control.doubts()

    assert (older.intent_id, older.limit_price, older.looks, older.escalated) == ("b", None, 0, False)
    assert isinstance(newer, Doubt)
    assert (newer.intent_id, newer.symbol, newer.side) == ("a", "A", "BUY")
    assert (newer.quantity, newer.limit_price, newer.looks, newer.escalated) == ("10", "71000", 3, True)
    assert newer.worker == "w1" and 29 <= newer.age <= 35
    assert abs((newer.since - moment(now_ms(client) - 30_000)).total_seconds()) < 5
    status = control.status()
    assert status.in_doubt == 3 and 49 <= (status.oldest_doubt_age or 0) <= 55


def test_a_doubt_that_has_just_begun_is_of_no_age(
    client: Any, control: Control, in_doubt: Callable[..., None]
) -> None:
    in_doubt("a", 0)
    client.hset(KEYS.intent("a"), "since", now_ms(client) + 5000)

    assert control.doubts()[0].age == 0.0


def test_the_workers_are_shown_a_doubt_as_the_ledger_holds_it(
    any_redis: AnyRedis, client: Any, in_doubt: Callable[..., None]
) -> None:
    in_doubt("a")
    client.hset(KEYS.intent("a"), "since", 12345)
    client.zadd(KEYS.doubts, {"a": 1})
    desk = Desk(any_redis.connect(), MockBroker(), ManualClock(datetime.now(UTC)), name="w2")

    [doubt] = desk.ledger.look(1, base=1.0, ceiling=1.0, escalate_after=1e9)

    flight = client.hget(KEYS.intent("a"), "flight").split(b":")
    assert (doubt.intent_id, doubt.attempt, doubt.since) == ("a", "1", 12345)
    assert [doubt.launched_at, doubt.quiet_at] == [int(at) for at in flight[3:5]]
    assert abs(doubt.now - now_ms(client)) < 5000
    assert client.hget(KEYS.intent("a"), "fence").decode() == doubt.fence


def test_a_doubt_can_be_looked_at_now_and_nothing_else_can(
    client: Any, control: Control, in_doubt: Callable[..., None]
) -> None:
    in_doubt("a")

    control.look_now("a")
    with pytest.raises(Refused, match="worker intent b"):
        control.look_now("b")

    assert client.zscore(KEYS.doubts, "a") == 1
    assert client.zscore(KEYS.doubts, "b") is None


def decide(control: Control, intent_id: str = "a", **changes: Any) -> ExecutionResponse:
    words: dict[str, Any] = {"broker_order_id": "N1", "not_placed": False, "actor": "hong", "reason": "seen"}
    return control.resolve_by_hand(intent_id, **words | changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"not_placed": True}, "either"),
        ({"broker_order_id": None}, "either"),
        ({"broker_order_id": ""}, "either"),
        ({"reason": " "}, "a reason and a name"),
        ({"actor": " "}, "a reason and a name"),
        ({"intent_id": "b"}, "its state is unknown"),
    ],
)
def test_a_decision_by_hand_that_says_too_little_changes_nothing(
    client: Any, control: Control, in_doubt: Callable[..., None], changes: dict[str, Any], why: str
) -> None:
    in_doubt("a")

    with pytest.raises(Refused, match=why):
        decide(control, **changes)

    assert published(client) == []


def test_what_may_still_be_on_its_way_is_not_decided(control: Control, in_doubt: Callable[..., None]) -> None:
    in_doubt("a", ago=0)

    with pytest.raises(Refused, match=r"decide in [56] s"):
        decide(control)


def test_half_a_second_before_it_must_show_is_too_early(
    control: Control, client: Any, in_doubt: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_doubt("a")
    quiet_at = int(client.hget(KEYS.intent("a"), "flight").split(b":")[4])
    monkeypatch.setattr(control._ledger, "now_ms", lambda: quiet_at - 500)

    with pytest.raises(Refused, match="still be on its way"):
        decide(control)


def test_a_cancel_in_doubt_is_shown_without_what_only_orders_have(client: Any, control: Control) -> None:
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    body = dump(make_intent(intent_id="c", target_intent_id="a", **gone))
    since = now_ms(client) - 9000
    client.hset(KEYS.intent("c"), mapping={"state": "in_doubt", "body": body, "since": since})
    client.zadd(KEYS.doubts, {"c": 1})

    [found] = control.doubts()

    assert (found.side, found.quantity, found.limit_price, found.worker) == (None, None, None, "")
    assert 9 <= (control.status().oldest_doubt_age or 0) <= 15


def test_an_order_that_a_person_has_seen_is_answered_accepted_with_its_number(
    client: Any, control: Control, in_doubt: Callable[..., None]
) -> None:
    in_doubt("a")
    launched_at = int(client.hget(KEYS.intent("a"), "flight").split(b":")[3])

    answer = decide(control)

    assert [answer] == published(client) == [control.answer("a")]
    assert (answer.outcome, answer.accepted, answer.code) == (Outcome.ACCEPTED, True, None)
    assert (answer.broker, answer.broker_order_id, answer.message) == ("mock", "N1", "resolved by hand: seen")
    assert (answer.route, answer.attempts, answer.sent_at) == ("default", 1, moment(launched_at))
    assert abs((answer.timestamp - datetime.now(UTC)).total_seconds()) < 5
    with pytest.raises(Refused, match="its state is settled"):
        decide(control)


def test_an_order_that_the_broker_does_not_hold_is_answered_not_placed(
    control: Control, in_doubt: Callable[..., None]
) -> None:
    in_doubt("a")

    answer = decide(control, broker_order_id=None, not_placed=True)

    assert (answer.outcome, answer.accepted, answer.code) == (Outcome.NOT_PLACED, False, Code.NOT_PLACED)
    assert answer.broker_order_id is None


def test_an_intent_without_an_answer_has_none(control: Control) -> None:
    assert control.answer("a") is None


def owned(client: Any, number: str, ago_ms: int, count: int = 1) -> None:
    """Answers of other intents, the last of which names this order."""
    pipe = client.pipeline(transaction=False)
    start = now_ms(client) - ago_ms
    for place in range(count):
        answer = ExecutionResponse(
            intent_id=f"other{place}",
            accepted=True,
            broker="mock",
            message="",
            timestamp=datetime.now(UTC),
            outcome=Outcome.ACCEPTED,
            broker_order_id=number if place == count - 1 else f"M{place}",
            route="default",
            attempts=1,
        )
        pipe.xadd(KEYS.responses, {"body": dump(answer)}, id=f"{start}-{place + 1}")
    pipe.execute()


@pytest.mark.parametrize(
    ("number", "ago_ms", "count", "refused"),
    [
        ("N1", 1000, 1, True),
        ("N1", 86_300_000, 5001, True),
        ("N1", 86_500_000, 1, False),
        ("N2", 1000, 1, False),
    ],
)
def test_an_order_of_the_last_day_that_is_another_intents_is_not_this_ones_too(
    client: Any,
    control: Control,
    in_doubt: Callable[..., None],
    number: str,
    ago_ms: int,
    count: int,
    refused: bool,
) -> None:
    in_doubt("a")
    owned(client, number, ago_ms, count)

    if refused:
        with pytest.raises(Refused, match=f"order N1 belongs to intent other{count - 1} already"):
            decide(control)
    else:
        assert decide(control).broker_order_id == "N1"


def test_a_doubt_that_ended_while_a_person_decided_is_not_ended_twice(
    client: Any, control: Control, in_doubt: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_doubt("a")
    refuse_owned = control._refuse_owned

    def while_another_decides(intent_id: str, number: str) -> None:
        monkeypatch.setattr(control, "_refuse_owned", refuse_owned)
        decide(Control(client, "default"))
        refuse_owned(intent_id, number)

    monkeypatch.setattr(control, "_refuse_owned", while_another_decides)

    with pytest.raises(Refused, match="in this very moment"):
        decide(control)
    assert len(published(client)) == 1


def test_a_route_whose_broker_is_not_known_any_more_says_so(
    client: Any, control: Control, in_doubt: Callable[..., None]
) -> None:
    in_doubt("a")
    client.hdel(KEYS.state, "broker")

    assert decide(control).broker == "unknown"
