"""A server that may have forgotten a launch sends nothing until the broker's list says what left."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts import OrderScan
from tests.conftest import RedisServer, start_redis
from tests.failover.desk import Member, silent
from tests.failover.servers import DURABLE
from tests.process.workers import wait_until
from worker.connection import connect
from worker.errors import StateLost, Unavailable
from worker.ledger.control import Control
from worker.ledger.records import Barred, Gate, Granted, Later, Launched, Settled, Stale
from worker.reconciler import Reconciler

pytestmark = pytest.mark.real_redis

EVERYSEC = ("--appendonly", "yes", "--appendfsync", "everysec")


@pytest.fixture
def start() -> Iterator[Callable[..., RedisServer]]:
    started: list[RedisServer] = []

    def begin(*options: str) -> RedisServer:
        started.append(start_redis(*options))
        return started[-1]

    yield begin
    for one in started:
        one.kill()
        shutil.rmtree(one.folder, ignore_errors=True)


@pytest.fixture
def member() -> Iterator[Callable[..., Member]]:
    made: list[Member] = []

    def make(server: RedisServer, **options: Any) -> Member:
        made.append(Member(server.url, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def lose(one: Member) -> None:
    """Notice that the server was away."""
    with pytest.raises((StateLost, Unavailable)):
        one.ledger.now_ms()
    with pytest.raises((StateLost, Unavailable)):
        one.ledger.look(1, base=1, ceiling=1, escalate_after=1)


def register(one: Member) -> str:
    """Again, where the first try meets the connection that broke."""
    try:
        return one.register()
    except Unavailable:
        return one.register()


def restart(server: RedisServer, one: Member) -> str:
    """With all that it has acknowledged in its file: while the disk is busy, ``everysec`` holds that back for seconds."""
    wait_until(lambda: one.client.info("persistence")["aof_buffer_length"] == 0, "all is written")
    server.kill()
    server.start()
    lose(one)
    return register(one)


def go_back(server: RedisServer, one: Member, between: Callable[[], None]) -> str:
    """Restore a copy of the server's files that was made before ``between``."""
    wait_until(lambda: one.client.info("persistence")["aof_buffer_length"] == 0, "all is written")
    kept = server.folder.parent / f"{server.folder.name}-kept"
    shutil.copytree(server.folder / "appendonlydir", kept)
    between()
    server.kill()
    shutil.rmtree(server.folder / "appendonlydir")
    kept.rename(server.folder / "appendonlydir")
    server.start()
    lose(one)
    return register(one)


def test_a_server_that_fsyncs_always_and_is_restarted_needs_no_reconciling(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*DURABLE)
    one = member(server)
    assert one.register() == "made"
    one.claim("a"), one.launch("a"), one.claim("b")

    assert restart(server, one) == "found"

    assert one.state("a") == "in_flight"
    assert isinstance(one.launch("b"), Launched)
    assert one.settle("a") is Settled.SETTLED


def test_a_server_that_may_lose_its_last_second_is_reconciled_after_a_restart(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*EVERYSEC)
    one = member(server)
    one.register()
    one.claim("a"), one.launch("a"), one.claim("b")

    assert restart(server, one) == "changed"

    assert one.state("a") == "in_doubt" and "INTENT_IN_DOUBT" in one.events()
    assert isinstance(one.launch("b"), Later)
    assert isinstance(one.claim("c"), Granted) and isinstance(one.launch("c"), Later)
    one.broker.complete = False
    one.reconcile()
    assert isinstance(one.launch("b"), Later), "half a list proves nothing"
    one.broker.complete = True
    one.sent("a")
    one.reconcile()
    assert isinstance(one.launch("b"), Launched) and isinstance(one.launch("c"), Launched)
    assert one.settle("a") is Settled.SETTLED, "evidence still ends the doubt"


def test_what_a_restored_backup_does_not_know_to_have_left_is_in_doubt_and_never_sent_again(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*DURABLE)
    one = member(server)
    one.register()
    one.claim("a"), one.claim("b")

    def send() -> None:
        assert isinstance(one.launch("a"), Launched)
        assert one.claim("c") is not None and isinstance(one.launch("c"), Launched)
        one.sent("a"), one.sent("c")

    assert go_back(server, one, send) == "changed"

    assert [one.state(name) for name in "abc"] == ["claimed", "claimed", "none"]
    one.reconcile()
    # All of before may have left; and of what comes, what the broker's list shows.
    assert isinstance(one.launch("a"), Stale) and one.state("a") == "in_doubt"
    assert isinstance(one.launch("b"), Stale) and one.state("b") == "in_doubt"
    one.forget_the_time()
    assert isinstance(one.claim("c"), Granted), "asked for anew, it is known by its id"
    assert isinstance(one.launch("c"), Stale) and one.state("c") == "in_doubt"
    one.claim("d")
    assert one.state("d") == "claimed" and isinstance(one.launch("d"), Launched)


def test_the_list_is_read_as_far_back_as_an_intent_may_be_old(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*DURABLE)
    one = member(server)
    one.register()
    one.claim("a")
    assert go_back(server, one, lambda: one.launch("a") and None) == "changed"
    read = list[timedelta]()

    def listed(since: datetime) -> OrderScan:
        read.append(one.clock.now() - since)
        return OrderScan((), True)

    one.broker.list_orders = listed  # type: ignore[method-assign]
    one.reconciler = Reconciler(one.ledger, one.broker, silent(), one.clock, lambda: False, 3 * 86400.0)

    one.reconcile()

    assert read == [timedelta(days=4)] * 2


def test_the_answer_to_an_order_whose_launch_was_forgotten_still_counts(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*DURABLE)
    one = member(server)
    one.register()
    one.claim("a"), one.claim("b")

    def send() -> None:
        one.launch("a"), one.launch("b")

    go_back(server, one, send)

    assert one.settle("a") is Settled.SETTLED
    assert one.doubt("b") is Settled.IN_DOUBT and one.state("b") == "in_doubt"
    assert "ORPHAN_ORDER" not in one.events()


def test_orders_that_show_no_id_and_belong_to_nobody_halt_the_route(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*EVERYSEC)
    one = member(server, by_key=True)
    one.register()
    one.claim("a")
    restart(server, one)
    one.sent("a")

    one.reconcile()

    assert isinstance(one.launch("a"), Stale) and one.state("a") == "in_doubt", "it may be the one"
    assert one.events().count("HALTED") == 1


def test_where_launches_are_forgotten_an_order_is_not_explained_by_a_doubt_that_looks_like_it(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*EVERYSEC)
    one = member(server, by_key=True)
    one.forgets = True
    one.register()
    one.claim("a"), one.launch("a"), one.claim("b")
    restart(server, one)
    # Its launch is forgotten, and it looks like the one that is not.
    one.sent("b")

    one.reconcile()

    assert one.events().count("HALTED") == 1
    assert isinstance(one.launch("b"), Stale) and one.state("b") == "in_doubt"
    doubts = one.ledger.look(9, base=1, ceiling=1, escalate_after=60)
    assert [doubt.is_forgotten_time for doubt in doubts] == [True, True], "a person decides"


def test_a_wiped_server_trades_again_when_the_list_was_compared_and_a_person_resumes(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*DURABLE)
    one = member(server)
    one.register()
    old = datetime.now(UTC)
    one.claim("a"), one.launch("a")
    one.sent("a")
    one.client.flushall()
    with pytest.raises(StateLost):
        one.settle("a")
    assert register(one) == "halted"

    # The queue is full of what came before.
    one.claim("a", created=old), one.claim("b", created=old)
    assert isinstance(one.launch("a"), Later), "nothing is answered before it is known"
    one.reconcile()
    assert isinstance(one.launch("a"), Stale) and one.state("a") == "in_doubt"
    one.forget_the_time()
    one.claim("c")
    assert isinstance(one.launch("c"), Barred)
    Control(one.client, "default").resume("kim", "compared")
    assert isinstance(one.launch("c"), Launched)


def test_a_named_person_may_end_the_wait_and_what_was_before_stays_in_doubt(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*EVERYSEC)
    one = member(server)
    one.register()
    one.claim("a")
    restart(server, one)
    assert isinstance(one.launch("a"), Later)

    assert Control(one.client, "default").resume("kim", "the broker's screen shows nothing")

    assert isinstance(one.launch("a"), Stale) and one.state("a") == "in_doubt"


def test_a_replica_is_no_place_to_write_and_one_that_took_over_is_another_server(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*DURABLE, "--repl-diskless-sync-delay", "0")
    replica = start(*DURABLE, "--replicaof", f"127.0.0.1 {server.port}")
    one, other = member(server), member(replica)
    one.register()
    one.claim("a"), one.launch("a")
    # Both stand behind one address.
    one.client.hset(one.ledger.keys.state, "address", f"127.0.0.1:{replica.port}")
    assert one.client.wait(1, 4000) == 1

    with pytest.raises(Unavailable):
        other.register()
    server.kill()
    promoting: Any = connect(replica.url, client_name="test")
    promoting.replicaof("NO", "ONE")
    promoting.close()

    assert register(other) == "changed", "its files are its own, though it fsyncs always"
    assert other.state("a") == "in_doubt"


def test_a_halted_route_denies_what_is_surely_new(
    start: Callable[..., RedisServer], member: Callable[..., Member]
) -> None:
    server = start(*EVERYSEC)
    one = member(server)
    one.register()
    restart(server, one)
    Control(one.client, "default").halt("kim", "a drill")
    one.claim("a")
    assert isinstance(one.launch("a"), Later)
    one.reconcile()
    match one.launch("a"):
        case Barred(gate):
            assert gate is Gate.HALTED
        case other:
            raise AssertionError(other)
