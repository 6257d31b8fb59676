"""What is played: the ways that an intent can go, and what operators do meanwhile."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from contracts import ExecutionIntent
from tests.conftest import make_intent
from tests.crash.world import Act, Poison, Scenario, Wait
from worker.clock import ManualClock

CREATED = ManualClock().now()
OTHER = "000660"
OK, NO, DENIED, EXPIRED, NONE, UNSENT = "ACCEPTED", "REJECTED", "DENIED", "EXPIRED", "NOT_PLACED", "NOT_SENT"
BY = "--reason a_drill --actor kim@desk"


def order(intent_id: str, symbol: str = "005930", **changes: Any) -> ExecutionIntent:
    return make_intent(intent_id=intent_id, symbol=symbol, **{"created_at": CREATED} | changes)


def later(intent_id: str, seconds: float, symbol: str = "005930", **changes: Any) -> ExecutionIntent:
    """One that a strategy makes so many seconds later."""
    return order(intent_id, symbol, created_at=CREATED + timedelta(seconds=seconds), **changes)


def until(intent_id: str, seconds: float, symbol: str = "005930") -> ExecutionIntent:
    return order(intent_id, symbol, expires_at=CREATED + timedelta(seconds=seconds))


def cancel(intent_id: str, target: str) -> ExecutionIntent:
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    return order(intent_id, target_intent_id=target, **gone)


BAD = b'{"intent_id":"bad","intent_type":"LIMIT","symbol":"005930","quantity":0.1}'
LANE = [order("a"), order("b"), order("c"), order("d", OTHER)]
REFUSED = {name: ["refused"] for name in "abc"}

SCENARIOS: Final = {
    # Plain ways.
    "plain": Scenario([[order("a")]], {"a": OK}),
    "lane": Scenario([LANE], dict.fromkeys("abcd", OK)),
    "two_workers": Scenario([LANE], dict.fromkeys("abcd", OK), workers=2),
    "duplicate": Scenario([[order("a"), order("a"), order("b"), order("a")]], dict.fromkeys("ab", OK)),
    "duplicate_later": Scenario([[order("a")], [order("a"), order("b")]], dict.fromkeys("ab", OK)),
    "conflict": Scenario(
        [[order("a"), order("a", quantity=7), order("b"), order("b", OTHER)]], dict.fromkeys("ab", OK)
    ),
    "garbage": Scenario([[b"{", BAD, order("a"), BAD]], {"a": OK, "bad": DENIED}),
    "noop": Scenario(
        [[order("n", intent_type="NOOP", side=None, quantity=None, limit_price=None), order("a")]],
        {"n": DENIED, "a": OK},
    ),
    "paced": Scenario(
        [[*LANE, order("e", OTHER)]], dict.fromkeys("abcde", OK), ledger={"rate_limit": 2.0}, workers=2
    ),
    "upkeep": Scenario(
        [[*LANE, b"{"], [cancel("x", "a"), order("e")]], dict.fromkeys("abcdex", OK), upkeep=True
    ),
    # Stops.
    "guard": Scenario(
        [[order(name) for name in "abcde"]],
        {"a": NO, "b": NO, "c": NO, "d": DENIED, "e": DENIED},
        replies=REFUSED,
    ),
    "guard_of_two": Scenario(
        [[order("a"), order("b", OTHER), order("c", "035720"), order("d")], [order("e"), order("f", OTHER)]],
        {"a": NO, "b": NO, "c": NO, "d": OK, "e": DENIED, "f": DENIED},
        replies=REFUSED,
        workers=2,
    ),
    "guard_reset": Scenario(
        [
            [order(name) for name in "abcd"],
            [Act(f"guard reset {BY}"), order("e"), order("f"), order("g")],
            [Act(f"guard reset {BY}"), Act(f"guard reset --approve {BY}"), order("h")],
        ],
        {**dict.fromkeys("abcefg", NO), "d": DENIED, "h": OK},
        replies={name: ["refused"] for name in "abcefg"},
    ),
    "halted": Scenario([[Act(f"halt {BY}"), order("a"), order("b")]], {"a": DENIED, "b": DENIED}),
    "halted_for_a_while": Scenario(
        [
            [order("a"), order("b"), Act(f"halt {BY}"), order("c")],
            [Act(f"resume {BY}"), order("d"), order("e")],
        ],
        {"a": DENIED, "b": DENIED, "c": DENIED, "d": OK, "e": OK},
    ),
    "halted_in_doubt": Scenario(
        [
            [order("a"), order("b"), Wait(0.1)],
            [Act(f"halt {BY}"), Wait(30)],
            [Act(f"resume {BY}"), order("c")],
        ],
        {"a": OK, "b": DENIED, "c": OK},
        replies={"a": ["lost"]},
    ),
    # Time.
    "expired_in_the_queue": Scenario(
        [[until("a", 5), order("b"), Wait(20, workers=False), order("c")]], {"a": EXPIRED, "b": OK, "c": OK}
    ),
    "too_old": Scenario([[order("a"), Wait(61, workers=False), later("b", 61)]], {"a": EXPIRED, "b": OK}),
    "expired_in_the_lane": Scenario(
        [[order("a"), until("b", 5), order("c")]], {"a": OK, "b": EXPIRED, "c": OK}, replies={"a": ["lost"]}
    ),
    "expired_at_the_gate": Scenario(
        [[until("a", 1), order("b"), until("c", 12)]],
        {"a": EXPIRED, "b": OK, "c": OK},
        replies={"a": ["unreachable"]},
    ),
    # The broker.
    "reply_lost": Scenario(
        [[order("a"), order("b"), order("c", OTHER)]], dict.fromkeys("abc", OK), replies={"a": ["lost"]}
    ),
    "delayed": Scenario([[order("a"), order("b")]], dict.fromkeys("ab", OK), replies={"a": ["delayed"]}),
    "not_found": Scenario(
        [[order("a"), order("b"), order("c", OTHER)]],
        {"a": NONE, "b": OK, "c": OK},
        replies={"a": ["vanished"]},
    ),
    "doubts": Scenario(
        [[order("a"), order("b", OTHER), order("c", "035720"), order("d")]],
        {"a": OK, "b": NONE, "c": OK, "d": DENIED},
        replies={"a": ["lost"], "b": ["vanished"], "c": ["delayed"]},
        workers=2,
    ),
    "beside_a_doubt": Scenario(
        [[order("a"), order("b")]],
        dict.fromkeys("ab", OK),
        replies={"a": ["lost"]},
        ledger={"lane_on_doubt": "continue"},
    ),
    "not_sent": Scenario(
        [[order("a"), order("b")]], dict.fromkeys("ab", OK), replies={"a": ["unreachable"] * 2}
    ),
    "never_sent": Scenario(
        [[order("a"), order("b")]], {"a": UNSENT, "b": OK}, replies={"a": ["unreachable"] * 4}
    ),
    # Cancels.
    "cancel": Scenario([[order("a")], [cancel("x", "a"), order("b")]], dict.fromkeys("axb", OK)),
    "cancel_lost": Scenario(
        [[order("a")], [cancel("x", "a"), order("b")]],
        dict.fromkeys("axb", OK),
        replies={"cancel of a": ["lost"]},
    ),
    "cancel_vanished": Scenario(
        [[order("a")], [cancel("x", "a"), order("b")], [cancel("y", "a")]],
        {"a": OK, "x": NONE, "b": OK, "y": OK},
        replies={"cancel of a": ["vanished"]},
    ),
    "cancel_refused": Scenario(
        [[order("a")], [cancel("x", "a"), cancel("y", "a")]],
        {"a": OK, "x": NO, "y": OK},
        replies={"cancel of a": ["refused"]},
    ),
    "cancel_not_sent": Scenario(
        [[order("a")], [cancel("x", "a"), order("b")]],
        dict.fromkeys("axb", OK),
        replies={"cancel of a": ["unreachable"] * 2},
    ),
    "cancel_of_a_doubt": Scenario(
        [[order("a"), order("b"), cancel("x", "b")], [cancel("y", "a")]],
        {"a": OK, "b": DENIED, "x": DENIED, "y": OK},
        replies={"a": ["lost"]},
    ),
    "cancel_of_an_open_doubt": Scenario(
        [[order("a"), order("b"), Wait(0.1)], [cancel("x", "a")]],
        dict.fromkeys("axb", OK),
        replies={"a": ["lost"]},
    ),
    "cancel_first": Scenario(
        [[cancel("x", "a")], [order("a"), order("b")]], {"x": DENIED, "a": DENIED, "b": OK}
    ),
    "cancel_while_halted": Scenario(
        [[order("a")], [Act(f"halt {BY}"), cancel("x", "a"), order("b")]], {"a": OK, "x": OK, "b": DENIED}
    ),
    # A broker that knows no ids of ours.
    "blind": Scenario([LANE], dict.fromkeys("abcd", OK), blind=True, workers=2),
    "blind_lost": Scenario(
        [[order("a"), order("b"), order("c", OTHER)]],
        dict.fromkeys("abc", OK),
        replies={"a": ["lost"]},
        blind=True,
    ),
    "blind_not_found": Scenario(
        [[order("a"), order("b"), Wait(1)], [later("c", 1, OTHER)]],
        {"a": NONE, "b": OK, "c": OK},
        replies={"a": ["vanished"]},
        blind=True,
    ),
    "blind_until_the_close": Scenario(
        [[order("a"), order("b")], [later("c", 30)]],
        {"a": NONE, "b": OK, "c": OK},
        replies={"a": ["vanished"]},
        blind=True,
    ),
    "blind_upkeep": Scenario(
        [[order("a"), order("b", OTHER), order("c", "035720")], [cancel("x", "b")]],
        {"a": OK, "b": OK, "c": NONE, "x": OK},
        replies={"a": ["lost"], "c": ["vanished"]},
        blind=True,
        upkeep=True,
    ),
    # What only a person can end, or mend.
    "by_hand": Scenario(
        [[order("a"), order("b", OTHER)], [order("c")]],
        {"a": OK, "b": NONE, "c": OK},
        replies={"a": ["lost"], "b": ["vanished"]},
        blind=True,
        exclusive=False,
    ),
    "replayed_letter": Scenario(
        [[Poison(order("a")), order("b")], [Act("dead replay {dead} --actor kim@desk")]],
        dict.fromkeys("ab", OK),
    ),
    "dropped_letter": Scenario([[b"{", order("a")], [Act("dead drop {dead} " + BY)]], {"a": OK}),
}
