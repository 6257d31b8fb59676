"""`worker submit`: nothing is sent twice, nothing is dropped in silence, and a bad file sends nothing at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from contracts import Code, ExecutionIntent, ExecutionResponse, Outcome, dump, load_intent
from worker.cli.app import app
from worker.cli.context import Surroundings
from worker.clock import ManualClock
from worker.keys import RouteKeys

KEYS = RouteKeys("default")
EXAMPLE = Path(__file__).parents[1] / "data/krx200.csv"
HEADER = "symbol,side,quantity,intent_type,limit_price\n"
GOOD = "005930,BUY,10,LIMIT,71000\n"

Cli = Callable[..., Result]


@pytest.fixture
def client(any_redis: Any) -> Any:
    return any_redis.connect()


@pytest.fixture
def cli(any_redis: Any) -> Cli:
    def call(*args: str, stdin: bytes | None = None, **environ: str) -> Result:
        settings = {"EXECWORKER_REDIS_URL": any_redis.url, **environ}
        desk = Surroundings(settings, any_redis.connect, ManualClock(datetime.now(UTC)))
        return CliRunner().invoke(app, ["submit", *args], input=stdin, obj=desk)

    return call


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def make(text: str | bytes, name: str = "intents.csv") -> str:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return make


def queued(client: Any, stream: str = KEYS.intents) -> list[ExecutionIntent]:
    return [load_intent(fields[b"body"]) for _, fields in client.xrange(stream)]


def answer(intent: ExecutionIntent, *, accepted: bool = True) -> ExecutionResponse:
    return ExecutionResponse(
        intent_id=intent.intent_id,
        accepted=accepted,
        broker="simulated",
        message="",
        timestamp=datetime.now(UTC),
        outcome=Outcome.ACCEPTED if accepted else Outcome.REJECTED,
        code=None if accepted else Code.BROKER_REJECTED,
        broker_order_id="7" if accepted else None,
    )


def settle(client: Any, intent: ExecutionIntent, *, accepted: bool = True) -> None:
    """As the worker does it."""
    body = dump(answer(intent, accepted=accepted))
    entry = {"state": "settled", "fingerprint": intent.fingerprint(), "response": body}
    with client.pipeline() as pipe:
        pipe.hset(KEYS.intent(intent.intent_id), mapping=entry)
        pipe.xadd(KEYS.responses, {"intent_id": intent.intent_id, "body": body})
        pipe.execute()


@pytest.fixture
def answering(any_redis: Any) -> Iterator[Callable[..., None]]:
    """Start something that answers every intent as a worker would."""
    leave = threading.Event()
    threads: list[threading.Thread] = []

    def work(refused: frozenset[str]) -> None:
        client, position = any_redis.connect(), b"0-0"
        while not leave.is_set():
            for entry_id, fields in client.xrange(KEYS.intents, b"(" + position):
                position, intent = entry_id, load_intent(fields[b"body"])
                settle(client, intent, accepted=intent.symbol not in refused)
            leave.wait(0.005)

    def start(*refused: str) -> None:
        threads.append(threading.Thread(target=work, args=(frozenset(refused),)))
        threads[-1].start()

    yield start
    leave.set()
    for thread in threads:
        thread.join()


# --- One intent -------------------------------------------------------------------------------------------

ONE = ("--symbol", "005930", "--side", "buy", "--quantity", "10", "--price", "71000")


def test_one_order_is_sent_as_it_was_typed(cli: Cli, client: Any) -> None:
    done = cli(*ONE, "--strategy", "by hand", "--venue", "KRX", "--tif", "ioc", "--expires-in", "30")

    [intent] = queued(client)
    assert done.exit_code == 0
    assert (intent.intent_type, intent.side, str(intent.limit_price)) == ("LIMIT", "BUY", "71000")
    assert (intent.strategy, intent.venue, intent.time_in_force) == ("by hand", "KRX", "IOC")
    assert intent.expires_at is not None
    assert (intent.expires_at - intent.created_at).total_seconds() == 30
    assert intent.intent_id in done.stderr


def test_leaving_out_the_price_never_makes_a_market_order(cli: Cli, client: Any) -> None:
    done = cli("--symbol", "005930", "--side", "buy", "--quantity", "10")

    assert done.exit_code == 2
    assert "--type MARKET" in done.stderr
    assert queued(client) == []


def test_a_cancel_goes_to_the_stream_that_is_read_first(cli: Cli, client: Any) -> None:
    done = cli("--cancel", "intent-1", "--symbol", "005930")

    [intent] = queued(client, KEYS.cancels)
    assert done.exit_code == 0
    assert intent.target_intent_id == "intent-1"


def test_a_wrong_flag_is_named_and_nothing_is_sent(cli: Cli, client: Any) -> None:
    done = cli("--symbol", "005930", "--side", "buy", "--quantity", "1e5", "--price", "71000")

    assert done.exit_code == 2
    assert "quantity: must be plain digits" in done.stderr
    assert queued(client) == []


@pytest.mark.parametrize("args", [(), ("intents.csv", "--symbol", "005930")])
def test_a_file_and_flags_exclude_each_other(cli: Cli, args: tuple[str, ...]) -> None:
    assert cli(*args).exit_code == 2


def test_machines_learn_the_id_of_what_they_sent(cli: Cli, client: Any) -> None:
    done = cli(*ONE, "--intent-id", "my-1", "--json")

    [(entry_id, _)] = client.xrange(KEYS.intents)
    assert json.loads(done.stdout) == {
        "intent_id": "my-1",
        "route": "default",
        "entry_id": entry_id.decode(),
    }


# --- Files ------------------------------------------------------------------------------------------------


def test_the_example_file_is_enqueued_in_its_order(cli: Cli, client: Any) -> None:
    done = cli(str(EXAMPLE))

    lines = EXAMPLE.read_text().splitlines()[1:]
    assert done.exit_code == 0
    assert [intent.symbol for intent in queued(client)] == [line.split(",")[1] for line in lines]
    assert "200 intents enqueued on route default" in done.stderr


def test_the_same_file_sent_again_is_a_replay_and_a_changed_one_is_not(
    cli: Cli, client: Any, write: Callable[..., str]
) -> None:
    cli(write(HEADER + GOOD + GOOD))
    cli(write(HEADER + GOOD + GOOD, "copy.csv"))
    cli(write(HEADER + GOOD + GOOD + GOOD, "longer.csv"))

    ids = [intent.intent_id for intent in queued(client)]
    assert ids[0:2] == ids[2:4]
    assert len(set(ids)) == 2 + 3


@pytest.mark.parametrize("skip", [(), ("--skip-bad",)])
def test_bad_rows_are_told_together_and_nothing_is_sent_unless_asked(
    cli: Cli, client: Any, write: Callable[..., str], skip: tuple[str, ...]
) -> None:
    rows = [
        "005930,HOLD,0.1e5,LIMIT,71000",
        "005930,BUY,10,LIMIT,",
        "005930,BUY,10",
        "005930,BUY,10,LIMIT,-1",
    ]

    done = cli(write(HEADER + GOOD + "\n".join(rows) + "\n"), *skip)

    assert done.exit_code == 1
    for fault in (
        "row 2: side: ",
        "row 2: quantity: ",
        "row 3: limit_price: ",
        "row 4: ",
        "row 5: limit_price: ",
    ):
        assert fault in done.stderr
    assert "4 bad rows" in done.stderr
    assert len(queued(client)) == len(skip)


def test_an_id_that_is_twice_in_a_file_is_a_mistake_and_no_silent_replay(
    cli: Cli, client: Any, write: Callable[..., str]
) -> None:
    done = cli(write("intent_id," + HEADER + f"a,{GOOD}" + f"b,{GOOD}" + f"a,{GOOD}"))

    assert done.exit_code == 1
    assert "row 3: intent_id: a is row 1's already" in done.stderr
    assert queued(client) == []


def test_a_file_from_a_spreadsheet_is_read(cli: Cli, client: Any, write: Callable[..., str]) -> None:
    text = (
        "\ufeffsymbol,side,quantity,intent_type,limit_price,strategy,metadata.signal,metadata\r\n"
        '005930,BUY, 10 ,LIMIT,71000,"모멘텀, 1호",cross,"{""score"": 0.5}"\r\n'
        ",,,,,,,\r\n"
    )

    done = cli(write(text))

    [intent] = queued(client)
    assert done.exit_code == 0
    assert intent.strategy == "모멘텀, 1호"
    assert intent.metadata == {"signal": "cross", "score": 0.5}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (HEADER.encode("utf-16"), "UTF-16"),
        (
            (HEADER.strip() + ",strategy\n" + GOOD.strip() + ",모멘텀\n").encode("cp949"),
            "row 1: strategy: not UTF-8",
        ),
        (b"symbol,sidee\n", "Did you mean 'side'?"),
        (b"symbol,symbol\n", "symbol is there twice"),
        (b"", "no header"),
        (HEADER.encode(), "holds no intents"),
        (HEADER.encode() + b'"005930,BUY,10,LIMIT,71000\n', "look at its quotes"),
        (HEADER.encode() + b"5930,BUY,10,LIMIT,71000\n", "write 005930"),
        (HEADER.encode() + b"005930,BUY,10,LIMIT,7.1E+04\n", "row 1: limit_price: must be plain digits"),
        (HEADER.encode() + b'005930,BUY,"1,000",LIMIT,71000\n', "row 1: quantity: must be plain digits"),
        (HEADER.encode() + b"=cmd|'/c calc'!A1,BUY,10,LIMIT,71000\n", "row 1: symbol: "),
        (HEADER.encode() + b"00\x005930,BUY,10,LIMIT,71000\n", "row 1: symbol: "),
    ],
)
def test_a_table_that_cannot_be_right_sends_nothing_and_says_why(
    cli: Cli, client: Any, write: Callable[..., str], content: bytes, told: str
) -> None:
    done = cli(write(content))

    assert done.exit_code == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert client.xlen(KEYS.intents) == 0


def test_line_ends_of_any_machine_mean_the_same(cli: Cli, client: Any, write: Callable[..., str]) -> None:
    for ends in ("\n", "\r\n", "\r"):
        assert cli(write((HEADER + GOOD + GOOD).replace("\n", ends))).exit_code == 0

    assert len(queued(client)) == 6


def test_a_code_of_four_digits_is_taken_where_such_codes_exist(
    cli: Cli, client: Any, write: Callable[..., str]
) -> None:
    done = cli(write("venue," + HEADER + "TKSE,7203,BUY,100,LIMIT,2500\n"))

    assert done.exit_code == 0
    assert queued(client)[0].symbol == "7203"


def test_json_lines_come_from_a_pipe(cli: Cli, client: Any) -> None:
    line = '{"symbol":"005930","side":"BUY","quantity":10,"intent_type":"LIMIT","limit_price":"71000"}'

    done = cli("-", stdin=f"\ufeff{line}\r\n\r\n{line}\n".encode())

    ids = [intent.intent_id for intent in queued(client)]
    assert done.exit_code == 0
    assert [one[-7:] for one in ids] == ["-000001", "-000003"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"[1]", "row 1: must be a JSON object"),
        (b"{", "row 1: no JSON"),
        (b'{"symbol":"A","symbol":"B"}', "row 1: symbol: given twice"),
        (b'{"strategy":"\xb8\xf0"}', "row 1: not UTF-8"),
        (b"[" * 100_000, "row 1: "),
        (b"x" * (1024 * 1024 + 1), "line 1 is longer"),
        (
            b'{"intent_type":"LIMIT","quantity":0.1}',
            "row 1: quantity: must be an integer or a decimal string",
        ),
        (b'{"max_price":"1"}', "row 1: max_price: unknown field"),
    ],
    ids=range(8),
)
def test_a_line_that_is_no_intent_sends_nothing_and_says_why(
    cli: Cli, client: Any, line: bytes, told: str
) -> None:
    done = cli("-", stdin=line)

    assert done.exit_code == 1
    assert told in done.stderr
    assert client.xlen(KEYS.intents) == 0


def test_a_row_keeps_its_own_id_and_times(cli: Cli, client: Any, write: Callable[..., str]) -> None:
    text = f"intent_id,created_at,{HEADER}mine,2026-11-23T09:00:00+09:00,{GOOD}"

    cli(write(text), "--expires-in", "5")

    [intent] = queued(client)
    assert intent.intent_id == "mine"
    assert intent.created_at.isoformat() == "2026-11-23T09:00:00+09:00"
    assert intent.expires_at is not None
    assert intent.expires_at.isoformat() == "2026-11-23T09:00:05+09:00"


# --- Answers ----------------------------------------------------------------------------------------------


def test_waiting_prints_an_answer_to_each_and_ends_well_when_all_are_accepted(
    cli: Cli, answering: Callable[..., None]
) -> None:
    answering()

    done = cli(str(EXAMPLE), "--wait", "--timeout", "20", "--json")

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert len({one["intent_id"] for one in answers}) == 200
    assert all(one["accepted"] for one in answers)


def test_waiting_ends_badly_when_one_is_not_accepted(
    cli: Cli, write: Callable[..., str], answering: Callable[..., None]
) -> None:
    answering("000660")

    done = cli(write(HEADER + GOOD + GOOD.replace("005930", "000660")), "--wait", "--timeout", "20")

    assert done.exit_code == 1
    assert "order 7 at simulated" in done.stdout
    assert "BROKER_REJECTED" in done.stdout


def test_a_file_sent_again_prints_the_answers_that_are_there_and_sends_nothing(
    cli: Cli, client: Any, write: Callable[..., str], answering: Callable[..., None]
) -> None:
    path = write(HEADER + GOOD + GOOD)
    answering()
    first = cli(path, "--wait", "--timeout", "20", "--json")

    again = cli(path, "--wait", "--timeout", "0", "--json")

    assert sorted(again.stdout.splitlines()) == sorted(first.stdout.splitlines())
    assert client.xlen(KEYS.intents) == 2
    assert "2 answered before" in again.stderr


def test_waiting_in_vain_says_that_it_may_still_trade(cli: Cli) -> None:
    done = cli(*ONE, "--intent-id", "my-1", "--wait", "--timeout", "0")

    assert done.exit_code == 75
    assert "may still trade" in done.stderr
    assert "`worker intent my-1`" in done.stderr


def test_an_id_that_belongs_to_another_order_is_refused_before_it_is_sent(
    cli: Cli, client: Any, make_intent: Callable[..., ExecutionIntent]
) -> None:
    settle(client, make_intent(intent_id="my-1", quantity=99))

    done = cli(*ONE, "--intent-id", "my-1", "--wait")

    assert done.exit_code == 1
    assert "belongs to another order already" in done.stderr
    assert done.stdout == "", "the other order's answer is no answer to this one"
    assert queued(client) == []


# --- Where to ---------------------------------------------------------------------------------------------


def test_a_route_that_nobody_reads_is_refused(cli: Cli, any_redis: Any) -> None:
    any_redis.connect(any_redis.url).hset("exec:routes", "kis_main", "{}")

    typo = cli(*ONE, "--route", "kis_mian")
    known = cli(*ONE, "--route", "kis_main")

    assert typo.exit_code == 1
    assert "Did you mean 'kis_main'?" in typo.stderr
    assert known.exit_code == 0
    assert any_redis.of("kis_main").xlen(RouteKeys("kis_main").intents) == 1


def test_with_two_routes_one_must_be_said(cli: Cli) -> None:
    settings = {"EXECWORKER_ROUTES__a__MODE": "off", "EXECWORKER_ROUTES__b__MODE": "off"}

    done = cli(*ONE, **settings)

    assert done.exit_code == 2
    assert "a, b" in done.stderr


def test_a_queue_of_another_kind_is_not_written_to_by_guessing(cli: Cli) -> None:
    done = cli(*ONE, EXECWORKER_QUEUE_URL="amqp://127.0.0.1")

    assert done.exit_code == 1
    assert "publish to that one with kombu" in done.stderr
