"""Whatever lies in the queue ends as an answer or a dead letter, and only an intent reaches the broker."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import fakeredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import ContractError, load_intent
from tests.conftest import RedisServer
from tests.desk import Desk, unfinished
from tests.hostile.camp import Camp
from tests.hostile.mill import Entry, Mill
from tests.hostile.siege import Fault, Judge, feed, gather, shown
from tests.hostile.truth import truth
from tests.mock_broker import MockBroker
from worker.clock import ManualClock

SEED = int(os.environ.get("HOSTILE_SEED", "1"))


class Bench:
    """A worker on a Redis made of Python, turned by hand."""

    def __init__(self) -> None:
        self.client = fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)
        self.broker = MockBroker()
        self.clock = ManualClock(datetime.now(UTC))
        self.desk = Desk(self.client, self.broker, self.clock)
        self._judge = Judge()
        self._read = 0

    def faults(self, entries: list[tuple[int, Entry]]) -> list[Fault]:
        """Feed them, work to the end, and judge."""
        fed = feed(self.client, entries)
        self.rest()
        placed = [str(request.client_order_id) for request in self.broker.placed]
        found = self._judge.judge(fed, gather(self.client, placed[self._read :]))
        self._read = len(placed)
        return found + [Fault(fed[-1], f"left over: {left}") for left in [unfinished(self.client)] if left]

    def rest(self) -> None:
        """Work until nothing is left, or nothing more comes of it. Some wait for a moment: an order behind a CANCEL."""
        for _ in range(40):
            self.desk.work()
            if not unfinished(self.client):
                return
            self.clock.advance(0.3)
            time.sleep(0.02)
            self.desk.sweep()


def smallest(entry: Entry) -> Entry:
    """The entry with as much of its body cut away as it can lose and still break a promise."""

    def breaks(body: bytes) -> bool:
        other = entry._replace(fields=((b"body", body), *entry.fields[1:]), plain=body)
        try:
            return bool(Bench().faults([(0, other)]))
        except Exception:  # noqa: BLE001  (a worker that ends is what is looked for)
            return True

    body = entry.plain or b""
    size = len(body) // 2
    while size and breaks(body):
        cuts = (body[:at] + body[at + size :] for at in range(0, len(body), size))
        cut = next(filter(breaks, cuts), None)
        body, size = (cut, size) if cut is not None else (body, size // 2)
    return entry._replace(fields=((b"body", body), *entry.fields[1:]), plain=body)


def report(faults: list[Fault]) -> str:
    lines = [shown(fault, SEED) for fault in faults[:5]]
    if faults and faults[0].fed.entry.plain is not None:
        lines.append(f"smallest: {smallest(faults[0].fed.entry).plain!r}")
    return "\n".join(lines)


def test_every_entry_of_the_mill_ends_in_an_answer_or_among_the_dead_letters() -> None:
    bench, mill = Bench(), Mill(SEED)

    for first in range(0, 240, 60):
        faults = bench.faults([(number, mill.entry(number)) for number in range(first, first + 60)])

        assert not faults, report(faults)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_the_contract_takes_what_its_page_says_and_nothing_else(seed: int, number: int) -> None:
    entry = Mill(seed, lambda: datetime(2026, 11, 23, 9, tzinfo=UTC)).entry(number)
    if entry.plain is None:
        return
    wanted = truth(entry.plain)

    try:
        load_intent(entry.plain)
        found, intent_id = True, wanted.intent_id
    except ContractError as error:
        found, intent_id = False, error.intent_id

    assert wanted.valid in (found, None), entry
    assert intent_id == wanted.intent_id, entry


_names = st.sampled_from(
    [
        "intent_id",
        "intent_type",
        "symbol",
        "side",
        "quantity",
        "limit_price",
        "created_at",
        "expires_at",
        "metadata",
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(_names | st.text(max_size=5), inner, max_size=9)
    ),
    max_leaves=12,
)
_bodies = st.binary(max_size=200) | _json.map(lambda made: json.dumps(made).encode())
_fields = st.lists(
    st.tuples(
        st.sampled_from([b"body", b"compression", b"properties", b"content-type"]) | st.binary(max_size=9),
        _bodies,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_fields, min_size=1, max_size=8))
def test_no_entry_ends_the_worker_or_stays_behind(entries: list[list[tuple[bytes, bytes]]]) -> None:
    bench = Bench()
    feed(bench.client, [(0, Entry("any", tuple(fields), None)) for fields in entries])

    bench.rest()

    assert unfinished(bench.client) == {}
    assert bench.broker.placed == []


@pytest.fixture
def camp(redis_server: RedisServer, tmp_path: Any) -> Iterator[Camp]:
    camp = Camp(redis_server, tmp_path, SEED)
    yield camp
    camp.close()


@pytest.mark.real_redis
@pytest.mark.process
def test_a_real_worker_survives_the_mill_and_goes_on_trading(camp: Camp) -> None:
    faults = camp.run(2000, chunk=500)

    assert not faults, report(faults)
    assert camp.errors() == []
    assert camp.orders > 150
