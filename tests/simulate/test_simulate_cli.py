"""The verb `worker simulate kis`: what it says when it cannot do as it is told."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from worker.cli import simulate
from worker.cli.app import app


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["simulate", "kis", "--port", "0", *words])


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (("--at", "tomorrow"), "is no moment with a zone", 2),
        (("--at", "2026-11-23T10:00"), "is no moment with a zone", 2),
        (("--holding", "000000=1"), "write SYMBOL=SHARES", 2),
        (("--fault", "reset=often"), "write WHAT=RATE", 2),
        (("--fault", "explode=0.1"), "what: one of", 78),
        (("--fault", "reset=2"), "0.rate", 78),
        (("--app-key", "k"), "both --app-key and --app-secret", 2),
        (("--account", "123"), "write 12345678-01", 2),
        (("--book", "/nowhere/at/all/book.jsonl"), "cannot open", 78),
    ],
)
def test_a_wrong_flag_is_named_with_its_cure(words: tuple[str, ...], says: str, code: int) -> None:
    result = run(*words)

    assert result.exit_code == code
    # Long usage errors are broken into lines.
    assert says in " ".join(result.output.split())


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "find_spec", lambda name: None if name == "uvicorn" else object())

    result = run()

    assert result.exit_code == 78
    assert "not installed: uvicorn. pip install 'execution-worker[simulator]'" in result.output


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["simulate", "kis", "--port", str(port)])

    assert result.exit_code == 69
    assert f"cannot listen on 127.0.0.1:{port}" in result.output


def test_the_command_line_costs_no_heavy_import() -> None:
    heavy = "print([name for name in ('uvicorn', 'starlette', 'worker.simulate') if name in sys.modules])"

    out = subprocess.check_output([sys.executable, "-c", f"import sys, worker.cli.app; {heavy}"], text=True)

    assert out.strip() == "[]"


def test_it_says_where_it_listens_and_ends_when_asked(tmp_path: Path) -> None:
    plan = tmp_path / "faults.json"
    plan.write_text('[{"what": "reset", "nth": 3}]', "utf-8")
    command = [sys.executable, "-m", "worker", "simulate", "kis", "--port", "0", "--json", "--paper"]
    process = subprocess.Popen(
        [*command, "--faults", str(plan), "--fault", "delay=0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline())
        host, port = said["url"].removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 5) as raw:
            raw.sendall(b"GET /sim/faults HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: raw.recv(4096), b""))
        process.send_signal(signal.SIGINT)
        code = process.wait(5)
    finally:
        process.kill()
        process.stdout.close()

    assert said["mode"] == "paper"
    plan_there = json.loads(answer.partition(b"\r\n\r\n")[2])["plan"]
    assert [rule["what"] for rule in plan_there] == ["reset", "delay"]
    assert code == 130
