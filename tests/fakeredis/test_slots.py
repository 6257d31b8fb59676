"""The broker's call limit, shared by all workers of a route: cancels first, then look-ups, then orders."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from tests.crash.virtual import VirtualRedis, virtual_redis
from tests.fakeredis.test_ledger import Bench, cancel_of, claim_cancel
from worker.ledger import Ledger, LedgerRules
from worker.ledger.records import CancelGate, Entry, Granted, Later, Launched


class MovedBench(Bench):
    """A bench whose Redis lives on a clock that the test moves."""

    def __init__(self, server: VirtualRedis) -> None:
        self.clock = server.fresh()
        super().__init__(server)

    def ledger(self, worker: str = "w1", **rules: Any) -> Ledger:
        ledger = Ledger(self.client, "default", worker, LedgerRules(**rules), self.clock)
        ledger.register(broker="simulated", mode="paper", start_halted=False)
        return ledger

    def entry(self, intent_id: str, **changes: Any) -> Entry:
        return super().entry(intent_id, **{"created_at": self.clock.now(), **changes})


@pytest.fixture(scope="module")
def server() -> Iterator[VirtualRedis]:
    with virtual_redis() as found:
        yield found


@pytest.fixture
def bench(server: VirtualRedis) -> MovedBench:
    return MovedBench(server)


def pass_time(bench: MovedBench, seconds: float) -> None:
    bench.clock.advance(seconds)


def ready(bench: MovedBench, ledger: Ledger, *intent_ids: str) -> None:
    for number, intent_id in enumerate(intent_ids):
        assert isinstance(bench.claim(ledger, intent_id, symbol=f"{number:06d}"), Granted)


def working(bench: MovedBench, ledger: Ledger, intent_id: str) -> None:
    """An order at the broker, its slot long used."""
    ready(bench, ledger, intent_id)
    assert isinstance(bench.launch(ledger, intent_id), Launched)
    bench.accept(ledger, intent_id)
    pass_time(bench, 60)


def test_orders_that_find_no_slot_are_told_to_come_again_one_behind_the_other(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=1)
    ready(bench, ledger, "a", "b", "c")

    first, second, third = ledger.launch([(one, bench.tokens[one], 1) for one in "abc"])

    assert isinstance(first, Launched)
    assert isinstance(second, Later) and 0.8 < second.seconds <= 1.1
    assert isinstance(third, Later) and 1.8 < third.seconds <= 2.1


def test_workers_of_a_route_share_its_slots(bench: MovedBench) -> None:
    one, other = bench.ledger("w1", rate_limit=1), bench.ledger("w2", rate_limit=1)
    ready(bench, one, "a", "b")

    assert isinstance(bench.launch(one, "a"), Launched)
    assert other.slot() > 0.5


def test_without_a_limit_nothing_waits(bench: MovedBench) -> None:
    ledger = bench.ledger()
    ready(bench, ledger, "a", "b")

    assert isinstance(bench.launch(ledger, "a"), Launched) and isinstance(bench.launch(ledger, "b"), Launched)
    assert ledger.slot() == 0
    assert not bench.client.exists(ledger.keys.slots)


def test_a_cancel_goes_before_orders_that_wait_for_a_slot(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=1)
    working(bench, ledger, "t")
    ready(bench, ledger, "a", "b")
    assert isinstance(bench.launch(ledger, "a"), Launched)
    assert isinstance(bench.launch(ledger, "b"), Later)
    claim_cancel(bench, ledger, "t")

    told = cancel_of(bench, ledger, "t")
    pass_time(bench, told.later + 0.05)

    assert told.gate is CancelGate.LATER and 0 < told.later <= 1.1
    assert isinstance(bench.launch(ledger, "b"), Later)
    assert cancel_of(bench, ledger, "t").gate is CancelGate.LAUNCHED


def test_a_look_up_goes_before_orders_and_behind_cancels(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=1)
    working(bench, ledger, "t")
    ready(bench, ledger, "a", "b")
    bench.launch(ledger, "a")
    claim_cancel(bench, ledger, "t")
    assert ledger.slot() > 0
    cancel_of(bench, ledger, "t")

    pass_time(bench, 1.1)
    assert ledger.slot() > 0
    assert isinstance(bench.launch(ledger, "b"), Later)
    assert cancel_of(bench, ledger, "t").gate is CancelGate.LAUNCHED
    pass_time(bench, 1.1)
    assert isinstance(bench.launch(ledger, "b"), Later)
    assert ledger.slot() == 0


def test_what_a_dead_worker_wished_for_falls_to_orders(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=1)
    ready(bench, ledger, "a", "b")
    bench.launch(ledger, "a")
    assert ledger.slot() > 0

    pass_time(bench, 1.3)

    assert isinstance(bench.launch(ledger, "b"), Launched)


def test_a_backlog_uses_the_limit_and_never_breaks_it(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=18)
    started, taken = bench.clock.boottime(), 0
    window = deque[float]()
    while (now := bench.clock.boottime() - started) < 20:
        wait = ledger.slot()
        if wait == 0:
            taken += 1
            window.append(now)
            while window[0] <= now - 1:
                window.popleft()
            assert len(window) <= 18
        # Whoever waits comes some milliseconds late, each time.
        pass_time(bench, wait + 0.004)

    assert taken >= 0.95 * 18 * 20


def test_what_a_stall_has_pushed_together_levels_out_so_that_no_cancel_meets_the_same_gap_again(
    bench: MovedBench,
) -> None:
    ledger = bench.ledger(rate_limit=18)
    # A stall of two slots, one of which was made up for.
    gaps: list[float] = []
    for number in range(18 * 8):
        waited = 0.0
        while (wait := ledger.slot()) > 0:
            pass_time(bench, wait)
            waited += wait
        gaps.append(waited * 18)
        if number == 20:
            pass_time(bench, 2 / 18)

    assert max(gaps[21:60]) > 1.4
    assert max(gaps[-18:]) < 1.3


def test_after_a_rest_the_first_calls_may_take_longer_and_the_limit_holds_all_the_same(
    bench: MovedBench,
) -> None:
    ledger = bench.ledger(rate_limit=18)
    working(bench, ledger, "t")
    ready(bench, ledger, "a")
    started = bench.clock.boottime()
    assert isinstance(bench.launch(ledger, "a"), Launched)

    for _ in range(18):
        while (wait := ledger.slot()) > 0:
            pass_time(bench, wait)

    # The order may have been 80 ms under way when the eighteenth call behind it arrives at once.
    assert round(bench.clock.boottime() - started, 3) >= 1.08
