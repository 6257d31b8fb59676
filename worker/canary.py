"""
Sends a NOOP through a route, on a schedule, and measures its way: queue, ledger, engine, answer.

A NOOP is launched by nobody, so a canary has no lane, asks nothing of the broker, takes no slot of its call limit,
and the guard never hears of it. It comes back from a halted or tripped route as well: those have alerts of their own.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import redis

from contracts import Code, ExecutionIntent, ExecutionResponse, IntentType
from worker.clock import Clock
from worker.connection import is_unavailable
from worker.errors import Unavailable
from worker.logs import Event, Logger
from worker.metrics import RouteMetrics
from worker.producer import IntentProducer

#: Seconds after which a canary counts as lost. Its late answer is nobody's.
PATIENCE: Final = 10.0
#: Seconds that the right to send holds without being renewed.
LEASE: Final = 5.0
#: Seconds that an answered canary stays in the ledger, far longer than its queue entry can come back.
KEPT: Final = 3600.0
#: Seconds between two looks whether it is this worker that sends, each of which renews the right to.
LOOK_EVERY: Final = 1.0
#: Seconds between two looks for an answer, at first and at most.
_POLL_FIRST, _POLL_MAX = 0.002, 0.25
#: The answers of a route that works; each says why an order would not have left.
PASSED: Final = frozenset({Code.NOOP, Code.HALTED, Code.LIVE_NOT_ALLOWED})


@dataclass(frozen=True, slots=True)
class _Sent:
    intent_id: str
    #: On CLOCK_BOOTTIME.
    at: float


class Canary:
    """One route's canaries. Every worker may turn it; one at a time sends, and one canary is on its way at a time."""

    def __init__(
        self,
        client: redis.Redis,
        route: str,
        *,
        interval: float,
        retention: float,
        metrics: RouteMetrics,
        log: Logger,
        clock: Clock,
        worker: str,
    ) -> None:
        """``interval`` and ``retention`` are seconds."""
        self._client: Any = client
        # One try for each turn: the turns are the patience.
        self._producer = IntentProducer(client, route, patience=0.0, clock=clock)
        self._keys = self._producer.keys
        self._interval = interval
        self._kept_ms = round(min(KEPT, retention) * 1000)
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._worker = worker
        self._sent: _Sent | None = None
        self._due = 0.0
        self._leads = False
        self._look_from = 0.0
        metrics.canary_scheduled(interval)

    def turn(self) -> float:
        """
        Do what is due. Returns after how many seconds something may be due again.

        Raises:
            Unavailable: Redis does not answer. Turn it again.
        """
        now = self._clock.boottime()
        if self._sent is not None:
            with suppress(Unavailable):
                self._lead(now)
            return self._look_for(self._sent)
        if not self._lead(now):
            # Who takes over sends at once: nobody knows how long the last one was silent.
            self._due = now
            return LOOK_EVERY
        if now >= self._due:
            self._send(now)
            return _POLL_FIRST
        return min(LOOK_EVERY, self._due - now)

    def leave(self) -> None:
        """Let another worker send at once. An answer that is still to come is nobody's; the ledger keeps it."""
        with suppress(redis.RedisError):
            if self._client.get(self._keys.canary) == self._worker.encode():
                self._client.delete(self._keys.canary)

    def _lead(self, now: float) -> bool:
        if now >= self._look_from:
            self._look_from = now + LOOK_EVERY
            self._leads = False
            self._leads = self._take_the_lead()
        return self._leads

    def _take_the_lead(self) -> bool:
        lease = round(LEASE * 1000)
        try:
            if self._client.set(self._keys.canary, self._worker, nx=True, px=lease):
                return True
            # Two that both hold it for a moment send a canary each.
            if self._client.get(self._keys.canary) != self._worker.encode():
                return False
            return bool(self._client.pexpire(self._keys.canary, lease))
        except redis.RedisError as error:
            if not is_unavailable(error):
                raise
            raise Unavailable(f"Redis does not answer: {error}") from error

    def _send(self, now: float) -> None:
        intent = ExecutionIntent(
            intent_id=f"canary-{secrets.token_hex(8)}",
            intent_type=IntentType.NOOP,
            symbol="CANARY",
            created_at=self._clock.now(),
        )
        # Noted before it leaves: one whose enqueuing Redis did not confirm is looked for, and may count as lost.
        self._sent = _Sent(intent.intent_id, now)
        self._due = now + self._interval
        self._producer.enqueue(intent)

    def _look_for(self, sent: _Sent) -> float:
        answer, why = None, "no answer came"
        try:
            answer = self._producer.find(sent.intent_id)
        except Unavailable as error:
            why = str(error)
        waited = self._clock.boottime() - sent.at
        if answer is None and waited < PATIENCE:
            # Often enough to measure to a quarter, whatever it takes.
            return min(_POLL_MAX, max(_POLL_FIRST, waited / 4))
        self._sent = None
        if answer is not None and answer.code in PASSED:
            self._metrics.canary_passed(waited, self._clock.now().timestamp())
        else:
            self._metrics.canary_failed()
            self._log.warning(
                Event.CANARY_FAILED, intent_id=sent.intent_id, reason=_told(answer) or why, seconds=waited
            )
        if answer is not None:
            self._forget(sent.intent_id)
        return 0.0

    def _forget(self, intent_id: str) -> None:
        """Keep the ledger's entry, which is settled, for an hour and not for a week: there are many of them."""
        with suppress(redis.RedisError):
            self._client.pexpire(self._keys.intent(intent_id), self._kept_ms)


def _told(answer: ExecutionResponse | None) -> str:
    return f"answered {answer.outcome} {answer.code or ''}: {answer.message}" if answer else ""
