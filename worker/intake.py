"""One route's way in: reads the queues, in order, and hands every message on."""

from __future__ import annotations

import random
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

import worker.transport  # noqa: F401 (teaches kombu redis-streams://)
from worker.bell import Bell
from worker.clock import Clock, SystemClock
from worker.line import Line
from worker.transport import untyped
from worker.transport.hand import Hand
from worker.transport.options import Options
from worker.transport.source import by_queue
from worker.transport.streams import SCHEMES, redis_url

#: Seconds that one turn of the loop waits for messages, and while taking is paused.
_TURN, _PAUSED_TURN = 0.5, 0.02
#: The same on a transport whose waits nobody can end, and while an ack may come in meanwhile.
_DEAF_TURN, _ACKING_TURN = 0.2, 0.02
#: Seconds between two tries to reach a queue that is away, at first and at most.
_RETRY_FIRST, _RETRY_MAX = 0.1, 5.0
#: Seconds before a released message goes back to a queue that is not of redis-streams.
_RELEASE_AFTER = 0.5

#: What kombu's redis:// needs to notice a dead link, and to give back in time what a dead consumer held.
_KOMBU_REDIS: Mapping[str, Any] = {
    "socket_timeout": 10,
    "socket_keepalive": True,
    "health_check_interval": 15,
    "unacked_restore_throttle": 1,
}

_NEVER = threading.Event()

#: What an unreachable queue raises besides its transport's own errors.
_AWAY: tuple[type[BaseException], ...] = (KombuError, RedisError, OSError)


@dataclass(slots=True, eq=False)
class Delivery:
    """One handing-over of a message. It may repeat."""

    body: bytes
    #: The entry's id, ``ms-seq``; empty on transports other than redis-streams.
    entry: str
    queue: str
    #: How often it was handed over; 1 = the first time. Other transports know 1 and 2 only.
    count: int
    #: What is wrong with the entry, when ``body`` is not what its producer wrote.
    fault: str | None
    #: kombu's message, for the intake's own use.
    message: Any


class Intake:
    """
    Reads ``queues`` in the order given, every round, and hands each message to ``deliver``, in the thread that calls
    `turn`, or `run`, which turns until it is told to stop.

    While ``want`` says no, nothing is taken, except from the first of several queues. At most ``prefetch``
    messages of a queue are out at a time; on redis-streams also at most as many as ``hold`` says at each turn, so
    that a worker with a slow broker leaves the rest to others. ``on_state`` hears when the queue comes and goes.
    """

    def __init__(
        self,
        url: str,
        queues: Sequence[str],
        *,
        deliver: Callable[[Delivery], None],
        want: Callable[[], bool],
        prefetch: int,
        transport_options: Mapping[str, Any],
        on_state: Callable[[bool], None] | None = None,
        clock: Clock | None = None,
        hold: Callable[[], int] | None = None,
        bell: Bell | None = None,
    ) -> None:
        """``bell``, when it rings, does what `wake` does while nothing can be taken."""
        #: Whether messages can come.
        self.connected = False
        #: Why the queue is away, for people; None while it is there.
        self.error: str | None = None
        self._queues = tuple(queues)
        self._deliver = deliver
        self._want = want
        self._prefetch = prefetch
        self._hold = hold
        self._on_state = on_state
        self._clock = clock or SystemClock()
        #: When the loop last turned, on ``clock.boottime()``. A Redis that hangs may hold it up for some 10 s.
        self.beat = self._clock.boottime()
        self._fault: BaseException | None = None
        self._bell = bell or Bell()
        self._open: tuple[Any, list[Any]] | None = None
        self._tries, self._retry_at = 0, 0.0
        self._line: _Line
        if urlsplit(url).scheme.partition("+")[0] in SCHEMES:
            self._line = _Streams(url, {"bell": self._bell, **transport_options})
        else:
            self._line = _Others(url, transport_options, self._clock)
        transport = self._line.connection().get_transport_cls()
        self._away = (*_AWAY, *transport.connection_errors, *transport.channel_errors)

    @property
    def can_be_woken(self) -> bool:
        """Whether `wake` ends a wait of `turn`, so that one thread can wait for messages and for other things."""
        return isinstance(self._line, _Streams)

    def run(self, stop: threading.Event) -> None:
        """Read until ``stop`` is set. A queue that is away is waited for, however long it takes."""
        try:
            while not stop.is_set():
                self.turn(_TURN)
            with suppress(*self._away):
                self._line.turn()
        finally:
            self.hang_up()

    def turn(self, seconds: float) -> None:
        """
        Hand on what is there; if nothing is, wait for it, for at most so many seconds or until `wake`. A queue that
        is away is tried again with growing pauses; meanwhile this only waits.
        """
        self.beat = self._clock.boottime()
        try:
            if self._open is None:
                if self.beat < self._retry_at:
                    self._rest(min(seconds, self._retry_at - self.beat))
                    return
                self._open = self._connect()
                self._set_state(True)
            self._take(*self._open, seconds)
            self._tries, self.error = 0, None
        except self._away as error:
            if self._fault is not None:
                raise self._fault from None
            self.error = f"{type(error).__name__}: {error}"
            self.hang_up()
            delay = min(_RETRY_MAX, _RETRY_FIRST * 2**self._tries)
            self._tries = min(self._tries + 1, 10)
            self._retry_at = self._clock.boottime() + random.uniform(delay / 2, delay)

    def wake(self) -> None:
        """End the wait for messages now. Any thread."""
        self._line.wake()
        self._bell.ring()

    def hang_up(self) -> None:
        """Give the connection back. The thread of `turn`; a later turn connects anew."""
        opened, self._open = self._open, None
        if opened is not None:
            self._line.closed()
            with suppress(*self._away):
                opened[0].release()
        self._set_state(False)

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        """
        These are done with. Any thread. Never fails: an ack that does not arrive means that the message comes
        again, to be acknowledged again.

        On redis-streams it leaves now, one command a queue, also after `run` has ended; on other transports the
        thread of `run` sends it, and only while it runs.
        """
        self._line.ack(deliveries)

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Let these come again later; on redis-streams once nobody touched them for ``min_idle``. Any thread."""
        self._line.release(deliveries)

    def close(self) -> None:
        """Send the last acks and give back what sends them. Call it last."""
        self._line.close()

    def _connect(self) -> tuple[Any, list[Any]]:
        connection = self._line.connection()
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
            # A channel a queue, in their order: redis-streams reads its channels so.
            consumers = [self._consumer(connection.channel(), queue) for queue in self._queues]
            self._line.opened({q: c.channel for q, c in zip(self._queues, consumers, strict=True)})
            for consumer in consumers:
                consumer.consume()
        except BaseException:
            self._line.closed()
            with suppress(*self._away):
                connection.release()
            raise
        return connection, consumers

    def _consumer(self, channel: Any, queue: str) -> Any:
        return untyped.Consumer(
            channel,
            queues=[untyped.Queue(queue)],
            on_message=lambda message: self._hand_on(queue, message, message.delivery_info.get("fault")),
            on_decode_error=lambda message, error: self._hand_on(
                queue, message, f"cannot be unpacked: {error}"
            ),
            prefetch_count=self._prefetch,
        )

    def _take(self, connection: Any, consumers: list[Any], seconds: float) -> None:
        wanted = self._want()
        for consumer in consumers[1:] or consumers:
            self._line.flow(consumer, wanted)
        if self._hold is not None:
            count = min(self._prefetch, self._hold())
            for consumer in consumers:
                self._line.limit(consumer, count)
        self._line.turn()
        with suppress(TimeoutError):
            patience = self._line.patience() if wanted else _PAUSED_TURN
            connection.drain_events(timeout=min(seconds, patience))

    def _hand_on(self, queue: str, message: Any, fault: str | None) -> None:
        about, body = message.delivery_info, message.body or b""
        delivery = Delivery(
            body=body if isinstance(body, bytes) else str(body).encode("utf-8", "backslashreplace"),
            entry=about.get("entry_id", ""),
            queue=queue,
            count=about.get("delivery_count") or (2 if _comes_again(message) else 1),
            fault=fault,
            message=message,
        )
        self._line.held[delivery] = None
        try:
            self._deliver(delivery)
        except BaseException as fault_of_ours:
            # kombu's redis:// takes every KeyError for a lost connection: remember whose this one was.
            self._fault = fault_of_ours
            raise

    def _rest(self, seconds: float) -> None:
        if self.can_be_woken:
            self._bell.wait(seconds)
            self._bell.clear()
        else:
            # There the bell is for another thread.
            self._clock.wait(_NEVER, seconds)

    def _set_state(self, connected: bool) -> None:
        if connected != self.connected:
            self.connected = connected
            if self._on_state is not None:
                self._on_state(connected)


def _comes_again(message: Any) -> bool:
    # kombu's virtual transports note it in the message as it was stored, AMQP in the delivery.
    return bool(message.delivery_info.get("redelivered") or getattr(message, "_raw", {}).get("redelivered"))


class _Line(Protocol):
    """The side of the queue on which transports differ: how messages are answered for."""

    #: What was handed on and is not answered for. Each change is one dict operation.
    held: dict[Delivery, None]

    def connection(self) -> Any: ...
    def opened(self, channels: Mapping[str, Any]) -> None: ...
    def closed(self) -> None: ...
    def flow(self, consumer: Any, active: bool) -> None: ...
    def limit(self, consumer: Any, count: int) -> None: ...
    def patience(self) -> float: ...
    def turn(self) -> None: ...
    def wake(self) -> None: ...
    def ack(self, deliveries: Iterable[Delivery]) -> None: ...
    def release(self, deliveries: Iterable[Delivery]) -> None: ...
    def close(self) -> None: ...


class _Streams:
    """redis-streams: acks leave at once, on a client of their own, from whichever thread they come."""

    def __init__(self, url: str, transport_options: Mapping[str, Any]) -> None:
        options = Options.of(transport_options)
        self.held: dict[Delivery, None] = {}
        self._url = url
        # One consumer name for good: after a reconnect, what is in hand is still ours.
        self._options = {**transport_options, "consumer": options.consumer}
        self._client = options.connect(
            redis_url(self.connection()), client_name=options.client_name + "-acks"
        )
        self._line = Line(self._client)
        self._acks = Hand(self._client, options, self._line)
        self._channels: Mapping[str, Any] = {}

    def connection(self) -> Any:
        return untyped.Connection(self._url, transport_options=self._options)

    def opened(self, channels: Mapping[str, Any]) -> None:
        self._acks.flush()
        self._channels = channels
        # What is still being worked on counts for prefetch and is kept alive, over a reconnect too.
        for delivery in list(self.held):
            channels[delivery.queue].adopt([delivery.message.delivery_tag])

    def closed(self) -> None:
        self._channels = {}

    def flow(self, consumer: Any, active: bool) -> None:
        consumer.channel.flow(active)

    def limit(self, consumer: Any, count: int) -> None:
        consumer.channel.qos.prefetch_count = count

    def patience(self) -> float:
        return _TURN

    def turn(self) -> None:
        self._acks.flush()

    def wake(self) -> None:
        for channel in list(self._channels.values())[:1]:
            channel.wake()

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        # What does not arrive is kept, and leaves with the next turn.
        with suppress(RedisError):
            self._acks.ack_many(self._forget(deliveries))

    def release(self, deliveries: Iterable[Delivery]) -> None:
        self._forget(deliveries)

    def close(self) -> None:
        with suppress(RedisError):
            self._acks.flush()
            self._acks.confirm()
        self._line.close()
        self._client.close()

    def _forget(self, deliveries: Iterable[Delivery]) -> list[str]:
        tags = []
        for delivery in deliveries:
            tags.append(delivery.message.delivery_tag)
            self.held.pop(delivery, None)
        channels = self._channels
        if channels:
            for queue, ids in by_queue(tags).items():
                channels[queue].forget_many(f"{entry}@{queue}" for entry in ids)
        return tags


class _Others:
    """kombu's own transports: everything on the thread of ``run``, which is the only one they bear."""

    def __init__(self, url: str, transport_options: Mapping[str, Any], clock: Clock) -> None:
        self.held: dict[Delivery, None] = {}
        self._url = url
        scheme = urlsplit(url).scheme
        self._settings: dict[str, Any] = {"transport_options": dict(transport_options)}
        if scheme in ("redis", "rediss", "sentinel"):
            self._settings["transport_options"] = {**_KOMBU_REDIS, **transport_options}
        if scheme == "rediss" and "ssl_cert_reqs" not in url:
            # kombu's default is to trust whoever answers.
            self._settings["ssl"] = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        self._clock = clock
        self._open: list[Any] = []
        self._done: deque[Delivery] = deque()
        self._later: deque[tuple[float, Delivery]] = deque()

    def connection(self) -> Any:
        return untyped.Connection(self._url, **self._settings)

    def opened(self, channels: Mapping[str, Any]) -> None:
        self._open = list(channels.values())

    def closed(self) -> None:
        # Whatever came over this connection comes again over the next one.
        self._open = []
        self.held.clear()

    def flow(self, consumer: Any, active: bool) -> None:
        consuming = all(consumer.consuming_from(queue.name) for queue in consumer.queues)
        if active and not consuming:
            consumer.consume()
        elif consuming and not active:
            consumer.cancel()

    def limit(self, consumer: Any, count: int) -> None:
        """Nothing: there it is a command to the broker, too dear for every turn; ``prefetch`` stands."""

    def patience(self) -> float:
        return _ACKING_TURN if self.held else _DEAF_TURN

    def turn(self) -> None:
        while self._done:
            self._answer(self._done.popleft(), again=False)
        while self._later and self._later[0][0] <= self._clock.boottime():
            self._answer(self._later.popleft()[1], again=True)

    def wake(self) -> None:
        """Nothing: a turn is short, and `Intake.run` looks at its ``stop`` after each."""

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        self._done.extend(deliveries)

    def release(self, deliveries: Iterable[Delivery]) -> None:
        due = self._clock.boottime() + _RELEASE_AFTER
        self._later.extend((due, delivery) for delivery in deliveries)

    def close(self) -> None:
        """Nothing is left to close."""

    def _answer(self, delivery: Delivery, *, again: bool) -> None:
        self.held.pop(delivery, None)
        message = delivery.message
        if message.acknowledged or message.channel not in self._open:
            return
        if again:
            message.requeue()
        else:
            message.ack()
