"""Redis Cluster: routes lie on different nodes, and each finds its own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from contracts import load_response
from tests.conftest import make_intent
from tests.failover.cluster import SLOTS, Cluster
from tests.process.workers import Floor, wait_until
from worker.connection import at_home, connect
from worker.keys import RouteKeys
from worker.producer import IntentProducer

pytestmark = [pytest.mark.process, pytest.mark.real_redis]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    started = Cluster("--appendonly", "yes")
    yield started
    started.close()


def test_the_orders_of_two_routes_on_different_nodes_are_all_answered(
    cluster: Cluster, tmp_path: Path
) -> None:
    here = Floor(cluster, tmp_path, max_age=600)  # type: ignore[arg-type]  # it asks for the URL only
    routes = {"default": here.book_file, "kis_main": tmp_path / "kis.jsonl"}
    settings = {
        "EXECWORKER_ROUTES__KIS_MAIN__MODE": "paper",
        "EXECWORKER_ROUTES__KIS_MAIN__OPTIONS__BOOK": str(routes["kis_main"]),
    }
    plain = here.environ
    here.environ = lambda **route: plain(**route) | settings  # type: ignore[method-assign]
    clients = {name: home(cluster.url, name) for name in routes}
    try:
        assert len({client.connection_pool.connection_kwargs["find"]() for client in clients.values()}) == 2
        worker = here.worker()
        now = datetime.now(UTC)
        for name in routes:
            with IntentProducer(cluster.url, name) as producer:
                producer.enqueue_many(
                    make_intent(intent_id=f"{name}-{n}", symbol=f"{n % 20:06d}", created_at=now)
                    for n in range(60)
                )

        for name, client in clients.items():
            wait_until(lambda at=client, of=name: len(answers(at, of)) == 60, f"{name} is answered")
            found = answers(client, name)
            assert set(Counter(found).values()) == {1}
        told = ("--symbol", "005930", "--side", "BUY", "--quantity", "1", "--price", "71000", "--wait")
        for name in routes:
            assert here.run("submit", "--route", name, *told).returncode == 0
        assert here.run("halt", "--all", "--reason", "a drill").returncode == 0
        assert here.run("status").returncode == 0
        assert not worker.ended
    finally:
        here.close()
        for client in clients.values():
            client.close()


def test_a_slot_that_moves_to_another_node_is_found_there(cluster: Cluster) -> None:
    keys = RouteKeys("wanders")
    client = home(cluster.url, "wanders")
    client.set(keys.scanner, "here")
    slot = int(client.execute_command("CLUSTER", "KEYSLOT", keys.scanner))
    old = next(n for n, (first, last) in enumerate(SLOTS) if first <= slot <= last)
    source, target = cluster.nodes[old], cluster.nodes[old - 1]
    names = {node: cluster.say(node, "CLUSTER", "MYID").decode() for node in (source, target)}
    client.delete(keys.scanner)
    for node in (target, source, *cluster.nodes):
        cluster.say(node, "CLUSTER", "SETSLOT", slot, "NODE", names[target])

    for _ in range(50):
        try:
            client.set(keys.scanner, "there")
            break
        except redis.ConnectionError:
            time.sleep(0.1)

    assert client.connection_pool.connection_kwargs["find"]()[1] == target.port
    assert client.get(keys.scanner) == b"there"
    client.close()


def home(url: str, route: str) -> Any:
    return connect(at_home(url, RouteKeys(route).prefix), client_name="test")


def answers(client: Any, route: str) -> list[str]:
    rows = client.xrange(RouteKeys(route).responses)
    return [load_response(row[b"body"]).intent_id for _, row in rows]
