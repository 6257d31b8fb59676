"""Whatever a broker sends ends as one of the outcomes, and no answer is believed beyond what it proves."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import OrderQuery, OrderScan, dump
from tests.conftest import make_intent
from tests.hostile.answers import AnswerMill, may_prove
from tests.kis.kis_bench import TAKEN, TOKEN, QuickClock, http, options, raw_server, request
from worker.brokers.base import AdapterFault
from worker.brokers.kis import Environment, KISBrokerAdapter, parse_kis_place_response, read_reply
from worker.brokers.kis.lists import daily_call
from worker.brokers.kis.numbers import OrderNumber
from worker.brokers.kis.payload import Account
from worker.brokers.kis.rows import domestic_orders, us_orders
from worker.brokers.kis.scan import DOMESTIC, US, read_list
from worker.brokers.live import LiveBroker
from worker.errors import BrokerError, NotSent, OutcomeUnknown, Rejected

SEED = int(os.environ.get("HOSTILE_SEED", "1"))
AT = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
TODAY = date(2026, 11, 23)


def outcome(body: bytes, status: int = 200) -> str:
    """What the parsers conclude. Anything but an outcome fails the test that asks."""
    reply = read_reply(status, {}, body)
    if reply is None:
        return "OutcomeUnknown"
    try:
        response = parse_kis_place_response(reply, at=AT)
    except BrokerError as error:
        return type(error).__name__
    number = OrderNumber.parse(response.broker_order_id)
    assert number is not None, response
    return "accepted"


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**48))
def test_an_answer_proves_what_the_table_says_and_nothing_more(seed: int) -> None:
    body = AnswerMill(seed).body()

    found = outcome(body)

    assert found == "OutcomeUnknown" or found in may_prove(body), (found, body)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(100, 599))
def test_bytes_that_are_no_answer_leave_the_order_in_doubt(body: bytes, status: int) -> None:
    assert outcome(body, status) == "OutcomeUnknown"


_texts = st.text(max_size=12) | st.sampled_from(
    [
        "1e999999999",
        "-1",
        "１０",
        "٣",
        "NaN",
        "9" * 5000,
        "1_0",
        "0",
        "10",
        "0000000010",
        "20261123",
        "090000",
        "01",
        "^^",
    ]
)
_cells = _texts | st.none() | st.integers() | st.floats() | st.lists(st.integers(), max_size=2)
_GOOD = {
    "ord_dt": "20261123",
    "dmst_ord_dt": "20261123",
    "ord_tmd": "100000",
    "ord_gno_brno": "91252",
    "odno": "0000117057",
    "pdno": "005930",
    "sll_buy_dvsn_cd": "02",
    "ord_qty": "10",
    "ord_unpr": "60000",
    "ft_ord_qty": "10",
    "ft_ord_unpr3": "6.5",
}
_row_names = st.sampled_from(
    [
        *_GOOD,
        *("tot_ccld_qty", "tot_ccld_amt", "avg_prvs", "rmn_qty", "orgn_odno", "cncl_yn", "ft_ccld_qty"),
        *(
            "ft_ccld_amt3",
            "prcs_stat_name",
            "rvse_cncl_dvsn",
            "ord_dvsn_cd",
            "ovrs_excg_cd",
            "excg_id_dvsn_cd",
        ),
    ]
)
_rows = st.dictionaries(_row_names, _cells, max_size=6).map(lambda row: _GOOD | row)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_rows | _cells, max_size=4), _cells, st.sampled_from(["", "F", "M", "D", "?"]), st.integers(0, 3)
)
def test_a_page_of_a_list_is_read_or_makes_the_scan_incomplete(
    rows: Any, total: Any, more: str, nested: int
) -> None:
    page: dict[str, Any] = {
        "rt_cd": "0",
        "output1": rows if nested else total,
        "output": rows,
        "output2": {"tot_ord_qty": total},
        "ctx_area_nk100": total,
        "ctx_area_nk200": total,
    }
    reply = read_reply(200, {"tr_cont": more}, json.dumps(page).encode())
    assert reply is not None

    class Pages:
        def get(self, call: Any, *, continued: bool = False) -> Any:
            return reply

    call = daily_call(Account.parse("12345678-01"), Environment.REAL, TODAY, TODAY, None)
    for shape, read in ((DOMESTIC, domestic_orders), (US, us_orders)):
        listing = read_list(Pages(), call, shape, page_rows=100)
        found = read(listing.rows, TODAY)

        assert len(found.orders) + len(found.faults) <= len(listing.rows)
        for order in found.orders:
            assert OrderNumber.parse(order.broker_order_id) is not None
            assert order.quantity < 10**21 and order.quantity == order.quantity.normalize()


@pytest.mark.parametrize("value", [10.0, [], {}, True, "１０", "1e3", "1e999999999", "9" * 5000, "-1", "NaN"])
def test_a_row_whose_quantity_cannot_be_read_proves_no_absence(value: Any) -> None:
    page = {"rt_cd": "0", "output1": [_GOOD | {"ord_qty": value}]}
    reply = read_reply(200, {}, json.dumps(page).encode())
    assert reply is not None
    rows = reply.rows("output1")
    assert rows is not None

    found = domestic_orders(rows, TODAY)

    assert found.faults and not found.orders


Script = Callable[[bytes, socket.socket], bytes | None]


@contextmanager
def adapter_before(script: Script, reply_timeout: float = 5.0) -> Iterator[KISBrokerAdapter]:
    """The adapter, in front of a server that answers so."""
    with raw_server(script) as server:
        given = options(server.url, reply_timeout=reply_timeout, connect_timeout=5.0)
        adapter = KISBrokerAdapter.from_options(given, mode="live", clock=QuickClock())
        try:
            yield adapter
        finally:
            adapter.close()


def test_no_bytes_on_the_wire_make_an_order_anything_but_one_of_the_outcomes() -> None:
    mill = AnswerMill(SEED)
    sent: list[bytes] = []

    def script(_: bytes, connection: socket.socket) -> bytes | None:
        sent.append(mill.response())
        connection.sendall(sent[-1])
        return None

    seen: Counter[str] = Counter()
    for _ in range(40):
        # A new one now and then: a token that an answer calls dead is replaced once a minute.
        with adapter_before(script) as adapter:
            for _ in range(6):
                before = len(sent)
                found = placed(adapter)
                assert len(sent) <= before + 1, "it was sent again"
                if len(sent) == before:
                    # No token; or it met a connection that the server was about to close.
                    assert found in ("NotSent", "OutcomeUnknown")
                    continue
                assert found == "OutcomeUnknown" or found in may_prove(_unwrapped(sent[-1])), (
                    found,
                    sent[-1],
                )
                seen[found] += 1

    assert set(seen) <= {"accepted", "Rejected", "NotSent", "OutcomeUnknown"} and seen["OutcomeUnknown"] > 80


def placed(adapter: KISBrokerAdapter) -> str:
    try:
        adapter.place_order(request())
    except BrokerError as error:
        return type(error).__name__
    return "accepted"


def _unwrapped(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    head = head.lower()
    if b"chunked" in head:
        return body.partition(b"\r\n")[2].rpartition(b"\r\n0\r\n")[0]
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length: "):
            return body[: int(line.split()[1])]
    return body


def test_an_answer_that_never_ends_is_given_up_after_the_time_for_answers() -> None:
    def drip(_: bytes, connection: socket.socket) -> bytes | None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up:
            connection.sendall(b" ")
            time.sleep(0.02)
        return None

    with (
        adapter_before(drip, 0.3) as adapter,
        pytest.raises(OutcomeUnknown, match="it left, and no answer came"),
    ):
        adapter.place_order(request())


def test_an_answer_without_end_takes_no_more_memory_than_the_longest_that_there_is() -> None:
    sent = 0

    def flood(_: bytes, connection: socket.socket) -> bytes | None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while sent < 200 * 2**20:
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            sent += 65536
        return None

    with adapter_before(flood) as adapter, pytest.raises(OutcomeUnknown, match="the answer has no end"):
        adapter.place_order(request())

    assert sent < 50 * 2**20


def test_no_answer_to_a_list_is_taken_for_a_whole_list_without_its_end() -> None:
    mill = AnswerMill(SEED + 1)

    def script(_: bytes, connection: socket.socket) -> bytes | None:
        connection.sendall(mill.response())
        return None

    with adapter_before(script) as adapter:
        for _ in range(25):
            try:
                found = adapter.list_orders(datetime.now(UTC) - timedelta(minutes=5))
            except BrokerError as error:
                assert not isinstance(error, (NotSent, Rejected)), error
            else:
                assert isinstance(found, OrderScan) and not found.complete
            try:
                assert adapter.get_order(OrderQuery(symbol="005930", broker_order_id="0000117057")) is None
            except BrokerError as error:
                assert not isinstance(error, (NotSent, Rejected)), error


@pytest.mark.parametrize(
    "token",
    [
        *(
            {},
            {"access_token": ""},
            {"access_token": "토큰"},
            {"access_token": "a\r\nx: y"},
            {"access_token": "\ud800"},
        ),
        *(
            {"access_token": ["a"]},
            {"access_token": 5.5},
            {"access_token": "a" * 100_000},
            TOKEN | {"expires_in": 10**400},
        ),
        *(
            TOKEN | {"expires_in": "NaN"},
            TOKEN | {"expires_in": -1},
            TOKEN | {"expires_in": "1e999"},
            TOKEN | {"expires_in": []},
        ),
    ],
)
def test_without_a_token_that_can_be_sent_no_order_leaves(token: Any) -> None:
    with adapter_before(lambda *_: http(TAKEN)) as adapter:
        answer = read_reply(200, {}, json.dumps(token).encode())
        assert answer is not None
        adapter.client._oauth = lambda *_: answer  # type: ignore[method-assign]

        with pytest.raises(NotSent):
            adapter.place_order(request(send_before=QuickClock().boottime() + 5))


def test_half_a_character_in_an_answer_does_not_keep_an_accepted_order_from_its_answer() -> None:
    answer = TAKEN | {"msg1": "\ud800", "msg_cd": "APBK\udfff"}

    with adapter_before(lambda *_: http(answer)) as adapter:
        found = LiveBroker(adapter, clock=QuickClock()).submit_intent(make_intent(limit_price=60_000))

    assert found.accepted and b"\\u" not in dump(found)


def test_a_hostile_answer_is_never_an_error_of_ours() -> None:
    mill = AnswerMill(SEED + 2)

    def script(_: bytes, connection: socket.socket) -> bytes | None:
        body = mill.body()
        connection.sendall(http(body))
        return None

    with adapter_before(script) as adapter:
        broker = LiveBroker(adapter, 100, clock=QuickClock())
        for number in range(60):
            try:
                answer = broker.submit_intent(make_intent(intent_id=f"i{number}", limit_price=60_000))
            except OutcomeUnknown as error:
                assert not isinstance(error, AdapterFault), error
            else:
                assert len(dump(answer)) < 2000
            broker.guard = type(broker.guard)(100)
