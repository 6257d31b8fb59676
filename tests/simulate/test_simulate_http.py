"""The simulated KIS over HTTP and WebSocket: what reaches a client, and what does not."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.simulate.broker import BUY, CHANGE, HIGH, KEYS, change_body, daily_query, order_body
from worker.errors import ConfigError
from worker.simulate.faults import read_plan
from worker.simulate.kis import KISOptions, KISSimulator
from worker.simulate.orders import What

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
CALM: dict[str, Any] = {
    "always_open": True,
    "rate": 0,
    "ledger_rate": 0,
    "token_interval": 0,
    "visibility_lag": 0,
}


class Wire:
    """A client over HTTP."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url
        self._client = client
        self._token = "none-yet"
        asked = KEYS | {"grant_type": "client_credentials"}
        self._token = self.post("/oauth2/tokenP", asked).json()["access_token"]

    def post(self, path: str, body: Any, tr_id: str = "", **headers: str) -> httpx.Response:
        return self._client.post(self.url + path, json=body, headers=self._headers(tr_id) | headers)

    def get(self, path: str, query: dict[str, str] | None = None, tr_id: str = "") -> httpx.Response:
        return self._client.get(self.url + path, params=query, headers=self._headers(tr_id))

    def buy(self, **changes: Any) -> httpx.Response:
        return self.post(ORDER, order_body(**changes), BUY)

    def faults(self, *rules: dict[str, Any]) -> None:
        assert self.post("/sim/faults", list(rules)).status_code == 200

    def booked(self) -> list[dict[str, Any]]:
        return list(self.get("/sim/book").json()["orders"])

    def _headers(self, tr_id: str) -> dict[str, str]:
        return KEYS | {"authorization": f"Bearer {self._token}", "tr_id": tr_id, "custtype": "P"}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, KISSimulator]]:
    simulator = KISSimulator(KISOptions(**CALM))
    with simulator.serve() as url:
        yield url, simulator


@pytest.fixture
def wire(served: tuple[str, KISSimulator]) -> Iterator[Wire]:
    with httpx.Client(timeout=2) as client:
        found = Wire(served[0], client)
        found.faults()
        yield found


# --- Faults --------------------------------------------------------------------------------------------------


def booked_by(wire: Wire, act: Any) -> int:
    before = len(wire.booked())
    act()
    return len(wire.booked()) - before


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"what": "reset"}, httpx.ReadError),
        ({"what": "lose_reply", "seconds": 0.05}, httpx.RemoteProtocolError),
        ({"what": "lose_reply", "seconds": 30}, httpx.ReadTimeout),
    ],
)
@pytest.mark.parametrize("booked", [True, False])
def test_a_lost_reply_says_nothing_about_the_book(
    wire: Wire, fault: dict[str, Any], error: type[Exception], booked: bool
) -> None:
    wire.faults(fault | {"nth": 1, "booked": booked})

    def lose() -> None:
        with httpx.Client(timeout=0.3) as client, pytest.raises(error):
            Wire(wire.url, client).buy()

    assert booked_by(wire, lose) == booked


@pytest.mark.parametrize(
    ("what", "status", "rt_cd", "booked"),
    [
        ("IGW00009", 500, "0", 1),
        ("EGW00301", 500, "1", 1),
        ("EGW00302", 500, "1", 1),
        ("EGW00201", 500, "1", 0),
        ("EGW00215", 500, "1", 0),
        ("APBK0952", 200, "7", 0),
        ("ZZZZ9999", 500, "1", 0),
    ],
)
def test_a_code_on_demand_is_answered_with_the_order_on_the_book_or_not(
    wire: Wire, what: str, status: int, rt_cd: str, booked: int
) -> None:
    wire.faults({"what": what, "nth": 1})
    answers: list[httpx.Response] = []

    assert booked_by(wire, lambda: answers.append(wire.buy())) == booked

    body = answers[0].json()
    assert (answers[0].status_code, body["rt_cd"], body["msg_cd"]) == (status, rt_cd, what)
    assert "output" not in body


def test_a_page_for_people_and_half_a_document_are_no_answers(wire: Wire) -> None:
    wire.faults({"what": "html", "nth": 1}, {"what": "garbled", "nth": 2}, {"what": "no_number", "nth": 3})
    answers: list[httpx.Response] = []

    assert booked_by(wire, lambda: answers.extend(wire.buy() for _ in range(3))) == 2

    page, half, numberless = answers
    assert (page.status_code, page.text[:6]) == (502, "<html>")
    with pytest.raises(ValueError):
        half.json()
    assert numberless.json()["rt_cd"] == "0"
    assert numberless.json()["output"]["ODNO"] == ""


def test_a_doubled_answer_leaves_one_order(wire: Wire) -> None:
    wire.faults({"what": "doubled", "nth": 1})
    before = len(wire.booked())
    body = json.dumps(order_body()).encode()
    headers = {**wire._headers(BUY), "content-type": "application/json", "content-length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    host, port = wire.url.removeprefix("http://").split(":")

    with socket.create_connection((host, int(port)), 5) as raw:
        raw.sendall(f"POST {ORDER} HTTP/1.1\r\nhost: {host}\r\n{head}\r\n".encode() + body)
        seen = b""
        while seen.count(b'"ODNO"') < 2:
            seen += raw.recv(65536)

    assert seen.count(b"HTTP/1.1 200 OK") == 2
    assert len(wire.booked()) - before == 1


def test_a_held_order_is_booked_after_the_client_gave_up(wire: Wire) -> None:
    wire.faults({"what": "hold", "nth": 1, "seconds": 0.3})
    before = len(wire.booked())

    with httpx.Client(timeout=0.1) as hasty, pytest.raises(httpx.ReadTimeout):
        hasty.post(wire.url + ORDER, json=order_body(), headers=wire._headers(BUY))
    early = len(wire.booked())

    assert early == before
    _until(lambda: len(wire.booked()) == before + 1)


def test_a_late_order_hides_from_the_lists_and_not_from_the_book(wire: Wire) -> None:
    wire.faults({"what": "hide", "nth": 1, "seconds": 60})
    number = wire.buy().json()["output"]["ODNO"]
    today = next(one["day"] for one in wire.booked() if one["number"] == number).replace("-", "")
    query = daily_query(INQR_STRT_DT=today, INQR_END_DT=today, ODNO=number)

    rows = wire.get("/uapi/domestic-stock/v1/trading/inquire-daily-ccld", query, "TTTC0081R").json()[
        "output1"
    ]

    assert rows == []


def test_the_exchange_refuses_an_order_that_was_accepted(wire: Wire) -> None:
    wire.faults({"what": "refuse_later", "nth": 1, "seconds": 0.05})

    number = wire.buy(ORD_UNPR=HIGH).json()["output"]["ODNO"]

    _until(lambda: next(one for one in wire.booked() if one["number"] == number)[What.REFUSED] == 10)


def test_a_plan_counts_from_the_moment_it_is_set_and_only_its_own_calls(wire: Wire) -> None:
    wire.buy()
    wire.faults({"what": "EGW00201", "nth": 2}, {"what": "APBK0344", "nth": 1, "on": "cancel"})

    codes = [wire.buy().json()["msg_cd"] for _ in range(3)]
    cancel = wire.post(ORDER.replace("order-cash", "order-rvsecncl"), change_body("1"), CHANGE).json()[
        "msg_cd"
    ]

    assert codes == ["APBK0013", "EGW00201", "APBK0013"]
    assert cancel == "APBK0344"
    state = wire.get("/sim/faults").json()
    assert state["calls"] == {"order": 3, "cancel": 1}
    assert state["met"] == {"EGW00201": 1, "APBK0344": 1}


def test_faults_by_chance_come_at_their_rate(wire: Wire) -> None:
    wire.faults({"what": "EGW00201", "rate": 0.5})

    refused = sum(wire.buy().json()["msg_cd"] == "EGW00201" for _ in range(60))

    assert 15 <= refused <= 45


def test_the_token_call_has_faults_too(wire: Wire) -> None:
    wire.faults({"what": "EGW00133", "nth": 1, "on": "token"}, {"what": "html", "nth": 2, "on": "token"})

    asked = KEYS | {"grant_type": "client_credentials"}
    refused, page, good = (wire.post("/oauth2/tokenP", asked) for _ in range(3))

    assert (refused.status_code, refused.json()["error_code"]) == (403, "EGW00133")
    assert page.status_code == 502
    assert good.json()["token_type"] == "Bearer"


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"what": "explode", "nth": 1}, "what: one of"),
        ({"what": "reset"}, "say either nth or rate"),
        ({"what": "reset", "nth": 1, "rate": 0.1}, "say either nth or rate"),
        ({"what": "reset", "rate": 2}, "0.rate"),
        ({"what": "reset", "nth": 1, "when": "now"}, "0.when"),
    ],
)
def test_a_plan_that_cannot_be_used_says_why_and_changes_nothing(
    wire: Wire, rule: dict[str, Any], says: str
) -> None:
    wire.faults({"what": "EGW00201", "nth": 1})

    answer = wire.post("/sim/faults", [rule])

    assert answer.status_code == 400
    assert says in answer.json()["errors"][0]
    assert wire.get("/sim/faults").json()["plan"][0]["what"] == "EGW00201"
    with pytest.raises(ConfigError, match=says):
        read_plan([rule])


def test_a_server_with_a_silent_client_stops_at_once() -> None:
    simulator = KISSimulator(KISOptions(**CALM, faults=tuple(read_plan([{"what": "lose_reply", "nth": 1}]))))
    with simulator.serve() as url:
        with httpx.Client(timeout=0.1) as client, pytest.raises(httpx.ReadTimeout):
            Wire(url, client).buy()
        # The client is gone; another still waits.
        simulator.faults.set(read_plan([{"what": "hold", "nth": 1, "seconds": 60}]))
        body = b"{}"
        raw = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), 5)
        raw.sendall(b"POST /oauth2/tokenP HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n" + body)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    raw.close()


# --- HTTP itself ---------------------------------------------------------------------------------------------


def test_a_body_in_chunks_dies_at_the_gateway(wire: Wire) -> None:
    body = json.dumps(order_body()).encode()

    def chunks() -> Iterator[bytes]:
        yield body

    headers = wire._headers(BUY) | {"content-type": "application/json"}
    answer = httpx.post(wire.url + ORDER, content=chunks(), headers=headers)

    assert (answer.status_code, answer.json()["msg_cd"]) == (500, "EGW00202")


def test_a_hashkey_is_made_and_taken(wire: Wire) -> None:
    made = wire.post("/uapi/hashkey", order_body()).json()

    assert made["BODY"] == order_body()
    assert len(made["HASH"]) == 64
    assert wire.post(ORDER, order_body(), BUY, hashkey=made["HASH"]).json()["rt_cd"] == "0"
    assert wire.post(ORDER, order_body(ORD_QTY=11), BUY, hashkey=made["HASH"]).json()["msg_cd"] == "EGW00131"


def test_revoked_tokens_are_gone_for_good(wire: Wire) -> None:
    httpx.delete(wire.url + "/sim/tokens")

    assert wire.buy().json()["msg_cd"] == "EGW00121"


def test_every_answer_carries_the_headers_of_the_gateway(wire: Wire) -> None:
    answer = wire.buy()

    assert answer.headers["tr_id"] == BUY
    assert len(answer.headers["gt_uid"]) == 32
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


# --- Notices -------------------------------------------------------------------------------------------------


@contextmanager
def notices(wire: Wire, keys: dict[str, str] = KEYS) -> Iterator[tuple[ClientConnection, str]]:
    asked = {"grant_type": "client_credentials", "appkey": keys["appkey"], "secretkey": keys["appsecret"]}
    key = wire.post("/oauth2/Approval", asked).json()["approval_key"]
    with connect(wire.url.replace("http", "ws") + "/tryitout", ping_interval=None) as line:
        yield line, key


def subscribe(
    line: ClientConnection, key: str, tr_id: str = "H0STCNI0", tr_key: str = "me", what: str = "1"
) -> Any:
    header = {"approval_key": key, "custtype": "P", "tr_type": what, "content-type": "utf-8"}
    line.send(json.dumps({"header": header, "body": {"input": {"tr_id": tr_id, "tr_key": tr_key}}}))
    return json.loads(line.recv(3))


def opened(frame: str, seal: dict[str, str]) -> list[str]:
    sealed, tr_id, count, payload = frame.split("|", 3)
    assert (sealed, tr_id, count) == ("1", "H0STCNI0", "001")
    reader = Cipher(algorithms.AES(seal["key"].encode()), modes.CBC(seal["iv"].encode())).decryptor()
    padded = reader.update(base64.b64decode(payload)) + reader.finalize()
    unpadder = PKCS7(128).unpadder()
    return (unpadder.update(padded) + unpadder.finalize()).decode().split("^")


def test_the_life_of_an_order_is_told_sealed(wire: Wire) -> None:
    with notices(wire) as (line, key):
        ack = subscribe(line, key)
        seal = ack["body"]["output"]

        filled = wire.buy(ORD_UNPR=HIGH, ORD_QTY=1).json()["output"]["ODNO"]
        told = [opened(str(line.recv(3)), seal) for _ in range(2)]
        resting = wire.buy().json()["output"]["ODNO"]
        opened(str(line.recv(3)), seal)
        wire.post(ORDER.replace("order-cash", "order-rvsecncl"), change_body(resting), CHANGE)
        cancelled = [opened(str(line.recv(3)), seal) for _ in range(2)]

    assert (ack["header"]["encrypt"], ack["body"]["msg_cd"]) == ("Y", "OPSP0000")
    assert (len(seal["key"]), len(seal["iv"])) == (32, 16)
    assert all(len(fields) == 26 for fields in told + cancelled)
    assert [(fields[2], fields[13], fields[14]) for fields in told] == [
        (filled, "1", "1"),
        (filled, "2", "2"),
    ]
    assert (told[1][1], told[1][4], told[1][8], told[1][9]) == ("1234567801", "02", "005930", "1")
    assert 0 < int(told[1][10]) < HIGH
    assert [(fields[3], fields[5], fields[14]) for fields in cancelled] == [
        (resting, "2", "1"),
        (resting, "2", "2"),
    ]


def test_a_line_is_for_one_session_of_an_app_key_and_known_subscriptions(wire: Wire) -> None:
    with notices(wire) as (line, key):
        codes = [
            subscribe(line, key)["body"]["msg_cd"],
            subscribe(line, key)["body"]["msg_cd"],
            subscribe(line, key, "H0STCNI9")["body"]["msg_cd"],
            subscribe(line, "nobody")["body"]["msg_cd"],
            subscribe(line, key, what="2")["body"]["msg_cd"],
            subscribe(line, key, what="2")["body"]["msg_cd"],
        ]
        line.send('{"header":{"tr_id":"PINGPONG"}}')
        with connect(wire.url.replace("http", "ws") + "/tryitout") as second:
            refused = subscribe(second, key)["body"]

    assert codes == ["OPSP0000", "OPSP0002", "OPSP8992", "OPSP0011", "OPSP0001", "OPSP0003"]
    assert (refused["rt_cd"], refused["msg_cd"]) == ("9", "OPSP8996")


def test_a_wrong_hts_id_ends_the_line() -> None:
    with KISSimulator(KISOptions(**CALM, hts_id="me")).serve() as url, httpx.Client() as client:
        with notices(Wire(url, client)) as (line, key), pytest.raises(ConnectionClosed):
            subscribe(line, key, tr_key="somebody")


# --- The book's file -----------------------------------------------------------------------------------------


def test_what_was_answered_is_on_the_book_after_a_kill(tmp_path: Path) -> None:
    book = tmp_path / "book.jsonl"
    answered: set[str] = set()
    for _ in range(2):
        with _process(book) as (url, process), httpx.Client(timeout=5) as client:
            wire = Wire(url, client)
            held = {one["number"] for one in wire.booked()}
            assert answered <= held
            answered = held
            answered |= {wire.buy(ORD_UNPR=HIGH, ORD_QTY=3).json()["output"]["ODNO"] for _ in range(25)}
            state = wire.booked()
            process.send_signal(signal.SIGKILL)
            process.wait(5)
        # A line that the kill tore.
        with book.open("ab") as file:
            file.write(b'{"event": "placed", "num')

    again = KISSimulator(KISOptions(**CALM, book=book))
    assert {one.number for one in again.orders()} == answered
    assert {one.number: one.filled for one in again.orders()} == {
        one["number"]: one["filled"] for one in state
    }
    assert book.read_bytes().endswith(b"}\n")


def test_a_book_with_a_broken_line_in_the_middle_is_not_built_upon(tmp_path: Path) -> None:
    book = tmp_path / "book.jsonl"
    book.write_text('{"event": "placed"}\n{"event": "filled"}\n', "utf-8")

    with pytest.raises(ConfigError, match="line 1 of"):
        KISSimulator(KISOptions(book=book))


@contextmanager
def _process(book: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "worker", "simulate", "kis", "--json", "--port", "0", "--at", "open"]
    command += ["--rate", "0", "--token-interval", "0", "--depth", "5", "--book", str(book)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": "."},
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"], process
    finally:
        process.kill()
        process.wait(5)
        process.stdout.close()


def _until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
