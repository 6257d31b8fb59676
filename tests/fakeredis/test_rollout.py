"""Workers of two builds side by side: nothing is sent with real money, unless a person has opened a window."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from contracts import Code
from tests.conftest import AnyRedis, make_intent
from tests.desk import Desk, enqueue, published
from tests.mock_broker import MockBroker
from worker.clock import ManualClock
from worker.keys import RouteKeys
from worker.ledger.control import Control

KEYS = RouteKeys("default")

#: Seconds within which a worker counts as alive, and after which it is forgotten.
FRESH, FORGOTTEN = 15.0, 300.0


@pytest.fixture(name="start")
def _start(any_redis: AnyRedis) -> Callable[..., Desk]:
    """Starts a worker of a build, '' for one that sends no real money."""

    def start(name: str, build: str, broker: MockBroker | None = None) -> Desk:
        desk = Desk(
            any_redis.connect(), broker or MockBroker(), ManualClock(), name=name, ledger={"build": build}
        )
        beat(desk, build)
        return desk

    return start


def beat(desk: Desk, build: str) -> str:
    return desk.ledger.beat(
        {"host": "h", "pid": 1, "port": 1, "build": build}, fresh=FRESH, forgotten=FORGOTTEN
    )


def silence(client: Any, worker: str, seconds: float) -> None:
    """As if the worker had been heard of last so long ago."""
    card = json.loads(client.hget(KEYS.workers, worker))
    client.hset(KEYS.workers, worker, json.dumps(card | {"beat": card["beat"] - round(seconds * 1000)}))


def ask(desk: Desk, client: Any, name: str) -> str | None:
    """The code of the answer to a new intent, which this worker works on."""
    enqueue(client, make_intent(intent_id=name))
    desk.work()
    return published(client)[-1].code


def test_workers_of_one_build_send(any_redis: AnyRedis, start: Callable[..., Desk]) -> None:
    first, second = start("w1", "1/a"), start("w2", "1/a")

    codes = [ask(desk, any_redis.connect(), name) for desk, name in ((first, "a"), (second, "b"))]

    assert codes == [None, None]


def test_while_two_builds_are_alive_neither_sends(any_redis: AnyRedis, start: Callable[..., Desk]) -> None:
    client, brokers = any_redis.connect(), [MockBroker(), MockBroker()]
    old, new = start("w1", "1/a", brokers[0]), start("w2", "2/a", brokers[1])

    codes = [ask(desk, client, name) for desk, name in ((new, "a"), (old, "b"))]

    assert codes == [Code.ROLLOUT, Code.ROLLOUT]
    assert [broker.placed for broker in brokers] == [[], []]
    assert Control(client, "default").status().builds_differ


def test_when_the_last_old_worker_is_gone_the_new_one_sends(
    any_redis: AnyRedis, start: Callable[..., Desk]
) -> None:
    client = any_redis.connect()
    start("w1", "1/a")
    new = start("w2", "2/a")
    silence(client, "w1", FRESH + 1)
    assert beat(new, "2/a") == ""

    assert ask(new, client, "a") is None


def test_an_old_worker_that_was_frozen_meanwhile_sends_nothing_when_it_wakes(
    any_redis: AnyRedis, start: Callable[..., Desk]
) -> None:
    client = any_redis.connect()
    old = start("w1", "1/a")
    silence(client, "w1", FRESH + 1)
    start("w2", "2/a")

    assert ask(old, client, "a") is Code.ROLLOUT


def test_a_window_lets_both_send_until_it_ends(any_redis: AnyRedis, start: Callable[..., Desk]) -> None:
    client = any_redis.connect()
    control = Control(client, "default")
    old, new = start("w1", "1/a"), start("w2", "2/a")

    control.open_rollout("kim", "release of today", 600)
    assert [ask(desk, client, name) for desk, name in ((new, "a"), (old, "b"))] == [None, None]
    assert control.status().rollout_until is not None

    control.close_rollout("kim", "done")
    assert ask(new, client, "c") is Code.ROLLOUT


def test_without_real_money_builds_may_differ(any_redis: AnyRedis, start: Callable[..., Desk]) -> None:
    client = any_redis.connect()
    start("w1", "")
    paper = start("w2", "")
    paper.ledger.beat({"build": "2/b"}, fresh=FRESH, forgotten=FORGOTTEN)

    assert ask(paper, client, "a") is None


def test_a_worker_that_sends_no_real_money_on_a_live_route_differs_too(
    any_redis: AnyRedis, start: Callable[..., Desk]
) -> None:
    client = any_redis.connect()
    live = start("w1", "1/live")
    start("w2", "").ledger.beat({"build": "1/paper"}, fresh=FRESH, forgotten=FORGOTTEN)
    assert "1/paper" in beat(live, "1/live")

    assert ask(live, client, "a") is Code.ROLLOUT


def test_what_a_person_opened_and_what_differed_is_in_the_audit_trail(
    any_redis: AnyRedis, start: Callable[..., Desk]
) -> None:
    client = any_redis.connect()
    start("w1", "1/a"), start("w2", "2/a")
    Control(client, "default").open_rollout("kim", "release of today", 600)

    trail = [
        (event, detail)
        for _, row in client.xrange(KEYS.audit)
        for event, _, detail, *_ in json.loads(row[b"records"])
    ]

    assert ("builds_differ", "w1 1/a; w2 2/a") in [(e, "; ".join(sorted(d.split("; ")))) for e, d in trail]
    assert ("rollout", "kim: release of today") in trail


@pytest.mark.parametrize("junk", ["junk", "[]", '{"beat": "soon"}', '{"beat": 1e300, "build": "1/a"}'])
def test_a_row_that_cannot_be_read_counts_as_another_build_for_as_long_as_it_is_written(
    any_redis: AnyRedis, start: Callable[..., Desk], junk: str
) -> None:
    client, broker = any_redis.connect(), MockBroker()
    live = start("w1", "1/a", broker)
    for number in range(3):
        client.hset(KEYS.workers, "ghost", junk)
        assert "ghost unreadable" in beat(live, "1/a")
        assert ask(live, client, f"i-{number}") is Code.ROLLOUT
        silence(client, "ghost", FRESH + 1)

    assert broker.placed == []


def test_junk_among_the_workers_stops_a_live_route_for_some_seconds_and_is_forgotten(
    any_redis: AnyRedis, start: Callable[..., Desk]
) -> None:
    client = any_redis.connect()
    live = start("w1", "1/a")
    client.hset(KEYS.workers, "ghost", "junk")
    assert beat(live, "1/a") != ""
    silence(client, "ghost", FRESH + 1)
    assert beat(live, "1/a") == ""
    assert ask(live, client, "a") is None

    silence(client, "ghost", FORGOTTEN + 1)
    beat(live, "1/a")

    assert client.hkeys(KEYS.workers) == [b"w1"]
