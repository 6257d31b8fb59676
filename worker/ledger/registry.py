"""The registry of routes: an account belongs to exactly one of them, whoever's settings say what."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import redis

from worker.connection import is_unavailable
from worker.errors import ConfigError, Unavailable
from worker.keys import ROUTES


@dataclass(frozen=True, slots=True)
class Enlisted:
    """What a worker has entered for a route."""

    broker: str
    mode: str
    #: What stands for its account, see `account_mark`.
    mark: str | None


def enlisted(client: redis.Redis) -> dict[str, Enlisted | None]:
    """
    Every route that was ever entered; ``None`` for one whose row is none that a worker has written.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    rows: Any = client.hgetall(ROUTES)
    return {name.decode("utf-8", "replace"): _read(row) for name, row in rows.items()}


def _read(row: bytes) -> Enlisted | None:
    try:
        found: Any = json.loads(row)
        account = found.get("account")
        told = found["broker"], found["mode"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not all(isinstance(one, str) for one in (*told, account or "")):
        return None
    return Enlisted(*told, account)


def account_mark(broker: str, account: str | None) -> str | None:
    """What stands for an account in the registry, so that the account itself does not."""
    return sha256(f"{broker}:{account}".encode()).hexdigest()[:16] if account else None


def enlist(
    client: redis.Redis,
    route: str,
    *,
    broker: str,
    mode: str,
    account: str | None,
    in_use: Callable[[], bool] = lambda: False,
) -> None:
    """
    Enter a route, or confirm it. ``in_use``: whether anything of the route is open, or another worker of it alive.

    Raises:
        ConfigError: another route trades on the account already, or this one is in use with another broker, mode or
            account. Do not start.
        Unavailable: Redis does not answer.
    """
    mark = account_mark(broker, account)

    def enter(pipe: Any) -> None:
        rows = {name.decode(): _fields(row) for name, row in pipe.hgetall(ROUTES).items()}
        for name, row in rows.items():
            if mark and name != route and row.get("account") == mark:
                raise ConfigError([_taken(route, name)])
        before = rows.get(route, {}).get("trades_as")
        # Without a broker nothing is looked up, so it may come and go.
        trades_as = before if mode == "off" else f"{broker}:{mode}:{mark or ''}"
        if before and trades_as != before and in_use():
            raise ConfigError([_in_use(route)])
        record = {"broker": broker, "mode": mode, "account": mark, "trades_as": trades_as}
        pipe.multi()
        pipe.hset(ROUTES, route, json.dumps(record))

    try:
        client.transaction(enter, ROUTES)
    except redis.RedisError as error:
        if is_unavailable(error):
            raise Unavailable(f"Redis does not answer: {error}") from error
        raise


def _fields(row: bytes) -> dict[str, Any]:
    """What a row says; nothing, where a stranger has written it."""
    try:
        found = json.loads(row)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _taken(route: str, other: str) -> str:
    return (
        f"EXECWORKER_ROUTES__{route}__ACCOUNT: route {other} trades on this account already, and an account belongs to one "
        f"route; use that route, or remove it: redis-cli HDEL {ROUTES} {other}"
    )


def _in_use(route: str) -> str:
    return (
        f"EXECWORKER_ROUTES__{route}__ACCOUNT, __BROKER or __MODE: the route is in use with others, and its doubts would be "
        "looked up in the wrong list; stop all its workers, let those of the old settings end what is open (worker status), "
        "then start this one"
    )
