"""Which server answers: after a fail-over, a restart or a restored backup it may not remember what the last one did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from worker.connection import ServerChanged
from worker.line import Line

#: What a server is asked to prove that a restart made it forget nothing.
_DURABLE = {b"appendonly": b"yes", b"appendfsync": b"always", b"no-appendfsync-on-rewrite": b"no"}


@dataclass(frozen=True, slots=True)
class Server:
    """One life of one server."""

    #: New with each start of the process; empty where the server does not tell, and is then taken for the same.
    run_id: str = ""
    #: Where this client reached it.
    address: str = ""
    #: After a restart in place it remembers all that it acknowledged: it fsyncs always, and was no replica before.
    remembers: bool = False


class ServerWatch:
    """Lets connections through to the server that was last admitted, and to no other."""

    def __init__(self) -> None:
        #: The ``run_id`` of the server that the route is registered with; empty for any.
        self.admitted = ""

    def look(self, connection: Any) -> None:
        """
        See a new connection before anything is sent on it.

        Raises:
            ServerChanged: it leads to another server.
            redis.ReadOnlyError: it leads to a replica.
        """
        try:
            connection.send_command("INFO")
            facts = _facts(connection.read_response())
        except redis.ResponseError:
            return
        if facts.get("role", "master") != "master":
            raise redis.ReadOnlyError("a replica answers instead of the primary")
        run_id = facts.get("run_id", "")
        if self.admitted and run_id != self.admitted:
            raise ServerChanged(f"server {run_id[:8]} answers where {self.admitted[:8]} did")


def who_answers(line: Line) -> Server:
    """
    The server at the other end of this line.

    Raises:
        redis.RedisError: it does not answer.
    """
    info = _asked(lambda: line.send("INFO").get())
    if info is None:
        return Server()
    facts = _facts(info)
    pairs = _asked(lambda: line.send("CONFIG", "GET", "append*").get()) or []
    pairs += _asked(lambda: line.send("CONFIG", "GET", "no-appendfsync-on-rewrite").get()) or []
    settings = dict(zip(pairs[::2], pairs[1::2], strict=True))
    is_durable = all(settings.get(name) == wanted for name, wanted in _DURABLE.items())
    was_replica = facts.get("master_replid2", "").strip("0") != ""
    return Server(facts.get("run_id", ""), line.address, is_durable and not was_replica)


def _asked(ask: Callable[[], Any]) -> Any:
    """``None`` where the server refuses to tell."""
    try:
        return ask()
    except redis.ResponseError:
        return None


def _facts(info: Any) -> dict[str, str]:
    text = info.decode() if isinstance(info, bytes) else str(info)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
