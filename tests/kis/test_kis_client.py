"""One request for each order, whatever the connection does; and what is known when no answer comes."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from kis_bench import (
    APP_KEY,
    APP_SECRET,
    TAKEN,
    TOKEN,
    QuickClock,
    Script,
    credentials,
    http,
    raw_server,
    request,
)

from worker.brokers.kis import Account, KISClient, ReadFailed, build_kis_order_payload
from worker.brokers.kis.lists import daily_call
from worker.brokers.kis.sending import MARGIN
from worker.clock import Clock, ManualClock, SystemClock
from worker.errors import NotSent, OutcomeUnknown

NUMBERS = count(1)
CALL = build_kis_order_payload(request(), Account.parse("12345678-01"))


@contextmanager
def a_client(url: str, clock: Clock | None = None, reply_timeout: float = 0.3) -> Iterator[KISClient]:
    client = KISClient(
        credentials(base_url=url),
        clock=clock or QuickClock(),
        connect_timeout=0.3,
        reply_timeout=reply_timeout,
    )
    try:
        yield client
    finally:
        client.close()


def an_order() -> bytes:
    """An answer with a number that no other one has."""
    output = TAKEN["output"] | {"ODNO": f"{next(NUMBERS):010}"}  # type: ignore[operator]
    return http(TAKEN | {"output": output})


def taken(_: bytes, __: socket.socket) -> bytes:
    return an_order()


def test_an_order_is_sent_with_these_headers_and_in_one_piece() -> None:
    pieces: list[bytes] = []

    def first_piece(found: bytes, _: socket.socket) -> bytes:
        pieces.append(found)
        return http(TAKEN)

    with raw_server(first_piece) as server, a_client(server.url) as client:
        client.post(CALL)

    head, _, body = pieces[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    assert lines[0] == "POST /uapi/domestic-stock/v1/trading/order-cash HTTP/1.1"
    assert body == CALL.body()
    assert headers == {
        "host": server.url.removeprefix("http://"),
        "content-type": "application/json; charset=utf-8",
        "authorization": f"Bearer {TOKEN['access_token']}",
        "appkey": APP_KEY,
        "appsecret": APP_SECRET,
        "tr_id": "TTTC0012U",
        "custtype": "P",
        "content-length": str(len(body)),
    }


def test_a_connection_is_kept_for_the_next_order() -> None:
    with raw_server(taken) as server, a_client(server.url) as client:
        for _ in range(5):
            client.post(CALL)

    # One for the token, and one for all orders.
    assert (len(server.requests), server.connections) == (5, 2)


def test_a_kept_connection_that_is_closed_after_the_body_was_read_sees_one_request() -> None:
    calls: list[int] = []

    def close_the_second(_: bytes, __: socket.socket) -> bytes | None:
        calls.append(1)
        return an_order() if len(calls) == 1 else None

    with raw_server(close_the_second) as server, a_client(server.url) as client:
        client.post(CALL)
        with pytest.raises(OutcomeUnknown, match="it left, and no answer came"):
            client.post(CALL)
        time.sleep(0.05)

    assert (len(server.requests), server.connections) == (2, 2)


def test_a_kept_connection_that_the_server_closed_before_is_not_used() -> None:
    def answer_and_close(_: bytes, connection: socket.socket) -> bytes | None:
        connection.sendall(an_order())
        return None

    with raw_server(answer_and_close) as server, a_client(server.url) as client:
        client.post(CALL)
        time.sleep(0.05)
        assert client.post(CALL).is_success

    assert (len(server.requests), server.connections) == (2, 3)


def reset(_: bytes, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(_: bytes, __: socket.socket) -> None:
    time.sleep(0.6)


def dripping(_: bytes, connection: socket.socket) -> None:
    for byte in http(TAKEN):
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


DOUBTS: dict[str, Script] = {
    "the connection is reset": reset,
    "no answer in time": silent,
    "an answer byte by byte": dripping,
    "half an answer": lambda _, connection: connection.sendall(http(TAKEN)[:-20]),
    "a page for people": lambda *_: http(b"<html>502 Bad Gateway</html>", 502),
    "a 5xx that says nothing": lambda *_: http(b"", 503),
    "half a document": lambda *_: http(json.dumps(TAKEN).encode()[:40]),
    "a list": lambda *_: http([1, 2]),
    "no HTTP": lambda *_: b"\x15\x03\x01\x00\x02\x02\x16",
    "a redirect": lambda *_: http(b"", 307, location="/elsewhere"),
}


@pytest.mark.parametrize("script", DOUBTS.values(), ids=DOUBTS.keys())
def test_whatever_else_comes_back_is_a_doubt_after_one_request(script: Script) -> None:
    with raw_server(script) as server, a_client(server.url) as client:
        with pytest.raises(OutcomeUnknown):
            client.post(CALL)

        assert len(server.requests) == 1


REFUSED = {"rt_cd": "7", "msg_cd": "APBK0952", "msg1": "주문가능금액을 초과 했습니다."}


def test_an_answer_that_comes_again_to_the_next_order_is_not_its_answer() -> None:
    # A gateway that repeats itself late: the second order has left when the first answer comes again, and its own
    # would come when the third has left.
    first, second = an_order(), an_order()
    answers = [first, first, second]

    with raw_server(lambda *_: answers.pop(0)) as server, a_client(server.url) as client:
        client.post(CALL)
        with pytest.raises(OutcomeUnknown, match="came before"):
            client.post(CALL)
        client.post(CALL)

        # Whatever was still to come on that connection, nobody reads it.
        assert (len(server.requests), server.connections) == (3, 3)


def test_what_comes_after_a_refusal_on_its_connection_is_not_read() -> None:
    with raw_server(lambda *_: http(REFUSED)) as server, a_client(server.url) as client:
        for _ in range(3):
            assert client.post(CALL).code == "APBK0952"

        assert (len(server.requests), server.connections) == (3, 4)


def test_an_answer_to_another_transaction_is_no_answer() -> None:
    with raw_server(lambda *_: http(TAKEN, tr_id="TTTC0013U")) as server, a_client(server.url) as client:
        with pytest.raises(OutcomeUnknown, match="TTTC0013U came where TTTC0012U was asked"):
            client.post(CALL)


def test_an_answer_that_came_to_nothing_is_not_taken_for_the_next_one() -> None:
    def answer_twice(_: bytes, connection: socket.socket) -> bytes:
        answer = an_order()
        connection.sendall(answer)
        return answer

    with raw_server(answer_twice) as server, a_client(server.url) as client:
        for _ in range(3):
            assert client.post(CALL).is_success
            time.sleep(0.02)

        assert (len(server.requests), server.connections) == (3, 4)


def test_a_refused_connection_is_not_sent() -> None:
    with raw_server(taken) as server, a_client(server.url) as client:
        client.tokens.token()
        server.stop()
        # The connection that the token came over is closed as well, and the next one is refused.
        time.sleep(0.05)
        with pytest.raises(NotSent, match="could not be reached"):
            client.post(CALL)

    assert server.requests == []


def test_a_server_that_does_not_speak_tls_gets_no_order() -> None:
    with raw_server(lambda *_: b"no TLS here") as server:
        with a_client(server.url.replace("http://", "https://")) as client:
            client.tokens.share(_Ready())
            with pytest.raises(NotSent):
                client.post(CALL)

    assert server.requests == []


def test_an_order_waits_for_a_connection_no_longer_than_for_a_new_one() -> None:
    with raw_server(silent) as server:
        client = KISClient(
            credentials(base_url=server.url),
            clock=ManualClock(),
            connect_timeout=0.1,
            reply_timeout=2,
            connections=1,
        )
        client.tokens.token()

        def in_doubt() -> None:
            with pytest.raises(OutcomeUnknown):
                client.post(CALL)

        busy = threading.Thread(target=in_doubt)
        busy.start()
        _until(lambda: len(server.requests) == 1)
        with pytest.raises(NotSent, match="PoolTimeout"):
            client.post(CALL)
        busy.join()
        client.close()

    assert len(server.requests) == 1


def test_an_order_that_is_late_before_it_is_written_never_leaves() -> None:
    clock = ManualClock()
    with raw_server(taken) as server, a_client(server.url, clock) as client:
        client.tokens.token()
        for send_before in (clock.boottime() - 1, clock.boottime(), clock.boottime() + MARGIN / 2):
            with pytest.raises(NotSent, match="the time to send it was over"):
                client.post(CALL, send_before)

        assert client.post(CALL, clock.boottime() + 5).is_success
        time.sleep(0.02)

    assert len(server.requests) == 1


def test_a_token_that_takes_until_after_the_deadline_leaves_no_order() -> None:
    clock = ManualClock()
    with raw_server(taken) as server, a_client(server.url, clock) as client:
        issue = client._issue_token
        client.tokens._issue = lambda: (clock.advance(6), issue())[1]  # type: ignore[assignment]
        with pytest.raises(NotSent, match="the time to send it was over"):
            client.post(CALL, clock.boottime() + 5)

    assert server.requests == []


FROZEN = """
import os, signal, sys, time
from worker.brokers.kis import sending
from worker.brokers.kis import KISClient, build_kis_order_payload, Account, Environment, Credentials
from worker.clock import SystemClock
from contracts import OrderRequest, Side
from pydantic import SecretStr
from decimal import Decimal

url, where = sys.argv[1:]
account = Account.parse("12345678-01")
client = KISClient(Credentials(Environment.REAL, SecretStr("k"), SecretStr("s"), account, url))
client.tokens.token()
call = build_kis_order_payload(OrderRequest("i", "005930", Side.BUY, Decimal(1), Decimal(60000)), account)
passed = sending._Gate._time_left
looks = []
def stop_here(here):
    if here == where:
        os.kill(os.getpid(), signal.SIGSTOP)
def freeze(self, send_before):
    looks.append(1)
    stop_here("before the first look" if len(looks) == 1 else "")
    left = passed(self, send_before)
    # The worst moment: the last look was good, and the write is next.
    stop_here("after the last look" if len(looks) == 2 else "")
    return left
sending._Gate._time_left = freeze
try:
    client.post(call, SystemClock().boottime() + 0.4)
except Exception as error:
    print(type(error).__name__, flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's timer is Linux's")
@pytest.mark.parametrize(
    ("look", "ends"), [("after the last look", "killed"), ("before the first look", "NotSent")]
)
def test_a_process_frozen_before_its_write_does_not_write_when_it_wakes(look: str, ends: str) -> None:
    with raw_server(taken) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", FROZEN, server.url, look],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        try:
            _until(lambda: _is_stopped(process.pid))
            time.sleep(0.5)
            os.kill(process.pid, signal.SIGCONT)
            said = process.communicate(timeout=10)[0].decode().strip()
        finally:
            process.kill()
            process.wait()
        time.sleep(0.05)

    assert server.requests == []
    if ends == "killed":
        assert (process.returncode, said) == (-signal.SIGVTALRM, "")
    else:
        assert (process.returncode, said) == (0, ends)


def test_the_kernel_does_not_go_on_delivering_for_a_dead_process() -> None:
    with raw_server(taken) as server, a_client(server.url) as client:
        client.post(CALL)
        [connection] = client._orders._pool.connections
        stream = connection._connection._network_stream  # type: ignore[attr-defined]
        found: socket.socket = stream.get_extra_info("socket")

        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000
        assert struct.unpack("ii", found.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (1, 0)


# --- Reads -----------------------------------------------------------------------------------------------

EMPTY = {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "", "output1": []}
LIST = daily_call(
    Account.parse("12345678-01"),
    credentials().environment,
    ManualClock().now().date(),
    ManualClock().now().date(),
)


@pytest.mark.parametrize(
    "first",
    [
        lambda *_: None,
        lambda *_: http({"rt_cd": "1", "msg_cd": "EGW00201", "msg1": ""}, 500),
        lambda *_: http({"rt_cd": "1", "msg_cd": "EGW00215", "msg1": ""}, 500),
        lambda *_: http(b"<html>", 502),
    ],
    ids=["closed", "rate", "ledger rate", "a page"],
)
def test_a_read_that_fails_at_first_is_asked_again(first: Script) -> None:
    calls: list[int] = []

    def then_well(found: bytes, connection: socket.socket) -> bytes | None:
        calls.append(1)
        return first(found, connection) if len(calls) == 1 else http(EMPTY)

    with raw_server(then_well) as server, a_client(server.url) as client:
        assert client.get(LIST).is_success

    assert len(server.requests) == 2


def test_each_read_has_a_connection_of_its_own() -> None:
    with raw_server(lambda *_: http(EMPTY)) as server, a_client(server.url) as client:
        client.tokens.token()
        for _ in range(3):
            client.get(LIST)

        assert (len(server.requests), server.connections) == (3, 4)


def test_a_read_that_keeps_failing_ends_and_has_learned_nothing() -> None:
    with raw_server(lambda *_: http(b"<html>", 502)) as server, a_client(server.url) as client:
        with pytest.raises(ReadFailed):
            client.get(LIST)

    assert len(server.requests) == 4


def test_a_question_that_is_itself_wrong_is_not_asked_again() -> None:
    wrong = http({"rt_cd": "1", "msg_cd": "OPSQ2000", "msg1": ""})
    with raw_server(lambda *_: wrong) as server, a_client(server.url) as client:
        with pytest.raises(ReadFailed) as failed:
            client.get(LIST)

    assert failed.value.code == "OPSQ2000"
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", ["EGW00121", "EGW00123"])
def test_a_read_with_a_token_that_died_early_is_asked_again_with_a_new_one(code: str) -> None:
    tokens: list[bytes] = []

    def refuse_the_first(found: bytes, _: socket.socket) -> bytes:
        tokens.append(found.split(b"authorization: ")[1].split(b"\r\n")[0])
        return http({"rt_cd": "1", "msg_cd": code, "msg1": ""}, 500) if len(tokens) == 1 else http(EMPTY)

    clock = ManualClock()
    with raw_server(refuse_the_first) as server, a_client(server.url, clock) as client:
        client.tokens.token()
        # Its minute is over.
        clock.advance(61)
        assert client.get(LIST).is_success

    assert len(server.requests) == 2


# --- Secrets ---------------------------------------------------------------------------------------------


def test_nothing_secret_is_logged_or_said_in_an_error(caplog: pytest.LogCaptureFixture) -> None:
    texts: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for script in (reset, dripping, DOUBTS["a page for people"], taken):
            with raw_server(script) as server, a_client(server.url, reply_timeout=0.1) as client:
                for call in (lambda: client.post(CALL), lambda: client.get(LIST)):
                    try:
                        call()
                    except (OutcomeUnknown, ReadFailed) as error:
                        texts.append(f"{error!r} {error.__cause__!r}")

    shown = caplog.text + " ".join(texts)
    assert texts
    for secret in (APP_KEY, APP_SECRET, str(TOKEN["access_token"]), "12345678"):
        assert secret not in shown


class _Ready:
    """A store that has a token."""

    def take(self, dead: str) -> object:
        from worker.brokers.kis.auth import AccessTokenPayload, Held

        now = SystemClock().now()
        payload = AccessTokenPayload(access_token="t", expires_in=1000, expires_at=now)  # type: ignore[arg-type]
        return Held(payload, 900, 1000)


def _until(is_so: Callable[[], bool]) -> None:
    for _ in range(500):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")
