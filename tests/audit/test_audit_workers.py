"""Real workers at a simulated KIS leave a trail that verifies, tells each order's story, and agrees with the broker."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from contracts import ExecutionIntent
from tests.conftest import RedisServer, make_intent, start_redis
from tests.limits.street import KEYS, Street, orders, simulator
from tests.process.workers import wait_until
from worker.audit.story import Story, tell
from worker.audit.verify import verify
from worker.simulate.faults import Fault
from worker.simulate.kis import KISSimulator
from worker.simulate.orders import Order
from worker.simulate.universe import universe

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

        def make(kis: KISSimulator | None = None, **route: Any) -> Street:
            simulated = kis or simulator()
            url = stack.enter_context(simulated.serve())
            rules = {"rate_limit": 100, "order_list_interval": 0.5, **route}
            here = Street(server, tmp_path, simulated, url, **rules)
            stack.callback(here.close)
            return here

        yield make


def report(here: Street) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """Exit code, orders and totals."""
    done = here.run("report", "today", "--json")
    *lines, totals = [json.loads(line) for line in done.stdout.splitlines()] or [{}]
    return done.returncode, lines, totals


def story(here: Street, intent_id: str) -> Story:
    found = tell(here.client, KEYS, intent_id)
    assert found is not None
    return found


def a_buy_that_fills(intent_id: str) -> ExecutionIntent:
    """Of more than one second of the market holds."""
    stock = next(one for one in universe().values() if one.market == "KR" and not one.fund)
    return make_intent(
        intent_id=intent_id,
        symbol=stock.symbol,
        quantity=700,
        limit_price=stock.rounded(stock.base * Decimal("1.2")),
        created_at=datetime.now(UTC),
    )


def order_of(here: Street, intent_id: str) -> Order:
    number = here.answers()[intent_id].broker_order_id
    return here.on_the_book_as_orders()[str(number)]


def test_after_a_clean_day_of_two_workers_the_trail_verifies_and_the_broker_agrees(
    street: Callable[..., Street],
) -> None:
    here = street()
    first, second = here.worker(), here.worker()
    here.open()
    placed = orders(12)
    here.enqueue(placed)
    here.answered(placed)
    # Whoever seals for all.
    card = json.loads(here.client.hget(KEYS.workers, wait_for(lambda: here.client.get(KEYS.sealer))))
    next(one for one in (first, second) if one.pid == card["pid"]).kill()
    more = orders(20, "more")[12:]
    here.enqueue(more)
    here.answered(more)
    here.client.delete(KEYS.sealer)  # its lease ends
    wait_until(lambda: verify(here.client, "default").unsealed == 0, "all is sealed", 60)
    wait_until(lambda: here.client.xlen(KEYS.orders) >= 20, "all orders are seen", 60)

    code, lines, totals = report(here)

    assert verify(here.client, "default").fault is None
    assert (code, totals["matching"], len(lines)) == (0, 20, 20)


def wait_for(found: Callable[[], Any]) -> Any:
    wait_until(lambda: found() is not None, "it is there", 60)
    return found()


def test_a_fill_that_nobody_followed_and_a_doubt_are_found_and_a_silent_broker_is_no_difference(
    street: Callable[..., Street],
) -> None:
    here = street(order_list_interval=3600)
    worker = here.worker()
    here.open()
    fills = a_buy_that_fills("fills")
    here.enqueue([fills])
    here.answered([fills])
    here.meets(Fault(what="lose_reply", nth=1))
    doubted = orders(4, "doubted")[3:]
    here.enqueue(doubted)
    wait_until(lambda: len(here.kis.orders()) == 2, "its order is on the book")
    worker.kill()
    here.meets()
    wait_until(lambda: not order_of(here, "fills").remaining, "it is filled", 60)

    code, lines, _ = report(here)

    assert code == 1
    told = {line["intent_id"]: line for line in lines}
    assert told["fills"]["finding"] == "differs"
    assert any("broker 700" in one for one in told["fills"]["differences"])
    assert told["doubted-003"]["finding"] == "in_doubt"

    here.meets(Fault(what="html", on="list", rate=1))
    assert report(here)[0] == 69


def test_the_story_has_what_went_over_the_wire_and_no_secret(street: Callable[..., Street]) -> None:
    here = street()
    here.worker()
    here.open()
    [placed] = orders(1)
    here.enqueue([placed])
    here.answered([placed])

    [wire] = [one.detail for one in story(here, placed.intent_id).audit if one.event == "wire"]

    assert "/uapi/domestic-stock/v1/trading/order-cash" in wire
    assert f"PDNO={placed.symbol}" in wire and "HTTP 200 rt_cd=0" in wire and " ms " in wire
    trail = b"".join(row[b"records"] for _, row in here.client.xrange(KEYS.audit))
    for secret in (b"12345678", b"key-of-the-tests", b"secret-of-the-tests"):
        assert secret not in trail
    # Of one intent that was claimed, launched, told of and settled.
    assert len(trail) < 1500
