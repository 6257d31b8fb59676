"""What only a real server, a real network and real processes show about the queue."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import kombu
import pytest
import redis

from tests.conftest import RedisServer, intent_json, start_redis
from worker.connection import connect, is_unavailable
from worker.intake import Delivery, Intake

pytestmark = pytest.mark.real_redis

GROUP = "workers"


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    client = connect(redis_server.url, client_name="test")
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that the test may kill; it keeps what it acknowledged."""
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.kill()
    shutil.rmtree(server.folder, ignore_errors=True)


def queue_url(server: RedisServer) -> str:
    return server.url.replace("redis://", "redis-streams://")


class ReplyCutter:
    """A TCP proxy that passes everything on, until it is told to cut the next reply that holds ``word``."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut_command = b""
        self._open: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open += [near, far]
            cut = threading.Event()
            for pump in (self._requests, self._replies):
                thread = threading.Thread(target=pump, args=(near, far, cut))
                self._threads.append(thread)
                thread.start()

    def _requests(self, near: socket.socket, far: socket.socket, cut: threading.Event) -> None:
        try:
            while data := near.recv(65536):
                if self.cut_command and self.cut_command in data:
                    self.cut_command = b""
                    cut.set()
                far.sendall(data)
        except OSError:
            pass

    def _replies(self, near: socket.socket, far: socket.socket, cut: threading.Event) -> None:
        try:
            while data := far.recv(65536):
                if cut.is_set():
                    near.shutdown(socket.SHUT_RDWR)
                    return
                near.sendall(data)
        except OSError:
            pass


@pytest.fixture
def cutter(redis_server: RedisServer) -> Iterator[ReplyCutter]:
    cutter = ReplyCutter(redis_server.port)
    yield cutter
    cutter.close()


def test_a_write_whose_reply_is_lost_is_made_once(client: redis.Redis, cutter: ReplyCutter) -> None:
    through = connect(f"redis://127.0.0.1:{cutter.port}/0", client_name="cut")
    through.ping()
    cutter.cut_command = b"XADD"

    with pytest.raises(redis.RedisError) as caught:
        through.xadd("once", {"body": "{}"})

    assert is_unavailable(caught.value)
    assert client.xlen("once") == 1
    through.close()


def test_a_take_whose_reply_is_lost_loses_no_entry(client: redis.Redis, cutter: ReplyCutter) -> None:
    messages: list[Any] = []
    client.xadd("q", {"body": "0"})
    options = {"consumer": "one", "min_idle": 0.3}

    def read(url: str) -> None:
        with kombu.Connection(url, transport_options=options) as connection:
            consumer = connection.Consumer(kombu.Queue("q"), on_message=messages.append)
            consumer.consume()
            cutter.cut_command = b"XREADGROUP" if not cutter.cut_command else b""
            while not messages:
                connection.drain_events(timeout=5)

    client.script_flush()  # So that the script's text is sent, and the proxy knows it.
    with pytest.raises(redis.ConnectionError):
        read(f"redis-streams://127.0.0.1:{cutter.port}/0")
    assert client.xpending("q", GROUP)["pending"] == 1
    read(f"redis-streams://127.0.0.1:{cutter.port}/0")

    assert [message.body for message in messages] == [b"0"]
    assert messages[0].delivery_info["delivery_count"] == 2


def test_no_entry_is_taken_that_could_not_be_registered(own_server: RedisServer) -> None:
    client = connect(own_server.url, client_name="test")
    client.xadd("q", {"body": intent_json()})
    options = {"lanes": {"q": "lanes"}, "min_idle": 3600.0}
    with kombu.Connection(queue_url(own_server), transport_options=options) as connection:
        messages: list[Any] = []
        consumer = connection.Consumer(kombu.Queue("q"), on_message=messages.append)
        consumer.consume()
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "100kb")
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            connection.drain_events(timeout=1)
        taken = client.xpending("q", GROUP)["pending"]
        client.config_set("maxmemory", "0")
        connection.drain_events(timeout=1)

    assert taken == 0
    assert len(messages) == 1
    assert client.zcard("lanes") == 1
    client.close()


def test_a_wake_is_prompt_every_time(redis_server: RedisServer, client: redis.Redis) -> None:
    late = []
    with kombu.Connection(queue_url(redis_server)) as connection:
        consumer = connection.Consumer(kombu.Queue("q"), on_message=lambda message: None)
        consumer.consume()
        for _ in range(20):
            woken: list[float] = []

            def wake(woken: list[float] = woken) -> None:
                time.sleep(0.02)
                woken.append(time.monotonic())
                connection.transport.wake()

            thread = threading.Thread(target=wake)
            thread.start()
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=20)
            late.append(time.monotonic() - woken[0])
            thread.join()

    assert sorted(late)[10] < 0.02
    assert max(late) < 0.2


def test_a_health_check_does_not_disturb_a_blocked_read(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    def checking(url: str, *, client_name: str, socket_timeout: float = 5.0) -> redis.Redis:
        made = connect(url, client_name=client_name, socket_timeout=socket_timeout)
        made.connection_pool.connection_kwargs["health_check_interval"] = 0.1
        return made

    messages: list[Any] = []
    with kombu.Connection(queue_url(redis_server), transport_options={"connect": checking}) as connection:
        consumer = connection.Consumer(kombu.Queue("q"), on_message=messages.append)
        consumer.consume()
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=1.3)
        client.xadd("q", {"body": "0"})
        connection.drain_events(timeout=5)

    assert [message.body for message in messages] == [b"0"]


def test_an_intake_outlives_a_killed_redis(own_server: RedisServer) -> None:
    client = connect(own_server.url, client_name="test")
    seen: list[Delivery] = []
    stop = threading.Event()
    intake = Intake(
        queue_url(own_server),
        ["q"],
        deliver=seen.append,
        want=lambda: True,
        prefetch=10,
        transport_options={"min_idle": 0.5},
    )
    thread = threading.Thread(target=intake.run, args=(stop,))
    thread.start()
    client.xadd("q", {"body": "before"})
    _wait(lambda: len(seen) == 1)

    own_server.kill()
    _wait(lambda: not intake.connected)
    intake.ack(seen)
    own_server.start()
    client.close()
    client.xadd("q", {"body": "after"})
    _wait(lambda: len(seen) >= 2)
    intake.ack(seen)
    _wait(lambda: client.xpending("q", GROUP)["pending"] == 0)
    stop.set()
    intake.wake()
    thread.join(10)
    intake.close()
    client.close()

    assert [delivery.body for delivery in seen] == [b"before", b"after"]


def test_kombus_own_redis_transport_can_be_read(redis_server: RedisServer, client: redis.Redis) -> None:
    seen: list[Delivery] = []
    stop = threading.Event()
    intake = Intake(
        redis_server.url,
        ["plain"],
        deliver=seen.append,
        want=lambda: True,
        prefetch=10,
        transport_options={"visibility_timeout": 60},
    )
    thread = threading.Thread(target=intake.run, args=(stop,))
    thread.start()
    _wait(lambda: intake.connected)
    with kombu.Connection(redis_server.url) as connection:
        connection.Producer().publish({"a": 1}, routing_key="plain", declare=[kombu.Queue("plain")])
    _wait(lambda: len(seen) == 1)
    intake.ack(seen)
    _wait(lambda: client.hlen("unacked") == 0)
    stop.set()
    intake.wake()
    thread.join(10)
    intake.close()

    assert [(delivery.body, delivery.entry) for delivery in seen] == [(b'{"a": 1}', "")]


CONSUMER = """
import sys, time
import kombu, worker.transport
url, name = sys.argv[1:]
with kombu.Connection(url, transport_options={"consumer": name, "min_idle": 1.0, "batch": 16}) as connection:
    client = connection.transport.redis
    def work(message):
        time.sleep(0.001)
        client.sadd("done", message.body)
        message.ack()
    consumer = connection.Consumer(kombu.Queue("q"), on_message=work, prefetch_count=64)
    consumer.consume()
    print("ready", flush=True)
    while True:
        try:
            connection.drain_events(timeout=1)
        except TimeoutError:
            pass
"""


@pytest.mark.process
def test_nothing_is_lost_when_a_consumer_is_killed(redis_server: RedisServer, client: redis.Redis) -> None:
    count = 1500
    victim, heir = (_consumer(redis_server, name) for name in ("victim", "heir"))
    pipeline = client.pipeline(transaction=False)
    for number in range(count):
        pipeline.xadd("q", {"body": str(number)})
    pipeline.execute()

    _wait(lambda: client.scard("done") > count / 5)

    def frozen_with_entries_in_hand() -> bool:
        os.kill(victim.pid, signal.SIGSTOP)
        if client.xpending_range("q", GROUP, "-", "+", 1, consumername="victim"):
            return True
        os.kill(victim.pid, signal.SIGCONT)
        return False

    _wait(frozen_with_entries_in_hand)
    os.kill(victim.pid, signal.SIGKILL)
    _wait(lambda: client.scard("done") == count, 30)
    _wait(lambda: client.xpending("q", GROUP)["pending"] == 0)
    heir.kill()
    for process in (victim, heir):
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()

    assert {int(body) for body in client.smembers("done")} == set(range(count))


def _consumer(server: RedisServer, name: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", CONSUMER, queue_url(server), name], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_importing_the_transport_needs_no_pydantic() -> None:
    code = "import sys, worker.transport.streams; sys.exit('pydantic' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _wait(condition: Any, seconds: float = 15.0) -> None:
    give_up = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except redis.ConnectionError:
            pass
        assert time.monotonic() < give_up
        time.sleep(0.01)
