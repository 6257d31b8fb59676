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
        self._waiter = Waiter(self.redis, self.options.clock)
        #: Set by whoever frees a prefetch slot, in any thread.
        self.room = self._waiter.room

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
        self.redis.close()

    def drain_events(self, connection: Transport, timeout: float | None = None) -> None:
        """
        Hand over what is there, at most a batch a queue; if nothing is, wait for it.

        Raises:
            TimeoutError: the time is over, or somebody called `wake`. Nothing was handed over.
        """
        clock, waiter = self.options.clock, self._waiter
        deadline = None if timeout is None else clock.boottime() + timeout
        while True:
            waiter.room.clear()
            if sum([channel.deliver() for channel in list(self.channels)]):
                return
            left = _BLOCK if deadline is None else deadline - clock.boottime()
            if waiter.woken or left <= 0:
                waiter.reset()
                raise TimeoutError("nothing to hand over")
            self._wait(min(left, _BLOCK))

    def wake(self) -> None:
        """End a blocked `drain_events`, or else the next one that finds nothing. Any thread."""
        self._waiter.wake()

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        if include_password:
            return uri
        parts = urlsplit(uri)
        host = parts.netloc.rpartition("@")[2]
        # The query may hold a password too.
        return f"{parts.scheme}://{mask + '@' if '@' in parts.netloc else ''}{host}{parts.path}"

    def _wait(self, seconds: float) -> None:
        after: dict[str, str] = {}
        now = self.options.clock.boottime()
        for channel in self.channels:
            sources = channel.sources()
            seconds = min(seconds, channel.touch_in(now))
            if sources and not channel.can_take:
                seconds = min(seconds, _RECHECK)
                continue
            for source in sources:
                if source.full:
                    seconds = min(seconds, _RECHECK)
                elif source.last is None:
                    return  # Something may be there already.
                else:
                    after[source.queue] = source.last
                seconds = min(seconds, max(0.001, source.look_at - now))
        if after:
            self._waiter.read(after, seconds)
        else:
            self._waiter.rest(seconds)


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
    # redis-streams://host → redis://host, rediss-streams:// → rediss://; redis-streams+unix:// came as unix://.
    return where.replace("-streams://", "://", 1)
