"""What the query of a Redis URL asks for: refused before anything starts, where it cannot be had."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from redis.connection import Connection, parse_url
from redis.exceptions import RedisError

#: Files for TLS: whom to trust, and who we are.
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: What is a pool's and not a connection's, or belongs to the sentinels.
_NOT_OF_A_CONNECTION: Final = frozenset(
    {"connection_class", "max_connections", "timeout", "sentinel_username", "sentinel_password"}
)


def read_url(url: str) -> dict[str, Any]:
    """
    A URL as redis-py reads it.

    Raises:
        ConfigError: it is none. Not a part of it is shown: a password with a ``/`` looks like a port.
    """
    try:
        return dict(parse_url(url))  # type: ignore[no-untyped-call]
    except ValueError:
        raise _refusal(
            "cannot be read; give redis://:PASSWORD@HOST:PORT/DB, and each / ? # % @ : of the password as "
            "%2F %3F %23 %25 %40 %3A"
        ) from None


def check_url(options: Mapping[str, Any]) -> None:
    """
    ``options`` are those of a URL, as redis-py reads it. It would find out with the first command, and name nothing.

    Raises:
        ConfigError: names the option and the cure, without its value: that may be a password.
    """
    for name in _FILES:
        file = options.get(name)
        if file is not None and not os.access(file, os.R_OK):
            raise _refusal(f"{name}: cannot read {file}; name a file that this user may read")
    given = {name: value for name, value in options.items() if name not in _NOT_OF_A_CONNECTION}
    try:
        options.get("connection_class", Connection)(**given)
    except (TypeError, ValueError, RedisError) as error:
        name = next((name for name in given if f"'{name}'" in str(error)), "one of its options")
        raise _refusal(f"{name} is nothing that redis-py takes there; correct or remove it") from None


def _refusal(fault: str) -> Exception:
    # Producers import the transport, and with it this; only who gets a refusal needs pydantic.
    from worker.errors import ConfigError

    return ConfigError([f"the Redis URL: {fault}"])
