"""`worker demo`: it tells the truth about what it shows, on either Redis, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.cells import cell_len

from contracts import ExecutionIntent, ExecutionResponse, GuardState, IntentType, Outcome, Side
from worker.clock import SystemClock
from worker.demo import processes
from worker.demo.broker import BookedOrder
from worker.demo.interrupts import Interrupts
from worker.demo.market import COMPANIES, limit_price
from worker.demo.place import Place
from worker.demo.tally import Tally, owned_orders
from worker.errors import Unavailable
from worker.simulate.universe import universe

pytestmark = pytest.mark.process

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the demo as a shell would, in a process group of its own; its folders go below tmp_path."""
    started = []

    def begin(*options: str, **environ: str) -> subprocess.Popen[str]:
        surroundings = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONWARNINGS": "error", **environ}
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "demo", *options],
            env=surroundings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            process_group=0,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def without_redis_server(tmp_path: Path) -> str:
    """A PATH that leads nowhere."""
    empty = tmp_path / "bin"
    empty.mkdir()
    return str(empty)


def documents(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    assert process.stdout is not None
    read = []
    for line in process.stdout:
        read.append(line)
        if wanted in line:
            return line
    pytest.fail(f"the demo ended without {wanted!r}: {''.join(read)} {process.communicate()[1]}")


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def check_nothing_is_left(below: list[psutil.Process], folder: Path) -> None:
    _, alive = psutil.wait_procs(below, timeout=10)
    assert alive == []
    until = time.monotonic() + 5
    while left := list(folder.glob("execworker-demo-*")):
        assert time.monotonic() < until, left
        time.sleep(0.05)


def check_story(told: list[dict[str, Any]]) -> None:
    kinds = {one["kind"] for one in told}
    events = [one["event"]["type"] for one in told if one["kind"] == "event"]
    summary = next(one for one in told if one["kind"] == "summary")

    assert kinds == {"note", "act", "answer", "event", "order", "summary", "next"}
    assert set(events) == {
        "HALTED",
        "RESUMED",
        "INTENT_CONFLICT",
        "GUARD_TRIPPED",
        "GUARD_RESET",
        "INTENT_IN_DOUBT",
        "DOUBT_RESOLVED",
    }
    assert events.count("INTENT_IN_DOUBT") == events.count("DOUBT_RESOLVED") == 3
    assert {one["response"]["broker"] for one in told if one["kind"] == "answer"} == {"kis", "failsafe"}
    assert [(one["before"], one["calls"]) for one in told if "calls" in one] == [(15, 0)]
    assert [claim for claim in summary["claims"] if not claim["true"]] == []
    assert summary["ok"] is True
    assert summary["answers"] == summary["intents"] == sum(summary["outcomes"].values())
    assert summary["orders"] == summary["outcomes"]["ACCEPTED"]
    assert (summary["doubles"], summary["doubts_open"], summary["guard"]) == (0, 0, "NORMAL")
    assert summary["seconds"] < 60


@pytest.mark.real_redis
def test_the_demo_ends_by_itself_and_all_it_claims_is_true(start: Start, tmp_path: Path) -> None:
    if shutil.which("redis-server") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no redis-server on PATH")
    # Settings that would stop any other worker: the demo is the same for everybody.
    demo = start("--json", EXECWORKER_REDIS_URL="redis://127.0.0.1:1/0", EXECWORKER_NO_SUCH="1", PORT="1")

    output, errors = demo.communicate(timeout=60)

    assert (demo.returncode, errors) == (0, "")
    told = documents(output)
    assert "redis-server" in told[1]["redis"]
    check_story(told)
    check_nothing_is_left([], tmp_path)


def test_without_a_redis_server_too_it_fits_80_columns_and_steers_no_pipe(
    start: Start, tmp_path: Path, without_redis_server: str
) -> None:
    demo = start(PATH=without_redis_server, COLUMNS="80", PYTHONIOENCODING="utf-8")

    output, errors = demo.communicate(timeout=60)

    assert (demo.returncode, errors) == (0, "")
    assert "fakeredis" in output
    assert "FALSE" not in output
    check_nothing_is_left([], tmp_path)
    assert "\x1b" not in output
    assert "삼성전자 Samsung Electronics" in output
    wide = [line for line in output.splitlines() if cell_len(line) > 80]
    assert [line for line in wide if " demo --keep " not in line] == []


@pytest.mark.parametrize("moment", ['"kind":"note"', '"worker":', '"kind":"answer"', '"killed":'])
def test_ctrl_c_leaves_nothing_behind(start: Start, tmp_path: Path, moment: str) -> None:
    demo = start("--json")
    read_until(demo, moment)
    below = children(demo)

    os.killpg(demo.pid, signal.SIGINT)
    _, errors = demo.communicate(timeout=20)

    assert demo.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    check_nothing_is_left(below, tmp_path)


def test_terminating_it_leaves_nothing_behind(start: Start, tmp_path: Path) -> None:
    demo = start("--json")
    read_until(demo, '"kind":"answer"')
    below = children(demo)

    demo.terminate()
    _, errors = demo.communicate(timeout=20)

    assert (demo.returncode, errors) == (143, "")
    check_nothing_is_left(below, tmp_path)


def test_even_kill_9_leaves_nothing_behind(start: Start, tmp_path: Path) -> None:
    demo = start("--json")
    read_until(demo, '"kind":"answer"')
    below = children(demo)
    assert len(below) == 4  # Redis, the simulator, a worker and the watchdog

    demo.kill()

    check_nothing_is_left(below, tmp_path)


def test_kept_running_it_takes_the_commands_it_names_until_ctrl_c(start: Start, tmp_path: Path) -> None:
    demo = start("--json", "--keep")
    commands = json.loads(read_until(demo, '"kind":"next"'))["commands"]
    read_until(demo, "Ctrl-C here")
    below = children(demo)
    submit = next(line for line in commands if line.startswith("worker submit"))

    shell = subprocess.run(
        ["sh", "-c", f"{commands[0]}\n{submit} --json\nworker status --json"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    os.killpg(demo.pid, signal.SIGINT)
    _, errors = demo.communicate(timeout=20)

    answer, status = documents(shell.stdout)
    assert (shell.returncode, answer["outcome"], status["guard_state"]) == (0, "ACCEPTED", "NORMAL"), shell
    assert (demo.returncode, errors) == (0, "")
    check_nothing_is_left(below, tmp_path)


def test_ctrl_c_while_the_watchdog_is_being_started_leaves_not_even_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = []

    def start_and_be_interrupted(folder: Path) -> subprocess.Popen[bytes]:
        started.append(start_watchdog(folder))
        os.kill(os.getpid(), signal.SIGINT)
        return started[0]

    start_watchdog = processes._start_watchdog
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(processes, "_start_watchdog", start_and_be_interrupted)

    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts, Place(interrupts, SystemClock()):
        pass

    assert started[0].poll() == 0
    assert list(tmp_path.iterdir()) == []


def test_without_any_redis_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr("worker.demo.redis_server.find_spec", lambda _name: None)

    with pytest.raises(Unavailable, match=r"apt install redis-server.*execution-worker\[embedded\]"):
        Place(Interrupts(), SystemClock()).__enter__()

    assert list(tmp_path.iterdir()) == []


def test_without_the_extras_it_names_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("worker.demo.broker.find_spec", lambda name: None if name == "uvicorn" else name)

    with pytest.raises(Unavailable, match=r"uvicorn is not installed: .*execution-worker\[kis,simulator\]"):
        Place(Interrupts(), SystemClock()).__enter__()

    assert list(tmp_path.iterdir()) == []


def test_a_summary_does_not_call_true_what_is_not() -> None:
    answer = ExecutionResponse(
        intent_id="a",
        accepted=True,
        broker="simulated",
        message="",
        timestamp=datetime.now(UTC),
        outcome=Outcome.ACCEPTED,
        broker_order_id="1",
    )
    fine = Tally(
        asked=("a",),
        answers=(answer,),
        events=(),
        dead=("conflict",),
        fills={"1": Decimal(3)},
        booked_fills={"1": Decimal(3)},
        orders=(("a", "1"),),
        doubts_open=0,
        guard=GuardState.NORMAL,
    )
    lies = {
        "has one answer": (replace(fine, answers=()), replace(fine, answers=(answer, answer))),
        "placed twice": (replace(fine, orders=(("a", "1"), ("a", "2"))),),
        "nothing else is": (replace(fine, orders=()), replace(fine, orders=(("a", "2"),))),
        "what was told of fills": (
            replace(fine, fills={}),
            replace(fine, fills={"1": Decimal(4)}),
            replace(fine, fills={}, booked_fills={}),
        ),
        "no doubt is open": (replace(fine, doubts_open=1),),
        "trading goes on": (replace(fine, guard=GuardState.FAIL),),
        "dead letters": (replace(fine, dead=()), replace(fine, dead=("conflict", "poison"))),
    }

    for words, tallies in lies.items():
        for tally in tallies:
            assert [holds for claim, holds in tally.claims if words in claim] == [False]
            assert not tally.is_true


def test_an_order_of_the_book_belongs_to_the_intent_that_asked_for_just_that() -> None:
    intent = ExecutionIntent(
        intent_id="demo-07",
        intent_type=IntentType.LIMIT,
        symbol="005930",
        side=Side.BUY,
        quantity=Decimal(7),
        limit_price=Decimal(71_000),
        created_at=datetime.now(UTC),
    )
    row = BookedOrder("20261123-91252-0000000001", "005930", Side.BUY, 7, Decimal("71000"), 0)
    others = [
        replace(row, symbol="000660"),
        replace(row, side=Side.SELL),
        replace(row, quantity=70),
        replace(row, price=Decimal(71_100)),
    ]

    assert owned_orders([row, row], [intent]) == [("demo-07", row.number)] * 2
    assert owned_orders(others, [intent]) == [("", row.number)] * 4


def test_every_price_that_the_demo_asks_for_is_legal() -> None:
    for company in COMPANIES:
        instrument = universe()[company.symbol]
        for ticks in range(-3, 4):
            price = limit_price(company, ticks)
            assert instrument.on_grid(price)
            assert abs(price - instrument.base) <= instrument.base / 100
