"""
A person's word about an intent in doubt, held against the broker's list before it counts.

Where rows carry no ids of ours, a screen shows less of an order's name than the list, a number may be mistyped, and an order
that the person has not seen may be the very one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from contracts import ExecutionIntent, OrderRecord, OrderScan, load_intent, load_response
from worker.brokers import BaseBrokerAdapter
from worker.errors import Refused
from worker.evidence import look_alikes, moment
from worker.ledger import Ledger, foreign_mark
from worker.ledger.records import Doubt

#: How far before a launch its order may lie in the broker's list, for clocks that differ.
_MARGIN: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Word:
    """What a person says."""

    #: The broker's order; ``None``: the broker does not hold it.
    accepted: str | None
    #: Orders that look like it, and that somebody else has placed.
    foreign: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Named:
    """An order, as the broker's list spells it, and what a later CANCEL needs."""

    broker_order_id: str
    reference: str = ""


def target_named(doubt: Doubt, kind: type[BaseBrokerAdapter], text: str) -> Named:
    """The order of a CANCEL in doubt is its target's. `Control.resolve_by_hand` refuses any other."""
    if doubt.target_response:
        number = load_response(doubt.target_response).broker_order_id or ""
        if kind.may_mean(text, number):
            return Named(number)
    return Named(text)


def named_in_full(kind: type[BaseBrokerAdapter], text: str) -> Named:
    """
    An order that no list was asked about.

    Raises:
        Refused: the words do not name one.
    """
    name = kind.full_name(text)
    if name is None:
        raise Refused(
            f"{text} names no order at {kind.broker_id} by itself: write it as worker report shows it, or say this where "
            "the workers' settings are, so that the broker's list can be read"
        )
    return Named(name)


def named_in_list(adapter: BaseBrokerAdapter, ledger: Ledger, doubt: Doubt, word: Word) -> Named | None:
    """
    What the broker's list knows of the person's word: the order that it names; ``None`` when it says that there is none.

    Raises:
        Refused: the list knows no such order, or several, or one of another symbol or side; or it shows orders that may
            be the one that the broker is said not to hold. Nothing changed.
        BrokerError: the list could not be read.
    """
    scan = adapter.list_orders(moment(doubt.launched_at) - _MARGIN)
    if word.accepted is None:
        _set_look_alikes_apart(adapter, ledger, doubt, word, scan)
        return None
    meant = [row for row in scan.orders if adapter.may_mean(word.accepted, row.broker_order_id)]
    if not meant and not scan.complete:
        return named_in_full(type(adapter), word.accepted)
    if not meant:
        raise Refused(f"the broker's list shows no order {word.accepted} since the day before it was sent")
    if len(meant) > 1:
        names = ", ".join(row.broker_order_id for row in meant)
        raise Refused(f"{word.accepted} may be any of {names}: write it in full")
    [row] = meant
    intent = load_intent(doubt.body)
    if (row.symbol, row.side) != (intent.symbol, intent.side):
        raise Refused(f"order {row.broker_order_id} is {_told(row)}, and the doubt is about {_told(intent)}")
    return Named(row.broker_order_id, row.reference or "")


def _set_look_alikes_apart(
    adapter: BaseBrokerAdapter, ledger: Ledger, doubt: Doubt, word: Word, scan: OrderScan
) -> None:
    """What is said to be somebody else's is written down as that, so that it never counts as ours."""
    rows = _unowned_look_alikes(ledger, doubt, scan)
    foreign = [
        row for row in rows if any(adapter.may_mean(text, row.broker_order_id) for text in word.foreign)
    ]
    if left := [row for row in rows if row not in foreign]:
        told = "; ".join(
            f"{row.broker_order_id} ({_told(row)}, {row.placed_at:%H:%M:%S} UTC)" for row in left
        )
        raise Refused(
            f"the broker's list shows what may be it: {told}. Say --accepted ORDER_ID, or --foreign ORDER_ID of each that "
            "somebody else has placed"
        )
    for row in foreign:
        fields = {
            "broker": adapter.broker_id,
            "broker_order_id": row.broker_order_id,
            "symbol": row.symbol,
            "message": f"somebody else's, says the person who decides the doubt about {doubt.intent_id}",
        }
        ledger.note("FOREIGN_ORDER", foreign_mark(row.broker_order_id), json.dumps(fields))


def _unowned_look_alikes(ledger: Ledger, doubt: Doubt, scan: OrderScan) -> list[OrderRecord]:
    rows = look_alikes(
        scan.orders, load_intent(doubt.body), moment(doubt.launched_at), moment(doubt.quiet_at)
    )
    numbers = [row.broker_order_id for row in rows]
    known = ledger.owners(numbers).keys() | ledger.noted_at(numbers).keys()
    return [row for row in rows if row.broker_order_id not in known]


def _told(order: OrderRecord | ExecutionIntent) -> str:
    price = f" @ {order.limit_price}" if order.limit_price else ""
    return f"{order.side} {order.quantity} {order.symbol}{price}"
