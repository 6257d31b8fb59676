"""One worker's ledger on a server that dies, is restarted, replaced or wiped."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from contracts import (
    ExecutionResponse,
    OrderRecord,
    OrderStatus,
    Outcome,
    Side,
    dump,
    load_event,
    load_response,
)
from tests.conftest import make_intent
from tests.mock_broker import MockBroker
from worker.clock import ManualClock, SystemClock
from worker.connection import connect, on_connect
from worker.durability import Confirmation
from worker.ledger import Ledger, LedgerRules, new_token
from worker.ledger.identity import ServerWatch
from worker.ledger.records import Entry, Launch, Settled, Settlement
from worker.line import Line
from worker.logs import silent
from worker.reconciler import Reconciler


class Member:
    """One worker. What it holds in memory survives the server."""

    def __init__(self, url: str, confirmation: Confirmation | None = None, *, by_key: bool = False) -> None:
        self.client: Any = connect(url, client_name="test")
        self.watch = ServerWatch()
        on_connect(self.client, self.watch.look)
        self.line = Line(self.client)
        rules = LedgerRules(order_timeout=0.01, confirmation=confirmation or Confirmation())
        self.ledger = Ledger(self.client, "default", "w", rules, SystemClock(), self.line, self.watch)
        self.broker = MockBroker()
        self.broker.client_order_ids = not by_key
        self.clock = ManualClock(datetime.now(UTC))
        #: Whether the server may have lost what it acknowledged.
        self.forgets = False
        self.reconciler = Reconciler(self.ledger, self.broker, silent(), self.clock, lambda: self.forgets)
        self._tokens: dict[str, str] = {}

    def register(self) -> str:
        """As a route does once it has lost the server."""
        self.watch.admitted = ""
        return self.ledger.register(broker="mock", mode="paper", start_halted=False)

    def claim(self, intent_id: str, *, created: datetime | None = None) -> Any:
        return self.ledger.claim([self.entry(intent_id, created)])[0]

    def entry(self, intent_id: str, created: datetime | None = None) -> Entry:
        made = make_intent(intent_id=intent_id, created_at=created or datetime.now(UTC))
        self._tokens[intent_id] = new_token()
        at = int(made.created_at.timestamp() * 1000)
        # A lane of its own for each.
        return Entry(
            intent_id,
            self._tokens[intent_id],
            made.fingerprint(),
            intent_id.upper(),
            "",
            at,
            at + 60_000,
            "",
            dump(made),
        )

    def launch(self, intent_id: str) -> Launch:
        return self.ledger.launch([(intent_id, self._tokens[intent_id], 1)])[0]

    def settle(self, intent_id: str, end: Settlement | None = None) -> Settled:
        """``end``: the very same as in a call before."""
        return self.ledger.settle([end or self.end(intent_id)])[0][0]

    def end(self, intent_id: str) -> Settlement:
        response = ExecutionResponse(
            intent_id=intent_id,
            accepted=True,
            broker="mock",
            message="held",
            timestamp=datetime.now(UTC),
            outcome=Outcome.ACCEPTED,
            broker_order_id=f"N-{intent_id}",
        )
        return Settlement(
            intent_id, self._tokens[intent_id], 1, "answer", "ACCEPTED", "success", dump(response)
        )

    def doubt(self, intent_id: str) -> Settled:
        end = Settlement(intent_id, self._tokens[intent_id], 1, "doubt", "FS042", "none", "no answer")
        return self.ledger.settle([end])[0][0]

    def state(self, intent_id: str) -> str:
        return self.ledger.states([intent_id]).get(intent_id, ("none", b""))[0]

    def sent(self, intent_id: str) -> None:
        """The broker holds this order."""
        row = OrderRecord(
            broker_order_id=f"N-{intent_id}",
            client_order_id=intent_id if self.broker.client_order_ids else None,
            symbol="005930",
            side=Side.BUY,
            quantity=Decimal(10),
            filled_quantity=Decimal(0),
            limit_price=Decimal(71000),
            status=OrderStatus.WORKING,
            placed_at=datetime.now(UTC),
        )
        self.broker.orders.append(row)

    def reconcile(self) -> None:
        """Let enough time pass and read the broker's list twice."""
        for _ in range(3):
            self.reconciler.step()
            self.clock.advance(2)

    def forget_the_time(self) -> None:
        """As if the server had changed long ago: what is made now is made after it."""
        self.client.hset(self.ledger.keys.state, "suspect_until", 0)

    def events(self) -> list[str]:
        rows = self.client.xrange(self.ledger.keys.failsafe)
        return [load_event(fields[b"body"]).type for _, fields in rows]

    def answers(self) -> list[ExecutionResponse]:
        return [load_response(row[b"body"]) for _, row in self.client.xrange(self.ledger.keys.responses)]

    def close(self) -> None:
        self.line.close()
        self.client.close()
