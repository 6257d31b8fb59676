"""What the ledger's callers go by besides its transitions: errors, connections, and what it reads."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import redis

from contracts import dump
from tests.conftest import AnyRedis, make_intent
from tests.desk import KEYS
from worker.clock import ManualClock, SystemClock
from worker.connection import ServerChanged
from worker.errors import StateLost, Unavailable
from worker.ledger import Ledger, LedgerRules, foreign_mark
from worker.ledger.records import Claim, Entry, Granted, Launched
from worker.line import Line


@pytest.fixture(name="client")
def _client(any_redis: AnyRedis) -> Any:
    return any_redis.connect()


def ledger(client: Any) -> Ledger:
    return Ledger(client, "default", "w1", LedgerRules(), SystemClock())


def register(one: Ledger) -> str:
    return one.register(broker="simulated", mode="paper", start_halted=False)


def entry(one: Ledger, intent_id: str, lives: int = 60_000) -> Entry:
    intent, now = make_intent(intent_id=intent_id), one.now_ms()
    times = (now, now + lives)
    return Entry(intent_id, "token", intent.fingerprint(), intent.symbol, "1-1", *times, "", dump(intent))


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ServerChanged("another server answers"), StateLost),
        (redis.ConnectionError("refused"), Unavailable),
        (redis.TimeoutError("late"), Unavailable),
        (redis.ResponseError("STATELOST the route is gone"), StateLost),
        (redis.ResponseError("WRONGTYPE"), redis.ResponseError),
        (ValueError("a fault of ours"), ValueError),
    ],
)
def test_each_fault_is_told_as_what_its_caller_can_act_on(raised: Exception, told: type[Exception]) -> None:
    broken = Mock(**{"hmget.side_effect": raised})

    with pytest.raises(Exception, match=str(raised)) as found:
        ledger(broken).noted_at(["N1"])

    assert type(found.value) is told


def test_connections_are_made_anew_when_the_routes_state_was_made_and_kept_when_it_was_found(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = Mock()
    monkeypatch.setattr(client.connection_pool, "disconnect", cut)

    assert register(ledger(client)) == "made"
    cut.assert_called_once_with(inuse_connections=False)
    assert register(ledger(client)) == "found"
    cut.assert_called_once_with(inuse_connections=False)


def test_a_line_that_was_opened_to_register_is_closed_again(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Line] = []
    closed: list[Line] = []

    class Watched(Line):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            opened.append(self)

        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr("worker.ledger.Line", Watched)
    register(ledger(client))
    assert len(opened) == 1 and closed == opened

    own = Watched(client)
    keeps = Ledger(client, "default", "w1", LedgerRules(), SystemClock(), own)
    register(keeps)
    assert own not in closed
    own.close()


def test_what_was_announced_as_foreign_is_known_by_its_number_and_time(client: Any) -> None:
    client.hset(KEYS.noted, foreign_mark("N1"), 1234)

    assert ledger(client).noted_at(["N1", "N2"]) == {"N1": 1234}


def test_reading_nothing_asks_nobody() -> None:
    nobody: Any = object()

    assert ledger(nobody).noted_at([]) == {}
    assert ledger(nobody).owners([]) == {}


def test_who_owns_an_order_is_told_with_its_launch(client: Any) -> None:
    rows = {"number:N1": "5:7:a:b", "unplaced:K": "6:9:e\n5:8:c", "refused:K": "5:1:d"}
    client.hset(KEYS.owned, mapping=rows)
    one = ledger(client)

    owners, unplaced = one.owners(["N1", "N2"]), one.unplaced(["K", "N1"])

    assert {name: (who.intent_id, who.launched_at) for name, who in owners.items()} == {"N1": ("a:b", 7)}
    assert {
        name: [(who.intent_id, who.launched_at) for who in found] for name, found in unplaced.items()
    } == {"K": [("e", 9), ("c", 8), ("d", 1)]}


def test_an_absence_proves_nothing_before_the_order_has_timed_out_arrived_and_become_visible(
    client: Any,
) -> None:
    rules = LedgerRules(order_timeout=5.0, visibility_lag=2.0)
    one = Ledger(client, "default", "w1", rules, SystemClock())
    register(one)
    one.claim([entry(one, "a")])
    one.launch([("a", "token", 1)])

    _, _, _, launched_at, quiet_at, *_ = client.hget(KEYS.intent("a"), "flight").split(b":")

    # Time-out, what the kernel may still deliver, and the lag of the list.
    assert int(quiet_at) - int(launched_at) == 8000


@pytest.mark.parametrize(("rate", "kind"), [(None, Launched), (18.0, Granted)])
def test_where_the_broker_limits_calls_no_order_leaves_with_its_claim(
    client: Any, rate: float | None, kind: type[Claim]
) -> None:
    one = Ledger(client, "default", "w1", LedgerRules(rate_limit=rate), SystemClock())
    register(one)

    [claim] = one.claim([entry(one, "a")], room=1)

    assert type(claim) is kind


@pytest.mark.parametrize(("lives", "at_most"), [(60_000, 5.0), (2_000, 2.0)])
@pytest.mark.parametrize("room", [0, 1])
def test_an_order_has_its_timeout_to_leave_from_the_moment_it_was_asked_for_or_less_if_it_expires(
    client: Any, room: int, lives: int, at_most: float
) -> None:
    clock = ManualClock()
    one = Ledger(client, "default", "w1", LedgerRules(order_timeout=5.0), clock)
    register(one)
    client.hset(KEYS.state, "sequence", 40)

    leaving: Any = one.claim([entry(one, "a", lives)], room)[0]
    if room == 0:
        [leaving] = one.launch([("a", "token", 1)])

    assert isinstance(leaving, Launched)
    # What it has seen is what it tells a server that may have forgotten it.
    assert leaving.sequence == one._sequence == 41
    left = leaving.send_before - clock.boottime()
    assert 0 < left <= at_most and (left == 5.0 or at_most < 5.0)


def test_the_ledgers_clock_is_that_of_redis_in_milliseconds(client: Any) -> None:
    seconds, micros = client.time()

    found = ledger(client).now_ms()

    assert 0 <= found - (seconds * 1000 + micros // 1000) < 5000


def test_one_worker_at_a_time_compares_the_brokers_list(client: Any) -> None:
    first = ledger(client)
    register(first)
    second = Ledger(client, "default", "w2", LedgerRules(), SystemClock())
    register(second)
    assert first.unsure() is None
    now = first.now_ms()
    client.hset(KEYS.state, mapping={"unsure_since": now, "unsure_until": now + 3000})

    found = first.unsure()

    assert found is not None
    assert found.since == now and 0 < found.left <= 3.0
    assert second.unsure() is None
    assert first.reconciled(found._replace(since=now - 1), 0) is False
    assert first.reconciled(found, 0) is True
    assert first.unsure() is None
