"""What ``transport_options`` may say. Seconds unless named otherwise."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from worker.bell import Bell
from worker.clock import Clock, SystemClock
from worker.connection import Connect, connect


def _consumer() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Options:
    """The transport's settings, with their defaults."""

    #: The consumer group. Every group gets every entry; the consumers of one group share them.
    group: str = "workers"
    #: This consumer's name within the group. A stable one keeps its entries in hand over a reconnect.
    consumer: str = field(default_factory=_consumer)
    #: An entry that its consumer has not touched for so long is taken over by another.
    min_idle: float = 10.0
    #: Entries per round trip, 1 to 1000; prefetch may make it fewer.
    batch: int = 128
    #: Send for the next batch while one is handed over. Faster; and what is on its way is nobody else's.
    ahead: bool = False
    #: An entry whose values, and names but ``body``, are longer together, in bytes, goes to its queue's dead-letter
    #: stream. A compressed body counts as it came, and is not unpacked to more than this.
    max_entry_bytes: int = 65536
    #: Queue → the sorted set in which its entries are registered by symbol, in stream order.
    lanes: Mapping[str, str] = field(default_factory=dict)
    #: Nothing new is taken from a queue while so many entries are registered.
    lanes_max: int = 100_000
    #: Queue → the stream for oversized entries. Without one, they are delivered like any other.
    dead: Mapping[str, str] = field(default_factory=dict)
    #: Shows in ``CLIENT LIST``.
    client_name: str = "execworker-queue"
    #: Who makes the Redis clients.
    connect: Connect = connect
    clock: Clock = field(default_factory=SystemClock)
    #: Rung to end a wait for messages.
    bell: Bell = field(default_factory=Bell)

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= 1000:
            raise ValueError(f"batch: must be 1 to 1000, not {self.batch}")
        if self.min_idle <= 0:
            raise ValueError(f"min_idle: must be above zero seconds, not {self.min_idle}")

    @classmethod
    def of(cls, transport_options: Mapping[str, Any]) -> Self:
        """Pick ours. kombu and other transports have options of their own in the same mapping."""
        names = {option.name for option in fields(cls)}
        return cls(**{name: value for name, value in transport_options.items() if name in names})
