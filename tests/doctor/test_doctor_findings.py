"""Everything that doctor can find is found, with the severity that the table says."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from contracts import dump
from tests.conftest import make_intent
from tests.doctor.ward import KEYS, KIS, Answering, Ward, other_server, that_cannot_save
from worker.brokers.kis.auth import AccessTokenPayload
from worker.brokers.kis.options import KISOptions, credentials_of
from worker.brokers.kis.shared import RedisTokenStore
from worker.clock import ManualClock, SystemClock
from worker.connection import connect
from worker.doctor import CHECKS, Patient, Severity
from worker.doctor.door import _without_credentials
from worker.keys import GROUP, SHARED
from worker.ledger.control import Control
from worker.ledger.registry import account_mark, enlist
from worker.settings import load_settings, secret_files

pytestmark = pytest.mark.real_redis

#: Makes a ward sick; what it returns is the client that doctor gets, if it is a special one.
Sickness = Callable[[Ward], Any]
SICK: dict[str, Sickness] = {}
SEVERITIES = {f"{check.area}.{one.word}": one for check in CHECKS for one in check.ailments}


def sick(finding: str) -> Callable[[Sickness], Sickness]:
    def keep(make: Sickness) -> Sickness:
        SICK[finding] = make
        return make

    return keep


def test_a_healthy_desk_is_well_and_nothing_is_changed_by_looking(ward: Ward) -> None:
    before = {key: ward.client.dump(key) for key in ward.client.scan_iter()}

    found = ward.findings()

    assert {one.id: one.evidence for one in found.values() if one.severity is not Severity.OK} == {}
    assert set(found) == {check.area for check in CHECKS}
    assert {key: ward.client.dump(key) for key in ward.client.scan_iter()} == before


def test_everything_that_can_be_found_has_a_test() -> None:
    assert set(SICK) == set(SEVERITIES)


@pytest.mark.parametrize("finding", sorted(SEVERITIES))
def test_what_is_wrong_is_found_with_its_severity_and_a_cure(ward: Ward, finding: str) -> None:
    client = SICK[finding](ward)

    found = ward.findings(client=client)

    assert finding in found, {one.id: one.evidence for one in found.values()}
    ailment = SEVERITIES[finding]
    live = ward.env.get("EXECWORKER_ROUTES__DEFAULT__MODE") == "live"
    assert found[finding].severity == (
        ailment.severity if live or not ailment.otherwise else ailment.otherwise
    )
    assert found[finding].evidence and found[finding].cure
    assert "ROUTE" not in found[finding].cure.replace("EXECWORKER_ROUTES", "") or found[finding].route is None
    # What is wrong there is not called ok in the same breath.
    assert finding.rpartition(".")[0] not in found


def live(ward: Ward) -> None:
    ward.route(MODE="live", LIVE_ALLOWED="true")


# --- The Redis ---------------------------------------------------------------------------------------------------


@sick("redis.reachable.away")
def _(ward: Ward) -> None:
    ward.env["EXECWORKER_REDIS_URL"] = "redis://:hunter2-hunter2@127.0.0.1:1/0"


@sick("redis.reachable.refused")
def _(ward: Ward) -> None:
    ward.client.config_set("requirepass", "hunter2-hunter2")
    ward.client.execute_command("AUTH", "hunter2-hunter2")
    ward.ends.append(lambda: ward.client.config_set("requirepass", ""))


@sick("redis.reachable.loading")
def _(ward: Ward) -> Any:
    return that_loads(ward, loading_loaded_perc="40.20", loading_eta_seconds=12)


def that_loads(ward: Ward, **told: Any) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise redis.BusyLoadingError("Redis is loading the dataset in memory")

    client = connect(ward.server.url, client_name="doctor")
    client.ping = refuse  # type: ignore[method-assign]
    client.info = lambda _section: told  # type: ignore[method-assign]
    return client


def version(ward: Ward, said: str) -> Any:
    server = {"INFO SERVER": lambda _real: {"redis_version": said}}
    return Answering(connect(ward.server.url, client_name="doctor"), server)


@sick("redis.version.too_old")
def _(ward: Ward) -> Any:
    return version(ward, "5.0.14")


@sick("redis.version.old")
def _(ward: Ward) -> Any:
    return version(ward, "6.2.14")


@sick("redis.commands.missing")
def _(ward: Ward) -> Any:
    reply = {"COMMAND INFO": lambda real: [row for row in real() if row and row[0] != b"xautoclaim"]}
    return Answering(connect(ward.server.url, client_name="doctor"), reply)


@sick("redis.commands.no_waitaof")
def _(ward: Ward) -> Any:
    ward.env["EXECWORKER_CONFIRM_FSYNC"] = "true"
    reply = {"COMMAND INFO": lambda real: [row for row in _rows(real) if row and row[0] != b"waitaof"]}
    return Answering(connect(ward.server.url, client_name="doctor"), reply)


def _rows(real: Callable[[], Any]) -> Any:
    return real()


@sick("redis.commands.no_scripts")
def _(ward: Ward) -> Any:
    ward.client.acl_setuser("lame", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-eval"])
    ward.ends.append(lambda: ward.client.acl_deluser("lame"))
    ward.env["EXECWORKER_REDIS_URL"] = ward.server.url.replace("redis://", "redis://lame:x@")


def durability(name: str, value: str) -> Sickness:
    def make(ward: Ward) -> None:
        live(ward)
        ward.client.config_set(name, value)

    return make


SICK["redis.persistence.off"] = durability("appendonly", "no")
SICK["redis.persistence.everysec"] = durability("appendfsync", "everysec")
SICK["redis.persistence.rewrite"] = durability("no-appendfsync-on-rewrite", "yes")
SICK["redis.eviction.evicts"] = durability("maxmemory-policy", "allkeys-lru")


@sick("redis.persistence.broken")
def _(ward: Ward) -> Any:
    reply = {"INFO PERSISTENCE": lambda real: real() | {"aof_last_write_status": "err"}}
    return Answering(connect(ward.server.url, client_name="doctor"), reply)


@sick("redis.persistence.failing")
def _(ward: Ward) -> None:
    ward.env["EXECWORKER_REDIS_URL"] = that_cannot_save(ward).url


def replication(ward: Ward, **facts: Any) -> Any:
    reply = {"INFO REPLICATION": lambda real: real() | facts}
    client = connect(ward.server.url, client_name="doctor")
    client.info = lambda section: client.execute_command("INFO", section) | facts  # type: ignore[method-assign]
    return Answering(client, reply)


@sick("redis.replicas.is_replica")
def _(ward: Ward) -> None:
    replica = other_server(ward, "--replicaof", "127.0.0.1", str(ward.server.port))
    ward.env["EXECWORKER_REDIS_URL"] = replica.url


@sick("redis.replicas.is_cluster")
def _(ward: Ward) -> Any:
    reply = {"INFO CLUSTER": lambda _real: {"cluster_enabled": 1}}
    return Answering(connect(ward.server.url, client_name="doctor"), reply)


@sick("redis.replicas.few")
def _(ward: Ward) -> None:
    ward.env["EXECWORKER_CONFIRM_REPLICAS"] = "2"


@sick("redis.replicas.unconfirmed")
def _(ward: Ward) -> Any:
    live(ward)
    return replication(ward, connected_slaves=1, slave0={"state": "online", "lag": 0})


@sick("redis.replicas.lagging")
def _(ward: Ward) -> Any:
    ward.env["EXECWORKER_CONFIRM_REPLICAS"] = "1"
    return replication(ward, connected_slaves=1, slave0={"state": "online", "lag": 60})


def memory(part: float) -> Sickness:
    def make(ward: Ward) -> Any:
        facts = {"used_memory": int(part * 1e6), "maxmemory": 1_000_000}
        reply = {"INFO MEMORY": lambda real: real() | facts}
        return Answering(connect(ward.server.url, client_name="doctor"), reply)

    return make


SICK["redis.memory.full"] = memory(0.97)
SICK["redis.memory.filling"] = memory(0.85)


@sick("redis.memory.unlimited")
def _(ward: Ward) -> None:
    ward.client.config_set("maxmemory", "0")


def far_away(ward: Ward, login: str = "", scheme: str = "redis") -> Any:
    """A client of the ward's server, which the settings and doctor know by the address of another machine."""
    ward.env["EXECWORKER_REDIS_URL"] = f"{scheme}://{login}10.1.2.3:6379/0"

    def near(url: str, **options: Any) -> Any:
        rest = url.partition("://")[2]
        return connect(f"redis://{rest}".replace("10.1.2.3:6379", f"127.0.0.1:{ward.server.port}"), **options)

    ward.connect = near
    return near(ward.env["EXECWORKER_REDIS_URL"], client_name="doctor")


SICK["redis.door.open"] = SICK["redis.door.plain"] = far_away


def clock(ahead: float) -> Sickness:
    def make(ward: Ward) -> None:
        ward.clock = ManualClock(datetime.now(UTC) + timedelta(seconds=ahead))

    return make


SICK["redis.clock.skewed"] = clock(-3)
SICK["redis.clock.wrong"] = clock(20)


@sick("redis.round_trip.slow")
def _(ward: Ward) -> None:
    class Slow(SystemClock):
        def __init__(self) -> None:
            self.ticks = 0.0

        def boottime(self) -> float:
            self.ticks += 0.008
            return self.ticks

    ward.clock = Slow()


@sick("redis.rights.refused")
def _(ward: Ward) -> None:
    ward.client.acl_setuser("poor", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-xautoclaim"])
    ward.ends.append(lambda: ward.client.acl_deluser("poor"))
    ward.env["EXECWORKER_REDIS_URL"] = ward.server.url.replace("redis://", "redis://poor:x@")


# --- This machine ------------------------------------------------------------------------------------------------


@sick("settings.notes.odd")
def _(ward: Ward) -> None:
    ward.route(MODE="live")


@sick("secrets.files.readable")
def _(ward: Ward) -> None:
    file = open_to_all(ward.folder) / "secret"
    file.write_text("secret-of-the-desk")
    file.chmod(0o644)
    keeps_its_secret_in(ward, file)


def keeps_its_secret_in(ward: Ward, file: Path) -> None:
    ward.route(**KIS)
    del ward.env["EXECWORKER_ROUTES__DEFAULT__OPTIONS__APP_SECRET"]
    ward.route(OPTIONS__APP_SECRET_FILE=str(file))


def open_to_all(folder: Path) -> Path:
    for each in (folder, *folder.parents[:-2]):
        each.chmod(each.stat().st_mode | 0o055)
    return folder


@sick("metrics.port.taken")
def _(ward: Ward) -> None:
    holder = socket.create_server(("127.0.0.1", 0))
    ward.ends.append(holder.close)
    ward.env["EXECWORKER_METRICS_PORT"] = str(holder.getsockname()[1])


@sick("told.channels.unusable")
def _(ward: Ward) -> None:
    ward.env["EXECWORKER_TOLD_COMMAND"] = "/no/such/program"


@sick("told.channels.nobody")
def _(ward: Ward) -> None:
    del ward.env["EXECWORKER_TOLD_COMMAND"]


@sick("route.credentials.faulty")
def _(ward: Ward) -> None:
    ward.route(**KIS | {"OPTIONS__ENVIRONMENT": "real"})


@sick("route.credentials.off")
def _(ward: Ward) -> None:
    ward.route(MODE="off")


@sick("route.token.none")
def _(ward: Ward) -> None:
    ward.route(**KIS)


@sick("route.token.unreadable")
def _(ward: Ward) -> None:
    keeps_a_token(ward, secret="another-secret")
    ward.route(**KIS)


def keeps_a_token(ward: Ward, secret: str) -> None:
    options = KISOptions(
        environment="paper",
        app_key=SecretStr(KIS["OPTIONS__APP_KEY"]),
        app_secret=SecretStr(secret),
        account="12345678-01",
    )  # type: ignore[arg-type]
    store = RedisTokenStore(ward.client, SHARED, credentials_of(options, "paper"), SystemClock())
    issued = store.take("")
    ends = datetime.now(UTC) + timedelta(days=1)
    token = AccessTokenPayload(
        access_token=SecretStr("a-token-of-the-desk"), expires_in=86400, expires_at=ends
    )
    assert store.put(issued.fence, token)  # type: ignore[union-attr]


def calendar(day: datetime) -> Sickness:
    def make(ward: Ward) -> None:
        ward.route(**KIS)
        ward.clock = ManualClock(day)

    return make


SICK["route.calendar.today"] = calendar(datetime(2040, 1, 4, tzinfo=UTC))


@sick("route.calendar.soon")
def _(ward: Ward) -> None:
    from worker.markets.tables import table

    until = table("days")["KR"]["until"]
    calendar(datetime(until.year, until.month, until.day, tzinfo=UTC) - timedelta(days=3))(ward)


# --- Its ledger --------------------------------------------------------------------------------------------------


@sick("halt.here.file")
def _(ward: Ward) -> None:
    (ward.folder / "halt").touch()


@sick("registry.strays.stray")
def _(ward: Ward) -> None:
    enlist(ward.client, "old_one", broker="simulated", mode="paper", account=None)


@sick("registry.strays.unreadable")
def _(ward: Ward) -> None:
    ward.client.hset("exec:routes", "x", "{}")


@sick("route.registry.account")
def _(ward: Ward) -> None:
    enlist(ward.client, "other", broker="simulated", mode="paper", account="12345678-01")
    ward.route(ACCOUNT="12345678-01")


@sick("route.registry.differs")
def _(ward: Ward) -> None:
    enlist(ward.client, "default", broker="simulated", mode="live", account=None)


@sick("route.registry.new")
def _(ward: Ward) -> None:
    ward.client.delete("exec:routes")


@sick("route.guard.tripped")
def _(ward: Ward) -> None:
    ward.client.hset(KEYS.state, mapping={"guard_state": "FAIL", "guard_failures": "1,2,3"})


@sick("route.guard.failures")
def _(ward: Ward) -> None:
    ward.client.hset(KEYS.state, mapping={"guard_state": "WARNING", "guard_failures": "1,2"})


@sick("route.halt.halted")
def _(ward: Ward) -> None:
    ward.ledger.command("halt", "kim@desk", "lunch")


@sick("route.leases.stuck")
def _(ward: Ward) -> None:
    ward.client.zadd(KEYS.open, {"i-1": ward.now_ms - 60_000})


def doubt(seconds: float) -> Sickness:
    def make(ward: Ward) -> None:
        since = ward.now_ms - round(seconds * 1000)
        entry = {
            "state": "in_doubt",
            "body": dump(make_intent(intent_id="i-1")),
            "since": since,
            "worker": "w1",
        }
        ward.client.hset(KEYS.intent("i-1"), mapping=entry)
        ward.client.zadd(KEYS.doubts, {"i-1": ward.now_ms + 60_000})

    return make


SICK["route.doubts.old"] = doubt(301)
SICK["route.doubts.open"] = doubt(10)


@sick("route.lanes.crowded")
def _(ward: Ward) -> None:
    ward.route(MAX_PARKED="5")
    ward.client.zadd(KEYS.lanes, {f"A\0{number}\0i-{number}": 0 for number in range(5)})


@sick("route.lanes.waiting")
def _(ward: Ward) -> None:
    ward.client.hset(KEYS.intent("i-1"), "state", "parked")
    ward.client.zadd(KEYS.open, {"i-1": ward.now_ms + 60_000})


# --- Its workers -------------------------------------------------------------------------------------------------


@sick("workers.alive.none")
def _(ward: Ward) -> None:
    live(ward)
    are_gone(ward)


def are_gone(ward: Ward) -> None:
    for worker in ("w1", "w2"):
        ward.signs_in(worker, beat=ward.now_ms - 60_000)


@sick("workers.alive.single")
def _(ward: Ward) -> None:
    ward.client.hdel(KEYS.workers, "w2")


@sick("workers.agree.modes")
def _(ward: Ward) -> None:
    ward.signs_in("w2", mode="live")


@sick("workers.agree.versions")
def _(ward: Ward) -> None:
    live(ward)
    for worker in ("w1", "w2"):
        ward.signs_in(worker)
    ward.client.hset(KEYS.workers, "w2", json.dumps({"host": "h", "pid": 1, "port": 1, "beat": ward.now_ms}))


@sick("workers.agree.settings")
def _(ward: Ward) -> None:
    live(ward)
    for worker in ("w1", "w2"):
        ward.signs_in(worker)
    ward.signs_in("w2", settings="others", build="of others")


# --- Its queue ---------------------------------------------------------------------------------------------------


@sick("queue.group.missing")
def _(ward: Ward) -> None:
    ward.client.xgroup_destroy(KEYS.cancels, GROUP)


@sick("queue.group.others")
def _(ward: Ward) -> None:
    ward.client.xgroup_create(KEYS.intents, "analytics", "0")


def takes(consumer: str, idle: float = 0.0) -> Sickness:
    def make(ward: Ward) -> None:
        entry = ward.client.xadd(KEYS.intents, {"body": "{}"})
        ward.client.xreadgroup(GROUP, consumer, {KEYS.intents: ">"})
        ward.client.xclaim(KEYS.intents, GROUP, consumer, 0, [entry], idle=round(idle * 1000), retrycount=4)

    return make


SICK["queue.consumers.strangers"] = takes("somebody")
SICK["queue.pending.old"] = takes("w1", 120)


@sick("queue.consumers.stuck")
def _(ward: Ward) -> Any:
    takes("w1")(ward)
    client = connect(ward.server.url, client_name="doctor")
    rows = client.xinfo_consumers(KEYS.intents, GROUP)
    silent = [row | {"idle": 90_000} for row in rows]
    client.xinfo_consumers = lambda _stream, _group: silent  # type: ignore[method-assign]
    return client


@sick("queue.dead_letters.waiting")
def _(ward: Ward) -> None:
    ward.client.xadd(KEYS.dead, {"body": "x", "reason": "invalid"})


# --- A Redis that answers, and does not serve --------------------------------------------------------------------


def test_a_redis_that_cannot_save_is_not_called_away_and_all_the_rest_is_looked_at(ward: Ward) -> None:
    ward.env["EXECWORKER_REDIS_URL"] = that_cannot_save(ward).url

    found = ward.findings()

    failing = found["redis.persistence.failing"]
    assert "rdb_last_bgsave_status is err" in failing.evidence and "MISCONF" in failing.evidence
    assert "disk" in failing.cure
    assert {one.id: one.evidence for one in found.values() if one.severity is Severity.UNKNOWN} == {}


def test_a_redis_that_loads_its_data_tells_how_long_it_will_take(ward: Ward) -> None:
    client = that_loads(ward, loading_loaded_perc="40.20", loading_eta_seconds=12)

    found = ward.findings(client=client)

    assert "40 % of its data" in found["redis.reachable.loading"].evidence
    assert "another 12 s" in found["redis.reachable.loading"].evidence
    assert "redis.memory.unknown" in found


def test_a_redis_that_loads_and_does_not_tell_how_far_is_loading_all_the_same(ward: Ward) -> None:
    assert "is loading" in ward.findings(client=that_loads(ward))["redis.reachable.loading"].evidence


@pytest.mark.parametrize(
    ("login", "rules", "cure"),
    [
        ("", "", "It wants a password: EXECWORKER_REDIS_URL=redis://USER:PASSWORD@"),
        ("w:wrong-password@", "", "Correct the user and password"),
        ("w:hunter2-hunter2@", "-ping", "+ping: add it in deploy/redis/users.acl"),
        ("w:hunter2-hunter2@", "off", "ACL SETUSER USER on"),
    ],
)
def test_a_redis_that_does_not_let_us_in_says_what_is_missing(
    ward: Ward, login: str, rules: str, cure: str
) -> None:
    asks_for_a_password(ward)
    words = ["on", ">hunter2-hunter2", "~*", "+@all", *rules.split()]
    ward.client.execute_command("ACL", "SETUSER", "w", *words)
    ward.ends.append(lambda: ward.client.acl_deluser("w"))
    ward.env["EXECWORKER_REDIS_URL"] = ward.server.url.replace("://", f"://{login}")

    assert cure in ward.findings()["redis.reachable.refused"].cure


def test_a_redis_that_serves_nobody_for_now_is_not_to_be_started(ward: Ward) -> None:
    def refuse(*_: Any) -> Any:
        raise redis.ResponseError("BUSY Redis is busy running a script")

    client = connect(ward.server.url, client_name="doctor")
    client.ping = refuse  # type: ignore[method-assign]

    found = ward.findings(client=client)["redis.reachable.away"]

    assert "BUSY" in found.evidence and "Start it" not in found.cure


# --- A registry that others wrote to -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", ["{}", "[]", "null", "no JSON", '{"broker": "kis"}', '{"broker": 1, "mode": "off"}', b"\xff"]
)
def test_a_row_that_no_worker_wrote_is_named_and_hides_no_other(ward: Ward, row: Any) -> None:
    ward.client.hset("exec:routes", "x", row)
    enlist_beside(ward, "12345678-01")

    found = ward.findings()

    assert found["registry.strays.unreadable"].evidence.startswith("x: ")
    assert "HDEL exec:routes" in found["registry.strays.unreadable"].cure
    assert "route.registry.account" in found
    assert not any("the check itself failed" in one.evidence for one in found.values())


def enlist_beside(ward: Ward, account: str) -> None:
    row = json.dumps({"broker": "simulated", "mode": "paper", "account": account_mark("simulated", account)})
    ward.client.hset("exec:routes", "other", row)
    ward.route(ACCOUNT=account)


def test_a_row_of_the_route_itself_that_cannot_be_read_is_never_ok(ward: Ward) -> None:
    ward.client.hset("exec:routes", "default", "{}")

    found = ward.findings()

    assert found["registry.strays.unreadable"].evidence == "default: {}"
    assert "cannot be read" in found["route.registry.unknown"].evidence


# --- Who gets in -------------------------------------------------------------------------------------------------


def asks_for_a_password(ward: Ward, password: str = "hunter2-hunter2") -> None:
    ward.client.config_set("requirepass", password)
    ward.client.execute_command("AUTH", password)
    ward.ends.append(lambda: ward.client.config_set("requirepass", ""))


def test_a_remote_server_that_asks_for_a_password_is_closed(ward: Ward) -> None:
    asks_for_a_password(ward)

    found = ward.findings(client=far_away(ward, ":hunter2-hunter2@", "rediss"))

    assert "Authentication required" in found["redis.door"].evidence


def test_a_password_of_our_own_does_not_hide_that_others_need_none(ward: Ward) -> None:
    ward.client.acl_setuser("w", enabled=True, passwords=["+hunter2-hunter2"], keys=["*"], commands=["+@all"])
    ward.ends.append(lambda: ward.client.acl_deluser("w"))

    found = ward.findings(client=far_away(ward, "w:hunter2-hunter2@", "rediss"))

    assert "without credentials" in found["redis.door.open"].evidence
    assert "hunter2" not in str(found)


def test_a_login_in_the_query_is_left_at_home_when_knocking(ward: Ward) -> None:
    asks_for_a_password(ward)
    ward.env["EXECWORKER_REDIS_URL"] = f"{ward.server.url}?password=hunter2-hunter2&username=default"

    assert "Authentication required" in ward.findings()["redis.door"].evidence


@pytest.mark.parametrize(
    ("bind", "protected", "is_open"),
    [
        ("127.0.0.1 -::1", "no", False),
        ("* -::*", "yes", False),
        ("* -::*", "no", True),
        ("127.0.0.1 192.0.2.7", "no", True),
        ("", "no", True),
    ],
)
def test_a_server_on_this_machine_is_open_when_others_reach_it_without_a_password(
    ward: Ward, bind: str, protected: str, is_open: bool
) -> None:
    replies = {
        "CONFIG GET BIND": lambda _real: {"bind": bind},
        "CONFIG GET PROTECTED-MODE": lambda _real: {"protected-mode": protected},
    }

    found = ward.findings(client=Answering(connect(ward.server.url, client_name="doctor"), replies))

    assert ("redis.door.open" in found, "redis.door" in found) == (is_open, not is_open)


def test_a_server_on_this_machine_that_hides_its_settings_and_needs_no_password_is_unknown(
    ward: Ward,
) -> None:
    client = Answering(connect(ward.server.url, client_name="doctor"), {"CONFIG GET BIND": lambda _real: {}})

    assert "redis.door.unknown" in ward.findings(client=client)


def test_a_server_of_a_socket_alone_is_reached_by_nobody_else(ward: Ward) -> None:
    server = other_server(ward)
    client = connect(f"unix://{server.socket}", client_name="doctor")
    client.config_set("port", 0)
    ward.env["EXECWORKER_REDIS_URL"] = f"unix://{server.socket}"

    assert "socket" in ward.findings(client=client)["redis.door"].evidence


def test_a_user_without_a_password_who_may_do_little_is_unknown_with_the_way_to_close_it(ward: Ward) -> None:
    ward.client.acl_setuser("w", enabled=True, nopass=True, keys=["*"], commands=["+@all"])
    ward.env["EXECWORKER_REDIS_URL"] = ward.server.url.replace("://", "://w:x@")
    ward.client.execute_command("AUTH", "w", "x")
    ward.client.execute_command("ACL", "SETUSER", "default", "-ping")
    ward.ends.append(lambda: ward.client.execute_command("ACL", "SETUSER", "default", "+@all"))

    found = ward.findings()["redis.door.unknown"]

    assert "needs no password" in found.evidence and "default off" in found.cure


def test_while_redis_is_away_nobody_says_that_its_door_is_closed(ward: Ward) -> None:
    ward.env["EXECWORKER_REDIS_URL"] = "redis://127.0.0.1:1/0"

    assert "redis.door" not in ward.findings()


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("redis://:p@h:6379/1?ssl_ca_certs=x&password=p", "redis://h:6379/1?ssl_ca_certs=x"),
        ("redis://u:p%40q@h", "redis://h"),
        ("unix://u:p@/run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("rediss+cluster://u:p@a:1,b:2?ssl_ca_certs=x", "rediss://a:1?ssl_ca_certs=x"),
        (
            "redis+sentinel://u:p@a:1,b:2/desk/0?sentinel_password=s",
            "redis+sentinel://a:1,b:2/desk/0?sentinel_password=s",
        ),
    ],
)
def test_what_knocks_brings_no_credentials_of_the_server(url: str, bare: str) -> None:
    assert _without_credentials(url) == bare


# --- Details -----------------------------------------------------------------------------------------------------


def test_what_only_matters_for_real_money_is_a_warning_on_paper(ward: Ward) -> None:
    ward.client.config_set("appendfsync", "everysec")

    assert ward.findings()["redis.persistence.everysec"].severity is Severity.WARNING

    live(ward)
    assert ward.findings()["redis.persistence.everysec"].severity is Severity.ERROR
    ward.route(ALLOW_WEAK_DURABILITY="true")
    assert ward.findings()["redis.persistence.everysec"].severity is Severity.WARNING


def test_a_route_that_nobody_serves_while_its_market_is_open_is_an_error_on_paper_too(ward: Ward) -> None:
    are_gone(ward)
    ward.client.hset(KEYS.state, "alive_at", ward.now_ms - 35_000)

    found = ward.findings()["workers.alive.none"]

    assert found.severity is Severity.ERROR
    assert re.fullmatch("no heartbeat for 3[56] s, and its market is open", found.evidence)


def test_a_route_that_nobody_serves_while_its_market_is_closed_is_a_warning(ward: Ward) -> None:
    ward.route(**KIS)
    are_gone(ward)
    ward.clock = ManualClock(datetime(2026, 11, 22, 3, tzinfo=UTC))  # a Sunday

    found = ward.findings()["workers.alive.none"]

    assert (found.severity, "closed" in found.evidence) == (Severity.WARNING, True)

    ward.clock = ManualClock(datetime(2026, 11, 23, 3, tzinfo=UTC))
    assert ward.findings()["workers.alive.none"].severity is Severity.ERROR


def test_a_route_that_is_off_needs_no_worker_to_be_well(ward: Ward) -> None:
    ward.route(MODE="off")
    are_gone(ward)

    assert ward.findings()["workers.alive.none"].severity is Severity.WARNING


def test_a_route_that_no_worker_ever_served_is_a_warning(ward: Ward) -> None:
    ward.client.delete(KEYS.workers, KEYS.state)

    assert ward.findings()["workers.alive.none"].severity is Severity.WARNING


def test_a_log_that_is_off_is_one_finding_and_not_two(ward: Ward) -> None:
    ward.client.config_set("appendonly", "no")
    ward.client.config_set("appendfsync", "everysec")

    found = [one for one in ward.findings() if one.startswith("redis.persistence")]

    assert found == ["redis.persistence.off"]


def test_the_memory_that_is_used_is_told_in_percent(ward: Ward) -> None:
    assert ward.findings(client=memory(0.853)(ward))["redis.memory.filling"].evidence == "85.3 % of 1 MB used"


def test_workers_that_differ_are_an_error_where_every_order_is_denied_for_it(ward: Ward) -> None:
    live(ward)
    ward.signs_in("w1")
    ward.signs_in("w2", version="0.0.1", build="0.0.1/x")

    found = ward.findings()["workers.agree.versions"]
    assert (found.severity, "every order is denied" in found.evidence) == (Severity.ERROR, True)

    Control(ward.client, "default").open_rollout("kim@desk", "release", 600)
    found = ward.findings()["workers.agree.versions"]
    assert (found.severity, "every order is denied" in found.evidence) == (Severity.WARNING, False)


def test_workers_that_differ_are_a_warning_where_no_real_money_is_sent(ward: Ward) -> None:
    ward.signs_in("w2", version="0.0.1", build="0.0.1/x")

    assert ward.findings()["workers.agree.versions"].severity is Severity.WARNING


def test_live_workers_that_are_alike_trade_whatever_settings_doctor_was_given(ward: Ward) -> None:
    live(ward)
    for worker in ("w1", "w2"):
        ward.signs_in(worker)
    ward.route(MAX_AGE="30")

    assert ward.findings()["workers.agree.settings"].severity is Severity.WARNING


def test_a_token_that_is_there_and_can_be_read_is_well(ward: Ward) -> None:
    keeps_a_token(ward, KIS["OPTIONS__APP_SECRET"])
    ward.route(**KIS)

    found = ward.findings()["route.token"]

    assert "good for another 24.0 h" in found.evidence


def test_a_port_that_one_of_our_workers_has_is_well(ward: Ward) -> None:
    from prometheus_client import CollectorRegistry

    from worker.health import HealthServer

    ours = HealthServer(
        "127.0.0.1",
        0,
        registry=CollectorRegistry(),
        live=lambda: None,
        ready=lambda: None,
        state=lambda: {"worker": "w1"},
    )
    ward.env["EXECWORKER_METRICS_PORT"] = str(ours.start())
    ward.ends.append(ours.stop)

    assert ward.findings()["metrics.port"].evidence == f"w1 has port {ours.port}"


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "readable"),
    [
        (0o600, 0o755, False),
        (0o640, 0o755, True),
        (0o604, 0o755, True),
        (0o644, 0o700, False),
        (0o640, 0o701, True),
    ],
)
def test_a_secret_behind_a_closed_folder_is_safe(
    ward: Ward, tmp_path: Path, file_mode: int, folder_mode: int, readable: bool
) -> None:
    folder = open_to_all(tmp_path) / "secrets"
    folder.mkdir()
    file = folder / "secret"
    file.write_text('environment = "paper"\napp_key = "k-of-the-desk"\napp_secret = "s-of-the-desk"\n')
    file.chmod(file_mode)
    folder.chmod(folder_mode)
    ward.route(BROKER="kis", OPTIONS__ACCOUNT="12345678-01", OPTIONS__CREDENTIALS=str(file))

    found = ward.findings()

    assert ("secrets.files.readable" in found) is readable


@pytest.mark.parametrize(
    ("setting", "is_secret"),
    [
        ('credentials = "/nowhere/kis.toml"', False),
        ("token_shared = true", False),
        ('app_key = ""', False),
        ('app_key_file = "/dev/null"', False),
        ('app_key = "PS-key-of-the-desk"', True),
        ('password = "x"', True),
    ],
)
def test_a_settings_file_is_read_by_all_unless_a_secret_stands_in_it(
    tmp_path: Path, setting: str, is_secret: bool
) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(f"[routes.default.options]\n{setting}\n")

    assert (file in [one for _, one in secret_files({"EXECWORKER_CONFIG": str(file)})]) is is_secret


def test_a_settings_file_with_secrets_in_it_is_looked_at(ward: Ward, tmp_path: Path) -> None:
    file = open_to_all(tmp_path) / "worker.toml"
    file.write_text("[routes.default]\nlease = 10\n")
    file.chmod(0o644)
    ward.env["EXECWORKER_CONFIG"] = str(file)
    assert "secrets.files" in ward.findings()

    file.write_text('told_header = "X-Key: secret"\n')

    assert "EXECWORKER_CONFIG" in ward.findings()["secrets.files.readable"].evidence


def test_a_redis_that_is_away_hides_what_needs_it_and_nothing_else(ward: Ward) -> None:
    ward.env["EXECWORKER_REDIS_URL"] = "redis://:hunter2-hunter2@127.0.0.1:1/0"

    found = ward.findings()

    for check in CHECKS[1:]:
        expected = f"{check.area}.unknown" if check.needs_redis else check.area
        assert expected in found
    assert not any("hunter2" in str(one) for one in found.values())


def test_a_server_that_keeps_its_settings_to_itself_is_unknown_and_never_ok(ward: Ward) -> None:
    rules = ["+@all", "-config", "-acl", "-command", "-info"]
    ward.client.acl_setuser("shy", enabled=True, nopass=True, keys=["*"], commands=rules)
    ward.ends.append(lambda: ward.client.acl_deluser("shy"))
    ward.env["EXECWORKER_REDIS_URL"] = ward.server.url.replace("redis://", "redis://shy:x@")

    found = ward.findings()

    hidden = ["version", "commands", "persistence", "eviction", "replicas", "memory", "rights"]
    for area in hidden:
        assert f"redis.{area}" not in found
        assert found[f"redis.{area}.unknown"].severity is Severity.UNKNOWN
        assert found[f"redis.{area}.unknown"].cure
    assert "redis.clock" in found and "route.guard" in found


def test_a_managed_server_that_answers_config_get_with_nothing_is_unknown(ward: Ward) -> None:
    reply = {"CONFIG GET": lambda _real: {}}
    client = Answering(connect(ward.server.url, client_name="doctor"), reply)

    found = ward.findings(client=client)

    assert {"redis.persistence.unknown", "redis.eviction.unknown"} <= set(found)


def test_a_queue_elsewhere_is_unknown(ward: Ward) -> None:
    ward.env["EXECWORKER_QUEUE_URL"] = "amqp://guest@127.0.0.1//"

    found = ward.findings()

    assert {"queue.group.unknown", "queue.consumers.unknown", "queue.pending.unknown"} <= set(found)


@pytest.mark.parametrize(
    ("ours", "queue", "here"),
    [
        ("redis://h:6379/0", "", True),
        ("redis://w:pw@h:6379/0", "redis-streams://q:pw@h:6379/0", True),
        ("redis://h:6379/0", "redis-streams://h:6379/1", False),
        ("redis://h:6379/0", "redis://h:6379/0", False),
        ("redis+sentinel://w:pw@a:26379,b:26379/desk/0", "", True),
        ("unix:///run/redis.sock", "", True),
    ],
)
def test_a_queue_on_the_same_redis_is_known_by_its_address(ours: str, queue: str, here: bool) -> None:
    environ = {"EXECWORKER_REDIS_URL": ours, "EXECWORKER_QUEUE_URL": queue}

    patient = Patient(load_settings(environ), environ, None, connect, SystemClock())

    assert patient.queue_is_here is here


def test_a_check_that_meets_something_odd_is_unknown_and_the_others_are_done(ward: Ward) -> None:
    def odd(_real: Any) -> Any:
        raise TypeError("odd")

    client = Answering(connect(ward.server.url, client_name="doctor"), {"INFO MEMORY": odd})

    found = ward.findings(client=client)

    assert "the check itself failed" in found["redis.memory.unknown"].evidence
    assert "queue.dead_letters" in found or "queue.dead_letters.unknown" in found


def test_what_no_worker_has_written_is_no_worker(ward: Ward) -> None:
    before = ward.findings()["workers.agree"].evidence
    ward.client.hset(KEYS.workers, "w3", "no JSON")

    assert ward.findings()["workers.agree"].evidence == before


def test_redis_going_away_in_the_middle_is_unknown(ward: Ward) -> None:
    def gone(_real: Any) -> Any:
        raise redis.ConnectionError("gone")

    client = Answering(connect(ward.server.url, client_name="doctor"), {"INFO MEMORY": gone})

    assert "Redis does not answer" in ward.findings(client=client)["redis.memory.unknown"].evidence


def test_every_route_is_looked_at_with_what_is_its_own(ward: Ward) -> None:
    ward.route("kis_main", MODE="off")

    found = ward.findings()

    assert found["route.credentials.off"].route == "kis_main"
    assert found["route.registry.new"].cure == "Start one: worker run --route kis_main."


def test_a_missing_credential_is_named_with_its_cure(ward: Ward) -> None:
    ward.route(**KIS)
    del ward.env["EXECWORKER_ROUTES__DEFAULT__OPTIONS__APP_KEY"]

    assert "app_key – required; KIS's portal" in ward.findings()["route.credentials.faulty"].evidence


def test_no_secret_is_in_any_evidence(ward: Ward) -> None:
    ward.route(**KIS | {"OPTIONS__ACCOUNT": "no account", "OPTIONS__ENVIRONMENT": "real"})
    ward.env["EXECWORKER_TOLD_URL"] = "https://hooks/secret-of-the-hook"

    said = str(ward.findings())

    assert "of-the-desk" not in said and "of-the-hook" not in said


def test_files_of_others_that_cannot_be_looked_at_are_unknown(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ward.folder / "theirs"
    file.write_text("x")
    keeps_its_secret_in(ward, file)
    stat = Path.stat

    def refused(self: Path, **options: Any) -> os.stat_result:
        if self == file:
            raise PermissionError(13, "Permission denied")
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", refused)

    assert "Permission denied" in ward.findings()["secrets.files.unknown"].evidence
