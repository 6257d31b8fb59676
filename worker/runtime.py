"""One worker process: its routes, its health server, its signals."""

from __future__ import annotations

import gc
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from pydantic import ValidationError

from contracts.wire import explain
from worker import __version__
from worker.clock import Clock, SystemClock
from worker.connection import Connect, connect
from worker.errors import ConfigError
from worker.health import HealthServer
from worker.logs import Event, Logger, configure
from worker.metrics import Metrics, WorkerState
from worker.notify import SOCKET, Notifier
from worker.route import Route
from worker.settings import Settings
from worker.told import telling

#: The longest that one thread keeps others from running, in seconds. Python's default of 5 ms is longer than a whole
#: turn of ours, and an answer from Redis would wait behind it.
_SWITCH_SECONDS = 0.001


class Worker:
    """All routes of one process. ``stop`` drains them; ``run`` returns when that is done."""

    def __init__(
        self,
        settings: Settings,
        routes: list[str] | None = None,
        *,
        start_halted: bool = False,
        log: Logger | None = None,
        clock: Clock | None = None,
        connect: Connect = connect,
        notify_socket: str | None = None,
        visiting: bool = False,
    ) -> None:
        """
        ``notify_socket`` is where systemd listens, if it does. ``visiting``: it is here for the while of a command,
        and no worker that anybody may count on.

        Raises:
            ConfigError: a route cannot be built; every fault of every route is listed.
        """
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._settings = settings
        self._clock = clock or SystemClock()
        self._connect = connect
        self._visiting = visiting
        log = log or configure(settings.log_level, settings.log_format, secrets=settings.secrets())
        self._log = log.bind(worker=self.name)
        names = routes or list(settings.routes)
        self._metrics = Metrics(names)
        self._metrics.state(WorkerState.STARTING)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self.routes = self._build(names, start_halted, connect, visiting)
        self.health = HealthServer(
            settings.metrics_host,
            settings.metrics_port,
            registry=self._metrics.registry,
            live=self._why_not_live,
            ready=self._why_not_ready,
            state=self._describe,
            logger=self._log,
        )
        self._systemd = Notifier(notify_socket, live=self._why_not_live, ready=self._why_not_ready)

    def _build(self, names: list[str], start_halted: bool, connect: Connect, visiting: bool) -> list[Route]:
        built: list[Route] = []
        faults: list[str] = []
        for name in names:
            try:
                built.append(
                    Route(
                        name,
                        self._settings,
                        worker=self.name,
                        metrics=self._metrics,
                        log=self._log,
                        clock=self._clock,
                        connect=connect,
                        port=lambda: self.health.port,
                        fail=self._fail,
                        start_halted=start_halted,
                        visiting=visiting,
                    )
                )
            except ConfigError as error:
                faults += error.faults
            except ValidationError as error:
                faults += [f"EXECWORKER_ROUTES__{name}__OPTIONS__{fault}" for fault in explain(error)]
        if faults:
            raise ConfigError(faults)
        return built

    def run(self) -> int:
        """
        Work until `stop`. Returns 0 after a clean drain, 1 when something was left in flight or a part failed.

        Raises:
            ConfigError: the metrics port cannot be had, or a route may not start on this Redis.
        """
        self._log.info(Event.HEALTH_LISTENING, host=self._settings.metrics_host, port=self.health.start())
        for note in self._settings.notes():
            self._log.warning(Event.SETTINGS_NOTE, note=note)
        try:
            with self._telling():
                return self._work()
        finally:
            self.health.stop()

    def _telling(self) -> AbstractContextManager[None]:
        # A visitor is here for a command such as `halt --cancel-open`, which nobody's phone may keep from starting.
        if self._visiting:
            return nullcontext()
        return telling(self._settings, self._connect, self.name, self._log, self._clock, self._metrics.told)

    def _work(self) -> int:
        for route in self.routes:
            route.start()
        self._metrics.state(WorkerState.RUNNING)
        while not self._stop.wait(1.0):
            self._report_progress()
            self._systemd.look()
        return self._drain()

    def stop(self) -> None:
        """Drain: take nothing more, finish what is in flight, leave."""
        self._stop.set()

    def _drain(self) -> int:
        self._metrics.state(WorkerState.DRAINING)
        self._systemd.stopping(self._settings.drain_timeout)
        self._log.info(Event.WORKER_DRAINING, in_flight=sum(route.in_flight for route in self.routes))
        until = self._clock.boottime() + self._settings.drain_timeout
        for route in self.routes:
            route.stop_taking()
        finished = [route.finish(max(0.0, until - self._clock.boottime())) for route in self.routes]
        if isinstance(self._failure, ConfigError):
            raise self._failure
        if self._failure is not None:
            return 1
        if not all(finished):
            left = sum(route.in_flight for route in self.routes)
            self._log.warning(Event.WORKER_CUT_SHORT, in_flight=left)
            return 1
        self._log.info(Event.WORKER_STOPPED)
        return 0

    def _report_progress(self) -> None:
        """When the slowest loop last turned, on the wall clock."""
        behind = self._clock.boottime() - min(min(route.beats().values()) for route in self.routes)
        self._metrics.progress(self._clock.now().timestamp() - behind)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._stop.set()

    def _why_not_live(self) -> str | None:
        now = self._clock.boottime()
        return next((why for route in self.routes if (why := route.hung(now))), None)

    def _why_not_ready(self) -> str | None:
        if self._stop.is_set():
            return "draining"
        for route in self.routes:
            if route.error is not None:
                return f"route {route.name}: {route.error}"
            if not route.intake.connected:
                return f"route {route.name}: the queue is away: {route.intake.error}"
        return None

    def _describe(self) -> Mapping[str, object]:
        return {
            "worker": self.name,
            "version": __version__,
            "pid": os.getpid(),
            "state": "draining" if self._stop.is_set() else "running",
            "routes": {
                route.name: {
                    "broker": route.settings.broker,
                    "mode": route.settings.mode,
                    "registered": route.registered,
                    "queue": "connected" if route.intake.connected else "away",
                    "in_flight": route.in_flight,
                    "error": route.error,
                }
                for route in self.routes
            },
        }


def run(settings: Settings, routes: list[str] | None = None, start_halted: bool = False) -> int:
    """
    Run a worker in this process until a signal. TERM and INT drain it; a second one ends it at once.

    Raises:
        ConfigError: it cannot start as it is set up.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    # systemd's variable, not a setting of ours.
    notify_socket = os.environ.get(SOCKET)
    worker = Worker(settings, routes, start_halted=start_halted, notify_socket=notify_socket)
    # Nothing built so far is ever garbage, and intents leave no cycles behind: look for them seldom.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    restore = _on_signals(worker.stop)
    try:
        return worker.run()
    finally:
        restore()


def _on_signals(stop: Callable[[], None]) -> Callable[[], None]:
    asked: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if asked:
            # Leases run out, and what is in flight then is in doubt: others take it from there.
            os._exit(128 + number)
        asked.append(number)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore
