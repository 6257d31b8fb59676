"""
The one place that builds a Redis client.

redis-py's own defaults differ by how the client was built, and some of them send a write twice: with the
reply lost, a default client left two entries for one ``XADD``. So everything that decides how often a command
leaves is pinned here, over anything the URL's query says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import Connection, ConnectionPool, SSLConnection
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
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
#: URLs of a cluster, by some of its nodes: ``redis+cluster://a:6379,b:6379``. See `at_home`.
CLUSTER_SCHEMES: Final = (
    "redis+cluster",
    "rediss+cluster",
    "redis-streams+cluster",
    "rediss-streams+cluster",
)
#: Seconds that one sentinel, or one node that is asked for the way, may take; the next one is asked then.
_ASKING_SECONDS = 0.5


class ServerChanged(redis.ConnectionError):
    """Another server answers than the one that this client goes by. Nothing was sent to it."""


class Connect(Protocol):
    """How code that needs Redis gets a client, so that a test can hand over another Redis."""

    def __call__(self, url: str, *, client_name: str, socket_timeout: float = 5.0) -> redis.Redis: ...


def connect(url: str, *, client_name: str, socket_timeout: float = 5.0) -> redis.Redis:
    """
    A client for ``redis://``, ``rediss://``, ``unix://``, one of `SENTINEL_SCHEMES` or a cluster, not yet connected
    (but for a cluster as a whole: ``redis.ConnectionError`` when no node answers). It never repeats a command.

    Of a cluster, a URL that `at_home` made gives a client of the one node that holds those keys, which can do all
    that a client of one server can; any other gives one that finds the node of each key.

    ``client_name`` shows in ``CLIENT LIST``. ``socket_timeout`` is in seconds; block for less. For TLS the query names
    files: ``ssl_ca_certs``, and ``ssl_certfile`` and ``ssl_keyfile`` for a server that wants to know who we are.

    Raises:
        ConfigError: the URL's query asks for what there is not. Start nothing.
    """
    scheme = url.partition("://")[0]
    of_a_cluster = is_cluster(url)
    addresses, service, plain = (
        _read_list(url) if of_a_cluster or scheme in SENTINEL_SCHEMES else ((), "", url)
    )
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
    if of_a_cluster:
        return _cluster_client(addresses, unquote(urlsplit(url).fragment), options)
    if addresses:
        return redis.Redis.from_pool(_sentinel_pool(addresses, service or "mymaster", options))
    return redis.Redis.from_pool(ConnectionPool(**options))


def is_cluster(url: str) -> bool:
    return url.partition("://")[0] in CLUSTER_SCHEMES


def at_home(url: str, keys: str) -> str:
    """The URL of the server that holds the keys which begin so: of a cluster one node, else the URL as it is."""
    return f"{url}#{quote(keys)}" if is_cluster(url) else url


def can_fail_over(client: redis.Redis) -> bool:
    """Whether the client follows to another server by itself."""
    pool = getattr(client, "connection_pool", None)
    return pool is None or isinstance(pool, (SentinelConnectionPool, _NodePool))


def on_connect(client: redis.Redis, look: Callable[[Any], None]) -> None:
    """Have ``look`` see each new connection before anything is sent on it; what it raises ends the connection."""

    def greet(connection: Any) -> None:
        connection.on_connect()
        look(connection)

    client.connection_pool.connection_kwargs["redis_connect_func"] = greet


def without_health_checks(client: Any) -> None:
    """
    Send no PING ahead of what the client asks after a rest. A server that refuses writes because it cannot save refuses
    PING as well, and so would keep its state from somebody who only reads.
    """
    pool = getattr(client, "connection_pool", None)
    if pool is not None:
        pool.connection_kwargs["health_check_interval"] = 0


#: Where to ask.
_Addresses = tuple[tuple[str, int], ...]


def _read_list(url: str) -> tuple[_Addresses, str, str]:
    """The addresses of sentinels or nodes, the sentinels' service, and a URL of one server with all the rest."""
    given, _, rest = url.partition("://")
    scheme, _, kind = given.partition("+")
    parts = urlsplit(f"{scheme}://{rest}")
    login, found, hosts = parts.netloc.rpartition("@")
    service, _, number = parts.path.strip("/").partition("/")
    addresses = []
    for host in hosts.split(","):
        one = urlsplit(f"//{host}")
        if not one.hostname:
            raise ValueError(f"{given}: name several as HOST:PORT,HOST:PORT")
        addresses.append((one.hostname, one.port or (26379 if kind == "sentinel" else 6379)))
    plain = f"{scheme}://{login}{found}server/{number or '0'}{'?' if parts.query else ''}{parts.query}"
    return tuple(addresses), unquote(service), plain


class _NodePool(ConnectionPool):
    """Connections to whichever node of a cluster holds one slot at the time when they are made."""


class _NodeConnection(Connection):
    def __init__(self, *, find: Callable[[], tuple[str, int]], **options: Any) -> None:
        self._find = find
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def connect(self) -> None:
        if not self._sock:
            self.host, self.port = self._find()
        super().connect()  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)
        except (MovedError, AskError) as error:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise redis.ConnectionError("the slot is on another node; nothing was carried out") from error


class _SecureNodeConnection(_NodeConnection, SSLConnection):
    pass


def _cluster_client(nodes: _Addresses, keys: str, options: dict[str, Any]) -> redis.Redis:
    for ours in ("host", "port", "db"):
        options.pop(ours, None)
    secure = options.pop("connection_class", None) is SSLConnection
    if not keys:
        known = [ClusterNode(host, port) for host, port in nodes]  # type: ignore[no-untyped-call]
        if secure:
            options["ssl"] = True
        try:
            client: Any = RedisCluster(startup_nodes=known, **options)
        except RedisClusterException as error:
            raise redis.ConnectionError(f"no node of the cluster answers: {error}") from error
        return client  # type: ignore[no-any-return]  # all that we ask of it, it has
    slot = key_slot(keys.encode())
    asking = options | {"socket_timeout": _ASKING_SECONDS, "socket_connect_timeout": _ASKING_SECONDS}
    asking["connection_class"] = SSLConnection if secure else Connection

    def find() -> tuple[str, int]:
        return _holder(nodes, slot, asking)

    kind = _SecureNodeConnection if secure else _NodeConnection
    return redis.Redis.from_pool(_NodePool(connection_class=kind, find=find, **options))


def _holder(nodes: _Addresses, slot: int, options: dict[str, Any]) -> tuple[str, int]:
    """The node that holds a slot, from the first one that answers."""
    why = "no node of the cluster is named"
    for host, port in nodes:
        client: Any = redis.Redis.from_pool(ConnectionPool(host=host, port=port, **options))
        try:
            for first, last, (name, at, *_), *_ in client.execute_command("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return (name.decode() or host, int(at))
            why = f"no node of the cluster holds slot {slot}"
        except redis.RedisError as error:
            why = str(error)
        finally:
            client.close()
    raise redis.ConnectionError(why)


def _sentinel_pool(sentinels: _Addresses, service: str, options: dict[str, Any]) -> SentinelConnectionPool:
    for ours in ("host", "port"):
        options.pop(ours, None)
    secure = options.pop("connection_class", None) is SSLConnection
    sentinel_options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "socket_timeout": _ASKING_SECONDS,
        "socket_connect_timeout": _ASKING_SECONDS,
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


def cannot_save(error: RedisError) -> bool:
    """Whether the server refuses writes, and PING with them, because saving to its disk fails."""
    return isinstance(error, ResponseError) and "MISCONF " in str(error)


def is_unavailable(error: RedisError) -> bool:
    """Whether the server is away or takes no writes for now, and does not say that the command is wrong."""
    if isinstance(error, CONNECTION_ERRORS):
        return True
    if not isinstance(error, ResponseError):
        return False
    text = str(error)
    return text.startswith(_AWAY) or any(word in text for word in _AWAY_IN_A_SCRIPT)
