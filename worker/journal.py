"""What the engine tells the world besides its answers: one log line and one count for each transition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from contracts import ExecutionIntent, ExecutionResponse, Outcome
from worker.clock import Clock
from worker.hand import Held
from worker.intake import Delivery
from worker.ledger.records import Settled
from worker.logs import Event, Logger
from worker.metrics import DeadReason, FailureReason, RouteMetrics, Stage, StaleOperation

if TYPE_CHECKING:
    from worker.reading import Burial
    from worker.settler import End


class Journal:
    """Counts and logs, in batches where the engine works in batches."""

    def __init__(self, metrics: RouteMetrics, log: Logger, clock: Clock) -> None:
        self._metrics = metrics
        self._log = log
        self._clock = clock

    def received(self, delivery: Delivery) -> None:
        if delivery.count > 1:
            self._metrics.redelivered()

    def claimed(self, received: int, granted: int, seconds: float) -> None:
        self._metrics.received(received)
        self._metrics.stage(Stage.CLAIM, (seconds,))
        self._metrics.intent_taken(self._clock.now().timestamp())

    def replay(self, intent: ExecutionIntent, state: str) -> None:
        self._log.debug(Event.INTENT_REPLAYED, intent_id=intent.intent_id, state=state)

    def launched(self, leaving: Sequence[Held], seconds: float) -> None:
        self._metrics.stage(Stage.LAUNCH, (seconds,))
        now = self._clock.now().timestamp()
        self._metrics.queue_wait([max(0.0, now - one.created) for one in leaving])
        for one in leaving:
            self._log.debug(Event.INTENT_LAUNCHED, intent_id=one.intent.intent_id, attempt=one.attempt)

    def submitted(self, seconds: Sequence[float]) -> None:
        self._metrics.stage(Stage.SUBMIT, seconds)

    def settled(self, batch: Sequence[End], answers: Sequence[Settled], seconds: float) -> None:
        self._metrics.stage(Stage.SETTLE, (seconds,))
        now = self._clock.now().timestamp()
        ages: list[float] = []
        for end, answer in zip(batch, answers, strict=True):
            if answer is Settled.STALE:
                self._metrics.stale_write(StaleOperation.SETTLE)
                self._log.warning(Event.LEASE_LOST, intent_id=end.settlement.intent_id, at="settle")
            elif end.response is None:
                self._log.warning(
                    Event.INTENT_IN_DOUBT, intent_id=end.settlement.intent_id, reason=end.settlement.payload
                )
            elif answer is Settled.SETTLED:
                ages.append(max(0.0, now - end.held.created))
                self._answered(end.response)
        self._metrics.end_to_end(ages)

    def _answered(self, response: ExecutionResponse) -> None:
        self._metrics.processed(response.outcome)
        if response.outcome is Outcome.REJECTED:
            self._metrics.broker_failure(FailureReason.REJECTED)
        self._log.info(
            Event.INTENT_SETTLED,
            intent_id=response.intent_id,
            outcome=response.outcome,
            code=response.code,
            broker=response.broker,
            broker_order_id=response.broker_order_id,
            attempts=response.attempts,
        )

    def broker_failure(
        self,
        held: Held,
        reason: Literal["not_sent", "rejected", "in_doubt", "bug"],
        text: str,
        fault: BaseException | None = None,
    ) -> None:
        self._metrics.broker_failure(FailureReason(reason))
        intent_id = held.intent.intent_id
        if fault is not None:
            self._log.error(Event.ADAPTER_FAULT, intent_id=intent_id, reason=text, exc_info=fault)
        elif reason == "not_sent":
            self._log.info(Event.INTENT_NOT_SENT, intent_id=intent_id, reason=text, attempt=held.attempt)

    def lease_lost(self, held: Held) -> None:
        self._metrics.stale_write(StaleOperation.LAUNCH)
        self._log.warning(Event.LEASE_LOST, intent_id=held.intent.intent_id, at="launch")

    def unreadable(self, intent_id: str, reason: str) -> None:
        self._log.error(Event.INTENT_UNREADABLE, intent_id=intent_id, reason=reason)

    def buried(self, burial: Burial, answered: ExecutionResponse | None) -> None:
        self._metrics.dead(DeadReason(burial.reason))
        event = Event.INTENT_CONFLICT if burial.reason == "conflict" else Event.INTENT_DEAD_LETTERED
        self._log.warning(
            event,
            intent_id=burial.intent_id or None,
            entry=burial.delivery.entry,
            reason=burial.reason,
            error=burial.error[:500],
        )
        if answered is not None:
            self._answered(answered)
