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
from typer.main import get_command
from typer.testing import CliRunner, Result

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
    return [
        f"{_text(line['reason'])} {_text(line['object'])}"
        for line in lines
        if _text(line["username"]) == user
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

    own = {"redis_users", "redis_users_7.2", "grafana_password"}
    assert set(made) == own | {f"redis_url_{user}" for user in USERS}
    assert {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()} == made
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    passwords = [url.split(b":")[2].split(b"@")[0] for name, url in made.items() if "url" in name]
    assert len({*passwords, made["grafana_password"]}) == 5
    assert all(len(password) == 48 for password in passwords)
    printed = (first.stdout + first.stderr + again.stdout + again.stderr).encode()
    kept = made["redis_users"] + made["redis_users_7.2"]
    assert not any(secret in printed + kept for secret in passwords)


def test_the_users_of_a_newer_server_may_say_who_they_are_and_confirm_and_no_more(tmp_path: Path) -> None:
    subprocess.run(["sh", DEPLOY / "secrets.sh", tmp_path], check=True, capture_output=True)
    older, newer = (
        [set(line.split()) for line in (tmp_path / name).read_text("utf-8").splitlines()]
        for name in ("redis_users", "redis_users_7.2")
    )

    more = [late - early for early, late in zip(older, newer, strict=True)]

    confirms = {"+client|setinfo", "+waitaof"}
    assert more == [set(), confirms, confirms, {"+client|setinfo"}, {"+client|setinfo"}]
    assert all(early < late for early, late in zip(older[1:], newer[1:], strict=True))


def test_the_profile_of_a_newer_server_lets_everybody_in_and_its_log_stays_empty(
    newer_redis: DeployedRedis,
) -> None:
    clients = {user: newer_redis.connect(user) for user in ("test", *USERS)}
    for client in clients.values():
        assert client.ping()
    assert clients["worker"].execute_command("WAITAOF", 1, 0, 1000)[0] == 1
    # Under it the log of 7.0's users fills; `redis-py` hides the refusal.
    assert clients["test"].acl_log() == []
    for client in clients.values():
        client.close()


# --- A worker, an operator and a strategy, each under its own name -------------------------------------------


class Trading(Floor):
    """A floor whose workers and commands log in as the users of the profile."""

    def environ(self, **route: Any) -> dict[str, str]:
        return super().environ(**route) | {"EXECWORKER_REDIS_URL": self.server.url("worker")}

    def operator(self, *arguments: str) -> str:
        """Run ``worker …`` as an operator, in this process; its standard output."""
        done = self.command("operator", *arguments)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    def command(self, user: str, *arguments: str) -> Result:
        """Run ``worker …`` in this process, with the workers' settings and the password of this user."""
        settings = self.environ() | {"EXECWORKER_REDIS_URL": self.server.url(user)}
        return CliRunner().invoke(app, arguments, obj=Surroundings(settings, connect, SystemClock()))

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


#: Each verb that asks Redis, as somebody types it. ``@`` is a dead letter.
VERBS = (
    "status",
    "submit --symbol 005930 --side BUY --quantity 1 --price 71000 --wait --timeout 20",
    "watch --from 0 --count 1",
    "intent i-0 --thorough",
    "report 2026-11-23",
    "halt --reason drill --cancel-open --timeout 5",
    "resume --reason drill",
    "doctor",
    "guard show",
    "guard reset --reason drill",
    "rollout open --reason drill",
    "rollout close --reason drill",
    "doubt list",
    "doubt resolve i-0 --timeout 0.1",
    "doubt resolve i-0 --not-placed --reason drill",
    "dead list",
    "dead show @",
    "dead replay @",
    "dead drop @ --reason drill",
    "audit verify",
)
#: These ask no Redis, or are no command of an operator; what they need is read from their source.
OTHER_VERBS = {"demo", "run", "deadman", "simulate kis", "contracts export"}


@pytest.mark.process
def test_every_command_runs_as_the_operator_and_where_the_workers_are_as_the_worker(
    deployed_redis: DeployedRedis, client: Callable[[str], Any], tmp_path: Path
) -> None:
    said: dict[str, str] = {}
    with Trading(deployed_redis, tmp_path) as floor:
        floor.worker()
        floor.enqueue_as_a_strategy(2)
        for user in ("operator", "worker"):
            for line in VERBS:
                if "@" in line:
                    letter = _text(client("test").xadd(KEYS.dead, {"body": b"no JSON", "reason": b"invalid"}))
                    line = line.replace("@", letter)
                done = floor.command(user, *line.split())
                said[f"{user} {line}"] = done.output
                assert "NOPERM" not in done.output and done.exit_code != 70, (user, line, done.output)
                assert done.exception is None or isinstance(done.exception, SystemExit), (user, line)

    assert {user: refusals(client, user) for user in USERS} == {user: [] for user in USERS}
    for user in ("operator", "worker"):
        assert "sound" in said[f"{user} audit verify"]
        assert not re.search(r"^unknown +redis", said[f"{user} doctor"], re.M), said[f"{user} doctor"]


def test_every_command_is_tried_as_the_users_that_run_it() -> None:
    tried = {line.split(" -")[0].removesuffix(" @").removesuffix(" i-0") for line in VERBS}

    assert {one.removesuffix(" 2026-11-23") for one in tried} | OTHER_VERBS == set(
        _verbs(get_command(app), "")
    )


def _verbs(command: Any, name: str) -> Iterator[str]:
    below = getattr(command, "commands", None)
    if below is None:
        yield name.strip()
    for one in below or ():
        yield from _verbs(below[one], f"{name} {one}")


def test_an_operator_reads_what_was_refused_to_whom(client: Callable[[str], Any]) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        client("strategy").execute_command("FLUSHALL")

    (line,) = client("operator").acl_log()

    assert _text({_text(name): value for name, value in line.items()}["username"]) == "strategy"


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
    "xinfo_consumers": ["xinfo|consumers"],
    "xinfo_groups": ["xinfo|groups"],
    "xinfo_stream": ["xinfo|stream"],
    "xpending_range": ["xpending"],
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
            ) if word.isupper() and word.split()[0].lower() in known:
                first, *sub = word.split()
                yield _with_sub(
                    first, *sub or [one.value for one in rest[:1] if isinstance(one, ast.Constant)]
                )


def _with_sub(word: str, sub: Any = "") -> str:
    name, groups = word.lower(), ("acl", "cluster", "command", "config", "xgroup", "xinfo")
    return f"{name}|{str(sub).lower()}" if name in groups else name


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
    # The commands too: in a container they run as the worker.
    used = _used(client, lambda part: part not in {"demo", "simulate"})

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
    assert refusals(client, "scaler") == []
