"""A route's broker, asked from the command line with the settings of the route's workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

from worker.cli.context import Surroundings
from worker.errors import Refused
from worker.keys import SHARED

if TYPE_CHECKING:
    from worker.brokers import BaseBrokerAdapter
    from worker.ledger import Ledger

_NEVER = Event()


class OutOfReach(Refused):
    """This machine's settings do not lead to the route's broker."""


@contextmanager
def broker_at_hand(desk: Surroundings, route: str, name: str) -> Iterator[tuple[BaseBrokerAdapter, Ledger]]:
    """
    The route's adapter, which takes its turns within the broker's call limit, and its ledger, to which it is called
    ``name``.

    Raises:
        OutOfReach: this machine's settings do not have the route, or have it in mode off.
        ConfigError: they cannot be used; each fault is named.
    """
    from worker.ledger import Ledger, LedgerRules

    adapter = _adapter(desk, route)
    try:
        limit = desk.settings.routes[route].rate_limit or adapter.rate_limit
        ledger = Ledger(desk.at(route), route, name, LedgerRules(rate_limit=limit), desk.clock)
        adapter.share(desk.client, SHARED)
        adapter.before_read = lambda: _wait_for_slot(desk, ledger)
        yield adapter, ledger
    finally:
        adapter.close()


def _adapter(desk: Surroundings, route: str) -> BaseBrokerAdapter:
    from worker.assembly import build_adapter

    settings = desk.settings.routes.get(route)
    if settings is None:
        raise OutOfReach(
            f"route {route} is not in this machine's settings: say this where its workers' settings are"
        )
    adapter = build_adapter(settings, desk.clock)
    if adapter is None:
        raise OutOfReach(f"route {route} has mode off in this machine's settings: it has no broker to ask")
    return adapter


def _wait_for_slot(desk: Surroundings, ledger: Ledger) -> None:
    while (seconds := ledger.slot()) > 0:
        desk.clock.wait(_NEVER, seconds)
