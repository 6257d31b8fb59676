"""The Redis of `deploy/redis` carries a live route, and each of its users may do its work and nothing else."""

from __future__ import annotations

import ast
import json
import re
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from contracts import Outcome
from tests.conftest import make_intent
from tests.deploy.conftest import DEPLOY, ROOT, DeployedRedis, tool
from tests.process.workers import Floor, wait_until
from worker.cli.app import app
from worker.cli.context import Surroundings
from worker.clock import SystemClock
from worker.connection import connect
from worker.durability import weaknesses
from worker.keys import GROUP, RouteKeys
from worker.producer import IntentProducer

pytestmark = pytest.mark.real_redis

KEYS = RouteKeys("default")
USERS = ("worker", "operator", "strategy", "scaler")


@pytest.fixture
def client(deployed_redis: DeployedRedis) -> Iterator[Callable[[str], Any]]:
    made: list[Any] = []

    def as_user(user: str) -> Any:
        made.append(deployed_redis.connect(user))
        return made[-1]

    as_user("test").flushall()
    as_user("test").acl_log_reset()
    yield as_user
    for one in made:
        one.close()


def refusals(client: Callable[[str], Any], user: str) -> list[str]:
    """What the server has refused this user, from its own log."""
    lines: Any = client("test").acl_log()
    lines = [{_text(name): value for name, value in line.items()} for line in lines]
    # From 7.2 on redis-py tells its own version, and does not mind a refusal.
    return [
        f"{_text(line['reason'])} {_text(line['object'])}"
        for line in lines
        if _text(line["username"]) == user and _text(line["object"]) != "client|setinfo"
    ]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# --- The server ---------------------------------------------------------------------------------------------


def test_a_live_route_may_start_on_the_server_of_the_profile(client: Callable[[str], Any]) -> None:
    assert weaknesses(client("worker")) == []


def test_nobody_gets_in_without_a_password(deployed_redis: DeployedRedis) -> None:
    stranger = connect(f"redis://127.0.0.1:{deployed_redis.port}/0", client_name="stranger")

    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.get("exec:routes")


def test_before_the_passwords_are_made_nobody_gets_in_at_all() -> None:
    lines = (DEPLOY / "redis/users.acl").read_text("utf-8").splitlines()

    assert [line.split()[1] for line in lines] == ["default", *USERS]
    assert all(" resetpass " in line for line in lines)
    assert not any(re.search(r" (?:nopass|[>#]\S+)", line) for line in lines)


def test_the_secrets_are_made_once_and_readable_only_behind_their_folder(tmp_path: Path) -> None:
    command = ["sh", DEPLOY / "secrets.sh", tmp_path / "secrets"]

    first = subprocess.run(command, check=True, capture_output=True, text=True)
    made = {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
    again = subprocess.run(command, check=True, capture_output=True, text=True)

    assert set(made) == {"redis_users", "grafana_password", *(f"redis_url_{user}" for user in USERS)}
    assert {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()} == made
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    passwords = [url.split(b":")[2].split(b"@")[0] for name, url in made.items() if "url" in name]
    assert len({*passwords, made["grafana_password"]}) == 5
    assert all(len(password) == 48 for password in passwords)
    printed = (first.stdout + first.stderr + again.stdout + again.stderr).encode()
    assert not any(secret in printed + made["redis_users"] for secret in passwords)


# --- A worker, an operator and a strategy, each under its own name -------------------------------------------


class Trading(Floor):
    """A floor whose workers and commands log in as the users of the profile."""

    def environ(self, **route: Any) -> dict[str, str]:
        return super().environ(**route) | {"EXECWORKER_REDIS_URL": self.server.url("worker")}

    def operator(self, *arguments: str) -> str:
        """Run ``worker …`` as an operator, in this process; its standard output."""
        settings = {"EXECWORKER_REDIS_URL": self.server.url("operator")}
        desk = Surroundings(settings, connect, SystemClock())
        done = CliRunner().invoke(app, arguments, obj=desk)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    def enqueue_as_a_strategy(self, count: int = 1, prefix: str = "i", **changes: Any) -> dict[str, Any]:
        """Send intents and wait for their answers, by intent_id."""
        with IntentProducer(self.server.url("strategy")) as producer:
            wanted = [make_intent(intent_id=f"{prefix}-{number}", **changes) for number in range(count)]
            producer.enqueue_many(wanted)
            return {one.intent_id: producer.wait(one.intent_id, timeout=30) for one in wanted}

    def __enter__(self) -> Trading:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.mark.process
def test_a_day_of_work_meets_no_refusal_and_its_ledger_is_kept_compact(
    deployed_redis: DeployedRedis, client: Callable[[str], Any], tmp_path: Path
) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text("{}", "utf-8")
    with Trading(deployed_redis, tmp_path, options__faults=faults, options__latency=0.2) as floor:
        first = floor.worker()
        accepted = floor.enqueue_as_a_strategy(5)
        client("strategy").xadd(KEYS.intents, {"body": b"no JSON"})
        faults.write_text(json.dumps({"lose_reply_rate": 1}), "utf-8")
        doubted = floor.enqueue_as_a_strategy(2, prefix="lost", symbol="000660")
        faults.write_text("{}", "utf-8")
        other = floor.worker()
        with IntentProducer(deployed_redis.url("strategy")) as producer:
            producer.enqueue_many([make_intent(intent_id=f"k-{n}", symbol=f"{n:06d}") for n in range(30)])
        wait_until(lambda: client("test").hlen(KEYS.workers) == 2, "two workers are there")
        other.kill()
        wait_until(
            lambda: all(client("test").hget(KEYS.intent(f"k-{n}"), "response") for n in range(30)),
            "the other worker does the rest",
        )
        floor.operator("halt", "--reason", "drill")
        floor.operator("resume", "--reason", "drill is over")
        (dead,) = floor.operator("dead", "list", "--json").splitlines()
        floor.operator("dead", "drop", json.loads(dead)["position"], "--reason", "typed by hand")
        floor.operator("intent", "i-0", "--json")
        floor.operator("doubt", "list")
        floor.operator("guard", "show")
        floor.operator("status")
        first.send(signal.SIGTERM)
        assert first.wait() == 0

    # What the profile is set to: a quarter of the memory less than in a hash table.
    assert _text(client("test").object("ENCODING", KEYS.intent("i-0"))) == "listpack"
    assert {one.outcome for one in (accepted | doubted).values()} == {Outcome.ACCEPTED}
    assert {user: refusals(client, user) for user in USERS} == {user: [] for user in USERS}


def _granted(user: str) -> set[str]:
    lines = (DEPLOY / "redis/users.acl").read_text("utf-8").splitlines()
    line = next(line for line in lines if line.startswith(f"user {user} "))
    return {word[1:] for word in line.split() if word.startswith("+")}


#: How redis-py calls what it does not call as Redis does.
_METHODS = {
    "config_get": ["config|get"],
    "delete": ["del"],
    "hscan_iter": ["hscan"],
    "transaction": ["watch", "unwatch", "multi", "exec"],
    "xgroup_create": ["xgroup|create"],
    "xinfo_groups": ["xinfo|groups"],
}
_CLIENTS = re.compile(r"(?:client|redis|pipe)$")


def _of_python(path: Path, known: frozenset[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=name)) if _CLIENTS.search(ast.unparse(value)):
                yield from _METHODS.get(name, [name] if name in known else [])
        match node:
            case (
                ast.Call(args=[ast.Constant(value=str(word)), *rest])
                | ast.Tuple(elts=[ast.Constant(value=str(word)), *rest])
            ) if word.isupper() and word.lower() in known:
                yield _with_sub(word, rest[0].value if rest and isinstance(rest[0], ast.Constant) else "")


def _with_sub(word: str, sub: Any) -> str:
    name = word.lower()
    return f"{name}|{str(sub).lower()}" if name in ("cluster", "config", "xgroup", "xinfo") else name


def _of_lua(path: Path, known: frozenset[str]) -> Iterator[str]:
    for word, sub in re.findall(r"'([A-Z]+)'(?:\s*,\s*'([A-Z]+)')?", path.read_text("utf-8")):
        if word.lower() in known:
            yield _with_sub(word, sub)


@cache
def _commands(path: Path, known: frozenset[str]) -> frozenset[str]:
    ways = {".py": _of_python, ".lua": _of_lua}
    return frozenset(ways[path.suffix](path, known)) if path.suffix in ways else frozenset()


def _used(client: Callable[[str], Any], wanted: Callable[[str], bool]) -> set[str]:
    """The commands of the parts of the worker that are wanted, as `users.acl` spells them."""
    known = frozenset(_text(name).lower() for name in client("test").command_list())
    files = [
        path for path in (ROOT / "worker").rglob("*") if wanted(path.relative_to(ROOT / "worker").parts[0])
    ]
    used = {command for path in files for command in _commands(path, known)}
    # redis-py says who it is, and pings what was idle.
    return used | {"client|setname", "ping"}


def test_the_worker_may_do_exactly_what_its_source_does(client: Callable[[str], Any]) -> None:
    others = {"cli", "demo", "doctor", "simulate", "producer.py"}

    used = _used(client, lambda part: part not in others)

    assert used - _granted("worker") == set(), "give these to `user worker` in deploy/redis/users.acl"
    assert _granted("worker") - used == set(), "nobody uses these: take them from `user worker`"


def test_an_operator_may_do_whatever_a_command_of_ours_does(client: Callable[[str], Any]) -> None:
    used = _used(client, lambda part: part not in {"demo", "simulate"})

    refused = {command for command in used if not _may(client("test"), "operator", command)}

    assert refused == set(), "give these to `user operator` in deploy/redis/users.acl"


def _may(client: Any, user: str, command: str) -> bool:
    """Ask the server, with one more argument each time until they are enough. All of them are a key of ours."""
    for count in range(10):
        try:
            answer = client.acl_dryrun(user, *command.split("|"), *["exec:routes"] * count)
        except redis.ResponseError as error:
            assert "wrong number of arguments" in str(error), error
        else:
            return _text(answer) == "OK"
    raise AssertionError(f"how many arguments does {command} take?")


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("worker", "FLUSHALL"),
        ("worker", "CONFIG SET appendfsync no"),
        ("worker", "GET strategies:own"),
        ("worker", "KEYS *"),
        ("operator", "FLUSHALL"),
        ("operator", "CONFIG SET appendfsync no"),
        ("operator", "SHUTDOWN"),
        ("strategy", "DEL exec:{default}:intents"),
        ("strategy", "XADD exec:{default}:responses * body forged"),
        ("strategy", "HSET exec:{default}:state halted 0"),
        ("strategy", "HSET exec:{default}:intent:i-0 response forged"),
        ("strategy", "XTRIM exec:{default}:intents MAXLEN 0"),
        ("strategy", "XRANGE exec:{default}:intents - +"),
        ("strategy", "HGETALL exec:shared:{kis}"),
        ("scaler", "XADD exec:{default}:intents * body mine"),
        ("scaler", "XRANGE exec:{default}:intents - +"),
    ],
)
def test_a_stolen_password_does_no_more_than_its_user(
    client: Callable[[str], Any], user: str, command: str
) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        client(user).execute_command(*command.split())


def test_keda_sees_how_far_the_group_is_behind(
    deployed_redis: DeployedRedis, client: Callable[[str], Any]
) -> None:
    client("test").xgroup_create(KEYS.intents, GROUP, id="0", mkstream=True)
    client("strategy").xadd(KEYS.intents, {"body": b"{}"})
    password = deployed_redis.url("scaler").split(":")[2].split("@")[0]
    # What go-redis says first, and what the scaler asks for when it has a lagCount: the version, then the lag.
    asked = (
        f"HELLO 3 AUTH scaler {password}",
        *("CLIENT SETINFO LIB-NAME go-redis", "CLIENT SETINFO LIB-VER 9"),
        *("INFO", f"XINFO GROUPS {KEYS.intents}"),
    )

    told = subprocess.run(
        [tool("redis-cli"), "-p", str(deployed_redis.port)],
        input="\n".join(asked) + "\n",
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert re.search(r"^redis_version:\d", told, re.M) and re.search(r"^lag 1$", told, re.M), told
    assert "NOPERM" not in told and refusals(client, "scaler") == []
