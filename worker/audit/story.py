"""
The story of one intent, from its place in the queue to the last fill of its order.

The trail of a busy route has millions of entries. The ledger's entry of an intent tells when its steps were, so only
what lies around those times is read, and of what lies between them as much as takes no time worth speaking of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, TypeVar

from contracts import ContractError, OrderEvent, load_event, load_order_event, load_response
from worker.audit.chain import Entry
from worker.audit.records import moment, records_of
from worker.keys import RouteKeys

#: Milliseconds around a known time that are read in any case.
_AROUND: Final = 250
#: The same around what only a worker's clock tells.
_AROUND_OTHERS: Final = 5_000
#: Entries of one stream that are read besides, and in one go.
_BUDGET, _PAGE = 10_000, 1000
_FOR_EVER: Final = 2**62
_ENTRY_ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}", re.ASCII)

_M = TypeVar("_M")


@dataclass(frozen=True, slots=True)
class Step:
    """
    One thing that happened to an intent.

    ``event``: ``enqueued``, ``claimed``, ``parked``, ``handed``, ``launched``, ``wire`` (what was sent and what came
    back), ``settled``, a failsafe event's type, ``order`` (what became of the order), or an operator's act.
    """

    at: datetime
    #: Seconds since the step before; absent for the first.
    after: float | None
    event: str
    worker: str
    detail: str
    #: Whose step it is: the intent's own, or that of a CANCEL of its order.
    intent_id: str


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of one intent."""

    intent_id: str
    route: str
    #: The fields of its entry in the ledger; empty when that has been forgotten.
    ledger: dict[str, str]
    response: dict[str, Any] | None
    audit: list[Step]
    #: The trail between its first and its last step was read without a gap.
    complete: bool


def tell(client: Any, keys: RouteKeys, intent_id: str, *, thorough: bool = False) -> Story | None:
    """
    The story, or ``None`` if the route has never seen the intent or has forgotten it. ``thorough``: read the whole
    trail, however long it takes.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    search = _Search(client, keys, thorough)
    fields = client.hgetall(keys.intent(intent_id))
    complete = search.trail(intent_id, fields)
    if not fields and not search.found:
        return None
    for cancel in _cancels(client, keys, intent_id, fields):
        complete &= search.trail(cancel, client.hgetall(keys.intent(cancel)))
    if b"response" in fields:
        complete &= search.orders(intent_id, fields)
    ledger = {key.decode(): value.decode("utf-8", "backslashreplace") for key, value in fields.items()}
    ledger.pop("token", None)
    response = ledger.pop("response", None)
    return Story(
        intent_id,
        keys.route,
        ledger,
        json.loads(response) if response else None,
        list(_steps(search.found)),
        complete,
    )


@dataclass(frozen=True, slots=True, order=True)
class _Found:
    place: tuple[int, int]
    #: Within an entry.
    number: int
    event: str
    worker: str
    detail: str
    intent_id: str


@dataclass
class _Search:
    client: Any
    keys: RouteKeys
    thorough: bool
    found: set[_Found] = field(default_factory=set)

    def trail(self, intent_id: str, fields: dict[bytes, bytes]) -> bool:
        """Read what the trail has of an intent. False: there are gaps that nobody looked into."""
        windows = [] if self.thorough else _windows(fields)
        if not windows:
            return self._read(intent_id, 0, _FOR_EVER, self._budget())
        for start, end in windows:
            self._read(intent_id, start, end, _Budget(None))
        budget, complete = self._budget(), True
        for (_, start), (end, _) in pairwise(windows):
            complete &= self._read(intent_id, start, end, budget)
        end = windows[-1][1]
        self._read(intent_id, end, _FOR_EVER, budget)
        self._failsafe(intent_id, end)
        return complete

    def orders(self, intent_id: str, fields: dict[bytes, bytes]) -> bool:
        """Read what became of the order, until it is over. False: it may go on where nobody looked."""
        windows, budget = _windows(fields), self._budget()
        start = windows[-1][0] if windows else 0
        for entry_id, row in _rows(self.client, self.keys.orders, start, _FOR_EVER, budget):
            event = _read(load_order_event, intent_id, row)
            if event is not None and event.intent_id == intent_id:
                place = Entry(entry_id, row).place
                self.found.add(_Found(place, 0, "order", event.seen_by, _order_text(event), intent_id))
                if event.status.is_final:
                    return True
        return not budget.is_spent

    def _budget(self) -> _Budget:
        return _Budget(None if self.thorough else _BUDGET)

    def _read(self, intent_id: str, start: int, end: int, budget: _Budget) -> bool:
        for row in _rows(self.client, self.keys.audit, start, end, budget):
            if intent_id.encode() in row[1].get(b"records", b""):
                self.found.update(_of_trail(intent_id, Entry(*row)))
        return not budget.is_spent

    def _failsafe(self, intent_id: str, start: int) -> None:
        """What was announced of it later, perhaps where the trail is not read any more: these are few."""
        for entry_id, row in _rows(self.client, self.keys.failsafe, start, _FOR_EVER, self._budget()):
            event, place = _read(load_event, intent_id, row), Entry(entry_id, row).place
            if event is None or event.intent_id != intent_id:
                continue
            if not any(_is_same(one, event.type, place) for one in self.found):
                self.found.add(_Found(place, 0, event.type, "", event.message, intent_id))


@dataclass
class _Budget:
    """How many entries may still be read; without a limit, all."""

    left: int | None

    @property
    def is_spent(self) -> bool:
        return self.left is not None and self.left <= 0

    def spend(self, count: int) -> None:
        if self.left is not None:
            self.left -= count


def _rows(
    client: Any, stream: str, start: int, end: int, budget: _Budget
) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    first = str(start)
    while not budget.is_spent:
        rows = client.xrange(stream, first, str(end), count=_PAGE)
        if rows:
            budget.spend(len(rows))
            yield from rows
        if len(rows) < _PAGE:
            return
        first = f"({rows[-1][0].decode()}"


def _read(load: Callable[[bytes], _M], intent_id: str, row: dict[bytes, bytes]) -> _M | None:
    """What may be about the intent. What anybody else has put there is no step of it."""
    body = row.get(b"body", b"")
    try:
        return load(body) if intent_id.encode() in body else None
    except ContractError:
        return None


def _of_trail(intent_id: str, entry: Entry) -> Iterator[_Found]:
    for number, one in enumerate(records_of(entry)):
        if one.intent_id != intent_id:
            continue
        event = one.event
        if event == "claimed":
            if _ENTRY_ID.fullmatch(one.entry):
                yield _Found(Entry(one.entry.encode(), {}).place, -1, "enqueued", "", one.entry, intent_id)
            # What was claimed without a token waits for its lane.
            event = event if one.claim else "parked"
        yield _Found(entry.place, number, event, one.worker, one.detail, intent_id)


def _is_same(one: _Found, event: str, place: tuple[int, int]) -> bool:
    """Both streams tell of it, within one step."""
    return one.event == event and abs(one.place[0] - place[0]) <= _AROUND


def _windows(fields: dict[bytes, bytes]) -> list[tuple[int, int]]:
    """Where its steps lie in the trail, as far as its entry tells: milliseconds, apart from each other, in order."""
    if b"steps" in fields:
        first, *later = fields[b"steps"].decode().split(":")
        times = [int(first), *(int(first) + int(one) for one in later if one)]
        return _merged((at - _AROUND, at + _AROUND) for at in times)
    if fields.get(b"state") == b"settled" and b"response" in fields:
        answer = load_response(fields[b"response"])
        told = [round(at.timestamp() * 1000) for at in (answer.sent_at, answer.timestamp) if at]
        return _merged((at - _AROUND_OTHERS, at + _AROUND_OTHERS) for at in told)
    flight = fields.get(b"flight", b"").split(b":")
    known = [fields.get(b"seen"), fields.get(b"since"), flight[3] if len(flight) > 3 else None]
    return _merged((int(at) - _AROUND, int(at) + _AROUND) for at in known if at)


def _merged(windows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted(windows):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((max(0, start), end))
    return found


def _cancels(client: Any, keys: RouteKeys, intent_id: str, fields: dict[bytes, bytes]) -> list[str]:
    """The CANCELs of its order, answered and not."""
    under_way = client.hget(keys.cancelling, f"target:{intent_id}")
    known = fields.get(b"cancels", b"").decode().split()
    return [*known, *([under_way.decode()] if under_way and under_way.decode() not in known else [])]


def _steps(found: Iterable[_Found]) -> Iterator[Step]:
    before: datetime | None = None
    for one in sorted(found):
        at = moment(one.place[0])
        after = (at - before).total_seconds() if before else None
        yield Step(at, after, one.event, one.worker, one.detail, one.intent_id)
        before = at


def _order_text(event: OrderEvent) -> str:
    price = f" at {event.average_price}" if event.average_price is not None else ""
    filled = f", {event.filled_quantity} filled{price}" if event.filled_quantity else ""
    return f"{event.status}{filled}" + (f": {event.message}" if event.message else "")
