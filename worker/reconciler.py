"""
After the server has changed: compares the broker's list with what this server knows, and lets the route go on.

A fail-over, a restored backup or a crash without its last writes leaves a ledger that is right up to some moment and
knows nothing of what came after. What it knows to be launched is in doubt by then, and ends as doubts do. What was
launched after that moment shows in the broker's list as an order that no entry accounts for: a stray.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from contracts import OrderRecord, OrderScan, load_intent
from worker.brokers.base import BaseBrokerAdapter
from worker.clock import Clock
from worker.errors import BrokerError
from worker.evidence import AGREEING, order_key, order_key_of_row
from worker.ledger import Ledger
from worker.ledger.records import Unsure
from worker.logs import Event, Logger

#: How far back the broker's list is read, besides the time that an intent may be old.
_BACK = timedelta(days=1)
#: Seconds between two readings.
_PAUSE = 1.0
#: States of an entry that says of itself that it was never launched.
_UNLAUNCHED = ("claimed", "parked", "tombstone")


class Reconciler:
    """One route's. `step` raises ``Unavailable`` and ``StateLost`` as the ledger does."""

    def __init__(
        self,
        ledger: Ledger,
        adapter: BaseBrokerAdapter,
        log: Logger,
        clock: Clock,
        forgets: Callable[[], bool],
        max_age: float = 0.0,
    ) -> None:
        """``forgets``: whether the server may have lost what it acknowledged. ``max_age``: of an intent, in seconds."""
        self._back = _BACK + timedelta(seconds=max_age)
        self._ledger = ledger
        self._forgets = forgets
        self._adapter = adapter
        self._log = log
        self._clock = clock
        #: Which change is being cleared up.
        self._since = 0
        self._next = 0.0
        self._readings: list[OrderScan] = []

    def step(self) -> None:
        """Do what is due. Nothing, as long as the server is the same."""
        unsure = self._ledger.unsure()
        if unsure is None:
            return
        now = self._clock.boottime()
        if unsure.since != self._since:
            self._since, self._readings, self._next = unsure.since, [], now + unsure.left
        if now < self._next:
            return
        self._next = now + _PAUSE
        self._read()
        if len(self._readings) >= AGREEING:
            self._end(unsure)

    def _read(self) -> None:
        try:
            scan = self._adapter.list_orders(self._clock.now() - self._back)
        except BrokerError as error:
            self._log.warning(Event.LOOK_UP_FAILED, reason=str(error))
            return
        if scan.complete:
            self._readings.append(scan)

    def _end(self, unsure: Unsure) -> None:
        rows = list({row.broker_order_id: row for one in self._readings for row in one.orders}.values())
        noted = self._ledger.noted_at([row.broker_order_id for row in rows])
        rows = [row for row in rows if row.broker_order_id not in noted]
        strays = self._strays_by_id(rows) if self._adapter.client_order_ids else self._strays_by_key(rows)
        self._since, self._readings = 0, []
        ids = [row.client_order_id for row in strays if row.client_order_id]
        if self._ledger.reconciled(unsure, len(strays), ids):
            numbers = [row.broker_order_id for row in strays]
            self._log.warning(Event.SERVER_RECONCILED, strays=len(numbers), broker_order_ids=numbers[:20])

    def _strays_by_id(self, rows: list[OrderRecord]) -> list[OrderRecord]:
        states = self._ledger.states([row.client_order_id for row in rows if row.client_order_id])
        return [
            row
            for row in rows
            if row.client_order_id
            and states.get(row.client_order_id, (_UNLAUNCHED[0], b""))[0] in _UNLAUNCHED
        ]

    def _strays_by_key(self, rows: list[OrderRecord]) -> list[OrderRecord]:
        """
        An order that looks like one in doubt is that doubt's to explain, but where launches may be forgotten: then it
        may as well be one of those.
        """
        bodies = [] if self._forgets() else self._ledger.under_way()
        under_way = {order_key(load_intent(body)) for body in bodies}
        owners = self._ledger.owners([row.broker_order_id for row in rows])
        return [
            row
            for row in rows
            if row.broker_order_id not in owners and order_key_of_row(row) not in under_way
        ]
