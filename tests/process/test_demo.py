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
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.cells import cell_len

from contracts import ExecutionResponse, GuardState, Outcome
from worker.clock import SystemClock
from worker.demo.interrupts import Interrupts
from worker.demo.market import COMPANIES, limit_price, tick_size
from worker.demo.place import Place
from worker.demo.tally import Tally
from worker.errors import Unavailable

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

    assert kinds == {"note", "act", "answer", "event", "summary", "next"}
    assert {"INTENT_CONFLICT", "GUARD_TRIPPED", "GUARD_RESET", "INTENT_IN_DOUBT", "DOUBT_RESOLVED"} == {
        *events
    }
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


def test_the_demo_needs_no_redis_server(start: Start, tmp_path: Path, without_redis_server: str) -> None:
    demo = start("--json", PATH=without_redis_server)

    output, errors = demo.communicate(timeout=60)

    assert (demo.returncode, errors) == (0, "")
    told = documents(output)
    assert "fakeredis" in told[1]["redis"]
    check_story(told)
    check_nothing_is_left([], tmp_path)


def test_the_screen_fits_80_columns_and_steers_no_pipe(start: Start) -> None:
    demo = start(COLUMNS="80", PYTHONIOENCODING="utf-8")

    output, errors = demo.communicate(timeout=60)

    assert (demo.returncode, errors) == (0, "")
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
    assert len(below) >= 3  # Redis, a worker and the watchdog

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


def test_without_any_redis_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr("worker.demo.place._is_installed", lambda _name: False)

    with pytest.raises(Unavailable, match=r"apt install redis-server.*execution-worker\[embedded\]"):
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
    fine = Tally(("a",), (answer,), (), ("conflict",), (("a", "1"),), 0, GuardState.NORMAL)
    lies = {
        "has one answer": (replace(fine, answers=()), replace(fine, answers=(answer, answer))),
        "placed twice": (replace(fine, orders=(("a", "1"), ("a", "2"))),),
        "nothing else is": (replace(fine, orders=()), replace(fine, orders=(("a", "2"),))),
        "no doubt is open": (replace(fine, doubts_open=1),),
        "trading goes on": (replace(fine, guard=GuardState.FAIL),),
        "dead letters": (replace(fine, dead=()), replace(fine, dead=("conflict", "poison"))),
    }

    for words, tallies in lies.items():
        for tally in tallies:
            assert [holds for claim, holds in tally.claims if words in claim] == [False]
            assert not tally.is_true


@pytest.mark.parametrize(
    ("price", "step"),
    [(1_999, 1), (2_000, 5), (5_000, 10), (20_000, 50), (50_000, 100), (200_000, 500), (500_000, 1_000)],
)
def test_prices_lie_on_the_krx_grid(price: int, step: int) -> None:
    assert tick_size(price) == step


def test_every_price_that_the_demo_asks_for_is_legal() -> None:
    prices = [limit_price(company, ticks) for company in COMPANIES for ticks in range(-3, 4)]

    assert [price for price in prices if price % tick_size(int(price))] == []
