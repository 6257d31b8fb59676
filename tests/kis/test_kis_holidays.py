"""KIS's own word on trading days: over the tables, under the owner's, and asked once a day by all workers together."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from kis_bench import options, request
from kis_case import Host, Mode

from contracts import Code
from worker.brokers.kis import KISBrokerAdapter, PretradeDenied
from worker.clock import ManualClock
from worker.errors import Rejected
from worker.simulate.faults import Fault
from worker.simulate.kis import KISOptions, KISSimulator

#: A Monday at ten in Seoul, which the tables know as a trading day.
MONDAY = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
A_DAY = 24 * 3600.0


class Exchange:
    """A server whose holidays the test decides, and adapters in front of it."""

    def __init__(self, host: Host) -> None:
        self.clock = ManualClock(MONDAY)
        self.host = host
        self.adapters: list[KISBrokerAdapter] = []
        self.serve("real")

    def serve(self, mode: Mode) -> None:
        self.mode: Mode = mode
        self.server = KISSimulator(
            KISOptions(
                mode=mode, rate=0, ledger_rate=0, visibility_lag=0, token_interval=0, token_life=10 * A_DAY
            ),
            clock=self.clock,
        )
        self.url = self.host.add(self.server)

    def closes_on(self, monkeypatch: pytest.MonkeyPatch, *days: date) -> None:
        venues = self.server.exchange.rules.venues
        is_open = venues.is_open_day
        monkeypatch.setattr(
            venues, "is_open_day", lambda venue, day: day not in days and is_open(venue, day), raising=True
        )

    def adapter(self, **changes: Any) -> KISBrokerAdapter:
        given = options(self.url, environment=self.mode, check_hours=True, **changes)
        mode = "live" if self.mode == "real" else "paper"
        self.adapters.append(KISBrokerAdapter.from_options(given, mode=mode, clock=self.clock))
        return self.adapters[-1]

    @property
    def asked(self) -> int:
        return self.server.desk.calls["holiday"]


@pytest.fixture
def exchange(kis_host: Host) -> Iterator[Exchange]:
    found = Exchange(kis_host)
    yield found
    for adapter in found.adapters:
        adapter.close()


def test_a_holiday_that_only_kis_knows_of_closes_the_market(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange.closes_on(monkeypatch, date(2026, 11, 23))
    adapter = exchange.adapter()
    adapter.list_orders(MONDAY)

    with pytest.raises(PretradeDenied, match="says the broker") as denied:
        adapter.place_order(request())

    assert denied.value.denial is Code.MARKET_CLOSED
    assert exchange.server.orders() == []


def test_the_owners_word_goes_over_that_of_kis(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange.closes_on(monkeypatch, date(2026, 11, 23))
    adapter = exchange.adapter(calendar={"KR": {"2026-11-23": "regular"}})
    adapter.list_orders(MONDAY)

    # The exchange itself is closed; what matters is that it was asked.
    with pytest.raises(Rejected):
        adapter.place_order(request())


def test_until_kis_has_said_something_the_tables_hold(exchange: Exchange) -> None:
    assert exchange.adapter().place_order(request()).broker_order_id
    assert exchange.asked == 0


def test_all_workers_together_ask_once_a_day_and_know_the_same(exchange: Exchange, any_redis: Any) -> None:
    adapters = [exchange.adapter() for _ in range(4)]
    for adapter in adapters:
        adapter.share(any_redis.connect(), "exec:shared:")

    for _ in range(2):
        for adapter in adapters:
            adapter.list_orders(MONDAY)
    assert exchange.asked == 1
    assert [one.holidays.is_open(date(2026, 11, 28)) for one in adapters] == [False] * 4

    exchange.clock.advance(A_DAY)
    for adapter in adapters:
        adapter.list_orders(MONDAY)
    assert exchange.asked == 2


def test_when_kis_does_not_answer_what_it_said_before_holds_and_it_is_not_asked_again_that_day(
    exchange: Exchange,
) -> None:
    adapter = exchange.adapter()
    adapter.list_orders(MONDAY)
    exchange.clock.advance(A_DAY)
    exchange.server.faults.set([Fault(what="html", on="quote", rate=1)])

    for _ in range(3):
        assert adapter.list_orders(MONDAY).complete

    tries = exchange.asked
    adapter.list_orders(MONDAY)
    assert exchange.asked == tries
    assert adapter.holidays.is_open(date(2026, 11, 28)) is False


def test_paper_has_no_such_call_and_is_not_asked(exchange: Exchange) -> None:
    exchange.serve("paper")
    adapter = exchange.adapter()

    adapter.list_orders(MONDAY)

    assert exchange.asked == 0
    assert adapter.holidays.is_open(date(2026, 11, 23)) is None
