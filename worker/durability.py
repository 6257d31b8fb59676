"""Whether this Redis remembers a launch after a crash."""

from __future__ import annotations

from typing import Any

import redis

from worker.connection import is_unavailable
from worker.errors import Unavailable

#: What a live route needs of the server, and the setting that gives it.
NEEDED = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}


def weaknesses(client: redis.Redis) -> list[str]:
    """
    Why a launch could be forgotten by this server: one line a finding, none if it holds. What cannot be asked is
    a finding too, since a promise that nobody can check is none.

    Raises:
        Unavailable: the server does not answer.
    """
    try:
        found: Any = client.config_get(*NEEDED)
    except redis.RedisError as error:
        if is_unavailable(error):
            raise Unavailable(f"Redis does not answer: {error}") from error
        return [f"CONFIG GET is refused ({error}): cannot tell whether a launch survives a crash"]
    values = {_text(name): _text(value) for name, value in found.items()}
    return [
        f"{name} is {values.get(name, 'unknown')}; a live route needs: CONFIG SET {name} {wanted}"
        for name, wanted in NEEDED.items()
        if values.get(name) != wanted
    ]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
