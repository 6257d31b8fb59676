"""`worker doctor`: the gravest first, with cures; JSON for scripts; an exit code to go by; and its page."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.conftest import AnyRedis
from tests.doctor.ward import Ward, that_cannot_save
from worker.cli.app import app
from worker.cli.context import Surroundings
from worker.clock import SystemClock
from worker.connection import connect
from worker.doctor import CHECKS, Severity, findings_table

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"

Doctor = Callable[..., Result]


@pytest.fixture
def doctor(ward: Ward) -> Doctor:
    def call(*args: str) -> Result:
        desk = Surroundings(ward.env, connect, SystemClock())
        ward.ends.append(desk.client.close)
        return CliRunner().invoke(app, ["doctor", *args], obj=desk)

    return call


@pytest.mark.real_redis
def test_a_healthy_desk_is_one_line_and_exit_code_0(doctor: Doctor) -> None:
    done = doctor()

    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("ok       redis.reachable, redis.version")
    assert done.stdout.count("\n") == 1


@pytest.mark.real_redis
def test_an_error_comes_first_with_its_cure_and_exit_code_1(doctor: Doctor, ward: Ward) -> None:
    ward.route(MODE="live", LIVE_ALLOWED="true")
    ward.client.config_set("appendfsync", "everysec")
    ward.client.hdel("exec:{default}:workers", "w2")

    done = doctor()

    lines = done.stdout.splitlines()
    assert done.exit_code == 1
    assert lines[0] == "error    redis.persistence.everysec"
    assert lines[1] == "         appendfsync is everysec"
    assert lines[2].startswith("         → redis-cli CONFIG SET appendfsync always")
    assert lines[-1].startswith("ok ")


@pytest.mark.real_redis
def test_a_warning_alone_is_no_failure(doctor: Doctor, ward: Ward) -> None:
    (ward.folder / "halt").touch()

    done = doctor()

    assert done.exit_code == 0
    assert done.stdout.startswith("warning  halt.here.file\n")


@pytest.mark.real_redis
def test_as_json_each_finding_is_a_line(doctor: Doctor, ward: Ward) -> None:
    (ward.folder / "halt").touch()

    done = doctor("--json")

    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(CHECKS)
    assert {tuple(one) for one in found} == {("id", "severity", "evidence", "cure", "route")}
    assert [one["id"] for one in found if one["severity"] != "ok"] == ["halt.here.file"]


@pytest.mark.real_redis
def test_one_route_alone_can_be_looked_at(doctor: Doctor, ward: Ward) -> None:
    ward.route("kis_main", MODE="off")

    done = doctor("--route", "default", "--json")

    assert {json.loads(line)["route"] for line in done.stdout.splitlines()} == {None, "default"}
    assert doctor("--route", "nobody").exit_code == 78


def test_without_redis_it_tells_what_it_can_and_exits_69(tmp_path: Path) -> None:
    environ = {
        "EXECWORKER_REDIS_URL": "redis://:hunter2-hunter2@127.0.0.1:1/0",
        "EXECWORKER_METRICS_PORT": "0",
        "EXECWORKER_HALT_FILE": str(tmp_path),
    }

    done = CliRunner().invoke(app, ["doctor"], obj=Surroundings(environ, connect, SystemClock()))

    assert done.exit_code == 69
    assert done.stdout.startswith("error    redis.reachable.away\n")
    assert "warning  halt.here.file" in done.stdout
    assert f"unknown  {sum(check.needs_redis for check in CHECKS) - 1} checks that need Redis" in done.stdout
    assert "hunter2" not in done.output


@pytest.mark.real_redis
@pytest.mark.parametrize("verb", [("status",), ("submit", "--symbol", "A", "--side", "BUY", "--price", "1")])
def test_a_redis_that_cannot_save_is_told_as_such_by_every_verb(ward: Ward, verb: tuple[str, ...]) -> None:
    environ = ward.env | {"EXECWORKER_REDIS_URL": that_cannot_save(ward).url}
    quantity = ("--quantity", "1") if len(verb) > 1 else ()

    done = CliRunner().invoke(app, [*verb, *quantity], obj=Surroundings(environ, connect, SystemClock()))

    assert done.exit_code == 69
    assert "refuses writes because it cannot save to its disk: MISCONF" in done.stderr
    assert "worker doctor" in done.stderr and "Start it" not in done.stderr


def test_it_runs_on_a_redis_made_of_python(any_redis: AnyRedis) -> None:
    environ = {"EXECWORKER_REDIS_URL": any_redis.url, "EXECWORKER_METRICS_PORT": "0"}
    desk = Surroundings(environ, any_redis.connect, SystemClock())

    done = CliRunner().invoke(app, ["doctor", "--json"], obj=desk)

    found: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert "redis.reachable" in {one["id"] for one in found}
    assert done.exit_code in (0, 1)


def test_no_id_has_two_meanings_and_every_one_has_a_cure() -> None:
    ids = [f"{check.area}.{one.word}" for check in CHECKS for one in check.ailments]

    assert len(ids) == len(set(ids))
    assert len({check.area for check in CHECKS}) == len(CHECKS)
    assert not any(one.word in ("unknown", "") for check in CHECKS for one in check.ailments)
    assert all(one.cure and one.meaning for check in CHECKS for one in check.ailments)
    assert all(one.severity is not Severity.OK for check in CHECKS for one in check.ailments)


def test_the_page_lists_every_finding_as_it_is() -> None:
    head, begin, rest = PAGE.read_text(encoding="utf-8").partition("<!-- findings_table() -->\n")
    table, end, tail = rest.partition("<!-- end -->\n")
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(head + begin + findings_table() + end + tail, encoding="utf-8")
        return

    assert begin
    assert table == findings_table(), "run UPDATE_DOCS=1 pytest tests/doctor/test_doctor_command.py"
