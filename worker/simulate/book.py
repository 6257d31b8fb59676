"""What the broker knows: every order of every day, and the accounts that follow from them. Events in, state out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from contracts import Side
from worker.simulate.orders import Change, Event, Kind, Order, OrderKey, What
from worker.simulate.universe import Instrument


@dataclass(slots=True)
class Position:
    quantity: int
    #: What the shares cost, in the symbol's currency.
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Opening:
    """What an account has when it is first seen."""

    #: By currency.
    cash: Mapping[str, Decimal]
    #: Shares by symbol, at each symbol's base price.
    holdings: Mapping[str, int]


@dataclass(slots=True)
class Account:
    """Money and shares. There are no fees and no taxes."""

    cash: dict[str, Decimal]
    positions: dict[str, Position]
    #: Kept back for open buys, by currency.
    held_cash: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    #: Kept back for open sells, by symbol.
    held_shares: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    #: What the fills of a day brought in, by day and currency.
    flows: dict[tuple[date, str], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    #: Shares traded on a day, by day, symbol and side.
    traded: dict[tuple[date, str, Side], int] = field(default_factory=lambda: defaultdict(int))

    def free_cash(self, currency: str) -> Decimal:
        return self.cash.get(currency, Decimal()) - self.held_cash[currency]

    def free_shares(self, symbol: str) -> int:
        position = self.positions.get(symbol)
        return (position.quantity if position else 0) - self.held_shares[symbol]

    def hold(self, order: Order, quantity: int) -> None:
        """Keep back what that many shares of the order need; less than none gives it back."""
        if order.side is Side.BUY:
            self.held_cash[order.currency] += order.hold * quantity
        else:
            self.held_shares[order.symbol] += quantity

    def trade(self, order: Order, change: Change) -> None:
        """Move money and shares as the fill says."""
        way = 1 if order.side is Side.BUY else -1
        money = way * change.quantity * change.price
        self.cash[order.currency] = self.cash.get(order.currency, Decimal()) - money
        self.flows[order.day, order.currency] -= money
        self.traded[order.day, order.symbol, order.side] += change.quantity
        position = self.positions.setdefault(order.symbol, Position(0, Decimal()))
        if way > 0:
            position.cost += money
        elif position.quantity:
            position.cost -= position.cost * change.quantity / position.quantity
        position.quantity += way * change.quantity


class Book:
    """
    The state that the events so far add up to.

    Not for two threads at once: whoever holds the exchange's lock may read and apply.
    """

    def __init__(self, opening: Opening, instruments: Mapping[str, Instrument]) -> None:
        self._opening = opening
        self._instruments = instruments
        self._orders: dict[OrderKey, Order] = {}
        self._days: dict[tuple[str, date], list[OrderKey]] = defaultdict(list)
        self._accounts: dict[str, Account] = {}
        self._last: dict[date, int] = {}
        #: The orders that may still trade.
        self.live: dict[OrderKey, Order] = {}

    def apply(self, event: Event) -> None:
        """Take in what happened."""
        if isinstance(event, Order):
            self._place(event)
        else:
            self._change(*event)

    def next_number(self, day: date) -> str:
        """The number of the next order of that day: ten digits, from 1 every day."""
        return f"{self._last.get(day, 0) + 1:010d}"

    def find(self, key: OrderKey) -> Order | None:
        return self._orders.get(key)

    def __getitem__(self, key: OrderKey) -> Order:
        return self._orders[key]

    def account(self, number: str) -> Account:
        """The account; one that nobody has used yet is opened."""
        if number not in self._accounts:
            positions = {
                symbol: Position(quantity, quantity * self._instruments[symbol].base)
                for symbol, quantity in self._opening.holdings.items()
            }
            self._accounts[number] = Account(dict(self._opening.cash), positions)
        return self._accounts[number]

    def orders(self, account: str, first: date, last: date) -> Iterable[Order]:
        """The account's orders of those days, oldest first."""
        days = sorted(day for owner, day in self._days if owner == account and first <= day <= last)
        return (self._orders[key] for day in days for key in self._days[account, day])

    def everything(self) -> Iterable[Order]:
        """Every order there ever was, in the order of arrival."""
        return self._orders.values()

    def _place(self, order: Order) -> None:
        self._orders[order.key] = order
        self._days[order.account, order.day].append(order.key)
        self._last[order.day] = max(self._last.get(order.day, 0), int(order.number))
        if order.kind is not Kind.CANCEL:
            self.live[order.key] = order
            self.account(order.account).hold(order, order.quantity)

    def _change(self, key: OrderKey, change: Change) -> None:
        order = self._orders[key] = self._orders[key].changed(change)
        if order.kind is Kind.CANCEL:
            return
        account = self.account(order.account)
        account.hold(order, -change.quantity)
        if change.what is What.FILLED:
            account.trade(order, change)
        if order.remaining:
            self.live[key] = order
        else:
            self.live.pop(key, None)
