"""`worker doubt resolve` at a broker whose list shows no ids of ours: a word counts when the list does not gainsay it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import Outcome
from tests.conftest import RedisServer, start_redis
from tests.limits.street import KEYS, Street, orders, simulator
from tests.process.workers import wait_until
from worker.simulate.faults import Fault

pytestmark = [pytest.mark.process, pytest.mark.real_redis]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    started = start_redis("--appendonly", "yes", "--appendfsync", "always")
    yield started
    started.stop()
    shutil.rmtree(started.folder, ignore_errors=True)


def test_a_person_ends_a_doubt_with_the_number_on_the_screen_and_cannot_deny_an_order_that_is_listed(
    server: RedisServer, tmp_path: Path
) -> None:
    simulated = simulator()
    with simulated.serve() as url:
        here = Street(server, tmp_path, simulated, url, account_exclusive=False)
        try:
            here.worker()
            here.open()
            here.meets(Fault(what="lose_reply", nth=1))
            [doubted] = orders(1)
            here.enqueue([doubted])
            wait_until(lambda: here.client.zcard(KEYS.doubts) == 1, "it is in doubt")
            [number] = here.on_the_book()
            flight = here.client.hget(KEYS.intent("i-000"), "flight").decode().split(":")
            # It must show in the list by now.
            here.client.hset(KEYS.intent("i-000"), "flight", ":".join([*flight[:4], str(int(flight[3]) + 1)]))

            def decide(*words: str) -> tuple[int, str]:
                done = here.run("doubt", "resolve", "i-000", "--reason", "seen", "--actor", "kim", *words)
                return done.returncode, done.stderr

            denied = decide("--not-placed")
            mistyped = decide("--accepted", "4711")
            ended = decide("--accepted", number.rpartition("-")[2].lstrip("0"))

            assert denied[0] == mistyped[0] == 1 and ended[0] == 0
            assert number in denied[1] and "shows no order 4711" in mistyped[1]
            answer = here.answers()["i-000"]
            assert (answer.outcome, answer.broker_order_id) == (Outcome.ACCEPTED, number)
            assert here.client.hget(KEYS.intent("i-000"), "reference")
        finally:
            here.close()
