"""
The queue's transport: importing it teaches kombu the URLs ``redis-streams://`` and ``rediss-streams://``.

For producers too; it needs kombu and redis-py only. What an entry looks like: `worker.transport.entry`.
"""

from kombu.transport import TRANSPORT_ALIASES

from worker.transport.entry import padded
from worker.transport.upkeep import ready, tidy, trim

__all__ = ["padded", "ready", "tidy", "trim"]

TRANSPORT_ALIASES["redis-streams"] = "worker.transport.streams:Transport"
TRANSPORT_ALIASES["rediss-streams"] = "worker.transport.streams:Transport"
