"""Reads what a run left behind, in the streams, the ledger and the broker's book, and names every broken promise."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts import (
    ContractError,
    ExecutionIntent,
    ExecutionResponse,
    IntentType,
    OrderRecord,
    load_intent,
    load_response,
)
from contracts.wire import readable_intent_id
from tests.desk import KEYS

_STOPS = {"HALTED", "GUARD_TRIPPED", "LOCKDOWN"}
_OPENS = {"RESUMED", "GUARD_RESET"}


@dataclass
class History:
    """All that anybody can see after a run."""

    #: Entry id and bytes of everything enqueued, in queue order, cancels apart.
    queue: list[tuple[str, bytes]]
    responses: list[ExecutionResponse]
    #: Reason and entry id.
    dead: list[tuple[str, str]]
    #: In the order of their placing.
    book: list[OrderRecord]
    #: The stored answer of each intent in the ledger.
    ledger: dict[str, ExecutionResponse | None]
    #: Every transition as (event, intent_id), in order.
    audit: list[tuple[str, str]] = field(default_factory=list)


def read(client: Any, book: Sequence[OrderRecord]) -> History:
    """What the streams and the ledger of the route hold."""
    queue = [
        (entry.decode(), fields[b"body"])
        for stream in (KEYS.cancels, KEYS.intents)
        for entry, fields in client.xrange(stream)
    ]
    ledger = {}
    for key in client.scan_iter(f"{KEYS.intent_prefix}*", count=1000):
        if client.hget(key, "state") != b"tombstone":
            stored = client.hget(key, "response")
            ledger[key.decode().removeprefix(KEYS.intent_prefix)] = load_response(stored) if stored else None
    return History(
        queue=queue,
        responses=[load_response(row[b"body"]) for _, row in client.xrange(KEYS.responses)],
        dead=[(row[b"reason"].decode(), row[b"entry_id"].decode()) for _, row in client.xrange(KEYS.dead)],
        book=list(book),
        ledger=ledger,
        audit=[
            (event, intent_id)
            for _, row in client.xrange(KEYS.audit)
            for event, intent_id, _ in json.loads(row[b"records"])
        ],
    )


def broken(history: History) -> list[str]:
    """Every promise that the history breaks, in words. Empty: all hold."""
    return [
        *_one_order(history),
        *_one_answer(history),
        *_no_silence(history),
        *_no_guess(history),
        *_stop_means_stop(history),
        *_in_order(history),
        *_conflicts(history),
    ]


def _intents(history: History) -> Iterator[tuple[str, ExecutionIntent]]:
    for entry, body in history.queue:
        try:
            yield entry, load_intent(body)
        except ContractError:
            continue


def _by_id(history: History) -> dict[str, list[tuple[str, ExecutionIntent]]]:
    found: dict[str, list[tuple[str, ExecutionIntent]]] = defaultdict(list)
    for entry, intent in _intents(history):
        found[intent.intent_id].append((entry, intent))
    return found


def _one_order(history: History) -> Iterator[str]:
    known = _by_id(history)
    for intent_id, count in Counter(row.client_order_id or "" for row in history.book).items():
        if count > 1:
            yield f"P1: the broker holds {count} orders of {intent_id}"
        if intent_id not in known:
            yield f"P1: the broker holds an order of {intent_id!r}, which nobody asked for"


def _one_answer(history: History) -> Iterator[str]:
    for intent_id, count in Counter(one.intent_id for one in history.responses).items():
        if count > 1:
            yield f"P2: {intent_id} was answered {count} times"
    for response in history.responses:
        if history.ledger.get(response.intent_id) != response:
            yield f"P2: the ledger holds another answer to {response.intent_id} than was published"
    published = {one.intent_id for one in history.responses}
    for intent_id, stored in history.ledger.items():
        if stored is None or intent_id not in published:
            yield f"P2: {intent_id} was never answered"


def _no_silence(history: History) -> Iterator[str]:
    answered = {one.intent_id for one in history.responses}
    buried = {entry for _, entry in history.dead}
    for entry, count in Counter(entry for _, entry in history.dead).items():
        if count > 1:
            yield f"P3: entry {entry} is {count} dead letters"
    for entry, body in history.queue:
        if entry not in buried and readable_intent_id(body) not in answered:
            yield f"P3: entry {entry} ended in silence"


def _no_guess(history: History) -> Iterator[str]:
    rows = {row.broker_order_id: row for row in history.book}
    targets = {
        one.intent_id: one.target_intent_id
        for _, one in _intents(history)
        if one.intent_type is IntentType.CANCEL
    }
    held = {row.client_order_id for row in history.book}
    for response in history.responses:
        row = rows.get(response.broker_order_id or "")
        owner = targets.get(response.intent_id) or response.intent_id
        if response.accepted and (row is None or row.client_order_id != owner):
            yield f"P4: {response.intent_id} is accepted as {response.broker_order_id}, which is not its order"
        elif response.accepted and response.intent_id in targets and row and not row.status.is_final:
            yield f"P4: the cancel {response.intent_id} is accepted, and its target still works"
        if not response.accepted and response.intent_id in held:
            yield f"P4: {response.intent_id} is answered {response.outcome}, and the broker holds its order"


def _stop_means_stop(history: History) -> Iterator[str]:
    stopped = False
    cancels = {one.intent_id for _, one in _intents(history) if one.intent_type is IntentType.CANCEL}
    for event, intent_id in history.audit:
        if event in _STOPS:
            stopped = True
        elif event in _OPENS:
            stopped = False
        elif event == "launched" and stopped and intent_id not in cancels:
            yield f"P5: {intent_id} was launched after the stop"


def _in_order(history: History) -> Iterator[str]:
    places: dict[str, int] = {}
    for place, (_, intent) in enumerate(_intents(history)):
        places.setdefault(intent.intent_id, place)
    last: dict[str, str] = {}
    for row in history.book:
        before, now = last.get(row.symbol), row.client_order_id or ""
        if before is not None and places.get(before, -1) > places.get(now, -1):
            yield f"P6: {now} of {row.symbol} reached the broker after {before}, which was enqueued later"
        last[row.symbol] = now


def _conflicts(history: History) -> Iterator[str]:
    buried = {entry for reason, entry in history.dead if reason == "conflict"}
    rows = {row.client_order_id: row for row in history.book}
    for intent_id, entries in _by_id(history).items():
        kept = [intent for entry, intent in entries if entry not in buried]
        if len({intent.fingerprint() for intent in kept}) > 1:
            yield f"P8: {intent_id} came with different content, and no entry of it was buried as a conflict"
        row = rows.get(intent_id)
        if row is not None and row.quantity not in {intent.quantity for intent in kept}:
            yield f"P8: the order of {intent_id} is that of a conflicting entry"
