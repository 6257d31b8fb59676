"""The tables of the pages say what the code says, and their links lead somewhere."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

import worker.keys
from contracts import (
    Code,
    ExecutionIntent,
    ExecutionResponse,
    FailsafeEvent,
    FailsafeType,
    OrderEvent,
    OrderStatus,
    Outcome,
    SafetyCode,
)
from tests.conftest import AnyRedis, make_intent
from tests.docs.test_snippets import PAGES, ROOT, a_worker, environment, snippets
from worker.cli.app import app
from worker.keys import RouteKeys
from worker.producer import IntentProducer

DOCS = ROOT / "docs"
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_TEST_PATH = re.compile(r"`(tests/[\w./]+)`")


def _page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def _rows(text: str, head: str) -> list[list[str]]:
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(head)) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def _keys_of_the_code() -> list[list[str]]:
    lines = (worker.keys.__doc__ or "").splitlines()
    rule = next(line for line in lines if line.startswith("==="))
    starts = [found.start() for found in re.finditer("=+", rule)]
    body = lines[lines.index(rule) + 3 :]
    ends = [*starts[1:], None]
    rows = [
        [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
        for line in body[: body.index(rule)]
    ]
    return [[f"`{key}`", *(cell.replace("``", "`") for cell in rest)] for key, *rest in rows]


def test_the_keys_of_the_page_are_those_of_the_code() -> None:
    assert _rows(_page("redis.md"), "| key | type |") == _keys_of_the_code()


@pytest.mark.real_redis
@pytest.mark.process
@pytest.mark.parametrize("any_redis", ["redis"], indirect=True)
def test_a_worker_leaves_no_key_that_the_page_does_not_name(any_redis: AnyRedis, tmp_path: Path) -> None:
    kinds = {row[0].strip("`"): row[1] for row in _keys_of_the_code()}
    client = any_redis.connect()
    env = environment(tmp_path, int(client.get_connection_kwargs()["port"]))
    (tmp_path / "faults.json").write_text('{"lose_reply_rate": 1}', "utf-8")

    with a_worker(tmp_path, env), IntentProducer(any_redis.url) as producer:
        client.xadd(RouteKeys("default").intents, {"body": b"no JSON"})
        for number in range(3):
            intent = make_intent(intent_id=f"i-{number}")
            producer.enqueue(intent)
        for number in range(3):
            producer.wait(f"i-{number}", timeout=20)

    found = {_pattern(_text(key)): _text(client.type(key)) for key in client.scan_iter()}
    assert found == {key: kinds.get(key) for key in found}
    assert {"exec:{ROUTE}:intent:ID", "exec:{ROUTE}:failsafe", "exec:{ROUTE}:dead"} <= found.keys()


def _text(value: Any) -> str:
    return str(value.decode())


def _pattern(key: str) -> str:
    return re.sub(r":intent:.*", ":intent:ID", key.replace("{default}", "{ROUTE}"))


@pytest.mark.parametrize("message", [ExecutionIntent, ExecutionResponse, FailsafeEvent, OrderEvent])
def test_every_field_of_a_message_is_on_the_page(message: type[BaseModel]) -> None:
    _, _, section = _page("contracts.md").partition(f"## {message.__name__}\n")
    section = section.partition("\n## ")[0]

    assert [name for name in message.model_fields if f"`{name}`" not in section] == []


@pytest.mark.parametrize("words", [Outcome, Code, FailsafeType, SafetyCode, OrderStatus])
def test_every_word_of_a_closed_set_is_on_the_page(words: type[StrEnum]) -> None:
    page = _page("contracts.md")

    assert [word for word in words if f"`{word}`" not in page] == []


def test_every_link_leads_somewhere() -> None:
    dead = []
    for page in PAGES:
        for target in _LINK.findall(page.read_text("utf-8")):
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and anchor not in _anchors(file)):
                dead.append(f"{page.name}: {target}")

    assert dead == []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_promise_names_tests_that_exist() -> None:
    rows = _rows((ROOT / "README.md").read_text("utf-8"), "| | promise | tested in |")

    assert [row[0] for row in rows] == [f"P{number}" for number in range(1, 11)]
    named = {path for row in rows for path in _TEST_PATH.findall(row[2])}
    assert {path for path in named if not (ROOT / path).exists()} == set()
    assert all(_TEST_PATH.findall(row[2]) for row in rows)


def test_every_command_of_the_pages_exists() -> None:
    root = typer.main.get_command(app)
    known = set(root.commands)  # type: ignore[attr-defined]  # a group's commands
    named = {verb for page in PAGES for verb in re.findall(r"`worker ([a-z]+)", page.read_text("utf-8"))}
    named |= {verb for one in snippets() for verb in re.findall(r"^ *worker ([a-z]+)", one.text, re.M)}

    assert named - known <= {"simulate"}  # named as not there yet
