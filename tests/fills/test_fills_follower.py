"""Accepted orders are followed to their end, on either Redis, whoever dies on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from fills_case import KEYS, Case

from contracts import OrderScan
from tests.conftest import AnyRedis
from worker.errors import Unavailable
from worker.fills import Follower
from worker.logs import Event


@pytest.fixture(name="case")
def _case(any_redis: AnyRedis) -> Case:
    return Case(any_redis.connect)


@pytest.fixture(name="start")
def _start(case: Case) -> Iterator[Callable[..., Follower]]:
    """Starts followers, which listen until the test ends."""
    started: list[Follower] = []

    def start(worker: str = "w1", client: Any = None, **rules: Any) -> Follower:
        follower = case.follower(worker, client, **rules)
        started.append(follower)
        follower.turn()
        wait_until(lambda: bool(case.exchange.ears))
        return follower

    yield start
    for one in started:
        one.leave()


def wait_until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not done():
        assert time.monotonic() < until
        time.sleep(0.005)


def later(case: Case, follower: Follower, seconds: float = 10.0) -> None:
    case.clock.advance(seconds)
    follower.turn()


def test_an_accepted_order_is_followed_by_the_list_until_it_is_filled(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start()
    case.answer("a", "N1")
    case.exchange.shows("N1")
    later(case, follower)
    case.exchange.shows("N1", "PARTIALLY_FILLED", 4, 71000)
    later(case, follower)
    case.exchange.shows("N1", "FILLED", 10, 71200)
    later(case, follower)
    later(case, follower)

    assert case.told() == [
        ("WORKING", 0, None, "list"),
        ("PARTIALLY_FILLED", 4, 71000, "list"),
        ("FILLED", 10, 71200, "list"),
    ]
    assert {one.intent_id for one in case.events()} == {"a"}
    assert case.published == case.events()


def test_notices_are_told_at_once_without_a_reading_of_the_list(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start()
    case.answer("a", "N1")
    follower.turn()
    before = len(case.exchange.readings)

    case.exchange.says("N1", "WORKING")
    follower.turn()
    case.exchange.says("N1", "PARTIALLY_FILLED", 4, 71000)
    case.exchange.says("N1", "PARTIALLY_FILLED", 6, 71500)
    follower.turn()

    assert len(case.exchange.readings) == before
    assert case.told() == [
        ("WORKING", 0, None, "notice"),
        ("PARTIALLY_FILLED", 4, 71000, "notice"),
        ("FILLED", 10, 71300, "notice"),
    ]


def test_a_notice_that_comes_before_its_orders_answer_is_not_lost(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start()
    case.exchange.says("N1", "PARTIALLY_FILLED", 4, 71000)
    follower.turn()
    assert case.events() == []

    case.answer("a", "N1")
    follower.turn()

    assert case.told() == [("PARTIALLY_FILLED", 4, 71000, "notice")]
    assert case.published == case.events()


def test_it_outlives_the_worker_that_heard_it(case: Case, start: Callable[..., Follower]) -> None:
    first = start("w1")
    case.exchange.says("N1", "PARTIALLY_FILLED", 4, 71000)
    first.turn()
    case.client.delete(KEYS.follower)  # the lease of a killed worker ends

    second = start("w2")
    case.answer("a", "N1")
    second.turn()

    assert case.told() == [("PARTIALLY_FILLED", 4, 71000, "notice")]


def test_what_nobody_listened_to_is_told_by_the_list_after_the_gap(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start()
    case.answer("a", "N1")
    case.exchange.says("N1", "PARTIALLY_FILLED", 4, 71000)
    follower.turn()
    case.exchange.shows("N1", "PARTIALLY_FILLED", 7, 71100)

    case.exchange.ears[-1][1]()  # the connection was cut and is back
    later(case, follower, 1.0)

    assert case.told()[-1] == ("PARTIALLY_FILLED", 7, 71100, "list")


def test_many_gaps_in_a_row_do_not_have_the_list_read_all_the_time(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start()
    case.answer("a", "N1")
    later(case, follower, 1.0)
    before = len(case.exchange.readings)

    for _ in range(20):
        case.exchange.ears[-1][1]()
        later(case, follower, 0.1)

    assert len(case.exchange.readings) - before in (1, 2)


def test_a_refusal_by_the_exchange_after_the_acceptance_is_told_with_its_code(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start()
    case.answer("a", "N1")
    case.exchange.says("N1", "REFUSED", message="가격제한폭 초과")
    follower.turn()

    event = case.events()[-1]
    assert (event.status, event.safety_code, event.message) == ("REFUSED", "FS040", "가격제한폭 초과")


def test_only_a_refusal_by_the_exchange_is_a_warning_in_the_log(
    case: Case, start: Callable[..., Follower]
) -> None:
    case.log = log = Mock()
    follower = start()
    case.answer("a", "N1")
    case.exchange.says("N1", "WORKING")
    follower.turn()
    assert not log.warning.called

    case.exchange.says("N1", "REFUSED", message="가격제한폭 초과")
    follower.turn()

    log.warning.assert_called_once_with(
        Event.ORDER_REFUSED, intent_id="a", broker_order_id="N1", reason="가격제한폭 초과"
    )


def test_an_order_that_was_over_when_another_worker_looked_is_followed_no_more(
    case: Case, start: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = start()
    case.answer("a", "N1")
    case.exchange.shows("N1", "PARTIALLY_FILLED", 4, 71000)
    read = case.exchange.list_orders

    def read_while_another_ends_it(since: datetime) -> OrderScan:
        case.client.hdel(KEYS.working, "order:N1")
        return read(since)

    monkeypatch.setattr(case.exchange, "list_orders", read_while_another_ends_it)
    later(case, follower)

    assert case.events() == []
    assert case.client.hkeys(KEYS.working) == [b"position"]


def test_fills_whose_price_the_broker_does_not_say_are_told_with_a_code(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start()
    case.answer("a", "N1")
    case.exchange.shows("N1", "FILLED", 10)
    later(case, follower)

    assert (case.events()[-1].average_price, case.events()[-1].safety_code) == (None, "FS041")


def test_an_order_is_followed_until_the_list_agrees_how_it_ended(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start()
    case.answer("a", "N1")
    case.exchange.says("N1", "CANCELLED")
    follower.turn()
    case.exchange.shows("N1", "WORKING")
    later(case, follower)
    case.exchange.shows("N1", "CANCELLED", 2, 71000)
    later(case, follower)
    readings = len(case.exchange.readings)
    later(case, follower)

    assert case.told() == [("CANCELLED", 0, None, "notice"), ("CANCELLED", 2, 71000, "list")]
    assert len(case.exchange.readings) == readings


def test_the_answer_to_a_cancel_starts_no_second_life_of_its_target(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start()
    case.answer("a", "N1")
    case.exchange.shows("N1", "FILLED", 10, 71000)
    later(case, follower)

    case.answer("c", "N1", target="a")
    later(case, follower)

    assert [one.intent_id for one in case.events()] == ["a"]
    assert case.client.hkeys(KEYS.working) == [b"position"]


def test_orders_of_others_are_not_told_and_are_forgotten(case: Case, start: Callable[..., Follower]) -> None:
    follower = start()
    case.exchange.says("X9", "PARTIALLY_FILLED", 4, 71000)
    case.answer("a", None)
    follower.turn()
    later(case, follower, 2 * 86400.0)

    assert case.events() == []
    assert case.client.hkeys(KEYS.working) == [b"position"]


def test_an_order_that_never_ends_is_followed_for_as_long_as_answers_are_kept(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start(retention=2 * 86400.0)
    case.answer("a", "N1")
    later(case, follower, 170_000.0)
    assert b"order:N1" in case.client.hkeys(KEYS.working)

    later(case, follower, 10_000.0)

    assert case.client.hkeys(KEYS.working) == [b"position"]


def test_the_list_is_read_again_after_it_could_not_be(case: Case, start: Callable[..., Follower]) -> None:
    follower = start()
    case.answer("a", "N1")
    case.exchange.shows("N1", "FILLED", 10, 71000)
    case.exchange.fails = 1
    later(case, follower)
    assert case.events() == []

    later(case, follower)

    assert case.told() == [("FILLED", 10, 71000, "list")]


def test_without_a_gap_the_list_is_read_once_in_its_interval(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start()
    case.answer("a", "N1")
    later(case, follower)
    readings = len(case.exchange.readings)

    for _ in range(9):
        later(case, follower, 1.0)
    assert len(case.exchange.readings) == readings

    later(case, follower, 1.0)
    assert len(case.exchange.readings) == readings + 1


def test_the_list_is_read_from_a_minute_before_the_oldest_order_that_is_followed(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start()
    oldest = case.clock.now()
    case.answer("a", "N1")
    case.clock.advance(5.0)
    case.answer("b", "N2")
    later(case, follower)

    assert oldest - case.exchange.readings[-1] == timedelta(seconds=60)


def test_a_list_that_takes_long_is_read_less_often(case: Case, start: Callable[..., Follower]) -> None:
    follower = start()
    case.answer("a", "N1")
    case.exchange.shows("N1")
    case.exchange.takes = 6.0
    later(case, follower)
    readings = len(case.exchange.readings)

    later(case, follower, 17.0)
    assert len(case.exchange.readings) == readings

    later(case, follower, 1.0)
    assert len(case.exchange.readings) == readings + 1


def test_without_an_open_order_the_list_is_not_read(case: Case, start: Callable[..., Follower]) -> None:
    follower = start()
    case.answer("a", None)
    later(case, follower)
    later(case, follower)

    assert case.exchange.readings == []


def test_one_worker_follows_at_a_time_and_another_when_it_leaves(
    case: Case, start: Callable[..., Follower]
) -> None:
    first = start("w1")
    second = start("w2")
    assert len(case.exchange.ears) == 1

    first.leave()
    second.turn()

    wait_until(lambda: len(case.exchange.ears) == 2)
    assert [stop.is_set() for _, _, stop in case.exchange.ears] == [True, False]


def test_who_leads_no_more_stops_listening(case: Case, start: Callable[..., Follower]) -> None:
    first = start("w1")
    case.client.set(KEYS.follower, "w2")

    first.turn()

    _, _, stop = case.exchange.ears[0]
    assert stop.is_set()


def test_who_never_led_leaves_without_asking_redis(case: Case) -> None:
    case.follower("w1", client=object()).leave()


def test_a_turn_is_due_when_there_is_news_and_not_again_after_it(
    case: Case, start: Callable[..., Follower]
) -> None:
    follower = start()
    follower.turn()
    assert not follower.news.is_set()

    case.exchange.says("N1", "WORKING")
    assert follower.news.is_set()
    follower.turn()

    assert not follower.news.is_set()


def test_two_workers_that_both_lead_for_a_moment_tell_each_change_once(
    case: Case, start: Callable[..., Follower]
) -> None:
    first = start("w1")
    case.client.delete(KEYS.follower)
    second = start("w2")
    case.answer("a", "N1")
    case.exchange.shows("N1", "PARTIALLY_FILLED", 4, 71000)
    for follower, name in ((first, "w1"), (second, "w2")):
        case.client.set(KEYS.follower, name)
        later(case, follower)

    assert case.told() == [("PARTIALLY_FILLED", 4, 71000, "list")]


class Flaky:
    """A client whose scripts run, and whose replies are then lost, for so many times."""

    def __init__(self, client: Any, losses: int) -> None:
        self._client = client
        self.losses = losses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def evalsha(self, *arguments: Any) -> Any:
        return self._lose(self._client.evalsha(*arguments))

    def eval(self, *arguments: Any) -> Any:
        return self._lose(self._client.eval(*arguments))

    def _lose(self, answer: Any) -> Any:
        if self.losses:
            self.losses -= 1
            raise redis.ConnectionError("the reply was lost")
        return answer


def test_a_notice_whose_writing_was_not_confirmed_is_not_counted_twice(
    case: Case, start: Callable[..., Follower]
) -> None:
    client = Flaky(case.connect(), 0)
    follower = start("w1", client)
    case.answer("a", "N1")
    follower.turn()
    case.exchange.says("N1", "PARTIALLY_FILLED", 4, 71000)
    client.losses = 1
    with pytest.raises(Unavailable):
        follower.turn()

    follower.turn()

    assert case.told() == [("PARTIALLY_FILLED", 4, 71000, "notice")]


def test_answers_whose_reading_was_not_confirmed_are_followed_once(
    case: Case, start: Callable[..., Follower]
) -> None:
    client = Flaky(case.connect(), 0)
    follower = start("w1", client)
    for number in range(450):
        case.answer(f"i{number}", f"N{number}")
        case.exchange.shows(f"N{number}")
    client.losses = 1
    with pytest.raises(Unavailable):
        follower.turn()

    later(case, follower)

    assert len(case.events()) == 450
