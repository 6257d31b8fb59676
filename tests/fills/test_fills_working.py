"""What is known of the followed orders is written by many and told once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import redis
from fills_case import KEYS, Case

from contracts import ExecutionResponse, OrderNotice, OrderStatus, Outcome, dump
from tests.conftest import AnyRedis
from worker.errors import Unavailable
from worker.fills.life import Life
from worker.fills.working import Seen, Working


@pytest.fixture(name="case")
def _case(any_redis: AnyRedis) -> Case:
    return Case(any_redis.connect)


def working(case: Case, client: Any = None) -> Working:
    return Working(client or case.connect(), "default", "exchange", case.clock)


def noticed(number: int, filled: int, price: int | None = 71000, listener: str = "ear") -> Seen:
    paid = None if price is None else Decimal(price)
    status = OrderStatus.PARTIALLY_FILLED if filled else OrderStatus.WORKING
    notice = OrderNotice(
        "N1", "005930", status, quantity=Decimal(10), filled_quantity=Decimal(filled), price=paid
    )
    return lambda life: (life or Life("N1", 1)).after_notice(notice, listener, number)


class Overtaken:
    """A client that others overtake: after each of its next readings, somebody else writes."""

    def __init__(self, client: Any, times: int, write: Callable[[], object]) -> None:
        self._client = client
        self._write = write
        self.times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def hmget(self, *arguments: Any) -> Any:
        found = self._client.hmget(*arguments)
        if self.times:
            self.times -= 1
            self._write()
        return found


class Counting:
    """Notes which commands are sent."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.sent: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.sent.append(name)
        return getattr(self._client, name)


def _others(case: Case) -> Callable[[], object]:
    """Another worker that hears an execution of one share each time."""
    other, numbers = working(case), iter(range(1, 1000))
    return lambda: other.see({"N1": noticed(next(numbers), 1, listener="other")}, "notice")


def test_a_sight_that_was_overtaken_is_written_on_top_and_told_once(case: Case) -> None:
    case.answer("a", "N1")
    working(case).take_answers()
    mine = working(case, Overtaken(case.connect(), 1, _others(case)))

    told = mine.see({"N1": noticed(1, 3)}, "notice")

    assert [int(one.filled_quantity) for one in told] == [4]
    assert [int(one.filled_quantity) for one in case.events()] == [1, 4]


def test_a_writer_that_is_overtaken_every_time_says_so_and_has_told_nothing(case: Case) -> None:
    mine = working(case, Overtaken(case.connect(), 1000, _others(case)))

    with pytest.raises(Unavailable, match="somebody else"):
        mine.see({"N1": noticed(1, 3)}, "notice")

    assert case.events() == []


def test_answers_that_another_worker_took_meanwhile_are_not_taken_again(case: Case) -> None:
    case.answer("a", "N1")
    case.answer("b", "N2")
    mine = working(case, Overtaken(case.connect(), 1, lambda: working(case).take_answers()))

    assert mine.take_answers() == (0, [])
    assert sorted(life.intent_id for life in mine.lives()) == ["a", "b"]


def test_answers_whose_orders_are_written_by_somebody_else_are_taken_after_that(case: Case) -> None:
    case.answer("a", "N1")
    mine = working(case, Overtaken(case.connect(), 1, _others(case)))

    count, events = mine.take_answers()

    assert (count, [int(one.filled_quantity) for one in events]) == (1, [1])


@pytest.mark.parametrize("fields", [{"foo": "bar"}, {"body": "no message"}])
def test_what_a_stranger_put_among_the_answers_keeps_no_order_from_being_followed(
    case: Case, fields: dict[str, str]
) -> None:
    case.answer("a", "N1")
    case.connect().xadd(KEYS.responses, fields)
    case.answer("b", "N2")
    mine = working(case)

    while mine.take_answers()[0]:
        pass

    assert sorted(life.intent_id for life in mine.lives()) == ["a", "b"]


def test_answers_that_cannot_be_taken_for_now_stay_to_be_taken(case: Case) -> None:
    case.answer("a", "N1")
    mine = working(case, overtaken := Overtaken(case.connect(), 1000, _others(case)))

    assert mine.take_answers() == (0, [])
    overtaken.times = 0
    assert mine.take_answers()[0] == 1


def test_an_order_that_the_broker_numbered_and_refused_is_not_followed(case: Case) -> None:
    refused = ExecutionResponse(
        intent_id="a",
        accepted=False,
        broker="exchange",
        message="",
        timestamp=case.clock.now(),
        outcome=Outcome.REJECTED,
        code="BROKER_REJECTED",
        broker_order_id="N1",
        route="default",
        attempts=1,
    )
    case.client.xadd(KEYS.responses, {"intent_id": "a", "body": dump(refused)})
    mine = working(case)

    assert mine.take_answers() == (1, [])
    assert mine.lives() == []


def test_an_order_is_followed_since_it_left(case: Case) -> None:
    left_at = case.clock.now()
    case.answer("a", "N1", sent_at=left_at - timedelta(seconds=5))
    mine = working(case)
    mine.take_answers()

    [life] = mine.lives()
    assert life.since == round((left_at - timedelta(seconds=5)).timestamp() * 1000)


def test_what_brings_nothing_new_is_not_written(case: Case) -> None:
    working(case).see({"N1": noticed(1, 3)}, "notice")
    client = Counting(case.connect())

    assert working(case, client).see({"N1": noticed(1, 3)}, "notice") == []
    assert working(case, client).see({"N9": lambda life: life}, "list") == []
    assert working(case, client).see({}, "notice") == []
    assert {"evalsha", "eval"}.isdisjoint(client.sent)


def test_an_order_that_works_or_has_a_price_carries_no_code_and_one_without_does(case: Case) -> None:
    case.answer("a", "N1")
    mine = working(case)
    mine.take_answers()

    for number, (filled, price) in enumerate([(0, None), (3, 71000)], start=1):
        mine.see({"N1": noticed(number, filled, price)}, "notice")

    assert [one.safety_code for one in case.events()] == [None, None]


def test_only_who_leads_can_resign_and_only_one_leads(case: Case) -> None:
    first, second = working(case), working(case)

    assert first.lead("w1", 10) is True
    assert 9000 < case.client.pttl(KEYS.follower) <= 10_000
    assert second.lead("w2", 10) is False
    second.resign("w2")
    assert second.lead("w2", 10) is False
    assert first.lead("w1", 10) is True
    first.resign("w1")
    assert second.lead("w2", 10) is True


def test_a_key_that_somebody_else_has_spoilt_is_not_taken_for_a_server_that_is_away(case: Case) -> None:
    case.client.set(KEYS.working, "spoilt")

    with pytest.raises(redis.ResponseError):
        working(case).lives()


@pytest.mark.parametrize("alien", [{"foo": "bar"}, {"body": b"\xff"}, {"body": "{}"}])
def test_an_answer_that_cannot_be_read_is_told_once_and_does_not_hold_up_those_behind_it(
    case: Case, alien: dict[Any, Any]
) -> None:
    odd: list[str] = []
    case.answer("a", "N1")
    entry = case.connect().xadd(KEYS.responses, alien).decode()
    case.answer("b", "N2")
    mine = Working(case.connect(), "default", "exchange", case.clock, lambda which, _why: odd.append(which))

    assert mine.take_answers() == (3, [])
    assert mine.take_answers() == (0, [])
    assert sorted(life.intent_id for life in mine.lives()) == ["a", "b"]
    assert odd == [entry]
