"""`worker intent`: the whole story of an order, found without reading the whole trail."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner

from contracts import IntentType, OrderEvent, OrderResponse, OrderStatus, dump
from tests.conftest import AnyRedis, make_intent
from tests.desk import KEYS, Desk, end_leases, enqueue
from tests.mock_broker import MockBroker
from worker.audit import story as stories
from worker.audit.story import Story, tell
from worker.cli.app import app
from worker.cli.context import Surroundings
from worker.clock import ManualClock
from worker.errors import OutcomeUnknown, Rejected


@pytest.fixture
def client(any_redis: AnyRedis) -> Any:
    return any_redis.connect()


def desk(any_redis: AnyRedis, broker: MockBroker, **options: Any) -> Desk:
    return Desk(any_redis.connect(), broker, ManualClock(datetime.now(UTC)), **options)


def told(client: Any, intent_id: str, **how: Any) -> Story:
    found = tell(client, KEYS, intent_id, **how)
    assert found is not None
    return found


def events(found: Story) -> list[str]:
    return [one.event for one in found.audit]


def filled(client: Any, intent_id: str, quantity: int, status: OrderStatus) -> None:
    event = OrderEvent(
        intent_id=intent_id,
        route="default",
        broker="mock",
        broker_order_id="M1",
        symbol="005930",
        status=status,
        filled_quantity=Decimal(quantity),
        average_price=Decimal(71000),
        seen_by="list",
        timestamp=datetime.now(UTC),
    )
    client.xadd(KEYS.orders, {"body": dump(event)})


def bury_in_noise(client: Any, count: int = 2500) -> None:
    """Other intents, hours after what is on the trail so far."""
    seconds, _ = client.time()
    pipe = client.pipeline(transaction=False)
    for number in range(count):
        records = json.dumps([["settled", f"other-{number}", "ACCEPTED", ""]])
        pipe.xadd(KEYS.audit, {"worker": "w", "records": records}, id=f"{(seconds + 3600) * 1000 + number}-0")
    pipe.execute()


def test_an_order_is_told_from_the_queue_to_its_last_fill(any_redis: AnyRedis, client: Any) -> None:
    told_on_the_wire = OrderResponse("M1", "held", wire="POST /order 005930 -> 12 ms HTTP 200")
    at_work = desk(any_redis, MockBroker(told_on_the_wire))
    enqueue(client, make_intent())
    at_work.work()
    filled(client, "intent-1", 4, OrderStatus.PARTIALLY_FILLED)
    filled(client, "intent-1", 10, OrderStatus.FILLED)

    found = told(client, "intent-1")

    assert events(found) == ["enqueued", "claimed", "launched", "wire", "settled", "order", "order"]
    assert [one.worker for one in found.audit] == ["", "w1", "w1", "w1", "w1", "list", "list"]
    assert found.audit[3].detail == told_on_the_wire.wire
    assert found.audit[-1].detail == "FILLED, 10 filled at 71000"
    assert found.audit[0].after is None
    assert all(one.after is not None and one.after >= 0 for one in found.audit[1:])
    assert found.complete


@pytest.mark.parametrize("error", [OutcomeUnknown("no answer"), Rejected("no", code="X")])
def test_what_went_over_the_wire_is_told_also_of_an_order_that_failed(
    any_redis: AnyRedis, client: Any, error: Any
) -> None:
    error.wire = "POST /order -> no answer"
    enqueue(client, make_intent())
    desk(any_redis, MockBroker(error)).work()

    found = told(client, "intent-1")

    assert "wire" in events(found)
    assert events(found)[-1] == ("settled" if isinstance(error, Rejected) else "INTENT_IN_DOUBT")


def test_of_a_broker_that_tells_nothing_nothing_is_kept(any_redis: AnyRedis, client: Any) -> None:
    enqueue(client, make_intent())
    desk(any_redis, MockBroker()).work()

    assert "wire" not in events(told(client, "intent-1"))


def test_an_intent_that_waited_for_its_lane_was_parked_and_then_handed_on(
    any_redis: AnyRedis, client: Any
) -> None:
    at_work = desk(any_redis, MockBroker())
    enqueue(client, make_intent(), make_intent(intent_id="intent-2"))
    at_work.work()

    assert events(told(client, "intent-2"))[:4] == ["enqueued", "parked", "handed", "launched"]


def test_the_cancels_of_an_order_are_in_its_story(any_redis: AnyRedis, client: Any) -> None:
    at_work = desk(any_redis, MockBroker())
    enqueue(client, make_intent())
    at_work.work()
    for name in ("c-1", "c-2"):
        cancel = make_intent(
            intent_id=name,
            intent_type=IntentType.CANCEL,
            target_intent_id="intent-1",
            side=None,
            quantity=None,
            limit_price=None,
        )
        enqueue(client, cancel)
        at_work.work()

    found = told(client, "intent-1")

    assert [one.event for one in found.audit if one.intent_id == "c-1"] == [
        "enqueued",
        "claimed",
        "launched",
        "settled",
    ]
    assert {one.intent_id for one in found.audit} == {"intent-1", "c-1", "c-2"}
    # And the other way round, a CANCEL's own story is its own.
    assert {one.intent_id for one in told(client, "c-1").audit} == {"c-1"}


def test_on_a_long_trail_only_what_lies_around_the_steps_is_read(
    any_redis: AnyRedis, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stories, "_BUDGET", 1000)
    enqueue(client, make_intent())
    desk(any_redis, MockBroker()).work()
    bury_in_noise(client)
    reads = _Reads(client)

    found = told(reads, "intent-1")

    assert events(found) == ["enqueued", "claimed", "launched", "settled"]
    assert found.complete
    assert reads.entries < 1500


def test_what_was_announced_long_after_the_answer_is_told_too(
    any_redis: AnyRedis, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stories, "_BUDGET", 1000)
    enqueue(client, make_intent())
    at_work = desk(any_redis, MockBroker())
    at_work.work()
    bury_in_noise(client)
    at_work.ledger.bury(
        b"{}", reason="conflict", error="other", entry_id="1-1", entry="", intent_id="intent-1"
    )
    [(_, event)] = client.xrange(KEYS.failsafe)
    client.delete(KEYS.failsafe)
    client.xadd(KEYS.failsafe, event, id=f"{(client.time()[0] + 7200) * 1000}-0")

    assert events(told(client, "intent-1"))[-1] == "INTENT_CONFLICT"


def test_a_gap_that_was_not_read_is_owned_up_to_and_read_when_asked(
    any_redis: AnyRedis, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order long in doubt on a busy route."""
    monkeypatch.setattr(stories, "_BUDGET", 1000)
    enqueue(client, make_intent())
    desk(any_redis, MockBroker()).work()
    bury_in_noise(client)
    seen, *_ = client.hget(KEYS.intent("intent-1"), "steps").decode().split(":")
    client.hset(KEYS.intent("intent-1"), "steps", f"{seen}:0::{10 * 3600 * 1000}")

    assert told(client, "intent-1").complete is False
    assert told(client, "intent-1", thorough=True).complete


def test_entries_from_before_the_steps_were_noted_are_found_by_their_answer(
    any_redis: AnyRedis, client: Any
) -> None:
    enqueue(client, make_intent())
    desk(any_redis, MockBroker()).work()
    client.hdel(KEYS.intent("intent-1"), "steps")

    assert events(told(client, "intent-1")) == ["enqueued", "claimed", "launched", "settled"]


def test_an_open_doubt_is_told_as_far_as_it_goes(any_redis: AnyRedis, client: Any) -> None:
    at_work = desk(any_redis, MockBroker())
    enqueue(client, make_intent())
    at_work.take()
    at_work.engine.turn()
    end_leases(client)
    at_work.sweep()

    found = told(client, "intent-1")

    assert events(found) == ["enqueued", "claimed", "launched", "INTENT_IN_DOUBT"]
    assert found.response is None and found.ledger["state"] == "in_doubt"
    assert "token" not in found.ledger


def test_the_command_prints_the_steps_with_the_time_between(any_redis: AnyRedis, client: Any) -> None:
    enqueue(client, make_intent())
    desk(any_redis, MockBroker()).work()
    surroundings = Surroundings({"EXECWORKER_REDIS_URL": any_redis.url}, any_redis.connect, ManualClock())

    done = CliRunner().invoke(app, ["intent", "intent-1"], obj=surroundings)

    assert done.exit_code == 0
    [claimed] = [line for line in done.stdout.splitlines() if "claimed" in line]
    assert "LIMIT BUY 10 005930 @ 71000" in claimed and " s " in claimed and "w1" in claimed


class _Reads:
    """A client that counts the entries it gives."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.entries = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def xrange(self, *args: Any, **options: Any) -> Any:
        rows = self._client.xrange(*args, **options)
        self.entries += len(rows)
        return rows


@pytest.mark.parametrize(
    "body", [b"intent-1", b'{"intent_id": "intent-1"}', b"[" * 100_000 + b"intent-1", None]
)
def test_what_a_stranger_wrote_into_the_streams_is_no_step_and_hides_none(
    any_redis: AnyRedis, client: Any, body: bytes | None
) -> None:
    enqueue(client, make_intent())
    desk(any_redis, MockBroker()).work()
    for stream in (KEYS.orders, KEYS.failsafe):
        client.xadd(stream, {"body": body} if body else {"x": "y"})
    junk = [["claimed", "intent-1", "", "", "no entry"], ["claimed", "intent-1", 7], "intent-1"]
    client.xadd(KEYS.audit, {"worker": "x", "records": json.dumps(junk)})
    client.xadd(KEYS.audit, {"worker": "x", "records": "[" * 100_000 + '"intent-1"'})
    filled(client, "intent-1", 10, OrderStatus.FILLED)
    beyond = json.dumps([["odd", "intent-1", "\ud800", ""]])
    client.xadd(KEYS.audit, {"worker": "x", "records": beyond}, id=f"{2**61}-0")
    surroundings = Surroundings({"EXECWORKER_REDIS_URL": any_redis.url}, any_redis.connect, ManualClock())

    found = told(client, "intent-1", thorough=True)

    # One entry of a stranger's is a step as any: what it claims is not proof.
    assert {"odd", "parked"} <= set(events(found))
    ours = [one for one in events(found) if one not in ("odd", "parked")]
    assert ours == ["enqueued", "claimed", "launched", "settled", "order"]
    for options in ([], ["--json"]):
        shown = CliRunner().invoke(app, ["intent", "intent-1", "--thorough", *options], obj=surroundings)
        assert shown.exit_code == 0, shown.exception
