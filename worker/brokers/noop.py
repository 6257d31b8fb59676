"""The broker for everything that may not trade: denies all, sends nothing."""

from __future__ import annotations

from contracts import Code, ExecutionIntent, ExecutionResponse, Outcome
from worker.brokers.base import Send
from worker.clock import Clock, SystemClock

_MESSAGES = {
    Code.NOOP: "no broker is configured: nothing was sent",
    Code.LIVE_NOT_ALLOWED: "live trading is not allowed here (live_allowed is off): nothing was sent",
}


class NoopBroker:
    """Answers every intent DENIED and holds no way to send anything."""

    broker_id = "noop"

    def __init__(
        self, code: Code = Code.NOOP, message: str | None = None, *, clock: Clock | None = None
    ) -> None:
        self.code = code
        self._message = message or _MESSAGES.get(code, "this broker sends nothing")
        self._clock = clock or SystemClock()

    def submit_intent(self, intent: ExecutionIntent, send: Send | None = None) -> ExecutionResponse:
        return ExecutionResponse(
            intent_id=intent.intent_id,
            accepted=False,
            broker=self.broker_id,
            message=self._message,
            timestamp=self._clock.now(),
            outcome=Outcome.DENIED,
            code=self.code,
            route=send.route if send else None,
        )
