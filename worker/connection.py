"""
The one place that builds a Redis client.

redis-py's own defaults differ by how the client was built, and some of them send a write twice: with the
reply lost, a default client left two entries for one ``XADD``. So everything that decides how often a command
leaves is pinned here, over anything the URL's query says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, SSLConnection
from redis.exceptions import (
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from worker.url_options import check_url, read_url

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


#: URLs whose server is found by asking sentinels: ``redis+sentinel://a:26379,b:26379,c:26379/SERVICE/DB``.
SENTINEL_SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
#: Seconds that one sentinel may take; the next one is asked then.
_SENTINEL_SECONDS = 0.5


class ServerChanged(redis.ConnectionError):
    """Another server answers than the one that this client goes by. Nothing was sent to it."""


class Connect(Protocol):
    """How code that needs Redis gets a client, so that a test can hand over another Redis."""

    def __call__(self, url: str, *, client_name: str, socket_timeout: float = 5.0) -> redis.Redis: ...


def connect(url: str, *, client_name: str, socket_timeout: float = 5.0) -> redis.Redis:
    """
    A client for ``redis://``, ``rediss://``, ``unix://`` or one of `SENTINEL_SCHEMES`, not yet connected. It never
    repeats a command.

    ``client_name`` shows in ``CLIENT LIST``. ``socket_timeout`` is in seconds; block for less.
    """
    scheme = url.partition("://")[0]
    sentinels, service, plain = _read_sentinel_url(url) if scheme in SENTINEL_SCHEMES else ((), "", url)
    options: dict[str, Any] = read_url(plain) | {
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
    check_url(options)
    if sentinels:
        return redis.Redis.from_pool(_sentinel_pool(sentinels, service, options))
    return redis.Redis.from_pool(ConnectionPool(**options))


def can_fail_over(client: redis.Redis) -> bool:
    """Whether the client follows to another server by itself."""
    return isinstance(client.connection_pool, SentinelConnectionPool)


def on_connect(client: redis.Redis, look: Callable[[Any], None]) -> None:
    """Have ``look`` see each new connection before anything is sent on it; what it raises ends the connection."""

    def greet(connection: Any) -> None:
        connection.on_connect()
        look(connection)

    client.connection_pool.connection_kwargs["redis_connect_func"] = greet


def _read_sentinel_url(url: str) -> tuple[tuple[tuple[str, int], ...], str, str]:
    """The sentinels' addresses, the service, and a URL of one server with all the rest."""
    scheme, _, rest = url.partition("+sentinel://")
    parts = urlsplit(f"{scheme}://{rest}")
    login, found, hosts = parts.netloc.rpartition("@")
    service, _, number = parts.path.strip("/").partition("/")
    addresses = []
    for host in hosts.split(","):
        one = urlsplit(f"//{host}")
        if not one.hostname:
            raise ValueError(
                f"{url.partition('://')[0]}: name the sentinels as HOST:PORT,HOST:PORT/SERVICE/DB"
            )
        addresses.append((one.hostname, one.port or 26379))
    plain = f"{scheme}://{login}{found}sentinel/{number or '0'}{'?' if parts.query else ''}{parts.query}"
    return tuple(addresses), unquote(service) or "mymaster", plain


def _sentinel_pool(
    sentinels: tuple[tuple[str, int], ...], service: str, options: dict[str, Any]
) -> SentinelConnectionPool:
    for ours in ("host", "port"):
        options.pop(ours, None)
    secure = options.pop("connection_class", None) is SSLConnection
    sentinel_options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "socket_timeout": _SENTINEL_SECONDS,
        "socket_connect_timeout": _SENTINEL_SECONDS,
    }
    for name in ("username", "password"):
        if (value := options.pop(f"sentinel_{name}", None)) is not None:
            sentinel_options[name] = value
    if secure:
        sentinel_options |= {"ssl": True} | {
            name: value for name, value in options.items() if name.startswith("ssl_")
        }
    manager: Any = Sentinel(sentinels, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
    return SentinelConnectionPool(service, manager, ssl=secure, **options)  # type: ignore[no-untyped-call]


def is_unavailable(error: RedisError) -> bool:
    """Whether the server is away or takes no writes for now, and does not say that the command is wrong."""
    if isinstance(error, CONNECTION_ERRORS):
        return True
    if not isinstance(error, ResponseError):
        return False
    text = str(error)
    return text.startswith(_AWAY) or any(word in text for word in _AWAY_IN_A_SCRIPT)
