"""Real workers follow what becomes of their orders at a simulated KIS; its book says what is true."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from contracts import ExecutionIntent, OrderEvent, OrderStatus, TimeInForce, load_order_event
from tests.conftest import RedisServer, make_intent, start_redis
from tests.limits.street import KEYS, Street, orders, simulator
from tests.process.workers import wait_until
from worker.simulate.faults import Fault
from worker.simulate.orders import Order, What
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

        def make(kis: dict[str, Any] | None = None, **route: Any) -> Street:
            simulated = simulator(**(kis or {}))
            url = stack.enter_context(simulated.serve())
            rules = {"mode": "live", "rate_limit": 100, "order_list_interval": 0.5, **route}
            here = Street(server, tmp_path, simulated, url, **rules)
            stack.callback(here.close)
            return here

        yield make


def buys(count: int, prefix: str, **changes: Any) -> list[ExecutionIntent]:
    """Buys at the upper price limit, of more than one second of the market holds."""
    stocks = [one for one in universe().values() if one.market == "KR" and not one.fund]
    return [
        make_intent(
            intent_id=f"{prefix}-{number}",
            symbol=stocks[number].symbol,
            quantity=700 + number,
            limit_price=stocks[number].rounded(stocks[number].base * Decimal("1.2")),
            created_at=datetime.now(UTC),
            **changes,
        )
        for number in range(count)
    ]


def lives(here: Street) -> dict[str, list[OrderEvent]]:
    """The events of each order, in their order."""
    found: dict[str, list[OrderEvent]] = defaultdict(list)
    for _, fields in here.client.xrange(KEYS.orders):
        event = load_order_event(fields[b"body"])
        found[event.broker_order_id].append(event)
    return dict(found)


def end_of(order: Order) -> tuple[OrderStatus, int]:
    for what, status in ((What.REFUSED, OrderStatus.REFUSED), (What.CANCELLED, OrderStatus.CANCELLED)):
        if order.count(what):
            return status, order.filled
    if order.filled == order.quantity:
        return OrderStatus.FILLED, order.filled
    return OrderStatus.PARTIALLY_FILLED if order.filled else OrderStatus.WORKING, order.filled


def check_truth(here: Street) -> None:
    """Each order's last event says what the book says; on the way nothing went back and nothing was told twice."""
    told = lives(here)
    for number, order in here.on_the_book_as_orders().items():
        events = told[number]
        shown = [(one.status, one.filled_quantity, one.average_price) for one in events]
        assert shown[-1][:2] == end_of(order)
        assert len(shown) == len(set(shown))
        assert [one.filled_quantity for one in events] == sorted(one.filled_quantity for one in events)
        assert not any(one.status.is_final for one in events[:-1]) or order.count(What.CANCELLED)
        if order.filled:
            average = events[-1].average_price
            assert average is not None
            assert abs(average - order.amount / order.filled) < Decimal("0.01")


def is_told(here: Street, statuses: dict[str, OrderStatus]) -> Callable[[], bool]:
    """Whether the last event of each intent has its status."""

    def told() -> bool:
        last = {events[-1].intent_id: events[-1].status for events in lives(here).values()}
        return last == statuses

    return told


def test_every_accepted_order_is_followed_to_its_end_though_the_follower_is_killed(
    street: Callable[..., Street],
) -> None:
    here = street()
    workers = [here.worker(), here.worker()]
    here.open()
    filling, resting = buys(4, "fill"), orders(3, "rest")
    at_once = buys(1, "ioc", time_in_force=TimeInForce.IOC)

    here.enqueue([*filling, *resting, *at_once])
    here.answered([*filling, *resting, *at_once])
    wait_until(lambda: len(lives(here)) >= 4, "the first orders are seen")
    card = json.loads(here.client.hget(KEYS.workers, here.client.get(KEYS.follower)))
    next(one for one in workers if one.pid == card["pid"]).kill()
    here.client.delete(KEYS.follower)  # its lease ends
    here.meets(Fault(what="refuse_later", nth=1, seconds=0.5))
    refused = orders(4, "refused")[3:]
    here.enqueue(refused)
    here.answered(refused)

    wait_until(
        is_told(
            here,
            {one.intent_id: OrderStatus.FILLED for one in filling}
            | {one.intent_id: OrderStatus.WORKING for one in resting}
            | {one.intent_id: OrderStatus.CANCELLED for one in at_once}
            | {one.intent_id: OrderStatus.REFUSED for one in refused},
        ),
        "all is told",
        60,
    )
    check_truth(here)


def test_with_notices_changes_are_told_at_once_and_a_successor_makes_up_for_what_nobody_heard(
    street: Callable[..., Street],
) -> None:
    here = street(order_list_interval=600, options__hts_id="kim")
    first, *others = buys(4, "told")
    worker = here.worker()
    here.open()
    here.enqueue([first])
    wait_until(is_told(here, {first.intent_id: OrderStatus.FILLED}), "the first is filled")
    witnesses = {one.seen_by for events in lives(here).values() for one in events}
    here.enqueue(others)
    here.answered(others)

    worker.kill()
    here.worker()

    wait_until(
        is_told(here, {one.intent_id: OrderStatus.FILLED for one in (first, *others)}), "all are filled", 60
    )
    # The list is read once more when the line comes up, which may be after the order.
    assert "notice" in witnesses
    check_truth(here)
