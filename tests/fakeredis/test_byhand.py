"""What a person says of a doubt, held against a broker's list that shows no ids of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from contracts import Outcome, Side
from tests.conftest import AnyRedis, make_intent
from tests.desk import KEYS, answers, enqueue, events, kinds, state
from tests.fakeredis.test_resolver import HELD, LOST, Bench, _cancel_in_doubt, keyed, unnamed
from tests.mock_broker import MockBroker
from worker.byhand import Named, Word, named_in_full, named_in_list, target_named
from worker.errors import Refused
from worker.evidence import moment
from worker.ledger.control import Control
from worker.ledger.records import Doubt

Make = Callable[..., Bench]
WORDS = {"actor": "kim@desk", "reason": "seen on the screen"}


@pytest.fixture(name="bench")
def _bench(any_redis: AnyRedis) -> Make:
    return lambda *replies, **broker: Bench(any_redis, *replies, **broker)


def long_ago(here: Bench, intent_id: str = "a") -> None:
    """It must show in the list by now."""
    flight = here.client.hget(KEYS.intent(intent_id), "flight").decode().split(":")
    here.client.hset(KEYS.intent(intent_id), "flight", ":".join([*flight[:4], "1"]))


def open_doubt(here: Bench) -> Doubt:
    return replace(Control(here.client, "default").open_doubt("a"), quiet_at=quiet_at(here))


def quiet_at(here: Bench) -> int:
    launched = int(here.client.hget(KEYS.intent("a"), "flight").decode().split(":")[3])
    return launched + 6000


def say(here: Bench, accepted: str | None = None, *foreign: str) -> Named | None:
    return named_in_list(here.broker, here.desk.ledger, open_doubt(here), Word(accepted, foreign))


@pytest.fixture(name="here")
def _here(bench: Make) -> Bench:
    here = keyed(bench, LOST, exclusive=False)
    here.doubt()
    long_ago(here)
    return here


def test_an_order_is_known_by_the_name_and_the_reference_of_its_row(here: Bench) -> None:
    here.broker.orders.append(unnamed("20261123-91252-0000117057", reference="KRX:00:10"))
    here.broker.may_mean = lambda text, number: number.endswith(text)  # type: ignore[method-assign]

    assert say(here, "117057") == Named("20261123-91252-0000117057", "KRX:00:10")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"symbol": "000660"},
            "order N1 is BUY 10 000660 @ 71000, and the doubt is about BUY 10 005930 @ 71000",
        ),
        ({"side": Side.SELL}, "order N1 is SELL 10 005930"),
        ({"broker_order_id": "N2"}, "shows no order N1 since"),
    ],
)
def test_a_number_that_the_list_knows_otherwise_is_refused(
    here: Bench, changes: dict[str, Any], why: str
) -> None:
    here.broker.orders.append(replace(unnamed("N1"), **changes))

    with pytest.raises(Refused, match=why):
        say(here, "N1")


def test_a_number_of_two_orders_must_be_written_in_full(here: Bench) -> None:
    here.broker.orders += [unnamed("D1-N1"), unnamed("D2-N1")]
    here.broker.may_mean = lambda text, number: number.endswith(text)  # type: ignore[method-assign]

    with pytest.raises(Refused, match="any of D1-N1, D2-N1: write it in full"):
        say(here, "N1")


def test_a_part_of_the_list_refuses_no_number_that_is_written_in_full(here: Bench) -> None:
    here.broker.complete = False

    assert say(here, "N1") == Named("N1")


def test_what_may_be_the_order_must_be_named_before_it_is_called_not_placed(here: Bench) -> None:
    theirs, late = unnamed("N7"), unnamed("N8", placed_at=moment(quiet_at(here)) + timedelta(seconds=61))
    here.broker.orders += [theirs, late, unnamed("N9", quantity=Decimal(11))]

    with pytest.raises(Refused, match=r"N7 \(BUY 10 005930 @ 71000, .* UTC\)\. Say --accepted"):
        say(here)
    assert say(here, None, "N7") is None

    assert [(one.type, one.broker_order_id) for one in events(here.client)[1:]] == [("FOREIGN_ORDER", "N7")]


def test_an_order_that_was_named_as_somebody_elses_is_no_orphan_later(here: Bench) -> None:
    here.broker.orders.append(unnamed("N7"))
    assert say(here, None, "N7") is None
    Control(here.client, "default").resolve_by_hand("a", broker_order_id=None, not_placed=True, **WORDS)

    here.scan()

    assert "ORPHAN_ORDER" not in kinds(here.client)


def test_an_order_that_is_another_intents_is_no_look_alike(bench: Make) -> None:
    here = keyed(bench, LOST, HELD, exclusive=False)
    enqueue(here.client, make_intent(intent_id="b"), make_intent(intent_id="a"))
    here.desk.work()
    here.client.hset(KEYS.owned, "number:N1", "1:1:z")
    here.broker.orders.append(unnamed("N1"))
    long_ago(here, "b")
    doubt = replace(Control(here.client, "default").open_doubt("b"), quiet_at=2**41)

    assert named_in_list(here.broker, here.desk.ledger, doubt, Word(None)) is None


def test_an_order_that_an_intent_owned_days_ago_is_not_given_to_another(here: Bench) -> None:
    here.client.hset(KEYS.owned, "number:N7", "1:1:b")

    with pytest.raises(Refused, match="order N7 belongs to intent b already"):
        Control(here.client, "default").resolve_by_hand("a", broker_order_id="N7", not_placed=False, **WORDS)


def test_a_name_that_needs_the_list_is_refused_where_there_is_none() -> None:
    class CountsAnew(MockBroker):
        @classmethod
        def full_name(cls, text: str) -> str | None:
            return None

    with pytest.raises(Refused, match="117057 names no order at mock by itself: write it as worker report"):
        named_in_full(CountsAnew, "117057")


def test_a_cancel_is_answered_with_the_number_of_its_target_and_no_other(bench: Make) -> None:
    here = bench(lambda request: HELD)
    _cancel_in_doubt(here)
    long_ago(here, "c")
    control = Control(here.client, "default")

    with pytest.raises(Refused, match="the number of its target, a: order N1"):
        control.resolve_by_hand("c", broker_order_id="N2", not_placed=False, **WORDS)
    named = target_named(control.open_doubt("c"), type(here.broker), "N1")
    answer = control.resolve_by_hand("c", broker_order_id=named.broker_order_id, not_placed=False, **WORDS)

    assert (answer.outcome, answer.broker_order_id) == (Outcome.ACCEPTED, "N1")
    assert answers(here.client)["c"] == answer and state(here.client, "c") == "settled"


@pytest.mark.parametrize(("text", "named"), [("1", "N1"), ("N1", "N1"), ("7", "7")])
def test_the_number_of_a_cancels_target_may_be_said_as_the_screen_shows_it(
    bench: Make, text: str, named: str
) -> None:
    here = bench(lambda request: HELD)
    _cancel_in_doubt(here)
    long_ago(here, "c")

    class Shown(MockBroker):
        @classmethod
        def may_mean(cls, text: str, number: str) -> bool:
            return number.endswith(text)

    assert target_named(Control(here.client, "default").open_doubt("c"), Shown, text) == Named(named)


def test_an_order_without_a_price_is_told_without_one(here: Bench) -> None:
    here.broker.orders.append(replace(unnamed("N1"), symbol="000660", limit_price=None))

    with pytest.raises(Refused, match="order N1 is BUY 10 000660, and the doubt"):
        say(here, "N1")


def test_a_cancel_whose_target_is_forgotten_is_answered_with_the_number_that_was_said(bench: Make) -> None:
    here = bench(lambda request: HELD)
    _cancel_in_doubt(here)
    long_ago(here, "c")
    here.client.delete(KEYS.intent("a"))
    control = Control(here.client, "default")

    named = target_named(control.open_doubt("c"), type(here.broker), "N1")
    answer = control.resolve_by_hand("c", broker_order_id=named.broker_order_id, not_placed=False, **WORDS)

    assert (named, answer.broker_order_id) == (Named("N1"), "N1")
