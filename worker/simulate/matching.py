"""
Matching: what an order trades against one second of the market.

A buy trades at the ask when its limit reaches it, a sell at the bid; never more than the depth of that second, which
all orders share. IOC gives back what did not trade at once; FOK trades whole or not at all.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from contracts import Side, TimeInForce
from worker.simulate.orders import Change, Order, What
from worker.simulate.prices import Quote


def trade(order: Order, price: Decimal, depth_left: int, at: datetime) -> Change | None:
    """The fill that the order gets at that price, of the depth that others have left."""
    quantity = min(order.remaining, depth_left)
    if quantity <= 0 or (order.force is TimeInForce.FOK and quantity < order.remaining):
        return None
    return Change(What.FILLED, quantity, price, at)


def crossing_price(order: Order, quote: Quote) -> Decimal | None:
    """The price at which it would trade now; none when its limit does not reach the other side."""
    if order.side is Side.BUY:
        return quote.ask if order.limit is None or order.limit >= quote.ask else None
    return quote.bid if order.limit is None or order.limit <= quote.bid else None
