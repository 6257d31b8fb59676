"""
Names every promise that a run has broken, from what it left behind.

The door for everybody, of runs in one thread or of real processes: ``broken(read(client, book, keys=...))``. The run
must be at rest. ``book`` is the broker's own, whole, as `OrderRecord`s; where its rows carry no ids of ours (KIS),
orders are told apart by the answers' numbers and by what they look like. `Rules` says how the route was set, and by
how much clocks may be apart.

Here are the promises about answers and the book; those about the order of things are in `trail`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from contracts import ExecutionIntent, FailsafeType, IntentType, Outcome
from contracts.wire import readable_intent_id
from tests.crash import trail
from tests.crash.history import Fact, History, Rules, read

__all__ = ["Fact", "History", "Rules", "broken", "read"]


def broken(history: History) -> list[str]:
    """Every promise that the history breaks, in words that begin with its name. Empty: all hold."""
    return [
        *_one_order(history),
        *_one_answer(history),
        *_no_silence(history),
        *_no_guess(history),
        *_no_false_alarm(history),
        *_stale_never_trades(history),
        *_in_order(history),
        *_conflicts(history),
        *trail.broken(history),
    ]


def _one_order(history: History) -> Iterator[str]:
    owned = [owner for owner in history.owners.values() if owner]
    for intent_id, count in Counter(owned).items():
        if count > 1:
            yield f"P1: the broker holds {count} orders of {intent_id}"
        if intent_id not in history.intents:
            yield f"P1: the broker holds an order of {intent_id!r}, which nobody asked for"
        elif history.audit and intent_id not in history.launched and not history.may_have_forgotten:
            yield f"P1: the broker holds an order of {intent_id}, which was never launched"
    for number, owner in history.owners.items():
        if not owner:
            yield f"P1: the broker holds the order {number}, which nobody asked for"


def _one_answer(history: History) -> Iterator[str]:
    for intent_id, count in Counter(one.intent_id for one in history.responses).items():
        if count > 1:
            yield f"P2: {intent_id} was answered {count} times"
    for response in history.responses:
        if history.ledger.get(response.intent_id) != response:
            yield f"P2: the ledger holds another answer to {response.intent_id} than was published"
    for intent_id, stored in history.ledger.items():
        if stored is None or intent_id not in history.answers:
            yield f"P2: {intent_id} was never answered"


def _no_silence(history: History) -> Iterator[str]:
    buried = {entry for _, entry in history.dead}
    for entry, count in Counter(entry for _, entry in history.dead).items():
        if count > 1:
            yield f"P3: entry {entry} is {count} dead letters"
    # A person has looked at these. What was put back is in the queue once more.
    buried |= {json.loads(fact.detail)["entry_id"] for fact in history.audit if fact.event == "dead_dropped"}
    for entry, body in history.queue:
        if entry not in buried and readable_intent_id(body) not in history.answers:
            yield f"P3: entry {entry} ended in silence"


def _no_guess(history: History) -> Iterator[str]:
    rows = {row.broker_order_id: row for row in history.book}
    named: dict[str, list[str]] = defaultdict(list)
    for response in history.responses:
        number, owner = response.broker_order_id or "", history.cancels.get(response.intent_id)
        if response.accepted and owner is None:
            named[number].append(response.intent_id)
        row = rows.get(number)
        if response.accepted and history.owners.get(number) != (owner or response.intent_id):
            yield f"P4: {response.intent_id} is accepted as {number}, which is not its order"
        elif response.accepted and owner is not None and row and not row.status.is_final:
            yield f"P4: the cancel {response.intent_id} is accepted, and its target still works"
    for number, names in named.items():
        if len(names) > 1:
            yield f"P4: {' and '.join(names)} were both answered with the order {number}"
    for owner in set(history.owners.values()):
        answer = history.answers.get(owner)
        if answer is not None and not answer.accepted:
            yield f"P4: {owner} is answered {answer.outcome}, and the broker holds its order"


def _no_false_alarm(history: History) -> Iterator[str]:
    """An order that is the accepted answer to its intent is neither an orphan nor a stranger's."""
    accepted = {one.broker_order_id for one in history.responses if one.accepted}
    for event in history.events:
        if event.broker_order_id not in accepted or event.broker_order_id in history.rules.by_hand:
            continue
        if event.type in (FailsafeType.ORPHAN_ORDER, FailsafeType.FOREIGN_ORDER):
            yield f"P4: {event.broker_order_id} was announced as {event.type}, and is the order of an accepted intent"


def _stale_never_trades(history: History) -> Iterator[str]:
    rules = history.rules
    slack = timedelta(seconds=rules.slack)
    ends = _ends(history)
    for row in history.book:
        intent_id = history.owners.get(row.broker_order_id, "")
        if intent_id in ends and row.placed_at > ends[intent_id] + slack:
            yield f"P7: the order of {intent_id} was placed {row.placed_at - ends[intent_id]} after its end"
        flights = history.launched.get(intent_id, [])
        if flights:
            late = row.placed_at - _moment(flights[-1].at) - timedelta(seconds=rules.order_timeout)
            if late > slack:
                yield f"P7: the order of {intent_id} was placed {late} after its send deadline"
    for intent_id, end in ends.items():
        for fact in history.launched.get(intent_id, []):
            if _moment(fact.at) > end + slack:
                yield f"P7: {intent_id} was launched {_moment(fact.at) - end} after its end"
        answer = history.answers.get(intent_id)
        if answer is not None and answer.outcome is Outcome.EXPIRED and answer.timestamp < end - slack:
            yield f"P7: {intent_id} was answered EXPIRED {end - answer.timestamp} before its end"


def _ends(history: History) -> dict[str, datetime]:
    """Until when each order may leave."""
    return {
        intent_id: _end(intent, history.rules.max_age)
        for intent_id, intent in history.intents.items()
        if intent.intent_type in (IntentType.MARKET, IntentType.LIMIT)
    }


def _end(intent: ExecutionIntent, max_age: float) -> datetime:
    end = intent.created_at + timedelta(seconds=max_age)
    return min(end, intent.expires_at) if intent.expires_at else end


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _in_order(history: History) -> Iterator[str]:
    # A letter that a person has put back is in the queue anew.
    put_back = {fact.intent_id for fact in history.audit if fact.event == "dead_replayed"}
    places: dict[str, int] = {}
    for place, (_, intent) in enumerate(history.entries):
        if intent.intent_id in put_back or intent.intent_id not in places:
            places[intent.intent_id] = place
    last: dict[str, str] = {}
    for row in history.book:
        now = history.owners.get(row.broker_order_id, "")
        before = last.get(row.symbol)
        if before is not None and places.get(before, -1) > places.get(now, -1) >= 0:
            yield f"P6: {now} of {row.symbol} reached the broker after {before}, which was enqueued later"
        last[row.symbol] = now


def _conflicts(history: History) -> Iterator[str]:
    buried = {entry for reason, entry in history.dead if reason == "conflict"}
    kept: dict[str, list[ExecutionIntent]] = defaultdict(list)
    for entry, intent in history.entries:
        if entry not in buried:
            kept[intent.intent_id].append(intent)
    for intent_id, intents in kept.items():
        if len({intent.fingerprint() for intent in intents}) > 1:
            yield f"P8: {intent_id} came with different content, and no entry of it was buried as a conflict"
    for row in history.book:
        owner = history.owners.get(row.broker_order_id, "")
        if owner and row.quantity not in {intent.quantity for intent in kept.get(owner, [])}:
            yield f"P8: the order of {owner} is that of a conflicting entry"
    announced = Counter(one.intent_id for one in history.events if one.type is FailsafeType.INTENT_CONFLICT)
    ids = {entry: intent.intent_id for entry, intent in history.entries}
    for intent_id, count in Counter(ids[entry] for entry in buried if entry in ids).items():
        if history.events and announced[intent_id] != count:
            yield f"P8: {count} conflicts of {intent_id} were buried and {announced[intent_id]} announced"
