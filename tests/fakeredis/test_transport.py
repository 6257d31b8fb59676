"""The queue's transport, on a Redis made of Python and on a real one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import kombu
import pytest
import redis
from kombu.exceptions import ChannelError

import worker.transport.streams
from tests.conftest import AnyRedis, intent_json
from worker.bell import Bell
from worker.clock import SystemClock
from worker.transport import padded, ready, tidy, trim
from worker.transport.waiter import Waiter

GROUP = "workers"
#: Longer than any test: nothing is taken over.
NEVER = 3600.0
#: Taken over at the next look, and a look is due every 0.2 s.
SOON = 0.001


class Reader:
    """A consumer of some queues, each on a channel of its own, and what it was handed."""

    def __init__(self, any_redis: AnyRedis, *queues: str, prefetch: int = 0, **options: Any) -> None:
        options = {"min_idle": NEVER, "connect": any_redis.connect, **options}
        self.connection = kombu.Connection("redis-streams://fake/0", transport_options=options)
        if not any_redis.url.startswith("redis://fake"):
            url = any_redis.url.replace("redis://", "redis-streams://")
            self.connection = kombu.Connection(url, transport_options=options)
        self.messages: list[Any] = []
        self.channels: list[Any] = []
        self.consumers: list[Any] = []
        for queue in queues or ("q",):
            channel = self.connection.channel()
            consumer = kombu.Consumer(
                channel, [kombu.Queue(queue)], on_message=self.messages.append, prefetch_count=prefetch
            )
            consumer.consume()
            self.channels.append(channel)
            self.consumers.append(consumer)

    @property
    def channel(self) -> Any:
        return self.channels[0]

    @property
    def transport(self) -> Any:
        return self.connection.transport

    def drain(self, timeout: float = 0.0) -> list[Any]:
        """What one round brings; nothing when the time is over."""
        before = len(self.messages)
        with suppress(TimeoutError):
            self.connection.drain_events(timeout=timeout)
        return self.messages[before:]

    def drain_until(self, count: int, seconds: float = 5.0) -> list[Any]:
        """Rounds until so many more messages came."""
        before, give_up = len(self.messages), time.monotonic() + seconds
        while len(self.messages) < before + count and time.monotonic() < give_up:
            self.drain(0.05)
        return self.messages[before:]

    def look_now(self) -> None:
        """Let the next round look for what silent consumers left."""
        for channel in self.channels:
            for source in channel.sources():
                source.look_at = 0.0

    def close(self) -> None:
        self.connection.release()


@pytest.fixture
def client(any_redis: AnyRedis) -> redis.Redis:
    return any_redis.connect()


@pytest.fixture
def reader(any_redis: AnyRedis) -> Iterator[Callable[..., Reader]]:
    with ExitStack() as stack:

        def make(*queues: str, **options: Any) -> Reader:
            made = Reader(any_redis, *queues, **options)
            stack.callback(made.close)
            return made

        yield make


def bodies(messages: list[Any]) -> list[bytes]:
    return [message.body for message in messages]


def entries(messages: list[Any]) -> list[str]:
    return [message.delivery_info["entry_id"] for message in messages]


def pending(client: redis.Redis, queue: str = "q") -> list[str]:
    found = client.xpending_range(queue, GROUP, "-", "+", 1000)
    return [entry["message_id"].decode() for entry in found]


# --- taking


def test_a_bare_xadd_from_any_language_is_a_message(client: redis.Redis, reader: Any) -> None:
    client.execute_command("XADD", "q", "*", "body", '{"a": 1}')

    (message,) = reader().drain(1)

    assert message.body == b'{"a": 1}'
    assert message.content_type == "application/json"
    assert message.payload == {"a": 1}
    assert message.delivery_info["routing_key"] == "q"
    assert message.delivery_info["delivery_count"] == 1


def test_an_entry_without_a_body_is_delivered_with_its_fault(client: redis.Redis, reader: Any) -> None:
    client.xadd("q", {"data": b"\xff"})

    (message,) = reader().drain(1)

    assert message.delivery_info["fault"] == "the entry has no field 'body'"
    assert json.loads(message.body) == {"data": "\\xff"}


def test_entries_that_waited_before_the_first_consumer_are_delivered(
    client: redis.Redis, reader: Any
) -> None:
    for number in range(3):
        client.xadd("q", {"body": str(number)})

    assert bodies(reader().drain(1)) == [b"0", b"1", b"2"]


def test_a_batch_is_bounded_by_prefetch(client: redis.Redis, reader: Any) -> None:
    for number in range(5):
        client.xadd("q", {"body": str(number)})
    one = reader(prefetch=2)

    first, then = one.drain(1), one.drain()
    first[0].ack()
    after_an_ack = one.drain(1)

    assert (bodies(first), bodies(then), bodies(after_an_ack)) == ([b"0", b"1"], [], [b"2"])


def test_a_batch_is_bounded_by_its_option(client: redis.Redis, reader: Any) -> None:
    for number in range(5):
        client.xadd("q", {"body": str(number)})

    assert len(reader(batch=3).drain(1)) == 3


def test_the_channel_made_first_is_read_first_every_round(client: redis.Redis, reader: Any) -> None:
    one = reader("cancels", "intents", batch=2)
    for number in range(6):
        client.xadd("intents", {"body": f"intent {number}"})

    first = one.drain(1)
    client.xadd("cancels", {"body": "cancel"})
    second = one.drain(1)

    assert bodies(first) == [b"intent 0", b"intent 1"]
    assert bodies(second) == [b"cancel", b"intent 2", b"intent 3"]


def test_a_paused_queue_is_not_read_and_the_other_is(client: redis.Redis, reader: Any) -> None:
    one = reader("cancels", "intents")
    one.channels[1].flow(False)
    client.xadd("intents", {"body": "intent"})
    client.xadd("cancels", {"body": "cancel"})

    paused = one.drain(1) + one.drain(0.05)
    one.channels[1].flow(True)

    assert bodies(paused) == [b"cancel"]
    assert bodies(one.drain(1)) == [b"intent"]


def test_two_consumers_share_the_entries(client: redis.Redis, reader: Any) -> None:
    one, other = reader(batch=2), reader(batch=2)
    for number in range(4):
        client.xadd("q", {"body": str(number)})

    assert bodies(one.drain(1)) + bodies(other.drain(1)) == [b"0", b"1", b"2", b"3"]


def test_what_a_failing_callback_left_of_its_batch_is_delivered_next(
    client: redis.Redis, reader: Any
) -> None:
    one = reader()
    for number in range(3):
        client.xadd("q", {"body": str(number)})
    seen: list[bytes] = []

    def fail_once(message: Any) -> None:
        seen.append(message.body)
        if len(seen) == 1:
            raise LookupError("a fault of the callback")

    one.consumers[0].on_message = fail_once
    with pytest.raises(LookupError):
        one.connection.drain_events(timeout=1)
    one.connection.drain_events(timeout=1)

    assert seen == [b"0", b"1", b"2"]


def test_a_lost_script_cache_is_not_noticed(client: redis.Redis, reader: Any) -> None:
    one = reader()
    client.xadd("q", {"body": "0"})
    one.drain(1)
    client.script_flush()
    client.xadd("q", {"body": "1"})

    assert bodies(one.drain(1)) == [b"1"]


def test_a_flushed_redis_is_read_from_its_beginning(client: redis.Redis, reader: Any) -> None:
    one = reader()
    client.xadd("q", {"body": "before"})
    one.drain(1)
    client.flushall()
    client.xadd("q", {"body": "after"})

    assert bodies(one.drain(1)) == [b"after"]


def test_a_destroyed_group_is_made_again_and_misses_nothing(client: redis.Redis, reader: Any) -> None:
    one = reader()
    client.xgroup_destroy("q", GROUP)
    client.xadd("q", {"body": "0"})

    assert bodies(one.drain(1)) == [b"0"]


def test_keeping_alive_what_a_flush_took_away_does_no_harm(client: redis.Redis, reader: Any) -> None:
    one = reader(min_idle=SOON)
    client.xadd("q", {"body": "0"})
    one.drain(1)
    client.flushall()

    assert one.drain(0.3) == []


# --- waiting


def test_a_waiting_consumer_gets_an_entry_at_once(client: redis.Redis, reader: Any) -> None:
    one = reader()
    timer = threading.Timer(0.1, lambda: client.xadd("q", {"body": "0"}))
    timer.start()

    started = time.monotonic()
    found = one.drain(5)

    assert bodies(found) == [b"0"]
    assert time.monotonic() - started < 0.4  # A read blocks for 0.5 s.
    timer.join()


def test_a_blocked_read_ends_promptly_on_wake(reader: Any) -> None:
    one = reader()
    one.drain()
    late: list[float] = []

    def wake() -> None:
        late.append(-time.monotonic())
        one.transport.wake()

    timer = threading.Timer(0.1, wake)
    timer.start()
    with pytest.raises(TimeoutError):
        one.connection.drain_events(timeout=30)
    late[0] += time.monotonic()

    assert late[0] < 0.2
    timer.join()


def test_a_wake_before_the_wait_is_not_lost(reader: Any) -> None:
    one = reader()
    one.channel.wake()

    started = time.monotonic()
    one.drain(30)

    assert time.monotonic() - started < 5


def test_a_wake_between_the_last_look_and_the_wait_is_not_lost(any_redis: AnyRedis) -> None:
    bell = Bell()
    waiter = Waiter(any_redis.connect(), bell, SystemClock())
    bell.ring()

    started = time.monotonic()
    waiter.read({"q": "0-0"}, 4.0)

    assert time.monotonic() - started < 2
    waiter.close()


def test_a_freed_slot_is_seen_while_another_queue_is_waited_for(client: redis.Redis, reader: Any) -> None:
    one = reader("cancels", "intents", prefetch=1)
    for number in range(2):
        client.xadd("intents", {"body": str(number)})
    (first,) = one.drain(1)
    freed: list[float] = []

    def free() -> None:
        freed.append(time.monotonic())
        first.ack()

    timer = threading.Timer(0.1, free)
    timer.start()
    (second,) = one.drain(5)

    assert second.body == b"1"
    assert time.monotonic() - freed[0] < 0.3  # A read blocks for 0.5 s.
    timer.join()


def test_a_freed_slot_is_seen_while_waiting(
    client: redis.Redis, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.transport.streams, "_RECHECK", 30.0)
    monkeypatch.setattr(worker.transport.streams, "_BLOCK", 30.0)
    one = reader(prefetch=1)
    client.xadd("q", {"body": "0"})
    client.xadd("q", {"body": "1"})
    (first,) = one.drain(1)
    timer = threading.Timer(0.1, first.ack)
    timer.start()

    started = time.monotonic()
    assert bodies(one.drain(20)) == [b"1"]
    assert time.monotonic() - started < 5
    timer.join()


def test_a_consumer_that_cannot_take_does_not_spin(client: redis.Redis, reader: Any) -> None:
    one = reader(prefetch=1)
    client.xadd("q", {"body": "0"})
    client.xadd("q", {"body": "1"})
    one.drain(1)

    before = time.process_time()
    one.drain(0.5)

    assert time.process_time() - before < 0.25


def test_an_empty_queue_times_out_in_time(reader: Any) -> None:
    one = reader()

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        one.connection.drain_events(timeout=0.15)

    assert 0.1 < time.monotonic() - started < 0.45


# --- answering


def test_an_ack_reaches_redis_with_the_next_round(client: redis.Redis, reader: Any) -> None:
    one = reader()
    client.xadd("q", {"body": "0"})
    one.drain(1)[0].ack()
    one.drain()

    assert pending(client) == []


def test_many_acks_from_another_thread_leave_at_once(client: redis.Redis, reader: Any) -> None:
    one = reader()
    for number in range(5):
        client.xadd("q", {"body": str(number)})
    messages = one.drain(1)

    thread = threading.Thread(target=lambda: one.channel.ack_many([m.delivery_tag for m in messages[:4]]))
    thread.start()
    thread.join()

    assert pending(client) == entries(messages[4:])


def test_acks_flushed_by_hand_leave_at_once(client: redis.Redis, reader: Any) -> None:
    one = reader()
    client.xadd("q", {"body": "0"})
    one.drain(1)[0].ack()
    one.channel.flush_acks()

    assert pending(client) == []


def test_an_ack_that_did_not_arrive_is_sent_again(client: redis.Redis, reader: Any, monkeypatch: Any) -> None:
    one = reader()
    client.xadd("q", {"body": "0"})
    (message,) = one.drain(1)

    def lost(*args: object) -> None:
        raise redis.ConnectionError("lost")

    with monkeypatch.context() as patch:
        patch.setattr(one.channel.client, "xack", lost)
        with pytest.raises(redis.ConnectionError):
            one.channel.ack_many([message.delivery_tag])
    one.channel.flush_acks()

    assert pending(client) == []


def test_an_entry_cannot_be_acknowledged_twice_by_one_message(client: redis.Redis, reader: Any) -> None:
    client.xadd("q", {"body": "0"})
    (message,) = reader().drain(1)
    message.ack()

    with pytest.raises(message.MessageStateError):
        message.ack()


def test_a_rejected_entry_is_gone(client: redis.Redis, reader: Any) -> None:
    one = reader()
    client.xadd("q", {"body": "0"})
    one.drain(1)[0].reject()
    one.channel.flush_acks()

    assert pending(client) == []


def test_a_requeued_entry_comes_back_with_its_id_and_its_place(client: redis.Redis, reader: Any) -> None:
    one = reader(min_idle=NEVER)
    for number in range(3):
        client.xadd("q", {"body": str(number)})
    messages = one.drain(1)
    messages[0].requeue()
    one.look_now()

    (again,) = one.drain(1)

    assert entries([again]) == entries(messages[:1])
    assert again.delivery_info["delivery_count"] == 2
    assert pending(client) == entries(messages)


def test_a_forgotten_entry_frees_its_slot_and_comes_back_later(client: redis.Redis, reader: Any) -> None:
    one = reader(prefetch=1, min_idle=SOON)
    client.xadd("q", {"body": "0"})
    (message,) = one.drain(1)
    one.channel.forget(message.delivery_tag)

    (again,) = one.drain_until(1)

    assert entries([again]) == entries([message])
    assert again.delivery_info["delivery_count"] == 2


def test_closing_publishes_nothing_again(client: redis.Redis, reader: Any) -> None:
    one = reader()
    client.xadd("q", {"body": "0"})
    messages = one.drain(1)
    one.close()

    assert client.xlen("q") == 1
    assert pending(client) == entries(messages)


# --- dead and living consumers


def test_an_entry_of_a_dead_consumer_is_taken_over(client: redis.Redis, reader: Any) -> None:
    dead = reader(consumer="dead")
    client.xadd("q", {"body": "0"})
    held = dead.drain(1)
    time.sleep(0.005)  # Redis's own clock counts the silence.

    (message,) = reader(min_idle=SOON).drain(1)

    assert entries([message]) == entries(held)
    assert message.delivery_info["delivery_count"] == 2
    assert message.delivery_info["redelivered"] is True


def test_entries_left_behind_come_before_new_ones(client: redis.Redis, reader: Any) -> None:
    dead = reader(consumer="dead", batch=2)
    for number in range(4):
        client.xadd("q", {"body": str(number)})
    dead.drain(1)
    time.sleep(0.005)

    assert bodies(reader(min_idle=SOON).drain(1)) == [b"0", b"1", b"2", b"3"]


def test_a_long_list_left_behind_is_taken_over_in_turns(client: redis.Redis, reader: Any) -> None:
    dead = reader(consumer="dead", batch=1000)
    for number in range(30):
        client.xadd("q", {"body": str(number)})
    assert len(dead.drain(1)) == 30
    time.sleep(0.005)
    heir = reader(min_idle=0.005, batch=8, prefetch=0)

    found = []
    while len(found) < 30:
        heir.look_now()
        new = heir.drain(1)
        heir.channel.ack_many([message.delivery_tag for message in new])
        found += new

    assert bodies(found) == [str(number).encode() for number in range(30)]


def test_a_consumer_with_little_room_gets_past_living_peers_entries(client: redis.Redis, reader: Any) -> None:
    dead, alive = reader(consumer="dead", batch=50), reader(consumer="alive", batch=50)
    for number in range(51):
        client.xadd("q", {"body": str(number)})
    alive.drain(1)
    dead.drain(1)
    client.xclaim("q", GROUP, "dead", 0, pending(client)[-1:], idle=50_000, justid=True)

    found = reader(prefetch=1, min_idle=40.0).drain()  # One look.

    assert bodies(found) == [b"50"]


def test_a_live_consumer_keeps_what_it_works_on(client: redis.Redis, reader: Any) -> None:
    alive, peer = reader(consumer="alive", min_idle=0.3), reader(min_idle=0.3)
    client.xadd("q", {"body": "0"})
    alive.drain(1)

    taken = []
    for _ in range(12):
        alive.drain(0.05)
        peer.look_now()
        taken += peer.drain()

    assert taken == []
    assert alive.messages[1:] == []


def test_a_slow_callback_keeps_the_rest_of_its_batch_alive(client: redis.Redis, reader: Any) -> None:
    slow, peer = reader(consumer="slow", min_idle=0.4), reader(min_idle=0.4)
    for number in range(8):
        client.xadd("q", {"body": str(number)})
    taken: list[Any] = []

    def work(message: Any) -> None:
        slow.messages.append(message)
        time.sleep(0.1)
        peer.look_now()
        taken.extend(peer.drain())

    slow.consumers[0].on_message = work
    slow.drain(1)

    assert taken == []
    assert len(slow.messages) == 8


def test_what_a_consumer_takes_over_from_itself_is_not_delivered_twice(
    client: redis.Redis, reader: Any
) -> None:
    one = reader(min_idle=SOON)
    client.xadd("q", {"body": "0"})
    one.drain(1)
    time.sleep(0.005)
    one.look_now()

    assert one.drain(0.05) == []


def test_a_trimmed_entry_that_was_pending_is_acknowledged_away(client: redis.Redis, reader: Any) -> None:
    dead = reader(consumer="dead")
    ids = [client.xadd("q", {"body": str(number)}) for number in range(2)]
    dead.drain(1)
    client.xdel("q", ids[0])
    time.sleep(0.005)

    found = reader(min_idle=SOON).drain(1)

    assert bodies(found) == [b"1"]
    assert pending(client) == entries(found)


# --- lanes


def test_entries_of_one_symbol_are_registered_in_stream_order(client: redis.Redis, reader: Any) -> None:
    one, other = (reader(lanes={"q": "lanes"}, batch=2) for _ in range(2))
    ids = [
        client.xadd("q", {"body": intent_json(intent_id=f"i-{number}", symbol=symbol)}).decode()
        for number, symbol in enumerate(["B", "A", "B", "A"])
    ]

    other.drain(1)
    one.drain(1)

    assert client.zrange("lanes", 0, -1) == [
        f"{symbol}\0{padded(ids[number])}\0i-{number}".encode()
        for symbol, number in [("A", 1), ("A", 3), ("B", 0), ("B", 2)]
    ]


def test_ids_of_different_length_keep_their_order_in_a_lane(client: redis.Redis, reader: Any) -> None:
    ids = ["9-9", "9-10", "10-0", "10-18446744073709551615"]
    for number, entry in enumerate(ids):
        client.xadd("q", {"body": intent_json(intent_id=f"i-{number}")}, id=entry)

    reader(lanes={"q": "lanes"}).drain(1)

    assert [member.split(b"\0")[2] for member in client.zrange("lanes", 0, -1)] == [
        b"i-0",
        b"i-1",
        b"i-2",
        b"i-3",
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b'"text"',
        b"{}",
        b'{"symbol": "A", "intent_id": 1}',
        b'{"symbol": "a", "intent_id": "1"}',
        b'{"symbol": "-A", "intent_id": "1"}',
        b'{"symbol": "A\\n", "intent_id": "1"}',
        b'{"symbol": "A\\u0000B", "intent_id": "1"}',
        b'{"symbol": "A", "intent_id": "1 2"}',
        b'{"symbol": "A", "intent_id": ""}',
        b'{"symbol": "' + b"A" * 33 + b'", "intent_id": "1"}',
        b'{"symbol": "A", "intent_id": "' + b"1" * 65 + b'"}',
        b'{"symbol": "A", "intent_id": "1", "intent_type": "CANCEL"}',
        b'{"symbol": "A", "intent_id": "1", "intent_type": "NOOP"}',
        b'{"symbol": "A\xff", "intent_id": "1"}',
    ],
)
def test_what_has_no_lane_is_delivered_and_not_registered(
    client: redis.Redis, reader: Any, body: bytes
) -> None:
    client.xadd("q", {"body": body})

    found = reader(lanes={"q": "lanes"}).drain(1)

    assert bodies(found) == [body]
    assert client.zcard("lanes") == 0


@pytest.mark.parametrize("symbol", ["A", "005930", "BRK.B", "A_/.-9", "A" * 32])
def test_every_symbol_of_the_contract_has_a_lane(client: redis.Redis, reader: Any, symbol: str) -> None:
    client.xadd("q", {"body": intent_json(symbol=symbol, intent_id="._:-aZ9" + "x" * 57)})

    reader(lanes={"q": "lanes"}).drain(1)

    assert [member.split(b"\0")[0].decode() for member in client.zrange("lanes", 0, -1)] == [symbol]


def test_an_entry_taken_over_keeps_its_place_in_its_lane(client: redis.Redis, reader: Any) -> None:
    dead = reader(consumer="dead", lanes={"q": "lanes"})
    client.xadd("q", {"body": intent_json()})
    dead.drain(1)
    place = client.zrange("lanes", 0, -1)
    time.sleep(0.005)

    reader(lanes={"q": "lanes"}, min_idle=SOON).drain(1)

    assert client.zrange("lanes", 0, -1) == place


def test_full_lanes_let_nothing_new_in_and_still_take_over_the_old(client: redis.Redis, reader: Any) -> None:
    dead = reader(consumer="dead", lanes={"q": "lanes"}, batch=2)
    for number in range(3):
        client.xadd("q", {"body": intent_json(intent_id=f"i-{number}")})
    dead.drain(1)
    time.sleep(0.005)
    heir = reader(lanes={"q": "lanes"}, lanes_max=2, min_idle=0.005)

    full = heir.drain(1) + heir.drain(0.05)
    client.zpopmin("lanes")
    room = heir.drain(1)

    assert [message.payload["intent_id"] for message in full + room] == ["i-0", "i-1", "i-2"]


# --- oversized entries


def test_an_oversized_entry_is_dead_lettered_without_passing_through_a_worker(
    client: redis.Redis, reader: Any
) -> None:
    entry = client.xadd("q", {"body": b"x" * 5001}).decode()
    client.xadd("q", {"body": b"y" * 5000})

    found = reader(dead={"q": "dead"}, max_entry_bytes=5000, lanes={"q": "lanes"}).drain_until(1)

    assert bodies(found) == [b"y" * 5000]
    assert pending(client) == entries(found)
    ((_, letter),) = client.xrange("dead")
    assert letter[b"body"] == b"x" * 4096
    assert (letter[b"reason"], letter[b"entry_id"], letter[b"length"]) == (
        b"oversize",
        entry.encode(),
        b"5001",
    )
    assert b"length 5001" in letter[b"error"]
    assert (
        letter[b"digest"] in (b"", b"9bee2d7e8d5b3a9ae3a4a6a4d5a0a9b4ab0a8ba0")
        or len(letter[b"digest"]) == 40
    )


def test_an_entry_that_is_large_without_a_body_is_oversized_too(client: redis.Redis, reader: Any) -> None:
    client.xadd("q", {"data": b"x" * 5001})

    assert reader(dead={"q": "dead"}, max_entry_bytes=5000).drain(0.1) == []
    assert client.xlen("dead") == 1


def test_an_oversized_entry_left_behind_is_dead_lettered_once(client: redis.Redis, reader: Any) -> None:
    before = reader(consumer="dead")
    client.xadd("q", {"body": b"x" * 5001})
    before.drain(1)
    time.sleep(0.005)

    heir = reader(dead={"q": "dead"}, max_entry_bytes=5000, min_idle=SOON)
    assert heir.drain(0.3) == []

    assert client.xlen("dead") == 1
    assert pending(client) == []


def test_an_oversized_entry_holds_up_nobody(client: redis.Redis, reader: Any) -> None:
    client.xadd("q", {"body": b"x" * 5001})
    client.xadd("q", {"body": b"y"})
    one = reader(dead={"q": "dead"}, max_entry_bytes=5000, batch=1)

    started = time.monotonic()
    found = one.drain(5)

    assert bodies(found) == [b"y"]
    assert time.monotonic() - started < 0.15


def test_without_a_dead_letter_stream_large_entries_are_delivered(client: redis.Redis, reader: Any) -> None:
    client.xadd("q", {"body": b"x" * 100_000})

    assert len(reader().drain(1)[0].body) == 100_000


# --- upkeep


def test_nothing_pending_is_ever_trimmed(client: redis.Redis, reader: Any) -> None:
    one = reader()
    for number in range(6):
        client.xadd("q", {"body": str(number)})
    messages = one.drain(1)
    one.channel.ack_many([messages[number].delivery_tag for number in (0, 1, 3)])

    assert trim(client, "q", group="workers") == 2
    assert [fields[b"body"] for _, fields in client.xrange("q")] == [b"2", b"3", b"4", b"5"]


def test_nothing_unread_is_ever_trimmed(client: redis.Redis, reader: Any) -> None:
    one = reader(batch=2)
    for number in range(4):
        client.xadd("q", {"body": str(number)})
    one.channel.ack_many([message.delivery_tag for message in one.drain(1)])

    assert trim(client, "q", group="workers") == 1  # The one read last stays: it marks where the group is.
    assert [fields[b"body"] for _, fields in client.xrange("q")] == [b"1", b"2", b"3"]


def test_a_group_that_never_read_holds_everything(client: redis.Redis, reader: Any) -> None:
    one = reader()
    client.xadd("q", {"body": "0"})
    client.xgroup_create("q", "auditors", "0")
    one.channel.ack_many([message.delivery_tag for message in one.drain(1)])

    assert trim(client, "q", group="workers") == 0


def test_what_an_auditor_has_read_before_any_worker_came_is_kept_for_the_workers(
    client: redis.Redis, reader: Any
) -> None:
    client.xadd("q", {"body": "0"})
    client.xadd("q", {"body": "1"})
    client.xgroup_create("q", "auditors", "0")
    client.xreadgroup("auditors", "one", {"q": ">"}, noack=True)

    assert trim(client, "q", group="workers") == 0
    assert [message.body for message in reader().drain(1)] == [b"0", b"1"]


def test_a_stream_that_nobody_reads_is_not_trimmed(client: redis.Redis) -> None:
    client.xadd("q", {"body": "0"})

    assert trim(client, "q", group="workers") == 0
    assert trim(client, "nothing", group="workers") == 0


def test_consumers_that_hold_entries_are_never_forgotten(client: redis.Redis, reader: Any) -> None:
    holding = reader(consumer="holding")
    client.xadd("q", {"body": "0"})
    held = holding.drain(1)
    # A real server notes a consumer once it is given something.
    for name in ("empty", "caller"):
        client.xgroup_createconsumer("q", GROUP, name)
    time.sleep(0.005)

    assert tidy(client, "q", group=GROUP, consumer="caller", min_idle=SOON) == 1
    assert {about["name"] for about in client.xinfo_consumers("q", GROUP)} == {b"holding", b"caller"}
    assert pending(client) == entries(held)


def test_a_consumer_seen_lately_is_not_forgotten(client: redis.Redis, reader: Any) -> None:
    reader()
    client.xgroup_createconsumer("q", GROUP, "lately")

    assert tidy(client, "q", group=GROUP) == 0
    assert tidy(client, "nothing", group=GROUP) == 0


def test_the_backlog_counts_what_nobody_was_given(client: redis.Redis, reader: Any) -> None:
    for number in range(5):
        client.xadd("q", {"body": str(number)})
    before = ready(client, "q", group=GROUP)
    reader(batch=2).drain(1)

    assert (before, ready(client, "q", group=GROUP), ready(client, "nothing", group=GROUP)) == (5, 3, 0)


def test_the_backlog_is_counted_where_redis_has_lost_count(client: redis.Redis, reader: Any) -> None:
    ids = [client.xadd("q", {"body": str(number)}) for number in range(5)]
    reader(batch=1).drain(1)
    client.xdel("q", ids[3])

    assert ready(client, "q", group=GROUP) == 3


# --- what kombu's users know


def test_kombus_callbacks_get_the_decoded_body(client: redis.Redis, reader: Any) -> None:
    one = reader()
    seen: list[Any] = []
    one.consumers[0].on_message = None
    one.consumers[0].register_callback(lambda body, message: (seen.append(body), message.ack()))
    client.xadd("q", {"body": '{"a": [1, "é"]}'})
    one.drain(1)
    one.drain()

    assert seen == [{"a": [1, "é"]}]
    assert pending(client) == []


@pytest.mark.parametrize(
    ("payload", "how"),
    [
        ({"a": 1}, {}),
        ({"a": "é"}, {"compression": "gzip"}),
        ("plain text", {"serializer": "raw", "content_type": "text/plain", "content_encoding": "utf-8"}),
        (b"\0\xff", {"serializer": None, "content_type": "application/data", "content_encoding": "binary"}),
    ],
)
def test_what_a_kombu_producer_sends_a_kombu_consumer_gets(reader: Any, payload: Any, how: Any) -> None:
    one = reader()
    producer = one.connection.Producer()
    producer.publish(payload, routing_key="q", headers={"traceparent": "00-1"}, correlation_id="c", **how)

    (message,) = one.drain(1)

    message.accept = None
    assert message.payload == payload
    assert message.headers["traceparent"] == "00-1"
    assert message.properties["correlation_id"] == "c"


def test_a_kombu_producer_writes_a_plain_entry(client: redis.Redis, reader: Any) -> None:
    reader().connection.Producer().publish({"a": 1}, routing_key="q")

    ((_, fields),) = client.xrange("q")

    assert {name: json.loads(value) for name, value in fields.items()} == {b"body": {"a": 1}}


def test_a_message_that_no_queue_would_get_is_refused(reader: Any) -> None:
    producer = reader().connection.Producer(exchange=kombu.Exchange("orders", "direct"))

    with pytest.raises(ChannelError, match="no queue is bound"):
        producer.publish({}, routing_key="q")


def test_a_bound_queue_gets_what_its_exchange_is_sent(reader: Any) -> None:
    one = reader()
    queue = kombu.Queue("q", kombu.Exchange("orders", "direct"), routing_key="kis")
    one.connection.Producer().publish({}, exchange=queue.exchange, routing_key="kis", declare=[queue])

    assert len(one.drain(1)) == 1


@pytest.mark.parametrize("kind", ["topic", "fanout"])
def test_exchanges_other_than_direct_are_refused(reader: Any, kind: str) -> None:
    with pytest.raises(ChannelError, match="direct exchanges only"):
        kombu.Exchange("orders", kind)(reader().channel).declare()


def test_simple_queues_work(reader: Any) -> None:
    with reader().connection.SimpleQueue("simple") as queue:
        queue.put({"a": 1})
        queue.put({"a": 2})
        assert len(queue) == 2
        for number in (1, 2):
            message = queue.get(timeout=1)
            assert message.payload == {"a": number}
            message.ack()
        with pytest.raises(queue.Empty):
            queue.get(timeout=0.05)


def test_a_queue_is_read_message_by_message_too(client: redis.Redis, reader: Any) -> None:
    one = reader()
    for number in range(2):
        client.xadd("q", {"body": str(number)})

    queue = kombu.Queue("q")(one.channel)
    first = queue.get()
    second = queue.get(no_ack=True)
    one.channel.flush_acks()

    assert bodies([first, second]) == [b"0", b"1"]
    assert queue.get() is None
    assert pending(client) == entries([first])


def test_a_purge_drops_what_is_ready_and_leaves_what_is_in_hand(client: redis.Redis, reader: Any) -> None:
    one = reader(batch=1)
    for number in range(3):
        client.xadd("q", {"body": str(number)})
    held = one.drain(1)

    assert one.consumers[0].purge() == 2
    assert one.drain() == []
    assert pending(client) == entries(held)


def test_a_consumer_without_acks_leaves_nothing_pending(client: redis.Redis, reader: Any) -> None:
    one = reader()
    one.consumers[0].cancel()
    one.consumers[0].consume(no_ack=True)
    client.xadd("q", {"body": "0"})
    one.drain(1)
    one.drain()

    assert pending(client) == []


def test_a_cancelled_consumer_gets_nothing_more(client: redis.Redis, reader: Any) -> None:
    one = reader()
    one.consumers[0].cancel()
    client.xadd("q", {"body": "0"})

    assert one.drain(0.05) == []


def test_queues_of_one_channel_take_turns(client: redis.Redis, reader: Any) -> None:
    one = reader(batch=1)
    one.consumers[0].cancel()
    both = kombu.Consumer(
        one.channel, [kombu.Queue("a"), kombu.Queue("b")], on_message=one.messages.append, prefetch_count=1
    )
    both.consume()
    for queue in ("a", "b"):
        for number in range(2):
            client.xadd(queue, {"body": f"{queue}{number}"})

    for _ in range(4):
        one.drain(1)[0].ack()

    assert sorted(bodies(one.messages[:2])) == [b"a0", b"b0"]


def test_a_missing_queue_is_said_to_be_missing(reader: Any) -> None:
    with pytest.raises(ChannelError, match="NOT_FOUND"):
        kombu.Queue("nothing")(reader().channel).queue_declare(passive=True)


def test_a_deleted_queue_is_gone(client: redis.Redis, reader: Any) -> None:
    one = reader("other")
    queue = kombu.Queue("q", kombu.Exchange("q", "direct"), "q")(one.channel)
    queue.declare()
    queue.delete()

    assert client.exists("q") == 0


def test_recovering_makes_everything_in_hand_available_again(client: redis.Redis, reader: Any) -> None:
    one, peer = reader(), reader()
    client.xadd("q", {"body": "0"})
    one.drain(1)
    one.consumers[0].recover(requeue=True)
    peer.look_now()

    assert bodies(peer.drain(1)) == [b"0"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis-streams://u:secret@host:1/0", "redis-streams://**@host:1/0"),
        ("redis-streams://host:1/0?password=secret", "redis-streams://host:1/0"),
        ("redis-streams+unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    connection = kombu.Connection(url)

    assert connection.as_uri() == shown
    assert "secret" not in repr(connection)
