"""Nobody alive: told once for each outage, while the market is open, and by somebody else than the dead."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from redis.exceptions import NoPermissionError
from typer.testing import CliRunner, Result

from contracts import FailsafeType
from tests.conftest import AnyRedis
from tests.desk import events
from worker import deadman
from worker.brokers.simulated import SimulatedBrokerAdapter
from worker.cli.app import app
from worker.cli.context import Surroundings
from worker.clock import ManualClock
from worker.deadman import Deadman, watching_over
from worker.errors import BrokerError
from worker.keys import RouteKeys
from worker.ledger import Ledger, LedgerRules
from worker.logs import Event, configure
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
        settled(watching)
        clock.advance(deadman.TRY_EVERY)

    assert len(tries) == 3
    assert told(client) == [FailsafeType.NO_LIVE_WORKER, FailsafeType.HALTED]


def settled(watching: Deadman) -> None:
    """Whoever cancels is done."""
    for one in watching._watched:
        if one.sweeper is not None:
            one.sweeper.join(10)


def test_a_broker_that_hangs_keeps_no_other_route_from_being_told_and_cancelled(
    any_redis: AnyRedis, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, tried = threading.Event(), list[str]()

    def cancel_open(_settings: Any, route: str, *_: Any) -> Swept:
        tried.append(route)
        if route == "default":
            assert hangs.wait(10)
        return Swept((), saw_all=True)

    monkeypatch.setattr(deadman, "cancel_open", cancel_open)
    Ledger(client, "second", "w", LedgerRules(), ManualClock()).register(
        broker="simulated", mode="paper", start_halted=False
    )
    settings = load_settings(
        {
            f"EXECWORKER_ROUTES__{route}__{name}": value
            for route in ("DEFAULT", "SECOND")
            for name, value in (("MODE", "paper"), ("DEAD_MAN_CANCEL", "true"))
        }
    )
    log, clock = configure("error", clock=ManualClock()), ManualClock()
    watching = Deadman(settings, ["default", "second"], client, log, clock, any_redis.connect)
    for route in ("default", "second"):
        long_ago = client.time()[0] * 1000 - 61_000
        client.hset(RouteKeys(route).state, "alive_at", long_ago)

    for _ in range(3):
        watching.step()
        clock.advance(deadman.TRY_EVERY)
    hangs.set()
    settled(watching)
    watching.close()

    assert sorted(tried) == ["default", "second"], "and nobody tries again while the first try hangs"
    assert told(client)[0] is FailsafeType.NO_LIVE_WORKER
    assert client.xlen(RouteKeys("second").failsafe) == 2


def test_a_try_to_cancel_that_fails_in_any_way_is_told_and_made_again(
    client: Any, watch: Callable[..., Deadman], monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel_open = Mock(side_effect=[RuntimeError("odd"), Swept((), saw_all=True)])
    monkeypatch.setattr(deadman, "cancel_open", cancel_open)
    watching = watch(dead_man_cancel="true")
    watching._log = log = Mock()
    last_alive(client, 61)
    for _ in range(3):
        watching.step()
        settled(watching)
        watching._clock.advance(deadman.TRY_EVERY)  # type: ignore[attr-defined]

    assert cancel_open.call_count == 2
    assert "odd" in log.error.call_args_list[1].kwargs["reason"]


def test_a_redis_that_is_away_is_told_once_and_so_is_its_return(
    watch: Callable[..., Deadman], monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = watch()
    watching._log = log = Mock()
    look = watching._look
    monkeypatch.setattr(watching, "_look", Mock(side_effect=redis.ConnectionError("refused")))
    watching.step(), watching.step()
    monkeypatch.setattr(watching, "_look", look)
    watching.step(), watching.step()

    assert [call.args[0] for call in log.error.call_args_list] == [Event.REDIS_AWAY]
    assert [call.args[0] for call in log.info.call_args_list] == [Event.REDIS_BACK]


def watch_from_the_command_line(any_redis: AnyRedis, monkeypatch: pytest.MonkeyPatch, **route: str) -> Result:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    settings = {f"EXECWORKER_ROUTES__DEFAULT__{name.upper()}": value for name, value in route.items()}
    return CliRunner().invoke(app, ["deadman"], obj=Surroundings(settings, any_redis.connect, ManualClock()))


@pytest.mark.parametrize(
    ("route", "why"),
    [({"mode": "off"}, "mode off"), ({"mode": "paper", "dead_man_after": "0"}, "dead_man_after is 0")],
)
def test_who_has_nothing_to_watch_over_says_so_and_ends(
    any_redis: AnyRedis, monkeypatch: pytest.MonkeyPatch, route: dict[str, str], why: str
) -> None:
    done = watch_from_the_command_line(any_redis, monkeypatch, **route)

    assert done.exit_code == 78
    assert f"no route to watch over: default is not watched: {why}" in done.stderr


def test_a_right_that_is_missing_ends_the_command_with_its_cure(
    any_redis: AnyRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = NoPermissionError("this user has no permissions to run the 'hmget' command")
    monkeypatch.setattr(Deadman, "_look", Mock(side_effect=error))

    done = watch_from_the_command_line(any_redis, monkeypatch, mode="paper")

    assert done.exit_code == 69
    assert "watching over default" in done.stderr and "Give its user that right" in done.stderr


def test_beside_a_worker_a_fault_is_told_once_and_tried_again(
    any_redis: AnyRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = threading.Event()
    faults = iter([NoPermissionError("hmget"), NoPermissionError("hmget")])

    def look(*_: Any) -> None:
        for error in faults:
            raise error
        again.set()

    log = Mock()
    monkeypatch.setattr(Deadman, "_look", look)
    monkeypatch.setattr(deadman, "configure", lambda *_, **__: log)
    settings = load_settings({"EXECWORKER_ROUTES__DEFAULT__MODE": "paper"})
    with watching_over(settings, ["default"], ManualClock(), any_redis.connect) as one:
        assert again.wait(10) and one.error is None

    assert [call.kwargs["chore"] for call in log.error.call_args_list] == ["deadman"]
