"""A broker whose list and notices a test writes, and a follower in front of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from contracts import (
    ExecutionResponse,
    OrderEvent,
    OrderNotice,
    OrderQuery,
    OrderRecord,
    OrderRequest,
    OrderResponse,
    OrderScan,
    OrderStatus,
    Outcome,
    Side,
    dump,
    load_order_event,
)
from worker.brokers import BaseBrokerAdapter, ClosedOptions
from worker.clock import Clock, ManualClock
from worker.errors import BrokerError
from worker.fills import Follower, FollowRules, Working
from worker.keys import RouteKeys
from worker.logs import Logger, configure

KEYS = RouteKeys("default")


class Exchange(BaseBrokerAdapter):
    """Shows what a test lets it show. Safe to share between followers."""

    Options = ClosedOptions
    broker_id = "exchange"
    client_order_ids = False
    visibility_lag = 0.5

    def __init__(self, clock: Clock) -> None:
        self.rows: dict[str, OrderRecord] = {}
        self.readings: list[datetime] = []
        self.fails = 0
        #: Seconds that a reading takes.
        self.takes = 0.0
        self.ears: list[tuple[Callable[[OrderNotice], None], Callable[[], None], threading.Event]] = []
        self._clock = clock

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, mode: str, clock: Clock) -> Self:
        raise NotImplementedError

    def place_order(self, request: OrderRequest) -> OrderResponse:
        raise NotImplementedError

    def get_order(self, query: OrderQuery) -> OrderRecord | None:
        raise NotImplementedError

    def cancel_order(self, query: OrderQuery) -> OrderResponse:
        raise NotImplementedError

    def list_orders(self, since: datetime) -> OrderScan:
        self.readings.append(since)
        if isinstance(self._clock, ManualClock):
            self._clock.advance(self.takes)
        if self.fails:
            self.fails -= 1
            raise BrokerError("the list did not come")
        return OrderScan(tuple(row for row in self.rows.values() if row.placed_at >= since), complete=True)

    def notices(
        self, heard: Callable[[OrderNotice], None], gap: Callable[[], None], stop: threading.Event
    ) -> None:
        self.ears.append((heard, gap, stop))
        gap()
        stop.wait(30)

    def says(self, number: str, status: str, filled: int = 0, price: int | None = None, **more: Any) -> None:
        """A notice, heard by whoever listens now."""
        heard, _, _ = self.ears[-1]
        heard(
            OrderNotice(
                number,
                "005930",
                OrderStatus(status),
                quantity=Decimal(10),
                filled_quantity=Decimal(filled),
                price=None if price is None else Decimal(price),
                **more,
            )
        )

    def shows(
        self, number: str, status: str = "WORKING", filled: int = 0, average: int | None = None
    ) -> None:
        """A row of the list, from now on."""
        row = self.rows.get(number) or OrderRecord(
            number, "005930", Side.BUY, Decimal(10), OrderStatus.WORKING, self._clock.now()
        )
        self.rows[number] = replace(
            row,
            status=OrderStatus(status),
            filled_quantity=Decimal(filled),
            average_price=None if average is None else Decimal(average),
        )


class Case:
    """Everything that the tests share. ``client`` may be of either kind."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self.connect = connect
        self.client = connect()
        self.clock = ManualClock()
        self.exchange = Exchange(self.clock)
        self.log: Logger = configure("error", clock=self.clock)
        self.published: list[OrderEvent] = []

    def follower(self, worker: str = "w1", client: Any = None, **rules: Any) -> Follower:
        return Follower(
            Working(client or self.connect(), "default", "exchange", self.clock),
            self.exchange,
            FollowRules(**rules),
            self.published.append,
            self.log,
            self.clock,
            worker,
        )

    def answer(
        self, intent_id: str, number: str | None, sent_at: datetime | None = None, **fields: str
    ) -> None:
        """An answer on the stream, as `settle` writes it: ACCEPTED under a number, or REJECTED."""
        answer = ExecutionResponse(
            intent_id=intent_id,
            accepted=number is not None,
            broker="exchange",
            message="",
            timestamp=self.clock.now(),
            outcome=Outcome.ACCEPTED if number else Outcome.REJECTED,
            code=None if number else "BROKER_REJECTED",
            broker_order_id=number,
            route="default",
            attempts=1,
            sent_at=sent_at or self.clock.now(),
        )
        self.client.xadd(KEYS.responses, {"intent_id": intent_id, "body": dump(answer), **fields})

    def events(self) -> list[OrderEvent]:
        return [load_order_event(fields[b"body"]) for _, fields in self.client.xrange(KEYS.orders)]

    def told(self, number: str = "N1") -> list[tuple[str, int, int | None, str]]:
        """Status, cumulative quantity, average price and witness of an order's events."""
        return [
            (
                str(one.status),
                int(one.filled_quantity),
                None if one.average_price is None else int(one.average_price),
                one.seen_by,
            )
            for one in self.events()
            if one.broker_order_id == number
        ]
