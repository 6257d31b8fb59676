"""What a worker does on the side of its route: leases, sweeps, its heartbeat, figures, and keeping streams short."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
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
    #: The safety of orders hangs on it: a fault of it ends the worker. A fault of any other is told, and tried again.
    guards_orders: bool = False
    due: float = 0.0
    #: The kinds of fault that were told and are not well again.
    told: set[str] = field(default_factory=set)


class Upkeep:
    """
    One route's chores. ``turn`` does those that are due; what Redis does not answer is done at the next turn.

    What a stranger puts into the route's keys ends a worker only where orders would not be safe otherwise.
    """

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
        self._sealing = _Chore(self._sealer.turn, EVERY)
        self._seen: RouteStatus | None = None
        self._stream = self._keys.intents if owns_stream else ""
        self._chores = self._all_chores(ledger.rules.lease, owns_stream, must_be_durable)

    def _all_chores(self, lease: float, owns_stream: bool, must_be_durable: bool) -> list[_Chore]:
        return [
            *self._guarding(lease, must_be_durable),
            # For people, and only for them. The guard, the halt and doubts are kept by the ledger's scripts.
            _Chore(self._observe, 1.0),
            # Proof afterwards of what was done. What is not sealed now is sealed later.
            self._sealing,
            # A lane that nobody weeds waits, and what waits is not sent.
            _Chore(self._weed, 30.0),
            # Memory. What is kept too long does no harm to an order.
            *(_Chore(partial(self._trim, stream), 60.0) for stream in self._published()),
            _Chore(self._forget_owners, 3600.0),
            *self._queue_chores(owns_stream),
        ]

    def _guarding(self, lease: float, must_be_durable: bool) -> list[_Chore]:
        chores = [
            # A claim that is not renewed is handed to somebody else while this worker still works on it.
            _Chore(self._renew, lease / 3.3, guards_orders=True),
            # Who cannot sweep does not see what silent workers left: it is not to count as alive.
            _Chore(self._sweep, min(0.5, lease / 4), guards_orders=True),
            # By it all learn of workers of another build: who is not seen must not send.
            _Chore(self._beat, 1.0, guards_orders=True),
        ]
        if must_be_durable:
            # Whether the server may forget a launch, and an order be sent twice.
            chores.append(_Chore(self._check_durability, 5.0, guards_orders=True))
        return chores

    def _queue_chores(self, owns_stream: bool) -> list[_Chore]:
        """Memory too, and consumers that are gone: what nobody acknowledged is never taken away."""
        if not owns_stream:
            return []
        streams = (self._keys.intents, self._keys.cancels)
        return [
            *(_Chore(partial(self._trim_queue, stream), 2.0) for stream in streams),
            *(_Chore(partial(self._tidy, stream), 600.0) for stream in streams),
        ]

    def _published(self) -> tuple[str, ...]:
        return self._keys.responses, self._keys.failsafe, self._keys.orders

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
        except StateLost:
            self._lost()
        except Unavailable as error:
            self._tell_away(error)
        except Exception as error:
            if isinstance(error, redis.RedisError) and is_unavailable(error):
                return self._tell_away(error)
            if not chore.guards_orders:
                return self._tell_fault(chore, error)
            raise
        else:
            self._tell_well(chore)

    def _tell_fault(self, chore: _Chore, error: Exception) -> None:
        """Once for each kind of it, until the chore is well again: it is tried at every turn."""
        kind = type(error).__name__
        if kind not in chore.told:
            chore.told.add(kind)
            self._log.error(Event.UPKEEP_FAULT, chore=_name(chore), reason=str(error), exc_info=True)

    def _tell_well(self, chore: _Chore) -> None:
        if chore.told:
            chore.told.clear()
            self._log.info(Event.UPKEEP_WELL, chore=_name(chore))

    def _tell_away(self, error: Exception) -> None:
        self.redis_is_away = True
        self._away(error)

    def leave(self) -> None:
        """Take this worker's name off the list, and seal what it has done."""
        # Told already if it was: the last turn of the sealer is a turn of that chore.
        for chore in (_Chore(self._take_name_off, 0.0), replace(self._sealing, do=self._sealer.leave)):
            try:
                chore.do()
            except (Unavailable, redis.ConnectionError, redis.TimeoutError):
                return
            except Exception as error:  # noqa: BLE001  it leaves whatever somebody has done to these keys
                self._tell_fault(chore, error)

    def _take_name_off(self) -> None:
        self._client.hdel(self._keys.workers, self._worker)

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

    def _trim_queue(self, stream: str) -> None:
        trim(self._client, stream, group=GROUP)

    def _trim(self, stream: str) -> None:
        oldest = self._ledger.now_ms() - round(self._ledger.rules.retention * 1000)
        self._client.xtrim(stream, minid=f"{max(0, oldest)}-0", approximate=True)

    def _forget_owners(self) -> None:
        oldest = self._ledger.now_ms() - round(self._ledger.rules.retention * 1000)
        for name, owner in self._client.hscan_iter(self._keys.owned, count=500):
            since = owner.partition(b":")[0]
            # What is no owner of ours stays: nobody knows how old it is.
            if since.isdigit() and int(since) < oldest:
                self._client.hdel(self._keys.owned, name)

    def _weed(self) -> None:
        start = "-"
        while start:
            _, start = self._ledger.weed(self._stream, start)

    def _tidy(self, stream: str) -> None:
        tidy(self._client, stream, group=GROUP)

    def _check_durability(self) -> None:
        """A live route on a server that became weak under it (a fail-over, a CONFIG SET) stops."""
        if faults := weaknesses(self._client, self._confirmation):
            reason = "Redis may forget a launch: " + "; ".join(faults)
            if self._ledger.command("halt", self._worker, reason)[0] == "done":
                self._log.error(Event.DURABILITY_WEAK, reason=reason)


def _name(chore: _Chore) -> str:
    """``weed``, or ``trim`` and the stream."""
    do = chore.do
    if isinstance(do, partial):
        return f"{do.func.__name__.strip('_')} {do.args[0]}"
    return {"turn": "seal", "leave": "seal"}.get(do.__name__, do.__name__.strip("_"))
