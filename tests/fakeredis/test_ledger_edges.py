"""What the ledger's callers go by besides its transitions: errors, connections, and what it reads."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import redis

from tests.conftest import AnyRedis
from tests.desk import KEYS
from worker.clock import SystemClock
from worker.connection import ServerChanged
from worker.errors import StateLost, Unavailable
from worker.ledger import Ledger, LedgerRules, foreign_mark
from worker.line import Line


@pytest.fixture(name="client")
def _client(any_redis: AnyRedis) -> Any:
    return any_redis.connect()


def ledger(client: Any) -> Ledger:
    return Ledger(client, "default", "w1", LedgerRules(), SystemClock())


def register(one: Ledger) -> str:
    return one.register(broker="simulated", mode="paper", start_halted=False)


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
    client.hset(KEYS.owned, mapping={"number:N1": "5:7:a:b", "unplaced:K": "5:8:c"})
    one = ledger(client)

    for found, name, owner in (
        (one.owners(["N1", "N2"]), "N1", ("a:b", 7)),
        (one.unplaced(["K", "N1"]), "K", ("c", 8)),
    ):
        assert {key: (who.intent_id, who.launched_at) for key, who in found.items()} == {name: owner}
