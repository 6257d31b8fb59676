"""
Ends doubts by asking the broker, and looks for orders that should not exist.

No timer, retry count or restart ends a doubt; only evidence does. What counts as evidence stands in `evidence`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from contracts import (
    Code,
    ExecutionResponse,
    OrderQuery,
    OrderRecord,
    OrderScan,
    OrderStatus,
    Outcome,
    dump,
    load_intent,
    load_response,
)
from worker import answers
from worker.brokers.base import BaseBrokerAdapter
from worker.clock import Clock
from worker.errors import BrokerError
from worker.evidence import (
    AGREEING,
    Absent,
    Evidence,
    Found,
    NoVerdict,
    Reading,
    Wanted,
    judge,
    judge_by_key,
    moment,
    order_key,
    order_key_of_row,
)
from worker.ledger import Ledger, foreign_mark
from worker.ledger.records import Doubt, Owner
from worker.logs import Event, Logger
from worker.metrics import Resolution, RouteMetrics, StaleOperation

#: Doubts looked up in one go; they share one reading of the broker's list.
LOOKS = 64
#: Orders of the broker's list that are compared with the ledger in one go.
SCANNED = 500
#: Seconds between two clearings of what is remembered of doubts that others have ended.
FORGET_EVERY = 60.0
#: How far before a launch its order may lie in the broker's list, for clocks that differ; and how far back the list is read
#: again for orders that it did not show before.
MARGIN = timedelta(days=1)
#: Seconds between two readings beyond which the second may know of orders that the first could not show.
_APART = 2.0


@dataclass(slots=True)
class _Watched:
    """What this resolver remembers of one doubt between look-ups."""

    #: As the ledger handed it out last.
    doubt: Doubt
    absence_from: float
    readings: list[Reading] = field(default_factory=list)
    #: When to look again without being asked to, since a reading of our own is all that is missing.
    again: float | None = None
    #: How often that was done since the ledger handed it out last.
    followed: int = 0

    @property
    def late(self) -> list[Reading]:
        """The readings that can tell of an absence."""
        return [one for one in self.readings if one.started >= self.absence_from]

    #: Why nothing is proven, as told last.
    told: str = ""


#: How a CANCEL in doubt ends, by what became of its target.
_CANCEL_ENDS: Final = {
    OrderStatus.CANCELLED: Outcome.ACCEPTED,
    OrderStatus.FILLED: Outcome.REJECTED,
    OrderStatus.REFUSED: Outcome.REJECTED,
    OrderStatus.EXPIRED: Outcome.REJECTED,
}


@dataclass(frozen=True, slots=True)
class ResolverRules:
    """Seconds."""

    route: str
    #: Between the first two look-ups of a doubt; it doubles up to ``ceiling``.
    base: float = 0.5
    ceiling: float = 30.0
    escalate_after: float = 300.0
    #: From a launch until nothing of it can still be on its way and the list shows it.
    quiet: float = 6.0
    #: Nobody else trades on the account. Where rows carry no ids of ours, nothing is proven without it.
    exclusive: bool = False


class Resolver:
    """One route's resolver. ``step`` and ``scan`` raise ``Unavailable`` and ``StateLost`` as the ledger does."""

    def __init__(
        self,
        ledger: Ledger,
        adapter: BaseBrokerAdapter,
        rules: ResolverRules,
        metrics: RouteMetrics,
        log: Logger,
        clock: Clock,
        worker: str,
    ) -> None:
        self._ledger = ledger
        self._adapter = adapter
        self._rules = rules
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._worker = worker
        self._watched: dict[str, _Watched] = {}
        self._forget_from = 0.0
        #: Up to when every order was compared with the ledger for good.
        self._compared_to: datetime | None = None
        #: Orders of the last list that are known to be our own, and those that are noted as foreign.
        self._ours: set[str] = set()
        self._foreigners: set[str] = set()

    def step(self) -> int:
        """Look up the doubts that are due. Returns how many ended."""
        rules = self._rules
        due = self._ledger.look(
            LOOKS, base=rules.base, ceiling=rules.ceiling, escalate_after=rules.escalate_after
        )
        if self._clock.boottime() >= self._forget_from:
            self._forget_from = self._clock.boottime() + FORGET_EVERY
            self._forget_ended(list(self._watched))
        for one in due:
            self._watch(one).followed = 0
        due = [*due, *self._follow_up({one.intent_id for one in due})]
        for one in due:
            self._watch(one).again = None
        ended = 0
        orders = [one for one in due if not one.target]
        if orders and (reading := self._read(orders)) is not None:
            ended += sum(self._resolve_order(one, reading) for one in orders)
        return ended + sum(self._resolve_cancel(one) for one in due if one.target)

    def _watch(self, doubt: Doubt) -> _Watched:
        watched = self._watched.get(doubt.intent_id)
        # A server that forgot a doubt gives the number of its fence to another one.
        if watched is None or _name_of(watched.doubt) != _name_of(doubt):
            # On Redis's clock, which may have been set ahead, and from its first sight on our own: whichever is later.
            left = max(self._rules.quiet, (doubt.quiet_at - doubt.now) / 1000)
            watched = _Watched(doubt, self._clock.boottime() + left)
            self._watched[doubt.intent_id] = watched
        watched.doubt = doubt
        return watched

    def _follow_up(self, due: Collection[str]) -> list[Doubt]:
        """
        Our own doubts that lack nothing but another reading of ours. The ledger hands a doubt to whoever asks first, after
        ever longer pauses: between several workers nobody would have two readings for minutes.
        """
        now = self._clock.boottime()
        wanted = [
            name
            for name, watched in self._watched.items()
            if watched.again is not None and watched.again <= now and name not in due
        ]
        self._forget_ended(wanted)
        found = [self._watched[name] for name in wanted if name in self._watched]
        for watched in found:
            watched.followed += 1
        return [watched.doubt for watched in found]

    def _forget_ended(self, names: Sequence[str]) -> None:
        """Doubts that another worker, or a person, has ended."""
        states = self._ledger.states(names) if names else {}
        for name in names:
            if states.get(name, ("", b""))[0] != "in_doubt":
                del self._watched[name]

    def _look_again(self, watched: _Watched) -> None:
        """Soon, and no more than twice, if two of our own readings that tell of the same time could prove an absence."""
        late = watched.late
        are_apart = watched.followed == 0 and late and late[-1].started - late[0].started > _APART
        if watched.followed < AGREEING and (len(late) < AGREEING or are_apart):
            watched.again = max(watched.absence_from, self._clock.boottime() + self._rules.base)

    def _read(self, doubts: Sequence[Doubt]) -> Reading | None:
        since = datetime.fromtimestamp(min(one.launched_at for one in doubts) / 1000, UTC) - MARGIN
        started = self._clock.boottime()
        try:
            return Reading(self._adapter.list_orders(since), started)
        except BrokerError as error:
            self._log.warning(Event.LOOK_UP_FAILED, reason=str(error))
            return None

    def _resolve_order(self, doubt: Doubt, reading: Reading) -> bool:
        watched = self._watch(doubt)
        watched.readings = [*watched.readings[-1:], reading]
        match self._judge(doubt, watched):
            case Found(order, others):
                done = self._end(
                    doubt, self._accepted(doubt, order), order.reference or "", "found in the list"
                )
                for other in others:
                    self._orphan(other, doubt.intent_id, "settled")
                return done
            case Absent(why):
                return self._end(
                    doubt, self._closed(doubt, Outcome.NOT_PLACED, Code.NOT_PLACED, why), "", why
                )
            case NoVerdict(why):
                self._tell(watched, doubt, why)
                self._look_again(watched)
                return False

    def _judge(self, doubt: Doubt, watched: _Watched) -> Evidence:
        if self._adapter.client_order_ids:
            return judge(doubt.intent_id, watched.readings, absence_from=watched.absence_from)
        numbers = sorted({row.broker_order_id for one in watched.readings for row in one.scan.orders})
        intent = load_intent(doubt.body)
        launched = moment(doubt.launched_at)
        owners = self._ledger.owners(numbers)
        noted = self._ledger.noted_at(numbers)
        wanted = Wanted(
            intent,
            launched,
            moment(doubt.quiet_at),
            {number: moment(one.launched_at) for number, one in owners.items()},
            [number for number, since in noted.items() if since < doubt.launched_at],
            self._rules.exclusive,
            self._adapter.session_over(intent.symbol, launched),
            doubt.is_forgotten_time,
        )
        return judge_by_key(wanted, watched.readings, absence_from=watched.absence_from)

    def _tell(self, watched: _Watched, doubt: Doubt, why: str) -> None:
        """Log why nothing is proven, once for each reason."""
        if why != watched.told:
            watched.told = why
            self._log.info(Event.DOUBT_OPEN, intent_id=doubt.intent_id, reason=why)

    def _resolve_cancel(self, doubt: Doubt) -> bool:
        """A CANCEL in doubt ends by what its target's own row shows."""
        if not doubt.target_response:
            why = "the ledger has forgotten its target (retention); a named person decides"
            self._tell(self._watch(doubt), doubt, why)
            return False
        working = load_response(doubt.target_response)
        query = OrderQuery(
            symbol=load_intent(doubt.body).symbol,
            broker_order_id=working.broker_order_id,
            client_order_id=working.intent_id,
            reference=doubt.target_reference or None,
        )
        started = self._clock.boottime()
        try:
            row = self._adapter.get_order(query)
        except BrokerError as error:
            self._log.warning(Event.LOOK_UP_FAILED, intent_id=doubt.intent_id, reason=str(error))
            return False
        watched = self._watch(doubt)
        if row is None:
            return False
        if row.status in _CANCEL_ENDS:
            return self._end_cancel(doubt, row, _CANCEL_ENDS[row.status])
        watched.readings = [*watched.readings[-1:], Reading(OrderScan((row,), True), started)]
        if len(watched.late) < AGREEING:
            self._look_again(watched)
            return False
        reason = f"the target still works ({row.status}) after the broker's lag: the request did not arrive"
        return self._end(doubt, self._closed(doubt, Outcome.NOT_PLACED, Code.NOT_PLACED, reason), "", reason)

    def _end_cancel(self, doubt: Doubt, row: OrderRecord, outcome: Outcome) -> bool:
        reason = f"the target is {row.status}"
        if outcome is Outcome.ACCEPTED:
            return self._end(doubt, self._accepted(doubt, row), "", reason)
        return self._end(doubt, self._closed(doubt, outcome, Code.TARGET_DONE, reason), "", reason)

    def _accepted(self, doubt: Doubt, order: OrderRecord) -> ExecutionResponse:
        return ExecutionResponse(
            intent_id=doubt.intent_id,
            accepted=True,
            broker=self._adapter.broker_id,
            message="in doubt at first; found in the broker's list",
            timestamp=self._clock.now(),
            outcome=Outcome.ACCEPTED,
            broker_order_id=order.broker_order_id,
            route=self._rules.route,
            attempts=int(doubt.attempt),
            sent_at=_sent_at(doubt),
        )

    def _closed(self, doubt: Doubt, outcome: Outcome, code: Code, message: str) -> ExecutionResponse:
        return answers.refusal(
            doubt.intent_id,
            outcome,
            code,
            message,
            route=self._rules.route,
            now=self._clock.now(),
            broker=self._adapter.broker_id,
            attempts=int(doubt.attempt),
            sent_at=_sent_at(doubt),
        )

    def _end(self, doubt: Doubt, response: ExecutionResponse, reference: str, reason: str) -> bool:
        done = self._ledger.resolve(
            doubt,
            outcome=response.outcome,
            payload=dump(response),
            reference=reference,
            actor=self._worker,
            reason=reason,
            key=self._key_of(doubt),
        )
        self._watched.pop(doubt.intent_id, None)
        if not done:
            self._metrics.stale_write(StaleOperation.RESOLVE)
        else:
            self._metrics.doubt_resolved(_RESOLUTIONS[response.outcome])
            self._metrics.processed(response.outcome)
            self._log.info(
                Event.DOUBT_RESOLVED, intent_id=doubt.intent_id, outcome=response.outcome, reason=reason
            )
        return done

    def _key_of(self, doubt: Doubt) -> str:
        return "" if self._adapter.client_order_ids or doubt.target else order_key(load_intent(doubt.body))

    # Orders that should not exist.

    def scan(self) -> None:
        """
        Compare the broker's list with the ledger. An order whose intent we answered otherwise, or never launched,
        is announced as an orphan and halts the route; any other that is not ours is noted once as foreign.
        """
        now = self._clock.now()
        # Before the first scan somebody else has compared, or nobody has sent anything for long.
        self._compared_to = self._compared_to or now
        try:
            listed = self._adapter.list_orders(self._horizon(self._compared_to))
        except BrokerError as error:
            self._log.warning(Event.LOOK_UP_FAILED, reason=str(error))
            return
        numbers = {row.broker_order_id for row in listed.orders}
        # What was found to be ours once stays so.
        self._ours &= numbers
        self._foreigners &= numbers
        rows = [row for row in listed.orders if row.broker_order_id not in self._ours]
        # The ledger is read after the list: an order that is listed was launched before that.
        compare = self._compare_ids if self._adapter.client_order_ids else self._compare_keys
        parts = [compare(rows[start : start + SCANNED]) for start in range(0, len(rows), SCANNED)]
        if listed.complete:
            self._compared_to = min([now, *(row.placed_at for part in parts for row in part)])

    def _horizon(self, compared_to: datetime) -> datetime:
        """
        From where on the list is to be read. An order shows late, and what is said of it may change for as long as its
        doubt is open, so it reaches a day behind all that was not compared for good.
        """
        doubts = [moment(one.doubt.launched_at) for one in self._watched.values()]
        return min([compared_to, *doubts]) - MARGIN

    def _compare_ids(self, rows: Sequence[OrderRecord]) -> list[OrderRecord]:
        """Returns those of which nothing can be said yet."""
        by_id = {row.client_order_id or "": row for row in rows}
        states = self._ledger.states([one for one in by_id if one])
        return [row for row in rows if not self._compare(row, states)]

    def _compare_keys(self, rows: Sequence[OrderRecord]) -> list[OrderRecord]:
        """Where rows carry no ids of ours: whose number is it, or else, which of our intents does it look like?"""
        under_way = {order_key(load_intent(body)) for body in self._ledger.under_way()}
        owners = self._ledger.owners([row.broker_order_id for row in rows])
        self._ours.update(owners)
        strangers = [row for row in rows if row.broker_order_id not in owners]
        untold = [row for row in strangers if order_key_of_row(row) in under_way]
        strangers = [row for row in strangers if order_key_of_row(row) not in under_way]
        said_foreign = self._ledger.noted_at([row.broker_order_id for row in strangers])
        unplaced = self._ledger.unplaced([order_key_of_row(row) for row in strangers])
        for row in strangers:
            if row.broker_order_id in said_foreign:
                continue
            ours = [one for one in unplaced.get(order_key_of_row(row), ()) if self._is_of(row, one)]
            if ours:
                self._orphan(row, ours[0].intent_id, "settled")
            else:
                self._foreign(row)
        return untold

    def _is_of(self, row: OrderRecord, ours: Owner) -> bool:
        """Whether it may have been placed for that launch, which ended as no order."""
        span = timedelta(seconds=60 + 2 * self._rules.quiet)
        return abs(row.placed_at - moment(ours.launched_at)) <= span

    def _compare(self, row: OrderRecord, states: dict[str, tuple[str, bytes]]) -> bool:
        """Whether anything can be said of it by now."""
        intent_id = row.client_order_id or ""
        if not intent_id or intent_id not in states:
            self._foreign(row)
            return True
        state, response = states[intent_id]
        if state in ("in_flight", "in_doubt"):
            return False
        if state == "settled" and response:
            answer = load_response(response)
            if answer.accepted and answer.broker_order_id == row.broker_order_id:
                self._ours.add(row.broker_order_id)
                return True
        self._orphan(row, intent_id, state)
        return True

    def _orphan(self, row: OrderRecord, intent_id: str, state: str) -> None:
        message = "the broker holds an order that our answer says does not exist; the route is halted"
        fields = _fields(row, self._adapter.broker_id, message, safety_code="FS040", intent_id=intent_id)
        mark = f"{intent_id}:{row.broker_order_id}"
        if self._ledger.note("ORPHAN_ORDER", mark, fields, intent_id=intent_id, state=state) == 1:
            self._metrics.orphan_order()
            self._log.error(Event.ORPHAN_ORDER, intent_id=intent_id, broker_order_id=row.broker_order_id)

    def _foreign(self, row: OrderRecord) -> None:
        if row.broker_order_id in self._foreigners:
            return
        message = "an order on the account that no intent of this route asked for"
        fields = _fields(row, self._adapter.broker_id, message)
        if self._ledger.note("FOREIGN_ORDER", foreign_mark(row.broker_order_id), fields) == 1:
            self._metrics.foreign_order()
            self._log.warning(Event.FOREIGN_ORDER, broker_order_id=row.broker_order_id, symbol=row.symbol)
        self._foreigners.add(row.broker_order_id)


_RESOLUTIONS: Final = {
    Outcome.ACCEPTED: Resolution.ACCEPTED,
    Outcome.REJECTED: Resolution.REJECTED,
    Outcome.NOT_PLACED: Resolution.NOT_PLACED,
}


def _name_of(doubt: Doubt) -> tuple[str, int]:
    return doubt.fence, doubt.launched_at


def _sent_at(doubt: Doubt) -> datetime:
    return datetime.fromtimestamp(doubt.launched_at / 1000, UTC)


def _fields(row: OrderRecord, broker: str, message: str, **more: str) -> str:
    return json.dumps(
        {
            "broker": broker,
            "broker_order_id": row.broker_order_id,
            "symbol": row.symbol,
            "side": row.side,
            "quantity": str(row.quantity),
            "message": message,
            **more,
        }
    )
