"""The command line: what happened, what to do, and an exit code that a script can go by."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import types
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from redis.exceptions import NoPermissionError
from typer.testing import CliRunner, Result

import contracts
from contracts import (
    Code,
    ExecutionIntent,
    ExecutionResponse,
    FailsafeEvent,
    FailsafeType,
    OrderEvent,
    OrderStatus,
    Outcome,
    dump,
    load_intent,
)
from worker import __version__, stopping
from worker.__main__ import main
from worker.audit.records import moment
from worker.cli.app import app
from worker.cli.context import Surroundings, table, visible
from worker.clock import ManualClock
from worker.errors import BrokerError, NotSent, Unavailable
from worker.keys import GROUP, RouteKeys
from worker.ledger import Ledger, LedgerRules
from worker.ledger.control import Control
from worker.ledger.records import Entry, Settlement
from worker.producer import read_after

KEYS = RouteKeys("default")

Cli = Callable[..., Result]


@pytest.fixture
def client(any_redis: Any) -> Any:
    return any_redis.connect()


@pytest.fixture
def cli(any_redis: Any) -> Cli:
    def call(*args: str, connect: Any = None, **environ: str) -> Result:
        settings = {"EXECWORKER_REDIS_URL": any_redis.url, **environ}
        desk = Surroundings(settings, connect or any_redis.connect, ManualClock())
        return CliRunner().invoke(app, args, obj=desk)

    return call


def response(intent_id: str = "intent-1") -> ExecutionResponse:
    return ExecutionResponse(
        intent_id=intent_id,
        accepted=False,
        broker="noop",
        message="nothing was sent",
        timestamp=datetime.now(UTC),
        outcome=Outcome.DENIED,
        code=Code.NOOP,
    )


def documents(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- Errors and exit codes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb", [("status",), ("halt", "--reason", "x"), ("submit", "--cancel", "a", "--symbol", "A")]
)
def test_a_redis_that_is_not_there_is_named_with_the_cure(verb: tuple[str, ...]) -> None:
    desk = Surroundings({"EXECWORKER_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}, clock=ManualClock())

    done = CliRunner().invoke(app, verb, obj=desk)

    assert done.exit_code == 69
    assert "127.0.0.1:1/0 does not answer" in done.stderr
    assert "Start it, or set EXECWORKER_REDIS_URL." in done.stderr
    assert "hunter2" not in done.output
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (redis.BusyLoadingError("Redis is loading the dataset in memory"), 69, "Wait, then try again"),
        (NoPermissionError("no permissions to run the 'hkeys' command"), 69, "Give its user that right"),
        (redis.ResponseError("MISCONF Errors writing to the AOF file"), 69, "cannot save to its disk"),
        (redis.AuthenticationError("WRONGPASS"), 69, "Correct the password in EXECWORKER_REDIS_URL"),
        (redis.OutOfMemoryError("OOM command not allowed"), 69, "takes no writes for now"),
        (redis.ResponseError("WRONGTYPE"), 69, "refused a command: WRONGTYPE"),
        (NotSent("no route to host"), 69, "no route to host"),
        (TimeoutError("not within 3 s"), 75, "not within 3 s"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_failure_has_its_exit_code_and_a_line_for_people(
    cli: Cli, error: BaseException, code: int, told: str
) -> None:
    def refuse(url: str, **_: Any) -> redis.Redis:
        raise error

    done = cli("status", connect=refuse)

    assert done.exit_code == code
    assert told in done.stderr
    assert done.stdout == ""


def test_settings_that_cannot_be_used_are_all_told_at_once(cli: Cli) -> None:
    done = cli("status", EXECWORKER_DRAIN_TIMEOUT="soon", EXECWORKER_METRICS_PORT="-1")

    assert done.exit_code == 78
    assert "DRAIN_TIMEOUT" in done.stderr
    assert "METRICS_PORT" in done.stderr


def test_a_reader_that_has_seen_enough_ends_us_quietly(tmp_path: Path) -> None:
    # `head` leaves after a line; what is still to be written must not end in a traceback.
    command = f"{sys.executable} -m worker contracts export --dir {tmp_path} | head -1"

    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)

    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "meant"),
    [(("submt",), "'submit'"), (("guard", "rest"), "'reset'"), (("dead", "drob"), "'drop'")],
)
def test_a_mistyped_verb_suggests_the_nearest(cli: Cli, args: tuple[str, ...], meant: str) -> None:
    done = cli(*args)

    assert done.exit_code == 2
    assert f"Did you mean {meant}" in done.stderr


def test_the_version_is_told(cli: Cli) -> None:
    assert cli("--version").stdout == f"worker {__version__}\n"


def test_help_names_every_verb_that_works_and_none_that_does_not(cli: Cli) -> None:
    listed = {
        line.split()[0] for line in cli("--help").stdout.split("Commands:")[1].splitlines() if line.strip()
    }

    assert listed == {
        "audit",
        "contracts",
        "dead",
        "deadman",
        "demo",
        "doctor",
        "doubt",
        "guard",
        "halt",
        "intent",
        "report",
        "resume",
        "rollout",
        "run",
        "simulate",
        "status",
        "submit",
        "watch",
    }


def test_starting_the_command_loads_no_table_drawing_and_no_transport() -> None:
    program = (
        "import sys, worker.__main__, worker.cli.app\n"
        "print(*{'rich', 'kombu', 'prometheus_client', 'structlog', 'fakeredis'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""


def test_a_halt_loads_nothing_but_what_it_needs() -> None:
    program = (
        "import sys, worker.__main__, worker.cli.app, worker.settings, worker.ledger.steering\n"
        "sys.argv = ['worker', 'halt', '--help']\n"
        "try: worker.__main__.main()\n"
        "except SystemExit: pass\n"
        "print(*{'tenacity', 'worker.producer', 'worker.ledger.control', 'worker.audit'} & set(sys.modules), file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "Stop all launches now" in done.stdout
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("refusal", [None, PermissionError("only root")])
def test_a_halt_asks_for_the_processor_before_all_others_and_goes_on_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refusal: Exception | None
) -> None:
    asked = Mock(side_effect=refusal)
    monkeypatch.setattr("os.setpriority", asked)

    for verb in ("halt", "resume"):
        monkeypatch.setattr("sys.argv", ["worker", verb, "--help"])
        with pytest.raises(SystemExit):
            main()

    asked.assert_called_once_with(os.PRIO_PROCESS, 0, -10)
    assert "Stop all launches now" in capsys.readouterr().out


def test_what_a_stranger_wrote_cannot_steer_the_terminal() -> None:
    assert visible("삼성 \x1b[31mred\x9b0m\r") == "삼성 \\x1b[31mred\\x9b0m\\r"
    assert "\x1b" not in table(("A",), [("\x1b[2J",)])


# --- The worker and the demo ------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def run(settings: Any, routes: list[str] | None, start_halted: bool) -> int:
        calls.append((sorted(settings.routes), routes, start_halted))
        return 3

    def main(keep: bool, json: bool) -> int:
        calls.append((keep, json))
        return 0

    monkeypatch.setattr("worker.runtime.run", run)
    monkeypatch.setitem(sys.modules, "worker.demo", types.SimpleNamespace(main=main))
    return calls


def test_a_worker_is_started_with_its_routes_and_ends_with_its_code(cli: Cli, started: list[Any]) -> None:
    settings = {"EXECWORKER_ROUTES__a__MODE": "off", "EXECWORKER_ROUTES__b__MODE": "off"}

    every = cli("run", **settings)
    one = cli("run", "--route", "a", "--start-halted", **settings)

    assert (every.exit_code, one.exit_code) == (3, 3)
    assert started == [(["a", "b"], None, False), (["a", "b"], ["a"], True)]


def test_a_worker_for_an_unknown_route_does_not_start(cli: Cli, started: list[Any]) -> None:
    done = cli("run", "--route", "defualt")

    assert done.exit_code == 78
    assert "Did you mean 'default'?" in done.stderr
    assert started == []


def test_the_demo_is_started_as_asked(cli: Cli, started: list[Any]) -> None:
    assert cli("demo", "--keep", "--json").exit_code == 0
    assert started == [(True, True)]


# --- Operators --------------------------------------------------------------------------------------------


def test_an_operator_halts_and_resumes_in_his_own_name(cli: Cli, client: Any) -> None:
    halted = cli("halt", "--reason", "strategy gone wrong", "--actor", "hong@desk")
    again = cli("halt", "--reason", "once more")
    status = Control(client, "default").status()
    resumed = cli("resume", "--reason", "mended", "--json")

    assert (halted.exit_code, halted.stdout) == (0, "route default: halted\n")
    assert (again.exit_code, again.stdout) == (0, "route default: was halted already\n")
    assert (status.halted, status.halt_actor, status.halt_reason) == (
        True,
        "hong@desk",
        "strategy gone wrong",
    )
    assert documents(resumed) == [{"route": "default", "action": "resumed", "changed": True}]


def test_a_broker_that_hangs_holds_no_other_routes_cancels_up(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = threading.Barrier(3)

    def cancel_open(_settings: Any, route: str, *_: Any) -> stopping.Swept:
        # None comes through before all have begun.
        others.wait(10)
        if route == "b":
            raise BrokerError("the list did not come")
        if route == "c":
            raise Unavailable("gone")
        return stopping.Swept((), saw_all=True)

    monkeypatch.setattr(stopping, "cancel_open", cancel_open)
    routes = {f"EXECWORKER_ROUTES__{name}__MODE": "paper" for name in "ABC"}

    done = cli("halt", "--all", "--cancel-open", "--reason", "enough", "--json", **routes)

    assert done.exit_code == 1
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["route"] for one in told if one["action"] == "cancel_open"] == ["a"]
    assert "route b: nothing was cancelled: the list" in done.stderr
    assert "route c: not finished, say it again: gone" in done.stderr


def test_halting_all_halts_every_route_that_anybody_knows(cli: Cli, any_redis: Any) -> None:
    any_redis.connect(any_redis.url).hset("exec:routes", "kis_main", "{}")

    done = cli("halt", "--all", "--reason", "fire")

    assert done.exit_code == 0
    assert all(Control(any_redis.of(route), route).status().halted for route in ("default", "kis_main"))


@pytest.mark.parametrize(
    "args",
    [
        ("halt",),
        ("halt", "--reason", " "),
        ("halt", "--reason", "x", "--actor", " "),
        ("halt", "--reason", "x", "--all", "--route", "default"),
        ("halt", "--reason", "x", "--route", "No/Route"),
        ("doubt", "resolve", "intent-1", "--not-placed"),
        ("doubt", "resolve", "intent-1", "--reason", "x", "--not-placed", "--accepted", "7"),
        ("dead", "drop", "1-1"),
        ("dead", "show", "first"),
        ("watch", "--from", "yesterday"),
    ],
    ids=" ".join,
)
def test_a_command_that_is_incomplete_does_nothing(cli: Cli, client: Any, args: tuple[str, ...]) -> None:
    done = cli(*args)

    assert done.exit_code == 2
    assert client.keys() == []


def test_the_status_tells_what_needs_a_person(cli: Cli, client: Any) -> None:
    client.xadd(KEYS.dead, {"body": b"x", "reason": "invalid", "error": "", "entry_id": "1-1"})
    cli("halt", "--reason", "lunch", "--actor", "hong@desk")

    text = cli("status")
    [document] = documents(cli("status", "--json"))

    assert "HALTED by hong@desk: lunch" in text.stdout
    assert "! halted: `worker resume --route default --reason …`" in text.stdout
    assert "! dead letters: `worker dead list --route default`" in text.stdout
    assert "! no worker is alive" in text.stdout
    assert (document["route"], document["halted"], document["dead"]) == ("default", True, 1)


def test_the_status_tells_that_workers_of_one_route_run_in_different_modes(cli: Cli, client: Any) -> None:
    beat = int(client.time()[0]) * 1000
    card = {"host": "h", "pid": 1, "port": 1, "beat": beat, "mode": "paper"}
    client.hset(KEYS.state, "epoch", 1)
    client.hset(KEYS.workers, mapping={"w1": json.dumps(card), "w2": json.dumps(card)})
    assert "different modes" not in cli("status").stdout

    client.hset(KEYS.workers, "w2", json.dumps(card | {"mode": "off"}))

    assert "! workers run in different modes (w1: paper, w2: off)" in cli("status").stdout


def test_the_status_says_that_a_route_waits_for_the_brokers_list_and_what_a_person_can_do(
    cli: Cli, client: Any
) -> None:
    Control(client, "default").halt("hong", "lunch")
    since = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
    client.hset(KEYS.state, "unsure_since", round(since.timestamp() * 1000))

    text = cli("status").stdout
    [document] = documents(cli("status", "--json"))

    assert "! Redis changed at 01:02:03 UTC and may have forgotten launches" in text
    assert document["unsure_since"] == since.isoformat()
    assert cli("resume", "--reason", "looked at the broker's list").exit_code == 0
    assert "Redis changed" not in cli("status").stdout


def test_the_status_is_shown_again_and_again_until_interrupted(any_redis: Any) -> None:
    class ImpatientClock(ManualClock):
        looks = 0

        def wait(self, event: Any, seconds: float) -> bool:
            self.looks += 1
            if self.looks == 3:
                raise KeyboardInterrupt
            return False

    desk = Surroundings({"EXECWORKER_REDIS_URL": any_redis.url}, any_redis.connect, ImpatientClock())

    done = CliRunner().invoke(app, ["status", "--watch", "--json"], obj=desk)

    assert done.exit_code == 130
    assert len(documents(done)) == 3


class _Patient(ManualClock):
    """Waits in no time, and is interrupted at the last of so many looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def wait(self, event: Any, seconds: float) -> bool:
        self._looks -= 1
        if not self._looks:
            raise KeyboardInterrupt
        self.advance(seconds)
        return False


@pytest.mark.parametrize("as_json", [False, True])
def test_a_watched_status_outlives_redis_and_says_since_when_it_is_away(
    any_redis: Any, as_json: bool
) -> None:
    falls = iter([False, True, True, False, False])
    client = any_redis.connect()
    faulty = Mock(wraps=client)

    def hkeys(key: str) -> Any:
        if next(falls):
            raise redis.ConnectionError("Connection refused")
        return client.hkeys(key)

    faulty.hkeys.side_effect = hkeys
    desk = Surroundings({"EXECWORKER_REDIS_URL": any_redis.url}, lambda *_, **__: faulty, _Patient(looks=5))

    done = CliRunner().invoke(app, ["status", "--watch", *(["--json"] if as_json else [])], obj=desk)

    assert done.exit_code == 130
    since = f"Redis away since {ManualClock().now() + timedelta(seconds=2):%H:%M:%S} UTC: Connection refused"
    if as_json:
        assert [one["route"] for one in documents(done)] == ["default"] * 3
        assert done.stderr.splitlines()[:2] == [since, "Redis answers again"]
    else:
        shown = [line for line in done.stdout.splitlines() if line.startswith(("route default", "Redis"))]
        assert [line.startswith("route default") for line in shown] == [True, False, False, True, True]
        assert shown[1:3] == [since, since]


def test_a_watched_status_ends_where_waiting_helps_nobody(any_redis: Any) -> None:
    refusing = Mock(wraps=any_redis.connect())
    refusing.hkeys.side_effect = redis.AuthenticationError("invalid username-password pair")
    desk = Surroundings({"EXECWORKER_REDIS_URL": any_redis.url}, lambda *_, **__: refusing, _Patient(looks=3))

    done = CliRunner().invoke(app, ["status", "--watch"], obj=desk)

    assert done.exit_code == 69
    assert "does not let us in" in done.stderr


def test_a_guard_with_nothing_to_reset_says_so(cli: Cli) -> None:
    shown = cli("guard", "show")
    reset = cli("guard", "reset", "--reason", "x")

    assert shown.stdout == "route default: NORMAL, 0 of 3 failures in a row\n"
    assert reset.exit_code == 1
    assert "nothing to reset" in reset.stderr


def test_a_tripped_guard_is_reset_by_name_and_from_lockdown_only_with_approval(cli: Cli, client: Any) -> None:
    client.hset(KEYS.state, mapping={"guard_state": "LOCKDOWN", "guard_threshold": 3})

    refused = cli("guard", "reset", "--reason", "x")
    done = cli("guard", "reset", "--reason", "x", "--approve", "--json")

    assert refused.exit_code == 1
    assert "--approve" in refused.stderr
    assert documents(done) == [{"route": "default", "state": "NORMAL"}]


def test_an_intent_that_nobody_knows_is_said_to_be_unknown(cli: Cli) -> None:
    done = cli("intent", "nope")

    assert done.exit_code == 1
    assert "no intent nope on default" in done.stderr


def test_an_intent_that_no_worker_has_read_is_said_to_wait_and_since_when(
    cli: Cli, client: Any, make_intent: Callable[..., ExecutionIntent]
) -> None:
    enqueued = round(client.time()[0] - 40) * 1000
    client.xadd(KEYS.intents, {"body": dump(make_intent(intent_id="w-1"))}, id=f"{enqueued}-0")
    client.xadd(KEYS.intents, {"body": dump(make_intent(intent_id="w-10"))})

    before = cli("intent", "w-1")
    client.xgroup_create(KEYS.intents, GROUP, id="0")
    [waiting] = documents(cli("intent", "w-1", "--json"))

    assert before.exit_code == 0
    assert "intent w-1 on route default: waits in the queue\n" in before.stdout
    assert f"{moment(enqueued):%Y-%m-%d %H:%M:%S} UTC, 4" in before.stdout and "unread" in before.stdout
    assert (waiting["entry"], waiting["stream"]) == (f"{enqueued}-0", KEYS.intents)
    assert (waiting["consumer"], waiting["held_for"], waiting["deliveries"]) == (None, None, 0)


def test_an_intent_in_the_hand_of_a_worker_that_hangs_is_said_to_be_there(
    cli: Cli, client: Any, make_intent: Callable[..., ExecutionIntent]
) -> None:
    client.xgroup_create(KEYS.cancels, GROUP, id="0", mkstream=True)
    packed = zlib.compress(dump(make_intent(intent_id="c-1")))
    # As kombu writes it when its producer compresses.
    client.xadd(KEYS.cancels, {"body": packed, "compression": "application/x-gzip"})
    client.xreadgroup(GROUP, "host-1-77", {KEYS.cancels: ">"})

    done = cli("intent", "c-1")

    assert done.exit_code == 0, done.stderr
    assert "handed to host-1-77 0 s ago; the ledger does not know it yet" in done.stdout


def test_an_intent_whose_entry_was_finished_does_not_wait(
    cli: Cli, client: Any, make_intent: Callable[..., ExecutionIntent]
) -> None:
    client.xgroup_create(KEYS.intents, GROUP, id="0", mkstream=True)
    entries = [
        client.xadd(KEYS.intents, {"body": dump(make_intent(intent_id=one))}) for one in ("held", "done-1")
    ]
    client.xreadgroup(GROUP, "w", {KEYS.intents: ">"})
    client.xack(KEYS.intents, GROUP, entries[1])

    assert cli("intent", "held").exit_code == 0
    assert cli("intent", "done-1").exit_code == 1


def test_an_intent_is_found_behind_thousands_and_no_longer_looked_for_than_promised(
    cli: Cli, client: Any, make_intent: Callable[..., ExecutionIntent], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = client.pipeline(transaction=False)
    for number in range(2500):
        pipe.xadd(KEYS.intents, {"body": f'{{"intent_id": "many-{number}"}}'})
    pipe.execute()

    found = cli("intent", "many-0")
    monkeypatch.setattr("worker.audit.waiting.LOOKED_AT", 2000)

    assert found.exit_code == 0 and "unread" in found.stdout
    assert cli("intent", "many-0").exit_code == 1
    assert cli("intent", "many-600").exit_code == 0


@pytest.fixture
def in_doubt(client: Any, make_intent: Callable[..., ExecutionIntent]) -> None:
    """An order that left and was never confirmed, long enough ago for a person to decide."""
    intent, now = make_intent(), int(datetime.now(UTC).timestamp() * 1000)
    ledger = Ledger(client, "default", "w-1", LedgerRules(), ManualClock())
    ledger.register(broker="simulated", mode="paper", start_halted=False)
    entry = Entry("intent-1", "t", intent.fingerprint(), "005930", "", now, now + 60_000, "", dump(intent))
    ledger.claim([entry])
    ledger.launch([("intent-1", "t", 1)])
    ledger.settle([Settlement("intent-1", "t", 1, "doubt", "FS042", "failure", "no answer")])
    client.hset(KEYS.intent("intent-1"), mapping={"flight": f"1:1:0:{now - 9000}:{now - 1}"})


@pytest.mark.usefixtures("in_doubt")
def test_the_story_of_an_intent_holds_its_answer_and_its_trail(cli: Cli) -> None:
    cli("doubt", "resolve", "intent-1", "--accepted", "117057", "--reason", "seen", "--actor", "hong@desk")

    text = cli("intent", "intent-1")
    [document] = documents(cli("intent", "intent-1", "--json"))

    assert "order 117057 at simulated" in text.stdout
    assert document["response"]["broker_order_id"] == "117057"
    events = [row["event"] for row in document["audit"]]
    assert events[:2] == ["claimed", "launched"]
    assert events[-1] == "settled"


@pytest.mark.usefixtures("in_doubt")
def test_the_open_doubts_are_listed_with_the_order_they_are_about(cli: Cli) -> None:
    text = cli("doubt", "list")
    [document] = documents(cli("doubt", "list", "--json"))

    assert "BUY 10 005930 @ 71000" in text.stdout
    assert (document["route"], document["intent_id"], document["worker"]) == ("default", "intent-1", "w-1")


@pytest.mark.usefixtures("in_doubt")
@pytest.mark.parametrize(
    ("flags", "outcome"), [(("--accepted", "117057"), "ACCEPTED"), (("--not-placed",), "NOT_PLACED")]
)
def test_a_doubt_is_ended_on_a_named_persons_word(cli: Cli, flags: tuple[str, ...], outcome: str) -> None:
    done = cli(
        "doubt",
        "resolve",
        "intent-1",
        *flags,
        "--reason",
        "seen in the HTS",
        "--actor",
        "hong@desk",
        "--json",
    )

    assert done.exit_code == 0
    assert documents(done)[0]["outcome"] == outcome
    assert cli("doubt", "list").stdout == "no doubts\n"
    assert cli("doubt", "resolve", "intent-1", *flags, "--reason", "again").exit_code == 1


@pytest.mark.usefixtures("in_doubt")
def test_asking_for_evidence_with_no_worker_alive_says_so_and_changes_nothing(cli: Cli, client: Any) -> None:
    done = cli("doubt", "resolve", "intent-1", "--timeout", "0.1")

    assert done.exit_code == 1 and "no worker of the route is alive" in done.stderr
    assert client.zscore(KEYS.doubts, "intent-1") == 1
    assert cli("doubt", "resolve", "intent-2").exit_code == 1


@pytest.mark.usefixtures("in_doubt")
def test_the_audit_names_the_person_who_decided(cli: Cli, client: Any) -> None:
    cli("doubt", "resolve", "intent-1", "--not-placed", "--reason", "seen", "--actor", "hong@desk")

    assert trail(client, "intent-1")[-1][:2] == ("settled", "hong@desk")


# --- Dead letters -----------------------------------------------------------------------------------------


def bury(client: Any, body: bytes, reason: str = "invalid") -> str:
    fields = {"body": body, "reason": reason, "error": "quantity: wrong", "entry_id": "1-1"}
    position: str = client.xadd(KEYS.dead, fields).decode()
    return position


def trail(client: Any, intent_id: str) -> list[tuple[str, str, str]]:
    story = Control(client, "default").story(intent_id)
    assert story is not None
    return [(one.event, one.worker, one.detail) for one in story.audit]


def test_dead_letters_are_listed_and_shown_with_their_raw_bytes(cli: Cli, client: Any) -> None:
    first = bury(client, b'{"intent_id": "a", "quantity": 0.1}')
    second = bury(client, b"\xff\x1b[2J")

    listed = cli("dead", "list")
    [one, two] = documents(cli("dead", "list", "--json"))
    shown = cli("dead", "show", second)

    assert first in listed.stdout
    assert "quantity: wrong" in listed.stdout
    assert (one["intent_id"], two["intent_id"]) == ("a", None)
    assert base64.b64decode(two["body_base64"]) == b"\xff\x1b[2J"
    assert "\x1b" not in shown.stdout
    assert "1 more" in cli("dead", "list", "--count", "1").stderr


@pytest.mark.parametrize("kind", ["intents", "cancels"])
def test_a_dead_letter_that_is_readable_again_goes_back_into_its_queue(
    cli: Cli, client: Any, make_intent: Callable[..., ExecutionIntent], kind: str
) -> None:
    fields = {"side": None, "quantity": None, "limit_price": None, "target_intent_id": "b"}
    intent = make_intent(**({"intent_type": "CANCEL", **fields} if kind == "cancels" else {}))
    position = bury(client, dump(intent), "poison")

    done = cli("dead", "replay", position, "--actor", "hong@desk")

    [(_, row)] = client.xrange(getattr(KEYS, kind))
    assert done.exit_code == 0
    assert load_intent(row[b"body"]) == intent
    assert client.xlen(KEYS.dead) == 0
    assert trail(client, intent.intent_id) == [("dead_replayed", "hong@desk", position)]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("conflict", "under an id of its own"),
        ("oversize", "send it again, smaller"),
        ("invalid", "answered DENIED already"),
    ],
)
def test_a_dead_letter_that_must_not_trade_stays_where_it_is(
    cli: Cli, client: Any, intent_json: Callable[..., bytes], reason: str, told: str
) -> None:
    position = bury(client, intent_json(), reason)
    client.hset(KEYS.intent("intent-1"), mapping={"fingerprint": "f", "response": dump(response())})

    done = cli("dead", "replay", position)

    assert done.exit_code == 1
    assert told in done.stderr
    assert client.xlen(KEYS.dead) == 1
    assert client.xlen(KEYS.intents) == 0


def test_one_letter_that_cannot_go_back_keeps_all_of_them(
    cli: Cli, client: Any, intent_json: Callable[..., bytes]
) -> None:
    good, bad = bury(client, intent_json()), bury(client, b"{}")

    done = cli("dead", "replay", good, bad)

    assert done.exit_code == 1
    assert f"{bad} is still no intent" in done.stderr
    assert client.xlen(KEYS.dead) == 2


def test_a_dropped_letter_is_gone_and_the_audit_keeps_who_why_and_what(cli: Cli, client: Any) -> None:
    position = bury(client, b'{"intent_id": "a"}')

    done = cli("dead", "drop", position, "--reason", "a test of ours", "--actor", "hong@desk")
    again = cli("dead", "drop", position, "--reason", "twice")

    [(event, who, detail)] = trail(client, "a")
    assert done.exit_code == 0
    assert (event, who) == ("dead_dropped", "hong@desk")
    assert "a test of ours" in detail
    assert json.loads(detail)["body"] == '{"intent_id": "a"}'
    assert again.exit_code == 1
    assert "no dead letter" in again.stderr


# --- Watching ---------------------------------------------------------------------------------------------


@pytest.fixture
def published(client: Any) -> None:
    now = datetime.now(UTC)
    halted = FailsafeEvent(
        event_id="1",
        type=FailsafeType.HALTED,
        route="default",
        actor="hong@desk",
        reason="lunch",
        message="nothing is launched",
        timestamp=now,
    )
    filled = OrderEvent(
        intent_id="intent-1",
        route="default",
        broker="kis",
        broker_order_id="7",
        symbol="005930",
        status=OrderStatus.FILLED,
        filled_quantity=Decimal(10),
        seen_by="list",
        timestamp=now,
    )
    client.xadd(KEYS.responses, {"intent_id": "intent-1", "body": dump(response())}, id="1-0")
    client.xadd(KEYS.failsafe, {"type": "HALTED", "body": dump(halted)}, id="2-0")
    client.xadd(KEYS.orders, {"body": dump(filled)}, id="3-0")
    client.xadd(KEYS.responses, {"body": b"\xff junk"}, id="4-0")


@pytest.mark.usefixtures("published")
def test_all_streams_are_followed_in_the_order_of_what_happened(cli: Cli) -> None:
    text = cli("watch", "--from", "0", "--count", "4")
    found = documents(cli("watch", "--from", "0", "--count", "4", "--json"))

    assert [one["stream"] for one in found] == ["responses", "failsafe", "orders", "responses"]
    assert found[1]["message"]["reason"] == "lunch"
    lines = text.stdout.splitlines()
    assert "NOOP (noop): nothing was sent" in lines[0]
    assert "HALTED" in lines[1]
    assert "by hong@desk (lunch)" in lines[1]
    assert "10 005930 filled" in lines[2]
    assert "cannot be read" in lines[3]


@pytest.mark.parametrize(
    "alien",
    [{"foo": "bar"}, {"body": "9" * 5000}, {"body": '"\\ud800"'}, {"body": "[" * 100_000}, {"body": "NaN"}],
)
def test_what_a_stranger_wrote_ends_nobodys_watching(cli: Cli, client: Any, alien: dict[str, str]) -> None:
    for stream in (KEYS.responses, KEYS.failsafe, KEYS.orders):
        client.xadd(stream, alien)

    text = cli("watch", "--from", "0", "--count", "3")
    found = documents(cli("watch", "--from", "0", "--count", "3", "--json"))

    assert text.stdout.count("cannot be read") == 3
    assert len(found) == 3


def test_a_dead_letter_that_a_stranger_wrote_is_shown(cli: Cli, client: Any) -> None:
    client.xadd(KEYS.dead, {b"\xff": b"\xff"})
    client.xadd(KEYS.dead, {b"body": b"x"}, id=f"{2**63}-0")

    assert len(cli("dead", "list").stdout.splitlines()) == 3
    assert len(documents(cli("dead", "list", "--json"))) == 2
    assert cli("dead", "show", f"{2**63}-0").exit_code == 0


@pytest.mark.usefixtures("in_doubt")
@pytest.mark.parametrize("alien", [{"foo": "bar"}, {"body": "junk"}])
def test_a_doubt_is_ended_by_hand_whatever_a_stranger_wrote_among_the_answers(
    cli: Cli, client: Any, alien: dict[str, str]
) -> None:
    client.xadd(KEYS.responses, alien)

    done = cli("doubt", "resolve", "intent-1", "--accepted", "7", "--reason", "seen", "--actor", "hong@desk")

    assert done.exit_code == 0


@pytest.mark.usefixtures("published")
def test_one_stream_is_followed_from_a_remembered_position(cli: Cli) -> None:
    [one] = documents(cli("watch", "responses", "--from", "1-0", "--count", "1", "--json"))

    assert (one["position"], one["message"]) == ("4-0", "\\xff junk")


@pytest.mark.usefixtures("published")
def test_watching_goes_on_when_redis_comes_back(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [redis.ConnectionError("gone"), redis.TimeoutError("gone")]

    def shaky(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return read_after(*args)

    monkeypatch.setattr("worker.cli.watch.read_after", shaky)
    done = cli("watch", "failsafe", "--from", "0", "--count", "1")

    assert done.exit_code == 0
    assert "HALTED" in done.stdout
    assert done.stderr.count("going on when it does") == 1
    assert "Redis answers again" in done.stderr


# --- Contracts --------------------------------------------------------------------------------------------


def test_the_contracts_are_written_and_a_difference_is_found(cli: Cli, tmp_path: Path) -> None:
    written = cli("contracts", "export", "--dir", str(tmp_path))
    same = cli("contracts", "export", "--dir", str(tmp_path), "--check")
    (tmp_path / "asyncapi.json").write_text("{}")
    differs = cli("contracts", "export", "--dir", str(tmp_path), "--check", "--json")

    assert (written.exit_code, same.exit_code, differs.exit_code) == (0, 0, 1)
    assert "differs" in [one["state"] for one in documents(differs)]
    assert (tmp_path / "asyncapi.json").read_text() == "{}", "--check writes nothing"


def test_the_committed_contracts_are_those_of_the_code(cli: Cli) -> None:
    done = cli("contracts", "export", "--dir", str(Path(contracts.__file__).parent), "--check")

    assert done.exit_code == 0, done.output
