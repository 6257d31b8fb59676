"""
Every snippet of README and docs runs, as it is printed, against a real Redis.

A fenced block is named by an HTML comment right before it::

    <!-- runs: a-name -->            with a Redis and a worker on route default, mode paper
    <!-- runs: a-name, alone -->     with nothing: the snippet starts what it needs
    <!-- runs: a-name, checkout -->  the same, in a folder with `deploy/`
    <!-- runs: a-name, doubt -->     with what `PREPARED` says of that word
    <!-- prints: a-name -->          before a text block: these lines come out, in this order; … stands for anything
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from contracts import OrderNotice, OrderRecord, OrderStatus, Side, load_intent
from tests.conftest import RedisServer, intent_json, start_redis
from worker.clock import SystemClock
from worker.connection import connect
from worker.durability import weaknesses
from worker.fills import Working
from worker.fills.life import Life
from worker.ledger import Ledger, LedgerRules, new_token
from worker.ledger.records import Entry, Granted, Launched, Settlement
from worker.settings import Mode, load_settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Written by the code; tests of their own compare them.
GENERATED = {"settings.md", "metrics.md"}
#: What is in a block of these is for machines, and so must have run.
LANGUAGES = {"sh", "python", "js", "toml", "json", "conf"}

_BLOCK = re.compile(r"(?:<!-- (runs|prints): ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Snippet:
    page: Path
    name: str
    needs: str
    language: str
    text: str
    prints: str


def _blocks(page: Path) -> Iterator[tuple[str, str, str, str]]:
    for found in _BLOCK.finditer(page.read_text("utf-8")):
        kind, name, language, text = found.groups()
        yield kind or "", name or "", language, text


@cache
def snippets() -> tuple[Snippet, ...]:
    found = []
    for page in PAGES:
        blocks = list(_blocks(page))
        printed = {name: text for kind, name, _, text in blocks if kind == "prints"}
        for kind, name, language, text in blocks:
            if kind == "runs":
                name, _, needs = name.partition(", ")
                found.append(Snippet(page, name, needs, language, text, printed.get(name, "")))
    return tuple(found)


def _of(*languages: str) -> list[Any]:
    return [pytest.param(one, id=one.name) for one in snippets() if one.language in languages]


# --- Around a snippet ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One redis-server for the snippets, with the port that they are rewritten to."""
    server = start_redis("--appendonly", "no")
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


def environment(folder: Path, port: int) -> dict[str, str]:
    """What the reader of the docs has: the command `worker`, and a `redis-cli` that finds the server."""
    tools = folder / "tools"
    tools.mkdir()
    real = shutil.which("redis-cli")
    (tools / "redis-cli").write_text(f'#!/bin/sh\nexec {real} -p {port} "$@"\n', "utf-8")
    (tools / "worker").write_text(f'#!/bin/sh\nexec {sys.executable} -m worker "$@"\n', "utf-8")
    (tools / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', "utf-8")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXECWORKER_")}
    kept.pop("PORT", None)
    return kept | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "EXECWORKER_REDIS_URL": f"redis://127.0.0.1:{port}/0",
        "EXECWORKER_METRICS_PORT": "0",
    }


@contextmanager
def a_worker(folder: Path, env: dict[str, str]) -> Iterator[None]:
    """A worker on route default, with the simulated broker, whose faults are in ``faults.json``."""
    route = "EXECWORKER_ROUTES__DEFAULT__"
    env |= {f"{route}MODE": "paper", f"{route}OPTIONS__FAULTS": "faults.json", f"{route}LEASE": "6"}
    log = folder / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "run"], cwd=folder, env=env, stdout=out, stderr=out
        )
    try:
        _until(lambda: b"queue_ready" in log.read_bytes(), f"no worker came up; see {log}")
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


def _until(is_so: Callable[[], bool], otherwise: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            pytest.fail(otherwise)
        time.sleep(0.02)


@contextmanager
def _nothing(folder: Path, env: dict[str, str]) -> Iterator[None]:
    yield


@contextmanager
def _checkout(folder: Path, env: dict[str, str]) -> Iterator[None]:
    (folder / "deploy").symlink_to(ROOT / "deploy")
    yield


@contextmanager
def a_doubt(folder: Path, env: dict[str, str]) -> Iterator[None]:
    """An order in doubt, and no worker that would end it."""
    client = connect(env["EXECWORKER_REDIS_URL"], client_name="doubt")
    ledger = Ledger(client, "default", "gone", LedgerRules(order_timeout=0.01), SystemClock())
    ledger.register(broker="simulated", mode="paper", start_halted=False)
    client.hset("exec:routes", "default", '{"broker":"simulated","mode":"paper","account":null}')
    body, token = intent_json(intent_id="momentum-0007"), new_token()
    intent = load_intent(body)
    now = ledger.now_ms()
    entry = Entry("momentum-0007", token, intent.fingerprint(), "005930", "", now, now + 60_000, "", body)
    assert ledger.claim([entry]) == [Granted()]
    assert isinstance(ledger.launch([("momentum-0007", token, 1)])[0], Launched)
    doubt = Settlement("momentum-0007", token, 1, "doubt", "FS042", "none", "the reply was lost")
    ledger.settle([doubt])
    time.sleep(1.1)  # the kernel's time-out: before it is over, nobody may decide
    client.close()
    yield


@contextmanager
def a_shared_book(folder: Path, env: dict[str, str]) -> Iterator[None]:
    """The same worker, at a broker whose orders a command sees too."""
    env |= {"EXECWORKER_ROUTES__DEFAULT__OPTIONS__BOOK": "book.jsonl"}
    with a_worker(folder, env):
        yield


@contextmanager
def a_filled_order(folder: Path, env: dict[str, str]) -> Iterator[None]:
    """An accepted order of which both witnesses have told."""
    client: Any = connect(env["EXECWORKER_REDIS_URL"], client_name="filled")
    working = Working(client, "default", "kis", SystemClock())
    part = OrderNotice("N1", "005930", OrderStatus.PARTIALLY_FILLED, Decimal(10), Decimal(4), Decimal(71000))
    life = Life("N1", 0).after_answer("an-intent").after_notice(part, "ear", 1)
    whole = OrderRecord(
        "N1",
        "005930",
        Side.BUY,
        Decimal(10),
        OrderStatus.FILLED,
        SystemClock().now(),
        None,
        Decimal(10),
        Decimal(71300),
    )
    working.see({"N1": lambda _: life}, "notice")
    working.see({"N1": lambda seen: seen.after_row(whole) if seen else None}, "list")
    client.close()
    yield


PREPARED: dict[str, Callable[[Path, dict[str, str]], Any]] = {
    "": a_worker,
    "alone": _nothing,
    "checkout": _checkout,
    "no worker": _nothing,
    "doubt": a_doubt,
    "filled": a_filled_order,
    "book": a_shared_book,
}


def _run(snippet: Snippet, server: RedisServer, folder: Path, command: list[str]) -> None:
    port = server.port
    if snippet.needs in ("alone", "checkout"):
        port = _free_port()
    else:
        client = connect(server.url, client_name="empty")
        client.flushall()
        client.close()
    env = environment(folder, port)
    text = snippet.text.replace("6379", str(port))
    (folder / "snippet").write_text(text, "utf-8")
    with PREPARED[snippet.needs](folder, env):
        output = _output([*command, str(folder / "snippet")], folder, env)
    _compare(snippet, output)


def _output(command: list[str], folder: Path, env: dict[str, str]) -> str:
    # A group of its own: what the snippet leaves in the background ends with it.
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    seen = bytearray()
    assert process.stdout is not None
    try:
        code = process.wait(60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen += process.stdout.read()
        process.stdout.close()
    output = seen.decode("utf-8", "replace")
    assert code == 0, output
    return output


def _compare(snippet: Snippet, output: str) -> None:
    lines = iter(output.splitlines())
    for wanted in filter(None, snippet.prints.splitlines()):
        pattern = re.compile(".*".join(re.escape(part) for part in wanted.rstrip().split("…")))
        assert any(pattern.fullmatch(line.rstrip()) for line in lines), f"not printed: {wanted}\n{output}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- The tests ----------------------------------------------------------------------------------------------


def test_no_snippet_is_left_unrun() -> None:
    unrun = [
        f"{page.relative_to(ROOT)}: {text.splitlines()[0]}"
        for page in PAGES
        if page.name not in GENERATED
        for kind, _, language, text in _blocks(page)
        if language in LANGUAGES and kind != "runs"
    ]

    assert unrun == []


def test_every_snippet_has_a_name_of_its_own_and_every_output_a_snippet() -> None:
    names = [one.name for one in snippets()]
    printed = [name for page in PAGES for kind, name, _, _ in _blocks(page) if kind == "prints"]

    assert sorted(names) == sorted(set(names))
    assert set(printed) <= set(names)
    assert {one.needs for one in snippets()} <= PREPARED.keys()


@pytest.mark.real_redis
@pytest.mark.process
@pytest.mark.parametrize("snippet", _of("sh"))
def test_the_shell_does_what_the_page_says(snippet: Snippet, server: RedisServer, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "data" / "krx200.csv", tmp_path / "orders.csv")

    _run(snippet, server, tmp_path, ["bash", "-eu", "-o", "pipefail"])


@pytest.mark.real_redis
@pytest.mark.process
@pytest.mark.parametrize("snippet", _of("python"))
def test_the_python_does_what_the_page_says(snippet: Snippet, server: RedisServer, tmp_path: Path) -> None:
    _run(snippet, server, tmp_path, [sys.executable])


@pytest.mark.real_redis
@pytest.mark.process
@pytest.mark.parametrize("snippet", _of("js"))
def test_the_javascript_does_what_the_page_says(
    snippet: Snippet, server: RedisServer, tmp_path: Path
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on PATH")

    _run(snippet, server, tmp_path, [node, "--input-type=module", "--eval", _IMPORT])


# node takes a file without a suffix for a module only when it is told so.
_IMPORT = (
    "import fs from 'node:fs'; const file = process.argv.at(-1) + '.mjs'; "
    "fs.copyFileSync(process.argv.at(-1), file); await import(file)"
)


_TOML = [text for page in PAGES for _, _, language, text in _blocks(page) if language == "toml"]


@pytest.mark.parametrize("text", _TOML)
def test_the_settings_of_the_page_load(text: str, tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    for secret in re.findall(r"/run/secrets/(\w+)", text):
        (tmp_path / secret).write_text("not-a-real-one\n", "utf-8")
    file.write_text(text.replace("/run/secrets/", f"{tmp_path}/"), "utf-8")

    settings = load_settings({"EXECWORKER_CONFIG": str(file)})

    assert settings.routes
    assert all(route.mode is not Mode.OFF for route in settings.routes.values())


@pytest.mark.parametrize("snippet", _of("json"))
def test_the_message_of_the_page_is_one(snippet: Snippet) -> None:
    load_intent(snippet.text)


@pytest.mark.real_redis
@pytest.mark.parametrize("snippet", _of("conf"))
def test_a_server_set_up_as_the_page_says_may_carry_a_live_route(snippet: Snippet) -> None:
    words = [line.split() for line in snippet.text.splitlines() if line and not line.startswith("#")]
    server = start_redis(*(word for name, *values in words for word in (f"--{name}", *values)))
    client = connect(server.url, client_name="durable")
    try:
        assert weaknesses(client) == []
    finally:
        client.close()
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


def test_every_address_of_a_redis_in_the_docs_is_one_that_the_settings_take(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    said = re.findall(r"^EXECWORKER_REDIS_URL='?(\S+?)'?$", (ROOT / "docs/redis.md").read_text("utf-8"), re.M)

    taken = [
        load_settings(
            {"EXECWORKER_REDIS_URL": url.replace("/etc/execworker/ca.pem", str(authority))}
        ).redis_url
        for url in said
    ]

    assert len(taken) == 3
