"""
Notices that no worker of a route is alive, while its market is open.

A dead worker tells nobody. So this looks from outside: every worker process looks at the routes that it does not
serve, and ``worker deadman`` is a process that does nothing else, best started on another machine.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from pydantic import ValidationError

from worker.assembly import build_adapter
from worker.brokers import BaseBrokerAdapter
from worker.clock import Clock
from worker.connection import Connect, is_unavailable
from worker.errors import ConfigError, StateLost, Unavailable
from worker.keys import RouteKeys
from worker.ledger import Ledger, LedgerRules
from worker.ledger.control import Control
from worker.logs import Event, Logger, configure
from worker.settings import Mode, RouteSettings, Settings
from worker.stopping import cancel_open

#: Seconds between two looks, and between two tries to cancel.
LOOK_EVERY: Final = 1.0
TRY_EVERY: Final = 30.0
#: Seconds that one try to cancel may take.
CANCEL_WITHIN: Final = 60.0
ACTOR: Final = "deadman"


@dataclass(slots=True)
class _Watched:
    name: str
    ledger: Ledger
    adapter: BaseBrokerAdapter | None
    #: The outage whose orders are all cancelled, when to try again, and who does: a broker that hangs holds no other up.
    swept: str = ""
    try_from: float = 0.0
    sweeper: threading.Thread | None = None

    @property
    def is_sweeping(self) -> bool:
        return self.sweeper is not None and self.sweeper.is_alive()


class Deadman:
    """Looks at some routes of the settings. ``step`` raises nothing that a later step may not mend."""

    def __init__(
        self,
        settings: Settings,
        routes: list[str],
        client: redis.Redis,
        log: Logger,
        clock: Clock,
        connect: Connect,
    ) -> None:
        self._settings = settings
        self._client: Any = client
        self._log = log
        self._clock = clock
        self._connect = connect
        #: Why a route is not looked at, by its name.
        self.unwatched = {name: why for name in routes if (why := _why_unwatched(settings.routes[name]))}
        self._watched = [self._watch(name) for name in routes if name not in self.unwatched]
        self._is_away = False

    @property
    def names(self) -> list[str]:
        """The routes that it looks at."""
        return [one.name for one in self._watched]

    def run(self, stop: threading.Event) -> None:
        """Look once a second until ``stop`` is set."""
        while not stop.is_set():
            self.step()
            self._clock.wait(stop, LOOK_EVERY)

    def step(self) -> None:
        """One look at every route."""
        for one in self._watched:
            try:
                self._look(one)
            except StateLost:
                continue  # the route is no more
            except (Unavailable, redis.RedisError) as error:
                if isinstance(error, redis.RedisError) and not is_unavailable(error):
                    raise
                self._tell_away(error)
                return
        if self._is_away:
            self._is_away = False
            self._log.info(Event.REDIS_BACK)

    def _tell_away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            self._log.error(Event.REDIS_AWAY, reason=str(error))

    def close(self) -> None:
        for one in self._watched:
            if one.sweeper is not None:
                one.sweeper.join(1.0)
            if one.adapter is not None:
                one.adapter.close()

    def _watch(self, name: str) -> _Watched:
        ledger = Ledger(self._client, name, ACTOR, LedgerRules(), self._clock)
        try:
            adapter = build_adapter(self._settings.routes[name], self._clock)
        except (ConfigError, ValidationError):
            # Whether its market is open cannot be told from here: then it counts as open.
            adapter = None
        return _Watched(name, ledger, adapter)

    def _look(self, one: _Watched) -> None:
        outage = self._outage(one)
        if outage is None:
            return
        rules = self._settings.routes[one.name]
        message = (
            f"no worker of the route has been alive for {rules.dead_man_after:g} s while its market is open"
        )
        if one.ledger.note("NO_LIVE_WORKER", f"dead:{outage}", json.dumps({"message": message})) == 1:
            self._log.error(Event.NO_LIVE_WORKER, route=one.name, reason=message)
        is_due = self._clock.boottime() >= one.try_from and not one.is_sweeping
        if rules.dead_man_cancel and one.swept != outage and is_due:
            one.try_from = self._clock.boottime() + TRY_EVERY
            one.sweeper = threading.Thread(target=self._cancel, args=(one, outage), daemon=True)
            one.sweeper.start()

    def _outage(self, one: _Watched) -> str | None:
        """When the last of its workers was alive, if that is too long ago and orders could be placed now."""
        keys = RouteKeys(one.name)
        alive_at, made_at = self._client.hmget(keys.state, "alive_at", "made_at")
        # A worker may die between making the route and its first heartbeat.
        beat = alive_at or made_at
        silent = one.ledger.now_ms() - int(beat or 0)
        if beat is None or silent < self._settings.routes[one.name].dead_man_after * 1000:
            return None
        is_open = one.adapter is None or one.adapter.in_session(self._clock.now())
        return str(beat.decode()) if is_open else None

    def _cancel(self, one: _Watched, outage: str) -> None:
        try:
            Control(self._client, one.name).halt(ACTOR, "no worker of the route is alive")
            swept = cancel_open(
                self._settings, one.name, self._client, self._clock, self._connect, CANCEL_WITHIN
            )
        except Exception as error:  # noqa: BLE001  whatever it was, it is tried again
            self._log.error(Event.CANCELLED_OPEN, route=one.name, reason=f"nothing was cancelled: {error}")
            return
        left = [order for order in swept.left if order.intent_id]
        found = len(swept.orders)
        self._log.error(
            Event.CANCELLED_OPEN, route=one.name, found=found, left=len(left), saw_all=swept.saw_all
        )
        if not left and swept.saw_all:
            one.swept = outage


@dataclass(slots=True)
class Watch:
    """A look-out in a thread of its own. ``stop`` ends it."""

    names: list[str]
    unwatched: dict[str, str]
    stop: threading.Event = field(default_factory=threading.Event)
    #: What ended it, if looking again would not help.
    error: Exception | None = None


@contextmanager
def watching_over(
    settings: Settings, routes: list[str], clock: Clock, connect: Connect, *, ends_on_fault: bool = False
) -> Iterator[Watch]:
    """
    Look at these routes of the settings, in a thread, until the block ends. A fault that looking again would not mend, as a
    right that is missing, is told and tried again later; with ``ends_on_fault`` it ends the watch.
    """
    if not routes:
        yield Watch([], {})
        return
    client = connect(settings.redis_url, client_name="execworker:deadman")
    log = configure(settings.log_level, settings.log_format, secrets=settings.secrets())
    watching = Deadman(settings, routes, client, log, clock, connect)
    watch = Watch(watching.names, watching.unwatched)

    def look() -> None:
        told = ""
        while not watch.stop.is_set():
            try:
                watching.run(watch.stop)
            except Exception as error:  # noqa: BLE001  told, and tried again, or handed to whoever waits
                if ends_on_fault:
                    watch.error = error
                    watch.stop.set()
                elif told != (told := repr(error)):
                    log.error(Event.UPKEEP_FAULT, chore="deadman", reason=told)
                clock.wait(watch.stop, TRY_EVERY)

    thread = threading.Thread(target=look, name="deadman", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop.set()
        thread.join(5.0)
        watching.close()
        client.close()


def _why_unwatched(route: RouteSettings) -> str:
    if route.mode is Mode.OFF:
        return "mode off"
    return "" if route.dead_man_after else "dead_man_after is 0"
