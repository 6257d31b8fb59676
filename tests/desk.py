"""One worker, turned by hand in the test's own thread: nothing happens unless the test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import redis

from contracts import (
    ExecutionIntent,
    ExecutionResponse,
    FailsafeEvent,
    IntentType,
    dump,
    load_event,
    load_response,
)
from worker.brokers import BaseBrokerAdapter, BrokerEngine, create_broker_for_execution
from worker.clock import Clock
from worker.engine import Engine, EngineRules
from worker.errors import Unavailable
from worker.guard import OpenGuard
from worker.hand import Ended, Held
from worker.intake import Delivery
from worker.journal import Journal
from worker.keys import RouteKeys
from worker.ledger import Ledger, LedgerRules
from worker.logs import silent
from worker.metrics import Metrics
from worker.resolver import Resolver, ResolverRules
from worker.sender import Sender
from worker.transport.hand import Hand
from worker.transport.options import Options
from worker.transport.source import Source

ROUTE = "default"
KEYS = RouteKeys(ROUTE)
_METRICS = Metrics([ROUTE])


class Wire:
    """
    What lies between a worker and the world. It numbers the calls that pass, from 1, and one of them may meet a
    ``fault``: raised before the call, or after it was carried out and instead of its reply.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.names: list[str] = []
        self._fault: tuple[int, bool, BaseException] | None = None

    def strike(self, number: int, *, after: bool, error: BaseException) -> None:
        """The call of this number meets ``error``."""
        self._fault = number, after, error

    @property
    def struck(self) -> bool:
        return self._fault is not None and self.calls >= self._fault[0]

    def through(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, over this wire."""

        def run(*args: Any, **options: Any) -> Any:
            self.calls += 1
            self.names.append(name or str(args[0]))
            number, after, error = self._fault or (0, False, None)
            if error is None or number != self.calls:
                return call(*args, **options)
            if after:
                call(*args, **options)
            raise error

        return run

    def tap(self, client: Any) -> Any:
        """Lead every command of a Redis client over this wire. Returns the client."""
        pipeline = client.pipeline

        def tapped(*args: Any, **options: Any) -> Any:
            pipe = pipeline(*args, **options)
            pipe.execute = self.through("pipeline", pipe.execute)
            return pipe

        client.execute_command = self.through("", client.execute_command)
        client.pipeline = tapped
        return client


class Outbox:
    """A sender without threads: what it was given leaves when the test turns it, ``run`` orders at a time."""

    def __init__(
        self,
        broker: BrokerEngine,
        ended: Callable[[Sequence[Ended]], None],
        clock: Clock,
        room: int,
        run: int,
    ) -> None:
        self._sender = Sender(broker, ROUTE, 1, ended, clock)
        self._room = room
        self._run = run
        self.waiting: deque[Held] = deque()

    @property
    def in_flight(self) -> int:
        return len(self.waiting)

    def room(self) -> int:
        return self._room - len(self.waiting)

    def send(self, batch: Sequence[Held]) -> None:
        self.waiting.extend(batch)

    def turn(self) -> bool:
        """Nothing leaves of itself."""
        return False

    def work(self) -> bool:
        run = [self.waiting.popleft() for _ in range(min(self._run, len(self.waiting)))]
        if run:
            self._sender.work(run)
        return bool(run)


class Door:
    """The queue's side of a worker: the transport's own scripts, without kombu and without threads."""

    def __init__(self, client: Any, name: str, clock: Clock, min_idle: float) -> None:
        options = Options(
            consumer=name,
            min_idle=min_idle,
            lanes={KEYS.intents: KEYS.lanes},
            dead={KEYS.intents: KEYS.dead, KEYS.cancels: KEYS.dead},
            clock=clock,
        )
        self._hand = Hand(client, options)
        self._sources = [Source(client, queue, options) for queue in (KEYS.cancels, KEYS.intents)]
        self._clock = clock

    def take(self, count: int = 64) -> Iterator[Delivery]:
        """What there is to take now, cancels first. Acks that did not arrive go out before it."""
        self._hand.flush()
        for source in self._sources:
            messages = source.take(None, count, self._hand)
            self._hand.add_many([one.delivery_tag for one in messages], self._clock.boottime())
            yield from (_delivery(source.queue, one) for one in messages)

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        with suppress(redis.RedisError):
            self._hand.ack_many([one.message.delivery_tag for one in deliveries])

    def release(self, deliveries: Iterable[Delivery]) -> None:
        for one in deliveries:
            self._hand.forget(one.message.delivery_tag)


def _delivery(queue: str, message: Any) -> Delivery:
    about = message.delivery_info
    count, fault = about["delivery_count"], about.get("fault")
    return Delivery(message.body, about["entry_id"], queue, count, fault, message)


class Desk:
    """A worker of the route ``default``."""

    def __init__(
        self,
        client: Any,
        broker: BrokerEngine | BaseBrokerAdapter,
        clock: Clock,
        *,
        name: str = "w1",
        ledger: dict[str, Any] | None = None,
        engine: dict[str, Any] | None = None,
        room: int = 8,
        run: int = 1,
        min_idle: float = 10.0,
        exclusive: bool = False,
    ) -> None:
        self.client = client
        self.clock = clock
        self.taken = 0
        self.ledger = Ledger(client, ROUTE, name, LedgerRules(**(ledger or {})), clock)
        adapter = broker if isinstance(broker, BaseBrokerAdapter) else None
        by_key = adapter is not None and not adapter.client_order_ids
        if isinstance(broker, BaseBrokerAdapter):
            broker = create_broker_for_execution(True, broker, guard=OpenGuard(), clock=clock)
        self.door = Door(client, name, clock, min_idle)
        journal = Journal(_METRICS.route(ROUTE), silent(), clock)
        rules = EngineRules(ROUTE, order_keys=by_key, **(engine or {}))
        self.engine = Engine(self.ledger, broker, rules, self.door, journal, clock)
        self.orders = Outbox(broker, self.engine.ended, clock, room, run)
        self.cancels = Outbox(broker, self.engine.ended, clock, room, run)
        self.engine.orders, self.engine.cancels = self.orders, self.cancels
        self.resolver = adapter and Resolver(
            self.ledger,
            adapter,
            ResolverRules(
                ROUTE, quiet=self.ledger.rules.order_timeout + 1 + adapter.visibility_lag, exclusive=exclusive
            ),
            _METRICS.route(ROUTE),
            silent(),
            clock,
            name,
        )
        self.ledger.register(broker="mock", mode="paper", start_halted=False)

    def take(self) -> bool:
        before = self.taken
        if self.engine.wants_more():
            for delivery in self.door.take():
                self.taken += 1
                self.engine.deliver(delivery)
        return self.taken > before

    def step(self) -> bool:
        """Everything once. True: something was done."""
        done = self.take()
        done |= self.engine.turn()
        done |= self.orders.work()
        return self.cancels.work() or done

    def work(self) -> None:
        """Go on until there is nothing to do, as far as the clock stands."""
        for _ in range(1000):
            if not self.step():
                return
        raise AssertionError("it never comes to rest")

    def work_through_outages(self) -> None:
        """The same as a worker's loops do it: while Redis is away, the same calls are made again."""
        for _ in range(1000):
            try:
                if not self.step():
                    return
            except (Unavailable, redis.ConnectionError):
                continue
        raise AssertionError("it never comes to rest")

    def sweep(self) -> list[str]:
        """Take over what nobody works on. Returns what fell in doubt."""
        handed, doubts = self.ledger.sweep(self.engine.room())
        self.engine.hand(handed)
        return doubts

    def renew(self) -> None:
        held = self.engine.hands.leases(self.clock.boottime(), 15.0)
        if held:
            self.ledger.renew(held)


# What the world sees.


def enqueue(client: Any, *messages: ExecutionIntent | bytes) -> None:
    """Put messages into the queue, each CANCEL into the stream of its own."""
    for message in messages:
        is_intent = isinstance(message, ExecutionIntent)
        is_cancel = is_intent and message.intent_type is IntentType.CANCEL
        body = dump(message) if is_intent else message
        client.xadd(KEYS.cancels if is_cancel else KEYS.intents, {"body": body})


def published(client: Any) -> list[ExecutionResponse]:
    return [load_response(fields[b"body"]) for _, fields in client.xrange(KEYS.responses)]


def answers(client: Any) -> dict[str, ExecutionResponse]:
    """The answer to each intent. Fails when one was answered twice."""
    found: dict[str, ExecutionResponse] = {}
    for response in published(client):
        assert response.intent_id not in found, f"{response.intent_id} was answered twice"
        found[response.intent_id] = response
    return found


def events(client: Any) -> list[FailsafeEvent]:
    return [load_event(fields[b"body"]) for _, fields in client.xrange(KEYS.failsafe)]


def kinds(client: Any) -> list[str]:
    return [event.type.value for event in events(client)]


def dead(client: Any) -> list[tuple[str, bytes]]:
    """Reason and body of each dead letter."""
    return [(fields[b"reason"].decode(), fields[b"body"]) for _, fields in client.xrange(KEYS.dead)]


def state(client: Any, intent_id: str) -> str | None:
    found = client.hget(KEYS.intent(intent_id), "state")
    return found.decode() if found else None


def end_leases(client: Any) -> None:
    """As if all leases had ended and every waiting time were over."""
    for member in client.zrange(KEYS.open, 0, -1):
        client.zadd(KEYS.open, {member: 1})


def unfinished(client: Any) -> dict[str, int]:
    """What is still to be done. Empty when the route is at rest."""
    left = {name: client.zcard(getattr(KEYS, name)) for name in ("open", "doubts", "lanes")}
    for name in ("intents", "cancels"):
        stream = getattr(KEYS, name)
        groups = client.xinfo_groups(stream) if client.exists(stream) else []
        # Without a group nobody has taken anything yet.
        unread = groups[0].get("lag") or 0 if groups else client.xlen(stream)
        left[name] = unread + sum(one["pending"] for one in groups)
    return {name: count for name, count in left.items() if count}
