"""What operators say: halt, resume, reset, rollout. Imports little: a halt is in a hurry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from contracts import GuardState
from worker.clock import SystemClock
from worker.connection import is_unavailable
from worker.durability import Confirmation
from worker.errors import Refused, Unavailable
from worker.keys import ROUTES, RouteKeys
from worker.ledger import Ledger, LedgerRules

_REFUSALS = {
    "LOCKDOWN": "the guard is in LOCKDOWN: it tripped again before any success; look into the cause, then reset "
    "with --approve",
    "NORMAL": "the guard is NORMAL: there is nothing to reset",
    "WARNING": "the guard is in WARNING and still launches: there is nothing to reset; a success clears it",
}


def routes(client: redis.Redis) -> list[str]:
    """The routes that some worker has registered, sorted."""
    with unavailable():
        names: Any = client.hkeys(ROUTES)
        return sorted(name.decode() for name in names)


class Steering:
    """
    One route, as an operator steers it. Needs no worker to be alive.

    Every method raises ``Unavailable`` when Redis does not answer, or does not confirm in time what was written.
    """

    def __init__(self, client: redis.Redis, route: str, confirmation: Confirmation | None = None) -> None:
        self._client: Any = client
        self._rules = LedgerRules(confirmation=confirmation or Confirmation())
        self._keys = RouteKeys(route)
        self._ledger = self._as("operator")

    def _as(self, actor: str) -> Ledger:
        """The ledger in the name of a person, so that the audit shows who it was."""
        return Ledger(self._client, self._keys.route, actor, self._rules, SystemClock())

    def halt(self, actor: str, reason: str) -> bool:
        """Stop all launches of the route, on every worker. False: it was halted already."""
        return self._as(actor).command("halt", actor, reason)[0] == "done"

    def resume(self, actor: str, reason: str) -> bool:
        """Allow launches again. False: it was not halted."""
        return self._as(actor).command("resume", actor, reason)[0] == "done"

    def open_rollout(self, actor: str, reason: str, seconds: float) -> None:
        """Let live workers that differ in version or settings send side by side, for so long."""
        self._as(actor).command("rollout", actor, reason, seconds)

    def close_rollout(self, actor: str, reason: str) -> None:
        """They must agree again, now."""
        self._as(actor).command("rollout_over", actor, reason)

    def reset_guard(self, actor: str, reason: str, approve: bool = False) -> GuardState:
        """
        Open a tripped guard.

        Raises:
            Refused: there is nothing to reset, or it needs ``approve``.
        """
        how, detail = self._as(actor).command("approve" if approve else "reset", actor, reason)
        if how == "refused":
            raise Refused(_REFUSALS.get(detail, detail))
        return GuardState(detail)


@contextmanager
def unavailable() -> Iterator[None]:
    """`Unavailable` for what redis-py raises when the server does not answer or takes no writes."""
    try:
        yield
    except redis.RedisError as error:
        if is_unavailable(error):
            raise Unavailable(f"Redis does not answer: {error}") from error
        raise
