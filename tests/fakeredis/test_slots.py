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


def leave_one_by_one(bench: MovedBench, ledger: Ledger, count: int) -> list[float]:
    """When so many look-ups get their slots, in seconds from now."""
    started, found = bench.clock.boottime(), list[float]()
    for _ in range(count):
        while (wait := ledger.slot()) > 0:
            pass_time(bench, wait)
        found.append(round(bench.clock.boottime() - started, 3))
    return found


def test_a_backlog_leaves_at_an_even_pace_to_the_millisecond(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=3)

    # One slot may be made up for, so two leave at once. Then one each third of 1.04 s, and never four in 1.02 s.
    pace = leave_one_by_one(bench, ledger, 9)
    pass_time(bench, 30)
    after_a_rest = leave_one_by_one(bench, ledger, 4)

    assert pace == [0.0, 0.0, 0.347, 1.02, 1.041, 1.387, 2.04, 2.081, 2.427]
    assert after_a_rest == [0.0, 0.0, 0.347, 1.02]


def test_a_slot_is_free_from_its_very_moment_on_and_is_taken_then(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=1)

    assert ledger.slot() == 0
    pass_time(bench, 1.0195)
    assert ledger.slot() == 0.001
    pass_time(bench, 0.0005)
    assert ledger.slot() == 0
    assert ledger.slot() == 1.02


def test_only_an_order_after_ten_quiet_seconds_finds_workers_that_wake_up(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=1)
    ready(bench, ledger, "a", "b", "d", "e")

    waits = []
    for name, pause in (("a", 10.0), ("b", 10.001), ("d", 1.5), ("e", 0.0)):
        assert isinstance(bench.launch(ledger, name), Launched)
        waits.append(ledger.slot())
        pass_time(bench, pause)

    # What left first after a rest may arrive 60 ms late; so may what leaves within two windows of it.
    assert waits == [1.08, 1.02, 1.08, 1.08]


def test_looks_neither_wake_the_workers_nor_keep_them_awake(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=1)
    ready(bench, ledger, "a", "b")
    bench.launch(ledger, "a")
    pass_time(bench, 9)
    assert ledger.slot() == 0
    assert ledger.slot() == 1.02
    pass_time(bench, 2)

    assert isinstance(bench.launch(ledger, "b"), Launched)
    assert ledger.slot() == 1.08


def test_what_leaves_two_windows_after_a_rest_is_on_time_again(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=1)
    ready(bench, ledger, "a", "b")
    bench.launch(ledger, "a")
    pass_time(bench, 2.0)

    assert isinstance(bench.launch(ledger, "b"), Launched)
    assert ledger.slot() == 1.02


def test_a_wish_holds_for_a_fifth_of_a_second_past_the_slot_and_then_falls_to_orders(
    bench: MovedBench,
) -> None:
    ledger = bench.ledger(rate_limit=1)
    working(bench, ledger, "t")
    ready(bench, ledger, "a", "b")
    bench.launch(ledger, "a")
    claim_cancel(bench, ledger, "t")
    told = cancel_of(bench, ledger, "t")

    pass_time(bench, told.later + 0.199)
    assert isinstance(bench.launch(ledger, "b"), Later)
    pass_time(bench, 0.001)
    assert isinstance(bench.launch(ledger, "b"), Launched)


def test_a_look_that_gave_way_to_a_cancel_wishes_again_for_the_slot_behind_it(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=1)
    working(bench, ledger, "t")
    ready(bench, ledger, "a", "b")
    bench.launch(ledger, "a")
    claim_cancel(bench, ledger, "t")
    wish = cancel_of(bench, ledger, "t").later + 0.2

    pass_time(bench, wish - 0.001)
    waits = ledger.slot()
    pass_time(bench, 0.001)

    # The CANCEL's wish is over; the look's holds for one slot and a fifth of a second.
    assert waits == 1.1
    assert isinstance(bench.launch(ledger, "b"), Later)
    pass_time(bench, waits + 0.2 - 0.002)
    assert isinstance(bench.launch(ledger, "b"), Later)
    pass_time(bench, 0.001)
    assert isinstance(bench.launch(ledger, "b"), Launched)


def test_no_more_is_remembered_than_the_limit_counts(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=3)

    leave_one_by_one(bench, ledger, 7)

    assert bench.client.llen(ledger.keys.slots) == 3


def test_a_wish_that_was_granted_holds_up_nobody_any_more(bench: MovedBench) -> None:
    ledger = bench.ledger(rate_limit=10)
    ready(bench, ledger, "a")
    assert ledger.slot() == ledger.slot() == 0
    pass_time(bench, ledger.slot())
    assert ledger.slot() == 0

    pass_time(bench, 0.104)

    assert isinstance(bench.launch(ledger, "a"), Launched)
