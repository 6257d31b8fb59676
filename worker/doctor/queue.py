"""A route's streams: the group that reads them, who else does, and what lies there for long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import redis

from worker.doctor.findings import Ailment, Check, Found, Severity, unknown, well
from worker.doctor.patient import Patient, text
from worker.keys import GROUP

_Look = Callable[[Patient], Iterable[Found]]

#: Seconds for which a consumer that reads is never silent.
_READS: Final = 15.0
#: Entries that are asked for, of what is pending.
_LOOK: Final = 1000

_MISSING = Ailment(
    "missing",
    Severity.INFO,
    "No worker has read the route's queue yet, or somebody has removed its group.",
    "Start a worker: it makes the group, and reads from the stream's beginning.",
)
_OTHERS = Ailment(
    "others",
    Severity.WARNING,
    "Another group reads the queue. It trades nothing twice by itself, but keeps the stream from being trimmed.",
    "Remove a group that nobody needs: redis-cli XGROUP DESTROY STREAM GROUP. To watch, read `audit` instead.",
)


def _group(patient: Patient) -> Iterator[Found]:
    evidence = []
    for stream in _streams(patient):
        groups = _groups(patient, stream)
        if GROUP not in groups:
            yield _MISSING.found(f"{stream} has no group {GROUP!r}")
            continue
        if others := sorted(groups.keys() - {GROUP}):
            yield _OTHERS.found(f"{stream} is read by {', '.join(others)} as well")
            continue
        lag = groups[GROUP].get("lag")
        evidence.append(
            f"{stream}: {'?' if lag is None else lag} not taken, {groups[GROUP]['pending']} in work"
        )
    if evidence:
        yield well("; ".join(evidence))


_STRANGERS = Ailment(
    "strangers",
    Severity.ERROR,
    "Somebody who is no worker of the route takes intents out of its group. They get no answer from us.",
    "Find who it is (CLIENT LIST) and stop it; give another program a group, or a Redis database, of its own.",
)
_STUCK = Ailment(
    "stuck",
    Severity.WARNING,
    "A consumer holds entries and is silent: it hangs, or it is dead and nobody has taken them over.",
    "Workers take them over after `lease`: start one; look at the one that hangs: its /livez and its log.",
)


def _consumers(patient: Patient) -> Iterator[Found]:
    alive = {one.name for one in patient.status.workers}
    limit = 3 * patient.route.lease
    evidence = []
    for stream in _streams(patient):
        if GROUP not in _groups(patient, stream):
            continue
        consumers: Any = patient.client.xinfo_consumers(stream, GROUP)
        for one in consumers:
            name, idle = text(one["name"]), int(one["idle"]) / 1000
            if one["pending"] and idle > limit:
                yield _STUCK.found(
                    f"{name} holds {one['pending']} of {stream} and was silent for {idle:.0f} s"
                )
            elif name not in alive and idle < _READS:
                yield _STRANGERS.found(f"{name} has read {stream} {idle:.0f} s ago and is no live worker")
        evidence.append(f"{stream}: {len(consumers)} consumers")
    yield well("; ".join(evidence) or "none yet")


_OLD = Ailment(
    "old",
    Severity.WARNING,
    "Entries were handed over and not acknowledged for long, or again and again.",
    "`worker status --route ROUTE`; start a worker if none is alive. What is handed over too often goes to the dead letters.",
)


def _pending(patient: Patient) -> Iterable[Found]:
    limit = 3 * patient.route.lease
    for stream in _streams(patient):
        if GROUP not in _groups(patient, stream):
            continue
        rows: Any = patient.client.xpending_range(
            stream, GROUP, min="-", max="+", count=_LOOK, idle=round(limit * 1000)
        )
        if rows:
            oldest = max(int(row["time_since_delivered"]) for row in rows) / 1000
            times = max(int(row["times_delivered"]) for row in rows)
            more = "at least " if len(rows) == _LOOK else ""
            yield _OLD.found(
                f"{more}{len(rows)} of {stream}, the oldest for {oldest:.0f} s, handed over up to {times} times"
            )


_WAITING = Ailment(
    "waiting",
    Severity.WARNING,
    "Entries to which no answer could be given: unreadable, conflicting, oversized or poisonous.",
    "`worker dead list --route ROUTE`, then `worker dead replay` or `worker dead drop`.",
)


def _dead(patient: Patient) -> Iterable[Found]:
    count = patient.status.dead
    return [_WAITING.found(f"{count} of them") if count else well("none")]


def _streams(patient: Patient) -> tuple[str, str]:
    return patient.keys.intents, patient.keys.cancels


def _groups(patient: Patient, stream: str) -> dict[str, Mapping[str, Any]]:
    try:
        found: Any = patient.client.xinfo_groups(stream)
    except redis.ResponseError as error:
        if "no such key" in str(error).lower():
            return {}
        raise
    return {text(one["name"]): one for one in found}


def _only_here(look: _Look) -> _Look:
    def looked(patient: Patient) -> Iterable[Found]:
        if not patient.queue_is_here:
            return [unknown("the queue is not on this Redis, or is none of ours: EXECWORKER_QUEUE_URL")]
        return look(patient)

    return looked


CHECKS: Final = (
    Check(
        "queue.group",
        "The queue is read by the workers' group, and by no other.",
        _only_here(_group),
        (_MISSING, _OTHERS),
        per_route=True,
    ),
    Check(
        "queue.consumers",
        "Only live workers read it, and none of them is silent.",
        _only_here(_consumers),
        (_STRANGERS, _STUCK),
        per_route=True,
    ),
    Check(
        "queue.pending",
        "What was handed over is acknowledged soon.",
        _only_here(_pending),
        (_OLD,),
        per_route=True,
    ),
    Check("queue.dead_letters", "No entry waits for a person.", _dead, (_WAITING,), per_route=True),
)
