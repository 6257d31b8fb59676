"""Orders over the adapter, HTTP and a server with a book: what it holds in truth, and what we were told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kis_bench import options, request
from kis_case import Host, KISCase, Mode

from contracts import Code, ExecutionIntent, OrderQuery, OrderRequest, OrderStatus, Outcome, Side, TimeInForce
from worker.brokers import LiveBroker, adapter_class
from worker.brokers.kis import KISBrokerAdapter, PretradeDenied, ReadFailed
from worker.clock import Clock, ManualClock, SystemClock
from worker.errors import BrokerError, NotSent, OutcomeUnknown, Rejected
from worker.simulate.faults import Fault
from worker.simulate.kis import KISSimulator
from worker.simulate.orders import Order


class Bench:
    """An adapter before a server, and the server's own view."""

    def __init__(self, mode: Mode, folder: Path, host: Host) -> None:
        self.clock = ManualClock()
        self.began = self.clock.now()
        self._case = KISCase(mode, host)
        self._folder = folder
        self.adapter = self.another()

    def another(self, clock: Clock | None = None) -> KISBrokerAdapter:
        return self._case.make("answers", clock or self.clock, self._folder)

    @property
    def server(self) -> KISSimulator:
        return self._case.simulator(self._folder)

    def orders(self) -> list[Order]:
        return self.server.orders()

    def held(self) -> int:
        return self._case.held(self._folder)

    def meets(self, *faults: Fault) -> None:
        self.server.faults.set(faults)

    def listed(self) -> Any:
        return self.adapter.list_orders(self.began)

    def close(self) -> None:
        self.adapter.close()
        self._case.close()


@pytest.fixture(name="real")
def _real(tmp_path: Path, kis_host: Host) -> Iterator[Bench]:
    bench = Bench("real", tmp_path, kis_host)
    yield bench
    bench.close()


@pytest.fixture(name="paper")
def _paper(tmp_path: Path, kis_host: Host) -> Iterator[Bench]:
    bench = Bench("paper", tmp_path, kis_host)
    yield bench
    bench.close()


@pytest.fixture(name="either", params=["real", "paper"])
def _either(request: pytest.FixtureRequest) -> Bench:
    found: Bench = request.getfixturevalue(request.param)
    return found


def query(number: str, symbol: str = "005930", **more: Any) -> OrderQuery:
    return OrderQuery(symbol, broker_order_id=number, **more)


US = {"symbol": "AAPL", "venue": "NASD", "limit_price": Decimal("150.25")}


# --- Placing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("venue", ["KRX", "NXT", "SOR"])
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(
    ("price", "force"),
    [
        (Decimal(71_000), TimeInForce.DAY),
        (Decimal(71_000), TimeInForce.IOC),
        (Decimal(71_000), TimeInForce.FOK),
        (None, TimeInForce.DAY),
        (None, TimeInForce.IOC),
        (None, TimeInForce.FOK),
    ],
)
def test_the_broker_holds_what_was_asked_for(
    real: Bench, venue: str, side: Side, price: Decimal | None, force: TimeInForce
) -> None:
    asked = request(venue=venue, side=side, limit_price=price, time_in_force=force)
    if (venue, price, force) == ("NXT", None, TimeInForce.DAY):
        with pytest.raises(PretradeDenied):
            real.adapter.place_order(asked)
        assert real.held() == 0
        return

    placed = real.adapter.place_order(asked)

    [order] = real.orders()
    assert placed.broker_order_id == f"20261123-91252-{order.number}"
    assert (order.venue, order.side, order.quantity, order.force) == (venue, side, 10, force)
    assert order.limit == price
    [listed] = real.listed().orders
    assert (listed.broker_order_id, listed.venue) == (placed.broker_order_id, venue)
    assert (listed.side, listed.quantity, listed.limit_price) == (side, 10, price)


def test_a_us_order_is_placed_found_and_cancelled_on_either_server(either: Bench) -> None:
    # Half past eleven in New York.
    either.clock.advance(timedelta(hours=15, minutes=30).total_seconds())
    since = either.clock.now()

    placed = either.adapter.place_order(request(**US))
    either.clock.advance(1)

    found = either.adapter.get_order(query(placed.broker_order_id, "AAPL"))
    assert found is not None
    assert (found.status, found.limit_price, found.venue) == (OrderStatus.WORKING, Decimal("150.25"), "NASD")
    either.adapter.cancel_order(query(placed.broker_order_id, "AAPL", reference=placed.reference))
    scan = either.adapter.list_orders(since)
    assert scan.complete
    assert [(one.broker_order_id, one.status) for one in scan.orders] == [
        (placed.broker_order_id, OrderStatus.CANCELLED)
    ]


def test_us_shares_can_be_sold_on_either_server(either: Bench) -> None:
    either.clock.advance(timedelta(hours=15, minutes=30).total_seconds())

    either.adapter.place_order(request(**US | {"side": Side.SELL}))

    [order] = either.orders()
    assert order.side is Side.SELL


#: What the server does → how the order ends, and how often the server holds it.
ACCIDENTS: list[tuple[str, type[BrokerError] | None, int]] = [
    ("APBK0952", Rejected, 0),
    ("IGW00007", Rejected, 0),
    ("EGW00201", NotSent, 0),
    ("EGW00121", NotSent, 0),
    ("EGW00123", NotSent, 0),
    ("EGW00215", OutcomeUnknown, 0),
    ("EGW00301", OutcomeUnknown, 1),
    ("IGW00009", OutcomeUnknown, 1),
    ("no_number", OutcomeUnknown, 1),
    ("garbled", OutcomeUnknown, 1),
    ("reset", OutcomeUnknown, 1),
    ("html", OutcomeUnknown, 0),
    ("doubled", None, 1),
    ("delay", None, 1),
]


@pytest.mark.parametrize(("what", "error", "held"), ACCIDENTS)
def test_an_order_that_meets_an_accident_ends_as_its_evidence_says(
    real: Bench, what: str, error: type[BrokerError] | None, held: int
) -> None:
    seconds = 0.05 if what == "delay" else None
    real.meets(Fault(what=what, nth=1, seconds=seconds))

    if error is None:
        real.adapter.place_order(request())
    else:
        with pytest.raises(BrokerError) as raised:
            real.adapter.place_order(request())
        assert type(raised.value) is error

    assert real.held() == held
    assert real.server.desk.calls["order"] == 1, "one request for one call"


@pytest.mark.parametrize("what", ["html", "garbled", "reset", "EGW00301"])
def test_the_order_after_an_accident_has_its_own_answer(real: Bench, what: str) -> None:
    real.meets(Fault(what=what, nth=1))
    try:
        first = real.adapter.place_order(request()).broker_order_id
    except OutcomeUnknown:
        first = ""

    second = real.adapter.place_order(request(quantity=Decimal(7)))

    found = real.adapter.get_order(query(second.broker_order_id))
    assert found is not None
    assert found.quantity == 7
    assert second.broker_order_id != first


def test_an_answer_that_comes_twice_is_never_taken_for_the_answer_to_something_else(real: Bench) -> None:
    real.meets(*(Fault(what="doubled", on=on, rate=1) for on in ("order", "list")))  # type: ignore[arg-type]

    for quantity in range(1, 9):
        try:
            number = real.adapter.place_order(request(quantity=Decimal(quantity))).broker_order_id
            found = real.adapter.get_order(query(number))
        except OutcomeUnknown:
            # The second copy came when this order had left already: it is known not to be its answer.
            continue
        assert found is not None
        assert found.quantity == quantity
    assert len(real.listed().orders) == 8


def test_many_threads_over_few_connections_never_get_each_others_answers(real: Bench) -> None:
    few = KISBrokerAdapter.from_options(
        options(real.adapter.client.credentials.base_url, connections=3, connect_timeout=5),
        mode="live",
        clock=real.clock,
    )
    real.meets(Fault(what="doubled", rate=0.3), Fault(what="reset", rate=0.05))

    def place(quantity: int) -> tuple[int, str]:
        try:
            return quantity, few.place_order(request(quantity=Decimal(quantity))).broker_order_id
        except (OutcomeUnknown, NotSent):
            return quantity, ""

    with ThreadPoolExecutor(12) as pool:
        answered = dict(pool.map(place, range(1, 151)))
    few.close()

    truth = {f"20261123-91252-{order.number}": order.quantity for order in real.orders()}
    assert [number for number in answered.values() if number]
    assert all(truth[number] == quantity for quantity, number in answered.items() if number)
    # Nothing was sent twice.
    assert len(set(truth.values())) == len(truth)


# --- Denied before anything is sent ----------------------------------------------------------------------

DENIED: list[tuple[dict[str, Any], Code, str, str]] = [
    ({"limit_price": Decimal(60_050)}, Code.PRETRADE, "limit_price", "60000 or 60100"),
    ({"quantity": Decimal("2.5")}, Code.PRETRADE, "quantity", "2 or 3"),
    ({"venue": "NASD"}, Code.PRETRADE, "venue", "KRX, NXT or SOR"),
    (US | {"limit_price": Decimal("150.123")}, Code.PRETRADE, "limit_price", "150.12 or 150.13"),
]


@pytest.mark.parametrize(("changes", "code", "field", "text"), DENIED)
def test_an_impossible_order_never_reaches_the_broker(
    real: Bench, changes: dict[str, Any], code: Code, field: str, text: str
) -> None:
    with pytest.raises(PretradeDenied, match=text) as denied:
        real.adapter.place_order(request(**changes))

    assert (denied.value.denial, denied.value.field) == (code, field)
    assert real.server.desk.calls == {}


def strict(bench: Bench, **changes: Any) -> KISBrokerAdapter:
    """An adapter that keeps to the hours; it is never to reach a server."""
    return KISBrokerAdapter.from_options(
        options("http://127.0.0.1:1", check_hours=True, us=True, **changes), mode="live", clock=bench.clock
    )


@pytest.mark.parametrize("hours", [-24.0, 12.5, 24 * 32.0])
def test_outside_of_its_hours_a_venue_is_closed(real: Bench, hours: float) -> None:
    # A Sunday; half past ten in the evening; Christmas.
    real.clock.advance(hours * 3600)
    adapter = strict(real)

    with pytest.raises(PretradeDenied) as denied:
        adapter.place_order(request())

    assert denied.value.denial is Code.MARKET_CLOSED
    adapter.close()


def test_within_its_hours_an_order_goes_on_to_the_broker(real: Bench) -> None:
    adapter = strict(real)

    # There is no server at that address: it was not denied.
    with pytest.raises(NotSent):
        adapter.place_order(request())
    adapter.close()


def test_a_day_that_the_owner_has_closed_is_closed(real: Bench) -> None:
    adapter = strict(real, calendar={"KR": {"2026-11-23": "closed"}})

    with pytest.raises(PretradeDenied, match="by a setting"):
        adapter.place_order(request())
    adapter.close()


def test_us_orders_need_the_owners_word(real: Bench) -> None:
    adapter = KISBrokerAdapter.from_options(options("http://127.0.0.1:1"), mode="live", clock=real.clock)

    with pytest.raises(PretradeDenied, match="set its option us to true"):
        adapter.place_order(request(**US))
    adapter.close()


# --- Tokens ----------------------------------------------------------------------------------------------


def test_an_order_whose_token_was_revoked_early_did_not_leave_and_goes_with_the_next_one(real: Bench) -> None:
    real.adapter.place_order(request())
    real.clock.advance(61)
    real.server.desk.gatehouse.revoke_all()

    with pytest.raises(NotSent, match="EGW00121"):
        real.adapter.place_order(request())
    real.adapter.place_order(request())

    assert real.held() == 2


def test_a_token_that_ended_is_replaced_before_an_order_needs_it(real: Bench) -> None:
    real.adapter.authenticate()
    real.clock.advance(86_400 * 7)

    real.adapter.place_order(request())

    assert real.server.desk.refusals == {}


def test_eight_workers_sign_in_with_one_token(real: Bench, any_redis: Any) -> None:
    # In real time: who waits for the token would move a manual clock past its patience.
    adapters = [real.another(SystemClock()) for _ in range(8)]
    for adapter in adapters:
        adapter.share(any_redis.connect(), "kis-token:")

    with ThreadPoolExecutor(8) as pool:
        tokens = {one.digest for one in pool.map(lambda adapter: adapter.authenticate(), adapters)}
    for adapter in adapters:
        adapter.place_order(request())
        adapter.close()

    assert len(tokens) == 1
    assert real.server.desk.gatehouse.tokens_issued == 1
    assert real.held() == 8


# --- Lists and look-ups ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "orders", "pages"), [("real", 201, 3), ("paper", 31, 3)])
def test_a_list_of_many_pages_is_read_to_its_end(
    mode: str, orders: int, pages: int, request: pytest.FixtureRequest
) -> None:
    bench: Bench = request.getfixturevalue(mode)
    numbers = [bench.adapter.place_order(_small()).broker_order_id for _ in range(orders)]

    scan = bench.listed()

    assert scan.complete
    assert [one.broker_order_id for one in scan.orders] == numbers
    assert bench.server.desk.calls["daily"] == pages


def _small() -> OrderRequest:
    return request(quantity=Decimal(1))


def test_a_list_whose_second_page_fails_for_good_is_not_whole_and_shows_the_first(paper: Bench) -> None:
    for _ in range(16):
        paper.adapter.place_order(_small())
    paper.meets(*(Fault(what="html", on="list", nth=nth) for nth in (2, 3, 4, 5)))

    scan = paper.listed()

    assert not scan.complete
    assert len(scan.orders) == 15


def test_a_list_whose_second_page_fails_once_is_whole(paper: Bench) -> None:
    for _ in range(16):
        paper.adapter.place_order(_small())
    paper.meets(Fault(what="html", on="list", nth=2), Fault(what="EGW00201", on="list", nth=3))

    scan = paper.listed()

    assert scan.complete
    assert len(scan.orders) == 16


def test_a_list_whose_first_page_does_not_come_says_nothing(paper: Bench) -> None:
    paper.meets(Fault(what="html", on="list", rate=1))

    with pytest.raises(ReadFailed):
        paper.listed()


def test_a_list_from_before_the_brokers_reach_is_not_whole(real: Bench) -> None:
    assert real.adapter.list_orders(real.began - timedelta(days=200)).complete is False


def test_korean_and_us_orders_stand_in_one_list_in_the_order_of_their_receipt(real: Bench) -> None:
    numbers = []
    # New York opens at half past eleven at night in Korea.
    for asked, hours in ((request(), 0), (request(venue="SOR"), 0), (request(**US), 13.5)):
        real.clock.advance(hours * 3600 + 1)
        real.orders()  # the exchange makes up for the hours here, and not while a call waits for its answer
        numbers.append(real.adapter.place_order(asked).broker_order_id)

    scan = real.listed()

    assert [one.broker_order_id for one in scan.orders] == numbers
    assert scan.complete


def test_an_order_that_the_exchange_refuses_later_is_seen_as_refused(real: Bench) -> None:
    real.meets(Fault(what="refuse_later", nth=1, seconds=1))
    placed = real.adapter.place_order(request())
    real.clock.advance(2)

    found = real.adapter.get_order(query(placed.broker_order_id))

    assert found is not None
    assert found.status is OrderStatus.REFUSED


def test_a_fill_shows_its_quantity_and_its_average_price(real: Bench) -> None:
    placed = real.adapter.place_order(request(limit_price=None))
    real.clock.advance(5)

    found = real.adapter.get_order(query(placed.broker_order_id))

    assert found is not None
    assert (found.status, found.filled_quantity) == (OrderStatus.FILLED, 10)
    assert found.average_price is not None
    assert 60_000 < found.average_price < 80_000


# --- Cancelling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("venue", ["KRX", "NXT", "SOR"])
def test_a_cancel_goes_to_the_exchange_that_the_order_went_to(real: Bench, venue: str) -> None:
    placed = real.adapter.place_order(request(venue=venue))

    answer = real.adapter.cancel_order(query(placed.broker_order_id, reference=placed.reference))

    assert answer.broker_order_id == placed.broker_order_id
    found = real.adapter.get_order(query(placed.broker_order_id))
    assert found is not None
    assert found.status is OrderStatus.CANCELLED


def test_a_cancel_by_what_the_list_shows_works_as_well(real: Bench) -> None:
    real.adapter.place_order(request(venue="SOR", time_in_force=TimeInForce.DAY))
    [listed] = real.listed().orders

    real.adapter.cancel_order(query(listed.broker_order_id, reference=listed.reference))

    assert real.listed().orders[0].status is OrderStatus.CANCELLED


def test_a_number_of_yesterday_cancels_nothing_today(real: Bench) -> None:
    yesterday = real.adapter.place_order(request())
    real.clock.advance(86_400)
    today = real.adapter.place_order(request())
    # KIS counts anew each day.
    assert yesterday.broker_order_id[-10:] == today.broker_order_id[-10:]

    with pytest.raises(Rejected, match="another trading day"):
        real.adapter.cancel_order(query(yesterday.broker_order_id, reference=yesterday.reference))

    assert real.server.desk.calls["change"] == 0
    assert real.adapter.get_order(query(today.broker_order_id)).status is OrderStatus.WORKING  # type: ignore[union-attr]


def test_an_order_of_yesterday_is_over(real: Bench) -> None:
    placed = real.adapter.place_order(request())
    real.clock.advance(86_400)

    found = real.adapter.get_order(query(placed.broker_order_id))

    assert found is not None
    assert found.status is OrderStatus.EXPIRED


# --- In the product --------------------------------------------------------------------------------------


def test_kis_is_found_by_its_name() -> None:
    assert adapter_class("kis") is KISBrokerAdapter


def test_an_intent_is_answered_with_the_brokers_number_and_code(
    real: Bench, make_intent: Callable[..., ExecutionIntent]
) -> None:
    broker = LiveBroker(real.adapter, clock=real.clock)

    answer = broker.submit_intent(make_intent(limit_price=60_000, created_at=datetime.now(UTC)))

    assert answer.outcome is Outcome.ACCEPTED
    assert (answer.broker, answer.broker_code) == ("kis", "APBK0013")
    assert answer.broker_order_id == f"20261123-91252-{real.orders()[0].number}"


def test_an_answer_says_nothing_of_the_account(real: Bench) -> None:
    real.meets(Fault(what="APBK0952", nth=1))
    with pytest.raises(Rejected) as refused:
        real.adapter.place_order(replace(request(), symbol="000660", limit_price=Decimal(198_000)))

    assert "12345678" not in f"{refused.value!r}{refused.value.message}"


def test_a_cancel_of_the_last_nights_us_order_cancels_nothing_of_this_nights(real: Bench) -> None:
    real.clock.advance(timedelta(hours=15, minutes=30).total_seconds())
    last = real.adapter.place_order(request(**US))
    real.clock.advance(timedelta(hours=23).total_seconds())
    ours = real.adapter.place_order(request(**US))
    assert last.broker_order_id[-10:] == ours.broker_order_id[-10:], "numbers begin anew"

    with pytest.raises(Rejected, match="another trading day"):
        real.adapter.cancel_order(query(last.broker_order_id, "AAPL", reference=last.reference))

    found = real.adapter.get_order(query(ours.broker_order_id, "AAPL"))
    assert found is not None and found.status is OrderStatus.WORKING


@pytest.mark.parametrize("what", ["EGW00215", "garbled"])
def test_a_cancel_after_midnight_waits_until_the_night_of_its_us_order_is_known(
    real: Bench, what: str
) -> None:
    real.clock.advance(timedelta(hours=13, minutes=45).total_seconds())
    placed = real.adapter.place_order(request(**US))
    real.clock.advance(timedelta(hours=1).total_seconds())
    real.meets(Fault(what=what, on="list", rate=1))

    with pytest.raises(NotSent, match="looked up before its cancel"):
        real.adapter.cancel_order(query(placed.broker_order_id, "AAPL", reference=placed.reference))

    real.meets()
    real.adapter.cancel_order(query(placed.broker_order_id, "AAPL", reference=placed.reference))
    found = real.adapter.get_order(query(placed.broker_order_id, "AAPL"))
    assert found is not None and found.status is OrderStatus.CANCELLED


def test_a_number_without_its_day_names_no_order(real: Bench) -> None:
    bare = real.adapter.place_order(request()).broker_order_id[-10:]

    with pytest.raises(Rejected, match="no order number"):
        real.adapter.cancel_order(query(bare))

    assert real.adapter.get_order(query(bare)) is None


@pytest.mark.parametrize("branch", ["", "  ", "?!"])
def test_an_order_whose_branch_is_not_told_is_in_doubt_since_no_list_would_show_it_by_that_name(
    real: Bench, monkeypatch: pytest.MonkeyPatch, branch: str
) -> None:
    taken = real.adapter.client.post

    def without_branch(*arguments: Any) -> Any:
        reply = taken(*arguments)
        reply.fields["output"]["krx_fwdg_ord_orgno"] = branch
        return reply

    monkeypatch.setattr(real.adapter.client, "post", without_branch)

    with pytest.raises(OutcomeUnknown, match="names no branch") as raised:
        real.adapter.place_order(request())

    assert real.held() == 1 and "ORD_QTY" in raised.value.wire


def test_a_person_may_name_an_order_as_the_screen_shows_it_where_the_list_is_at_hand() -> None:
    full = "20261123-91252-0000117057"

    assert [KISBrokerAdapter.may_mean(text, full) for text in (full, "117057", "0000117057")] == [True] * 3
    assert [
        KISBrokerAdapter.may_mean(text, full) for text in ("17057", "", "20261124-91252-0000117057", "x")
    ] == [False] * 4
    assert KISBrokerAdapter.full_name("20261123-91252-117057") == full
    assert [KISBrokerAdapter.full_name(text) for text in ("117057", "20261123--0000117057", "")] == [None] * 3
