"""
The exchange and the broker's back office as one engine: it takes or refuses, trades, cancels, expires.

It has no thread and no timer. Every call first brings the market up to the clock's moment, second by second; calling
`Exchange.advance` now and then makes things happen that nobody asks about.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from contracts import Side, TimeInForce
from worker.simulate.book import Account, Book
from worker.simulate.journal import Journal
from worker.simulate.matching import crossing_price, trade
from worker.simulate.orders import Change, Event, Kind, Order, OrderKey, What
from worker.simulate.prices import PricePath
from worker.simulate.rules import Ask, Reason, Refusal, Rules
from worker.simulate.trading_time import TradingTime

#: Told of every new order (no change) and of every change, with the order as it then is. Called under the lock.
Listener = Callable[[Order, Change | None], None]


@dataclass(frozen=True, slots=True)
class Lags:
    """Seconds that things take behind the broker's counter."""

    #: Until lists show an order, and each later change of it.
    visibility: float = 0.0
    #: Until an order reaches the exchange: nothing trades before, and a cancel is too early.
    exchange: float = 0.0


@dataclass(frozen=True, slots=True)
class Mishap:
    """What a fault does to one order after it was taken."""

    #: Seconds that lists hide it, on top of the usual.
    hidden: float = 0.0
    #: Seconds until the exchange refuses it; none: it does not.
    refused_after: float | None = None


class Exchange:
    """All state is behind ``lock``, which may be held around several calls."""

    def __init__(
        self, book: Book, journal: Journal, rules: Rules, prices: PricePath, time: TradingTime, lags: Lags
    ) -> None:
        self.lock = threading.RLock()
        self.book = book
        self.rules = rules
        self.time = time
        self.lags = lags
        self._journal = journal
        self._prices = prices
        self._listeners: list[Listener] = []
        for event in journal.replay():
            book.apply(event)
        self._second = int(time.now().timestamp())
        #: Shares of this second that are gone, by symbol and side.
        self._taken: dict[tuple[str, Side], int] = {}
        #: The next moment at which an order ends by itself.
        self._due = self._next_due()

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def forget(self, listener: Listener) -> None:
        self._listeners.remove(listener)

    def quote_price(self, symbol: str) -> Decimal:
        """The last price of this second."""
        return self._prices.quote(self.rules.instruments[symbol], int(self.time.now().timestamp())).last

    def account(self, number: str) -> Account:
        self.advance()
        return self.book.account(number)

    def seen(self, order: Order) -> Order | None:
        """The order as lists show it now; none while they hide it."""
        now = self.time.now()
        if order.visible_at > now:
            return None
        return order.as_of(now - timedelta(seconds=self.lags.visibility))

    def place(self, ask: Ask, mishap: Mishap | None = None) -> Order:
        """
        Take the order, under a new number, and let it trade at once where it can.

        Raises:
            Refusal: nothing was taken.
        """
        with self.lock:
            self.advance()
            order = self._new(ask, mishap or Mishap())
            self.rules.check_means(order, self.book.account(order.account))
            self._take([order], order)
            return self.book[order.key]

    def modify(self, key: OrderKey, ask: Ask) -> Order:
        """
        Replace what is left of an order, or the given part of it, by another price and type.

        Raises:
            Refusal: nothing changed.
        """
        with self.lock:
            self.advance()
            original = self._working(key, ask)
            order = replace(self._new(ask, Mishap()), kind=Kind.MODIFY, original=original.number)
            account = self.book.account(order.account)
            account.hold(original, -order.quantity)
            try:
                self.rules.check_means(order, account)
            finally:
                account.hold(original, order.quantity)
            moved = Change(What.MOVED, order.quantity, Decimal(), order.placed_at)
            self._take([(original.key, moved), order], order)
            return self.book[order.key]

    def cancel(self, key: OrderKey, ask: Ask) -> Order:
        """
        Cancel what is left of an order, or the given part of it. Answers the row of the cancel.

        Raises:
            Refusal: nothing changed.
        """
        with self.lock:
            self.advance()
            original = self._working(key, ask)
            row = replace(
                original,
                number=self.book.next_number(self.time.today()),
                day=self.time.today(),
                quantity=ask.quantity,
                placed_at=(now := self.time.now()),
                visible_at=now + timedelta(seconds=self.lags.visibility),
                kind=Kind.CANCEL,
                original=original.number,
                refuse_at=None,
                changes=(),
            )
            change = Change(What.CANCELLED, ask.quantity, Decimal(), now)
            self._record([row, (original.key, change), (row.key, change)])
            return self.book[row.key]

    def advance(self) -> None:
        """Bring the market up to now."""
        with self.lock:
            now = self.time.now()
            while self._second < int(now.timestamp()):
                self._taken.clear()
                if not self.book.live:
                    self._second = int(now.timestamp())
                    break
                self._second += 1
                moment = datetime.fromtimestamp(self._second, UTC)
                self._end_what_is_due(moment)
                for order in list(self.book.live.values()):
                    self._record(self._traded(order, moment))
            self._end_what_is_due(now)

    # --- One order --------------------------------------------------------------------------------------------

    def _new(self, ask: Ask, mishap: Mishap) -> Order:
        now = self.time.now()
        instrument = self.rules.check_terms(ask, now)
        quote = self._prices.quote(instrument, self._second)
        limit = self.rules.limit(ask, instrument, quote)
        at_exchange = now + timedelta(seconds=self.lags.exchange)
        refuse_at = None
        if mishap.refused_after is not None:
            at_exchange = refuse_at = now + timedelta(seconds=mishap.refused_after)
        return Order(
            number=self.book.next_number(self.time.today()),
            day=self.time.today(),
            branch=ask.branch,
            account=ask.account,
            market=instrument.market,
            venue=ask.venue,
            symbol=ask.symbol,
            side=ask.side,
            division=ask.terms.division,
            quantity=ask.quantity,
            price=ask.price,
            limit=limit,
            force=ask.terms.force,
            placed_at=now,
            ends_at=self.rules.venues.end(ask.venue, ask.terms.sessions, now),
            visible_at=now + timedelta(seconds=self.lags.visibility + mishap.hidden),
            at_exchange=at_exchange,
            hold=self.rules.hold(ask, instrument, limit),
            sessions=ask.terms.sessions,
            refuse_at=refuse_at,
        )

    def _working(self, key: OrderKey, ask: Ask) -> Order:
        order = self.book.find(key)
        if order is None or order.kind is Kind.CANCEL or order.venue != ask.venue:
            raise Refusal(Reason.NO_ORDER)
        if not order.remaining:
            raise Refusal(Reason.NOTHING_LEFT)
        if order.at_exchange > self.time.now():
            raise Refusal(Reason.TOO_EARLY)
        if ask.quantity > order.remaining:
            raise Refusal(Reason.NOTHING_LEFT)
        return order

    # The order and what it trades at once are one write: a kill leaves both or neither.
    def _take(self, events: list[Event], order: Order) -> None:
        self._record([*events, *self._traded(order, order.placed_at)])
        self._due = min(self._due, order.refuse_at or order.ends_at)

    def _traded(self, order: Order, moment: datetime) -> list[Event]:
        if order.at_exchange > moment or not self.rules.venues.trades(order.venue, order.sessions, moment):
            return []
        fill = self._fill(order, moment)
        changes = [fill] if fill else []
        left = order.remaining - (fill.quantity if fill else 0)
        if left and order.force is not TimeInForce.DAY:
            changes.append(Change(What.CANCELLED, left, Decimal(), moment))
        return [(order.key, change) for change in changes]

    def _fill(self, order: Order, moment: datetime) -> Change | None:
        instrument = self.rules.instruments[order.symbol]
        price = crossing_price(order, self._prices.quote(instrument, self._second))
        if price is None:
            return None
        taken = self._taken.get((order.symbol, order.side), 0)
        fill = trade(order, price, self._prices.depth(instrument, self._second) - taken, moment)
        if fill:
            self._taken[order.symbol, order.side] = taken + fill.quantity
        return fill

    # --- Time and record --------------------------------------------------------------------------------------

    def _end_what_is_due(self, moment: datetime) -> None:
        if moment < self._due:
            return
        for order in list(self.book.live.values()):
            if order.refuse_at is not None and order.refuse_at <= moment:
                what, at = What.REFUSED, order.refuse_at
            elif order.ends_at <= moment:
                what, at = What.EXPIRED, order.ends_at
            else:
                continue
            self._record([(order.key, Change(what, order.remaining, Decimal(), at))])
        self._due = self._next_due()

    def _next_due(self) -> datetime:
        ends = (order.refuse_at or order.ends_at for order in self.book.live.values())
        return min(ends, default=datetime.max.replace(tzinfo=UTC))

    def _record(self, events: list[Event]) -> None:
        if not events:
            return
        self._journal.append(events)
        for event in events:
            self.book.apply(event)
        for event in events:
            key, change = (event.key, None) if isinstance(event, Order) else event
            order = self.book[key]
            for listener in self._listeners:
                listener(order, change)
