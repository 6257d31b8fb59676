"""One account, one route; and a route changes its account only when nothing of it is left to look up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import AnyRedis, make_intent
from tests.desk import KEYS, Desk, enqueue
from tests.mock_broker import MockBroker
from worker.clock import ManualClock
from worker.errors import ConfigError, OutcomeUnknown
from worker.keys import ROUTES
from worker.ledger.registry import enlist


@pytest.fixture(name="desk")
def _desk(any_redis: AnyRedis) -> Desk:
    return Desk(any_redis.connect(), MockBroker(OutcomeUnknown("lost")), ManualClock(), name="w1")


def enter(desk: Desk, **changes: Any) -> None:
    given = {"broker": "kis", "mode": "paper", "account": "11111111-01", **changes}
    enlist(desk.client, "default", **given, in_use=lambda: desk.ledger.is_in_use(10.0))


OTHERS: list[dict[str, Any]] = [{"account": "22222222-01"}, {"mode": "live"}, {"broker": "simulated"}]


@pytest.mark.parametrize("changes", OTHERS)
def test_a_route_with_a_doubt_is_not_handed_to_another_account(desk: Desk, changes: dict[str, Any]) -> None:
    enter(desk)
    enqueue(desk.client, make_intent(intent_id="a"))
    desk.work()

    with pytest.raises(ConfigError, match="looked up in the wrong list"):
        enter(desk, **changes)
    enter(desk)
    enter(desk, mode="off")
    with pytest.raises(ConfigError, match="in use with others"):
        enter(desk, **changes)


@pytest.mark.parametrize("changes", OTHERS)
def test_a_route_at_rest_may_change_its_account(desk: Desk, changes: dict[str, Any]) -> None:
    enter(desk)

    enter(desk, **changes)

    assert json.loads(desk.client.hget(ROUTES, "default"))["mode"] == changes.get("mode", "paper")


def test_another_worker_that_is_alive_keeps_a_route_on_its_account(desk: Desk) -> None:
    enter(desk)
    now = desk.ledger.now_ms()
    desk.client.hset(KEYS.workers, mapping={"w1": json.dumps({"beat": now}), "junk": "no card"})
    enter(desk, account="22222222-01")

    desk.client.hset(KEYS.workers, "w2", json.dumps({"beat": now - 9_000}))
    with pytest.raises(ConfigError, match="stop all its workers"):
        enter(desk)

    desk.client.hset(KEYS.workers, "w2", json.dumps({"beat": now - 11_000}))
    enter(desk)


def test_a_row_that_a_stranger_wrote_keeps_no_worker_from_starting(desk: Desk) -> None:
    desk.client.hset(ROUTES, mapping={"default": "junk", "other": "[1]"})

    enter(desk)

    assert json.loads(desk.client.hget(ROUTES, "default"))["broker"] == "kis"
