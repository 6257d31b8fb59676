"""
The promises about the order of things, read from the audit trail and the failsafe stream: one launch under one claim,
nothing by a stale one, no answer without its entry, stops that stop, lanes one at a time, each edge published once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from contracts import FailsafeEvent, FailsafeType
from tests.crash.history import Fact, History

_STOPS = {"GUARD_TRIPPED", "LOCKDOWN"}
_EDGES = {"HALTED", "RESUMED", "GUARD_RESET", *_STOPS}
#: What a launching claim may still say once its order is in doubt.
_EVIDENCE = {"ACCEPTED", "REJECTED"}


def broken(history: History) -> Iterator[str]:
    """Every such promise that the history breaks, in words."""
    if not history.audit:
        return
    yield from _each_claim(history)
    yield from _answers_and_entries(history)
    yield from _stop_means_stop(history)
    yield from _one_at_a_time(history)
    yield from _one_event_per_edge(history)


@dataclass(slots=True)
class _Life:
    """What the trail has told of one intent so far."""

    state: str = "unknown"
    #: The newest claim: whoever shows another one is stale.
    claim: str = ""
    attempt: int = 0
    was_buried: bool = False


def _each_claim(history: History) -> Iterator[str]:
    lives: dict[str, _Life] = defaultdict(_Life)
    for fact in history.audit:
        life = lives[fact.intent_id]
        if history.may_have_forgotten and life.state == "open" and fact.event == "INTENT_IN_DOUBT":
            # It may be one of the launches that the server has forgotten.
            life.state, life.attempt = "in doubt", 1
            continue
        yield from _step(life, fact, fact.intent_id)


def _step(life: _Life, fact: Fact, name: str) -> Iterator[str]:
    match fact.event:
        case "claimed":
            if life.state != "unknown":
                yield f"P2: {name} was claimed anew when it was {life.state}"
            life.state, life.claim = "open", fact.claim
        case "handed":
            if life.state != "open":
                yield f"P1: {name} was handed to {fact.worker} when it was {life.state}"
            life.claim = fact.claim
        case "launched":
            yield from _launched(life, fact, name)
        case "INTENT_IN_DOUBT":
            if life.state != "in flight":
                yield f"P4: {name} fell in doubt when it was {life.state}"
            life.state = "in doubt"
        case "dead_lettered":
            life.was_buried = True
        case "settled":
            yield from _settled(life, fact, name)
            life.state = "settled"


def _launched(life: _Life, fact: Fact, name: str) -> Iterator[str]:
    if life.state not in ("open", "in flight"):
        yield f"P1: {name} was launched when it was {life.state}"
    if fact.claim != life.claim:
        yield f"fence: {fact.worker} launched {name} under a claim that was not the newest"
    # The same attempt twice is one call whose reply was lost.
    if not life.attempt <= int(fact.detail or 0) <= life.attempt + 1:
        yield f"P1: {name} was launched as attempt {fact.detail} after attempt {life.attempt}"
    life.state, life.attempt = "in flight", int(fact.detail or 0)


def _settled(life: _Life, fact: Fact, name: str) -> Iterator[str]:
    if life.state == "settled":
        yield f"P2: {name} was settled twice"
    elif life.state == "unknown" and not life.was_buried:
        yield f"P2: {name} was settled without an entry"
    elif life.state in ("open", "in flight") and fact.claim != life.claim:
        yield f"fence: {fact.worker} settled {name} under a claim that was not the newest"
    elif (
        life.state == "in doubt" and fact.claim and (fact.claim != life.claim or fact.detail not in _EVIDENCE)
    ):
        yield f"fence: {fact.worker} ended the doubt of {name} without evidence"
    if fact.detail == "ACCEPTED" and not life.attempt:
        yield f"P4: {name} is accepted and was never launched"
    if fact.detail == "NOT_PLACED" and life.state != "in doubt":
        yield f"P4: {name} is NOT_PLACED and was never in doubt"


def _answers_and_entries(history: History) -> Iterator[str]:
    """Each answer and the closing of its entry are one step, so both streams tell the same, in the same order."""
    closed = [(fact.intent_id, fact.detail) for fact in history.audit if fact.event == "settled"]
    answered = [(one.intent_id, str(one.outcome)) for one in history.responses]
    for entry, answer in zip_longest(closed, answered):
        if entry != answer:
            yield f"P2: the answers and the ledger part ways: {answer} was published where {entry} was settled"
            return


def _stop_means_stop(history: History) -> Iterator[str]:
    halted = tripped = False
    for fact in history.audit:
        match fact.event:
            case "HALTED":
                halted = True
            case "RESUMED":
                halted = False
            case "GUARD_TRIPPED" | "LOCKDOWN":
                tripped = True
            case "GUARD_RESET":
                tripped = False
            case "launched" if (halted or tripped) and fact.intent_id not in history.cancels:
                yield f"P5: {fact.intent_id} was launched after the stop"


def _one_at_a_time(history: History) -> Iterator[str]:
    """Of one lane, one order is out at a time, and none leaves while a CANCEL of it is out."""
    out: dict[str, set[str]] = defaultdict(set)
    for fact in history.audit:
        intent = history.intents.get(fact.intent_id)
        if intent is None:
            continue
        busy = out[intent.symbol]
        match fact.event:
            case "launched":
                others = busy - {fact.intent_id}
                if others and fact.intent_id not in history.cancels:
                    yield f"P6: {fact.intent_id} was launched while {', '.join(sorted(others))} of its lane was out"
                busy.add(fact.intent_id)
            case "settled":
                busy.discard(fact.intent_id)
            case "INTENT_IN_DOUBT" if history.rules.lane_on_doubt == "continue":
                if fact.intent_id not in history.cancels:
                    busy.discard(fact.intent_id)


def _one_event_per_edge(history: History) -> Iterator[str]:
    for event_id, count in Counter(one.event_id for one in history.events).items():
        if count > 1:
            yield f"P3: the event {event_id} was published {count} times"
    kinds = {kind.value for kind in FailsafeType}
    told = [(fact.event, fact.intent_id) for fact in history.audit if fact.event in kinds]
    published = [(one.type.value, one.intent_id or "") for one in history.events]
    for fact, event in zip_longest(told, published):
        if fact != event:
            yield f"P3: the events and the ledger part ways: {event} was published where {fact} happened"
            break
    yield from _edges([one for one in history.events if one.type in _EDGES])


def _edges(edges: list[FailsafeEvent]) -> Iterator[str]:
    halted = tripped = False
    epoch = 0
    for edge in edges:
        epoch += 1
        if edge.epoch != epoch:
            yield f"P5: the epoch of {edge.type} is {edge.epoch}, and {epoch} was its turn"
            epoch = edge.epoch or epoch
        before = tripped if edge.type in _STOPS or edge.type == "GUARD_RESET" else halted
        after = edge.type in _STOPS or edge.type == "HALTED"
        if before == after:
            yield f"P5: {edge.type} of epoch {epoch} was published, and was so already"
        if edge.type in _STOPS or edge.type == "GUARD_RESET":
            tripped = after
        else:
            halted = after
        if edge.type in _STOPS and (edge.consecutive_failures or 0) < (edge.threshold or 0):
            yield f"P5: the guard tripped at {edge.consecutive_failures} of {edge.threshold} failures"
