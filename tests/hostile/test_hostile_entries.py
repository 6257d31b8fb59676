"""Entries that once broke something, each in its smallest form."""

from __future__ import annotations

import bz2
import json
import lzma
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts import Outcome
from tests.conftest import AnyRedis
from tests.desk import KEYS, Desk, answers, dead, enqueue, state, unfinished
from tests.mock_broker import MockBroker
from worker.clock import ManualClock
from worker.ledger.records import Buried


@pytest.fixture
def client(any_redis: AnyRedis) -> Any:
    return any_redis.connect()


@pytest.fixture
def broker() -> MockBroker:
    return MockBroker()


@pytest.fixture
def desk(any_redis: AnyRedis, broker: MockBroker) -> Desk:
    return Desk(any_redis.connect(), broker, ManualClock(datetime.now(UTC)))


def order(intent_id: str, **changes: Any) -> bytes:
    fields = {
        "intent_id": intent_id,
        "intent_type": "MARKET",
        "symbol": "005930",
        "side": "BUY",
        "quantity": 1,
    }
    return json.dumps(fields | {"created_at": datetime.now(UTC).isoformat()} | changes).encode()


@pytest.mark.parametrize("year", ["0001", "1066", "1969"])
def test_an_intent_of_before_1970_has_expired_and_ends_no_worker(desk: Desk, client: Any, year: str) -> None:
    enqueue(client, order("old", created_at=f"{year}-12-31T23:59:59Z"), order("new"))

    desk.work()

    assert {name: one.outcome for name, one in answers(client).items()} == {
        "old": Outcome.EXPIRED,
        "new": Outcome.ACCEPTED,
    }
    assert unfinished(client) == {}


def test_a_cancel_that_expired_before_1970_is_not_carried_out(
    desk: Desk, broker: MockBroker, client: Any
) -> None:
    enqueue(client, order("a"))
    desk.work()
    gone = {"side": None, "quantity": None, "intent_type": "CANCEL", "target_intent_id": "a"}
    times = {"created_at": "0001-01-01T00:00:00Z", "expires_at": "0001-01-02T00:00:00Z"}
    enqueue(client, order("c", **gone, **times))

    desk.work()

    assert answers(client)["c"].outcome is Outcome.EXPIRED


BOMBS = {
    "application/x-gzip": zlib.compress(bytes(5_000_000), 9),
    "application/x-bz2": bz2.compress(bytes(5_000_000)),
    "application/x-lzma": lzma.compress(bytes(5_000_000)),
}


@pytest.mark.parametrize("packing", BOMBS)
def test_a_body_that_unpacks_to_more_than_an_entry_may_hold_is_buried_as_it_came(
    desk: Desk, client: Any, packing: str
) -> None:
    client.xadd(KEYS.intents, {"body": BOMBS[packing], "compression": packing})

    desk.work()

    assert dead(client) == [("invalid", BOMBS[packing])]
    assert unfinished(client) == {}


@pytest.mark.parametrize("packing", ["zlib", "bzip2", "xz"])
def test_a_packed_intent_of_ordinary_size_is_worked(desk: Desk, client: Any, packing: str) -> None:
    pack = {"zlib": zlib.compress, "bzip2": bz2.compress, "xz": lzma.compress}[packing]
    client.xadd(KEYS.intents, {"body": pack(order("a")), "compression": packing})

    desk.work()

    assert answers(client)["a"].accepted and dead(client) == []


@pytest.mark.parametrize("fields", [{"n" * 70_000: ""}, {f"{n:0100}": "" for n in range(700)}])
def test_names_of_fields_count_for_the_size_of_an_entry(
    desk: Desk, client: Any, fields: dict[str, str]
) -> None:
    client.xadd(KEYS.intents, {"body": order("a"), **fields})

    desk.work()

    assert [reason for reason, _ in dead(client)] == ["oversize"]
    assert answers(client) == {} and unfinished(client) == {}


@pytest.mark.parametrize("symbol", ["000660", "005930"])
def test_bytes_with_the_id_of_an_order_that_waits_do_not_let_it_pass_and_are_buried(
    desk: Desk, client: Any, symbol: str
) -> None:
    bad = order("x", symbol="005930", quantity="none")
    # Burials go one by one, so the bad one still lies in its lane when the head of the lane leaves it.
    enqueue(client, *(b"garbage %d" % n for n in range(30)))
    enqueue(client, order("b"), bad, order("a", symbol=symbol), order("x", symbol=symbol))

    while desk.step():
        assert not (state(client, "a") == "in_flight" and state(client, "x") == "in_flight")

    assert ("invalid", bad) in dead(client)
    assert {name: one.accepted for name, one in answers(client).items()} == {"a": True, "b": True, "x": True}
    assert unfinished(client) == {}


def test_an_entry_whose_place_another_one_has_taken_is_buried_all_the_same(desk: Desk, client: Any) -> None:
    enqueue(client, order("a"), order("x"))
    while state(client, "x") != "parked":
        desk.step()
    place = client.hget(KEYS.intent("x"), "member")
    other = order("x", quantity="none")

    found = desk.ledger.bury(
        other,
        reason="invalid",
        error="quantity: must be plain digits",
        entry_id="1-1",
        entry=place.split(b"\0")[1].decode(),
        intent_id="x",
        fingerprint="invalid:1",
        payload=b"",
        stream="",
    )

    assert found is Buried.BURIED and dead(client) == [("invalid", other)]
    assert client.zscore(KEYS.lanes, place) is not None


def test_a_schema_version_of_true_is_refused(desk: Desk, client: Any) -> None:
    enqueue(client, order("a", schema_version=True))

    desk.work()

    assert answers(client)["a"].outcome is Outcome.DENIED
