"""Nobody alive: told once for each outage, while the market is open, and by somebody else than the dead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contracts import FailsafeType
from tests.conftest import AnyRedis
from tests.desk import events
from worker import deadman
from worker.brokers.simulated import SimulatedBrokerAdapter
from worker.clock import ManualClock
from worker.deadman import Deadman
from worker.errors import BrokerError
from worker.keys import RouteKeys
from worker.ledger import Ledger, LedgerRules
from worker.logs import configure
from worker.settings import load_settings
from worker.stopping import Swept

KEYS = RouteKeys("default")


@pytest.fixture(name="client")
def _client(any_redis: AnyRedis) -> Any:
    client = any_redis.connect()
    Ledger(client, "default", "w", LedgerRules(), ManualClock()).register(
        broker="simulated", mode="paper", start_halted=False
    )
    return client


@pytest.fixture(name="watch")
def _watch(any_redis: AnyRedis, client: Any) -> Iterator[Callable[..., Deadman]]:
    made: list[Deadman] = []

    def make(**route: str) -> Deadman:
        settings = {f"EXECWORKER_ROUTES__DEFAULT__{name.upper()}": value for name, value in route.items()}
        read = load_settings({"EXECWORKER_ROUTES__DEFAULT__MODE": "paper", **settings})
        log = configure("error", clock=ManualClock())
        made.append(Deadman(read, ["default"], client, log, ManualClock(), any_redis.connect))
        return made[-1]

    yield make
    for one in made:
        one.close()


def last_alive(client: Any, seconds_ago: float) -> None:
    client.hset(KEYS.state, "alive_at", client.time()[0] * 1000 - round(seconds_ago * 1000))


def told(client: Any) -> list[FailsafeType]:
    return [one.type for one in events(client)]


def test_an_outage_is_told_once_and_the_next_one_again(client: Any, watch: Callable[..., Deadman]) -> None:
    watching, other = watch(), watch()
    last_alive(client, 61)
    for one in (watching, other, watching):
        one.step()
    assert told(client) == [FailsafeType.NO_LIVE_WORKER]

    last_alive(client, 1)
    watching.step()
    last_alive(client, 120)
    watching.step()

    assert told(client) == [FailsafeType.NO_LIVE_WORKER] * 2


def test_a_worker_heard_of_lately_is_no_outage(client: Any, watch: Callable[..., Deadman]) -> None:
    last_alive(client, 50)

    watch().step()

    assert told(client) == []


def test_the_time_is_a_setting_and_zero_is_never(client: Any, watch: Callable[..., Deadman]) -> None:
    last_alive(client, 50)
    watch(dead_man_after="0").step()
    assert told(client) == []

    watch(dead_man_after="20").step()

    assert told(client) == [FailsafeType.NO_LIVE_WORKER]


def test_a_worker_that_died_before_its_first_heartbeat_is_an_outage_too(
    client: Any, watch: Callable[..., Deadman]
) -> None:
    client.hset(KEYS.state, "made_at", 1)

    watch().step()

    assert told(client) == [FailsafeType.NO_LIVE_WORKER]


def test_a_route_that_never_had_a_worker_or_trades_nothing_is_no_outage(
    client: Any, watch: Callable[..., Deadman]
) -> None:
    client.hdel(KEYS.state, "made_at")
    watch().step()
    last_alive(client, 600)
    watch(mode="off").step()

    assert told(client) == []


def test_a_closed_market_needs_no_worker(
    client: Any, watch: Callable[..., Deadman], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimulatedBrokerAdapter, "in_session", lambda _self, _at: False)
    last_alive(client, 600)

    watch().step()

    assert told(client) == []


def test_cancelling_is_tried_again_until_nothing_is_left(
    client: Any, watch: Callable[..., Deadman], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def cancel_open(*_: Any) -> Swept:
        tries.append("tried")
        if len(tries) == 1:
            raise BrokerError("the list did not come")
        return Swept((), saw_all=len(tries) > 2)

    monkeypatch.setattr(deadman, "cancel_open", cancel_open)
    watching = watch(dead_man_cancel="true")
    clock = watching._clock
    assert isinstance(clock, ManualClock)
    last_alive(client, 61)
    for _ in range(5):
        watching.step()
        clock.advance(deadman.TRY_EVERY)

    assert len(tries) == 3
    assert told(client) == [FailsafeType.NO_LIVE_WORKER, FailsafeType.HALTED]
