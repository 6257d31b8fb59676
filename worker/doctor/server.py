"""The Redis: whether it answers, what it can do, what it remembers, and how much room it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

import redis
from redis.exceptions import NoPermissionError

from worker.connection import cannot_save, is_cluster
from worker.doctor.findings import Ailment, Check, Found, Severity, missing_right, unknown, well
from worker.doctor.patient import Patient, text
from worker.durability import NEEDED, weaknesses

# --- Reachable -------------------------------------------------------------------------------------------------

_AWAY = Ailment(
    "away",
    Severity.ERROR,
    "Redis does not answer, or serves nobody for now. Nothing is sent while it is away.",
    "Start it, or correct EXECWORKER_REDIS_URL.",
)
_LOADING = Ailment(
    "loading",
    Severity.ERROR,
    "Redis has started and reads its data: it serves nobody, and nothing is sent, until it has.",
    "Wait, then ask again. If it takes for ever, look into Redis's log.",
)
_REFUSED = Ailment(
    "refused",
    Severity.ERROR,
    "It does not let us in.",
    "Correct the user and password in EXECWORKER_REDIS_URL.",
)
#: What to do instead, by a part of what the server says.
_LETS_IN: Final = {
    "Authentication required": "It wants a password: EXECWORKER_REDIS_URL=redis://USER:PASSWORD@HOST:PORT/DB.",
    "invalid username-password": "Correct the user and password in EXECWORKER_REDIS_URL, or let the user in: "
    "redis-cli ACL SETUSER USER on.",
    "without any password configured": "Set a password on the server (deploy/redis/users.acl), or leave it out of "
    "EXECWORKER_REDIS_URL.",
    "DENIED": "Set a password on the server (deploy/redis/users.acl); protected-mode keeps other machines out without one.",
}
_SERVES_NOBODY: Final = "It answers, and serves nobody for now: go by what it says, and look into its log."


def _reachable(patient: Patient) -> Iterable[Found]:
    shown = patient.settings.redis_url.shown
    try:
        patient.client.ping()
    except redis.BusyLoadingError:
        return [_LOADING.found(f"{shown}: {_left_to_load(patient)}")]
    except (redis.AuthenticationError, NoPermissionError) as error:
        return [_REFUSED.found(f"{shown}: {error}", cure=_way_in(error))]
    except redis.ResponseError as error:
        if cannot_save(error):
            return [well(f"{shown} answers, and refuses writes; see redis.persistence")]
        if str(error).startswith("DENIED"):
            return [_REFUSED.found(f"{shown}: {error}", cure=_way_in(error))]
        return [_AWAY.found(f"{shown}: {error}", cure=_SERVES_NOBODY)]
    except redis.RedisError as error:
        return [_AWAY.found(f"{shown}: {error}")]
    return [well(f"{shown} answers")]


def _way_in(error: redis.RedisError) -> str | None:
    if isinstance(error, NoPermissionError):
        return missing_right(error)
    return next((cure for words, cure in _LETS_IN.items() if words in str(error)), None)


def _left_to_load(patient: Patient) -> str:
    """How far it is, where it tells: for that it need not have read its data."""
    try:
        about = patient.client.info("persistence")
    except redis.RedisError:
        return "it is loading its data"
    part, seconds = about.get("loading_loaded_perc"), about.get("loading_eta_seconds")
    if part is None or seconds is None:
        return "it is loading its data"
    return f"it has loaded {float(part):.0f} % of its data, and thinks that it takes another {int(seconds)} s"


# --- Version, commands -----------------------------------------------------------------------------------------

_OLDEST, _TESTED = (6, 2), (7, 0)
_TOO_OLD = Ailment(
    "too_old",
    Severity.ERROR,
    "Older than 6.2: commands are missing that the scripts need.",
    "Upgrade to Redis 7.0 or newer.",
)
_OLD = Ailment(
    "old",
    Severity.WARNING,
    "Older than 7.0: the scripts are written to run on it, and not tested there.",
    "Upgrade to Redis 7.0 or newer.",
)


def _version(patient: Patient) -> Iterable[Found]:
    version = text(patient.info("server").get("redis_version", ""))
    parts = version.split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return [unknown(f"it says {version!r}")]
    number = int(parts[0]), int(parts[1])
    ailment = _TOO_OLD if number < _OLDEST else _OLD if number < _TESTED else None
    return [ailment.found(f"version {version}") if ailment else well(f"version {version}")]


#: Of the commands that we use, those that a server or a managed service is known to lack, and the newest ones.
_COMMANDS: Final = ("EVAL", "EVALSHA", "XAUTOCLAIM", "XINFO", "XSETID", "ZRANGEBYLEX", "WATCH", "WAIT")
_MISSING = Ailment(
    "missing",
    Severity.ERROR,
    "The server lacks a command that we use.",
    "Use Redis 7.0 or newer, or a service that offers it.",
)
_NO_WAITAOF = Ailment(
    "no_waitaof",
    Severity.ERROR,
    "confirm_fsync is set, and the server cannot confirm a write on the disk.",
    "Use Redis 7.2 or newer, or set appendfsync always and EXECWORKER_CONFIRM_FSYNC=false.",
)
_NO_SCRIPTS = Ailment(
    "no_scripts",
    Severity.ERROR,
    "A script does not run.",
    "Allow EVAL and EVALSHA; each transition of the ledger is a script.",
)


def _commands(patient: Patient) -> Iterator[Found]:
    wanted = [*_COMMANDS, *(["WAITAOF"] if patient.confirmation.fsync else [])]
    known = patient.client.execute_command("COMMAND INFO", *wanted)
    # One row for each name that was asked for; none where it is not known.
    found = {text(row[0]).upper() for row in known if row}
    lacking = [name for name in wanted if name not in found]
    if "WAITAOF" in lacking:
        yield _NO_WAITAOF.found("WAITAOF is not among its commands")
    if others := [name for name in lacking if name != "WAITAOF"]:
        yield _MISSING.found(f"not among its commands: {', '.join(others)}")
    try:
        patient.client.eval("return 1", 0)
    except redis.ResponseError as error:
        yield _NO_SCRIPTS.found(str(error))
    if not lacking:
        yield well(f"{len(wanted)} asked for, all there; a script runs")


# --- What it remembers -----------------------------------------------------------------------------------------

#: The settings of `worker.durability.NEEDED`, as findings.
WEAK: Final = {
    "appendonly": Ailment(
        "off",
        Severity.ERROR,
        "Nothing is written to the disk: a crash forgets what was sent.",
        "redis-cli CONFIG SET appendonly yes, with appendfsync always, and both in redis.conf.",
        Severity.WARNING,
    ),
    "appendfsync": Ailment(
        "everysec",
        Severity.ERROR,
        "A power loss forgets the last second, or more: an order can then be placed twice. A live route does not start.",
        "redis-cli CONFIG SET appendfsync always, and in redis.conf; or Redis 7.2 with EXECWORKER_CONFIRM_FSYNC=true.",
        Severity.WARNING,
    ),
    "no-appendfsync-on-rewrite": Ailment(
        "rewrite",
        Severity.ERROR,
        "While the log is rewritten nothing is brought to the disk.",
        "redis-cli CONFIG SET no-appendfsync-on-rewrite no, and in redis.conf.",
        Severity.WARNING,
    ),
    "maxmemory-policy": Ailment(
        "evicts",
        Severity.ERROR,
        "A full Redis forgets keys to make room: it forgets what was sent.",
        "redis-cli CONFIG SET maxmemory-policy noeviction, and in redis.conf.",
        Severity.WARNING,
    ),
}
_UNCONFIRMED = Ailment(
    "unconfirmed",
    Severity.ERROR,
    "A replica may take over without the last launches.",
    "EXECWORKER_CONFIRM_REPLICAS=1 or more; docs/running.md has what it costs.",
    Severity.WARNING,
)
_BROKEN = Ailment(
    "broken",
    Severity.ERROR,
    "Writing to the disk fails. Redis may refuse writes, and forgets on a crash.",
    "Look into Redis's log; free or repair the disk.",
)
_FAILING = Ailment(
    "failing",
    Severity.ERROR,
    "Redis cannot save to its disk, and refuses all writes for it (MISCONF): nothing is sent, nothing enqueued.",
    "Free or repair its disk, and look at its `dir` and who may write there. It goes on once a save has worked: "
    "redis-cli BGSAVE, then INFO persistence says ok for rdb_last_bgsave_status and aof_last_write_status.",
)


def _weak(patient: Patient, *names: str) -> Iterator[Found]:
    """By the same judge that keeps a live route from starting."""
    silent = [name for name in names if patient.config(name) is None]
    if silent:
        yield unknown(f"the server does not tell {', '.join(silent)}", patient.way_to_ask(silent[0]))
        return
    faults = weaknesses(patient.client, patient.confirmation)
    for name in names:
        for fault in faults:
            if fault.startswith(f"{name} is "):
                yield WEAK[name].found(fault.partition(";")[0], live=patient.must_be_durable)


def _persistence(patient: Patient) -> Iterator[Found]:
    names = [name for name in NEEDED if name != "maxmemory-policy"]
    found = list(_weak(patient, *names))
    # How a log is brought to the disk that is not written is no second fault.
    off = [one for one in found if one.word == WEAK["appendonly"].word]
    yield from off or found
    refusal = _refusal_to_write(patient)
    if refusal:
        yield _FAILING.found(refusal)
        return
    status = text(patient.info("persistence").get("aof_last_write_status", "ok"))
    if status != "ok":
        yield _BROKEN.found(f"aof_last_write_status is {status}")
    elif not found:
        yield well(", ".join(f"{name} {patient.config(name)}" for name in names))


def _refusal_to_write(patient: Patient) -> str:
    """That it refuses writes since it cannot save, and which of its ways to save fails; empty if it does not."""
    try:
        patient.client.ping()
    except redis.ResponseError as error:
        if not cannot_save(error):
            raise
        # Its whole text is long, and what matters stands at its beginning.
        said = str(error).partition(". ")[0]
    else:
        return ""
    try:
        about = patient.info("persistence")
    except redis.ResponseError:
        return said
    names = ("rdb_last_bgsave_status", "aof_last_write_status")
    return ", ".join([f"{name} is {text(about.get(name, 'unknown'))}" for name in names] + [said])


def _eviction(patient: Patient) -> Iterator[Found]:
    found = list(_weak(patient, "maxmemory-policy"))
    yield from found or [well(f"maxmemory-policy {patient.config('maxmemory-policy')}")]


_REPLICA = Ailment(
    "is_replica",
    Severity.ERROR,
    "It is a replica: it takes no writes, or loses them.",
    "Point EXECWORKER_REDIS_URL at the primary, or name the sentinels.",
)
_CLUSTER = Ailment(
    "is_cluster",
    Severity.ERROR,
    "It is one node of a cluster, named as a single server: routes on other nodes are out of reach.",
    "Name it as a cluster: EXECWORKER_REDIS_URL=redis+cluster://HOST:PORT,HOST:PORT.",
)
_FEW = Ailment(
    "few",
    Severity.ERROR,
    "Fewer replicas than must confirm each write: nothing is sent.",
    "Start replicas, or lower EXECWORKER_CONFIRM_REPLICAS.",
)
_LAGGING = Ailment(
    "lagging",
    Severity.WARNING,
    "A replica is behind. A fail-over would forget, or confirmations come late.",
    "Look at the replica and the network between.",
)
#: Seconds without a word of a replica.
_LAG: Final = 10


def _replicas(patient: Patient) -> Iterator[Found]:
    about = patient.info("replication")
    role, count = text(about.get("role", "unknown")), int(about.get("connected_slaves", 0))
    if role not in ("master", "primary"):
        yield _REPLICA.found(f"its role is {role}")
    if int(patient.info("cluster").get("cluster_enabled", 0)) and not is_cluster(patient.settings.redis_url):
        yield _CLUSTER.found("cluster_enabled is 1")
    wanted = patient.confirmation.replicas
    if count < wanted:
        yield _FEW.found(f"{count} connected, {wanted} must confirm")
    if any("replicas may take over" in fault for fault in weaknesses(patient.client, patient.confirmation)):
        yield _UNCONFIRMED.found(f"{count} replicas, 0 must confirm", live=patient.must_be_durable)
    for number in range(count):
        one = about.get(f"slave{number}")
        if isinstance(one, dict) and (one.get("state") != "online" or int(one.get("lag", 0)) > _LAG):
            yield _LAGGING.found(f"replica {number}: {text(one.get('state'))}, {one.get('lag')} s behind")


# --- Room ------------------------------------------------------------------------------------------------------

_FULL = Ailment(
    "full",
    Severity.ERROR,
    "Above 95 % of its memory. When it is full it refuses writes, and nothing is sent.",
    "Raise maxmemory, or shorten `retention`; docs/redis.md has the figures.",
)
_FILLING = Ailment(
    "filling",
    Severity.WARNING,
    "Above 80 % of its memory.",
    "Raise maxmemory, or shorten `retention`; docs/redis.md has the figures.",
)
_UNLIMITED = Ailment(
    "unlimited",
    Severity.INFO,
    "No limit: the machine's memory is the limit, and the kernel ends what is above it.",
    "Set maxmemory below the machine's memory.",
)


def _memory(patient: Patient) -> Iterable[Found]:
    about = patient.info("memory")
    if "used_memory" not in about:
        return [unknown("INFO memory does not tell")]
    used, limit = int(about["used_memory"]), int(about.get("maxmemory", 0))
    if not limit:
        return [_UNLIMITED.found(f"{used / 1e6:.0f} MB used, no maxmemory")]
    evidence = f"{100 * used / limit:.1f} % of {limit / 1e6:.0f} MB used"
    ailment = _FULL if used > 0.95 * limit else _FILLING if used > 0.8 * limit else None
    return [ailment.found(evidence) if ailment else well(evidence)]


# --- Time ------------------------------------------------------------------------------------------------------

_SKEWED = Ailment(
    "skewed",
    Severity.WARNING,
    "This machine's clock differs from Redis's by more than 1 s.",
    "Start a time service (chrony) on both machines.",
)
_WRONG = Ailment(
    "wrong",
    Severity.ERROR,
    "By more than `future_skew` or a quarter of `max_age`: intents made here are refused, or expire.",
    "Start a time service (chrony) on both machines.",
)


def _clock(patient: Patient) -> Iterable[Found]:
    before = patient.clock.boottime()
    seconds, microseconds = patient.client.time()
    half = (patient.clock.boottime() - before) / 2
    skew = patient.clock.now().timestamp() - half - seconds - microseconds / 1e6
    routes = patient.settings.routes.values()
    worst = min(min(one.future_skew, one.max_age / 4) for one in routes)
    evidence = f"this machine is {abs(skew):.3f} s {'ahead of' if skew > 0 else 'behind'} Redis"
    ailment = _WRONG if abs(skew) > worst else _SKEWED if abs(skew) > 1.0 else None
    return [ailment.found(evidence) if ailment else well(evidence)]


_PINGS: Final = 50
#: Milliseconds. An order takes three round trips on its way.
_SLOW_P50, _SLOW_P99 = 5.0, 50.0
_SLOW = Ailment(
    "slow",
    Severity.WARNING,
    "Redis is far away or busy: above 5 ms half of the time, or 50 ms once in a hundred. An order takes three round trips.",
    "Run workers near Redis; look at `redis-cli LATENCY LATEST` and SLOWLOG.",
)


def _round_trip(patient: Patient) -> Iterable[Found]:
    times = []
    for _ in range(_PINGS):
        before = patient.clock.boottime()
        # A refusal has come the same way.
        with suppress(redis.ResponseError):
            patient.client.ping()
        times.append((patient.clock.boottime() - before) * 1000)
    times.sort()
    p50, p99 = times[_PINGS // 2], times[-1]
    evidence = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms of {_PINGS} PINGs"
    return [_SLOW.found(evidence) if p50 > _SLOW_P50 or p99 > _SLOW_P99 else well(evidence)]


REACHABLE: Final = Check(
    "redis.reachable", "Redis answers, and lets us in.", _reachable, (_AWAY, _LOADING, _REFUSED)
)
CHECKS: Final = (
    Check("redis.version", "Redis 7.0 or newer.", _version, (_TOO_OLD, _OLD)),
    Check(
        "redis.commands",
        "It has the commands that we use, asked one by one, and runs a script.",
        _commands,
        (_MISSING, _NO_WAITAOF, _NO_SCRIPTS),
    ),
    Check(
        "redis.persistence",
        "What it acknowledged survives a crash: AOF, fsync before each answer, also while the log is rewritten.",
        _persistence,
        (WEAK["appendonly"], WEAK["appendfsync"], WEAK["no-appendfsync-on-rewrite"], _BROKEN, _FAILING),
    ),
    Check("redis.eviction", "It never forgets a key to make room.", _eviction, (WEAK["maxmemory-policy"],)),
    Check(
        "redis.replicas",
        "It is the primary, and replicas are there that must confirm.",
        _replicas,
        (_REPLICA, _CLUSTER, _FEW, _UNCONFIRMED, _LAGGING),
    ),
    Check("redis.memory", "It has room.", _memory, (_FULL, _FILLING, _UNLIMITED)),
    Check("redis.clock", "Its clock and this machine's agree.", _clock, (_SKEWED, _WRONG)),
    Check("redis.round_trip", "It is near.", _round_trip, (_SLOW,)),
)
