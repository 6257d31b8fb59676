"""Waits until what the ledger wrote is where no single failure loses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis

from worker.durability import Confirmation
from worker.ledger import scripts
from worker.line import Line, Sent

#: The field of the route's state that is written before each wait. ``WAIT`` is about the last write of its own
#: connection, and a call made again after a lost reply may write nothing: on a fresh connection Redis 8.2 then answers
#: at once that all replicas have it (7.0 does not; both seen 2026-11). With this write, what is confirmed is all that
#: the call has read as well, whoever wrote it.
_FIELD = "confirmations"


class Confirmer:
    """
    One route's confirmations. Calls that were sent on the ``line`` together share one.

    Both methods raise ``Unavailable`` where a write is not confirmed in time, and as redis-py does.
    """

    def __init__(
        self, client: redis.Redis, line: Line | None, confirmation: Confirmation, state_key: str
    ) -> None:
        self._client = client
        self._line = line
        self._confirmation = confirmation
        self._state_key = state_key
        #: How many commands had been sent on the line when the last confirmation was asked for.
        self._covered = 0

    def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script and wait for its confirmation, on one connection."""
        try:
            return self._run(lambda pipe: pipe.evalsha(scripts.digest(name), len(keys), *keys, *args))
        except redis.exceptions.NoScriptError:
            return self._run(lambda pipe: pipe.eval(scripts.source(name), len(keys), *keys, *args))

    def _run(self, ask: Callable[[Any], Any]) -> Any:
        pipe: Any = self._client.pipeline(transaction=False)
        with pipe:
            ask(pipe)
            pipe.hincrby(self._state_key, _FIELD, 1)
            pipe.execute_command(*self._confirmation.command)
            replies = pipe.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        self._confirmation.check(replies[2])
        return replies[0]

    def get(self, sent: Sent, mark: int) -> Any:
        """The answer to what was sent on the line as its command number ``mark``, once it is confirmed."""
        assert self._line is not None
        before = self._line.sent
        answer = sent.get()
        if self._line.sent != before:
            mark = self._line.sent  # the server had to be told the script, and it ran only now
        if mark > self._covered:
            covers = self._line.sent
            self._line.send("HINCRBY", self._state_key, _FIELD, 1)
            self._confirmation.check(self._line.send(*self._confirmation.command).get())
            self._covered = covers
        return answer
