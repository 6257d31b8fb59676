"""
The life of one order, as far as it has been seen. Pure: a sight goes in, the next life comes out.

There are two witnesses, and neither sees all. Notices tell of single executions, and those that nobody listened to
are missing from their sum. The broker's list tells the whole, later. Both can only say too little, so the larger of
the two is what is known: nothing is invented, and nothing ever goes back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from typing import Final

from contracts import OrderNotice, OrderRecord, OrderStatus

#: Of an average, where a division must end somewhere.
_AVERAGES: Final = Context(prec=12)
_NONE: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Life:
    """One order of the account. Whose it is shows when its answer is read; a notice may come before that."""

    broker_order_id: str
    #: Milliseconds of Redis's clock: since when it is followed.
    since: int
    intent_id: str = ""
    symbol: str = ""
    #: Of the whole order, once seen.
    quantity: Decimal | None = None
    status: OrderStatus = OrderStatus.WORKING
    #: What notices add up to, and what was paid for it.
    noticed: Decimal = _NONE
    paid: Decimal = _NONE
    #: What the list says.
    listed: Decimal = _NONE
    listed_average: Decimal | None = None
    #: The last notice that was counted: the listener's name and the notice's number with it.
    heard: str = ""
    #: The list has shown how it ended.
    is_confirmed: bool = False
    message: str = ""

    @property
    def filled(self) -> Decimal:
        """Cumulative: at least so much."""
        return max(self.noticed, self.listed)

    @property
    def average_price(self) -> Decimal | None:
        """Of what is filled; absent while nothing is, or where the broker does not say."""
        if not self.filled:
            return None
        if self.listed >= self.noticed:
            return self.listed_average
        return _plain(_AVERAGES.divide(self.paid, self.noticed)) if self.paid else None

    @property
    def is_ours(self) -> bool:
        return bool(self.intent_id)

    @property
    def is_known(self) -> bool:
        """Whether there is something to tell: whose it is, and that a witness has seen it."""
        return bool(self.intent_id and self.symbol)

    @property
    def is_over(self) -> bool:
        """
        Nothing of it can change any more. An order that ended unfilled counts as over once the list agrees: an
        execution may have crossed its cancel.
        """
        return self.is_known and (
            self.status is OrderStatus.FILLED or (self.status.is_final and self.is_confirmed)
        )

    @property
    def shown(self) -> tuple[OrderStatus, Decimal, Decimal | None]:
        """What an event tells."""
        return self.status, self.filled, self.average_price

    def after_answer(self, intent_id: str) -> Life:
        """Its intent was answered ACCEPTED under this number."""
        return self if self.is_ours else replace(self, intent_id=intent_id)

    def after_notice(self, notice: OrderNotice, listener: str, number: int) -> Life:
        """The broker said something of it. A notice that was counted before changes nothing."""
        last_listener, _, last_number = self.heard.rpartition(":")
        if last_listener == listener and int(last_number) >= number:
            return self
        price = notice.price or _NONE
        return replace(
            self,
            symbol=self.symbol or notice.symbol,
            quantity=self.quantity or notice.quantity,
            noticed=self.noticed + notice.filled_quantity,
            paid=self.paid + notice.filled_quantity * price,
            heard=f"{listener}:{number}",
            message=notice.message or self.message,
        )._now(notice.status)

    def after_row(self, row: OrderRecord) -> Life:
        """The broker's list shows it so."""
        is_news = row.filled_quantity > self.listed
        seen = replace(
            self,
            symbol=self.symbol or row.symbol,
            quantity=row.quantity,
            listed=max(self.listed, row.filled_quantity),
            listed_average=row.average_price if is_news else self.listed_average or row.average_price,
        )._now(row.status)
        return replace(seen, is_confirmed=row.status.is_final)

    def _now(self, said: OrderStatus) -> Life:
        if self.status.is_final:
            return self
        if self.quantity is not None and self.filled >= self.quantity:
            return replace(self, status=OrderStatus.FILLED)
        if said.is_final:
            return replace(self, status=said)
        return replace(self, status=OrderStatus.PARTIALLY_FILLED if self.filled else OrderStatus.WORKING)


def dump_life(life: Life) -> bytes:
    """As Redis keeps it: the fields that say something."""
    fields = {name: getattr(life, name) for name in Life.__slots__}
    return json.dumps(
        {name: _text(value) for name, value in fields.items() if value or name == "since"}
    ).encode()


def load_life(text: bytes) -> Life:
    """The same, back."""
    fields = json.loads(text)
    for name in ("quantity", "noticed", "paid", "listed", "listed_average"):
        if name in fields:
            fields[name] = Decimal(fields[name])
    fields["status"] = OrderStatus(fields["status"])
    return Life(**fields)


def _text(value: object) -> object:
    return str(value) if isinstance(value, Decimal) else value


def _plain(number: Decimal) -> Decimal:
    text = f"{number:f}"
    return Decimal(text.rstrip("0").rstrip(".")) if "." in text else number
