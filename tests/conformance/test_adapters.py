"""One suite over every adapter and its simulator: the same evidence means the same, whatever the broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from adapter_cases import LAG, NAMES, TRIED, AdapterCase, Condition, cases
from kis_case import Host

from contracts import ExecutionIntent, OrderQuery, OrderRequest, OrderStatus, Outcome, Side
from worker.brokers import BaseBrokerAdapter, LiveBroker, Send
from worker.clock import ManualClock
from worker.errors import NotSent, OutcomeUnknown, Rejected


class Bench:
    """One adapter case with its clock and its broker."""

    def __init__(self, case: AdapterCase, folder: Path) -> None:
        self.clock = ManualClock()
        self.began = self.clock.now()
        self._case = case
        self._folder = folder
        self._made: list[BaseBrokerAdapter] = []

    def adapter(self, condition: Condition = Condition.ANSWERS) -> BaseBrokerAdapter:
        self._made.append(self._case.make(condition, self.clock, self._folder))
        return self._made[-1]

    def book(self) -> dict[str, Decimal]:
        return self._case.book(self._folder)

    def held(self, expected: int = 0) -> int:
        """How many orders the broker holds; it is given some time to have as many as expected."""
        give_up = time.monotonic() + 2
        while len(self.book()) < expected and time.monotonic() < give_up:
            time.sleep(0.01)
        return len(self.book())

    def request(
        self, client_order_id: str = "intent-1", *, within: float = 5.0, quantity: int = 10
    ) -> OrderRequest:
        return OrderRequest(
            client_order_id=client_order_id,
            symbol="005930",
            side=Side.BUY,
            quantity=Decimal(quantity),
            limit_price=Decimal(71000),
            send_before=self.clock.boottime() + within,
        )

    def close(self) -> None:
        for adapter in self._made:
            adapter.close()
        self._case.close()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bench(name: str, kis_host: Host, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(cases(kis_host)[name], tmp_path)
    yield bench
    bench.close()


in_every_condition = pytest.mark.parametrize(("name", "condition"), TRIED)


def by_number(number: str) -> OrderQuery:
    return OrderQuery("005930", broker_order_id=number)


# --- the outcome table -----------------------------------------------------------------------------------

#: condition → how a placement ends, how often the broker holds the order, the answer through `LiveBroker`
TABLE = {
    Condition.ANSWERS: (None, 1, Outcome.ACCEPTED),
    Condition.REFUSES: (Rejected, 0, Outcome.REJECTED),
    Condition.UNREACHABLE: (NotSent, 0, Outcome.NOT_SENT),
    Condition.LOSES_THE_REPLY: (OutcomeUnknown, 1, None),
    Condition.SHOWS_LATE: (None, 1, Outcome.ACCEPTED),
    Condition.STAYS_SILENT: (OutcomeUnknown, 1, None),
    Condition.ANSWERS_TOO_LATE: (OutcomeUnknown, 1, None),
    Condition.TAKES_IT_LATE: (OutcomeUnknown, 1, None),
    Condition.BREAKS_OFF: (OutcomeUnknown, 0, None),
    Condition.SHOWS_A_PAGE: (OutcomeUnknown, 0, None),
    Condition.GARBLES_THE_REPLY: (OutcomeUnknown, 1, None),
    Condition.NAMES_NO_NUMBER: (OutcomeUnknown, 1, None),
    Condition.ANSWERS_TWICE: (None, 1, Outcome.ACCEPTED),
    Condition.FAILS_AND_HOLDS_IT: (OutcomeUnknown, 1, None),
    Condition.TIMES_OUT_INSIDE: (OutcomeUnknown, 1, None),
    Condition.HAS_TOO_MANY_CALLS: (NotSent, 0, Outcome.NOT_SENT),
    Condition.HAS_TOO_MANY_CALLS_INSIDE: (OutcomeUnknown, 0, None),
    Condition.SAYS_WHAT_NOBODY_KNOWS: (OutcomeUnknown, 0, None),
    Condition.FORGETS_THE_TOKEN: (NotSent, 0, Outcome.NOT_SENT),
}


def test_every_condition_of_a_broker_has_its_row() -> None:
    assert set(TABLE) == set(Condition)


@in_every_condition
def test_a_placement_ends_as_the_table_says(bench: Bench, condition: Condition) -> None:
    error, held, _ = TABLE[condition]
    adapter = bench.adapter(condition)

    if error is None:
        # What is answered is on the book under that number, and nothing else is.
        assert {adapter.place_order(bench.request()).broker_order_id} == bench.book().keys()
    else:
        with pytest.raises(error) as raised:
            adapter.place_order(bench.request())
        assert type(raised.value) is error, "a fault of ours is no evidence"
        assert raised.value.message

    assert bench.held(held) == held


@in_every_condition
def test_an_intent_is_answered_as_the_table_says(
    bench: Bench, condition: Condition, make_intent: Callable[..., ExecutionIntent]
) -> None:
    _, held, outcome = TABLE[condition]
    broker = LiveBroker(bench.adapter(condition), clock=bench.clock)
    send = Send("default", 1, bench.clock.boottime() + 5)

    if outcome is None:
        with pytest.raises(OutcomeUnknown):
            broker.submit_intent(make_intent(), send)
    else:
        response = broker.submit_intent(make_intent(), send)
        assert (response.outcome, response.broker) == (outcome, broker.adapter.broker_id)
        assert (response.broker_order_id is not None) is response.accepted
        assert bench.book().keys() == ({response.broker_order_id} if response.accepted else set())

    assert bench.held(held) == held


@in_every_condition
def test_once_the_lag_is_over_a_whole_list_shows_exactly_what_the_broker_holds(
    bench: Bench, condition: Condition
) -> None:
    error, held, _ = TABLE[condition]
    with pytest.raises(error) if error else nullcontext():
        bench.adapter(condition).place_order(bench.request())
    assert bench.held(held) == held
    bench.clock.advance(bench.adapter().visibility_lag)

    scan = bench.adapter().list_orders(bench.began)

    assert scan.complete
    assert {row.broker_order_id: row.quantity for row in scan.orders} == bench.book()


@in_every_condition
def test_after_any_accident_the_next_order_gets_its_own_answer(bench: Bench, condition: Condition) -> None:
    # One adapter, so that its connections are what the accident left of them.
    adapter = bench.adapter(condition)
    answered: dict[str, int] = {}
    in_doubt: set[int] = set()
    for quantity in range(1, 6):
        try:
            order = adapter.place_order(bench.request(f"intent-{quantity}", quantity=quantity))
            answered[order.broker_order_id] = quantity
        except OutcomeUnknown:
            in_doubt.add(quantity)
        except (NotSent, Rejected):
            continue

    bench.held(len(answered) + TABLE[condition][1] * len(in_doubt))
    book = bench.book()
    assert {number: book[number] for number in answered} == answered
    assert sorted(book.values()) == sorted(set(book.values())), "an order was placed twice"
    # Nothing is there of which the adapter has said that it is not.
    assert set(book.values()) <= in_doubt | set(answered.values())


def test_a_refusal_shows_the_brokers_own_code(bench: Bench) -> None:
    with pytest.raises(Rejected) as refused:
        bench.adapter(Condition.REFUSES).place_order(bench.request())

    assert refused.value.code


# --- the deadline ----------------------------------------------------------------------------------------


def test_an_order_past_its_send_deadline_never_leaves(bench: Bench) -> None:
    request = bench.request(within=2)
    bench.clock.advance(2.5)

    with pytest.raises(NotSent):
        bench.adapter().place_order(request)

    assert bench.held() == 0
    assert bench.adapter().list_orders(bench.began).orders == ()


def test_a_cancel_past_its_send_deadline_never_leaves(bench: Bench) -> None:
    adapter = bench.adapter()
    number = adapter.place_order(bench.request()).broker_order_id

    with pytest.raises(NotSent):
        adapter.cancel_order(
            OrderQuery("005930", broker_order_id=number, send_before=bench.clock.boottime() - 1)
        )

    order = adapter.get_order(by_number(number))
    assert order is not None
    assert order.status is OrderStatus.WORKING


# --- looking up ------------------------------------------------------------------------------------------


def test_an_order_reads_back_as_it_was_placed(bench: Bench) -> None:
    adapter = bench.adapter()
    placed = adapter.place_order(bench.request())

    order = adapter.get_order(by_number(placed.broker_order_id))

    assert order is not None
    assert (order.broker_order_id, order.symbol, order.side) == (placed.broker_order_id, "005930", Side.BUY)
    assert (order.quantity, order.limit_price) == (Decimal(10), Decimal(71000))
    assert order.status is OrderStatus.WORKING
    assert abs(order.placed_at - bench.began) <= timedelta(seconds=1)
    assert adapter.list_orders(bench.began - timedelta(seconds=1)).orders == (order,)


def test_an_order_whose_reply_was_lost_is_found_in_the_list(bench: Bench) -> None:
    adapter = bench.adapter(Condition.LOSES_THE_REPLY)
    with pytest.raises(OutcomeUnknown):
        adapter.place_order(bench.request("lost-1"))
    bench.clock.advance(adapter.visibility_lag)

    scan = adapter.list_orders(bench.began - timedelta(seconds=1))

    [order] = scan.orders
    assert scan.complete
    assert (order.symbol, order.side, order.quantity) == ("005930", Side.BUY, Decimal(10))
    if adapter.client_order_ids:
        assert order.client_order_id == "lost-1"
        assert adapter.get_order(OrderQuery("005930", client_order_id="lost-1")) == order


def test_an_order_that_never_left_is_in_no_list(bench: Bench) -> None:
    adapter = bench.adapter(Condition.UNREACHABLE)
    with pytest.raises(NotSent):
        adapter.place_order(bench.request())

    assert bench.adapter().list_orders(bench.began).orders == ()


def test_an_order_may_show_late_but_no_later_than_the_adapter_says(bench: Bench) -> None:
    adapter = bench.adapter(Condition.SHOWS_LATE)
    number = adapter.place_order(bench.request()).broker_order_id

    early = (adapter.list_orders(bench.began).orders, adapter.get_order(by_number(number)))
    bench.clock.advance(LAG)

    assert early == ((), None)
    assert adapter.visibility_lag >= LAG
    assert [order.broker_order_id for order in adapter.list_orders(bench.began).orders] == [number]
    assert adapter.get_order(by_number(number)) is not None


def test_a_whole_list_says_that_it_is_whole_and_runs_oldest_first(bench: Bench) -> None:
    adapter = bench.adapter()
    empty = adapter.list_orders(bench.began)
    numbers = []
    for at in range(250):
        numbers.append(adapter.place_order(bench.request(f"intent-{at}")).broker_order_id)
        bench.clock.advance(0.1)

    scan = adapter.list_orders(bench.began)

    assert (empty.orders, empty.complete) == ((), True)
    assert scan.complete
    assert [order.broker_order_id for order in scan.orders] == numbers
    assert len(set(numbers)) == 250


def test_a_list_leaves_out_what_is_older_than_asked_for(bench: Bench) -> None:
    adapter = bench.adapter()
    adapter.place_order(bench.request("old"))
    bench.clock.advance(60)
    since = bench.clock.now()
    number = adapter.place_order(bench.request("new")).broker_order_id

    assert [order.broker_order_id for order in adapter.list_orders(since).orders] == [number]


def test_an_unknown_order_is_not_shown(bench: Bench) -> None:
    adapter = bench.adapter()

    assert adapter.get_order(by_number("no-such-number")) is None
    if adapter.client_order_ids:
        assert adapter.get_order(OrderQuery("005930", client_order_id="never-sent")) is None


# --- cancelling ------------------------------------------------------------------------------------------


def test_a_working_order_can_be_cancelled_under_its_own_number(bench: Bench) -> None:
    adapter = bench.adapter()
    number = adapter.place_order(bench.request()).broker_order_id

    answer = adapter.cancel_order(by_number(number))

    order = adapter.get_order(by_number(number))
    assert answer.broker_order_id == number
    assert order is not None
    assert order.status is OrderStatus.CANCELLED
    assert order.status.is_final


def test_a_working_order_can_be_cancelled_by_our_id_where_the_broker_knows_it(bench: Bench) -> None:
    adapter = bench.adapter()
    if not adapter.client_order_ids:
        pytest.skip("this broker knows orders by its own numbers only")
    number = adapter.place_order(bench.request("intent-7")).broker_order_id

    assert adapter.cancel_order(OrderQuery("005930", client_order_id="intent-7")).broker_order_id == number


def test_cancelling_an_order_that_is_done_is_refused(bench: Bench) -> None:
    adapter = bench.adapter()
    number = adapter.place_order(bench.request()).broker_order_id
    adapter.cancel_order(by_number(number))

    with pytest.raises(Rejected) as refused:
        adapter.cancel_order(by_number(number))

    assert refused.value.code


def test_cancelling_an_order_the_broker_does_not_know_is_refused(bench: Bench) -> None:
    with pytest.raises(Rejected) as refused:
        bench.adapter().cancel_order(by_number("no-such-number"))

    assert refused.value.code


def test_a_cancel_whose_reply_was_lost_is_a_doubt_and_took_effect(bench: Bench) -> None:
    number = bench.adapter().place_order(bench.request()).broker_order_id

    with pytest.raises(OutcomeUnknown):
        bench.adapter(Condition.LOSES_THE_REPLY).cancel_order(by_number(number))

    order = bench.adapter().get_order(by_number(number))
    assert order is not None
    assert order.status is OrderStatus.CANCELLED


def test_a_cancel_that_never_left_changes_nothing(bench: Bench) -> None:
    number = bench.adapter().place_order(bench.request()).broker_order_id

    with pytest.raises(NotSent):
        bench.adapter(Condition.UNREACHABLE).cancel_order(by_number(number))

    order = bench.adapter().get_order(by_number(number))
    assert order is not None
    assert order.status is OrderStatus.WORKING


# --- what an adapter says of itself ----------------------------------------------------------------------


def test_an_adapter_says_what_its_broker_can_do(bench: Bench) -> None:
    adapter = bench.adapter()

    assert adapter.broker_id
    assert isinstance(adapter.client_order_ids, bool)
    assert adapter.visibility_lag >= 0
    assert adapter.Options.model_config["extra"] == "forbid"
