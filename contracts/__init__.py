"""The messages of the execution worker. Needs pydantic only."""

from contracts.bridge import intent_to_order_request, order_response_to_execution_response
from contracts.failsafe import FailsafeEvent, FailsafeType, GuardState, SafetyCode
from contracts.intent import ExecutionIntent, IntentType, Side, TimeInForce
from contracts.orders import (
    OrderEvent,
    OrderNotice,
    OrderQuery,
    OrderRecord,
    OrderRequest,
    OrderResponse,
    OrderScan,
    OrderStatus,
)
from contracts.response import Code, ExecutionResponse, Outcome
from contracts.wire import ContractError, dump, load_event, load_intent, load_order_event, load_response

__all__ = [
    "Code",
    "ContractError",
    "ExecutionIntent",
    "ExecutionResponse",
    "FailsafeEvent",
    "FailsafeType",
    "GuardState",
    "IntentType",
    "OrderEvent",
    "OrderNotice",
    "OrderQuery",
    "OrderRecord",
    "OrderRequest",
    "OrderResponse",
    "OrderScan",
    "OrderStatus",
    "Outcome",
    "SafetyCode",
    "Side",
    "TimeInForce",
    "dump",
    "intent_to_order_request",
    "load_event",
    "load_intent",
    "load_order_event",
    "load_response",
    "order_response_to_execution_response",
]
