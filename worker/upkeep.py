"""What a worker does on the side of its route: leases, sweeps, its heartbeat, figures, and keeping streams short."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from contracts import GuardState
from worker.audit.sealer import EVERY, Sealer
from worker.clock import Clock
from worker.connection import is_unavailable
from worker.durability import Confirmation, weaknesses
from worker.engine import Engine
from worker.errors import StateLost, Unavailable
from worker.keys import GROUP, RouteKeys
from worker.ledger import Ledger
from worker.ledger.control import HEARTBEAT_LOST, Control, RouteStatus
from worker.logs import Event, Logger
from worker.metrics import RouteMetrics
from worker.transport import tidy, trim

#: A worker whose heartbeat is older than this is forgotten, in seconds.
FORGOTTEN = 300.0


@dataclass(frozen=True, slots=True)
class Observed:
    """A route's status as the metrics want it."""

    guard_state: GuardState
    consecutive_failures: int
    halted: bool
    ready: int | None
    leased: int
    parked: int
    dead: int
    oldest_age_seconds: float | None
    in_doubt: int
    in_doubt_oldest_age_seconds: float
    workers: int


@dataclass(slots=True)
class _Chore:
    do: Callable[[], None]
    every: float
    #: The safety of orders rests on it: a fault of it ends the worker. Any other is told, and the worker goes on.
    is_vital: bool = False
    due: float = 0.0
    #: What went wrong the last time, until it goes well again.
    fault: str = ""


class Upkeep:
    """One route's chores. ``turn`` does those that are due; what Redis does not answer is done at the next turn."""

    def __init__(
        self,
        ledger: Ledger,
        engine: Engine,
        client: redis.Redis,
        metrics: RouteMetrics,
        log: Logger,
        clock: Clock,
        *,
        worker: str,
        port: Callable[[], int],
        lost: Callable[[], None],
        away: Callable[[Exception], None],
        skew: Callable[[float], None],
        owns_stream: bool,
        must_be_durable: bool,
        about: Mapping[str, str] | None = None,
        confirmation: Confirmation,
        is_alive: Callable[[], bool],
    ) -> None:
        """
        ``is_alive``: whether others may count on this worker. It is asked before each heartbeat. ``about``: what the
        workers of a route should have in common. ``away`` hears each time that Redis does not answer.
        """
        self._ledger = ledger
        self._engine = engine
        self._client: Any = client
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._worker = worker
        self._port = port
        self._about = about or {}
        #: Which workers are of which build, while they differ.
        self._differ = ""
        self._is_alive = is_alive
        self._confirmation = confirmation
        self._lost = lost
        self._away = away
        #: Whether Redis did not answer last. An engine that has nothing to do would not find out.
        self.redis_is_away = False
        self._skew = skew
        self._keys: RouteKeys = ledger.keys
        self._control = Control(client, self._keys.route)
        self._sealer = Sealer(
            client, self._keys.route, retention=ledger.rules.retention, log=log, clock=clock, worker=worker
        )
        self._seen: RouteStatus | None = None
        self._stream = self._keys.intents if owns_stream else ""
        self._chores = self._all_chores(ledger.rules.lease, owns_stream, must_be_durable)

    def _all_chores(self, lease: float, owns_stream: bool, must_be_durable: bool) -> list[_Chore]:
        chores = [
            # Leases, doubts that must be told, and the word that all workers are of one build.
            _Chore(self._renew, lease / 3.3, is_vital=True),
            _Chore(self._sweep, min(0.5, lease / 4), is_vital=True),
            _Chore(self._beat, 1.0, is_vital=True),
            _Chore(self._observe, 1.0),
            _Chore(self._trim_ours, 60.0),
            _Chore(self._weed, 30.0),
            _Chore(self._seal, EVERY),
            _Chore(self._forget_owners, 3600.0),
        ]
        if owns_stream:
            chores += [_Chore(self._trim_queues, 2.0), _Chore(self._tidy, 600.0)]
        if must_be_durable:
            chores.append(_Chore(self._check_durability, 5.0, is_vital=True))
        return chores

    def turn(self) -> None:
        """Do what is due."""
        for chore in self._chores:
            now = self._clock.boottime()
            if chore.due > now:
                continue
            # A little apart from other workers, so that they do not all sweep at once.
            chore.due = now + chore.every * random.uniform(0.8, 1.0)
            self._do(chore)

    def _do(self, chore: _Chore) -> None:
        try:
            chore.do()
            chore.fault = ""
        except StateLost:
            self._lost()
        except Unavailable as error:
            self._tell_away(error)
        except Exception as error:
            if self._can_go_on(chore, error):
                return
            raise

    def _can_go_on(self, chore: _Chore, error: Exception) -> bool:
        """Tell of a fault. Whether the worker may live with it."""
        if isinstance(error, redis.RedisError) and is_unavailable(error):
            self._tell_away(error)
            return True
        if not chore.is_vital and chore.fault != (fault := repr(error)):
            chore.fault = fault
            self._log.error(Event.CHORE_FAILED, chore=chore.do.__name__.lstrip("_"), reason=fault)
        return not chore.is_vital

    def _tell_away(self, error: Exception) -> None:
        self.redis_is_away = True
        self._away(error)

    def leave(self) -> None:
        """Take this worker's name off the list, and seal what it has done."""
        try:
            self._client.hdel(self._keys.workers, self._worker)
            self._sealer.leave()
        except (Unavailable, redis.RedisError):
            return
        except Exception as error:  # noqa: BLE001  what is to be sealed waits for the next worker
            self._log.error(Event.CHORE_FAILED, chore="seal", reason=repr(error))

    def _renew(self) -> None:
        rules = self._ledger.rules
        held = self._engine.hands.leases(self._clock.boottime(), rules.order_timeout + rules.lease)
        for start in range(0, len(held), 256):
            self._ledger.renew(held[start : start + 256])

    def _sweep(self) -> None:
        handed, doubts = self._ledger.sweep(self._engine.room())
        if handed:
            self._engine.hand(handed)
        for intent_id in doubts:
            self._log.warning(Event.INTENT_IN_DOUBT, intent_id=intent_id, reason="its worker went silent")

    def _beat(self) -> None:
        self._tell_skew(self._ledger.now_ms())
        self.redis_is_away = False
        if self._is_alive():
            self.beat()

    def beat(self) -> None:
        """Tell the other workers that this one is alive, and learn whether all are of one build."""
        card = {"host": socket.gethostname(), "pid": os.getpid(), "port": self._port(), **self._about}
        differ = self._ledger.beat(card, fresh=HEARTBEAT_LOST, forgotten=FORGOTTEN)
        if differ and not self._differ:
            self._log.warning(Event.BUILDS_DIFFER, workers=differ)
        elif self._differ and not differ:
            self._log.info(Event.BUILDS_AGREE)
        self._differ = differ

    def _tell_skew(self, redis_ms: int) -> None:
        skew = self._clock.now().timestamp() - redis_ms / 1000
        self._skew(skew)
        if abs(skew) > 1.0:
            self._log.warning(Event.CLOCK_SKEWED, seconds=round(skew, 3))

    def _observe(self) -> None:
        status = self._control.status()
        self._metrics.observe_status(
            Observed(
                guard_state=status.guard_state,
                consecutive_failures=status.consecutive_failures,
                halted=status.halted,
                ready=status.queue_lag,
                leased=max(0, status.queue_depth - (status.queue_lag or 0) - status.parked),
                parked=status.parked,
                dead=status.dead,
                oldest_age_seconds=status.oldest_age or 0.0,
                in_doubt=status.in_doubt,
                in_doubt_oldest_age_seconds=status.oldest_doubt_age or 0.0,
                workers=len(status.workers),
            )
        )
        self._tell_edges(status)
        self._seen = status

    def _tell_edges(self, status: RouteStatus) -> None:
        """Log the edges of guard and halt, whichever worker or person made them."""
        seen = self._seen
        tripped = status.guard_state in (GuardState.FAIL, GuardState.LOCKDOWN)
        was_tripped = seen is not None and seen.guard_state in (GuardState.FAIL, GuardState.LOCKDOWN)
        if tripped and (seen is None or seen.guard_state is not status.guard_state):
            if seen is not None:
                self._metrics.guard_tripped()
            self._log.error(Event.GUARD_TRIPPED, state=status.guard_state, epoch=status.epoch)
        elif was_tripped and not tripped:
            self._log.info(Event.GUARD_RESET, epoch=status.epoch)
        if status.halted and (seen is None or not seen.halted):
            self._log.warning(Event.HALTED, reason=status.halt_reason, actor=status.halt_actor)
        elif seen is not None and seen.halted and not status.halted:
            self._log.info(Event.RESUMED, epoch=status.epoch)

    def _trim_queues(self) -> None:
        for stream in (self._keys.intents, self._keys.cancels):
            trim(self._client, stream, group=GROUP)

    def _trim_ours(self) -> None:
        oldest = self._ledger.now_ms() - round(self._ledger.rules.retention * 1000)
        for stream in (self._keys.responses, self._keys.failsafe, self._keys.orders):
            self._client.xtrim(stream, minid=f"{max(0, oldest)}-0", approximate=True)

    def _forget_owners(self) -> None:
        oldest = self._ledger.now_ms() - round(self._ledger.rules.retention * 1000)
        for name, owner in self._client.hscan_iter(self._keys.owned, count=500):
            since = owner.partition(b":")[0]
            if since.isdigit() and int(since) < oldest:
                self._client.hdel(self._keys.owned, name)

    def _seal(self) -> None:
        self._sealer.turn()

    def _weed(self) -> None:
        start = "-"
        while start:
            _, start = self._ledger.weed(self._stream, start)

    def _tidy(self) -> None:
        for stream in (self._keys.intents, self._keys.cancels):
            tidy(self._client, stream, group=GROUP)

    def _check_durability(self) -> None:
        """A live route on a server that became weak under it (a fail-over, a CONFIG SET) stops."""
        if faults := weaknesses(self._client, self._confirmation):
            reason = "Redis may forget a launch: " + "; ".join(faults)
            if self._ledger.command("halt", self._worker, reason)[0] == "done":
                self._log.error(Event.DURABILITY_WEAK, reason=reason)
