"""The simulated broker: its faults, and a book that survives kill -9 and is shared by processes."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contracts import ExecutionIntent, OrderQuery, OrderRequest, OrderStatus, Side, TimeInForce
from worker.brokers import LiveBroker, Send
from worker.brokers.book import FileBook, MemoryBook
from worker.brokers.simulated import SimulatedBrokerAdapter, SimulatedOptions
from worker.clock import ManualClock, SystemClock
from worker.errors import ConfigError, NotSent, OutcomeUnknown, Rejected

Make = Callable[..., ExecutionIntent]


def a_request(client_order_id: str = "intent-1", **changes: Any) -> OrderRequest:
    fields: dict[str, Any] = {
        "client_order_id": client_order_id,
        "symbol": "005930",
        "side": Side.BUY,
        "quantity": Decimal(10),
        "limit_price": Decimal(71000),
    }
    return OrderRequest(**(fields | changes))


def a_broker(**options: Any) -> SimulatedBrokerAdapter:
    return SimulatedBrokerAdapter(SimulatedOptions(**options), clock=ManualClock())


def lines(book: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in book.read_text().splitlines()]


# --- faults ----------------------------------------------------------------------------------------------


def ends(adapter: SimulatedBrokerAdapter, count: int) -> list[str]:
    """How so many orders end, one word each."""
    found = []
    for number in range(count):
        try:
            adapter.place_order(a_request(f"intent-{number}"))
            found.append("accepted")
        except (NotSent, Rejected, OutcomeUnknown) as error:
            found.append(type(error).__name__)
    return found


def test_a_seed_gives_the_same_bad_luck_in_every_run() -> None:
    options = {"seed": 7, "fail_rate": 0.2, "reject_rate": 0.2, "lose_reply_rate": 0.2}

    first, second = ends(a_broker(**options), 300), ends(a_broker(**options), 300)

    assert first == second
    assert set(first) == {"accepted", "NotSent", "Rejected", "OutcomeUnknown"}
    assert ends(a_broker(**(options | {"seed": 8})), 300) != first


def test_only_accepted_orders_and_lost_replies_are_in_the_book(tmp_path: Path) -> None:
    book = tmp_path / "book.jsonl"
    adapter = a_broker(book=book, seed=1, fail_rate=0.3, reject_rate=0.3, lose_reply_rate=0.3)

    found = ends(adapter, 200)

    held = [f"intent-{at}" for at, end in enumerate(found) if end in ("accepted", "OutcomeUnknown")]
    assert [line["intent_id"] for line in lines(book)] == held


def test_an_order_is_booked_before_its_reply_travels(tmp_path: Path) -> None:
    clock = ManualClock()
    adapter = SimulatedBrokerAdapter(SimulatedOptions(latency=3, book=tmp_path / "book"), clock=clock)
    sent_at = clock.now()

    adapter.place_order(a_request())

    assert clock.now() - sent_at == timedelta(seconds=3)
    assert lines(tmp_path / "book")[0]["placed_at"] == sent_at.isoformat()


def test_the_same_intent_twice_is_two_orders_so_that_doubles_show(tmp_path: Path) -> None:
    adapter = a_broker(book=tmp_path / "book")

    numbers = [adapter.place_order(a_request()).broker_order_id for _ in range(2)]

    assert len(set(numbers)) == 2
    assert [line["intent_id"] for line in lines(tmp_path / "book")] == ["intent-1"] * 2


def test_faults_can_be_turned_on_and_off_while_it_runs(tmp_path: Path) -> None:
    control = tmp_path / "faults.json"
    adapter = a_broker(faults=control)

    assert ends(adapter, 1) == ["accepted"]
    control.write_text('{"reject_rate": 1}')
    assert ends(adapter, 2) == ["Rejected"] * 2
    control.write_text('{"fail_rate": 1.0}')
    assert ends(adapter, 1) == ["NotSent"]
    control.write_text("{}")
    assert ends(adapter, 1) == ["accepted"]
    control.write_text('{"lose_reply_rate": 1}')
    assert ends(adapter, 1) == ["OutcomeUnknown"]
    control.unlink()
    assert ends(adapter, 1) == ["accepted"]


def test_the_faults_file_replaces_only_what_it_names(tmp_path: Path) -> None:
    control = tmp_path / "faults.json"
    control.write_text('{"latency": 2}')
    adapter = a_broker(faults=control, reject_rate=1)

    assert ends(adapter, 1) == ["Rejected"]


def test_no_order_meets_the_old_faults_while_the_new_ones_are_being_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    control, reading, go_on = tmp_path / "faults.json", threading.Event(), threading.Event()
    adapter = a_broker(faults=control)
    control.write_text('{"reject_rate": 1}')
    read_bytes = Path.read_bytes

    def slowly(path: Path) -> bytes:
        reading.set()
        go_on.wait(5)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", slowly)
    found: list[str] = []
    orders = [threading.Thread(target=lambda: found.extend(ends(adapter, 1))) for _ in range(2)]
    for order in orders:
        order.start()
        reading.wait(5)
    orders[1].join(0.1)
    go_on.set()
    for order in orders:
        order.join(5)

    assert found == ["Rejected", "Rejected"]


def test_a_faults_file_broken_while_it_runs_is_said_once_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    control = tmp_path / "faults.json"
    control.write_text('{"reject_rate": 1}')
    adapter = a_broker(faults=control)
    control.write_text('{"reject_rat')

    with caplog.at_level(logging.WARNING):
        assert ends(adapter, 3) == ["Rejected"] * 3

    assert len(caplog.records) == 1
    assert str(control) in caplog.text


# --- options ---------------------------------------------------------------------------------------------


def test_all_wrong_options_are_named_together() -> None:
    wrong = {"latency": -1, "reject_rate": 1.5, "fail_rate": "often", "lose_replies": 0.5, "seed": "x"}

    with pytest.raises(ValidationError) as refused:
        SimulatedBrokerAdapter.from_options(wrong, mode="paper", clock=SystemClock())

    assert {fault["loc"][0] for fault in refused.value.errors()} == set(wrong)


def test_options_from_the_environment_arrive_as_text(tmp_path: Path) -> None:
    text = {"latency": "0.5", "seed": "7", "book": str(tmp_path / "book"), "visibility_lag": "2"}

    adapter = SimulatedBrokerAdapter.from_options(text, mode="off", clock=ManualClock())

    assert adapter.visibility_lag == 2
    assert (tmp_path / "book").exists()


def test_a_book_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"book: cannot open .*missing"):
        a_broker(book=tmp_path / "missing" / "book.jsonl")


@pytest.mark.parametrize("text", ["not json", '{"lose_replies": 1}', '{"fail_rate": 2}'])
def test_a_faults_file_that_cannot_be_used_is_named_at_the_start(tmp_path: Path, text: str) -> None:
    control = tmp_path / "faults.json"
    control.write_text(text)

    with pytest.raises(ConfigError, match=r"faults: .*faults\.json"):
        a_broker(faults=control)


# --- the book --------------------------------------------------------------------------------------------


def test_a_line_of_the_book_tells_the_whole_order(tmp_path: Path) -> None:
    clock = ManualClock()
    adapter = SimulatedBrokerAdapter(SimulatedOptions(book=tmp_path / "book"), clock=clock)

    order = adapter.place_order(
        a_request(quantity=Decimal("1E+1"), time_in_force=TimeInForce.IOC, venue="KRX", limit_price=None)
    )

    assert lines(tmp_path / "book") == [
        {
            "broker_order_id": order.broker_order_id,
            "intent_id": "intent-1",
            "symbol": "005930",
            "side": "BUY",
            "quantity": "10",
            "limit_price": None,
            "time_in_force": "IOC",
            "venue": "KRX",
            "placed_at": clock.now().isoformat(),
            "worker_pid": os.getpid(),
        }
    ]


def test_a_cancel_is_one_more_line(tmp_path: Path) -> None:
    adapter = a_broker(book=tmp_path / "book")
    number = adapter.place_order(a_request()).broker_order_id

    adapter.cancel_order(OrderQuery("005930", broker_order_id=number))

    with pytest.raises(Rejected):
        adapter.cancel_order(OrderQuery("005930", broker_order_id=number))

    assert lines(tmp_path / "book")[1:] == [{"cancel": number}]


@pytest.mark.parametrize("torn", [b'{"broker_order_id":"S0000000', b'{"cancel":"S', b"\xff\xfe", b"{}", b"7"])
def test_a_line_somebody_died_on_is_no_order_and_spoils_no_other(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "book"
    a_broker(book=path).place_order(a_request("before"))
    with path.open("ab") as book:
        book.write(torn)
    reader = a_broker(book=path)
    began = ManualClock().now()
    seen_torn = [order.client_order_id for order in reader.list_orders(began).orders]

    number = a_broker(book=path).place_order(a_request("after")).broker_order_id

    assert seen_torn == ["before"]
    assert [order.client_order_id for order in reader.list_orders(began).orders] == ["before", "after"]
    by_number = reader.get_order(OrderQuery("005930", broker_order_id=number))
    by_id = reader.get_order(OrderQuery("005930", client_order_id="after"))
    assert by_number is not None
    assert by_number == by_id


@pytest.mark.parametrize(
    "number", ["S000000000002", "S999999999999", "S" + "9" * 30, "S", "", "X1", "S-1", "S١"]
)
def test_a_number_the_book_never_gave_is_unknown(tmp_path: Path, number: str) -> None:
    query = OrderQuery("005930", broker_order_id=number)
    for adapter in (a_broker(book=tmp_path / "book"), a_broker()):
        adapter.place_order(a_request())

        assert adapter.get_order(query) is None
        with pytest.raises(Rejected):
            adapter.cancel_order(query)


def test_a_line_that_is_still_being_written_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path, began = tmp_path / "book", ManualClock().now()
    a_broker(book=path).place_order(a_request())
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    reader = a_broker(book=path)

    half = reader.list_orders(began).orders
    path.write_bytes(whole)

    assert half == ()
    assert [order.client_order_id for order in reader.list_orders(began).orders] == ["intent-1"]


def test_a_place_in_the_book_with_another_orders_number_is_not_that_order(tmp_path: Path) -> None:
    path = tmp_path / "book"
    adapter = a_broker(book=path)
    number = adapter.place_order(a_request()).broker_order_id
    path.write_text(path.read_text().replace(number, "S000000009999"))

    assert adapter.get_order(OrderQuery("005930", broker_order_id=number)) is None


def test_forgetting_an_old_order_leaves_a_newer_one_of_the_same_intent(tmp_path: Path) -> None:
    book = MemoryBook(orders_max=2)
    numbers = [book.add(a_request(intent_id), ManualClock().now) for intent_id in ("a", "a", "b")]

    found = book.find(None, "a")

    assert found is not None
    assert found.broker_order_id == numbers[1]


def test_an_id_that_is_part_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    adapter = a_broker(book=tmp_path / "book")
    adapter.place_order(a_request("intent-12"))

    assert adapter.get_order(OrderQuery("005930", client_order_id="intent-1")) is None
    assert adapter.get_order(OrderQuery("005930", client_order_id="ntent-12")) is None


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_book_of_many_orders_forgets_none_in_silence(tmp_path: Path, kind: str) -> None:
    clock = ManualClock()
    book = MemoryBook(orders_max=5) if kind == "memory" else FileBook(tmp_path / "book", orders_max=5)
    began = clock.now()
    for number in range(12):
        book.add(a_request(f"intent-{number}"), clock.now)
        clock.advance(1)

    recent, recent_complete = book.since(began + timedelta(seconds=7))
    every, every_complete = book.since(began)

    assert [order.client_order_id for order in recent] == [f"intent-{at}" for at in range(7, 12)]
    assert recent_complete
    assert every_complete is (len(every) == 12)
    assert every_complete is (kind == "file")


def test_a_book_in_memory_stays_small_over_many_orders() -> None:
    book = MemoryBook(orders_max=100)

    for number in range(1000):
        held = book.add(a_request(f"intent-{number}"), ManualClock().now)
        book.cancel(held, None, ManualClock().now)

    assert {len(book._orders), len(book._by_client), len(book._cancelled)} == {100}


def test_a_reader_follows_the_orders_and_cancels_of_other_processes(tmp_path: Path) -> None:
    path, began = tmp_path / "book", ManualClock().now()
    reader, writer = a_broker(book=path), a_broker(book=path)

    states = []
    for number in range(3):
        placed = writer.place_order(a_request(f"intent-{number}"))
        states.append([order.status for order in reader.list_orders(began).orders])
        writer.cancel_order(OrderQuery("005930", broker_order_id=placed.broker_order_id))

    working, cancelled = OrderStatus.WORKING, OrderStatus.CANCELLED
    assert states == [[working], [cancelled, working], [cancelled, cancelled, working]]
    assert {order.status for order in reader.list_orders(began).orders} == {cancelled}


def test_a_book_that_was_emptied_is_read_anew(tmp_path: Path) -> None:
    path, began = tmp_path / "book", ManualClock().now()
    adapter = a_broker(book=path)
    adapter.place_order(a_request("yesterday"))
    adapter.list_orders(began)
    path.write_bytes(b"")

    assert adapter.list_orders(began).orders == ()
    assert adapter.get_order(OrderQuery("005930", client_order_id="yesterday")) is None


# --- processes -------------------------------------------------------------------------------------------

PLACER = """
import sys
from decimal import Decimal
from pathlib import Path
from contracts import OrderRequest, Side
from worker.brokers.simulated import SimulatedBrokerAdapter, SimulatedOptions
adapter = SimulatedBrokerAdapter(SimulatedOptions(book=Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
for at in range(int(sys.argv[3])):
    adapter.place_order(OrderRequest(f"{sys.argv[2]}-{at}", "005930", Side.BUY, Decimal(1)))
"""


def start_placer(book: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", PLACER, str(book), name, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()


def end(process: subprocess.Popen[bytes]) -> int:
    code = process.wait(60)
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    return code


@pytest.mark.process
def test_processes_and_threads_share_one_book_and_no_number_is_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "book"
    placers = [start_placer(path, f"p{at}", 300) for at in range(3)]
    adapter = a_broker(book=path)
    threads = [
        threading.Thread(
            target=lambda name=at: [adapter.place_order(a_request(f"t{name}-{k}")) for k in range(300)]
        )
        for at in range(3)
    ]

    for placer in placers:
        go(placer)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [end(placer) for placer in placers] == [0, 0, 0]

    held = lines(path)
    assert len({line["broker_order_id"] for line in held}) == len(held) == 1800
    assert len({line["worker_pid"] for line in held}) == 4


@pytest.mark.process
def _order_in(text: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return found


def test_the_book_of_a_killed_process_is_whole_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "book"
    for round_ in range(5):
        placer = start_placer(path, f"r{round_}", 10**9)
        go(placer)
        size = path.stat().st_size
        while path.stat().st_size < size + 4000:
            time.sleep(0.001)
        placer.send_signal(signal.SIGKILL)
        assert end(placer) == -signal.SIGKILL

    placer = start_placer(path, "last", 3)
    go(placer)
    assert end(placer) == 0

    # What somebody died on is no order; what comes after it is whole.
    held = [line for text in path.read_text("utf-8").splitlines() if (line := _order_in(text))]
    assert len({line["broker_order_id"] for line in held}) == len(held)
    assert [line["intent_id"] for line in held[-3:]] == ["last-0", "last-1", "last-2"]


# --- with the guard in front -----------------------------------------------------------------------------


def test_a_late_order_through_the_live_broker_is_not_sent(make_intent: Make, tmp_path: Path) -> None:
    clock = ManualClock()
    adapter = SimulatedBrokerAdapter(SimulatedOptions(book=tmp_path / "book"), clock=clock)

    response = LiveBroker(adapter, clock=clock).submit_intent(
        make_intent(), Send("main", 1, send_before=clock.boottime() - 0.001)
    )

    assert (response.outcome, response.safety_code) == ("NOT_SENT", "FS042")
    assert lines(tmp_path / "book") == []
