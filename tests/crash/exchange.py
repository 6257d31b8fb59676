"""The broker's own side, which holds what it was given, and a worker's line to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Self

import redis

from contracts import OrderQuery, OrderRecord, OrderRequest, OrderResponse, OrderScan, OrderStatus
from tests.desk import Wire
from worker.brokers import BaseBrokerAdapter, ClosedOptions
from worker.clock import Clock
from worker.errors import NotSent, OutcomeUnknown, Rejected

#: Seconds until an order shows in the exchange's list.
LAG = 0.5
#: Seconds that an order may be on its way after its sender has given up: less than what the kernel is allowed.
DELAY = 0.9


class Exchange:
    """
    It books doubles too. ``replies`` says how the calls of an intent end, one word a call: ``ok``; ``lost``, booked
    and no answer; ``delayed``, no answer and booked a little later; ``vanished``, neither; ``refused``;
    ``unreachable``, provably not sent.
    """

    def __init__(self, clock: Clock, replies: Mapping[str, Sequence[str]]) -> None:
        self._orders: list[OrderRecord] = []
        self._on_the_way: list[tuple[datetime, OrderRequest]] = []
        self._clock = clock
        self._opened = clock.now()
        self._replies = {intent_id: list(words) for intent_id, words in replies.items()}

    @property
    def orders(self) -> list[OrderRecord]:
        """The whole book, in the order of placing, with the intent of each order."""
        now = self._clock.now()
        while self._on_the_way and self._on_the_way[0][0] <= now:
            self._book(self._on_the_way[0][1], self._on_the_way.pop(0)[0])
        return self._orders

    def place(self, request: OrderRequest) -> OrderResponse:
        word = self._next(request.client_order_id)
        # As an adapter does, right before it writes.
        if word == "unreachable" or self._clock.boottime() > (request.send_before or 0):
            raise NotSent("connection refused")
        if word == "refused":
            raise Rejected("no", code="X1")
        now = self._clock.now()
        if word == "delayed":
            self._on_the_way.append((now + timedelta(seconds=DELAY), request))
        if word in ("delayed", "vanished"):
            raise OutcomeUnknown("no answer")
        order = self._book(request, now)
        if word == "lost":
            raise OutcomeUnknown("the reply was lost")
        return OrderResponse(order.broker_order_id, "held")

    def _book(self, request: OrderRequest, at: datetime) -> OrderRecord:
        order = OrderRecord(
            broker_order_id=f"N{len(self._orders) + 1}",
            symbol=request.symbol,
            side=request.side,
            quantity=request.quantity,
            status=OrderStatus.WORKING,
            placed_at=at,
            limit_price=request.limit_price,
            client_order_id=request.client_order_id,
        )
        self._orders.append(order)
        return order

    def cancel(self, query: OrderQuery) -> OrderResponse:
        place = next(n for n, row in enumerate(self.orders) if row.broker_order_id == query.broker_order_id)
        word = self._next(f"cancel of {self._orders[place].client_order_id}")
        if word == "unreachable" or self._clock.boottime() > (query.send_before or 0):
            raise NotSent("connection refused")
        if word == "vanished":
            raise OutcomeUnknown("no answer")
        if word == "refused" or self._orders[place].status.is_final:
            raise Rejected("it is done", code="X2")
        self._orders[place] = replace(self._orders[place], status=OrderStatus.CANCELLED)
        if word == "lost":
            raise OutcomeUnknown("the reply was lost")
        return OrderResponse(self._orders[place].broker_order_id, "cancelled")

    def shown(self) -> list[OrderRecord]:
        """What look-ups show: not the newest."""
        until = self._clock.now() - timedelta(seconds=LAG)
        return [row for row in self.orders if row.placed_at <= until]

    def is_closed(self) -> bool:
        """The session lasts half a minute."""
        return self._clock.now() > self._opened + timedelta(seconds=30)

    def _next(self, what: str) -> str:
        words = self._replies.get(what, [])
        return words.pop(0) if words else "ok"


class Line(BaseBrokerAdapter):
    """One worker's line to the exchange. Every call passes its wire."""

    Options = ClosedOptions
    broker_id = "exchange"
    client_order_ids = True
    visibility_lag = LAG

    def __init__(self, exchange: Exchange, wire: Wire) -> None:
        self._exchange = exchange
        self._place = wire.through("place_order", exchange.place)
        self._cancel = wire.through("cancel_order", exchange.cancel)
        self._shown = wire.through("list_orders", exchange.shown)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, mode: str, clock: Clock) -> Self:
        raise NotImplementedError

    def place_order(self, request: OrderRequest) -> OrderResponse:
        with _cut_off_is_unknown():
            answer: OrderResponse = self._place(request)
        return answer

    def cancel_order(self, query: OrderQuery) -> OrderResponse:
        with _cut_off_is_unknown():
            answer: OrderResponse = self._cancel(query)
        return answer

    def get_order(self, query: OrderQuery) -> OrderRecord | None:
        return next((row for row in self._rows() if row.broker_order_id == query.broker_order_id), None)

    def list_orders(self, since: datetime) -> OrderScan:
        return OrderScan(tuple(row for row in self._rows() if row.placed_at >= since), complete=True)

    def _rows(self) -> list[OrderRecord]:
        with _cut_off_is_unknown():
            rows: list[OrderRecord] = self._shown()
        return rows

    def session_over(self, symbol: str, since: datetime) -> bool:
        return self._exchange.is_closed()


class BlindLine(Line):
    """The same at an exchange that knows no ids of ours."""

    client_order_ids = False

    def _rows(self) -> list[OrderRecord]:
        return [replace(row, client_order_id=None) for row in super()._rows()]


@contextmanager
def _cut_off_is_unknown() -> Iterator[None]:
    try:
        yield
    except redis.ConnectionError as error:
        raise OutcomeUnknown("the line to the exchange went dead") from error
