"""One day of a route: what the ledger says of its orders beside what the broker's own list says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, TypeVar

from contracts import (
    ContractError,
    ExecutionIntent,
    OrderRecord,
    OrderStatus,
    load_intent,
    load_order_event,
    load_response,
)
from worker.audit.chain import Entry
from worker.audit.records import records_of
from worker.evidence import order_key, order_key_of_row
from worker.keys import RouteKeys

#: How far around a day both sides are read. An order at its edge may be dated apart, by two clocks or by its time in a
#: lane.
MARGIN: Final = timedelta(hours=1)
_PAGE: Final = 1000
#: Letters of what is wrong with an entry.
_WORDS_MAX: Final = 120

_M = TypeVar("_M")


class Finding(StrEnum):
    """What one order is, seen from both sides."""

    MATCHING = "matching"
    #: Both know it, and say different things of it.
    DIFFERS = "differs"
    #: Answered as accepted, and not in the broker's list.
    LEDGER_ONLY = "ledger_only"
    #: At the broker, and no accepted answer names it: placed by hand, or by somebody else.
    BROKER_ONLY = "broker_only"
    #: Nobody knows yet whether the broker holds it.
    IN_DOUBT = "in_doubt"
    #: Not an order but an entry of a stream that is no message of ours: whoever wrote it may have replaced one.
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Ours:
    """An order as the ledger has it: answered as accepted."""

    intent_id: str
    broker_order_id: str
    sent_at: datetime
    #: What was asked for; absent where the trail does not reach back so far.
    intent: ExecutionIntent | None = None
    #: As told on the orders stream; what nothing was told of works, unfilled.
    status: OrderStatus = OrderStatus.WORKING
    filled: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Line:
    """One order of the day, or one entry that nobody can read."""

    finding: Finding
    symbol: str
    broker_order_id: str | None
    intent_id: str | None
    #: Each as ``name: what the ledger says, what the broker says``.
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The day, order by order: what differs first, then by number."""

    route: str
    start: datetime
    end: datetime
    lines: tuple[Line, ...]

    @property
    def totals(self) -> dict[str, int]:
        """How many orders are what; all findings are there."""
        counted = Counter(line.finding for line in self.lines)
        return {finding.value: counted[finding] for finding in Finding}

    @property
    def is_clean(self) -> bool:
        return all(line.finding is Finding.MATCHING for line in self.lines)


def read_ours(client: Any, keys: RouteKeys, start: datetime, end: datetime) -> tuple[list[Ours], list[Line]]:
    """
    The accepted orders of a time, by when they were sent, with what was told of them since; and a line for each entry
    of that time that cannot be read.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    found: dict[str, Ours] = {}
    odd = _Odd(end)
    for one in _rows(client, keys.responses, start):
        if b"target" in one.fields:
            continue  # the answer to a CANCEL names an order that was answered before
        answer = odd.read(load_response, keys.responses, one)
        if answer is None:
            continue
        sent_at = answer.sent_at or answer.timestamp
        if answer.accepted and answer.broker_order_id and start <= sent_at < end:
            found[answer.broker_order_id] = Ours(answer.intent_id, answer.broker_order_id, sent_at)
    asked = _asked(client, keys, {one.intent_id for one in found.values()}, start - MARGIN, end)
    told: dict[str, tuple[OrderStatus, Decimal]] = {}
    for one in _rows(client, keys.orders, start) if found else ():
        event = odd.read(load_order_event, keys.orders, one)
        if event is not None:
            told[event.broker_order_id] = (event.status, event.filled_quantity)
    ours = [
        Ours(
            one.intent_id,
            one.broker_order_id,
            one.sent_at,
            asked.get(one.intent_id),
            *told.get(one.broker_order_id, ()),
        )
        for one in found.values()
    ]
    return ours, odd.lines


class _Odd:
    """Entries that are no message of ours, until the end of a time: anybody may have put them there."""

    def __init__(self, end: datetime) -> None:
        self.lines: list[Line] = []
        self._end_ms = end.timestamp() * 1000

    def read(self, load: Callable[[bytes], _M], stream: str, entry: Entry) -> _M | None:
        try:
            return load(entry.fields.get(b"body", b""))
        except ContractError as error:
            if entry.place[0] < self._end_ms:
                words = f"entry {entry.id.decode()} of {stream}: {str(error)[:_WORDS_MAX]}"
                self.lines.append(Line(Finding.UNREADABLE, "", None, error.intent_id, (words,)))
            return None


def compare(
    ours: Sequence[Ours],
    open_intents: Sequence[ExecutionIntent],
    rows: Sequence[OrderRecord],
    start: datetime,
    end: datetime,
    *,
    follows: bool,
) -> tuple[Line, ...]:
    """
    Both sides of what was sent or placed from ``start`` until ``end``. Each side may hold more than that.

    ``open_intents``: launched, and not answered yet. ``follows``: orders of this broker are followed to their end.
    """
    at_broker = {row.broker_order_id: row for row in rows}
    numbers = {one.broker_order_id for one in ours}
    lines = [
        _both(one, at_broker.get(one.broker_order_id), follows)
        for one in ours
        if start <= one.sent_at < end or _is_of(at_broker.get(one.broker_order_id), start, end)
    ]
    theirs = [row for row in rows if row.broker_order_id not in numbers and _is_of(row, start, end)]
    for intent in open_intents:
        row = next((row for row in theirs if _may_be(row, intent)), None)
        if row is not None:
            theirs.remove(row)
        elif not start - MARGIN <= intent.created_at < end:
            continue
        number = row.broker_order_id if row else None
        lines.append(Line(Finding.IN_DOUBT, intent.symbol, number, intent.intent_id))
    lines += [
        Line(Finding.BROKER_ONLY, row.symbol, row.broker_order_id, row.client_order_id, (_shown(row),))
        for row in theirs
    ]
    return tuple(sorted(lines, key=_worst_first))


def _both(one: Ours, row: OrderRecord | None, follows: bool) -> Line:
    symbol = one.intent.symbol if one.intent else row.symbol if row else ""
    if row is None:
        return Line(Finding.LEDGER_ONLY, symbol, one.broker_order_id, one.intent_id)
    differences = tuple(_differences(one, row, follows))
    finding = Finding.DIFFERS if differences else Finding.MATCHING
    return Line(finding, symbol, one.broker_order_id, one.intent_id, differences)


def _differences(one: Ours, row: OrderRecord, follows: bool) -> Iterator[str]:
    pairs: list[tuple[str, object, object]] = []
    if one.intent is not None:
        asked = one.intent
        pairs += [
            ("symbol", asked.symbol, row.symbol),
            ("side", asked.side, row.side),
            ("quantity", asked.quantity, row.quantity),
        ]
        if asked.limit_price is not None and row.limit_price is not None:
            pairs.append(("price", asked.limit_price, row.limit_price))
    if follows:
        pairs += [("filled", one.filled, row.filled_quantity), ("status", one.status, row.status)]
    return (f"{name}: ledger {ours}, broker {theirs}" for name, ours, theirs in pairs if ours != theirs)


def _is_of(row: OrderRecord | None, start: datetime, end: datetime) -> bool:
    return row is not None and start <= row.placed_at < end


def _may_be(row: OrderRecord, intent: ExecutionIntent) -> bool:
    if row.client_order_id is not None:
        return row.client_order_id == intent.intent_id
    return order_key_of_row(row) == order_key(intent)


def _shown(row: OrderRecord) -> str:
    price = f" @ {row.limit_price}" if row.limit_price is not None else ""
    return f"{row.side} {row.quantity}{price}, {row.filled_quantity} filled, {row.status}"


def _worst_first(line: Line) -> tuple[bool, str, str]:
    return line.finding is Finding.MATCHING, line.broker_order_id or "", line.intent_id or ""


def _asked(
    client: Any, keys: RouteKeys, wanted: set[str], start: datetime, end: datetime
) -> Mapping[str, ExecutionIntent]:
    """What was asked for, from the trail: the ledger forgets an intent's words when it is settled."""
    found = {}
    for entry in _rows(client, keys.audit, start, end) if wanted else ():
        for one in records_of(entry):
            if one.event == "claimed" and one.intent_id in wanted:
                try:
                    found[one.intent_id] = load_intent(one.detail)
                except ContractError:
                    continue
    return found


def _rows(client: Any, stream: str, start: datetime, end: datetime | None = None) -> Iterable[Entry]:
    first = str(round(start.timestamp() * 1000))
    last = str(round(end.timestamp() * 1000)) if end else "+"
    while True:
        rows = client.xrange(stream, first, last, count=_PAGE)
        yield from (Entry(*row) for row in rows)
        if len(rows) < _PAGE:
            return
        first = f"({rows[-1][0].decode()}"
