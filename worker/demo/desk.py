"""The strategy's and the operator's desk in the demo: asks, reads what comes back, and shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

import redis

from contracts import (
    ContractError,
    ExecutionIntent,
    ExecutionResponse,
    FailsafeEvent,
    FailsafeType,
    IntentType,
    Side,
    load_event,
    load_order_event,
    load_response,
)
from worker.clock import Clock
from worker.connection import connect
from worker.demo.market import Company, limit_price
from worker.demo.place import Place
from worker.demo.screen import Screen
from worker.demo.tally import Tally, owned_orders, read_tally
from worker.ledger.control import Control
from worker.producer import IntentProducer, StreamEntry, read_after

ROUTE = "default"
#: Seconds in which anything that an act waits for must happen.
PATIENCE = 20.0
_NEVER = threading.Event()


class DemoFailed(Exception):
    """Something that the demo shows did not come true."""


class _Asked(NamedTuple):
    company: Company
    intent: ExecutionIntent
    #: When it was enqueued, in milliseconds of Redis's clock.
    at: int


class Desk:
    """Everything that the acts share."""

    def __init__(self, place: Place, screen: Screen, clock: Clock) -> None:
        self.place = place
        self.screen = screen
        self.clock = clock
        self._client = connect(place.redis.url, client_name="execworker:demo")
        self.producer = IntentProducer(self._client, ROUTE, clock=clock)
        self.control = Control(self._client, ROUTE)
        self.answers: dict[str, ExecutionResponse] = {}
        self.events: list[FailsafeEvent] = []
        self._asked: dict[str, _Asked] = {}
        keys = self.producer.keys
        self._positions = {keys.responses: "0-0", keys.failsafe: "0-0", keys.orders: "0-0"}

    def close(self) -> None:
        self._client.close()

    @property
    def asked(self) -> list[ExecutionIntent]:
        """The intents so far."""
        return [one.intent for one in self._asked.values()]

    def ask(self, company: Company, side: Side, ticks: int = 0) -> ExecutionIntent:
        """
        Enqueue a new LIMIT intent, at a price so many ticks away from the company's. Its number is its quantity, so
        that the broker's book, which knows no ids of ours, shows whose an order is.
        """
        number = len(self._asked) + 1
        intent = ExecutionIntent(
            intent_id=f"demo-{number:02}",
            intent_type=IntentType.LIMIT,
            symbol=company.symbol,
            side=side,
            quantity=Decimal(number),
            limit_price=limit_price(company, ticks),
            created_at=self.clock.now(),
            strategy="demo",
        )
        entry_id = self.producer.enqueue(intent)
        self._asked[intent.intent_id] = _Asked(company, intent, _milliseconds(entry_id))
        return intent

    def wait_for_answers(self, *intents: ExecutionIntent) -> None:
        """Show what comes until all of these are answered."""
        ids = {intent.intent_id for intent in intents}
        self.follow(lambda: ids <= self.answers.keys(), f"the answer to {', '.join(sorted(ids))}")

    def wait_for_event(self, kind: FailsafeType, intent: ExecutionIntent | None = None) -> None:
        """Show what comes until this was announced."""
        self.follow(lambda: self._has(kind, intent), f"the event {kind}")

    def follow(self, done: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """
        Show answers and events as they come, until ``done``.

        Raises:
            DemoFailed: it was not done in time.
        """
        until = self.clock.boottime() + seconds
        while not done():
            if self.clock.boottime() >= until:
                raise DemoFailed(f"{what} did not come within {seconds:g} s")
            self.read(0.2)

    def read(self, seconds: float) -> None:
        """Show what has come, and what comes within so many seconds."""
        try:
            # A read that had to wait brings one stream; what was published with it on the other comes at once.
            found = self._read(seconds)
            found += self._read(0) if found else []
            for stream, (position, fields) in sorted(found, key=_order):
                self._take(stream, position, fields[b"body"])
        except (redis.RedisError, ContractError) as error:
            raise DemoFailed(f"the streams cannot be read: {error}") from error

    def wait_for_orders(self, number: int, *intents: ExecutionIntent) -> None:
        """Wait until the broker's book holds so many orders for these."""
        self._poll(lambda: self.orders_of(*intents) >= number, f"the order number {number}")

    def wait_for_fills(self) -> Tally:
        """
        Show what comes until what was told of fills is what the book says, or for as long as can be expected. Returns
        that end state: a moment later an order may be filled again.
        """
        until = self.clock.boottime() + PATIENCE
        while True:
            self.read(0.2)
            if (tally := self.tally()).fills_are_told or self.clock.boottime() >= until:
                return tally

    def wait_for_empty_queue(self) -> None:
        """Wait until the worker has finished with every entry of the queue."""
        self._poll(lambda: self.control.status().queue_depth == 0, "an empty queue")

    def start_worker(self) -> int:
        """Start a worker process and wait until it is at work. Returns its pid."""
        pid = self.place.start_worker()
        self._poll(lambda: any(one.pid == pid for one in self.control.status().workers), "the worker")
        return pid

    def orders_of(self, *intents: ExecutionIntent) -> int:
        """How many orders the broker's book holds for these."""
        ids = {intent.intent_id for intent in intents}
        return sum(owner in ids for owner, _ in owned_orders(self.place.broker.orders(), self.asked))

    def tally(self) -> Tally:
        return read_tally(self._client, self.control, ROUTE, self.asked, self.place.broker.orders())

    def _has(self, kind: FailsafeType, intent: ExecutionIntent | None) -> bool:
        return any(
            event.type is kind and (intent is None or event.intent_id == intent.intent_id)
            for event in self.events
        )

    def _read(self, seconds: float) -> list[tuple[str, StreamEntry]]:
        found = read_after(self._client, self._positions, seconds)
        self._positions |= {stream: position for stream, (position, _) in found}
        return found

    def _take(self, stream: str, position: str, body: bytes) -> None:
        if stream == self.producer.keys.failsafe:
            self.events.append(event := load_event(body))
            self.screen.event(event)
            return
        if stream == self.producer.keys.orders:
            if (seen := load_order_event(body)).filled_quantity:
                self.screen.filled(seen)
            return
        response = load_response(body)
        self.answers[response.intent_id] = response
        if asked := self._asked.get(response.intent_id):
            seconds = (_milliseconds(position) - asked.at) / 1000
            self.screen.answer(asked.company, asked.intent, response, seconds)

    def _poll(self, done: Callable[[], bool], what: str) -> None:
        until = self.clock.boottime() + PATIENCE
        while not done():
            if self.place.workers_ended():
                raise DemoFailed("the worker has ended by itself")
            if self.clock.boottime() >= until:
                raise DemoFailed(f"{what} did not come within {PATIENCE:g} s")
            self.clock.wait(_NEVER, 0.03)


# One script may publish to both streams: a doubt ends, then comes its answer; an answer comes, then the guard trips.
def _order(found: tuple[str, StreamEntry]) -> tuple[int, int]:
    position, fields = found[1]
    kind = fields.get(b"type", b"").decode()
    rank = 1 if not kind else 0 if kind == FailsafeType.DOUBT_RESOLVED else 2
    return _milliseconds(position), rank


def _milliseconds(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])
