"""One worker, turned by hand in the test's own thread: nothing happens unless the test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha1
from importlib.resources import files
from pathlib import Path
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
from worker.ledger import Ledger, LedgerRules, scripts
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
    What lies between a worker and the world. It numbers the calls that pass, from 1. Before a call, or after it was
    carried out and instead of its reply, something may happen: a fault that is raised, or anything else in the world.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.names: list[str] = []
        self._plans: dict[tuple[int, bool], Callable[[], None]] = {}
        #: What ended the process behind it. Nothing that runs while it falls reaches the world.
        self._death: BaseException | None = None

    def strike(self, number: int, *, after: bool, error: BaseException) -> None:
        """The call of this number meets ``error``."""

        def meet() -> None:
            raise error

        self.plan(number, after=after, what=meet)

    def plan(self, number: int, *, after: bool, what: Callable[[], None]) -> None:
        """This happens at the call of this number. If it raises nothing, the call goes on as if nothing had been."""
        self._plans[number, after] = what

    def next_process(self) -> Wire:
        """The wire of another process in the same place: what was still to come befalls that one."""
        found = Wire()
        found._plans = {(number - self.calls, after): what for (number, after), what in self._plans.items()}
        return found

    def through(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, over this wire."""

        def run(*args: Any, **options: Any) -> Any:
            if self._death is not None:
                raise self._death
            self.calls += 1
            number = self.calls
            self.names.append(name or _name_of(args))
            self._meet(number, False)
            reply = call(*args, **options)
            self._meet(number, True)
            return reply

        return run

    def _meet(self, number: int, after: bool) -> None:
        what = self._plans.pop((number, after), None)
        try:
            if what is not None:
                what()
        except Exception:
            raise
        except BaseException as death:
            self._death = death
            raise

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


def _name_of(command: Sequence[Any]) -> str:
    """A command's name; of a call of a script, the script's."""
    known = _scripts().get(str(command[1])) if len(command) > 1 else None
    return known[0] if known else str(command[0])


@cache
def _scripts() -> dict[str, tuple[str, str]]:
    folder = Path(str(files("worker.ledger"))) / "lua"
    texts = {
        path.stem: scripts.source(path.stem)
        for path in folder.glob("*.lua")
        if path.stem not in scripts.PRELUDE
    }
    texts["take"] = (Path(str(files("worker.transport"))) / "take.lua").read_text("utf-8")
    return {
        sha1(text.encode(), usedforsecurity=False).hexdigest(): (name, text) for name, text in texts.items()
    }


def script_texts() -> dict[str, str]:
    """Every script that a worker calls, by its digest."""
    return {digest: text for digest, (_, text) in _scripts().items()}


class AheadLine:
    """
    A `worker.line.Line` without a socket: the server works a command as soon as it is sent, and its answer is there
    when somebody asks. When the connection breaks, every answer that nobody has asked for yet is lost with it.
    """

    #: Where the server is.
    address = "here"

    def __init__(self, client: Any) -> None:
        #: Commands sent so far.
        self.sent = 0
        self._client = client
        self._out: list[_Answer] = []
        # A line hands on what the server says as it is.
        client.response_callbacks.pop("INFO", None)

    def send(self, *command: Any) -> _Answer:
        return self._run(lambda: self._client.execute_command(*command))

    def eval(self, text: str, digest: str, keys: Sequence[str], args: Sequence[Any]) -> _Answer:
        # A server that has forgotten the script ran nothing, and is told it again.
        return self._run(
            lambda: self._client.evalsha(digest, len(keys), *keys, *args),
            lambda: self._client.eval(text, len(keys), *keys, *args),
        )

    def _run(self, command: Callable[[], Any], again: Callable[[], Any] | None = None) -> _Answer:
        answer = _Answer(again)
        self.sent += 1
        self._out = [one for one in self._out if not one.was_read]
        self._out.append(answer)
        try:
            answer.value = command()
        except redis.ConnectionError as error:
            for one in self._out:
                one.value = error
        except redis.ResponseError as error:
            answer.value = error
        return answer


class _Answer:
    def __init__(self, again: Callable[[], Any] | None) -> None:
        self.value: Any = None
        self.was_read = False
        self._again = again

    def get(self) -> Any:
        self.was_read = True
        if isinstance(self.value, redis.exceptions.NoScriptError) and self._again is not None:
            return self._again()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


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
        self.size = room
        self._run = run
        self.waiting: deque[Held] = deque()

    @property
    def in_flight(self) -> int:
        return len(self.waiting)

    def room(self) -> int:
        return self.size - len(self.waiting)

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

    def __init__(
        self, client: Any, name: str, clock: Clock, min_idle: float, line: Any | None = None
    ) -> None:
        options = Options(
            consumer=name,
            min_idle=min_idle,
            lanes={KEYS.intents: KEYS.lanes},
            dead={KEYS.intents: KEYS.dead, KEYS.cancels: KEYS.dead},
            clock=clock,
        )
        self.hand = Hand(client, options, line)
        self._sources = [Source(client, queue, options) for queue in (KEYS.cancels, KEYS.intents)]
        self._clock = clock

    def take(self, count: int = 64) -> Iterator[Delivery]:
        """What there is to take now, cancels first. Acks that did not arrive go out before it."""
        self.hand.flush()
        for source in self._sources:
            messages = source.take(None, count, self.hand)
            self.hand.add_many([one.delivery_tag for one in messages], self._clock.boottime())
            yield from (_delivery(source.queue, one) for one in messages)

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        with suppress(redis.RedisError):
            self.hand.ack_many([one.message.delivery_tag for one in deliveries])

    def release(self, deliveries: Iterable[Delivery]) -> None:
        for one in deliveries:
            self.hand.forget(one.message.delivery_tag)


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
        ahead: bool = False,
        wake: Callable[[], None] = lambda: None,
        journal: Any = None,
    ) -> None:
        """``ahead``: claims, settlements and acks are sent without waiting for the answer, as a worker sends them."""
        self.client = client
        self.clock = clock
        self.taken = 0
        line: Any = AheadLine(client) if ahead else None
        self.ledger = Ledger(client, ROUTE, name, LedgerRules(**(ledger or {})), clock, line)
        adapter = broker if isinstance(broker, BaseBrokerAdapter) else None
        by_key = adapter is not None and not adapter.client_order_ids
        if isinstance(broker, BaseBrokerAdapter):
            broker = create_broker_for_execution(True, broker, guard=OpenGuard(), clock=clock)
        self.door = Door(client, name, clock, min_idle, line)
        journal = journal or Journal(_METRICS.route(ROUTE), silent(), clock)
        rules = EngineRules(ROUTE, order_keys=by_key, **(engine or {}))
        self.engine = Engine(self.ledger, broker, rules, self.door, journal, clock, wake)
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
