"""
An order and all that happened to it, as values; and the lines in which the book's file keeps them.

A line is one event: ``placed`` with the whole order, or a change to an order that was placed before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeAlias

from contracts import Side, TimeInForce


class Kind(StrEnum):
    """What a row of the order list stands for. A cancel and a modification are rows with numbers of their own."""

    NEW = "new"
    MODIFY = "modify"
    CANCEL = "cancel"


class What(StrEnum):
    """What may happen to the shares of an order."""

    FILLED = "filled"
    #: By a cancel order, or the rest of an IOC or FOK.
    CANCELLED = "cancelled"
    #: The exchange refused it after the broker had taken it.
    REFUSED = "refused"
    #: The session ended.
    EXPIRED = "expired"
    #: A modification took them over, under its own number.
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Change:
    what: What
    quantity: int
    #: Per share, of a fill; otherwise 0.
    price: Decimal
    at: datetime


@dataclass(frozen=True, slots=True)
class OrderKey:
    """Numbers restart every day, so a number alone names nothing."""

    account: str
    day: date
    number: str


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for, and what became of it."""

    number: str
    #: The Korean date.
    day: date
    branch: str
    #: Ten digits.
    account: str
    market: str
    venue: str
    symbol: str
    side: Side
    #: The broker's own code of the order type.
    division: str
    quantity: int
    #: The price on the order's row; 0 where the type carries none.
    price: Decimal
    #: Worst price that it may trade at; none means any.
    limit: Decimal | None
    force: TimeInForce
    placed_at: datetime
    #: Unfilled shares expire then.
    ends_at: datetime
    #: Lists show it from then on.
    visible_at: datetime
    #: Nothing trades before; a cancel is too early.
    at_exchange: datetime
    #: Money kept back for each unfilled share of a buy.
    hold: Decimal
    #: The venue's sessions in which it may trade.
    sessions: frozenset[str] = frozenset()
    kind: Kind = Kind.NEW
    #: Of a modification or cancel: the number of the order it was about.
    original: str = ""
    #: The exchange will refuse it then, by a fault.
    refuse_at: datetime | None = None
    changes: tuple[Change, ...] = ()

    @property
    def key(self) -> OrderKey:
        return OrderKey(self.account, self.day, self.number)

    @property
    def currency(self) -> str:
        return "KRW" if self.market == "KR" else "USD"

    def count(self, what: What) -> int:
        return sum(each.quantity for each in self.changes if each.what is what)

    @property
    def filled(self) -> int:
        return self.count(What.FILLED)

    @property
    def amount(self) -> Decimal:
        """Money that the fills moved."""
        return sum(
            (each.quantity * each.price for each in self.changes if each.what is What.FILLED), Decimal()
        )

    @property
    def remaining(self) -> int:
        """Shares that may still trade; none of a cancel's own row."""
        return 0 if self.kind is Kind.CANCEL else self.quantity - sum(each.quantity for each in self.changes)

    def changed(self, change: Change) -> Order:
        return replace(self, changes=(*self.changes, change))

    def as_of(self, moment: datetime) -> Order:
        """The order as somebody sees it who learns everything late."""
        if not self.changes or self.changes[-1].at <= moment:
            return self
        return replace(self, changes=tuple(each for each in self.changes if each.at <= moment))


# --- Lines of the file ------------------------------------------------------------------------------------

Event: TypeAlias = Order | tuple[OrderKey, Change]


def to_line(event: Event) -> dict[str, Any]:
    """The event as JSON can hold it."""
    if isinstance(event, Order):
        return {"event": "placed"} | {
            field.name: _plain(getattr(event, field.name))
            for field in fields(Order)
            if field.name != "changes"
        }
    key, change = event
    return {
        "event": change.what.value,
        "account": key.account,
        "day": key.day.isoformat(),
        "number": key.number,
        "quantity": change.quantity,
        "price": str(change.price),
        "at": change.at.isoformat(),
    }


def from_line(line: Mapping[str, Any]) -> Event:
    """
    The event of a line.

    Raises:
        ValueError, KeyError, TypeError: it is none of ours.
    """
    if line["event"] == "placed":
        given = {name: value for name, value in line.items() if name != "event"}
        return Order(**{name: _READ.get(name, _same)(value) for name, value in given.items()})
    key = OrderKey(line["account"], date.fromisoformat(line["day"]), line["number"])
    at = datetime.fromisoformat(line["at"])
    return key, Change(What(line["event"]), int(line["quantity"]), Decimal(line["price"]), at)


def _plain(value: Any) -> Any:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, frozenset):
        return sorted(value)
    return str(value) if isinstance(value, (Decimal, StrEnum)) else value


def _same(value: Any) -> Any:
    return value


def _moment(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


_READ: dict[str, Any] = {
    "day": date.fromisoformat,
    "side": Side,
    "price": Decimal,
    "hold": Decimal,
    "limit": lambda value: None if value is None else Decimal(value),
    "force": TimeInForce,
    "kind": Kind,
    "sessions": frozenset,
    **dict.fromkeys(("placed_at", "ends_at", "visible_at", "at_exchange", "refuse_at"), _moment),
}
