"""What adapters speak: the request for one order, the broker's answer, and the life of the order after it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Literal

from contracts._base import IntentId, Message, Quantity, RouteName, Symbol, Time
from contracts.failsafe import SafetyCode
from contracts.intent import Side, TimeInForce


class OrderStatus(StrEnum):
    #: Live at the broker, nothing filled.
    WORKING = "WORKING"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    #: Accepted by the broker first, refused by the exchange later.
    REFUSED = "REFUSED"
    EXPIRED = "EXPIRED"

    @property
    def is_final(self) -> bool:
        return self not in (OrderStatus.WORKING, OrderStatus.PARTIALLY_FILLED)


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """One order as an adapter is asked to place it."""

    #: Our intent_id; adapters whose broker takes a client order id send it along.
    client_order_id: str
    symbol: str
    side: Side
    #: Shares or contracts, exact.
    quantity: Decimal
    #: Quote currency per share; absent for a market order.
    limit_price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.DAY
    venue: str | None = None
    #: Seconds on ``CLOCK_BOOTTIME``. An adapter that has not handed its bytes to the kernel by then raises
    #: ``NotSent``.
    send_before: float | None = None


@dataclass(frozen=True, slots=True)
class OrderResponse:
    """The broker confirmed that it holds the order. An adapter answers so, or raises."""

    broker_order_id: str
    message: str = ""
    #: The broker's own success code.
    broker_code: str | None = None
    #: What a later cancel or look-up needs besides the number (branch, exchange), as the adapter spells it.
    reference: str | None = None
    #: What went over the wire and came back, in one line for the audit trail; without secrets.
    wire: str | None = None


@dataclass(frozen=True, slots=True)
class OrderQuery:
    """Which order to look up or cancel. At least one of the two ids is given."""

    symbol: str
    broker_order_id: str | None = None
    client_order_id: str | None = None
    venue: str | None = None
    #: As the adapter gave it in ``OrderResponse.reference``.
    reference: str | None = None
    #: As in ``OrderRequest``; for a cancel.
    send_before: float | None = None


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """One order as the broker's own list shows it."""

    broker_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    status: OrderStatus
    placed_at: datetime
    limit_price: Decimal | None = None
    filled_quantity: Decimal = Decimal(0)
    average_price: Decimal | None = None
    client_order_id: str | None = None
    venue: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class OrderScan:
    """A reading of the broker's order list."""

    orders: tuple[OrderRecord, ...]
    #: Every page was read to its end mark. An incomplete scan can show a presence, never an absence.
    complete: bool


@dataclass(frozen=True, slots=True)
class OrderNotice:
    """What the broker said by itself about one order of the account, ours or not."""

    broker_order_id: str
    symbol: str
    #: What it tells: ``WORKING`` that the order stands, ``PARTIALLY_FILLED`` of one more execution, be it the last,
    #: or how the order ended otherwise.
    status: OrderStatus
    #: The order's whole quantity, where the notice has it.
    quantity: Decimal | None = None
    #: By this execution alone, and at what price.
    filled_quantity: Decimal = Decimal(0)
    price: Decimal | None = None
    #: The broker's words, for a refusal.
    message: str = ""


class OrderEvent(Message):
    """A change in the life of an accepted order, published on the orders stream."""

    schema_version: Literal[1] = 1
    intent_id: IntentId
    route: RouteName
    broker: str
    broker_order_id: str
    symbol: Symbol
    status: OrderStatus
    #: Cumulative, never a difference.
    filled_quantity: Quantity
    average_price: Quantity | None = None
    #: Who saw it: ``notice``, ``list``, ``cancel`` or a worker's name.
    seen_by: str
    safety_code: SafetyCode | None = None
    message: str = ""
    timestamp: Time
