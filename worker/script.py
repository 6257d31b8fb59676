"""A Lua file, called by digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha1
from importlib import resources
from typing import Any

import redis
from redis.exceptions import NoScriptError, ResponseError

from worker.connection import CONNECTION_ERRORS, is_unavailable
from worker.line import Line


class Script:
    """One ``.lua`` file of a package. It survives ``SCRIPT FLUSH`` and a new server, and needs EVAL and EVALSHA only."""

    def __init__(self, package: str, name: str) -> None:
        self.text = resources.files(package).joinpath(name + ".lua").read_text("utf-8")
        self._digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: redis.Redis, keys: list[str], *args: str | bytes | int) -> Any:
        """
        Run it.

        Raises:
            redis.RedisError: one of `worker.connection.CONNECTION_ERRORS` when the server takes no writes now.
        """
        with _unavailable():
            try:
                return client.evalsha(self._digest, len(keys), *keys, *args)
            except NoScriptError:
                return client.eval(self.text, len(keys), *keys, *args)

    def ask(self, line: Line, keys: list[str], *args: str | bytes | int) -> Callable[[], Any]:
        """Send the call; what is returned waits for the answer. Both raise as the call itself does."""
        sent = line.eval(self.text, self._digest, keys, args)

        def get() -> Any:
            with _unavailable():
                return sent.get()

        return get


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        if is_unavailable(error) and not isinstance(error, CONNECTION_ERRORS):
            raise redis.ConnectionError(str(error)) from error
        raise
