"""What a broker's order list proves of an order in doubt. Pure: the readings come in, a verdict goes out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from contracts import ExecutionIntent, OrderRecord, OrderScan

#: How far the broker's clock and Redis's may be apart.
SKEW = timedelta(seconds=60)
#: Complete readings that must agree on an absence.
AGREEING = 2


@dataclass(frozen=True, slots=True)
class Reading:
    """A scan, and when it was started on this machine's CLOCK_BOOTTIME."""

    scan: OrderScan
    started: float


@dataclass(frozen=True, slots=True)
class Found:
    """The broker holds the order. More than one row of one intent: ``others`` should not exist."""

    order: OrderRecord
    others: tuple[OrderRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Absent:
    """The broker provably does not hold it. ``why``, in words."""

    why: str


@dataclass(frozen=True, slots=True)
class NoVerdict:
    """Nothing is proven yet, and why."""

    why: str


Evidence = Found | Absent | NoVerdict


def judge(intent_id: str, readings: Sequence[Reading], *, absence_from: float) -> Evidence:
    """
    Where rows carry our ids: a row with our id proves a presence, in any reading. An absence needs two complete
    readings that agree, both started after ``absence_from`` (seconds on CLOCK_BOOTTIME): the end of the sender's
    deadline, the kernel's time-out and the broker's visibility lag, counted from this resolver's own first sight of
    the doubt.
    """
    rows = [row for one in readings for row in one.scan.orders if row.client_order_id == intent_id]
    if rows:
        first, *others = sorted(_newest(rows), key=_age)
        return Found(first, tuple(others))
    return _absence(readings, absence_from)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An order in doubt at a broker that knows no ids of ours, and what is known of the account's other orders."""

    intent: ExecutionIntent
    #: On Redis's clock: its launch, and when the broker's list must show it.
    launched: datetime
    quiet: datetime
    #: Broker numbers that belong to other intents, and when those were launched, on Redis's clock.
    owned: dict[str, datetime]
    #: Broker numbers that were known to be nobody's before the launch.
    foreign_before: Collection[str]
    #: Nobody else trades on the account, says its owner.
    exclusive: bool
    #: The session in which the order could have been taken is over.
    session_over: bool
    #: Redis has forgotten launches of that time: an unowned row may be another intent's.
    forgotten: bool = False


def judge_by_key(wanted: Wanted, readings: Sequence[Reading], *, absence_from: float) -> Evidence:
    """
    Where no row carries an id of ours: a row of the same order key, placed around the launch, whose number no other
    intent owns, is evidence if it is the only one and the account is exclusive. An absence needs, besides two
    agreeing readings after the lag, that no unowned row of that symbol and side came up since, whatever its time,
    price or quantity, and that the lists reach past the launch: an order of ours is in both that was launched when
    nothing of this one could arrive any more, or the session is over. Everything else is for a named person.
    """
    if wanted.forgotten:
        return NoVerdict(
            "Redis has forgotten launches of its time, so any order may be another intent's; a named person decides"
        )
    rows = _newest([row for one in readings for row in one.scan.orders])
    strangers = [row for row in rows if _could_be(row, wanted)]
    timely = look_alikes(strangers, wanted.intent, wanted.launched, wanted.quiet)
    if len(timely) == 1 and len(strangers) == 1 and wanted.exclusive:
        return Found(timely[0])
    if strangers:
        return NoVerdict(_proposal(timely or strangers, wanted))
    absence = _absence(readings, absence_from)
    if (
        isinstance(absence, NoVerdict)
        or wanted.session_over
        or _reach_past(wanted, _telling(readings, absence_from))
    ):
        return absence
    return NoVerdict("the lists show no later order of ours yet, and the session is not over")


def look_alikes(
    rows: Sequence[OrderRecord], intent: ExecutionIntent, launched: datetime, quiet: datetime
) -> list[OrderRecord]:
    """The rows of the order key of an intent, placed between its launch and when the list must show it."""
    key = order_key(intent)
    return [
        row
        for row in rows
        if order_key_of_row(row) == key and launched - SKEW <= row.placed_at <= quiet + SKEW
    ]


def order_key(intent: ExecutionIntent) -> str:
    """What an order row at the broker can show of an intent: symbol, side, quantity and price. Empty for no order."""
    if intent.side is None or intent.quantity is None:
        return ""
    return f"{intent.symbol}|{intent.side}|{intent.quantity.normalize():f}|{_price(intent.limit_price)}"


def order_key_of_row(row: OrderRecord) -> str:
    """The same of a row."""
    return f"{row.symbol}|{row.side}|{row.quantity.normalize():f}|{_price(row.limit_price)}"


def _price(price: object) -> str:
    # A row of a market order shows no price, or zero.
    return f"{price.normalize():f}" if isinstance(price, Decimal) and price else ""


def _could_be(row: OrderRecord, wanted: Wanted) -> bool:
    return (
        row.symbol == wanted.intent.symbol
        and row.side == wanted.intent.side
        and row.broker_order_id not in wanted.owned
        and row.broker_order_id not in wanted.foreign_before
    )


def _proposal(rows: Sequence[OrderRecord], wanted: Wanted) -> str:
    numbers = ", ".join(row.broker_order_id for row in rows)
    why = "" if wanted.exclusive else "; others may trade on the account (account_exclusive is not set)"
    return f"unowned at the broker, of its symbol and side: {numbers}{why}; a named person decides"


def _reach_past(wanted: Wanted, readings: Sequence[Reading]) -> bool:
    # Answered later is not enough: its reply may have been slow, or it may have been in doubt itself.
    later = {number for number, launched in wanted.owned.items() if launched > wanted.quiet}
    return all(later & {row.broker_order_id for row in one.scan.orders} for one in readings)


def _absence(readings: Sequence[Reading], absence_from: float) -> Absent | NoVerdict:
    telling = _telling(readings, absence_from)
    if len(telling) >= AGREEING:
        return Absent("in neither of two complete order lists read after the broker's lag")
    return NoVerdict(f"{len(telling)} of {AGREEING} complete readings after the broker's lag")


def _telling(readings: Sequence[Reading], absence_from: float) -> list[Reading]:
    return [one for one in readings if one.scan.complete and one.started >= absence_from]


def _newest(rows: Sequence[OrderRecord]) -> list[OrderRecord]:
    """Each order once, as the newest reading shows it."""
    return list({row.broker_order_id: row for row in rows}.values())


def _age(row: OrderRecord) -> tuple[datetime, str]:
    return row.placed_at, row.broker_order_id


def moment(milliseconds: int) -> datetime:
    """A time of Redis's clock."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
