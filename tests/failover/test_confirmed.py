"""Where confirmations are wanted, a launch counts once replicas or disks have it; until then nothing is sent on it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.conftest import RedisServer, start_redis
from tests.failover.desk import Member
from tests.failover.servers import DURABLE
from tests.process.workers import wait_until
from worker.connection import connect
from worker.durability import Confirmation, weaknesses
from worker.errors import Unavailable
from worker.ledger.control import Control
from worker.ledger.records import Granted, Launched, Settled

pytestmark = pytest.mark.real_redis

ONE_REPLICA = Confirmation(replicas=1, timeout=1)


@pytest.fixture
def start() -> Iterator[Callable[..., RedisServer]]:
    started: list[RedisServer] = []

    def begin(*options: str) -> RedisServer:
        started.append(start_redis("--repl-diskless-sync-delay", "0", *options))
        return started[-1]

    yield begin
    for one in started:
        one.kill()
        shutil.rmtree(one.folder, ignore_errors=True)


@pytest.fixture
def member() -> Iterator[Callable[..., Member]]:
    made: list[Member] = []

    def make(server: RedisServer, confirmation: Confirmation) -> Member:
        made.append(Member(server.url, confirmation))
        made[-1].register()
        return made[-1]

    yield make
    for one in made:
        one.close()


def follow(server: RedisServer, start: Callable[..., RedisServer]) -> RedisServer:
    """Give it a replica, and wait until it follows."""
    replica = start("--replicaof", f"127.0.0.1 {server.port}")
    client: Any = connect(server.url, client_name="test")
    wait_until(lambda: client.wait(1, 1000) == 1, "the replica follows")
    client.close()
    return replica


def again(call: Callable[[], Any]) -> Any:
    """What an engine does: the same call until it counts. A busy machine may need several."""
    found: list[Any] = []

    def counts() -> bool:
        with suppress(Unavailable):
            found.append(call())
        return bool(found)

    wait_until(counts, "it is confirmed")
    return found[-1]


def commands(one: Member) -> dict[str, int]:
    stats: dict[str, Any] = one.client.info("commandstats")
    return {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}


def test_a_launch_that_no_replica_has_is_not_sent_and_the_same_call_launches_it_once_one_has(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*DURABLE)
    one = member(server, ONE_REPLICA)

    with pytest.raises(Unavailable, match="confirmed by 0 of 1 replicas"):
        one.claim("a")
    with pytest.raises(Unavailable):
        one.launch("a")
    assert one.state("a") == "in_flight", "noted, and nothing left"

    follow(server, start)
    assert isinstance(again(lambda: one.launch("a")), Launched)


def test_an_answer_whose_first_confirmation_failed_is_confirmed_by_the_same_call_again(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*DURABLE)
    replica = follow(server, start)
    one = member(server, ONE_REPLICA)
    again(lambda: one.claim("a"))
    assert isinstance(again(lambda: one.launch("a")), Launched)
    # It stays connected, and takes nothing.
    os.kill(replica.pid, signal.SIGSTOP)
    end = one.end("a")
    with pytest.raises(Unavailable):
        one.settle("a", end)

    # The call writes nothing this time, and on another connection: it is waited for all the same.
    one.line.close()
    with pytest.raises(Unavailable):
        one.settle("a", end)
    os.kill(replica.pid, signal.SIGCONT)
    assert again(lambda: one.settle("a", end)) is Settled.ALREADY
    assert len(one.answers()) == 1


def test_a_halt_that_no_replica_has_is_not_reported_as_done(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*DURABLE)
    one = member(server, ONE_REPLICA)
    control = Control(one.client, "default", ONE_REPLICA)

    with pytest.raises(Unavailable):
        control.halt("kim", "a drill")
    follow(server, start)

    assert again(lambda: control.halt("kim", "a drill")) is False, "it was noted; now it is confirmed"


def test_a_batch_and_all_that_is_under_way_with_it_share_one_confirmation(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*DURABLE)
    follow(server, start)
    one = member(server, Confirmation(replicas=1, timeout=4))
    again(lambda: one.claim("a")), again(lambda: one.launch("a"))
    before = commands(one)["wait"]

    settled = one.ledger.ask_settle([one.end("a")], 0)
    claimed = one.ledger.ask_claim([one.entry("b")], 0)

    assert settled.get()[0] == [Settled.SETTLED] and isinstance(claimed.get()[0], Granted)
    assert commands(one)["wait"] == before + 1


def test_a_route_that_wants_no_confirmation_waits_for_none(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    one = member(start(*DURABLE), Confirmation())

    one.claim("a"), one.launch("a"), one.settle("a")

    assert not {"wait", "waitaof"} & set(commands(one))


def test_a_live_route_refuses_a_server_whose_replica_may_take_over_without_the_last_launches(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*DURABLE, "--maxmemory-policy", "noeviction")
    one = member(server, Confirmation())
    assert weaknesses(one.client) == []

    follow(server, start)

    assert "EXECWORKER_CONFIRM_REPLICAS" in weaknesses(one.client)[0]
    assert weaknesses(one.client, ONE_REPLICA) == []


@pytest.fixture
def new_enough(start: Callable[..., RedisServer]) -> RedisServer:
    server = start("--appendonly", "yes", "--appendfsync", "everysec")
    client: Any = connect(server.url, client_name="test")
    version = tuple(int(part) for part in client.info("server")["redis_version"].split(".")[:2])
    client.close()
    if version < (7, 2):
        pytest.skip("WAITAOF needs Redis 7.2; see EXECWORKER_TEST_REDIS_SERVER")
    return server


def test_a_launch_is_on_the_disk_before_it_counts_without_an_fsync_for_everything(
    new_enough: RedisServer, member: Callable[..., Member]
) -> None:
    disk = Confirmation(fsync=True, timeout=3)
    one = member(new_enough, disk)

    assert isinstance(one.claim("a"), Granted) and isinstance(one.launch("a"), Launched)

    assert commands(one)["waitaof"] >= 2
    assert weaknesses(one.client, disk) == [] and weaknesses(one.client)


def test_a_disk_that_no_longer_keeps_up_stops_the_launches(
    new_enough: RedisServer, member: Callable[..., Member]
) -> None:
    one = member(new_enough, Confirmation(fsync=True, timeout=0.2))
    one.client.config_set("appendfsync", "no")

    with pytest.raises(Unavailable, match="not on this server's disk"):
        one.claim("a")
