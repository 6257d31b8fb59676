"""What the broker and the exchange refuse, and why: in words of ours, which each protocol turns into its own codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import Enum

from contracts import Side, TimeInForce
from worker.markets import Phase, Venue
from worker.simulate.book import Account
from worker.simulate.orders import Order
from worker.simulate.prices import Quote
from worker.simulate.universe import Instrument
from worker.simulate.venues import AFTER, Venues


class Reason(Enum):
    """Why something is refused."""

    SYMBOL = "no such symbol"
    NOT_A_BUSINESS_DAY = "the venue is closed today"
    BEFORE_OPEN = "the day's first session is still to come"
    HOURS = "no session takes this type now"
    AFTER_MARKET_TYPE = "the after-market takes its own types only"
    VENUE_TYPE = "the venue does not have this type"
    TICK = "the price is not on the grid"
    UPPER_LIMIT = "the price is above the day's upper limit"
    LOWER_LIMIT = "the price is below the day's lower limit"
    CASH = "not enough money"
    SHARES = "not enough shares"
    NO_SHARES = "no shares at all"
    NO_ORDER = "no such order on that venue"
    NOTHING_LEFT = "nothing, or not so much, is left of it"
    TOO_EARLY = "the exchange has not received it yet"


class Refusal(Exception):
    """The broker says no. Nothing changed."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Pricing(Enum):
    """Where an order type takes its limit from."""

    #: The order's own price.
    LIMIT = "limit"
    #: Any price.
    MARKET = "market"
    #: The best price of the other side, when it comes in.
    COUNTER = "counter"
    #: The best price of its own side, when it comes in.
    OWN = "own"
    #: The last close.
    BASE = "base"


@dataclass(frozen=True, slots=True)
class Terms:
    """An order type of a broker, in our words."""

    #: The broker's own code and name.
    division: str
    name: str
    pricing: Pricing
    force: TimeInForce
    sessions: frozenset[str]
    venues: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client asks for, read from the wire and well-formed."""

    account: str
    branch: str
    venue: str
    symbol: str
    side: Side
    quantity: int
    #: As written; 0 where the type carries none.
    price: Decimal
    terms: Terms

    def of(self, quantity: int) -> Ask:
        """The same for another number of shares."""
        return replace(self, quantity=quantity)


@dataclass(frozen=True, slots=True)
class Rules:
    instruments: Mapping[str, Instrument]
    venues: Venues

    def check_terms(self, ask: Ask, now: datetime) -> Instrument:
        """
        The instrument, when the order may exist at all.

        Raises:
            Refusal
        """
        instrument = self.instruments.get(ask.symbol)
        if instrument is None or instrument.market != Venue(ask.venue).country:
            raise Refusal(Reason.SYMBOL)
        only_krx = instrument.fund and instrument.market == "KR"
        if ask.venue not in ask.terms.venues or (
            only_krx and (ask.venue == "NXT" or AFTER in ask.terms.sessions)
        ):
            raise Refusal(Reason.VENUE_TYPE)
        self._check_hours(ask, now)
        if ask.terms.pricing is Pricing.LIMIT:
            _check_price(ask.price, instrument)
        return instrument

    def check_means(self, order: Order, account: Account) -> None:
        """
        The account can pay for it, or deliver it.

        Raises:
            Refusal
        """
        if order.side is Side.BUY:
            if order.hold * order.quantity > account.free_cash(order.currency):
                raise Refusal(Reason.CASH)
        elif order.quantity > account.free_shares(order.symbol):
            none = order.symbol not in account.positions or not account.positions[order.symbol].quantity
            raise Refusal(Reason.NO_SHARES if none else Reason.SHARES)

    def limit(self, ask: Ask, instrument: Instrument, quote: Quote) -> Decimal | None:
        """The worst price that the order may trade at; none means any."""
        buys = ask.side is Side.BUY
        match ask.terms.pricing:
            case Pricing.LIMIT:
                return ask.price
            case Pricing.MARKET:
                return None
            case Pricing.COUNTER:
                return quote.ask if buys else quote.bid
            case Pricing.OWN:
                return quote.bid if buys else quote.ask
            case Pricing.BASE:
                return instrument.base

    def hold(self, ask: Ask, instrument: Instrument, limit: Decimal | None) -> Decimal:
        """Money kept back for each share of a buy: a market order may cost the day's upper limit."""
        if ask.side is Side.SELL:
            return Decimal()
        if limit is not None:
            return limit
        limits = instrument.limits()
        return limits.upper if limits else instrument.base

    def _check_hours(self, ask: Ask, now: datetime) -> None:
        local = now.astimezone(Venue(ask.venue).country.zone)
        if not self.venues.is_open_day(ask.venue, local.date()):
            raise Refusal(Reason.NOT_A_BUSINESS_DAY)
        if self.venues.takes(ask.venue, ask.terms.sessions, now):
            return
        if self.venues.is_before_open(ask.venue, now):
            raise Refusal(Reason.BEFORE_OPEN)
        if Phase.KRX_AFTER in self.venues.phases(ask.venue, now):
            raise Refusal(Reason.AFTER_MARKET_TYPE)
        raise Refusal(Reason.HOURS)


def _check_price(price: Decimal, instrument: Instrument) -> None:
    if price <= 0 or not instrument.on_grid(price):
        raise Refusal(Reason.TICK)
    limits = instrument.limits()
    if limits is None:
        return
    if price > limits.upper:
        raise Refusal(Reason.UPPER_LIMIT)
    if price < limits.lower:
        raise Refusal(Reason.LOWER_LIMIT)
