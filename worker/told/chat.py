"""Chat services, mail and push by way of apprise, which knows about a hundred of them by URL."""

from __future__ import annotations

import json
import logging
from typing import Any, Final

import apprise
from pydantic import SecretStr

from worker.told.channels import NotTold

#: What is told apart by colour or sound, where the service has such.
_GOOD: Final = frozenset({"GUARD_RESET", "RESUMED", "DOUBT_RESOLVED"})
_GRAVE: Final = frozenset({"GUARD_TRIPPED", "LOCKDOWN", "DOUBT_ESCALATED", "ORPHAN_ORDER", "NO_LIVE_WORKER"})
#: Fields that a person wants to see, in this order.
_SHOWN: Final = (
    "reason",
    "actor",
    "intent_id",
    "broker_order_id",
    "symbol",
    "side",
    "quantity",
    "state",
    "timestamp",
)


class Chat:
    """One service."""

    def __init__(self, name: str, url: SecretStr) -> None:
        """
        Raises:
            ValueError: apprise knows no such service.
        """
        # Its lines repeat parts of the URL; what went wrong is told by us.
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        self.name = name
        self._service: Any = apprise.Apprise()
        if not self._service.add(url.get_secret_value()):
            raise ValueError("is no URL that apprise knows; see its list of services")

    def tell(self, body: bytes) -> None:
        title, text, kind = worded(body)
        if not self._service.notify(body=text, title=title, notify_type=kind):
            raise NotTold("the service did not take it")

    def close(self) -> None:
        """A request needs no end: it holds nothing."""


def worded(body: bytes) -> tuple[str, str, str]:
    """An event as a title, a text and apprise's kind of it, for people."""
    event = json.loads(body)
    kind = event["type"]
    lines = [
        str(event.get("message", "")),
        *(f"{name}: {event[name]}" for name in _SHOWN if event.get(name)),
    ]
    grave = "success" if kind in _GOOD else "failure" if kind in _GRAVE else "warning"
    return f"{kind} on route {event.get('route', '?')}", "\n".join(lines), grave
