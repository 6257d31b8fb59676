"""KIS's limits as the adapter keeps them: who asks for room, how fast it asks, and when a session is over."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from kis_bench import options, request
from kis_case import Host, Mode
from pydantic import SecretStr

from contracts import OrderQuery
from worker.brokers.kis import AccessTokenPayload, KISBrokerAdapter, TokenCache
from worker.brokers.kis.shared import RedisTurns
from worker.clock import ManualClock
from worker.connection import connect
from worker.errors import Unavailable
from worker.simulate.faults import Fault
from worker.simulate.kis import KISOptions, KISSimulator

BEGAN = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)


class Desk:
    """An adapter in front of a server with its ledger's strict limit, and every request for room."""

    def __init__(self, host: Host, mode: Mode = "real") -> None:
        self.clock = ManualClock(BEGAN)
        self.server = KISSimulator(
            KISOptions(mode=mode, rate=0, visibility_lag=0, token_interval=0), clock=self.clock
        )
        self.adapter = KISBrokerAdapter.from_options(
            options(host.add(self.server), environment=mode),
            mode="live" if mode == "real" else "paper",
            clock=self.clock,
        )
        self.asked = 0
        self.adapter.before_read = self._before_read

    def _before_read(self) -> None:
        self.asked += 1

    def place(self, count: int) -> list[str]:
        return [
            self.adapter.place_order(request(quantity=Decimal(number % 9 + 1))).broker_order_id
            for number in range(count)
        ]


@pytest.fixture
def desk(kis_host: Host) -> Iterator[Desk]:
    desk = Desk(kis_host)
    yield desk
    desk.adapter.close()


@pytest.mark.parametrize(("mode", "calls"), [("real", 18.0), ("paper", 1.0)])
def test_without_a_setting_a_route_keeps_to_the_limit_that_kis_has_published(
    kis_host: Host, mode: Mode, calls: float
) -> None:
    assert Desk(kis_host, mode).adapter.rate_limit == calls


def test_each_page_and_each_retry_asks_for_room_and_no_order_or_cancel_does(desk: Desk) -> None:
    numbers = desk.place(150)
    desk.adapter.cancel_order(OrderQuery("005930", broker_order_id=numbers[0]))
    assert desk.asked == 0

    desk.server.faults.set([Fault(what="html", on="list", nth=2)])
    scan = desk.adapter.list_orders(BEGAN)

    assert scan.complete
    assert len(scan.orders) == 150
    assert desk.asked == desk.server.desk.calls["daily"] == 3


def test_a_look_up_that_finds_no_redis_to_ask_for_room_reads_nothing(desk: Desk) -> None:
    def away() -> None:
        raise Unavailable("Redis does not answer")

    desk.adapter.before_read = away

    with pytest.raises(Unavailable):
        desk.adapter.list_orders(BEGAN)
    assert desk.server.desk.calls == {}


def test_one_worker_reads_pages_no_faster_than_the_ledger_takes_them(desk: Desk) -> None:
    desk.place(350)

    assert desk.adapter.list_orders(BEGAN).complete
    assert desk.adapter.list_orders(BEGAN).complete
    assert desk.server.desk.refusals == {}


def test_a_list_is_read_to_its_end_although_others_use_up_the_ledgers_limit(desk: Desk) -> None:
    desk.place(150)
    desk.server.faults.set([Fault(what="EGW00215", on="list", nth=nth) for nth in (1, 2, 3, 4, 5, 7, 8, 9)])

    assert desk.adapter.list_orders(BEGAN).complete
    assert desk.asked == 10


@pytest.mark.parametrize(
    ("symbol", "launched", "now", "is_over"),
    [
        ("005930", "2026-11-23T01:00Z", "2026-11-23T14:59Z", False),
        ("005930", "2026-11-23T01:00Z", "2026-11-23T15:00Z", True),
        ("005930", "2026-11-23T15:00Z", "2026-11-23T23:59Z", False),
        # Midnight in New York is five in the morning, UTC; in Seoul the day is long over.
        ("AAPL", "2026-11-23T15:00Z", "2026-11-24T04:59Z", False),
        ("AAPL", "2026-11-23T15:00Z", "2026-11-24T05:00Z", True),
    ],
)
def test_a_session_is_over_when_its_day_is_over_where_the_symbol_trades(
    symbol: str, launched: str, now: str, is_over: bool
) -> None:
    adapter = KISBrokerAdapter.from_options(
        options("http://127.0.0.1:1"), mode="live", clock=ManualClock(datetime.fromisoformat(now))
    )

    assert adapter.session_over(symbol, datetime.fromisoformat(launched)) is is_over
    adapter.close()


def test_workers_that_share_a_redis_read_one_after_the_other(any_redis: Any) -> None:
    workers = [RedisTurns(any_redis.connect(), "exec:shared:{key}") for _ in range(3)]

    begins = [one.take() for one in workers * 2]

    assert begins[0] == 0
    assert all(later - sooner > 0.95 for sooner, later in pairwise(begins))


def test_no_list_is_read_while_the_redis_that_hands_out_turns_is_away(desk: Desk) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"redis://127.0.0.1:{probe.getsockname()[1]}/0"
    desk.adapter.authenticate()
    desk.adapter.client.turns = RedisTurns(connect(nobody, client_name="test"), "exec:shared:{key}")

    with pytest.raises(Unavailable):
        desk.adapter.list_orders(BEGAN)
    assert desk.server.desk.calls == {}


def test_no_order_waits_for_the_next_token_while_the_last_one_still_holds() -> None:
    clock, asked, may_answer = ManualClock(BEGAN), threading.Event(), threading.Event()
    tokens = iter(["first", "second"])

    def issue() -> AccessTokenPayload:
        asked.set()
        assert may_answer.wait(10)
        return AccessTokenPayload(
            access_token=SecretStr(next(tokens)), expires_in=86400, expires_at=clock.now() + timedelta(days=1)
        )

    cache = TokenCache(issue, clock)
    may_answer.set()
    first = cache.token()
    # Five minutes before its end: somebody asks for the next one.
    clock.advance(86400 - 300)
    for event in (asked, may_answer):
        event.clear()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(cache.token)
        assert asked.wait(10)

        assert cache.token(clock.boottime() + 0.5) == first
        may_answer.set()
        assert asking.result(10) != first
    assert cache.token() == asking.result()
