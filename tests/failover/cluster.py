"""A Redis Cluster as processes on this machine."""

from __future__ import annotations

import shutil
from typing import Any

from tests.conftest import RedisServer, _free_port, start_redis
from tests.process.workers import wait_until
from worker.connection import connect
from worker.keys import RouteKeys

SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))


class Cluster:
    """
    Three primaries. Their patience with each other, in ms, is long, so that on a busy machine none takes another
    for dead; a test of fail-overs has less, and `replicate`.
    """

    def __init__(self, *options: str, patience: int = 20_000) -> None:
        buses = [_free_port() for _ in SLOTS]
        self._options = (*options, "--cluster-enabled", "yes", "--cluster-node-timeout", str(patience))
        self._buses: dict[RedisServer, int] = {}
        self.nodes = [self._start(bus) for bus in buses]
        for node, (first, last) in zip(self.nodes, SLOTS, strict=True):
            self.say(node, "CLUSTER", "ADDSLOTSRANGE", first, last)
        for node, bus in zip(self.nodes[1:], buses[1:], strict=True):
            self.say(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        wait_until(lambda: all(self._is_whole(node) for node in self.nodes), "the nodes know each other")

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def _start(self, bus: int) -> RedisServer:
        node = start_redis(*self._options, "--cluster-port", str(bus))
        self._buses[node] = bus
        return node

    def home_of(self, route: str) -> RedisServer:
        """The primary that holds a route's keys."""
        slot = self.say(self.nodes[0], "CLUSTER", "KEYSLOT", RouteKeys(route).state)
        return next(
            node for node, (first, last) in zip(self.nodes, SLOTS, strict=False) if first <= slot <= last
        )

    def replicate(self, primary: RedisServer) -> RedisServer:
        """A replica of one of them, up to date."""
        replica = self._start(_free_port())
        self.nodes.append(replica)
        name = self.say(primary, "CLUSTER", "MYID").decode()
        self.say(replica, "CLUSTER", "MEET", "127.0.0.1", primary.port, self._buses[primary])
        wait_until(
            lambda: name in str(self.say(replica, "CLUSTER", "NODES")), "the replica knows its primary"
        )
        self.say(replica, "CLUSTER", "REPLICATE", name)
        wait_until(
            lambda: self.say(replica, "INFO", "replication").get("master_link_status") == "up",
            "it follows it",
        )
        return replica

    def flush(self) -> None:
        for node in self.nodes:
            self.say(node, "FLUSHALL")

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
            shutil.rmtree(node.folder, ignore_errors=True)

    def say(self, node: RedisServer, *words: Any) -> Any:
        client: Any = connect(f"redis://127.0.0.1:{node.port}", client_name="test")
        with client:
            return client.execute_command(*words)

    def _is_whole(self, node: RedisServer) -> bool:
        return b"cluster_state:ok" in self.say(node, "CLUSTER", "INFO") and self._knows_three(node)

    def _knows_three(self, node: RedisServer) -> bool:
        return len(self.say(node, "CLUSTER", "SLOTS")) == 3
