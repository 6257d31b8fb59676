"""`worker halt --cancel-open`: nothing of ours is left in the market, whatever has become of the workers."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from contracts import FailsafeType, OrderRequest, OrderScan, Side
from tests.conftest import RedisServer, start_redis
from tests.limits.street import Street, orders, simulator
from tests.process.workers import Floor, wait_until
from worker import stopping
from worker.assembly import build_adapter
from worker.brokers import BaseBrokerAdapter
from worker.brokers.kis import Account, Credentials, Environment, KISClient, KISOrderAdapter
from worker.brokers.kis.orders import OrderRules
from worker.clock import SystemClock
from worker.connection import connect
from worker.settings import load_settings
from worker.simulate.faults import Fault

pytestmark = [pytest.mark.process, pytest.mark.real_redis]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    started = start_redis("--appendonly", "yes", "--appendfsync", "always")
    yield started
    started.stop()
    shutil.rmtree(started.folder, ignore_errors=True)


@pytest.fixture
def street(server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Street]]:
    with ExitStack() as stack:

        def make(**route: Any) -> Street:
            simulated = simulator()
            url = stack.enter_context(simulated.serve())
            here = Street(server, tmp_path, simulated, url, **{"rate_limit": 100, **route})
            stack.callback(here.close)
            return here

        yield make


def by_hand(here: Street) -> str:
    """A person buys on the same account, with the broker's own screens. Returns the order's number."""
    keys = Credentials(
        Environment.REAL,
        SecretStr("key-of-a-person"),
        SecretStr("secret-of-a-person"),
        Account.parse("12345678-01"),
        here.environ()["EXECWORKER_ROUTES__DEFAULT__OPTIONS__BASE_URL"],
    )
    adapter = KISOrderAdapter(KISClient(keys), OrderRules(check_hours=False))
    with_hand = OrderRequest("by-hand", "000660", Side.BUY, Decimal(3), Decimal(150_000))
    try:
        return adapter.place_order(with_hand).broker_order_id
    finally:
        adapter.close()


def rows(here: Street, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    done = here.run("halt", "--cancel-open", "--reason", "enough", "--json", *arguments)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def still_works(here: Street) -> set[str]:
    return {number for number, one in here.on_the_book_as_orders().items() if one.remaining}


def test_with_every_worker_dead_all_working_orders_are_cancelled(street: Callable[..., Street]) -> None:
    here = street()
    worker = here.worker()
    here.open()
    placed = orders(6)
    here.enqueue(placed)
    here.answered(placed)
    worker.kill()

    code, told = rows(here)

    assert code == 0
    assert told[-1] == {"route": "default", "action": "cancel_open", "found": 6, "left": 0, "saw_all": True}
    assert {one["intent_id"] for one in told[1:-1]} == {one.intent_id for one in placed}
    assert still_works(here) == set()
    assert here.client.hget("exec:{default}:state", "halted") == b"1"


def test_with_every_worker_hung_a_doubt_is_resolved_first_and_orders_of_others_are_left_alone(
    street: Callable[..., Street],
) -> None:
    here = street()
    worker = here.worker()
    here.open()
    placed = orders(3)
    here.enqueue(placed)
    here.answered(placed)
    foreign = by_hand(here)
    here.meets(Fault(what="lose_reply", nth=1))
    doubted = orders(4, "doubted")[3:]
    here.enqueue(doubted)
    wait_until(lambda: len(here.kis.orders()) == 5, "its order is on the book")
    worker.send(signal.SIGSTOP)
    here.meets()

    code, told = rows(here)

    assert code == 1
    assert told[-1] == {"route": "default", "action": "cancel_open", "found": 5, "left": 1, "saw_all": True}
    assert [one["broker_order_id"] for one in told[1:-1] if not one["cancelled"]] == [foreign]
    assert still_works(here) == {foreign}


def test_what_the_broker_does_not_cancel_is_named_with_its_reason(street: Callable[..., Street]) -> None:
    here = street()
    worker = here.worker()
    here.open()
    placed = orders(2)
    here.enqueue(placed)
    here.answered(placed)
    worker.kill()
    here.meets(Fault(what="EGW00206", on="cancel", nth=1))

    code, told = rows(here)

    assert code == 1
    assert told[-1]["left"] == 1
    assert [one["why"].split(":")[0] for one in told[1:-1] if not one["cancelled"]] == ["REJECTED"]
    assert rows(here)[0] == 0


class HalfAList:
    """A broker's list of which a part does not come, the first so many times: its last row, later its first."""

    def __init__(self, adapter: BaseBrokerAdapter, times: int) -> None:
        self._adapter = adapter
        self._times, self._read = times, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def list_orders(self, since: datetime) -> OrderScan:
        scan = self._adapter.list_orders(since)
        self._read += 1
        if self._read > self._times:
            return scan
        return OrderScan(
            scan.orders[:-1] if self._read <= stopping.READS else scan.orders[1:], complete=False
        )


@pytest.mark.parametrize(("times", "found", "left"), [(2, 3, 0), (100, 2, 1)])
def test_an_order_on_the_part_of_the_list_that_did_not_come_is_never_called_cancelled(
    server: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
    found: int,
    left: int,
) -> None:
    floor = Floor(server, tmp_path)
    try:
        worker = floor.worker()
        placed = orders(3)
        floor.enqueue(placed)
        wait_until(lambda: len(floor.answers()) == 3, "all is answered")
        worker.kill()
        settings = load_settings(floor.environ())
        monkeypatch.setattr(stopping, "build_adapter", lambda *_: HalfAList(build_adapter(*_), times))
        monkeypatch.setattr(stopping, "READ_AGAIN", 0.01)

        swept = stopping.cancel_open(settings, "default", floor.client, SystemClock(), connect, 20)

        assert (len(swept.orders), len(swept.left), swept.saw_all) == (found, left, left == 0)
    finally:
        floor.close()


def test_when_the_last_worker_dies_the_deadman_tells_halts_and_cancels(street: Callable[..., Street]) -> None:
    here = street(dead_man_after=2, dead_man_cancel=True)
    worker = here.worker()
    here.open()
    placed = orders(2)
    here.enqueue(placed)
    here.answered(placed)
    watching = here.start("deadman")
    worker.kill()

    wait_until(lambda: not still_works(here), "all is cancelled", 60)
    watching.send(signal.SIGTERM)

    assert watching.wait() == 0
    kinds = [one.type for one in here.events()]
    assert kinds.count(FailsafeType.NO_LIVE_WORKER) == 1
    assert kinds[-1] == FailsafeType.HALTED
