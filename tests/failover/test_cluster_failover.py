"""A primary of a cluster dies under load: workers follow its replica, and no order is sent twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.failover.cluster import Cluster
from tests.failover.servers import DURABLE
from tests.failover.test_sentinel import Desk, orders
from tests.process.workers import wait_until

pytestmark = [pytest.mark.process, pytest.mark.real_redis]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    started = Cluster(*DURABLE, patience=2000)
    yield started
    started.close()


@pytest.mark.parametrize("confirm_replicas", [0, 1])
def test_a_fail_over_inside_a_cluster_doubles_nothing_and_the_route_goes_on(
    cluster: Cluster, tmp_path: Path, confirm_replicas: int
) -> None:
    primary = cluster.home_of("default")
    replica = cluster.replicate(primary)
    here = Desk(cluster, tmp_path, max_age=600, confirm_replicas=confirm_replicas)
    try:
        workers = here.worker(), here.worker()
        before, load = orders(60, "before"), orders(200, "load")
        here.enqueue(before)
        wait_until(lambda: len(here.answers()) == 60, "all is well")
        here.enqueue(load)
        wait_until(lambda: len(here.book()) >= 120, "orders are on their way")

        primary.kill()
        wait_until(lambda: role(cluster, replica) == "master", "the replica takes over")
        if confirm_replicas:
            # Nothing counts before somebody else has it.
            primary.start()
        # As a strategy does: what has no answer is asked for again, under the same id.
        wait_until(lambda: _asked(here, [*before, *load]), "the queue takes entries again")

        wait_until(lambda: len(here.answers()) == 260, "every order is answered", seconds=60)
        here.check()
        assert any("server_changed" in one.log for one in workers)
        here.enqueue(orders(20, "after"))
        wait_until(lambda: len(here.answers()) == 280, "the desk goes on")
        here.check()
    finally:
        here.close()


def _asked(here: Desk, wanted: list[Any]) -> bool:
    here.enqueue(wanted)
    return True


def role(cluster: Cluster, node: Any) -> str:
    return str(cluster.say(node, "INFO", "replication")["role"])
