"""What an operator says to a route, with no worker alive."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import redis

from tests.conftest import AnyRedis
from worker.errors import Refused, Unavailable
from worker.keys import ROUTES, RouteKeys
from worker.ledger.steering import Steering, routes

KEYS = RouteKeys("default")


@pytest.fixture(name="client")
def _client(any_redis: AnyRedis) -> Any:
    return any_redis.connect()


def test_a_halt_and_a_resume_say_whether_they_changed_anything(client: Any) -> None:
    steering = Steering(client, "default")

    assert [steering.halt("hong", "lunch") for _ in range(2)] == [True, False]
    assert [steering.resume("hong", "back") for _ in range(2)] == [True, False]


def test_a_lockdown_is_left_only_by_one_who_approves(client: Any) -> None:
    client.hset(KEYS.state, mapping={"guard_state": "LOCKDOWN", "guard_threshold": 3})
    steering = Steering(client, "default")

    with pytest.raises(Refused, match="--approve"):
        steering.reset_guard("hong", "mended")

    assert steering.reset_guard("hong", "mended", approve=True) == "NORMAL"


def test_the_routes_are_those_that_were_registered_sorted(client: Any) -> None:
    client.hset(ROUTES, mapping={"kis": "{}", "default": "{}"})

    assert routes(client) == ["default", "kis"]


def test_a_server_that_does_not_answer_is_away_and_one_that_refuses_is_not(client: Any) -> None:
    away = Mock(**{"hkeys.side_effect": redis.ConnectionError("refused")})
    with pytest.raises(Unavailable, match="refused"):
        routes(away)

    client.set(ROUTES, "spoilt")
    with pytest.raises(redis.ResponseError):
        routes(client)
