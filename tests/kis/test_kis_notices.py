"""Listening to KIS: what its simulator says of orders, and a line that breaks in every way."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from kis_bench import APP_KEY, APP_SECRET, credentials, http, options, request
from notice_bench import (
    HTS_ID,
    IV,
    KEY,
    PATIENCE,
    PacedClock,
    ScriptedKIS,
    Wire,
    execution,
    frame,
    listening,
    record,
    stay,
    until,
    us_record,
)
from pydantic import ValidationError

from contracts import OrderNotice, OrderQuery, OrderResponse, OrderStatus, Side, TimeInForce
from worker.brokers.kis import Environment, KISBrokerAdapter
from worker.brokers.kis.notices import notice_url
from worker.clock import Clock, ManualClock
from worker.simulate.faults import Fault
from worker.simulate.kis import KISOptions, KISSimulator

WORKING, PARTLY, CANCELLED, REFUSED = (
    OrderStatus.WORKING,
    OrderStatus.PARTIALLY_FILLED,
    OrderStatus.CANCELLED,
    OrderStatus.REFUSED,
)


# --- In front of the simulator --------------------------------------------------------------------------------


@dataclass
class Market:
    """A simulator, on a clock that the test moves."""

    simulator: KISSimulator
    url: str
    clock: ManualClock
    mode: str

    @contextmanager
    def adapter(self, clock: Clock | None = None, **changes: Any) -> Iterator[KISBrokerAdapter]:
        given = options(self.url, environment=self.mode, hts_id=HTS_ID, us=True) | changes
        mode = "live" if self.mode == "real" else "paper"
        found = KISBrokerAdapter.from_options(given, mode=mode, clock=clock or self.clock)
        try:
            yield found
        finally:
            found.close()


@contextmanager
def market(mode: str = "real", **changes: Any) -> Iterator[Market]:
    clock = ManualClock()
    given = {
        "mode": mode,
        "rate": 0,
        "ledger_rate": 0,
        "token_interval": 0,
        "visibility_lag": 0,
        "always_open": True,
    }
    simulator = KISSimulator(KISOptions(**(given | changes)), clock=clock)
    with simulator.serve() as url:
        yield Market(simulator, url, clock, mode)


def query(placed: OrderResponse, symbol: str = "005930") -> OrderQuery:
    return OrderQuery(symbol, broker_order_id=placed.broker_order_id, reference=placed.reference)


@pytest.mark.parametrize(("mode", "old"), [("real", False), ("real", True), ("paper", False)])
def test_the_life_of_an_order_is_heard_under_the_number_of_its_answer_and_its_row(
    mode: str, old: bool
) -> None:
    with (
        market(mode, old_notices=old, depth=2) as at,
        at.adapter() as adapter,
        listening(adapter) as listener,
    ):
        listener.wait_for_gaps()
        placed = adapter.place_order(request(limit_price=Decimal(90_000)))
        for _ in range(40):
            at.clock.advance(1)
            at.simulator.orders()
        row = adapter.get_order(query(placed))
        assert row is not None
        heard = listener.wait_for_notices(2)
        until(lambda: sum(each.filled_quantity for each in heard) >= row.filled_quantity)

    assert {each.broker_order_id for each in heard} == {placed.broker_order_id} == {row.broker_order_id}
    assert heard[0] == OrderNotice(placed.broker_order_id, "005930", WORKING, quantity=Decimal(10))
    assert {each.status for each in heard[1:]} == {PARTLY}
    assert sum(each.filled_quantity for each in heard) == row.filled_quantity == 10
    paid = sum(each.filled_quantity * (each.price or 0) for each in heard)
    assert row.average_price is not None
    assert abs(paid / row.filled_quantity - row.average_price) < 1
    assert listener.told[0] == "gap"
    assert listener.gaps == 1


def test_a_cancelled_order_is_heard_to_end_under_its_own_number() -> None:
    with market() as at, at.adapter() as adapter, listening(adapter) as listener:
        listener.wait_for_gaps()
        placed = adapter.place_order(request())
        adapter.cancel_order(query(placed))
        heard = listener.wait_for_notices(2)

    assert [(each.broker_order_id, each.status) for each in heard] == [
        (placed.broker_order_id, WORKING),
        (placed.broker_order_id, CANCELLED),
    ]


def test_what_an_ioc_order_cannot_fill_at_once_is_heard_to_be_given_up() -> None:
    with market(depth=2) as at, at.adapter() as adapter, listening(adapter) as listener:
        listener.wait_for_gaps()
        placed = adapter.place_order(
            request(limit_price=Decimal(90_000), quantity=Decimal(50), time_in_force=TimeInForce.IOC)
        )
        until(lambda: any(each.status is CANCELLED for each in listener.notices))
        row = adapter.get_order(query(placed))

    assert row is not None
    assert 0 < row.filled_quantity < 50
    assert [each.status for each in listener.notices] == [WORKING, PARTLY, CANCELLED]
    assert sum(each.filled_quantity for each in listener.notices) == row.filled_quantity
    assert {each.broker_order_id for each in listener.notices} == {placed.broker_order_id}


def test_an_order_that_the_exchange_refuses_later_is_heard_to_be_refused() -> None:
    with market() as at, at.adapter() as adapter, listening(adapter) as listener:
        listener.wait_for_gaps()
        at.simulator.faults.set([Fault(what="refuse_later", nth=1, seconds=1)])
        placed = adapter.place_order(request())
        at.clock.advance(2)
        heard = listener.wait_for_notices(2)

    assert [(each.broker_order_id, each.status) for each in heard] == [
        (placed.broker_order_id, WORKING),
        (placed.broker_order_id, REFUSED),
    ]


@pytest.mark.parametrize("mode", ["real", "paper"])
def test_us_orders_are_heard_with_the_price_of_their_rows(mode: str) -> None:
    with market(mode) as at, at.adapter() as adapter, listening(adapter) as listener:
        listener.wait_for_gaps()
        placed = adapter.place_order(
            request(symbol="AAPL", venue="NASD", quantity=Decimal(1), limit_price=Decimal(999))
        )
        resting = adapter.place_order(
            request(
                symbol="AAPL", venue="NASD", side=Side.SELL, quantity=Decimal(2), limit_price=Decimal(999)
            )
        )
        adapter.cancel_order(query(resting, "AAPL"))
        heard = listener.wait_for_notices(4)
        row = adapter.get_order(query(placed, "AAPL"))

    assert row is not None
    assert [(each.broker_order_id, each.status) for each in heard] == [
        (placed.broker_order_id, WORKING),
        (placed.broker_order_id, PARTLY),
        (resting.broker_order_id, WORKING),
        (resting.broker_order_id, CANCELLED),
    ]
    assert (row.broker_order_id, row.average_price) == (placed.broker_order_id, heard[1].price)


def test_orders_of_another_account_are_not_heard() -> None:
    with (
        market() as at,
        at.adapter() as adapter,
        at.adapter(account="87654321-01") as other,
        listening(adapter) as listener,
    ):
        listener.wait_for_gaps()
        other.place_order(request())
        placed = adapter.place_order(request())
        heard = listener.wait_for_notices(1)

    assert [each.broker_order_id for each in heard] == [placed.broker_order_id]


def test_who_comes_second_waits_for_the_app_key_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = PacedClock()
    with market() as at, at.adapter() as first, at.adapter(clock) as second:
        with listening(first) as one:
            one.wait_for_gaps()
            with caplog.at_level(logging.INFO), listening(second) as two:
                until(lambda: len(clock.waits) >= 3)
                assert two.gaps == 0
                one.end()
                two.wait_for_gaps()
                placed = first.place_order(request())
                heard = two.wait_for_notices(1)

    assert [each.broker_order_id for each in heard] == [placed.broker_order_id]
    assert caplog.text.count("OPSP8996") == 1
    # The server may need a while to forget a connection that broke off.
    assert all(seconds >= 10 for seconds in clock.waits)


def test_a_wrong_hts_id_is_tried_ever_slower_and_never_heard(caplog: pytest.LogCaptureFixture) -> None:
    clock = PacedClock()
    with market(hts_id="somebody") as at, at.adapter(clock) as adapter, listening(adapter) as listener:
        until(lambda: len(clock.waits) >= 9)

    assert listener.told == []
    assert [round(seconds, 3) for seconds in clock.waits[:7]] == sorted(
        round(seconds, 3) for seconds in clock.waits[:7]
    )
    assert 45 <= clock.waits[7] <= 64
    assert len([line for line in caplog.messages if "kis_notices" in line]) <= 2


def test_without_an_hts_id_nobody_is_listened_to() -> None:
    with ScriptedKIS(stay).serve() as server:
        adapter = KISBrokerAdapter.from_options(options(server.url), mode="live", clock=ManualClock())
        with listening(adapter) as listener:
            listener.thread.join(PATIENCE)
            assert not listener.thread.is_alive()

    assert (listener.told, server.keys_given, server.wires) == ([], 0, [])


# --- In front of a server that does as it is told -------------------------------------------------------------


@contextmanager
def in_front_of(
    server: ScriptedKIS, clock: Clock | None = None, **changes: Any
) -> Iterator[KISBrokerAdapter]:
    given = options(server.url, hts_id=HTS_ID) | changes
    with server.serve():
        adapter = KISBrokerAdapter.from_options(given, mode="live", clock=clock or PacedClock())
        try:
            yield adapter
        finally:
            adapter.close()


def _reset(wire: Wire) -> None:
    wire.grant()
    wire.say(frame(record()))
    # A reset would overtake it.
    wire.say('{"header":{"tr_id":"PINGPONG"}}')
    wire.recv()
    wire.reset()


def _half_close(wire: Wire) -> None:
    wire.grant()
    wire.say(frame(record()))
    wire.half_close()
    wire.stay()


def _farewell(wire: Wire) -> None:
    wire.grant()
    wire.say(frame(record()))
    wire.bid_farewell()


@pytest.mark.parametrize("breaks", [_reset, _half_close, _farewell])
def test_a_line_that_breaks_off_is_followed_by_another(breaks: Any) -> None:
    def again(wire: Wire) -> None:
        wire.grant()
        wire.say(frame(record(**execution(4, "71000"))))
        wire.stay()

    server = ScriptedKIS(breaks, again)
    with in_front_of(server) as adapter, listening(adapter) as listener:
        listener.wait_for_notices(2)

    kinds = [each if isinstance(each, str) else each.status for each in listener.told]
    assert kinds == ["gap", WORKING, "gap", PARTLY]
    # The approval key held, so it was used again.
    assert server.keys_given == 1


def test_a_refused_subscription_is_asked_for_again() -> None:
    server = ScriptedKIS(lambda wire: wire.answer(wire.ask(), "OPSP0007", "1"), stay)
    with in_front_of(server) as adapter, listening(adapter) as listener:
        listener.wait_for_gaps()

    assert listener.gaps == 1
    assert len(server.wires) == 2


def test_a_refused_approval_key_is_replaced() -> None:
    server = ScriptedKIS(
        stay_until_told := _Once(), lambda wire: wire.answer(wire.ask(), "OPSP0011", "1"), stay
    )
    with in_front_of(server) as adapter, listening(adapter) as listener:
        listener.wait_for_gaps()
        stay_until_told.over.set()
        listener.wait_for_gaps(2)

    keys = [wire.asked[0]["header"]["approval_key"] for wire in server.wires]
    assert keys == ["approval-1", "approval-1", "approval-2"]


class _Once:
    """A line that breaks off when the test says so."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def __call__(self, wire: Wire) -> None:
        wire.grant()
        self.over.wait(PATIENCE)
        wire.reset()


def test_an_approval_key_that_is_not_given_is_asked_for_again() -> None:
    server = ScriptedKIS(stay)
    server.approvals = [
        http({"error_code": "EGW00002", "error_description": "서버 에러가 발생했습니다."}, 403),
        http(b"<html>502</html>", 502),
        http({}),
        b"",
    ]
    with in_front_of(server) as adapter, listening(adapter) as listener:
        listener.wait_for_gaps()

    assert (server.approvals, server.keys_given) == ([], 1)


def test_a_server_that_is_away_is_tried_again() -> None:
    server = ScriptedKIS(stay)
    turned_away: list[socket.socket] = []

    def turn_away(one: socket.socket) -> None:
        if not turned_away:
            turned_away.append(one)
            one.sendall(http(b"<html>503</html>", 503))
            one.close()

    server.before_handshake = turn_away
    with in_front_of(server) as adapter, listening(adapter) as listener:
        listener.wait_for_gaps()

    assert (len(turned_away), len(server.wires)) == (1, 1)


def test_keys_follow_no_redirect() -> None:
    elsewhere = ScriptedKIS(stay)

    def send_away(one: socket.socket) -> None:
        one.sendall(http(b"", 302, location=f"{elsewhere.url.replace('http', 'ws')}/tryitout"))
        one.close()

    clock = PacedClock()
    server = ScriptedKIS(stay)
    server.before_handshake = send_away
    with (
        elsewhere.serve(),
        in_front_of(server, clock) as adapter,
        listening(adapter) as listener,
    ):
        until(lambda: len(clock.waits) >= 2)

    assert (elsewhere.wires, listener.told) == ([], [])


def test_a_sign_of_life_goes_back_as_it_came() -> None:
    ping = '{"header": {"tr_id":"PINGPONG", "datetime":"20261123100000"}}'
    back: list[str | bytes] = []

    def script(wire: Wire) -> None:
        wire.grant()
        wire.say(ping)
        back.append(wire.recv())
        wire.stay()

    with in_front_of(ScriptedKIS(script)) as adapter, listening(adapter):
        until(lambda: back)

    assert back == [ping]


def test_a_line_on_which_nobody_says_anything_is_replaced() -> None:
    clock = PacedClock()
    server = ScriptedKIS(stay)
    with in_front_of(server, clock) as adapter, listening(adapter) as listener:
        listener.wait_for_gaps()
        clock.advance(59)
        time.sleep(0.6)
        assert len(server.wires) == 1
        clock.advance(2)
        listener.wait_for_gaps(2)

    assert len(server.wires) == 2


def test_signs_of_life_keep_a_line() -> None:
    clock = PacedClock()
    server = ScriptedKIS(stay)
    with in_front_of(server, clock) as adapter, listening(adapter) as listener:
        listener.wait_for_gaps()
        for number in range(3):
            server.wires[0].say(frame(record(ODER_NO=f"{number + 1:010}")))
            listener.wait_for_notices(number + 1)
            clock.advance(50)
            # Long enough for a look at the clock.
            time.sleep(0.3)
        server.wires[0].say(frame(record(ODER_NO="0000000009")))
        listener.wait_for_notices(4)

    assert (len(server.wires), listener.gaps) == (1, 1)


def test_an_answer_that_never_comes_is_not_waited_for_for_ever() -> None:
    clock = PacedClock()
    server = ScriptedKIS(lambda wire: wire.stay(), stay)
    with in_front_of(server, clock) as adapter, listening(adapter) as listener:
        until(lambda: server.wires)
        while not listener.gaps:
            clock.advance(11)
            time.sleep(0.05)

    assert len(server.wires) >= 2


def test_what_cannot_be_read_is_a_gap_and_noted_once_without_its_content(
    caplog: pytest.LogCaptureFixture,
) -> None:
    garbage = [
        "1|H0STCNI0|001|bm90IHNlYWxlZCB3aXRoIHRoYXQga2V5IQ==",
        "what is this, 1234567801?",
        b"\x00\x01",
        frame(("too", "short", "1234567801")),
        frame(record(ACPT_YN="7")),
    ]

    def script(wire: Wire) -> None:
        wire.grant()
        for text in (*garbage, *garbage, frame(record())):
            wire.say(text)
        wire.stay()

    with in_front_of(ScriptedKIS(script)) as adapter, listening(adapter) as listener:
        heard = listener.wait_for_notices(1)

    assert listener.told == [*["gap"] * 11, *heard]
    notes = [line for line in caplog.messages if "kis_notices_unreadable" in line]
    assert len(notes) == len(set(notes)) == len(garbage)
    assert "1234567801" not in caplog.text


def test_one_bad_record_takes_no_other_with_it() -> None:
    def script(wire: Wire) -> None:
        wire.grant()
        wire.say(frame(record(), record(CNTG_YN="?"), record(**execution(4, "71000"))))
        wire.stay()

    with in_front_of(ScriptedKIS(script)) as adapter, listening(adapter) as listener:
        listener.wait_for_notices(2)

    assert [each if isinstance(each, str) else each.status for each in listener.told] == [
        "gap",
        WORKING,
        "gap",
        PARTLY,
    ]


def test_what_is_known_for_certain_only_by_the_list_is_a_gap(caplog: pytest.LogCaptureFixture) -> None:
    cancel = record(RCTF_CLS="2", ODER_NO="0000117099", OODER_NO="0000117057", ACPT_YN="2")

    def script(wire: Wire) -> None:
        wire.grant()
        wire.say(frame(cancel))
        wire.stay()

    with in_front_of(ScriptedKIS(script)) as adapter, listening(adapter) as listener:
        listener.wait_for_gaps(2)

    assert listener.told == ["gap", "gap"]
    assert "unreadable" not in caplog.text


def test_a_new_line_remembers_nothing_of_the_last_one() -> None:
    cancel = record(RCTF_CLS="2", ODER_NO="0000117099", OODER_NO="0000117057", ACPT_YN="2")

    def again(wire: Wire) -> None:
        wire.grant()
        wire.say(frame(cancel))
        wire.stay()

    with in_front_of(ScriptedKIS(_reset, again)) as adapter, listening(adapter) as listener:
        listener.wait_for_gaps(3)

    assert [each.status for each in listener.notices] == [WORKING]


def test_us_notices_that_are_refused_do_not_silence_the_others(caplog: pytest.LogCaptureFixture) -> None:
    def script(wire: Wire) -> None:
        first, second = wire.ask(), wire.ask()
        wire.answer(first)
        wire.say(frame(record()))
        wire.answer(second, "OPSP8992", "1")
        wire.stay()

    server = ScriptedKIS(script)
    with in_front_of(server, us=True) as adapter, listening(adapter) as listener:
        heard = listener.wait_for_notices(1)
        until(lambda: "H0GSCNI0 code=OPSP8992" in caplog.text)

    assert listener.told == ["gap", *heard]
    assert [one["body"]["input"]["tr_id"] for one in server.wires[0].asked] == ["H0STCNI0", "H0GSCNI0"]


def test_both_subscriptions_are_asked_for_as_kis_wants_it_and_heard_on_one_line() -> None:
    def script(wire: Wire) -> None:
        wire.grant(2)
        wire.say(frame(record()))
        wire.say(frame(us_record(STCK_CNTG_HOUR="100001"), tr_id="H0GSCNI0"))
        wire.stay()

    server = ScriptedKIS(script)
    with in_front_of(server, us=True) as adapter, listening(adapter) as listener:
        heard = listener.wait_for_notices(2)

    assert server.wires[0].asked[0] == {
        "header": {
            "approval_key": "approval-1",
            "custtype": "P",
            "tr_type": "1",
            "content-type": "utf-8",
        },
        "body": {"input": {"tr_id": "H0STCNI0", "tr_key": HTS_ID}},
    }
    assert [each.symbol for each in heard] == ["005930", "AAPL"]


def test_pauses_grow_to_a_minute_and_begin_anew_after_a_line_that_held() -> None:
    clock = PacedClock()
    holds = _Once()
    bad = [lambda wire: wire.reset()] * 9
    server = ScriptedKIS(*bad, holds, bad[0], stay)
    with in_front_of(server, clock) as adapter, listening(adapter) as listener:
        listener.wait_for_gaps()
        grown = len(clock.waits)
        clock.advance(61)
        holds.over.set()
        listener.wait_for_gaps(2)

    assert grown == 9
    for seconds, full in zip(clock.waits, [1, 2, 4, 8, 16, 32, 64, 64, 64, 1, 2], strict=True):
        assert 0.75 * full <= seconds <= full


@pytest.mark.parametrize("where", ["connected", "shaking hands", "subscribing"])
def test_listening_ends_soon_after_it_is_told_to(where: str) -> None:
    reached, over, left = threading.Event(), threading.Event(), threading.Event()

    def script(wire: Wire) -> None:
        if where == "connected":
            wire.grant()
        reached.set()
        wire.stay()
        left.set()

    server = ScriptedKIS(script)
    if where == "shaking hands":
        server.before_handshake = lambda one: reached.set() or over.wait(PATIENCE)
    with in_front_of(server, PacedClock()) as adapter, listening(adapter) as listener:
        assert reached.wait(PATIENCE)
        # Far less than the library's own time-outs, with room for a busy machine.
        listener.end(3)
        over.set()
        # No connection stays behind that would keep the app key from the next worker.
        assert left.wait(PATIENCE)


def test_no_secret_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    server = ScriptedKIS(_reset, _Loud(), stay)
    with (
        caplog.at_level(logging.DEBUG),
        in_front_of(server) as adapter,
        listening(adapter) as listener,
    ):
        listener.wait_for_gaps(2)
        shown = repr(adapter.client) + repr(adapter._rules)

    secrets = (APP_KEY, APP_SECRET, "approval-1", KEY, IV, "12345678", "1234567801", HTS_ID, "somebody")
    for secret in secrets:
        assert secret not in caplog.text
        assert secret not in shown


class _Loud:
    """A server that repeats what it was given in its farewell."""

    def __call__(self, wire: Wire) -> None:
        asked = wire.ask()
        wire.bid_farewell(json.dumps(asked)[:100])


# --- Where, and as whom ---------------------------------------------------------------------------------------


def test_notices_come_from_kis_itself_or_from_the_simulator_that_was_named() -> None:
    named = [
        notice_url(credentials(environment, url))
        for environment, url in (
            (Environment.REAL, ""),
            (Environment.PAPER, ""),
            (Environment.REAL, "http://127.0.0.1:9443"),
            (Environment.PAPER, "https://[::1]:9443"),
        )
    ]

    assert named == [
        "ws://ops.koreainvestment.com:21000/tryitout",
        "ws://ops.koreainvestment.com:31000/tryitout",
        "ws://127.0.0.1:9443/tryitout",
        "wss://[::1]:9443/tryitout",
    ]


@pytest.mark.parametrize("hts_id", ["", " ", "with space", "x" * 41, "이름"])
def test_an_hts_id_that_cannot_be_one_keeps_the_worker_from_starting(hts_id: str) -> None:
    with pytest.raises(ValidationError, match="hts_id"):
        KISBrokerAdapter.from_options(options(hts_id=hts_id), mode="live", clock=ManualClock())
