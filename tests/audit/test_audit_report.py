"""`worker report`: the ledger beside the broker's own list, order by order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from contracts import (
    ExecutionIntent,
    OrderEvent,
    OrderRecord,
    OrderRequest,
    OrderScan,
    OrderStatus,
    Side,
    dump,
)
from tests.conftest import AnyRedis, make_intent
from tests.desk import KEYS, Desk, enqueue
from worker.audit.report import Finding, Line, Ours, compare
from worker.brokers.simulated import SimulatedBrokerAdapter, SimulatedOptions
from worker.cli.app import app
from worker.cli.context import Surroundings
from worker.clock import ManualClock
from worker.errors import BrokerError

START = datetime(2026, 11, 23, tzinfo=UTC)
END = START + timedelta(days=1)
NOON = START + timedelta(hours=12)

Report = Callable[..., Result]


# --- What is compared ---------------------------------------------------------------------------------------


def ours(number: str = "1", at: datetime = NOON, **changes: Any) -> Ours:
    intent = make_intent(intent_id=f"i-{number}", created_at=at)
    return Ours(
        **({"intent_id": f"i-{number}", "broker_order_id": number, "sent_at": at, "intent": intent} | changes)
    )


def row(number: str = "1", at: datetime = NOON, **changes: Any) -> OrderRecord:
    fields: dict[str, Any] = {
        "broker_order_id": number,
        "symbol": "005930",
        "side": Side.BUY,
        "quantity": Decimal(10),
        "status": OrderStatus.WORKING,
        "placed_at": at,
        "limit_price": Decimal(71000),
    }
    return OrderRecord(**(fields | changes))


def found(
    mine: list[Ours],
    theirs: list[OrderRecord],
    doubts: tuple[ExecutionIntent, ...] = (),
    follows: bool = True,
) -> list[tuple[Finding, str | None, str | None]]:
    lines = compare(mine, doubts, theirs, START, END, follows=follows)
    return [(one.finding, one.broker_order_id, one.intent_id) for one in lines]


def test_an_order_that_both_sides_know_alike_matches() -> None:
    assert found([ours()], [row()]) == [(Finding.MATCHING, "1", "i-1")]


def test_an_order_that_the_broker_does_not_list_is_in_the_ledger_only() -> None:
    assert found([ours()], []) == [(Finding.LEDGER_ONLY, "1", "i-1")]


def test_an_order_that_no_answer_names_is_at_the_broker_only() -> None:
    assert found([], [row("7")]) == [(Finding.BROKER_ONLY, "7", None)]


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"quantity": Decimal(11)}, "quantity: ledger 10, broker 11"),
        ({"side": Side.SELL}, "side: ledger BUY, broker SELL"),
        ({"limit_price": Decimal(70900)}, "price: ledger 71000, broker 70900"),
        ({"symbol": "000660"}, "symbol: ledger 005930, broker 000660"),
        ({"filled_quantity": Decimal(3)}, "filled: ledger 0, broker 3"),
        ({"status": OrderStatus.CANCELLED}, "status: ledger WORKING, broker CANCELLED"),
    ],
)
def test_what_the_two_sides_say_differently_is_named(changes: dict[str, Any], difference: str) -> None:
    [line] = compare([ours()], [], [row(**changes)], START, END, follows=True)

    assert line == Line(Finding.DIFFERS, "005930", "1", "i-1", (difference,))


def test_fills_are_not_compared_where_nobody_follows_orders() -> None:
    filled = row(filled_quantity=Decimal(10), status=OrderStatus.FILLED)

    assert found([ours()], [filled], follows=False) == [(Finding.MATCHING, "1", "i-1")]


def test_an_order_in_doubt_takes_the_row_that_looks_like_it() -> None:
    doubt = make_intent(intent_id="d", created_at=NOON)

    assert found([], [row("7")], (doubt,)) == [(Finding.IN_DOUBT, "7", "d")]
    assert found([], [row("7", client_order_id="d")], (doubt,)) == [(Finding.IN_DOUBT, "7", "d")]
    assert found([], [row("7", client_order_id="e")], (doubt,)) == [
        (Finding.IN_DOUBT, None, "d"),
        (Finding.BROKER_ONLY, "7", "e"),
    ]


def test_an_order_at_the_edge_of_a_day_belongs_to_both_sides_or_to_none() -> None:
    """The two sides read different clocks."""
    second = timedelta(seconds=1)
    at_the_start = found([ours(at=START - second)], [row(at=START + second)])
    at_the_end = found([ours(at=END + second)], [row(at=END - second)])
    before = found([ours(at=START - 2 * second)], [row(at=START - second)])

    assert at_the_start == at_the_end == [(Finding.MATCHING, "1", "i-1")]
    assert before == []


# --- The command, on the simulated broker --------------------------------------------------------------------


@pytest.fixture
def client(any_redis: AnyRedis) -> Any:
    return any_redis.connect()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def broker(tmp_path: Path, clock: ManualClock) -> Iterator[SimulatedBrokerAdapter]:
    adapter = SimulatedBrokerAdapter(SimulatedOptions(book=tmp_path / "book.jsonl"), clock=clock)
    yield adapter
    adapter.close()


@pytest.fixture
def report(any_redis: AnyRedis, tmp_path: Path, clock: ManualClock) -> Report:
    def call(day: str = "today", *args: str, mode: str = "paper") -> Result:
        settings = {
            "EXECWORKER_REDIS_URL": any_redis.url,
            "EXECWORKER_ROUTES__DEFAULT__MODE": mode,
            "EXECWORKER_ROUTES__DEFAULT__OPTIONS__BOOK": str(tmp_path / "book.jsonl"),
        }
        surroundings = Surroundings(settings, any_redis.connect, clock)
        return CliRunner().invoke(app, ["report", day, "--zone", "UTC", *args], obj=surroundings)

    return call


@pytest.fixture
def traded(any_redis: AnyRedis, client: Any, broker: SimulatedBrokerAdapter, clock: ManualClock) -> None:
    """Two orders of today, answered and on the book."""
    desk = Desk(any_redis.connect(), broker, clock)
    enqueue(client, make_intent(), make_intent(intent_id="intent-2", symbol="000660"))
    desk.work()


def findings(done: Result) -> list[str]:
    return [json.loads(line)["finding"] for line in done.stdout.splitlines()[:-1]]


@pytest.mark.usefixtures("traded")
def test_a_clean_day_exits_0(report: Report) -> None:
    done = report()
    as_json = report("today", "--json")

    assert done.exit_code == 0
    assert "2 matching: clean" in done.stdout
    assert findings(as_json) == ["matching", "matching"]
    assert json.loads(as_json.stdout.splitlines()[-1])["clean"] is True


@pytest.mark.usefixtures("traded")
def test_an_order_by_hand_is_found(report: Report, broker: SimulatedBrokerAdapter) -> None:
    broker.place_order(OrderRequest("by-hand", "035420", Side.BUY, Decimal(3), Decimal(150_000)))

    done = report("today", "--json")

    assert done.exit_code == 1
    assert findings(done) == ["broker_only", "matching", "matching"]


@pytest.mark.usefixtures("traded")
def test_an_order_that_is_missing_at_the_broker_is_found(report: Report, client: Any, tmp_path: Path) -> None:
    book = tmp_path / "book.jsonl"
    book.write_text("".join(book.read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")

    done = report()

    assert done.exit_code == 1
    assert "1 matching, 1 ledger only: NOT CLEAN" in done.stdout


@pytest.mark.usefixtures("traded")
@pytest.mark.parametrize("stream", [KEYS.responses, KEYS.orders])
@pytest.mark.parametrize(
    "alien", [{"foo": "bar"}, {"body": b"\xff"}, {"body": "{}"}, {"body": "[" * 100_000}]
)
def test_an_entry_that_cannot_be_read_is_named_and_the_day_is_not_clean(
    report: Report, client: Any, stream: str, alien: dict[Any, Any]
) -> None:
    entry = client.xadd(stream, alien).decode()

    done = report()
    as_json = report("today", "--json")

    assert done.exit_code == as_json.exit_code == 1
    assert f"entry {entry} of {stream}" in done.stdout
    assert "2 matching, 1 unreadable: NOT CLEAN" in done.stdout
    assert sorted(findings(as_json)) == ["matching", "matching", "unreadable"]


@pytest.mark.usefixtures("traded")
def test_an_entry_of_another_day_that_cannot_be_read_does_not_count(report: Report, client: Any) -> None:
    client.xadd(KEYS.responses, {"foo": "bar"})

    assert report("yesterday").exit_code == 0


def test_an_order_in_doubt_is_no_clean_day(
    any_redis: AnyRedis, client: Any, clock: ManualClock, report: Report, tmp_path: Path
) -> None:
    lossy = SimulatedBrokerAdapter(
        SimulatedOptions(book=tmp_path / "book.jsonl", lose_reply_rate=1), clock=clock
    )
    enqueue(client, make_intent())
    Desk(any_redis.connect(), lossy, clock).work()

    done = report("today", "--json")

    assert done.exit_code == 1
    assert findings(done) == ["in_doubt"]


@pytest.mark.usefixtures("traded")
@pytest.mark.parametrize("how", ["is silent", "shows a part"])
def test_a_broker_that_does_not_answer_is_no_difference(
    report: Report, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def listing(_: object, since: datetime) -> OrderScan:
        if how == "is silent":
            raise BrokerError("no answer")
        return OrderScan((), complete=False)

    monkeypatch.setattr(SimulatedBrokerAdapter, "list_orders", listing)

    done = report()

    assert done.exit_code == 69
    assert "the broker gave" in done.stderr


@pytest.mark.usefixtures("traded")
def test_what_happens_while_the_day_is_compared_is_looked_at_again(
    any_redis: AnyRedis, client: Any, clock: ManualClock, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order that is placed right after the list was read."""
    list_orders, late = SimulatedBrokerAdapter.list_orders, [True]

    def listing(adapter: SimulatedBrokerAdapter, since: datetime) -> OrderScan:
        scan = list_orders(adapter, since)
        if late and late.pop():
            enqueue(client, make_intent(intent_id="late", symbol="035420"))
            Desk(any_redis.connect(), adapter, clock).work()
        return scan

    monkeypatch.setattr(SimulatedBrokerAdapter, "list_orders", listing)

    done = report()

    assert done.exit_code == 0
    assert "3 matching: clean" in done.stdout


def test_an_empty_day_is_clean_and_one_that_nobody_can_compare_is_refused(
    report: Report, clock: ManualClock
) -> None:
    now = clock.now()

    assert report("yesterday").exit_code == 0
    assert "remembers 7 days" in report(f"{now - timedelta(days=30):%Y-%m-%d}").stderr
    assert report(f"{now + timedelta(days=2):%Y-%m-%d}").exit_code == 2
    assert report("someday").exit_code == 2
    assert "mode off" in report(mode="off").stderr


def test_of_what_was_told_of_an_order_the_last_counts(
    any_redis: AnyRedis, client: Any, clock: ManualClock, broker: SimulatedBrokerAdapter
) -> None:
    from worker.audit.report import read_ours

    enqueue(client, make_intent())
    Desk(any_redis.connect(), broker, clock).work()
    now = clock.now()
    number = read_ours(client, KEYS, now - timedelta(hours=1), now + timedelta(hours=1))[0][0].broker_order_id
    for quantity, status in ((4, OrderStatus.PARTIALLY_FILLED), (10, OrderStatus.FILLED)):
        event = OrderEvent(
            intent_id="intent-1",
            route="default",
            broker="simulated",
            broker_order_id=number,
            symbol="005930",
            status=status,
            filled_quantity=Decimal(quantity),
            seen_by="list",
            timestamp=now,
        )
        client.xadd(KEYS.orders, {"body": dump(event)})

    [one], _ = read_ours(client, KEYS, now - timedelta(hours=1), now + timedelta(hours=1))

    assert (one.status, one.filled) == (OrderStatus.FILLED, Decimal(10))
    assert one.intent is not None and one.intent.quantity == 10
