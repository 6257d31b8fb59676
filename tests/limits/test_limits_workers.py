"""Eight workers, the shared call limit, lost replies, a kill, a guard: real processes in front of a simulated KIS."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from contracts import Code, FailsafeType, IntentType, Outcome
from tests.conftest import RedisServer, make_intent, start_redis
from tests.limits.street import Street, orders, simulator
from tests.process.workers import wait_until
from worker.simulate.faults import Fault

pytestmark = [pytest.mark.process, pytest.mark.real_redis]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    # As a live route demands it.
    started = start_redis(
        "--appendonly", "yes", "--appendfsync", "always", "--no-appendfsync-on-rewrite", "no"
    )
    yield started
    started.stop()
    shutil.rmtree(started.folder, ignore_errors=True)


@pytest.fixture
def street(server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Street]]:
    with ExitStack() as stack:

        def make(kis: dict[str, Any] | None = None, **route: Any) -> Street:
            simulated = simulator(**(kis or {}))
            url = stack.enter_context(simulated.serve())
            here = Street(server, tmp_path, simulated, url, **route)
            stack.callback(here.close)
            return here

        yield make


def test_when_a_fifth_of_100_replies_is_lost_every_answer_says_what_the_book_says(
    street: Callable[..., Street],
) -> None:
    here = street(rate_limit=100, max_consecutive_failures=50)
    here.worker()
    here.open()
    here.meets(Fault(what="reset", rate=0.2))
    intents = orders(100)

    here.enqueue(intents)
    here.answered(intents)

    here.check_all_placed(intents)
    in_doubt = {one.intent_id for one in here.events() if one.type is FailsafeType.INTENT_IN_DOUBT}
    assert in_doubt == {one.intent_id for one in here.events() if one.type is FailsafeType.DOUBT_RESOLVED}
    assert len(in_doubt) > 5


def test_a_worker_killed_half_way_leaves_nothing_lost_and_nothing_doubled(
    street: Callable[..., Street],
) -> None:
    here = street(rate_limit=60, max_consecutive_failures=50)
    one, _other = here.worker(), here.worker()
    here.open()
    # Orders are on the book long before they are answered: the kill leaves some between the two.
    here.meets(Fault(what="delay", rate=1, seconds=0.2))
    intents = orders(40)
    here.enqueue(intents)
    wait_until(lambda: len(here.on_the_book()) >= 15, "half the work is done")

    one.kill()

    here.answered(intents)
    # What was launched, and had not left when the worker died, became no order.
    unplaced = {here.answers()[one.intent_id].outcome for one in here.check_truth(intents)}
    assert unplaced <= {Outcome.NOT_PLACED}


def test_three_refusals_in_a_row_stop_the_route_and_no_fourth_order_reaches_the_broker(
    street: Callable[..., Street],
) -> None:
    here = street(concurrency=1)
    here.worker()
    here.open()
    here.meets(Fault(what="APBK0952", rate=1))
    intents = orders(8)

    here.enqueue(intents)
    here.answered(intents)

    # Lanes need not go in the order of the queue.
    answers = list(here.answers().values())
    refused = [one for one in answers if one.outcome is Outcome.REJECTED]
    assert [one.broker_code for one in refused] == ["APBK0952"] * 3
    others = {(one.code, one.broker) for one in answers if one not in refused}
    assert others == {(Code.FAILSAFE_TRIPPED, "failsafe")}
    assert here.kis.desk.calls["order"] == 3
    assert [one.type for one in here.events()].count(FailsafeType.GUARD_TRIPPED) == 1


def test_eight_workers_share_one_token_and_one_limit_and_what_the_gate_turns_away_goes_again(
    street: Callable[..., Street],
) -> None:
    # The server's own strict window, and a gate that turns away one order in twenty besides.
    here = street({"rate": None, "ledger_rate": 1})
    workers = [here.start("run") for _ in range(8)]
    here.open()
    here.meets(Fault(what="EGW00201", rate=0.05))
    intents = orders(54)
    here.enqueue(intents)
    first = "i-000"
    wait_until(lambda: first in here.answers(), "the first order is at the broker")

    here.enqueue(
        [
            make_intent(
                intent_id="c-1",
                intent_type=IntentType.CANCEL,
                target_intent_id=first,
                symbol=intents[0].symbol,
                side=None,
                quantity=None,
                limit_price=None,
            )
        ]
    )
    wait_until(lambda: "c-1" in here.answers(), "the cancel is answered")
    answered_before_the_cancel = len(here.answers())
    here.answered(intents)

    assert here.answers()["c-1"].outcome is Outcome.ACCEPTED
    assert answered_before_the_cancel < len(intents)
    here.check_all_placed(intents)
    wait_until(lambda: here.client.hlen("exec:{default}:workers") == 8, "all eight are there")
    assert here.kis.desk.gatehouse.tokens_issued == 1
    assert not any(one.ended for one in workers)
    again = [one.attempts for one in here.answers().values() if one.attempts > 1]
    assert again, "nothing was turned away: the test shows nothing"
