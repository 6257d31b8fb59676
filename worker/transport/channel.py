"""A kombu channel over streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kombu.exceptions import ChannelError
from redis.exceptions import RedisError, ResponseError

from worker.transport import untyped
from worker.transport.entry import StreamMessage, fields_of
from worker.transport.hand import Hand
from worker.transport.source import Source
from worker.transport.upkeep import ready, tidy, trim

if TYPE_CHECKING:
    from worker.transport.streams import Transport

#: Seconds between two flushes of acks while a batch is being handed over.
_FLUSH_EVERY = 0.1

Handler = Callable[[StreamMessage], object]

#: In place of the handler of a consumer that was cancelled meanwhile.
_GONE: tuple[None, bool] = (None, False)


class QoS(untyped.QoS):  # type: ignore[misc]
    """kombu's view of what is in hand."""

    restore_at_shutdown = False

    def __init__(self, channel: Channel, prefetch_count: int = 0) -> None:
        # Not the base class's own: that one publishes again what is in hand at exit.
        self.channel = channel
        self.prefetch_count = prefetch_count
        self._hand = channel.hand

    def can_consume(self) -> bool:
        return not self.prefetch_count or len(self._hand) < self.prefetch_count

    def can_consume_max_estimate(self) -> int:
        """How many more may be taken; the batch bounds it when prefetch does not."""
        batch: int = self.channel.options.batch
        return min(batch, self.prefetch_count - len(self._hand)) if self.prefetch_count else batch

    def append(self, message: StreamMessage, delivery_tag: str) -> None:
        self._hand.add_many([delivery_tag], self.channel.options.clock.boottime())

    def ack(self, delivery_tag: str) -> None:
        self.channel.basic_ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self.channel.basic_reject(delivery_tag, requeue=requeue)

    def restore_unacked(self) -> list[Any]:
        self.channel.basic_recover(requeue=True)
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Nothing: what is in hand is pending in Redis, and comes back by itself."""


class Channel(untyped.Channel):  # type: ignore[misc]
    """
    Consumes and publishes. It belongs to one thread, but for ``ack``, `ack_many`, `flush_acks` and `forget`.

    What is in hand stays ours for as long as `drain_events` is called, or a callback returns, more often than
    every half ``min_idle``.
    """

    QoS = QoS
    Message = StreamMessage
    do_restore = False
    supports_fanout = False
    exchange_types = {"direct": untyped.DirectExchange}  # noqa: RUF012 (kombu's own spelling)
    from_transport_options = ()

    def __init__(self, connection: Transport, **kwargs: Any) -> None:
        self.transport = connection
        self.options = connection.options
        self.client = connection.redis
        self.hand = Hand(self.client, self.options)
        self._sources: dict[str, Source] = {}
        self._handlers: dict[str, tuple[Handler, bool]] = {}
        # Taken, and not handed over because a callback raised before their turn.
        self._waiting: deque[StreamMessage] = deque()
        self._flowing = True
        self._turn = 0
        self._flush_at = 0.0
        self._touch_at = 0.0
        super().__init__(connection, **kwargs)

    # --- taking

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Handler, consumer_tag: str, **kwargs: Any
    ) -> None:
        self._tag_to_queue[consumer_tag] = queue
        self._consumers.add(consumer_tag)
        self._active_queues.append(queue)
        self._handlers[queue] = (callback, no_ack)
        self._source(queue)
        tidy(self.client, queue, group=self.options.group, consumer=self.options.consumer)

    def basic_cancel(self, consumer_tag: str) -> None:
        if consumer_tag in self._consumers:
            self._consumers.remove(consumer_tag)
            queue = self._tag_to_queue.pop(consumer_tag)
            self._active_queues.remove(queue)
            self._handlers.pop(queue, None)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> StreamMessage | None:
        self.flush_acks()
        source = self._source(queue)
        if source.asked:
            # Sent for while the queue was consumed from.
            self._accept(source.take(self, 0, self.hand), self.options.clock.boottime())
        waiting = [message for message in self._waiting if message.queue == queue]
        for message in waiting[:1] or source.take(self, 1, self.hand):
            if waiting:
                self._waiting.remove(message)
            self.hand.add_many([message.delivery_tag], self.options.clock.boottime())
            if no_ack:
                self.hand.ack(message.delivery_tag)
            return message
        return None

    def flow(self, active: bool = True) -> None:
        """Stop or go on taking. What is in hand is not touched."""
        self._flowing = active

    @property
    def can_take(self) -> bool:
        return self._flowing and bool(self._active_queues) and self.qos.can_consume()

    def sources(self) -> list[Source]:
        """The queues consumed from."""
        return [self._source(queue) for queue in self._active_queues]

    def is_due(self, now: float) -> bool:
        """Whether `deliver` may have something to do."""
        return bool(self._waiting) or self.hand.has_acks or self.due_in(now) <= 0

    def due_in(self, now: float) -> float:
        """Seconds until `deliver` has something to do of itself: to take, to look around, or to keep alive."""
        seconds = self._touch_at - now if len(self.hand) else self.options.min_idle
        if self.can_take:
            seconds = min(seconds, *(source.due_at - now for source in self.sources()))
        return max(0.0, seconds)

    def has_news(self, queue: str) -> None:
        """The queue has an entry that nobody was given yet."""
        source = self._sources.get(queue)
        if source is not None:
            source.last = None

    def deliver(self) -> int:
        """Hand over what is there now, at most one batch, and say how many that were. Sends the acks that wait."""
        self.flush_acks()
        now = self.options.clock.boottime()
        self._keep_alive(now)
        self._flush_at = now + _FLUSH_EVERY
        delivered = self._hand_over()
        queues = list(self._active_queues)
        if not queues:
            return delivered
        # Every queue is the first in its turn.
        self._turn = (self._turn + 1) % len(queues)
        for queue in queues[self._turn :] + queues[: self._turn]:
            source = self._source(queue)
            room = self._room()
            if source.asked or (room > 0 and source.due_at <= now):
                self._accept(source.take(self, room, self.hand), now)
                delivered += self._hand_over()
                if self.options.ahead and (room := self._room()) > 0:
                    source.ask(room)
        return delivered

    def _room(self) -> int:
        """How many more entries may be taken now, besides those on their way."""
        if not self._flowing:
            return 0
        room: int = self.qos.can_consume_max_estimate()
        return room - sum([one.asked for one in self._sources.values()])

    def _accept(self, messages: list[StreamMessage], now: float) -> None:
        # In hand at once: the last of a batch must not look abandoned while a callback works on the first.
        self.hand.add_many([message.delivery_tag for message in messages], now)
        self._waiting.extend(messages)

    def _hand_over(self) -> int:
        # The hot loop: per message one look at the clock and one call.
        waiting, boottime, hand = self._waiting, self.options.clock.boottime, self.hand
        delivered = 0
        while waiting:
            message = waiting.popleft()
            callback, no_ack = self._handlers.get(message.queue, _GONE)
            if callback is None:
                hand.put_back([message.delivery_tag])
                continue
            now = boottime()
            if now >= self._flush_at:
                self._flush_at = now + _FLUSH_EVERY
                self.flush_acks()
                self._keep_alive(now)
            if no_ack:
                hand.ack(message.delivery_tag)
            delivered += 1
            callback(message)
        return delivered

    def _keep_alive(self, now: float) -> None:
        if now < self._touch_at:
            return
        self._touch_at = now + self.options.min_idle / 3
        try:
            self.hand.keep_alive(now)
        except ResponseError as error:
            # The stream or its group is gone, and all that was pending with it; the next take makes it anew.
            if "NOGROUP" not in str(error) and "requires the key to exist" not in str(error):
                raise

    def _source(self, queue: str) -> Source:
        source = self._sources.get(queue)
        if source is None:
            source = self._sources[queue] = Source(self.client, queue, self.options, self.transport.line)
        return source

    # --- answering

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        self.hand.ack(delivery_tag)
        self.transport.stir()

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not requeue:
            self.basic_ack(delivery_tag)
            return
        self.hand.put_back([delivery_tag])
        self._source(delivery_tag.partition("@")[2]).look_soon()
        self.transport.stir()

    def basic_recover(self, requeue: bool = False) -> None:
        if not requeue:
            raise NotImplementedError("recover(requeue=False) is not supported")
        self._waiting.clear()
        self.hand.put_back(self.hand.tags())

    def ack_many(self, tags: Iterable[str]) -> None:
        """
        Acknowledge now, in one command a queue. Any thread.

        Raises:
            redis.RedisError: kept, and sent with the next flush; until then the entries may come again.
        """
        self.hand.ack_many(tags)
        self.transport.stir()

    def flush_acks(self) -> None:
        """
        Send the acks that wait. Any thread.

        Raises:
            redis.RedisError: kept, and sent with the next flush; until then the entries may come again.
        """
        self.hand.flush()

    def forget(self, tag: str) -> None:
        """Free the prefetch slot without an ack: the entry comes back once ``min_idle`` is over. Any thread."""
        self.forget_many([tag])

    def forget_many(self, tags: Iterable[str]) -> None:
        """The same for many."""
        for tag in tags:
            self.hand.forget(tag)
        self.transport.stir()

    def adopt(self, tags: Iterable[str]) -> None:
        """Take into hand what an earlier channel of this consumer handed over and is still being worked on."""
        now = self.options.clock.boottime() - self.options.min_idle
        self.hand.add_many(tags, now)

    def wake(self) -> None:
        """End a blocked `drain_events` of this connection, promptly. Any thread."""
        self.transport.wake()

    # --- publishing

    def prepare_message(
        self,
        body: str | bytes,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> dict[str, str | bytes]:
        return fields_of(body, content_type, content_encoding, headers, properties)

    def basic_publish(
        self, message: dict[str, str | bytes], exchange: str, routing_key: str, **kwargs: Any
    ) -> None:
        if not exchange:
            self._put(routing_key, message)
            return
        queues = self._lookup(exchange, routing_key)
        if not queues:
            # A message that goes nowhere is an order that nobody knows about.
            raise ChannelError(
                f"no queue is bound to exchange {exchange!r} with routing key {routing_key!r} on this connection: "
                "declare the queue, or publish to the default exchange with the queue's name as routing key"
            )
        for queue in queues:
            self._put(queue, message)

    def message_to_python(self, raw_message: StreamMessage) -> StreamMessage:
        return raw_message

    def _put(self, queue: str, message: dict[str, str | bytes], **kwargs: Any) -> None:
        self.client.xadd(queue, message)  # type: ignore[arg-type]

    # --- declaring

    def exchange_declare(
        self, exchange: str | None = None, type: str | None = "direct", *args: Any, **kwargs: Any
    ) -> None:
        if type not in (None, "", "direct"):
            raise ChannelError(f"exchange type {type!r}: this transport has direct exchanges only")
        super().exchange_declare(exchange, "direct", *args, **kwargs)

    def trim(self, queue: str) -> int:
        """Drop what every group has acknowledged, and say how many entries that were."""
        return trim(self.client, queue, group=self.options.group)

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        try:
            self.client.xgroup_create(queue, self.options.group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return bool(self.client.exists(queue))

    def _size(self, queue: str) -> int:
        return ready(self.client, queue, group=self.options.group)

    def _purge(self, queue: str) -> int:
        return ready(self.client, queue, group=self.options.group, skip=True)

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        self.client.delete(queue)
        self._sources.pop(queue, None)

    def close(self) -> None:
        """Send the acks that wait. What is in hand stays pending, and comes back; nothing is published again."""
        if not self.closed:
            try:
                self.flush_acks()
                self._recall()
                self.hand.put_back([message.delivery_tag for message in self._waiting])
            except RedisError:
                pass  # They come again, and are acknowledged then.
            self._waiting.clear()
        super().close()

    def _recall(self) -> None:
        """Take in what is on its way, so that it can be put back."""
        now = self.options.clock.boottime()
        for source in self._sources.values():
            if source.asked:
                self._accept(source.take(self, 0, self.hand), now)

    def _reset_cycle(self) -> None:
        """Nothing: batches are taken by `deliver`, queue by queue."""
