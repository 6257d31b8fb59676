"""A broker that answers what a test tells it to. It exists for tests only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Self

from contracts import OrderQuery, OrderRecord, OrderRequest, OrderResponse, OrderScan
from worker.brokers import BaseBrokerAdapter, ClosedOptions
from worker.clock import Clock

#: What a call ends in: an answer, an exception to raise, or a function of the call's argument.
Answer = Any


class MockBroker(BaseBrokerAdapter):
    """
    Plays its answers in turn, the last one for ever; without any it accepts everything as ``M1``, ``M2``, …

    ``placed`` and ``cancelled`` record the calls, whatever they ended in. What ``orders`` holds is what
    look-ups show.
    """

    Options = ClosedOptions
    broker_id = "mock"
    client_order_ids = True
    visibility_lag = 0.0

    def __init__(self, *answers: Answer, cancels: Iterable[Answer] = ()) -> None:
        self.placed: list[OrderRequest] = []
        self.cancelled: list[OrderQuery] = []
        self.orders: list[OrderRecord] = []
        self.complete = True
        self.closed = False
        self._answers = list(answers)
        self._cancels = list(cancels)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, mode: str, clock: Clock) -> Self:
        ClosedOptions.model_validate(dict(options))
        return cls()

    def place_order(self, request: OrderRequest) -> OrderResponse:
        self.placed.append(request)
        return _play(self._answers, request, lambda: OrderResponse(f"M{len(self.placed)}", "held"))

    def cancel_order(self, query: OrderQuery) -> OrderResponse:
        self.cancelled.append(query)
        return _play(self._cancels, query, lambda: OrderResponse(query.broker_order_id or "M1", "cancelled"))

    def get_order(self, query: OrderQuery) -> OrderRecord | None:
        for order in self.orders:
            if query.broker_order_id in (None, order.broker_order_id) and query.client_order_id in (
                None,
                order.client_order_id,
            ):
                return order
        return None

    def list_orders(self, since: datetime) -> OrderScan:
        return OrderScan(tuple(order for order in self.orders if order.placed_at >= since), self.complete)

    def close(self) -> None:
        self.closed = True


def _play(answers: list[Answer], argument: object, otherwise: Callable[[], OrderResponse]) -> OrderResponse:
    if not answers:
        return otherwise()
    answer: Any = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(answer, BaseException):
        raise answer
    held: OrderResponse = answer(argument) if callable(answer) else answer
    return held
