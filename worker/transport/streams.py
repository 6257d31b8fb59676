"""
kombu over Redis Streams: atomic takes, redelivery in seconds, plain entries from any language.

A queue is a stream and its name is the key. Entries that nobody acknowledges stay pending in Redis and are taken
over once their consumer is silent for ``min_idle``; nothing is ever published a second time.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import redis
from kombu import exceptions
from redis.exceptions import ResponseError

from worker.connection import CONNECTION_ERRORS
from worker.line import Line
from worker.transport import untyped
from worker.transport.channel import Channel
from worker.transport.options import Options
from worker.transport.waiter import Waiter

#: Seconds that one read blocks at most: acks made meanwhile by other threads wait as long.
_BLOCK = 0.5
#: Seconds between two looks at a channel that cannot take just now.
_RECHECK = 0.02


#: The schemes of URLs that are ours.
SCHEMES = ("redis-streams", "rediss-streams")


class Transport(untyped.Transport):  # type: ignore[misc]
    """
    One connection. Its channels are read in the order in which they were made, every round: what must not wait
    behind a backlog gets a channel of its own, first.
    """

    Channel = Channel
    can_parse_url = True
    default_port = 6379
    driver_type = "redis"
    driver_name = "redis"
    polling_interval = None
    connection_errors = (*CONNECTION_ERRORS, exceptions.ConnectionError)
    channel_errors = (exceptions.ChannelError, ResponseError)
    implements = untyped.Transport.implements.extend(
        asynchronous=False, exchange_type=frozenset(["direct"]), heartbeats=False
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.options = Options.of(client.transport_options)
        self.redis = self.options.connect(redis_url(client), client_name=self.options.client_name)
        self._waiter = Waiter(self.redis, self.options.bell, self.options.clock)
        #: For takes that are sent ahead.
        self.line = Line(self.redis)
        self._is_woken = False

    def driver_version(self) -> str:
        return redis.__version__

    def establish_connection(self) -> Transport:
        self.redis.ping()
        super().establish_connection()
        return self

    def close_connection(self, connection: Transport) -> None:
        # Not the base class's: it closes the channels last made first, and has a cycle that we do not use.
        for channel in [*self._avail_channels, *self.channels]:
            channel.close()
        self._avail_channels.clear()
        self.channels.clear()
        self._waiter.close()
        self.line.close()
        self.redis.close()

    def drain_events(self, connection: Transport, timeout: float | None = None) -> None:
        """
        Hand over what is there, at most a batch a queue; if nothing is, wait for it.

        Raises:
            TimeoutError: the time is over, or somebody called `wake`. Nothing was handed over.
        """
        boottime, bell = self.options.clock.boottime, self._waiter.bell
        deadline = None if timeout is None else boottime() + timeout
        # Whatever else there is to do: the first channel is not to wait behind it.
        self._wait(0.0)
        while True:
            bell.clear()
            if self._is_due() and sum([channel.deliver() for channel in list(self.channels)]):
                # What comes from now on is known of at the next call.
                self._waiter.arm(self._awaited())
                return
            left = _BLOCK if deadline is None else deadline - boottime()
            if self._is_woken:
                left = 0.0
            if left > 0:
                self._wait(min(left, _BLOCK))
            elif not self._is_due():
                self._is_woken = False
                raise TimeoutError("nothing to hand over")

    def wake(self) -> None:
        """End a blocked `drain_events`, or else the next one that finds nothing. Any thread."""
        self._is_woken = True
        self._waiter.bell.ring()

    def stir(self) -> None:
        """A prefetch slot may have become free. Any thread."""
        self._waiter.stir()

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        if include_password:
            return uri
        parts = urlsplit(uri)
        host = parts.netloc.rpartition("@")[2]
        # The query may hold a password too.
        return f"{parts.scheme}://{mask + '@' if '@' in parts.netloc else ''}{host}{parts.path}"

    def _is_due(self) -> bool:
        now = self.options.clock.boottime()
        return any(channel.is_due(now) for channel in self.channels)

    def _awaited(self) -> dict[str, str]:
        """The queues in which nothing was left, with the ids to wait after."""
        able = [channel for channel in self.channels if channel.can_take]
        return {one.queue: one.last for channel in able for one in channel.sources() if one.last}

    def _wait(self, seconds: float) -> None:
        """Wait until there may be something to hand over, or to keep alive."""
        now = self.options.clock.boottime()
        for channel in self.channels:
            seconds = min(seconds, channel.due_in(now))
            if not channel.can_take and channel.sources():
                seconds = min(seconds, _RECHECK)
        after = self._awaited()
        if not after:
            self._waiter.rest(seconds)
            return
        for queue in self._waiter.read(after, seconds):
            for channel in self.channels:
                channel.has_news(queue)


def redis_url(client: Any) -> str:
    """The URL, as redis-py takes it, of a kombu connection."""
    where = client.hostname or "localhost"
    if "://" not in where:
        # kombu took the URL apart (a failover list), or there was none.
        login = f":{client.password}@" if client.password else ""
        login = f"{client.userid or ''}{login}" if login else ""
        secure = str(client.transport_cls).startswith("rediss")
        path = (client.virtual_host or "/").strip("/") or "0"
        return f"{'rediss' if secure else 'redis'}://{login}{where}:{client.port or 6379}/{path}"
    # redis-streams://host → redis://host, rediss-streams:// → rediss://; redis-streams+unix:// came as unix://, and
    # redis-streams+sentinel:// as sentinel://, and so with cluster.
    if where.startswith(("sentinel://", "cluster://")):
        return f"{str(client.transport_cls).removesuffix('-streams')}+{where}"
    return where.replace("-streams://", "://", 1)
