"""Loads the scripts and calls them by digest, so that two versions can run side by side in a deploy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

import redis

from worker.line import Line, Sent

#: In front of every script: the guard's policy, then what all scripts share.
PRELUDE = ("guard", "lib")


@cache
def source(name: str) -> str:
    """The whole text of a script as the server runs it."""
    folder = files("worker.ledger") / "lua"
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in (*PRELUDE, name))


@cache
def digest(name: str) -> str:
    """What the server knows a script by."""
    return sha1(source(name).encode(), usedforsecurity=False).hexdigest()


def ask(line: Line, name: str, keys: Sequence[str], args: Sequence[Any]) -> Sent:
    """Send a call of one script."""
    return line.eval(source(name), digest(name), keys, args)


def call(client: redis.Redis, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
    """Run one script. A server that has forgotten it (restart, SCRIPT FLUSH) is told it again; nothing ran until then."""
    try:
        return client.evalsha(digest(name), len(keys), *keys, *args)
    except redis.exceptions.NoScriptError:
        return client.eval(source(name), len(keys), *keys, *args)
