"""Workers of two settings on one live route, as real processes: refused side by side, and rolled through a window."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import Code
from tests.conftest import RedisServer, start_redis
from tests.limits.street import Street, orders, simulator
from tests.process.workers import wait_until

pytestmark = [pytest.mark.process, pytest.mark.real_redis]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    started = start_redis("--appendonly", "yes", "--appendfsync", "always")
    yield started
    started.stop()
    shutil.rmtree(started.folder, ignore_errors=True)


def test_a_rollout_under_load_loses_and_doubles_nothing_and_without_a_window_nothing_is_sent(
    server: RedisServer, tmp_path: Path
) -> None:
    simulated = simulator()
    with simulated.serve() as url:
        here = Street(server, tmp_path, simulated, url, rate_limit=50)
        try:
            old = [here.worker(), here.worker()]
            here.open()
            new = here.worker(concurrency=5)
            wait_until(lambda: "workers differ" in here.run("status").stdout, "they differ")
            refused = orders(4, "refused")
            here.enqueue(refused)
            here.answered(refused)
            assert {here.answers()[one.intent_id].code for one in refused} == {Code.ROLLOUT}
            assert here.on_the_book() == {}

            assert here.run("rollout", "open", "--reason", "a release").returncode == 0
            asked = orders(60, "rolled")
            for start in range(0, 60, 20):
                here.enqueue(asked[start : start + 20])
                if old:
                    old.pop().send(signal.SIGTERM)
                    here.worker(concurrency=5)
            here.answered(asked)
            assert here.run("rollout", "close", "--reason", "it is out").returncode == 0
            wait_until(lambda: "workers differ" not in here.run("status").stdout, "they agree again", 60)
            last = orders(64, "last")[60:]
            here.enqueue(last)
            here.answered(last)

            assert here.check_truth([*refused, *asked, *last]) == refused
            assert not new.ended
        finally:
            here.close()
