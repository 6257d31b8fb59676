"""Orders at KIS: placing, cancelling, looking up and listing them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel

from contracts import Code, OrderNotice, OrderQuery, OrderRecord, OrderRequest, OrderResponse, OrderScan
from worker.brokers.base import BaseBrokerAdapter
from worker.brokers.kis import facts
from worker.brokers.kis.client import KISClient
from worker.brokers.kis.denied import PretradeDenied
from worker.brokers.kis.facts import Environment
from worker.brokers.kis.holidays import Holidays
from worker.brokers.kis.lists import DAYS_MAX, daily_call, us_daily_call
from worker.brokers.kis.notices import KISNotices
from worker.brokers.kis.numbers import OrderNumber
from worker.brokers.kis.options import KISOptions
from worker.brokers.kis.payload import (
    KR_VENUES,
    Call,
    Placed,
    build_kis_cancel_payload,
    build_kis_order_payload,
    division_of,
    is_korean,
    venue_of,
)
from worker.brokers.kis.replies import Reply, parse_kis_place_response
from worker.brokers.kis.rows import KISOrderRecord, ReadRows, domestic_orders, us_orders
from worker.brokers.kis.scan import DOMESTIC, US, Listing, read_list
from worker.clock import Clock
from worker.errors import BrokerError, NotSent, OutcomeUnknown, Rejected
from worker.markets import Calendar, Country, State, Venue, check, session

#: A moment at which every venue is open and takes all that it ever takes, for a server that never closes.
_ALWAYS: Final = {
    Country.KR: datetime(2026, 11, 23, 2, 0, tzinfo=UTC),
    Country.US: datetime(2026, 11, 23, 16, 0, tzinfo=UTC),
}
#: Codes of ours, where an order cannot be asked about.
_NO_NUMBER: Final = "NO-SUCH-NUMBER"
_ANOTHER_DAY: Final = "ORDER-OF-ANOTHER-DAY"
#: What is told of a call for the audit trail is no longer.
_WIRE_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class OrderRules:
    """What the account's owner has set."""

    #: For orders that name no venue.
    venue: str | None = None
    us: bool = False
    check_hours: bool = True
    calendar: Calendar = field(default_factory=Calendar)
    funds: frozenset[str] = frozenset()
    #: Seconds; the dated fact when absent.
    visibility_lag: float | None = None
    #: Whose notices are heard; none without it.
    hts_id: str | None = field(default=None, repr=False)


class KISOrderAdapter(BaseBrokerAdapter):
    """
    Orders of one account over a `KISClient`. KIS takes no order id of ours.

    An order that cannot exist, or that the venue does not take now, is `PretradeDenied` before anything is sent.
    """

    Options: ClassVar[type[BaseModel]] = KISOptions
    broker_id = "kis"
    client_order_ids = False

    def __init__(
        self, client: KISClient, rules: OrderRules | None = None, holidays: Holidays | None = None
    ) -> None:
        self.client = client
        #: KIS's own word on trading days, as the calendar in ``rules`` may ask it.
        self.holidays = holidays or Holidays(client)
        self._rules = rules or OrderRules()
        self._clock = client.clock
        self._environment = client.credentials.environment
        self._account = client.credentials.account
        lag = facts.VISIBILITY_LAG[self._environment]
        self.visibility_lag = max(lag, self._rules.visibility_lag or 0.0)
        self.rate_limit = facts.RATE_LIMIT[self._environment]
        # Whoever shares the limit may set the hook later.
        client.before_read = lambda: self.before_read()

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, mode: str, clock: Clock) -> Self:
        read = KISOptions.model_validate(dict(options))
        client = KISClient.from_options(read, mode=mode, clock=clock)
        holidays = Holidays(client)
        rules = OrderRules(
            venue=read.venue,
            us=read.us,
            check_hours=read.check_hours,
            calendar=Calendar.from_options(read.calendar, {Country.KR: holidays.is_open}),
            funds=read.funds,
            visibility_lag=read.visibility_lag,
            hts_id=read.hts_id,
        )
        return cls(client, rules, holidays)

    def place_order(self, request: OrderRequest) -> OrderResponse:
        request = self._checked(request)
        assert request.venue is not None
        call = build_kis_order_payload(request, self._account, self._environment)
        placed = Placed(
            request.venue,
            division_of(request, request.venue, self._environment),
            str(int(request.quantity)),
        )
        taken = self._sent(call, request.send_before, str(placed))
        number = OrderNumber.parse(taken.broker_order_id)
        if number is None or not number.branch:
            # By half a name nobody would know the order again in the list: it would pass for another one's.
            unnamed = OutcomeUnknown("KIS says success but names no branch", code=taken.broker_code)
            unnamed.wire = taken.wire or ""
            raise unnamed
        return taken

    def cancel_order(self, query: OrderQuery) -> OrderResponse:
        number = OrderNumber.parse(query.broker_order_id or "")
        if number is None:
            raise Rejected(f"{query.broker_order_id} is no order number of KIS", code=_NO_NUMBER)
        placed = self._placed(query)
        if not self._may_work(number, query, placed.venue):
            raise Rejected(f"{number} is of another trading day, and over", code=_ANOTHER_DAY)
        call = build_kis_cancel_payload(number, query.symbol, placed, self._account, self._environment)
        taken = self._sent(call, query.send_before, query.reference)
        # The cancel has a number of its own; what was asked about is the target.
        return OrderResponse(
            query.broker_order_id or str(number),
            taken.message,
            taken.broker_code,
            query.reference,
            taken.wire,
        )

    def get_order(self, query: OrderQuery) -> OrderRecord | None:
        number = OrderNumber.parse(query.broker_order_id or "")
        if number is None or (self._today() - number.day).days > DAYS_MAX:
            return None
        if is_korean(query.symbol):
            found = self._domestic(number.day, number.day, number)[0]
        else:
            found = self._us(number.day - timedelta(days=1), number.day)[0]
        return next((order for order in found.orders if _is(order, number)), None)

    def list_orders(self, since: datetime) -> OrderScan:
        """
        Also raises:
            ReadFailed: the first page of a list did not come. A later one that fails makes the scan incomplete.
        """
        # Here, where a call more keeps no order waiting.
        if self._rules.check_hours and self._environment is Environment.REAL:
            self.holidays.refresh()
        today = self._today()
        first = since.astimezone(facts.KST).date()
        reaches = max(first, today - timedelta(days=DAYS_MAX))
        parts = [self._domestic(reaches, max(today, reaches))]
        if self._rules.us:
            parts.append(self._us(reaches - timedelta(days=1), max(today, reaches)))
        # Rows know seconds only.
        since = since.replace(microsecond=0)
        orders = [order for read, _ in parts for order in read.orders if order.placed_at >= since]
        whole = all(not listing.fault and not read.faults for read, listing in parts)
        return OrderScan(tuple(sorted(orders, key=_age)), complete=whole and reaches == first)

    def in_session(self, at: datetime) -> bool:
        """Also while nobody knows whether the day trades."""
        rules = self._rules
        if not rules.check_hours:
            return True
        venues = [Venue(rules.venue or KR_VENUES[0]), *([Venue("NASD")] if rules.us else [])]
        return any(session(one, at, calendar=rules.calendar).state is not State.CLOSED for one in venues)

    def knows_day(self, day: date) -> bool:
        rules = self._rules
        countries = [Country.KR, *([Country.US] if rules.us else [])]
        days = [rules.calendar.day(country, day) for country in countries]
        return not rules.check_hours or all(one.state is not State.UNKNOWN for one in days)

    @classmethod
    def full_name(cls, text: str) -> str | None:
        number = OrderNumber.parse(text)
        return str(number) if number is not None and number.branch else None

    @classmethod
    def may_mean(cls, text: str, number: str) -> bool:
        """KIS's own screens show the last part of a number, without zeros in front."""
        listed = OrderNumber.parse(number)
        is_bare = text.isascii() and text.isdigit()
        return cls.full_name(text) == number or (
            is_bare and listed is not None and listed.number == text.zfill(len(listed.number))
        )

    def session_over(self, symbol: str, since: datetime) -> bool:
        """When the date of ``since`` is past where the symbol trades: Korea's for Korean stocks, else New York's."""
        zone = facts.KST if is_korean(symbol) else facts.NEW_YORK
        return since.astimezone(zone).date() < self._clock.now().astimezone(zone).date()

    def notices(
        self, heard: Callable[[OrderNotice], None], gap: Callable[[], None], stop: threading.Event
    ) -> None:
        if self._rules.hts_id is not None:
            KISNotices(self.client, self._rules.hts_id, us=self._rules.us).listen(heard, gap, stop)

    def close(self) -> None:
        self.client.close()

    def _sent(self, call: Call, send_before: float | None, reference: str | None) -> OrderResponse:
        reply: Reply | None = None
        started = self._clock.boottime()
        try:
            reply = self.client.post(call, send_before)
            taken = parse_kis_place_response(reply, at=self._clock.now(), reference=reference)
        except BrokerError as error:
            if reply is not None or not isinstance(error, NotSent):
                error.wire = self._told(call, reply, started)
            raise
        return replace(taken, wire=self._told(call, reply, started))

    def _told(self, call: Call, reply: Reply | None, started: float) -> str:
        ms = (self._clock.boottime() - started) * 1000
        answer = reply.told if reply else "no answer that counts"
        return f"{call.told(self._account)} -> {ms:.0f} ms {answer}"[:_WIRE_MAX]

    def _checked(self, request: OrderRequest) -> OrderRequest:
        venue = venue_of(request.symbol, request.venue or self._rules.venue)
        request = replace(request, venue=venue)
        if venue not in KR_VENUES and not self._rules.us:
            raise PretradeDenied(
                f"symbol: this route takes no US orders ({request.symbol}); set its option us to true",
                field="symbol",
            )
        division_of(request, venue, self._environment)
        rules, country = self._rules, Venue(venue).country
        at = self._clock.now() if rules.check_hours else _ALWAYS[country]
        denial = check(
            request, at, calendar=rules.calendar if rules.check_hours else Calendar(), funds=rules.funds
        )
        if denial is not None:
            raise PretradeDenied(
                denial.message, field=denial.field, denial=denial.code, nearest=denial.nearest
            )
        return request

    def _domestic(
        self, first: date, last: date, number: OrderNumber | None = None
    ) -> tuple[ReadRows, Listing]:
        call = daily_call(self._account, self._environment, first, last, number)
        rows = facts.PAGE_ROWS[self._environment]
        found = read_list(self.client, call, DOMESTIC, page_rows=rows, is_filtered=number is not None)
        return domestic_orders(found.rows, self._today()), found

    def _us(self, first: date, last: date) -> tuple[ReadRows, Listing]:
        call = us_daily_call(self._account, self._environment, first, last)
        found = read_list(self.client, call, US, page_rows=facts.PAGE_ROWS[self._environment])
        return us_orders(found.rows, self._clock.now().astimezone(facts.NEW_YORK).date()), found

    def _may_work(self, number: OrderNumber, query: OrderQuery, venue: str) -> bool:
        """KIS counts anew each day: the number of another day is another order today."""
        now = self._clock.now().astimezone(facts.KST)
        age = (now.date() - number.day).days
        if age != 1 or venue in KR_VENUES or now.hour >= facts.US_NIGHT_ENDS:
            return age == 0
        # A US night outlives midnight, and the number does not tell whether yesterday's order is of this one.
        try:
            order = self.get_order(query)
        except BrokerError as error:
            raise NotSent(f"{number} could not be looked up before its cancel: {error.message}") from error
        if order is None:
            raise NotSent(f"{number} is of yesterday, and its list does not show it now")
        return not order.status.is_final and not self.session_over(query.symbol, order.placed_at)

    def _placed(self, query: OrderQuery) -> Placed:
        known = Placed.parse(query.reference or "")
        if known is not None:
            return known
        try:
            return Placed(venue_of(query.symbol, query.venue or self._rules.venue), "00", "0")
        except PretradeDenied as error:
            raise Rejected(
                f"the order's exchange is not known: {error.message}", code=Code.PRETRADE
            ) from error

    def _today(self) -> date:
        return self._clock.now().astimezone(facts.KST).date()


def _is(order: KISOrderRecord, number: OrderNumber) -> bool:
    found = OrderNumber.parse(order.broker_order_id)
    return (
        found is not None
        and (found.day, found.number) == (number.day, number.number)
        and number.branch in ("", found.branch)
    )


def _age(order: OrderRecord) -> tuple[datetime, str]:
    return order.placed_at, order.broker_order_id
