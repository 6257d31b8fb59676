"""The judge itself: it passes a good history, and names the promise that a bad one breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from contracts import (
    Code,
    ExecutionResponse,
    FailsafeEvent,
    FailsafeType,
    OrderRecord,
    OrderStatus,
    Outcome,
    Side,
    dump,
)
from tests.conftest import intent_json, make_intent
from tests.crash.judge import Fact, History, Rules, broken

NOW = datetime(2026, 11, 23, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
CODES = {Outcome.DENIED: Code.HALTED, Outcome.EXPIRED: Code.EXPIRED, Outcome.NOT_PLACED: Code.NOT_PLACED}


def order(intent_id: str, **changes: Any) -> bytes:
    return intent_json(intent_id=intent_id, created_at=NOW, **changes)


def cancel(intent_id: str, target: str) -> bytes:
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    return dump(make_intent(intent_id=intent_id, target_intent_id=target, created_at=NOW, **gone))


def row(number: int, intent_id: str | None, symbol: str = "005930", **changes: Any) -> OrderRecord:
    order = OrderRecord(
        f"N{number}",
        symbol,
        Side.BUY,
        Decimal(10),
        OrderStatus.WORKING,
        NOW,
        limit_price=Decimal(71000),
        client_order_id=intent_id,
    )
    return replace(order, **changes)


def answer(
    intent_id: str, outcome: Outcome, number: int | None = None, at: datetime = NOW
) -> ExecutionResponse:
    return ExecutionResponse(
        intent_id=intent_id,
        accepted=outcome is Outcome.ACCEPTED,
        broker="x",
        message="",
        timestamp=at,
        outcome=outcome,
        code=CODES.get(outcome),
        broker_order_id=f"N{number}" if number else None,
    )


def accepted(intent_id: str, number: int) -> ExecutionResponse:
    return answer(intent_id, Outcome.ACCEPTED, number)


def event(kind: str, mark: str = "", **fields: Any) -> FailsafeEvent:
    return FailsafeEvent(
        event_id=f"{kind}:{mark}",
        type=FailsafeType(kind),
        route="default",
        message="",
        timestamp=NOW,
        **fields,
    )


def fact(event: str, intent_id: str = "", claim: str = "", detail: str = "") -> Fact:
    return Fact(event, intent_id, "w1", detail, claim, MS)


def life(intent_id: str, outcome: str, claim: str = "1") -> list[Fact]:
    """An intent that goes the plain way."""
    flight = [fact("launched", intent_id, claim, "1")] if outcome == "ACCEPTED" else []
    return [fact("claimed", intent_id, claim), *flight, fact("settled", intent_id, claim, outcome)]


def good() -> History:
    """
    Two of one lane, the second handed on; one never placed after a doubt, a conflict, garbage, one CANCEL that went
    through, and a halt, behind which one is denied.
    """
    responses = [
        accepted("a", 1),
        accepted("b", 2),
        answer("x", Outcome.NOT_PLACED),
        accepted("c", 2),
        answer("d", Outcome.DENIED),
    ]
    audit = [
        fact("claimed", "a", "1"),
        fact("launched", "a", "1", "1"),
        fact("claimed", "b"),
        fact("claimed", "x", "2"),
        fact("launched", "x", "2", "1"),
        fact("settled", "a", "1", "ACCEPTED"),
        fact("handed", "b", "3"),
        fact("launched", "b", "3", "1"),
        fact("dead_lettered", "a", "", "conflict"),
        fact("INTENT_CONFLICT", "a"),
        fact("settled", "b", "3", "ACCEPTED"),
        fact("INTENT_IN_DOUBT", "x"),
        fact("DOUBT_RESOLVED", "x"),
        fact("settled", "x", "", "NOT_PLACED"),
        fact("HALTED"),
        *life("c", "ACCEPTED", "4"),
        *life("d", "DENIED", "5"),
    ]
    return History(
        queue=[
            ("9-0", cancel("c", "b")),
            ("1-0", order("a")),
            ("2-0", order("b")),
            ("3-0", order("x", symbol="000660")),
            ("4-0", order("a", quantity=7)),
            ("5-0", b"garbage"),
            ("6-0", order("d")),
        ],
        responses=responses,
        dead=[("conflict", "4-0"), ("invalid", "5-0")],
        book=[row(1, "a"), row(2, "b", status=OrderStatus.CANCELLED)],
        ledger={one.intent_id: one for one in responses},
        audit=audit,
        events=[
            event("INTENT_CONFLICT", intent_id="a"),
            event("INTENT_IN_DOUBT", intent_id="x"),
            event("DOUBT_RESOLVED", intent_id="x"),
            event("HALTED", "1", epoch=1, actor="kim", reason="a drill"),
        ],
    )


def blind(history: History) -> History:
    """The same at a broker that knows no ids of ours."""
    history.book = [replace(one, client_order_id=None) for one in history.book]
    return history


def test_a_good_history_is_passed() -> None:
    assert broken(good()) == []


def test_a_good_history_of_a_broker_without_client_order_ids_is_passed() -> None:
    assert broken(blind(good())) == []


def _index(history: History, event: str, intent_id: str = "") -> int:
    return next(n for n, one in enumerate(history.audit) if (one.event, one.intent_id) == (event, intent_id))


def _answer(history: History, response: ExecutionResponse) -> None:
    """The answer to this intent was another."""
    place = next(n for n, one in enumerate(history.responses) if one.intent_id == response.intent_id)
    history.responses[place] = history.ledger[response.intent_id] = response
    at = _index(history, "settled", response.intent_id)
    history.audit[at] = history.audit[at]._replace(detail=str(response.outcome))


def _trail(history: History, event: str, intent_id: str, **changes: Any) -> None:
    """The audit trail tells this of it otherwise."""
    at = _index(history, event, intent_id)
    history.audit[at] = history.audit[at]._replace(**changes)


def _insert(history: History, before: tuple[str, str], *facts: Fact) -> None:
    at = _index(history, *before)
    history.audit[at:at] = facts


def _edge(history: History, kind: str, epoch: int, **fields: Any) -> None:
    """One more edge, published and audited."""
    history.audit.append(fact(kind))
    history.events.append(event(kind, str(epoch), epoch=epoch, **fields))


def _early_row(history: History) -> None:
    history.queue[1] = ("1-0", order("a", expires_at=NOW + timedelta(seconds=1)))
    history.book[0] = row(1, "a", placed_at=NOW + timedelta(seconds=2))


BAD: dict[str, tuple[str, Callable[[History], object]]] = {
    "placed twice": ("P1: the broker holds 2 orders of a", lambda h: h.book.append(row(3, "a"))),
    "placed by nobody": ("P1: the broker holds an order of 'z'", lambda h: h.book.append(row(3, "z"))),
    "placed without a launch": (
        "P1: the broker holds an order of a, which was never launched",
        lambda h: h.audit.pop(_index(h, "launched", "a")),
    ),
    "launched in doubt": (
        "P1: x was launched when it was in doubt",
        lambda h: _insert(h, ("DOUBT_RESOLVED", "x"), fact("launched", "x", "2", "2")),
    ),
    "launched once answered": (
        "P1: a was launched when it was settled",
        lambda h: _insert(h, ("HALTED", ""), fact("launched", "a", "1", "2")),
    ),
    "launched by two claims": (
        "fence: w1 launched a under a claim that was not the newest",
        lambda h: _insert(h, ("settled", "a"), fact("launched", "a", "8", "2")),
    ),
    "handed on in flight": (
        "P1: a was handed to w1 when it was in flight",
        lambda h: _insert(h, ("settled", "a"), fact("handed", "a", "8")),
    ),
    "attempts skipped": (
        "P1: a was launched as attempt 4 after attempt 1",
        lambda h: _insert(h, ("settled", "a"), fact("launched", "a", "1", "4")),
    ),
    "settled by a stale claim": (
        "fence: w1 settled b under a claim that was not the newest",
        lambda h: _trail(h, "settled", "b", claim="2"),
    ),
    "doubt ended without evidence": (
        "fence: w1 ended the doubt of x without evidence",
        lambda h: _trail(h, "settled", "x", claim="2"),
    ),
    "answered twice": ("P2: a was answered 2 times", lambda h: h.responses.append(accepted("a", 1))),
    "settled twice": (
        "P2: a was settled twice",
        lambda h: h.audit.append(fact("settled", "a", "1", "ACCEPTED")),
    ),
    "claimed twice": (
        "P2: a was claimed anew when it was settled",
        lambda h: h.audit.append(fact("claimed", "a", "9")),
    ),
    "answer changed": ("P2: the ledger holds another", lambda h: h.ledger.update(a=accepted("a", 9))),
    "answer forgotten": ("P2: the ledger holds another", lambda h: h.ledger.pop("d")),
    "left open": ("P2: e was never answered", lambda h: h.ledger.update(e=None)),
    "answered without an entry": (
        "P2: d was settled without an entry",
        lambda h: h.audit.pop(_index(h, "claimed", "d")),
    ),
    "answered before its entry": (
        "P2: the answers and the ledger part ways",
        lambda h: h.responses.insert(0, h.responses.pop()),
    ),
    "entry closed in silence": (
        "P2: the answers and the ledger part ways",
        lambda h: h.responses.pop(),
    ),
    "silence": ("P3: entry 7-0 ended in silence", lambda h: h.queue.append(("7-0", order("f")))),
    "garbage lost": ("P3: entry 5-0 ended in silence", lambda h: h.dead.pop()),
    "buried twice": ("P3: entry 5-0 is 2 dead letters", lambda h: h.dead.append(("invalid", "5-0"))),
    "doubt not announced": ("P3: the events and the ledger part ways", lambda h: h.events.pop(1)),
    "event twice": (
        "P3: the event HALTED:1 was published 2 times",
        lambda h: h.events.append(h.events[-1]),
    ),
    "accepted, not held": ("P4: a is accepted as N1", lambda h: h.book.pop(0)),
    "wrong number": ("P4: a is accepted as N2", lambda h: _answer(h, accepted("a", 2))),
    "one order for two": ("P4: a and b were both answered", lambda h: _answer(h, accepted("a", 2))),
    "held, but denied": ("P4: a is answered DENIED", lambda h: _answer(h, answer("a", Outcome.DENIED))),
    "held, but not placed": ("P4: x is answered NOT_PLACED", lambda h: h.book.append(row(3, "x", "000660"))),
    "not placed without a doubt": (
        "P4: a is NOT_PLACED and was never in doubt",
        lambda h: _answer(h, answer("a", Outcome.NOT_PLACED)),
    ),
    "accepted, never launched": (
        "P4: d is accepted and was never launched",
        lambda h: _answer(h, accepted("d", 1)),
    ),
    "doubt about what never left": (
        "P4: d fell in doubt when it was open",
        lambda h: _insert(h, ("settled", "d"), fact("INTENT_IN_DOUBT", "d")),
    ),
    "cancelled, but works": ("P4: the cancel c is accepted", lambda h: h.book.__setitem__(1, row(2, "b"))),
    "false alarm": (
        "P4: N1 was announced as FOREIGN_ORDER",
        lambda h: h.events.append(event("FOREIGN_ORDER", broker_order_id="N1")),
    ),
    "launched after a halt": (
        "P5: d was launched",
        lambda h: h.audit.append(fact("launched", "d", "5", "1")),
    ),
    "launched after a trip": (
        "P5: e was launched",
        lambda h: h.audit.extend([fact("RESUMED"), fact("GUARD_TRIPPED"), *life("e", "ACCEPTED")]),
    ),
    "resumed, but tripped": (
        "P5: e was launched",
        lambda h: h.audit.extend([fact("GUARD_TRIPPED"), fact("RESUMED"), *life("e", "ACCEPTED")]),
    ),
    "halted twice": (
        "P5: HALTED of epoch 2 was published, and was so already",
        lambda h: _edge(h, "HALTED", 2),
    ),
    "epoch skipped": ("P5: the epoch of RESUMED is 3", lambda h: _edge(h, "RESUMED", 3)),
    "reset of nothing": ("P5: GUARD_RESET of epoch 2", lambda h: _edge(h, "GUARD_RESET", 2)),
    "tripped early": (
        "P5: the guard tripped at 2 of 3",
        lambda h: _edge(h, "GUARD_TRIPPED", 2, consecutive_failures=2, threshold=3),
    ),
    "out of order": ("P6: a of 005930 reached", lambda h: h.book.reverse()),
    "two of a lane at once": (
        "P6: b was launched while a of its lane was out",
        lambda h: (
            _insert(h, ("launched", "b"), h.audit.pop(_index(h, "settled", "a")))
            or h.audit.insert(_index(h, "settled", "a"), h.audit.pop(_index(h, "launched", "b")))
        ),
    ),
    "past a cancel": (
        "P6: d was launched while c of its lane was out",
        lambda h: _insert(h, ("settled", "c"), fact("claimed", "d", "5"), fact("launched", "d", "5", "1")),
    ),
    "placed after its end": ("P7: the order of a was placed 0:00:01 after its end", _early_row),
    "placed too old": (
        "P7: the order of a was placed 0:00:01 after its end",
        lambda h: h.book.__setitem__(0, row(1, "a", placed_at=NOW + timedelta(seconds=61))),
    ),
    "placed long after its launch": (
        "P7: the order of a was placed 0:00:02 after its send deadline",
        lambda h: h.book.__setitem__(0, row(1, "a", placed_at=NOW + timedelta(seconds=7))),
    ),
    "launched after its end": (
        "P7: a was launched 0:00:01 after its end",
        lambda h: _trail(h, "launched", "a", at=MS + 61_000),
    ),
    "expired too soon": (
        "P7: d was answered EXPIRED 0:01:00 before its end",
        lambda h: _answer(h, answer("d", Outcome.EXPIRED)),
    ),
    "conflict traded": (
        "P8: the order of a is that of a conflicting entry",
        lambda h: h.book.__setitem__(0, row(1, "a", quantity=Decimal(7))),
    ),
    "conflict passed over": ("P8: a came with different content", lambda h: h.dead.pop(0)),
    "conflict not announced": ("P8: 1 conflicts of a were buried and 0 announced", lambda h: h.events.pop(0)),
}

#: At a broker that knows no ids of ours, the book alone has to tell.
BLIND: dict[str, tuple[str, Callable[[History], object]]] = {
    "placed twice": ("P1: the broker holds 2 orders of ", lambda h: h.book.append(row(3, None))),
    "placed by nobody": (
        "P1: the broker holds the order N3, which nobody asked for",
        lambda h: h.book.append(row(3, None, "035720")),
    ),
    "held, but not placed": ("P4: x is answered NOT_PLACED", lambda h: h.book.append(row(3, None, "000660"))),
    "wrong number": ("P4: a and b were both answered", lambda h: _answer(h, accepted("a", 2))),
    "accepted, not held": ("P4: a is accepted as N1", lambda h: h.book.pop(0)),
    "out of order": ("P6: a of 005930 reached", lambda h: h.book.reverse()),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_promise_is_named(name: str) -> None:
    words, spoil = BAD[name]
    history = good()

    spoil(history)

    assert any(one.startswith(words) for one in broken(history)), broken(history)


@pytest.mark.parametrize("name", BLIND)
def test_a_broken_promise_at_a_broker_without_client_order_ids_is_named(name: str) -> None:
    words, spoil = BLIND[name]
    history = blind(good())

    spoil(history)

    assert any(one.startswith(words) for one in broken(history)), broken(history)


def test_orders_placed_by_hand_are_nobodys_fault() -> None:
    history = blind(good())

    history.book.append(row(3, None))
    history.rules = Rules(by_hand=frozenset({"N3"}))

    assert broken(history) == []


def test_launches_after_a_resume_are_nobodys_fault() -> None:
    history = good()

    _edge(history, "RESUMED", 2)
    history.queue.append(("7-0", order("e")))
    history.audit += life("e", "ACCEPTED")
    history.responses.append(accepted("e", 3))
    history.ledger["e"] = accepted("e", 3)
    history.book.append(row(3, "e"))

    assert broken(history) == []


def test_clocks_may_be_apart_as_far_as_the_rules_say() -> None:
    history = good()

    history.book[0] = row(1, "a", placed_at=NOW + timedelta(seconds=5.9))
    history.rules = Rules(slack=1.0)

    assert broken(history) == []


def test_a_doubt_frees_its_lane_only_where_the_route_says_so() -> None:
    history = good()
    history.queue.insert(6, ("5-1", order("y", symbol="000660")))
    at = _index(history, "DOUBT_RESOLVED", "x")
    history.audit[at:at] = life("y", "ACCEPTED", "6")
    history.responses.insert(2, accepted("y", 3))
    history.ledger["y"] = accepted("y", 3)
    history.book.append(row(3, "y", "000660"))

    waiting = broken(history)
    history.rules = Rules(lane_on_doubt="continue")

    assert waiting == ["P6: y was launched while x of its lane was out"]
    assert broken(history) == []


def test_after_a_change_of_servers_an_intent_may_fall_in_doubt_before_its_launch() -> None:
    history = good()
    history.audit = [one for one in history.audit if (one.event, one.intent_id) != ("launched", "x")]
    history.book.append(row(3, "x", "000660"))
    _answer(history, accepted("x", 3))

    before = broken(history)
    history = replace(history, audit=[fact("unsure"), *history.audit])

    assert "P1: the broker holds an order of x, which was never launched" in before
    assert broken(history) == []
