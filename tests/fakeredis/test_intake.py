"""The thread that reads a route's queues: order, pauses, acks from anywhere, and outages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import fakeredis
import kombu
import pytest
import redis

import worker.intake
from tests.conftest import AnyRedis
from worker.clock import SystemClock
from worker.intake import Delivery, Intake
from worker.transport.hand import Hand

GROUP = "workers"


class Route:
    """An intake in its thread, and what it handed on."""

    def __init__(
        self, url: str, *queues: str, prefetch: int = 100, start: bool = True, **options: Any
    ) -> None:
        self.deliveries: list[Delivery] = []
        self.states: list[bool] = []
        self.wanted = True
        self.fault: BaseException | None = None
        self.stop = threading.Event()
        self.intake = Intake(
            url,
            queues or ("q",),
            deliver=self._deliver,
            want=lambda: self.wanted,
            prefetch=prefetch,
            transport_options=options,
            on_state=self.states.append,
        )
        self.thread = threading.Thread(target=self._run)
        if start:
            self.thread.start()

    def _deliver(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self.fault is not None:
            raise self.fault

    def _run(self) -> None:
        try:
            self.intake.run(self.stop)
        except (KeyError, OSError) as error:
            self.raised = error

    def wait(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        give_up = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up, f"not within {seconds} s; {self.intake.error}"
            time.sleep(0.005)

    def wait_for(self, count: int) -> list[Delivery]:
        self.wait(lambda: len(self.deliveries) >= count)
        return list(self.deliveries)

    def close(self) -> None:
        self.stop.set()
        self.intake.wake()
        if self.thread.ident is not None:
            self.thread.join(15)
        assert not self.thread.is_alive()
        self.intake.close()


@pytest.fixture
def client(any_redis: AnyRedis) -> redis.Redis:
    return any_redis.connect()


@pytest.fixture
def route(any_redis: AnyRedis) -> Iterator[Callable[..., Route]]:
    with ExitStack() as stack:

        def make(*queues: str, **options: Any) -> Route:
            options = {"connect": any_redis.connect, **options}
            made = Route(any_redis.url.replace("redis://", "redis-streams://"), *queues, **options)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def memory() -> Iterator[Callable[..., Route]]:
    """A route over kombu's own transport without a server."""
    with ExitStack() as stack:

        def make(*queues: str, **options: Any) -> Route:
            made = Route("memory://", *queues, polling_interval=0.005, **options)
            stack.callback(made.close)
            # kombu's memory transport loses a message that comes while another thread makes its queue.
            if options.get("start", True):
                made.wait(lambda: made.intake.connected)
            return made

        yield make


def send(url: str, queue: str, *bodies: str) -> None:
    with kombu.Connection(url) as connection:
        for body in bodies:
            connection.Producer().publish(
                body, routing_key=queue, serializer="raw", declare=[kombu.Queue(queue)], retry=False
            )


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


def pending(client: redis.Redis, queue: str = "q") -> list[str]:
    return [entry["message_id"].decode() for entry in client.xpending_range(queue, GROUP, "-", "+", 1000)]


def test_a_delivery_says_where_it_came_from(client: redis.Redis, route: Any) -> None:
    entry = client.xadd("q", {"body": b"\xff"}).decode()

    (delivery,) = route().wait_for(1)

    assert (delivery.body, delivery.entry, delivery.queue) == (b"\xff", entry, "q")
    assert (delivery.count, delivery.fault) == (1, None)


def test_an_entry_without_a_body_is_delivered_with_its_fault(client: redis.Redis, route: Any) -> None:
    client.xadd("q", {"data": "x"})

    (delivery,) = route().wait_for(1)

    assert delivery.fault == "the entry has no field 'body'"
    assert delivery.body == b'{"data": "x"}'


def test_what_cannot_be_unpacked_is_delivered_with_its_fault(client: redis.Redis, route: Any) -> None:
    client.xadd("q", {"body": "x", "compression": "application/x-gzip"})

    (delivery,) = route().wait_for(1)

    assert delivery.fault is not None
    assert delivery.fault.startswith("cannot be unpacked")


def test_an_ack_from_any_thread_arrives_at_once(client: redis.Redis, route: Any) -> None:
    one = route()
    for number in range(3):
        client.xadd("q", {"body": str(number)})
    deliveries = one.wait_for(3)

    one.intake.ack(deliveries[:2])

    assert pending(client) == [deliveries[2].entry]


def test_an_ack_after_the_end_of_the_run_arrives_too(client: redis.Redis, route: Any) -> None:
    one = route()
    client.xadd("q", {"body": "0"})
    deliveries = one.wait_for(1)
    one.stop.set()
    one.intake.wake()
    one.thread.join(10)

    one.intake.ack(deliveries)

    assert pending(client) == []


def test_at_most_prefetch_are_out_and_an_ack_makes_room(client: redis.Redis, route: Any) -> None:
    one = route(prefetch=2)
    for number in range(5):
        client.xadd("q", {"body": str(number)})
    first = one.wait_for(2)
    time.sleep(0.1)
    out = len(one.deliveries)

    one.intake.ack(first[:1])

    assert out == 2
    assert bodies(one.wait_for(3)) == [b"0", b"1", b"2"]


def test_a_released_delivery_comes_again(client: redis.Redis, route: Any) -> None:
    one = route(min_idle=0.05, prefetch=1)
    client.xadd("q", {"body": "0"})
    first = one.wait_for(1)

    one.intake.release(first)

    again = one.wait_for(2)[1]
    assert (again.entry, again.count) == (first[0].entry, 2)


def test_what_is_being_worked_on_does_not_come_again(client: redis.Redis, route: Any) -> None:
    one, peer = route(min_idle=0.5), route(min_idle=0.5)
    client.xadd("q", {"body": "0"})
    one.wait(lambda: bool(one.deliveries or peer.deliveries))
    time.sleep(1.5)

    assert len(one.deliveries + peer.deliveries) == 1


def test_a_paused_route_still_reads_its_cancels(client: redis.Redis, route: Any) -> None:
    one = route("cancels", "intents", start=False)
    one.wanted = False
    one.thread.start()
    one.wait(lambda: one.intake.connected)
    client.xadd("intents", {"body": "intent"})
    client.xadd("cancels", {"body": "cancel"})
    one.wait_for(1)
    time.sleep(0.1)
    paused = bodies(one.deliveries)

    one.wanted = True

    assert paused == [b"cancel"]
    assert bodies(one.wait_for(2)) == [b"cancel", b"intent"]


def test_a_route_with_one_queue_is_paused_altogether(client: redis.Redis, route: Any) -> None:
    one = route(start=False)
    one.wanted = False
    one.thread.start()
    client.xadd("q", {"body": "0"})
    one.wait(lambda: one.intake.connected)
    time.sleep(0.1)

    assert one.deliveries == []


def test_cancels_are_read_before_a_backlog_of_intents(client: redis.Redis, route: Any) -> None:
    for number in range(20):
        client.xadd("intents", {"body": f"{number}"})
    client.xadd("cancels", {"body": "cancel"})

    assert bodies(route("cancels", "intents", batch=5).wait_for(21))[0] == b"cancel"


def test_a_wake_ends_an_idle_run_promptly(route: Any) -> None:
    one = route()
    one.wait(lambda: one.intake.connected)
    time.sleep(0.1)

    started = time.monotonic()
    one.stop.set()
    one.intake.wake()
    one.thread.join(10)

    assert time.monotonic() - started < 0.3
    assert one.states == [True, False]


def test_the_loop_shows_that_it_is_alive(route: Any) -> None:
    one = route()
    one.wait(lambda: one.intake.connected)

    before = one.intake.beat
    one.wait(lambda: one.intake.beat > before, 2.0)

    assert SystemClock().boottime() - one.intake.beat < 2


@pytest.mark.parametrize("fault", [KeyError("ours"), OSError("ours")])
def test_a_fault_of_ours_is_no_outage_and_leaves_the_message(
    client: redis.Redis, route: Any, fault: Exception
) -> None:
    one = route(start=False)
    one.fault = fault
    client.xadd("q", {"body": "0"})
    one.thread.start()
    one.thread.join(10)

    assert one.raised is one.fault
    assert len(pending(client)) == 1


def test_a_wrong_kind_of_key_is_an_outage_that_says_why(client: redis.Redis, route: Any) -> None:
    client.set("q", "no stream")
    one = route()
    one.wait(lambda: one.intake.error is not None)
    assert "WRONGTYPE" in str(one.intake.error)

    client.delete("q")
    client.xadd("q", {"body": "0"})

    assert bodies(one.wait_for(1)) == [b"0"]


def test_an_outage_is_outlived_and_what_was_out_does_not_come_again(
    fake_server: fakeredis.FakeServer, monkeypatch: Any
) -> None:
    def connect(url: str, *, client_name: str, socket_timeout: float = 5.0) -> redis.Redis:
        return fakeredis.FakeRedis(server=fake_server, protocol=2)

    client = connect("", client_name="test")
    client.xadd("q", {"body": "0"})
    client.xadd("q", {"body": "1"})
    one = Route("redis-streams://fake/0", connect=connect, min_idle=0.3)
    deliveries = one.wait_for(2)

    fake_server.connected = False
    one.wait(lambda: not one.intake.connected)
    one.intake.ack(deliveries[:1])
    fake_server.connected = True
    one.wait(lambda: one.intake.connected)
    one.wait(lambda: pending(client) == [deliveries[1].entry])
    client.xadd("q", {"body": "2"})
    after = one.wait_for(3)
    time.sleep(0.8)
    one.close()
    client.close()

    assert bodies(after) == [b"0", b"1", b"2"]
    assert len(one.deliveries) == 3
    assert one.states == [True, False, True, False]


def test_an_ack_that_fails_is_kept_and_sent_with_a_later_turn(
    client: redis.Redis, route: Any, monkeypatch: Any
) -> None:
    one = route()
    client.xadd("q", {"body": "0"})
    deliveries = one.wait_for(1)

    def lost(hand: Hand) -> None:
        raise redis.ConnectionError("lost")

    with monkeypatch.context() as patch:
        patch.setattr(Hand, "flush", lost)
        one.intake.ack(deliveries)

    one.wait(lambda: pending(client) == [])


def test_a_queue_that_is_away_is_waited_for_and_a_stop_ends_that() -> None:
    one = Route("redis-streams://127.0.0.1:1/0")
    one.wait(lambda: one.intake.error is not None)

    started = time.monotonic()
    one.close()

    assert time.monotonic() - started < 3
    assert one.states == []


# --- kombu's own transports


def test_kombus_own_transports_work_too(memory: Any) -> None:
    one = memory("mem-q")
    send("memory://", "mem-q", "0", "1")

    deliveries = one.wait_for(2)
    one.intake.ack(deliveries)
    one.wait(lambda: not one.intake._line.held)

    assert [(d.body, d.entry, d.count) for d in deliveries] == [(b"0", "", 1), (b"1", "", 1)]


def test_elsewhere_too_at_most_prefetch_are_out(memory: Any) -> None:
    one = memory("mem-prefetch", prefetch=1)
    send("memory://", "mem-prefetch", "0", "1")
    first = one.wait_for(1)
    time.sleep(0.1)
    out = len(one.deliveries)
    one.intake.ack(first)

    assert out == 1
    assert bodies(one.wait_for(2)) == [b"0", b"1"]
    one.intake.ack(one.deliveries)


def test_elsewhere_too_a_released_delivery_comes_again(memory: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(worker.intake, "_RELEASE_AFTER", 0.05)
    one = memory("mem-release")
    send("memory://", "mem-release", "0")
    one.intake.release(one.wait_for(1))

    again = one.wait_for(2)[1]
    one.intake.ack([again])

    assert (again.body, again.count) == (b"0", 2)


def test_elsewhere_too_a_paused_route_still_reads_its_cancels(memory: Any) -> None:
    one = memory("mem-cancels", "mem-intents", start=False)
    one.wanted = False
    one.thread.start()
    one.wait(lambda: one.intake.connected)
    time.sleep(0.1)  # Its first turn has cancelled the consumer.
    send("memory://", "mem-intents", "intent")
    send("memory://", "mem-cancels", "cancel")
    one.wait_for(1)
    time.sleep(0.3)
    paused = bodies(one.deliveries)
    one.wanted = True

    assert paused == [b"cancel"]
    assert bodies(one.wait_for(2)) == [b"cancel", b"intent"]
    one.intake.ack(one.deliveries)
