"""Whether the user that logs in may do what a worker does, command by command and key by key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import redis

from worker.doctor.findings import Ailment, Check, Found, Severity, unknown, well
from worker.doctor.patient import Patient, text
from worker.keys import ROUTES, SHARED, RouteKeys

#: What a worker calls, in scripts too, each on a key that it is called on. ``{name}`` is a key of the route.
CALLS: Final = """
ping
time
info
wait 0 1
client setname x
config get appendonly
cluster slots
multi
exec
unwatch
eval x 1 {state}
evalsha x 1 {state}
watch {working}
hgetall {routes}
hset {routes} f v
hset {shared} f v
exists {intent}
persist {intent}
pexpire {intent} 1
del {teller}
get {follower}
set {scanner} v
hdel {workers} f
hexists {noted} f
hget {state} f
hgetall {state}
hincrby {state} f 1
hkeys {routes}
hmget {intent} f
hscan {owned} 0
hset {intent} f v
hsetnx {state} f v
lindex {slots} 0
lpush {slots} v
ltrim {slots} 0 1
sadd {ready} v
spop {ready}
zadd {lanes} 0 v
zcard {doubts}
zrange {open} 0 1
zrangebylex {lanes} - +
zrangebyscore {doubts} 0 1
zrem {open} v
zscore {doubts} v
xack {intents} g 0-1
xadd {responses} * f v
xadd {failsafe} * f v
xadd {audit} * f v
xadd {orders} * f v
xadd {dead} * f v
xautoclaim {intents} g c 0 0
xclaim {cancels} g c 0 0-1
xgroup create {intents} g 0
xgroup delconsumer {intents} g c
xgroup setid {intents} g 0
xinfo consumers {intents} g
xinfo groups {cancels}
xlen {dead}
xpending {intents} g
xrange {failsafe} - +
xread streams {responses} 0
xreadgroup group g c streams {intents} >
xrevrange {seals} + -
xtrim {audit} minid 0
"""

_REFUSED = Ailment(
    "refused",
    Severity.ERROR,
    "The user may not do what a worker does: it would stop in the middle of its work.",
    "Give it the rights of the user `worker` in deploy/redis/users.acl.",
)


def calls(route: str) -> list[list[str]]:
    """What a worker of the route calls, in words."""
    keys = RouteKeys(route)
    names = {
        name: getattr(keys, name)
        for name in dir(RouteKeys)
        if not name.startswith("_") and name not in ("intent", "teller")
    }
    names |= {
        "routes": ROUTES,
        "shared": f"{SHARED}{{x}}",
        "intent": keys.intent("x"),
        "teller": keys.teller("x"),
    }
    return [[word.format_map(names) for word in line.split()] for line in CALLS.strip().splitlines()]


def _rights(patient: Patient) -> Iterator[Found]:
    user = text(patient.ask("ACL WHOAMI"))
    wanted = calls(patient.name)
    pipe = patient.client.pipeline(transaction=False)
    for words in wanted:
        pipe.execute_command("ACL DRYRUN", user, *words)
    replies = pipe.execute(raise_on_error=False)
    faults = [reply for reply in replies if isinstance(reply, redis.RedisError)]
    if faults:
        yield unknown(f"user {user} cannot try its rights: {faults[0]}")
        return
    refused = [
        " ".join(words[:2]) for words, reply in zip(wanted, replies, strict=True) if text(reply) != "OK"
    ]
    if refused:
        yield _REFUSED.found(f"user {user} may not: {', '.join(refused)}")
    else:
        yield well(f"user {user} may do all {len(wanted)} that were tried")


CHECKS: Final = (
    Check(
        "redis.rights",
        "The user of EXECWORKER_REDIS_URL may do what a worker does on the route's keys (`ACL DRYRUN`).",
        _rights,
        (_REFUSED,),
        per_route=True,
        unknown_cure="Redis 7.0 tells it to a user with +acl|whoami and +acl|dryrun: add them (deploy/redis/users.acl), "
        "or run doctor with such a user.",
    ),
)
