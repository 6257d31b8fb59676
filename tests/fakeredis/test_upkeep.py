"""What strangers write into a route's keys ends no worker, and what safety needs still does."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import redis

from tests.conftest import AnyRedis
from tests.desk import KEYS, Desk
from tests.mock_broker import MockBroker
from worker.clock import ManualClock
from worker.durability import Confirmation
from worker.ledger.control import Control
from worker.upkeep import Upkeep


@pytest.fixture(name="client")
def _client(any_redis: AnyRedis) -> Any:
    return any_redis.connect()


@pytest.fixture(name="one")
def _one(any_redis: AnyRedis) -> SimpleNamespace:
    clock, log = ManualClock(), Mock()
    desk = Desk(any_redis.connect(), MockBroker(), clock, name="w1")
    upkeep = Upkeep(
        desk.ledger,
        desk.engine,
        desk.client,
        Mock(),
        log,
        clock,
        worker="w1",
        port=lambda: 1,
        lost=lambda: None,
        away=lambda _: None,
        skew=lambda _: None,
        owns_stream=True,
        must_be_durable=False,
        about={"build": "b1", "mode": "paper"},
        confirmation=Confirmation(),
        is_alive=lambda: True,
    )
    return SimpleNamespace(upkeep=upkeep, clock=clock, log=log, ledger=desk.ledger)


def turn(one: SimpleNamespace, seconds: int = 5) -> None:
    for _ in range(seconds):
        one.clock.advance(1)
        one.upkeep.turn()


def faults(one: SimpleNamespace) -> list[str]:
    return [call.kwargs["chore"] for call in one.log.error.call_args_list if "chore" in call.kwargs]


def test_a_trail_of_the_wrong_kind_is_told_once_until_it_is_well_again(
    one: SimpleNamespace, client: Any
) -> None:
    client.set(KEYS.audit, "no stream")
    turn(one, 20)
    assert faults(one) == ["seal"]

    client.delete(KEYS.audit)
    turn(one)
    client.set(KEYS.audit, "no stream")
    turn(one)

    assert faults(one) == ["seal"] * 2
    one.upkeep.leave()


def test_a_lease_that_cannot_be_renewed_for_a_fault_still_ends_the_worker(
    one: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one.ledger, "sweep", Mock(side_effect=redis.ResponseError("WRONGTYPE")))

    with pytest.raises(redis.ResponseError):
        turn(one, 20)


@pytest.mark.parametrize("junk", ["junk", "[1]", "3", '{"beat":"x"}', '{"beat":1e300}', '{"beat":{}}'])
def test_a_card_that_a_stranger_wrote_ends_no_worker_and_is_forgotten(
    one: SimpleNamespace, client: Any, junk: str
) -> None:
    client.hset(KEYS.workers, "ghost", junk)
    assert [worker.name for worker in Control(client, "default").status().workers] == []

    turn(one)

    assert faults(one) == [] and client.hkeys(KEYS.workers) == [b"w1"]
    assert [worker.name for worker in Control(client, "default").status().workers] == ["w1"]


@pytest.mark.parametrize("build", ["b2", 7, None])
def test_a_fresh_card_of_no_known_build_counts_as_another_build(
    one: SimpleNamespace, client: Any, build: object
) -> None:
    now = one.ledger.now_ms()
    client.hset(KEYS.workers, "other", json.dumps({"beat": now, "build": build}))

    assert one.ledger.beat({"build": "b1"}, fresh=10.0, forgotten=300.0) != ""
