"""Real workers of one live route in front of a simulated KIS, and the truth on its book."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from contracts import ExecutionIntent, FailsafeType
from tests.conftest import RedisServer, make_intent
from tests.process.workers import Floor, wait_until
from worker.brokers.kis.facts import KST
from worker.keys import RouteKeys
from worker.simulate.faults import Fault
from worker.simulate.kis import KISOptions, KISSimulator
from worker.simulate.orders import Kind, Order
from worker.simulate.universe import universe

KEYS = RouteKeys("default")
#: What may be told of intents whose replies were lost; an order that is ours is neither an orphan nor foreign.
QUIET = {FailsafeType.HALTED, FailsafeType.RESUMED, FailsafeType.INTENT_IN_DOUBT, FailsafeType.DOUBT_RESOLVED}


class Street(Floor):
    """A floor whose workers trade at KIS's real server, as simulated."""

    def __init__(self, server: RedisServer, folder: Path, kis: KISSimulator, url: str, **route: Any) -> None:
        super().__init__(server, folder)
        self.kis = kis
        self._route = {
            "broker": "kis",
            "mode": "live",
            "live_allowed": True,
            "account_exclusive": True,
            "orphan_scan_interval": 1,
            "lease": 2.0,
            "order_timeout": 1.0,
            "options__environment": "real",
            "options__app_key": "key-of-the-tests",
            "options__app_secret": "secret-of-the-tests",
            "options__account": "12345678-01",
            "options__base_url": url,
            "options__check_hours": False,
            **route,
        }

    def open(self) -> None:
        """Let a new live route, which starts halted, trade."""
        wait_until(lambda: self.client.hget(KEYS.state, "halted") == b"1", "a worker has made the route")
        done = self.run("resume", "--reason", "the tests begin")
        assert done.returncode == 0, done.stderr

    def meets(self, *faults: Fault) -> None:
        self.kis.faults.set(faults)

    def on_the_book(self) -> dict[str, tuple[str, Decimal]]:
        """Symbol and quantity of every order that the broker has ever taken, by its number."""
        return {
            number: (one.symbol, Decimal(one.quantity))
            for number, one in self.on_the_book_as_orders().items()
        }

    def on_the_book_as_orders(self) -> dict[str, Order]:
        """The same, each as the broker keeps it."""
        return {
            f"{one.placed_at.astimezone(KST):%Y%m%d}-{one.branch}-{one.number}": one
            for one in self.kis.orders()
            if one.kind is Kind.NEW
        }

    def answered(self, intents: list[ExecutionIntent], seconds: float = 60) -> None:
        """Wait for all answers."""
        wanted = {one.intent_id for one in intents}
        wait_until(lambda: wanted <= self.answers().keys(), "all is answered", seconds)

    def check_all_placed(self, intents: list[ExecutionIntent]) -> None:
        """Each intent has one order, named by its one answer, and the broker holds nothing else."""
        assert self.check_truth(intents) == []

    def check_truth(self, intents: list[ExecutionIntent]) -> list[ExecutionIntent]:
        """
        The broker holds the orders that the answers name and no others. Returns the intents that became no order,
        as their answers say.
        """
        answers = self.answers()
        placed = [one for one in intents if answers[one.intent_id].accepted]
        told = {answers[one.intent_id].broker_order_id: (one.symbol, one.quantity) for one in placed}
        assert told == self.on_the_book()
        assert len(told) == len(placed)
        assert {one.type for one in self.events()} <= QUIET
        return [one for one in intents if one not in placed]


def orders(count: int, prefix: str = "i") -> list[ExecutionIntent]:
    """Limit buys far below the market, so that they rest. No two of them are alike."""
    stocks = [one for one in universe().values() if one.market == "KR" and not one.fund]
    now = datetime.now(UTC)
    return [
        make_intent(
            intent_id=f"{prefix}-{number:03d}",
            symbol=(stock := stocks[number % len(stocks)]).symbol,
            quantity=number // len(stocks) + 1,
            limit_price=stock.rounded(stock.base * Decimal("0.8")),
            created_at=now,
        )
        for number in range(count)
    ]


def simulator(**changes: Any) -> KISSimulator:
    """One that never closes, and is rich."""
    options: dict[str, Any] = {
        "always_open": True,
        "rate": 0,
        "ledger_rate": 0,
        "visibility_lag": 0,
        "cash": {"KRW": Decimal(10**15), "USD": Decimal(10**9)},
    }
    return KISSimulator(KISOptions(**(options | changes)))
