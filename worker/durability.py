"""Whether this Redis remembers a launch after a crash or a fail-over, and what a write waits for before it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import redis

from worker.connection import can_fail_over, is_unavailable
from worker.errors import Unavailable
from worker.settings import Settings

#: What a live route needs of the server, and the setting that gives it.
NEEDED = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
#: Of these, what a server that confirms each write on the disk (``WAITAOF``) can do without.
_CONFIRMED_ANYWAY = ("appendfsync", "no-appendfsync-on-rewrite")


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What must hold of a write before it counts. Nothing, by default: a server that fsyncs always needs none."""

    #: So many replicas have it (``WAIT``).
    replicas: int = 0
    #: It is on the disk, of this server and of those replicas (``WAITAOF``, Redis 7.2).
    fsync: bool = False
    #: Seconds. What is not confirmed by then does not count: nothing is sent on it, nothing acknowledged.
    timeout: float = 1.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.confirm_replicas, settings.confirm_fsync, settings.confirm_timeout)

    @property
    def is_wanted(self) -> bool:
        return self.replicas > 0 or self.fsync

    @property
    def command(self) -> tuple[str | int, ...]:
        """What asks for it, on the connection that wrote."""
        milliseconds = round(self.timeout * 1000)
        if self.fsync:
            return ("WAITAOF", 1, self.replicas, milliseconds)
        return ("WAIT", self.replicas, milliseconds)

    def check(self, reply: Any) -> None:
        """
        Judge the server's reply to `command`.

        Raises:
            Unavailable: not confirmed in time. The write is noted and may be lost: make the same call again.
        """
        here, there = reply if self.fsync else (1, reply)
        if here < 1 or there < self.replicas:
            disk = ", and not on this server's disk" if here < 1 else ""
            raise Unavailable(
                f"a write was confirmed by {there} of {self.replicas} replicas within {self.timeout:g} s{disk}; "
                "nothing is sent until it is"
            )


def weaknesses(client: redis.Redis, confirmation: Confirmation | None = None) -> list[str]:
    """
    Why a launch could be forgotten by this server: one line a finding, none if it holds. What cannot be asked is
    a finding too, since a promise that nobody can check is none.

    Raises:
        Unavailable: the server does not answer.
    """
    confirmation = confirmation or Confirmation()
    try:
        found: Any = client.config_get(*NEEDED)
        replication: Any = client.info("replication")
    except redis.RedisError as error:
        if is_unavailable(error):
            raise Unavailable(f"Redis does not answer: {error}") from error
        return [f"CONFIG GET or INFO is refused ({error}): cannot tell whether a launch survives a crash"]
    values = {_text(name): _text(value) for name, value in found.items()}
    needed = {
        name: wanted
        for name, wanted in NEEDED.items()
        if not (confirmation.fsync and name in _CONFIRMED_ANYWAY)
    }
    faults = [
        f"{name} is {values.get(name, 'unknown')}; a live route needs: CONFIG SET {name} {wanted}"
        for name, wanted in needed.items()
        if values.get(name) != wanted
    ]
    replicas = int(replication.get("connected_slaves", 0))
    if not confirmation.replicas and (replicas or can_fail_over(client)):
        faults.append(
            f"{replicas} replicas may take over without the last launches; a live route needs: "
            "EXECWORKER_CONFIRM_REPLICAS=1 or more"
        )
    return faults


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
