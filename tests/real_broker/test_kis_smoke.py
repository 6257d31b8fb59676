"""
Smallest orders at a real broker's paper server, by the settings that a worker would run with.

    EXECWORKER_CONFIG=worker.toml KIS_SMOKE_ROUTE=kis_paper python -m pytest -m real_broker tests/real_broker

Both the marker and ``KIS_SMOKE_ROUTE`` are needed, and the route must be in mode paper. Stop the route's workers before:
the two would share one app key and its one call a second. What is bought is sold again, and what rests is cancelled.

=============================  =====================================================================
``KIS_SMOKE_ROUTE``            the route whose broker, options and account are used
``KIS_SMOKE_SYMBOL``           a liquid KRX stock; default 005930
``KIS_SMOKE_PARTIAL``          shares of the order that may fill in parts; default 3
``KIS_SMOKE_AT``               a moment with an offset: the exchange's clock of a simulator (``--at``)
``KIS_SMOKE_PAUSE``            seconds between two calls; default 1.2
=============================  =====================================================================
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from contracts import OrderQuery, OrderRecord, OrderRequest, OrderResponse, OrderStatus, Side, TimeInForce
from worker.brokers.base import BaseBrokerAdapter
from worker.brokers.registry import adapter_class
from worker.clock import SystemClock
from worker.errors import Rejected
from worker.markets import State, Venue, nearest, price_limits, session
from worker.settings import Mode, load_settings

pytestmark = [pytest.mark.real_broker, pytest.mark.timeout(300)]

#: Seconds until an order must have shown up, and until a market order must have filled.
PATIENCE = 60.0
#: Seconds between two calls: a paper account has one a second.
PAUSE = float(os.environ.get("KIS_SMOKE_PAUSE", "1.2"))


class ShiftedClock(SystemClock):
    """The system's clock, whose wall shows another moment at the start and runs on from there."""

    def __init__(self, start: datetime | None) -> None:
        self._shift = start - super().now() if start else timedelta()

    def now(self) -> datetime:
        return super().now() + self._shift


@dataclass
class Account:
    """A paper account as this suite uses it: small orders, each undone at the end."""

    adapter: BaseBrokerAdapter
    symbol: str
    clock: ShiftedClock
    _placed: list[tuple[OrderRequest, OrderResponse]] = field(default_factory=list)

    def place(
        self, side: Side, quantity: int, price: Decimal | None, force: TimeInForce = TimeInForce.DAY
    ) -> OrderResponse:
        request = OrderRequest(
            client_order_id=f"smoke-{len(self._placed)}",
            symbol=self.symbol,
            side=side,
            quantity=Decimal(quantity),
            limit_price=price,
            time_in_force=force,
            venue=Venue.KRX,
            send_before=self.clock.boottime() + 10,
        )
        self.pause()
        answer = self.adapter.place_order(request)
        self._placed.append((request, answer))
        return answer

    def query(self, answer: OrderResponse) -> OrderQuery:
        return OrderQuery(
            self.symbol,
            broker_order_id=answer.broker_order_id,
            venue=Venue.KRX,
            reference=answer.reference,
            send_before=self.clock.boottime() + 10,
        )

    def look_up(self, answer: OrderResponse) -> OrderRecord | None:
        self.pause()
        return self.adapter.get_order(self.query(answer))

    def watch(
        self, answer: OrderResponse, until: Callable[[OrderRecord], bool], patience: float = PATIENCE
    ) -> list[OrderRecord]:
        """What the look-up showed, one after the other, up to the first that fits or the end of patience."""
        seen: list[OrderRecord] = []
        end = self.clock.boottime() + patience
        while self.clock.boottime() < end:
            record = self.look_up(answer)
            if record is not None:
                seen.append(record)
                if until(record):
                    break
        return seen

    def last_price(self) -> Decimal:
        """What one share costs now, known by buying it."""
        seen = self.watch(self.place(Side.BUY, 1, None), lambda record: record.status.is_final)
        assert seen and seen[-1].status is OrderStatus.FILLED, f"one share at market was not bought: {seen}"
        assert seen[-1].average_price is not None
        return seen[-1].average_price

    def resting_price(self, last: Decimal) -> Decimal:
        """Far below the market, and inside the day's limits as far as the last price tells."""
        return nearest(last * Decimal("0.85"), Venue.KRX).above

    def clean_up(self) -> None:
        """Cancel what works, and sell what was bought. Fails with what it could not undo."""
        held = Decimal(0)
        for request, answer in self._placed:
            record = self._ended(answer)
            held += record.filled_quantity * (1 if request.side is Side.BUY else -1)
        if held > 0:
            seen = self.watch(self.place(Side.SELL, int(held), None), lambda record: record.status.is_final)
            assert seen and seen[-1].status is OrderStatus.FILLED, (
                f"not all of {held} shares are sold: {seen}"
            )

    def _ended(self, answer: OrderResponse) -> OrderRecord:
        record = self.look_up(answer)
        if record is not None and not record.status.is_final:
            self.pause()
            self.adapter.cancel_order(self.query(answer))
            record = self.watch(answer, lambda seen: seen.status.is_final)[-1]
        assert record is not None and record.status.is_final, f"not undone, look at the account: {answer}"
        return record

    def pause(self) -> None:
        self.clock.wait(threading.Event(), PAUSE)


@pytest.fixture(scope="module")
def account(request: pytest.FixtureRequest) -> Iterator[Account]:
    name = os.environ.get("KIS_SMOKE_ROUTE")
    if "real_broker" not in request.config.option.markexpr:
        pytest.skip("orders at a real broker are opt-in: choose them with -m real_broker")
    if not name:
        pytest.skip("no credentials: KIS_SMOKE_ROUTE names no route of the settings (EXECWORKER_CONFIG)")
    route = load_settings().routes.get(name)
    if route is None:
        pytest.fail(f"KIS_SMOKE_ROUTE: the settings have no route {name}")
    if route.mode is not Mode.PAPER:
        pytest.fail(f"route {name} is in mode {route.mode}: this suite trades on paper only")
    start = os.environ.get("KIS_SMOKE_AT")
    clock = ShiftedClock(datetime.fromisoformat(start) if start else None)
    now = session(Venue.KRX, clock.now())
    if now.state is not State.OPEN:
        pytest.skip(now.text)
    adapter = adapter_class(route.broker).from_options(route.options, mode=route.mode, clock=clock)
    account = Account(adapter, os.environ.get("KIS_SMOKE_SYMBOL", "005930"), clock)
    try:
        yield account
    finally:
        try:
            account.clean_up()
        finally:
            adapter.close()


@pytest.fixture(scope="module")
def price(account: Account) -> Decimal:
    return account.last_price()


def test_a_bought_share_is_shown_as_filled_and_can_be_sold(account: Account, price: Decimal) -> None:
    sold = account.place(Side.SELL, 1, None)

    seen = account.watch(sold, lambda record: record.status.is_final)

    assert seen[-1].status is OrderStatus.FILLED
    assert (seen[-1].side, seen[-1].quantity, seen[-1].filled_quantity) == (Side.SELL, 1, 1)
    # Within a day's limits of what the same share cost a moment ago.
    assert seen[-1].average_price is not None
    assert abs(seen[-1].average_price - price) < price * Decimal("0.3")


def test_a_resting_order_is_shown_as_working_and_ends_cancelled(account: Account, price: Decimal) -> None:
    low = account.resting_price(price)
    placed = account.place(Side.BUY, 1, low)
    working = account.watch(placed, lambda record: True)[-1]

    account.pause()
    cancelled = account.adapter.cancel_order(account.query(placed))
    ended = account.watch(placed, lambda record: record.status.is_final)[-1]

    assert (working.status, working.limit_price) == (OrderStatus.WORKING, low)
    assert cancelled.broker_order_id == placed.broker_order_id
    assert (ended.status, ended.filled_quantity) == (OrderStatus.CANCELLED, 0)


def test_an_order_that_is_gone_cannot_be_cancelled_again(account: Account, price: Decimal) -> None:
    placed = account.place(Side.BUY, 1, account.resting_price(price))
    account.watch(placed, lambda record: True)
    account.pause()
    account.adapter.cancel_order(account.query(placed))
    account.watch(placed, lambda record: record.status.is_final)

    account.pause()
    with pytest.raises(Rejected):
        account.adapter.cancel_order(account.query(placed))


def test_the_orders_of_the_day_are_listed_to_the_end(account: Account, price: Decimal) -> None:
    placed = account.place(Side.BUY, 1, account.resting_price(price))
    account.watch(placed, lambda record: True)
    account.pause()

    scan = account.adapter.list_orders(account.clock.now() - timedelta(hours=1))

    assert scan.complete
    assert placed.broker_order_id in {record.broker_order_id for record in scan.orders}


def test_a_partial_fill_is_shown_as_what_it_is(account: Account, price: Decimal) -> None:
    quantity = int(os.environ.get("KIS_SMOKE_PARTIAL", "3"))
    over_the_market = nearest(min(price * Decimal("1.02"), price_limits(price, Venue.KRX).upper), Venue.KRX)
    placed = account.place(Side.BUY, quantity, over_the_market.above)

    seen = account.watch(placed, lambda record: record.status.is_final)

    filled = [record.filled_quantity for record in seen]
    assert filled == sorted(filled), "a fill was taken back"
    for record in seen:
        assert 0 <= record.filled_quantity <= record.quantity == quantity
        assert (record.status is OrderStatus.PARTIALLY_FILLED) == (0 < record.filled_quantity < quantity)
        assert (record.average_price is not None) == (record.filled_quantity > 0)
    if not any(0 < amount < quantity for amount in filled):
        pytest.skip(f"filled at once ({filled}): no part to be seen; KIS_SMOKE_PARTIAL asks for more shares")
