"""
Cancels what works at a broker, when somebody has stopped a route and wants nothing left in the market.

Each order is cancelled by a CANCEL intent, on the one way that all cancels take: in its lane, within the broker's call
limit and before everything else, written down before it leaves. A worker started here for the while carries them out,
so it makes no difference whether any other worker is alive.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import redis

from contracts import ExecutionIntent, ExecutionResponse, IntentType, OrderRecord, OrderScan
from worker.assembly import build_adapter
from worker.brokers import BaseBrokerAdapter
from worker.clock import Clock
from worker.connection import Connect, at_home
from worker.errors import ConfigError, Refused
from worker.keys import SHARED, RouteKeys
from worker.ledger import Ledger, LedgerRules
from worker.logs import configure
from worker.producer import IntentProducer, NoAnswerYet
from worker.runtime import Worker
from worker.settings import Settings

#: How far back the broker's list is read for orders that may still work.
REACH: Final = timedelta(days=7)
#: How often a list is read that comes in part only, and the seconds between.
READS: Final = 3
READ_AGAIN: Final = 1.0
_NEVER = threading.Event()


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order that worked when the list was read, and what became of the wish to cancel it."""

    order: OrderRecord
    #: Whose it is; empty for an order that no intent of the route asked for, which is left alone.
    intent_id: str
    #: The answer to its CANCEL; absent where none came in time, or none was asked for.
    answer: ExecutionResponse | None = None
    #: It still works, as far as the last list shows.
    still_works: bool = True

    @property
    def why(self) -> str:
        """Why it still works, or may."""
        if not self.intent_id:
            return "no answered intent of this route asked for it: see worker doubt list, or cancel it at the broker"
        if self.answer is None:
            return "its CANCEL was not answered in time; it stays in the queue until it expires"
        if self.answer.accepted:
            return "the broker took the request, and its list does not show that the order is over"
        return f"{self.answer.outcome}: {self.answer.message}"


@dataclass(frozen=True, slots=True)
class Swept:
    """The orders that worked, and what became of each."""

    orders: tuple[OpenOrder, ...]
    #: False: the broker showed a part of its list only, so there may be working orders that nobody saw.
    saw_all: bool

    @property
    def left(self) -> tuple[OpenOrder, ...]:
        """Those that still work, as far as anybody knows."""
        return tuple(one for one in self.orders if one.still_works)


def cancel_open(
    settings: Settings, route: str, client: redis.Redis, clock: Clock, connect: Connect, seconds: float
) -> Swept:
    """
    Cancel every working order of the route that is ours, and look again. Takes at most about ``seconds``. ``client``
    reaches all keys: of a cluster, on every node.

    Raises:
        Refused: this machine's settings cannot reach the route's broker; nothing was cancelled.
        BrokerError: the broker's list could not be read; nothing was cancelled.
        Unavailable: Redis does not answer.
    """
    adapter = _adapter(settings, route, clock)
    try:
        home = _at_home(settings, route, client, connect)
        ledger = Ledger(home, route, "halt", _rules(settings, route, adapter), clock)
        adapter.share(client, SHARED)
        adapter.before_read = lambda: _wait_for_slot(ledger, clock)
        with _a_worker(settings, route, clock, connect):
            _wait_for_answers(ledger, clock, seconds / 2)
            listed = _list(adapter, clock)
            working = [row for row in listed.orders if not row.status.is_final]
            found = [OpenOrder(row, _owner(ledger, adapter, row)) for row in working]
            if any(one.intent_id for one in found):
                found = _cancelled(found, home, route, clock, seconds / 2)
        return Swept(tuple(_looked_at_again(found, adapter, clock)), listed.complete)
    finally:
        adapter.close()


def _at_home(settings: Settings, route: str, client: redis.Redis, connect: Connect) -> redis.Redis:
    url = str(settings.redis_url)
    home = at_home(url, RouteKeys(route).prefix)
    return client if home == url else connect(home, client_name="execworker:cli")


def _adapter(settings: Settings, route: str, clock: Clock) -> BaseBrokerAdapter:
    if route not in settings.routes:
        raise Refused(
            f"route {route} is not in this machine's settings: cancel where its workers' settings are"
        )
    try:
        adapter = build_adapter(settings.routes[route], clock)
    except ConfigError as error:
        raise Refused(
            f"route {route}: its broker cannot be reached from here: {'; '.join(error.faults)}"
        ) from error
    if adapter is None:
        raise Refused(f"route {route} has mode off in this machine's settings: it has no broker to cancel at")
    return adapter


def _rules(settings: Settings, route: str, adapter: BaseBrokerAdapter) -> LedgerRules:
    return LedgerRules(rate_limit=settings.routes[route].rate_limit or adapter.rate_limit)


def _list(adapter: BaseBrokerAdapter, clock: Clock) -> OrderScan:
    """The broker's list. What comes in part only is read again, and all that was seen counts."""
    seen: dict[str, OrderRecord] = {}
    for tries_left in reversed(range(READS)):
        scan = adapter.list_orders(clock.now() - REACH)
        if scan.complete:
            return scan
        seen.update((row.broker_order_id, row) for row in scan.orders)
        if tries_left:
            _wait(clock, READ_AGAIN)
    return OrderScan(tuple(seen.values()), complete=False)


def _wait_for_answers(ledger: Ledger, clock: Clock, seconds: float) -> None:
    """Whose an order is may show only when its doubt has ended. What ends no doubt in time is reported as nobody's."""
    until = clock.boottime() + seconds
    while ledger.under_way() and clock.boottime() < until:
        _wait(clock, 0.2)


def _owner(ledger: Ledger, adapter: BaseBrokerAdapter, row: OrderRecord) -> str:
    if not adapter.client_order_ids:
        owner = ledger.owners([row.broker_order_id]).get(row.broker_order_id)
        return owner.intent_id if owner else ""
    name = row.client_order_id or ""
    return name if name and name in ledger.states([name]) else ""


@contextmanager
def _a_worker(settings: Settings, route: str, clock: Clock, connect: Connect) -> Iterator[None]:
    """One more worker of the route, in this process, on any free port."""
    quiet = settings.model_copy(update={"metrics_port": 0})
    log = configure("error", settings.log_format, secrets=settings.secrets())
    worker = Worker(quiet, [route], log=log, clock=clock, connect=connect, visiting=True)
    thread = threading.Thread(
        target=_run_quietly, args=(worker.run,), name=f"cancel-open-{route}", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(settings.drain_timeout)


def _run_quietly(run: Callable[[], object]) -> None:
    # What keeps this worker from starting keeps it from cancelling; others may still do it, and the report tells.
    try:
        run()
    except ConfigError:
        return


def _cancelled(
    found: Sequence[OpenOrder], client: redis.Redis, route: str, clock: Clock, seconds: float
) -> list[OpenOrder]:
    batch = secrets.token_hex(4)
    cancels = {f"cancel-open-{batch}-{number}": one for number, one in enumerate(found, 1) if one.intent_id}
    answers: dict[str, ExecutionResponse] = {}
    with IntentProducer(client, route, clock=clock) as producer:
        producer.enqueue_many(_cancel(name, one, clock, seconds) for name, one in cancels.items())
        try:
            for answer in producer.wait_many(cancels, seconds):
                answers[answer.intent_id] = answer
        except NoAnswerYet:
            pass
    asked = {one.order.broker_order_id: answers.get(name) for name, one in cancels.items()}
    return [replace(one, answer=asked.get(one.order.broker_order_id)) for one in found]


def _looked_at_again(found: list[OpenOrder], adapter: BaseBrokerAdapter, clock: Clock) -> list[OpenOrder]:
    """What works still, as soon as the list shows what was answered, and at the latest when it must show it."""
    until = clock.boottime() + adapter.visibility_lag
    while any(one.still_works for one in found):
        listed = _list(adapter, clock)
        found = [replace(one, still_works=_works(one, listed)) for one in found]
        taken = [one for one in found if one.still_works and one.answer is not None and one.answer.accepted]
        if not taken or clock.boottime() >= until:
            break
        _wait(clock, 1.0)
    return found


def _works(one: OpenOrder, listed: OrderScan) -> bool:
    """An order that a part of the list does not show may be on the other part."""
    for row in listed.orders:
        if row.broker_order_id == one.order.broker_order_id:
            return not row.status.is_final
    return one.still_works and not listed.complete


def _cancel(name: str, one: OpenOrder, clock: Clock, seconds: float) -> ExecutionIntent:
    now = clock.now()
    return ExecutionIntent(
        intent_id=name,
        intent_type=IntentType.CANCEL,
        symbol=one.order.symbol,
        target_intent_id=one.intent_id,
        created_at=now,
        expires_at=now + timedelta(seconds=seconds),
    )


def _wait_for_slot(ledger: Ledger, clock: Clock) -> None:
    while (seconds := ledger.slot()) > 0:
        _wait(clock, seconds)


def _wait(clock: Clock, seconds: float) -> None:
    clock.wait(_NEVER, seconds)
