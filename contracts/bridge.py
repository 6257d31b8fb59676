"""Between what strategies speak and what adapters speak."""

from __future__ import annotations

from datetime import datetime

from contracts.intent import ExecutionIntent, IntentType
from contracts.orders import OrderRequest, OrderResponse
from contracts.response import ExecutionResponse, Outcome


def intent_to_order_request(
    intent: ExecutionIntent, *, default_venue: str | None = None, send_before: float | None = None
) -> OrderRequest:
    """
    The order that a MARKET or LIMIT intent asks for, amounts untouched.

    Raises:
        ValueError: the intent is a NOOP or a CANCEL; nothing may be placed for it.
    """
    if intent.intent_type not in (IntentType.MARKET, IntentType.LIMIT):
        raise ValueError(f"intent_type: a {intent.intent_type} is no order")
    if intent.side is None or intent.quantity is None:
        raise ValueError("side and quantity: required for an order")
    return OrderRequest(
        client_order_id=intent.intent_id,
        symbol=intent.symbol,
        side=intent.side,
        quantity=intent.quantity,
        limit_price=intent.limit_price,
        time_in_force=intent.time_in_force,
        venue=intent.venue or default_venue,
        send_before=send_before,
    )


def order_response_to_execution_response(
    intent: ExecutionIntent,
    order: OrderResponse,
    *,
    broker: str,
    timestamp: datetime,
    route: str | None = None,
    attempts: int = 0,
    sent_at: datetime | None = None,
) -> ExecutionResponse:
    """The answer that tells the strategy that the broker holds its order."""
    return ExecutionResponse(
        intent_id=intent.intent_id,
        accepted=True,
        broker=broker,
        message=order.message,
        timestamp=timestamp,
        outcome=Outcome.ACCEPTED,
        broker_code=order.broker_code,
        broker_order_id=order.broker_order_id,
        route=route,
        attempts=attempts,
        sent_at=sent_at,
    )
