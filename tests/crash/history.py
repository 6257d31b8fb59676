"""All that anybody can see after a run: the queue, the streams, the ledger, the audit trail and the broker's own book."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from contracts import (
    ContractError,
    ExecutionIntent,
    ExecutionResponse,
    FailsafeEvent,
    IntentType,
    OrderRecord,
    load_event,
    load_intent,
    load_response,
)
from worker.evidence import order_key, order_key_of_row
from worker.keys import RouteKeys

_CHUNK = 1000


class Fact(NamedTuple):
    """One transition, as the audit stream tells it."""

    event: str
    intent_id: str = ""
    #: Who did it: a worker, or a person.
    worker: str = ""
    detail: str = ""
    #: The end of the token under which it was done, '' where there was none.
    claim: str = ""
    #: Milliseconds of Redis's clock.
    at: int = 0


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of the route that the promises depend on. Seconds."""

    max_age: float = 60.0
    order_timeout: float = 5.0
    lane_on_doubt: str = "wait"
    #: By how much the clocks of the broker, of Redis and of producers may be apart, and how long a broker takes to book.
    slack: float = 0.0
    #: Broker numbers of orders that were placed by hand.
    by_hand: frozenset[str] = frozenset()


@dataclass
class History:
    """What a run left behind. Made by `read`, or by hand in the judge's own tests."""

    #: Entry id and bytes of everything enqueued, in queue order, cancels apart.
    queue: list[tuple[str, bytes]]
    #: In the order of their publishing.
    responses: list[ExecutionResponse]
    #: Reason and entry id.
    dead: list[tuple[str, str]]
    #: In the order of their placing. Rows without a ``client_order_id`` are told apart by number and order key.
    book: list[OrderRecord]
    #: The stored answer of each intent in the ledger; ``None``: it is still open.
    ledger: dict[str, ExecutionResponse | None]
    #: Every transition, in order.
    audit: list[Fact] = field(default_factory=list)
    events: list[FailsafeEvent] = field(default_factory=list)
    rules: Rules = field(default_factory=Rules)

    # Read once a history is complete: they remember what they found.

    @cached_property
    def entries(self) -> list[tuple[str, ExecutionIntent]]:
        """What of the queue can be read, with its entry id."""
        found = []
        for entry, body in self.queue:
            try:
                found.append((entry, load_intent(body)))
            except ContractError:
                continue
        return found

    @cached_property
    def intents(self) -> dict[str, ExecutionIntent]:
        """What each id means: its first entry that is no conflict."""
        conflicts = {entry for reason, entry in self.dead if reason == "conflict"}
        found: dict[str, ExecutionIntent] = {}
        for entry, intent in self.entries:
            if entry not in conflicts:
                found.setdefault(intent.intent_id, intent)
        return found

    @cached_property
    def cancels(self) -> dict[str, str]:
        """The target of each CANCEL."""
        return {
            one.intent_id: one.target_intent_id or ""
            for _, one in self.entries
            if one.intent_type is IntentType.CANCEL
        }

    @cached_property
    def answers(self) -> dict[str, ExecutionResponse]:
        return {one.intent_id: one for one in self.responses}

    @cached_property
    def launched(self) -> dict[str, list[Fact]]:
        found: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.audit:
            if fact.event == "launched":
                found[fact.intent_id].append(fact)
        return found

    @cached_property
    def may_have_forgotten(self) -> bool:
        """Its server changed: launches and answers of before may be missing from everything but the broker's book."""
        return any(fact.event == "unsure" for fact in self.audit)

    @cached_property
    def owners(self) -> dict[str, str]:
        """
        Whose each order of the book is, by its number; '' for nobody's. Where rows carry no ids of ours: whose answer
        names it; else who was launched, looks the same and has no order of its own; else whose double it must be.
        """
        rows = [row for row in self.book if row.broker_order_id not in self.rules.by_hand]
        found = {row.broker_order_id: row.client_order_id for row in rows if row.client_order_id}
        blind = [row for row in rows if not row.client_order_id]
        if not blind:
            return found
        named = {
            one.broker_order_id: one.intent_id
            for one in self.responses
            if one.accepted and one.intent_id not in self.cancels
        }
        alike: dict[str, list[str]] = defaultdict(list)
        for intent_id, intent in self.intents.items():
            if intent_id in self.launched and intent_id not in self.cancels:
                alike[order_key(intent)].append(intent_id)
        held = {
            intent_id
            for number, intent_id in named.items()
            if any(row.broker_order_id == number for row in blind)
        }
        for row in blind:
            owner = named.get(row.broker_order_id)
            if owner is None:
                like = alike[order_key_of_row(row)]
                owner = next((one for one in like if one not in held), like[0] if like else "")
                held.add(owner)
            found[row.broker_order_id] = owner
        return found


def read(
    client: Any,
    book: Sequence[OrderRecord],
    *,
    keys: RouteKeys,
    queue: Sequence[tuple[str, bytes]] | None = None,
    rules: Rules | None = None,
) -> History:
    """
    What the streams and the ledger of a route hold, at rest. ``queue`` is what producers enqueued, as (entry id, body)
    in queue order, cancels first, where the streams themselves have been trimmed.
    """
    return History(
        queue=list(queue if queue is not None else _queue(client, keys)),
        responses=[load_response(row[b"body"]) for _, row in client.xrange(keys.responses)],
        dead=[(row[b"reason"].decode(), row[b"entry_id"].decode()) for _, row in client.xrange(keys.dead)],
        book=list(book),
        ledger=dict(_ledger(client, keys)),
        audit=list(_audit(client, keys)),
        events=[load_event(row[b"body"]) for _, row in client.xrange(keys.failsafe)],
        rules=rules or Rules(),
    )


def _queue(client: Any, keys: RouteKeys) -> Iterator[tuple[str, bytes]]:
    for stream in (keys.cancels, keys.intents):
        for entry, row in client.xrange(stream):
            yield entry.decode(), row.get(b"body", b"")


def _ledger(client: Any, keys: RouteKeys) -> Iterator[tuple[str, ExecutionResponse | None]]:
    found = iter(client.scan_iter(f"{keys.intent_prefix}*", count=_CHUNK))
    while names := list(islice(found, _CHUNK)):
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.hmget(name, "state", "response")
        for name, (state, stored) in zip(names, pipe.execute(), strict=True):
            if state not in (b"tombstone", None):
                intent_id = name.decode().removeprefix(keys.intent_prefix)
                yield intent_id, load_response(stored) if stored else None


def _audit(client: Any, keys: RouteKeys) -> Iterator[Fact]:
    for entry, row in client.xrange(keys.audit):
        at, worker = int(entry.partition(b"-")[0]), row[b"worker"].decode()
        for event, intent_id, detail, *claim in json.loads(
            row[b"records"].decode("utf-8", "backslashreplace")
        ):
            yield Fact(event, intent_id, worker, detail, claim[0] if claim else "", at)
