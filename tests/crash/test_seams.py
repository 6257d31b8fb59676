"""
The promises hold wherever a worker dies, and whichever reply of Redis or of the broker is lost.

Each scenario runs once undisturbed, to count the calls that its first worker makes to Redis and to the broker. Then
it runs once for each of these calls and each way to be struck there: killed with nothing done of the call, killed
with all of it done, or cut off from its reply. A fresh worker goes on, and the judge reads what is left.
A failure names the scenario and the call; ``pytest -k`` with the scenario runs it again, the same each time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from contracts import ExecutionIntent
from tests.conftest import make_intent
from tests.crash.judge import broken
from tests.crash.world import Fault, Scenario, World, virtual_time
from worker.clock import ManualClock

CREATED = ManualClock().now()


def order(intent_id: str, symbol: str = "005930", **changes: Any) -> ExecutionIntent:
    return make_intent(intent_id=intent_id, symbol=symbol, **{"created_at": CREATED} | changes)


def cancel(intent_id: str, target: str) -> ExecutionIntent:
    gone = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}
    return order(intent_id, target_intent_id=target, **gone)


BAD = b'{"intent_id":"bad","intent_type":"LIMIT","symbol":"005930","quantity":0.1}'
OK, NO, DENIED = "ACCEPTED", "REJECTED", "DENIED"

SCENARIOS = {
    "plain": Scenario([[order("a")]], {"a": OK}),
    "lane": Scenario([[order("a"), order("b"), order("c"), order("d", "000660")]], dict.fromkeys("abcd", OK)),
    "two_workers": Scenario(
        [[order("a"), order("b"), order("c"), order("d", "000660")]], dict.fromkeys("abcd", OK), workers=2
    ),
    "duplicate": Scenario([[order("a"), order("a"), order("b"), order("a")]], dict.fromkeys("ab", OK)),
    "conflict": Scenario(
        [[order("a"), order("a", quantity=7), order("b"), order("b", "000660")]], dict.fromkeys("ab", OK)
    ),
    "garbage": Scenario([[b"{", BAD, order("a"), BAD]], {"a": OK, "bad": DENIED}),
    "guard": Scenario(
        [[order(name) for name in "abcde"]],
        {"a": NO, "b": NO, "c": NO, "d": DENIED, "e": DENIED},
        replies={name: ["refused"] for name in "abc"},
    ),
    "halted": Scenario([[order("a"), order("b")]], {"a": DENIED, "b": DENIED}, halted=True),
    "reply_lost": Scenario(
        [[order("a"), order("b"), order("c", "000660")]], dict.fromkeys("abc", OK), replies={"a": ["lost"]}
    ),
    "beside_a_doubt": Scenario(
        [[order("a"), order("b")]],
        dict.fromkeys("ab", OK),
        replies={"a": ["lost"]},
        ledger={"lane_on_doubt": "continue"},
    ),
    "not_sent": Scenario(
        [[order("a"), order("b")]], dict.fromkeys("ab", OK), replies={"a": ["unreachable", "unreachable"]}
    ),
    "cancel": Scenario([[order("a")], [cancel("c", "a"), order("b")]], dict.fromkeys("acb", OK)),
    "cancel_lost": Scenario(
        [[order("a")], [cancel("c", "a"), order("b")]],
        dict.fromkeys("acb", OK),
        replies={"cancel of a": ["lost"]},
    ),
    "cancel_of_a_doubt": Scenario(
        [[order("a"), order("b"), cancel("c", "b")], [cancel("d", "a")]],
        {"a": OK, "b": DENIED, "c": DENIED, "d": OK},
        replies={"a": ["lost"]},
    ),
    "cancel_first": Scenario(
        [[cancel("c", "a")], [order("a"), order("b")]], {"c": DENIED, "a": DENIED, "b": OK}
    ),
}


@pytest.fixture(scope="module")
def moved() -> Iterator[Any]:
    with virtual_time() as found:
        yield found


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_that_nothing_disturbs_ends_as_it_should(moved: Any, name: str) -> None:
    scenario = SCENARIOS[name]

    history = World(moved, scenario).run()

    assert broken(history) == []
    assert {one.intent_id: one.outcome for one in history.responses} == scenario.outcomes


@pytest.mark.parametrize("kind", ["killed", "cut off"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_promise_holds_wherever_a_worker_is_struck(moved: Any, name: str, kind: str) -> None:
    clean = World(moved, SCENARIOS[name])
    clean.run()
    started = time.perf_counter()

    faults = list(_faults(clean.wire.names, kind))
    for fault in faults:
        _check(moved, name, [fault], f"{name}: {fault} ({clean.wire.names[fault.number - 1]})")

    pace = len(faults) / (time.perf_counter() - started)
    print(f"{name}: {kind} at {len(faults)} of {clean.wire.calls} calls, {pace:.0f} runs/s")  # noqa: T201  the count, with -s


@pytest.mark.parametrize("seed", range(3))
def test_every_promise_holds_when_the_workers_after_it_are_struck_as_well(moved: Any, seed: int) -> None:
    dice = random.Random(seed)

    for _ in range(25):
        name = dice.choice(sorted(SCENARIOS))
        faults = [
            Fault(dice.randint(1, 30), dice.random() < 0.7, dice.choice(["killed", "killed", "cut off"]))
            for _ in range(dice.randint(2, 5))
        ]
        _check(moved, name, faults, f"seed {seed}, {name}: {', '.join(map(str, faults))}")


def _check(moved: Any, name: str, faults: Sequence[Fault], where: str) -> None:
    world = World(moved, SCENARIOS[name])
    try:
        found = broken(world.run(*faults))
    except Exception as error:
        raise AssertionError(where) from error
    assert found == [], f"{where}: {found}"


def _faults(calls: list[str], kind: str) -> Iterator[Fault]:
    """
    Killed after each call, and before the first: what is done before a call is what is done after the one before it.
    Cut off from each reply; from the broker also before it heard of the call.
    """
    if kind == "killed":
        yield Fault(1, False, kind)
    for number, call in enumerate(calls, 1):
        yield Fault(number, True, kind)
        if kind == "cut off" and call in ("place_order", "cancel_order", "list_orders"):
            yield Fault(number, False, kind)
