"""The judge itself: it passes a good history, and names the promise that a bad one breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from contracts import Code, ExecutionResponse, OrderRecord, OrderStatus, Outcome, Side, dump
from tests.conftest import intent_json, make_intent
from tests.crash.judge import History, broken

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def row(number: int, intent_id: str, symbol: str = "005930", **changes: Any) -> OrderRecord:
    order = OrderRecord(
        f"N{number}", symbol, Side.BUY, Decimal(10), OrderStatus.WORKING, NOW, client_order_id=intent_id
    )
    return replace(order, **changes)


def accepted(intent_id: str, number: int) -> ExecutionResponse:
    return ExecutionResponse(
        intent_id=intent_id,
        accepted=True,
        broker="x",
        message="",
        timestamp=NOW,
        outcome=Outcome.ACCEPTED,
        broker_order_id=f"N{number}",
    )


def denied(intent_id: str) -> ExecutionResponse:
    return ExecutionResponse(
        intent_id=intent_id,
        accepted=False,
        broker="x",
        message="",
        timestamp=NOW,
        outcome=Outcome.DENIED,
        code=Code.HALTED,
    )


def cancel(intent_id: str, target: str) -> bytes:
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    return dump(make_intent(intent_id=intent_id, target_intent_id=target, created_at=NOW, **gone))


def good() -> History:
    """Two of one lane, one denied, a conflict, garbage, and a cancel that went through."""
    responses = [accepted("a", 1), accepted("b", 2), denied("d"), accepted("c", 2)]
    return History(
        queue=[
            ("9-0", cancel("c", "b")),
            ("1-0", intent_json(intent_id="a", created_at=NOW)),
            ("2-0", intent_json(intent_id="b", created_at=NOW)),
            ("3-0", intent_json(intent_id="d", created_at=NOW)),
            ("4-0", intent_json(intent_id="a", created_at=NOW, quantity=7)),
            ("5-0", b"garbage"),
        ],
        responses=responses,
        dead=[("conflict", "4-0"), ("invalid", "5-0")],
        book=[row(1, "a"), row(2, "b", status=OrderStatus.CANCELLED)],
        ledger={one.intent_id: one for one in responses},
        audit=[("launched", "a"), ("launched", "b"), ("HALTED", ""), ("launched", "c")],
    )


def test_a_good_history_is_passed() -> None:
    assert broken(good()) == []


def _answer(history: History, response: ExecutionResponse) -> None:
    """The answer to this intent was another."""
    place = next(n for n, one in enumerate(history.responses) if one.intent_id == response.intent_id)
    history.responses[place] = history.ledger[response.intent_id] = response


BAD: dict[str, tuple[str, Callable[[History], object]]] = {
    "placed twice": ("P1: the broker holds 2 orders of a", lambda h: h.book.append(row(3, "a"))),
    "placed by nobody": ("P1: the broker holds an order of 'z'", lambda h: h.book.append(row(3, "z"))),
    "answered twice": ("P2: a was answered 2 times", lambda h: h.responses.append(accepted("a", 1))),
    "answer changed": ("P2: the ledger holds another", lambda h: h.ledger.update(a=accepted("a", 9))),
    "answer forgotten": ("P2: the ledger holds another", lambda h: h.ledger.pop("d")),
    "left open": ("P2: e was never answered", lambda h: h.ledger.update(e=None)),
    "silence": (
        "P3: entry 6-0 ended in silence",
        lambda h: h.queue.append(("6-0", intent_json(intent_id="f", created_at=NOW))),
    ),
    "garbage lost": ("P3: entry 5-0 ended in silence", lambda h: h.dead.pop()),
    "buried twice": ("P3: entry 5-0 is 2 dead letters", lambda h: h.dead.append(("invalid", "5-0"))),
    "accepted, not held": ("P4: a is accepted as N1", lambda h: h.book.pop(0)),
    "wrong number": ("P4: a is accepted as N2", lambda h: _answer(h, accepted("a", 2))),
    "held, but denied": ("P4: a is answered DENIED", lambda h: _answer(h, denied("a"))),
    "cancelled, but works": (
        "P4: the cancel c is accepted",
        lambda h: h.book.__setitem__(1, row(2, "b")),
    ),
    "launched after a halt": ("P5: d was launched", lambda h: h.audit.append(("launched", "d"))),
    "out of order": ("P6: a of 005930 reached", lambda h: h.book.reverse()),
    "conflict traded": (
        "P8: the order of a is that of a conflicting entry",
        lambda h: h.book.__setitem__(0, row(1, "a", quantity=Decimal(7))),
    ),
    "conflict passed over": ("P8: a came with different content", lambda h: h.dead.pop(0)),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_promise_is_named(name: str) -> None:
    words, spoil = BAD[name]
    history = good()

    spoil(history)

    assert any(one.startswith(words) for one in broken(history)), broken(history)


def test_launches_after_a_resume_are_nobodys_fault() -> None:
    history = good()

    history.audit += [("RESUMED", ""), ("launched", "d")]

    assert broken(history) == []
