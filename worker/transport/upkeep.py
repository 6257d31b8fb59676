"""What keeps a stream small and its figures true. Any process may call these at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.script import Script

if TYPE_CHECKING:
    import redis

_TRIM, _TIDY, _READY = (Script("worker.transport", name) for name in ("trim", "tidy", "ready"))


def trim(client: redis.Redis, stream: str, *, group: str) -> int:
    """
    Drop what every group has acknowledged, and say how many entries that were. Nothing pending or unread goes, and
    nothing at all before ``group``, the workers' own, is there.
    """
    match _TRIM(client, [stream], group):
        case [b"trimmed", int(count)]:
            return count
        case [b"held"]:
            return 0
        case other:
            raise AssertionError(other)


def tidy(
    client: redis.Redis, stream: str, *, group: str, consumer: str = "", min_idle: float = 3600.0
) -> int:
    """Forget consumers that hold nothing and were silent for ``min_idle`` seconds; ``consumer`` stays."""
    match _TIDY(client, [stream], group, consumer, int(min_idle * 1000)):
        case [b"forgot", int(count)]:
            return count
        case other:
            raise AssertionError(other)


def ready(client: redis.Redis, stream: str, *, group: str, skip: bool = False) -> int:
    """How many entries the group was not given yet. With ``skip`` it never will be."""
    match _READY(client, [stream], group, "skip" if skip else "count"):
        case [b"ready", int(count)]:
            return count
        case other:
            raise AssertionError(other)
