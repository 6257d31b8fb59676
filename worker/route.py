"""One route of one worker: its parts, put together, and the threads that turn them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import redis

from contracts import OrderEvent
from worker.assembly import build_adapter, build_broker, common, engine_rules, ledger_rules, weak_redis
from worker.bell import Bell
from worker.canary import Canary
from worker.clock import Clock
from worker.connection import Connect, at_home, on_connect
from worker.durability import Confirmation, weaknesses
from worker.engine import Engine
from worker.errors import BrokerError, ConfigError, StateLost, Unavailable
from worker.fills import Follower, FollowRules, Working
from worker.intake import Delivery, Intake
from worker.journal import Journal
from worker.keys import ROUTES, SHARED, RouteKeys
from worker.ledger import USER_TIMEOUT, Ledger
from worker.ledger.control import HEARTBEAT_LOST
from worker.ledger.identity import ServerWatch
from worker.ledger.registry import enlist
from worker.line import Line
from worker.logs import Event, Logger
from worker.metrics import Metrics
from worker.reconciler import Reconciler
from worker.resolver import Resolver, ResolverRules
from worker.sender import Sender
from worker.settings import Mode, RouteSettings, Settings
from worker.transport.streams import SCHEMES
from worker.upkeep import Upkeep

#: Seconds between two tries to reach a Redis that is away, at first and at most.
_RETRY_FIRST, _RETRY_MAX = 0.1, 5.0
#: Seconds that the engine waits for something to do before it looks by itself.
_IDLE = 0.2
#: Seconds without a turn of a loop after which the worker counts as hung.
HUNG = 30.0


class Route:
    """Everything that one worker does for one route."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        worker: str,
        metrics: Metrics,
        log: Logger,
        clock: Clock,
        connect: Connect,
        port: Callable[[], int],
        fail: Callable[[BaseException], None],
        start_halted: bool,
        visiting: bool = False,
    ) -> None:
        self.name = name
        self._visiting = visiting
        self.settings: RouteSettings = settings.routes[name]
        self.registered = False
        self._queue_was_away = False
        self.error: str | None = "starting"
        self._worker = worker
        self._metrics = metrics
        self._log = log.bind(route=name)
        self._clock = clock
        self._fail = fail
        self._start_halted = start_halted
        self._bell = Bell()
        self._connect(settings, worker, connect)

        try:
            self._adapter = build_adapter(self.settings, clock)
        except ConfigError as error:
            raise ConfigError([f"EXECWORKER_ROUTES__{name}: {fault}" for fault in error.faults]) from error
        self._broker = build_broker(self.settings, self._adapter, clock)
        lag = self._adapter.visibility_lag if self._adapter else 0.0
        self._confirmation = Confirmation.of(settings)
        rules = ledger_rules(self.settings, self._adapter, self._confirmation)
        self._line = Line(self._client)
        self._watch = ServerWatch()
        on_connect(self._client, self._watch.look)
        self._ledger = Ledger(self._client, name, worker, rules, clock, self._line, self._watch)
        self._build_engine(settings, connect)
        self._build_upkeep(port)
        self._build_resolver(lag)
        self._build_follower()
        self._build_canary()
        self._metrics.route(name).in_session(self._in_session)

        self._leave = threading.Event()
        self._stop_intake = threading.Event()
        self._stop_sides = threading.Event()
        self._ready = threading.Event()
        self._turned = clock.boottime()
        self._threads: dict[str, threading.Thread] = {}

    def _connect(self, settings: Settings, worker: str, connect: Connect) -> None:
        home = at_home(settings.redis_url, RouteKeys(self.name).prefix)
        self._client = self._commons = self._registry = connect(home, client_name=f"execworker:{worker}")
        if home != settings.redis_url:
            # For what lies outside the route's slot. The list of routes has a client of its own: redis-py's transactions
            # on a cluster as a whole never leave a node that has died.
            self._registry = connect(at_home(settings.redis_url, ROUTES), client_name=f"execworker:{worker}")
            try:
                self._commons = connect(settings.redis_url, client_name=f"execworker-commons:{worker}")
            except redis.ConnectionError as error:
                raise Unavailable(f"Redis does not answer: {error}") from error

    def _build_engine(self, settings: Settings, connect: Connect) -> None:
        route = self.settings
        keys = self._ledger.keys
        self._owns_stream = urlsplit(settings.queue_url).scheme.partition("+")[0] in SCHEMES
        self.intake = Intake(
            at_home(settings.queue_url, keys.prefix),
            (keys.cancels, keys.intents),
            deliver=self._deliver,
            want=lambda: self.engine.wants_more(),
            prefetch=route.prefetch,
            transport_options={
                "consumer": self._worker,
                "min_idle": route.lease,
                "ahead": True,
                "max_entry_bytes": route.max_entry_bytes,
                "lanes": {keys.intents: keys.lanes},
                "lanes_max": route.max_parked,
                "dead": {keys.intents: keys.dead, keys.cancels: keys.dead},
                "client_name": f"execworker-queue:{self._worker}",
                "connect": connect,
            }
            if self._owns_stream
            else {},
            on_state=self._queue_state,
            clock=self._clock,
            hold=lambda: self.engine.appetite(),
            bell=self._bell,
        )
        journal = Journal(self._metrics.route(self.name), self._log, self._clock)
        rules = engine_rules(self.name, route, settings.halt_file, self._adapter)
        self.engine = Engine(
            self._ledger, self._broker, rules, self.intake, journal, self._clock, self.intake.wake
        )
        # Without ids of ours a launched order that never left takes long to be told from one that did.
        self._orders = Sender(
            self._broker,
            self.name,
            route.concurrency,
            self.engine.ended,
            self._clock,
            may_go_ahead=not rules.order_keys,
        )
        self._cancels = Sender(self._broker, self.name, 2, self.engine.ended, self._clock)
        self.engine.orders, self.engine.cancels = self._orders, self._cancels

    def _build_upkeep(self, port: Callable[[], int]) -> None:
        self._upkeep = Upkeep(
            self._ledger,
            self.engine,
            self._client,
            self._metrics.route(self.name),
            self._log,
            self._clock,
            worker=self._worker,
            port=port,
            lost=self._state_lost,
            away=self._redis_away,
            skew=self._metrics.clock_skew,
            owns_stream=self._owns_stream,
            must_be_durable=self._must_be_durable,
            about=common(self.settings),
            confirmation=self._confirmation,
            is_alive=lambda: not self._visiting and self.hung(self._clock.boottime()) is None,
        )

    def _wait_for_slot(self) -> None:
        """Until the broker's call limit has room for a look-up; a worker that leaves does not wait."""
        while (seconds := self._ledger.slot()) > 0 and not self._clock.wait(self._stop_sides, seconds):
            pass

    def _build_resolver(self, lag: float) -> None:
        route = self.settings
        self._resolver = None
        if self._adapter is not None:
            self._adapter.before_read = self._wait_for_slot
            self._adapter.share(self._commons, SHARED)
            rules = ResolverRules(
                self.name,
                escalate_after=route.doubt_escalate_after,
                quiet=route.order_timeout + USER_TIMEOUT + lag,
                exclusive=route.account_exclusive,
            )
            self._resolver = Resolver(
                self._ledger,
                self._adapter,
                rules,
                self._metrics.route(self.name),
                self._log,
                self._clock,
                self._worker,
            )
            self._reconciler = Reconciler(
                self._ledger,
                self._adapter,
                self._log,
                self._clock,
                lambda: bool(weaknesses(self._client, self._confirmation)),
                route.max_age,
            )

    def _build_follower(self) -> None:
        self._follower = None
        if self._adapter is not None and self._adapter.orders_change:
            metrics = self._metrics.route(self.name)
            stream = self._ledger.keys.responses

            def unreadable(entry: str, why: str) -> None:
                self._log.error(Event.ENTRY_UNREADABLE, stream=stream, entry=entry, reason=why)

            def published(event: OrderEvent) -> None:
                metrics.order_event(event.status)

            self._follower = Follower(
                Working(self._client, self.name, self._adapter.broker_id, self._clock, unreadable),
                self._adapter,
                FollowRules(self.settings.order_list_interval, self.settings.lease, self.settings.retention),
                published,
                self._log,
                self._clock,
                self._worker,
            )

    def _build_canary(self) -> None:
        self._canary = None
        if self.settings.canary_interval and not self._visiting:
            self._canary = Canary(
                self._client,
                self.name,
                interval=self.settings.canary_interval,
                retention=self.settings.retention,
                metrics=self._metrics.route(self.name),
                log=self._log,
                clock=self._clock,
                worker=self._worker,
            )

    def _in_session(self) -> bool:
        return self._adapter is not None and self._adapter.in_session(self._clock.now())

    @property
    def _must_be_durable(self) -> bool:
        is_live = self.settings.mode is Mode.LIVE and self.settings.live_allowed
        return is_live and not self.settings.allow_weak_durability

    @property
    def in_flight(self) -> int:
        return self._orders.in_flight + self._cancels.in_flight

    def start(self) -> None:
        """Start the threads. They wait for Redis, however long it takes."""
        targets = {"engine": self._run_engine, "upkeep": self._run_upkeep, "resolver": self._run_resolver}
        if self._follower is not None:
            targets["follower"] = self._run_follower
        if self._canary is not None:
            targets["canary"] = self._run_canary
        if not self.intake.can_be_woken:
            targets["intake"] = self._run_intake
        for name, target in targets.items():
            thread = threading.Thread(
                target=self._guarded, args=(target,), name=f"{name}-{self.name}", daemon=True
            )
            self._threads[name] = thread
            thread.start()

    def stop_taking(self) -> None:
        """Take nothing more from the queue, and give back what was not launched."""
        self._stop_intake.set()
        self.intake.wake()
        self._leave.set()
        self.engine.wake()

    def finish(self, seconds: float) -> bool:
        """Wait for what is in flight to be settled, for at most so many seconds. False: something was left behind."""
        engine = self._threads["engine"]
        engine.join(seconds)
        clean = not engine.is_alive() and self.engine.is_empty()
        self._stop_sides.set()
        self._orders.stop()
        self._cancels.stop()
        for name in self._threads.keys() - {"engine"}:
            self._threads[name].join(1.0)
        self._upkeep.leave()
        self._line.close()
        self.intake.close()
        self._client.close()
        self._registry.close()
        self._commons.close()
        return clean

    def beats(self) -> dict[str, float]:
        """When each loop last turned, on CLOCK_BOOTTIME."""
        if self.intake.can_be_woken:
            return {"engine": self._turned}
        return {"engine": self._turned, "intake": self.intake.beat}

    def hung(self, now: float) -> str | None:
        """Which loop has not turned for too long."""
        for loop, beat in self.beats().items():
            if now - beat > HUNG:
                return f"the {loop} loop of route {self.name} has not turned for {now - beat:.0f} s"
        return None

    # The threads.

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except ConfigError as error:
            self._log.error(Event.WORKER_FAILED, reason=str(error))
            self._fail(error)
        except BaseException as error:  # noqa: BLE001  a loop that ends by a fault of ours ends the process
            self._log.error(Event.WORKER_FAILED, reason=repr(error), exc_info=True)
            self._fail(error)

    def _run_engine(self) -> None:
        """Turn until it has drained. While Redis is away, wait for it: the same calls are made again then."""
        tries = 0
        while not self._has_drained():
            self._turned = self._clock.boottime()
            try:
                busy = self._turn()
                tries = 0
                self._look_out(0.0 if busy else self.engine.patience(_IDLE))
            except Unavailable as error:
                self._redis_away(error)
                if self._leave.is_set() and not self.engine.has_to_settle():
                    break
                delay = min(_RETRY_MAX, _RETRY_FIRST * 2**tries)
                tries = min(tries + 1, 10)
                self._clock.wait(self._stop_sides, random.uniform(delay / 2, delay))
            except StateLost as error:
                if self.registered:
                    self._log.error(Event.STATE_LOST, reason=str(error))
                self.registered = False
                self._clock.wait(self._stop_sides, 0.05)
        if self.intake.can_be_woken:
            self.intake.hang_up()

    def _has_drained(self) -> bool:
        return self.engine.is_draining and self.engine.is_empty()

    def _turn(self) -> bool:
        if not self.registered:
            self._register()
        if self._leave.is_set():
            self.engine.drain()
        busy = self.engine.turn()
        self._redis_answers()
        return busy

    def _look_out(self, seconds: float) -> None:
        """Take what has come from the queue, or wait for that or for a wake."""
        if self.intake.can_be_woken and not self._stop_intake.is_set():
            self.intake.turn(seconds)
        else:
            self._bell.wait(seconds)
            self._bell.clear()

    def _state_lost(self) -> None:
        """Somebody but the engine has found out: let it register anew."""
        self.registered = False
        self.engine.wake()

    def _register(self) -> None:
        route = self.settings
        self._watch.admitted = ""
        enlist(
            self._registry,
            self.name,
            broker=route.broker,
            mode=route.mode,
            account=route.account,
            in_use=lambda: self._ledger.is_in_use(HEARTBEAT_LOST),
        )
        is_live = route.mode is Mode.LIVE and route.live_allowed
        if self._must_be_durable and (faults := weaknesses(self._client, self._confirmation)):
            raise ConfigError(weak_redis(self.name, faults))
        how = self._ledger.register(broker=route.broker, mode=route.mode, start_halted=is_live)
        if how == "changed":
            self._log.warning(Event.SERVER_CHANGED)
        if self._start_halted:
            self._ledger.command("halt", self._worker, "started with --start-halted")
            self._start_halted = False
        if not self._visiting:
            # Before the first launch: what is sent from here on is sent by workers of one build.
            self._upkeep.beat()
        self._metrics.route(self.name).configured(broker=route.broker, mode=route.mode)
        self._log.info(Event.WORKER_STARTED, broker=route.broker, mode=route.mode, state=how)
        self.registered = True
        self._ready.set()

    def _deliver(self, delivery: Delivery) -> None:
        self.engine.deliver(delivery)
        if not self.intake.can_be_woken:
            self._bell.ring()

    def _run_intake(self) -> None:
        if self._wait_until_registered():
            self.intake.run(self._stop_intake)

    def _wait_until_registered(self) -> bool:
        while not self._ready.wait(0.2):
            self.intake.beat = self._clock.boottime()
            if self._leave.is_set():
                return False
        return True

    def _run_upkeep(self) -> None:
        while self._wait_until_registered() and not self._stop_sides.is_set():
            self._upkeep.turn()
            self._clock.wait(self._stop_sides, 0.1)

    def _run_resolver(self) -> None:
        resolver = self._resolver
        next_scan = self._clock.boottime()
        self._prepare()
        while resolver is not None and self._wait_until_registered() and not self._stop_sides.is_set():
            try:
                self._reconciler.step()
                resolver.step()
                if self._clock.boottime() >= next_scan:
                    interval = self.settings.orphan_scan_interval
                    next_scan = self._clock.boottime() + interval
                    if self._ledger.may_scan(interval):
                        resolver.scan()
            except (Unavailable, StateLost):
                pass  # the engine tells, and registers anew
            except Exception as error:  # noqa: BLE001  a fault of the adapter's look-ups must not stop the route
                self._log.error(Event.ADAPTER_FAULT, reason=repr(error), exc_info=True)
                self._clock.wait(self._stop_sides, 5.0)
            self._clock.wait(self._stop_sides, 0.2)

    def _run_follower(self) -> None:
        follower = self._follower
        while follower is not None and self._wait_until_registered() and not self._stop_sides.is_set():
            try:
                follower.turn()
            except (Unavailable, StateLost):
                self._clock.wait(self._stop_sides, 0.5)  # the engine tells
            except Exception as error:  # noqa: BLE001  a fault of the adapter's look-ups must not stop the route
                self._log.error(Event.ADAPTER_FAULT, reason=repr(error), exc_info=True)
                self._clock.wait(self._stop_sides, 5.0)
            follower.news.wait(0.2)
        if follower is not None:
            with suppress(Unavailable):
                follower.leave()

    def _run_canary(self) -> None:
        canary = self._canary
        while canary is not None and self._wait_until_registered() and not self._leave.is_set():
            try:
                pause = canary.turn()
            except (Unavailable, redis.RedisError):
                pause = 0.5  # a canary that Redis does not take counts as lost
            self._clock.wait(self._leave, pause)
        if canary is not None:
            canary.leave()

    def _prepare(self) -> None:
        if self._adapter is None or not self._wait_until_registered():
            return
        try:
            self._adapter.prepare()
        except (BrokerError, Unavailable) as error:
            self._log.warning(Event.BROKER_NOT_READY, reason=str(error))

    def _redis_answers(self) -> None:
        if self.error is not None and not self._upkeep.redis_is_away:
            if self.error != "starting":
                self._log.info(Event.REDIS_BACK)
            self.error = None
            self._metrics.redis_up(True)

    def _redis_away(self, error: Exception) -> None:
        self._metrics.redis_error()
        self._metrics.redis_up(False)
        if self.error in (None, "starting"):
            self._log.warning(Event.REDIS_AWAY, reason=str(error))
        self.error = str(error)

    def _queue_state(self, connected: bool) -> None:
        if connected:
            self._log.info(Event.QUEUE_BACK if self._queue_was_away else Event.QUEUE_READY)
            self._queue_was_away = False
        elif not self._stop_intake.is_set():
            self._queue_was_away = True
            self._log.warning(Event.QUEUE_AWAY, reason=self.intake.error)
