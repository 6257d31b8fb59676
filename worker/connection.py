"""
The one place that builds a Redis client.

redis-py's own defaults differ by how the client was built, and some of them send a write twice: with the
reply lost, a default client left two entries for one ``XADD``. So everything that decides how often a command
leaves is pinned here, over anything the URL's query says.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, parse_url
from redis.exceptions import (
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

#: What redis-py raises when the server does not answer or takes no writes for now. Whether the command was
#: carried out is unknown: raise `worker.errors.Unavailable` and repeat only what may be repeated.
CONNECTION_ERRORS: Final[tuple[type[RedisError], ...]] = (
    redis.ConnectionError,  # includes BusyLoadingError, AuthenticationError, MaxConnectionsError
    redis.TimeoutError,
    ReadOnlyError,
    ClusterDownError,  # includes MasterDownError
    TryAgainError,
    OutOfMemoryError,
)

#: First words of replies that redis-py has no class for.
_AWAY = ("MISCONF ", "NOREPLICAS ", "BUSY ", "MASTERDOWN ", "UNBLOCKED ")
#: How Redis 6.2 wraps them when a script meets them.
_AWAY_IN_A_SCRIPT = ("-OOM ", "-READONLY ", "-MISCONF ", "-NOREPLICAS ")


class Connect(Protocol):
    """How code that needs Redis gets a client, so that a test can hand over another Redis."""

    def __call__(self, url: str, *, client_name: str, socket_timeout: float = 5.0) -> redis.Redis: ...


def connect(url: str, *, client_name: str, socket_timeout: float = 5.0) -> redis.Redis:
    """
    A client for ``redis://``, ``rediss://`` or ``unix://``, not yet connected. It never repeats a command.

    ``client_name`` shows in ``CLIENT LIST``. ``socket_timeout`` is in seconds; block for less.
    """
    options: dict[str, Any] = dict(parse_url(url)) | {  # type: ignore[no-untyped-call]
        "retry": Retry(NoBackoff(), 0),
        # RESP2: one shape of reply on every server, no HELLO, no push messages in between.
        "protocol": 2,
        "client_name": client_name.replace(" ", "_"),
        "decode_responses": False,
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": 2.0,
        "health_check_interval": 15,
    }
    if "path" not in options:
        options["socket_keepalive"] = True
    options.setdefault("max_connections", 64)
    return redis.Redis.from_pool(ConnectionPool(**options))


def is_unavailable(error: RedisError) -> bool:
    """Whether the server is away or takes no writes for now, and does not say that the command is wrong."""
    if isinstance(error, CONNECTION_ERRORS):
        return True
    if not isinstance(error, ResponseError):
        return False
    text = str(error)
    return text.startswith(_AWAY) or any(word in text for word in _AWAY_IN_A_SCRIPT)
