"""The registry of routes: an account belongs to exactly one of them, whoever's settings say what."""

from __future__ import annotations

import json
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


def enlisted(client: redis.Redis) -> dict[str, Enlisted]:
    """
    Every route that was ever entered.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    rows: Any = client.hgetall(ROUTES)
    found = {name.decode(): json.loads(row) for name, row in rows.items()}
    return {name: Enlisted(row["broker"], row["mode"], row.get("account")) for name, row in found.items()}


def account_mark(broker: str, account: str | None) -> str | None:
    """What stands for an account in the registry, so that the account itself does not."""
    return sha256(f"{broker}:{account}".encode()).hexdigest()[:16] if account else None


def enlist(client: redis.Redis, route: str, *, broker: str, mode: str, account: str | None) -> None:
    """
    Enter a route, or confirm it.

    Raises:
        ConfigError: another route trades on the account already. Do not start.
        Unavailable: Redis does not answer.
    """
    mark = account_mark(broker, account)
    record = json.dumps({"broker": broker, "mode": mode, "account": mark})

    def enter(pipe: Any) -> None:
        for name, row in pipe.hgetall(ROUTES).items():
            if mark and name.decode() != route and json.loads(row).get("account") == mark:
                raise ConfigError(
                    [
                        f"EXECWORKER_ROUTES__{route}__ACCOUNT: route {name.decode()} trades on this account already, "
                        "and an account belongs to one route; use that route, or remove it: "
                        f"redis-cli HDEL {ROUTES} {name.decode()}"
                    ]
                )
        pipe.multi()
        pipe.hset(ROUTES, route, record)

    try:
        client.transaction(enter, ROUTES)
    except redis.RedisError as error:
        if is_unavailable(error):
            raise Unavailable(f"Redis does not answer: {error}") from error
        raise
