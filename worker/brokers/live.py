"""One adapter behind one guard."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from contracts import (
    Code,
    ExecutionIntent,
    ExecutionResponse,
    FailsafeType,
    IntentType,
    OrderQuery,
    OrderResponse,
    Outcome,
    SafetyCode,
    intent_to_order_request,
    order_response_to_execution_response,
)
from worker.brokers.base import AdapterFault, BaseBrokerAdapter, Send, verdict_of
from worker.clock import Clock, SystemClock
from worker.errors import BrokerError, Denied, NotSent, OutcomeUnknown, Rejected
from worker.guard import THRESHOLD_DEFAULT, GuardHome, LocalGuard, counts

_log = logging.getLogger(__name__)
_Q = TypeVar("_Q")

#: A submission nobody launched: library use.
_ALONE = Send()


class LiveBroker:
    """
    Submits intents through one adapter, and stops after so many failures in a row until a person resets it.

    Safe to share between threads. Without a ``guard`` it has its own, in this process; a worker, whose guard
    lives in Redis, gives `OpenGuard`. ``name`` replaces the adapter's own name in the answers.
    """

    def __init__(
        self,
        adapter: BaseBrokerAdapter,
        max_consecutive_failures: int = THRESHOLD_DEFAULT,
        *,
        guard: GuardHome | None = None,
        clock: Clock | None = None,
        count_rejected: bool = True,
        default_venue: str | None = None,
        name: str | None = None,
    ) -> None:
        self.adapter = adapter
        self.broker_id = name or adapter.broker_id
        self.guard: GuardHome = guard or LocalGuard(max_consecutive_failures)
        self._clock = clock or SystemClock()
        self._count_rejected = count_rejected
        self._default_venue = default_venue

    def submit_intent(self, intent: ExecutionIntent, send: Send | None = None) -> ExecutionResponse:
        """
        Place the order of one intent, once, and answer what became of it. NOOP is answered without a call.

        A CANCEL is passed on only where the broker knows orders by our ids; elsewhere use `cancel_intent`.

        Raises:
            OutcomeUnknown: the order may be at the broker. Never submit it again; resolve it. An
                `AdapterFault` is one that a bug of ours caused.
        """
        send = send or _ALONE
        if intent.intent_type is IntentType.NOOP:
            return self._denied(intent, send, Code.NOOP, "a NOOP travels the whole path and sends nothing")
        if intent.intent_type is IntentType.CANCEL:
            return self._cancel_by_our_id(intent, send)
        request = intent_to_order_request(
            intent, default_venue=self._default_venue, send_before=send.send_before
        )
        launch = self.guard.launched()
        if launch is None:
            return self._tripped(intent, send)
        sent_at = self._clock.now()
        try:
            response = self._attempt(self.adapter.place_order, request, intent, send, sent_at)
        except BrokerError as error:
            self._count(error, launch)
            return self._answer(error, intent, send, sent_at)
        self.guard.succeeded(*launch)
        return response

    def cancel_intent(
        self, intent: ExecutionIntent, target: OrderQuery, send: Send | None = None
    ) -> ExecutionResponse:
        """
        Ask the broker to cancel the order behind ``target``. ACCEPTED means that it took the request.

        The guard neither stops a cancel nor counts it.

        Raises:
            OutcomeUnknown: the request may have arrived. Look the target up.
        """
        send = send or _ALONE
        sent_at = self._clock.now()
        try:
            return self._attempt(self.adapter.cancel_order, target, intent, send, sent_at)
        except BrokerError as error:
            return self._answer(error, intent, send, sent_at)

    def reset(self, actor: str, reason: str, *, approve: bool = False) -> FailsafeType:
        """
        Open a tripped guard again, in the name of a person, for a reason. From LOCKDOWN it takes ``approve``.

        Raises:
            Refused: nothing changed; the text says what to do instead.
        """
        edge = self.guard.reset(approve=approve)
        _log.warning("guard_reset broker=%s actor=%s reason=%s", self.broker_id, actor, reason)
        return edge

    def close(self) -> None:
        self.adapter.close()

    # The adapter's call. From here on, whatever is no clear answer is a doubt.
    def _attempt(
        self,
        call: Callable[[_Q], OrderResponse],
        argument: _Q,
        intent: ExecutionIntent,
        send: Send,
        sent_at: datetime,
    ) -> ExecutionResponse:
        try:
            order = call(argument)
            if send.hear is not None and order.wire:
                send.hear(order.wire)
            if not order.broker_order_id.strip():
                raise OutcomeUnknown(f"{self.broker_id} answered a success without an order number")
            if send.refer is not None and order.reference:
                send.refer(order.reference)
            return order_response_to_execution_response(
                intent,
                order,
                broker=self.broker_id,
                timestamp=self._clock.now(),
                route=send.route,
                attempts=send.attempts,
                sent_at=sent_at,
            )
        except (NotSent, Denied, Rejected, OutcomeUnknown) as error:
            if send.hear is not None and error.wire:
                send.hear(error.wire)
            raise
        except Exception as error:
            # Its text stays in the chain: it may hold what no answer or event should show.
            raise AdapterFault(
                f"{type(error).__name__} in our adapter of {self.broker_id}; the broker may hold the order"
            ) from error

    def _count(self, error: BrokerError, launch: tuple[int, int]) -> None:
        if not counts(verdict_of(error).outcome, count_rejected=self._count_rejected):
            return
        edge = self.guard.failed(*launch)
        if edge is not None:
            _log.error("guard_tripped broker=%s edge=%s", self.broker_id, edge)

    # An answer where the error is evidence; otherwise the doubt goes on to the caller.
    def _answer(
        self, error: BrokerError, intent: ExecutionIntent, send: Send, sent_at: datetime
    ) -> ExecutionResponse:
        verdict = verdict_of(error)
        if verdict.outcome is None:
            raise error
        if isinstance(error, Denied):
            return self._denied(intent, send, error.denial, error.message)
        return ExecutionResponse(
            intent_id=intent.intent_id,
            accepted=False,
            broker=self.broker_id,
            message=str(error.message),
            timestamp=self._clock.now(),
            outcome=verdict.outcome,
            code=verdict.code,
            broker_code=None if error.code is None else str(error.code),
            safety_code=error.safety_code or SafetyCode.FS040,
            route=send.route,
            attempts=send.attempts,
            sent_at=None if verdict.may_resend else sent_at,
        )

    def _cancel_by_our_id(self, intent: ExecutionIntent, send: Send) -> ExecutionResponse:
        if not self.adapter.client_order_ids:
            cure = f"{self.broker_id} does not know orders by our ids; cancel by the broker's number"
            return self._denied(intent, send, Code.TARGET_UNKNOWN, cure)
        target = OrderQuery(
            symbol=intent.symbol,
            client_order_id=intent.target_intent_id,
            venue=intent.venue or self._default_venue,
            send_before=send.send_before,
        )
        return self.cancel_intent(intent, target, send)

    def _tripped(self, intent: ExecutionIntent, send: Send) -> ExecutionResponse:
        message = (
            f"too many failures in a row at {self.broker_id}: nothing is sent until a person resets the guard"
        )
        return self._denied(intent, send, Code.FAILSAFE_TRIPPED, message, "failsafe", SafetyCode.FS040)

    def _denied(
        self,
        intent: ExecutionIntent,
        send: Send,
        code: Code,
        message: str,
        broker: str = "worker",
        safety_code: SafetyCode | None = None,
    ) -> ExecutionResponse:
        return ExecutionResponse(
            intent_id=intent.intent_id,
            accepted=False,
            broker=broker,
            message=message,
            timestamp=self._clock.now(),
            outcome=Outcome.DENIED,
            code=code,
            safety_code=safety_code,
            route=send.route,
            attempts=send.attempts - 1,  # this one was no launch
        )
