"""A route with its queue, its Redis and its broker in one thread and on one clock, whose workers may die anywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any, Self

import fakeredis
import pytest
import redis

from contracts import (
    ExecutionIntent,
    OrderQuery,
    OrderRecord,
    OrderRequest,
    OrderResponse,
    OrderScan,
    OrderStatus,
)
from tests.crash.judge import History, Rules, read
from tests.desk import KEYS, Desk, Wire, enqueue, unfinished
from worker.brokers import BaseBrokerAdapter, ClosedOptions
from worker.clock import Clock, ManualClock
from worker.errors import NotSent, OutcomeUnknown, Rejected, Unavailable
from worker.ledger import scripts

#: fakeredis's modules that read the time.
_TIMED = ("_helpers", "_socket._base", "commands_mixins.server_mixin", "model._stream")
#: Seconds that pass when there is nothing to do: the pace of renewals.
PACE = 3.0
#: Seconds until an order shows in the exchange's list.
LAG = 0.5
_SCRIPTS = ("register", "claim", "launch", "settle", "sweep", "renew", "cancel", "look", "resolve", "bury")


class Killed(BaseException):
    """The process ends here. No handler may catch it."""


class MovedTime:
    """The module ``time``, with the clock of a test."""

    def __init__(self) -> None:
        self.clock: Clock = ManualClock()

    def time(self) -> float:
        return self.clock.now().timestamp()

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@contextmanager
def virtual_time() -> Iterator[MovedTime]:
    """fakeredis lives on a clock that the test moves."""
    moved = MovedTime()
    with pytest.MonkeyPatch.context() as patch:
        for name in _TIMED:
            patch.setattr(import_module(f"fakeredis.{name}"), "time", moved)
        yield moved


class Exchange:
    """The broker's own side: it holds what it was given, doubles too. ``replies`` says how calls of an intent end."""

    def __init__(self, clock: Clock, replies: Mapping[str, Sequence[str]]) -> None:
        self.orders: list[OrderRecord] = []
        self._clock = clock
        self._replies = {intent_id: list(words) for intent_id, words in replies.items()}

    def place(self, request: OrderRequest) -> OrderResponse:
        word = self._next(request.client_order_id)
        if word == "unreachable" or self._clock.boottime() > (request.send_before or 0):
            raise NotSent("connection refused")
        if word == "refused":
            raise Rejected("no", code="X1")
        number = f"N{len(self.orders) + 1}"
        self.orders.append(
            OrderRecord(
                broker_order_id=number,
                symbol=request.symbol,
                side=request.side,
                quantity=request.quantity,
                status=OrderStatus.WORKING,
                placed_at=self._clock.now(),
                client_order_id=request.client_order_id,
            )
        )
        if word == "lost":
            raise OutcomeUnknown("the reply was lost")
        return OrderResponse(number, "held")

    def cancel(self, query: OrderQuery) -> OrderResponse:
        word = self._next(f"cancel of {query.client_order_id}")
        if word == "unreachable":
            raise NotSent("connection refused")
        place = next(n for n, row in enumerate(self.orders) if row.broker_order_id == query.broker_order_id)
        if self.orders[place].status.is_final:
            raise Rejected("it is done", code="X2")
        self.orders[place] = replace(self.orders[place], status=OrderStatus.CANCELLED)
        if word == "lost":
            raise OutcomeUnknown("the reply was lost")
        return OrderResponse(self.orders[place].broker_order_id, "cancelled")

    def shown(self) -> list[OrderRecord]:
        """What look-ups show: not the newest."""
        until = self._clock.now() - timedelta(seconds=LAG)
        return [row for row in self.orders if row.placed_at <= until]

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
        with _cut_off_is_unknown():
            shown = self._shown()
        return next((row for row in shown if row.broker_order_id == query.broker_order_id), None)

    def list_orders(self, since: datetime) -> OrderScan:
        with _cut_off_is_unknown():
            shown = self._shown()
        return OrderScan(tuple(row for row in shown if row.placed_at >= since), complete=True)


@contextmanager
def _cut_off_is_unknown() -> Iterator[None]:
    try:
        yield
    except redis.ConnectionError as error:
        raise OutcomeUnknown("the line to the exchange went dead") from error


@dataclass(frozen=True)
class Scenario:
    """What strategies and operators do, and how the broker takes it."""

    #: Each part is enqueued when the one before is done with.
    parts: Sequence[Sequence[ExecutionIntent | bytes]]
    #: The outcome of each intent when nothing goes wrong.
    outcomes: Mapping[str, str]
    replies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    halted: bool = False
    workers: int = 1
    ledger: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """What befalls the first worker at its n-th call: it is ``killed``, or ``cut off`` from the other side."""

    number: int
    after: bool
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} {'after' if self.after else 'before'} call {self.number}"

    @property
    def error(self) -> BaseException:
        return Killed() if self.kind == "killed" else redis.ConnectionError("away")


class World:
    """One run of a scenario."""

    def __init__(self, moved: MovedTime, scenario: Scenario) -> None:
        self.clock = ManualClock()
        moved.clock = self.clock
        self._scenario = scenario
        self._server = fakeredis.FakeServer()
        self.client = self._connect()
        self.exchange = Exchange(self.clock, scenario.replies)
        self.wire = Wire()
        self._born = 0
        self._workers: list[Desk] = []
        for name in _SCRIPTS:
            self.client.script_load(scripts.source(name))

    def run(self, *faults: Fault) -> History:
        """From the first entry until nothing is left to do. The n-th fault befalls the n-th worker's wire."""
        wires = [self.wire, *(Wire() for _ in faults[1:])]
        for wire, fault in zip(wires, faults, strict=False):
            wire.strike(fault.number, after=fault.after, error=fault.error)
        self._wires = wires
        for _ in range(self._scenario.workers):
            self._spawn()
        if self._scenario.halted:
            operator = Desk(self._connect(), Line(self.exchange, Wire()), self.clock, name="operator")
            operator.ledger.command("halt", "kim@desk", "a drill")
        for part in self._scenario.parts:
            enqueue(self.client, *part)
            self._come_to_rest()
        return read(
            self.client,
            self.exchange.orders,
            keys=KEYS,
            rules=Rules(lane_on_doubt=self._scenario.ledger.get("lane_on_doubt", "wait")),
        )

    def _connect(self) -> Any:
        return fakeredis.FakeRedis(server=self._server, protocol=2)

    def _spawn(self) -> None:
        """A new process, which knows nothing of those before."""
        wire = self._wires.pop(0) if self._wires else Wire()
        self._born += 1
        rules = {"visibility_lag": LAG, **self._scenario.ledger}
        line, client = Line(self.exchange, wire), wire.tap(self._connect())
        for _ in range(2):  # Redis may be away when it starts
            try:
                self._workers.append(Desk(client, line, self.clock, name=f"w{self._born}", ledger=rules))
            except Killed:
                self._spawn()
            except Unavailable:
                continue
            return

    def _come_to_rest(self) -> None:
        for _ in range(60):
            for worker in list(self._workers):
                self._turn(worker)
            if not unfinished(self.client):
                return
            self.clock.advance(PACE)
        raise AssertionError(f"not at rest after {60 * PACE:.0f} s: {unfinished(self.client)}")

    def _turn(self, worker: Desk) -> None:
        """What a worker's loops do in a while. When it dies, another is started."""
        assert worker.resolver is not None
        chores: Sequence[Callable[[], object]] = (
            worker.renew,
            worker.work_through_outages,
            worker.sweep,
            worker.work_through_outages,
            worker.resolver.step,
        )
        try:
            for chore in chores:
                with suppress(Unavailable):
                    chore()
        except Killed:
            self._workers.remove(worker)
            self._spawn()
