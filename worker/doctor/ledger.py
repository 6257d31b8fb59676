"""A route's ledger: whether it trades, and what nobody looks after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from contracts import GuardState
from worker.doctor.findings import Ailment, Check, Found, Severity, unknown, well
from worker.doctor.patient import Patient, text
from worker.keys import ROUTES
from worker.ledger.registry import account_mark

_ACCOUNT = Ailment(
    "account",
    Severity.ERROR,
    "Another route trades on the same account. A worker of this route does not start.",
    "Use the other route, or remove it when it is gone for good: redis-cli HDEL exec:routes ITS-NAME.",
)
_DIFFERS = Ailment(
    "differs",
    Severity.WARNING,
    "Workers have registered the route with another broker or mode than these settings have.",
    "Give all machines the same settings, then restart the workers.",
)
_NEW = Ailment(
    "new",
    Severity.INFO,
    "No worker has ever served the route on this Redis.",
    "Start one: worker run --route ROUTE.",
)


def _registry(patient: Patient) -> Iterator[Found]:
    mine, route = patient.registry.get(patient.name), patient.route
    mark = account_mark(route.broker, route.account)
    for name, other in patient.registry.items():
        if mark and other and name != patient.name and other.mark == mark:
            yield _ACCOUNT.found(f"route {name} is registered with this account")
    if mine is None and patient.name in patient.registry:
        yield unknown("its row in the registry cannot be read", "See registry.strays.unreadable.")
    elif mine is None:
        yield _NEW.found("it is not in the registry")
    elif (mine.broker, mine.mode) != (route.broker, route.mode) or (mark and mine.mark != mark):
        yield _DIFFERS.found(
            f"registered: broker {mine.broker}, mode {mine.mode}; settings: broker {route.broker}, mode {route.mode}"
            + (", and another account" if mark and mine.mark != mark else "")
        )
    else:
        yield well(f"broker {mine.broker}, mode {mine.mode}")


_STRAY = Ailment(
    "stray",
    Severity.INFO,
    "A route is registered that these settings do not have. Its account can be used by no other route.",
    "If it is gone for good: redis-cli HDEL exec:routes ITS-NAME.",
)


_UNREADABLE = Ailment(
    "unreadable",
    Severity.WARNING,
    "A row of the registry is none that a worker has written: nobody knows that its route's account is taken.",
    "Remove it: redis-cli HDEL exec:routes ITS-NAME. A worker of the route enters it anew when it starts.",
)


def _strays(patient: Patient) -> Iterator[Found]:
    known = sorted(patient.registry)
    if broken := [name for name in known if patient.registry[name] is None]:
        rows = patient.everywhere.hmget(ROUTES, broken)
        # Strangers may have written anything, at any length.
        yield _UNREADABLE.found(
            "; ".join(f"{name}: {text(row)[:80]}" for name, row in zip(broken, rows, strict=True))
        )
    if strays := [name for name in known if name not in patient.settings.routes and name not in broken]:
        yield _STRAY.found(", ".join(strays))
    yield well(f"registered: {', '.join(known) or 'none'}")


_TRIPPED = Ailment(
    "tripped",
    Severity.ERROR,
    "The guard has tripped: every intent is denied.",
    "Find the cause at the broker, then `worker guard reset --route ROUTE --reason …` (from LOCKDOWN with --approve).",
)
_WARNS = Ailment(
    "failures",
    Severity.WARNING,
    "The last orders failed; a few more trip the guard.",
    "Look at the last answers: `worker watch responses --from 0`.",
)


def _guard(patient: Patient) -> Iterable[Found]:
    status = patient.status
    evidence = f"{status.guard_state}, {status.consecutive_failures} of {status.threshold} failures in a row"
    if status.guard_state in (GuardState.FAIL, GuardState.LOCKDOWN):
        return [_TRIPPED.found(evidence)]
    return [_WARNS.found(evidence) if status.guard_state is GuardState.WARNING else well(evidence)]


_HALTED = Ailment(
    "halted",
    Severity.WARNING,
    "Somebody has halted the route: every intent is denied.",
    "Read the reason; then `worker resume --route ROUTE --reason …`.",
)
_FILE = Ailment(
    "file",
    Severity.WARNING,
    "The halt file is there: the workers of this machine launch nothing.",
    "Remove the file to go on; `worker resume` does not.",
)


def _halt(patient: Patient) -> Iterable[Found]:
    status = patient.status
    if status.halted:
        return [_HALTED.found(f"by {status.halt_actor}: {status.halt_reason}")]
    return [well("not halted")]


def _halt_file(patient: Patient) -> Iterable[Found]:
    file = patient.settings.halt_file
    if file is None:
        return [well("none is set")]
    return [_FILE.found(str(file)) if file.exists() else well(f"{file} is not there")]


_LEASES = Ailment(
    "stuck",
    Severity.WARNING,
    "Intents whose time to be looked at is long over: no worker sweeps.",
    "Start a worker: worker run --route ROUTE. What was in flight becomes a doubt and is resolved.",
)


def _leases(patient: Patient) -> Iterable[Found]:
    due = patient.now_ms - round(max(30.0, 3 * patient.route.lease) * 1000)
    count = int(patient.client.zcount(patient.keys.open, "-inf", due))
    total = int(patient.client.zcard(patient.keys.open))
    if not count:
        return [well(f"{total} open, none overdue")]
    (name, score) = patient.client.zrange(patient.keys.open, 0, 0, withscores=True)[0]
    seconds = (patient.now_ms - score) / 1000
    return [_LEASES.found(f"{count} of {total}; {text(name)} for {seconds:.0f} s")]


_OLD = Ailment(
    "old",
    Severity.ERROR,
    "A doubt is open for longer than `doubt_escalate_after`: an order may be at the broker that nobody counts.",
    "Look at the broker's own list; then `worker doubt resolve ID`, by hand if need be.",
)
_OPEN = Ailment(
    "open",
    Severity.WARNING,
    "An order is in doubt, and workers ask the broker.",
    "Wait; `worker doubt list --route ROUTE` shows it.",
)


def _doubts(patient: Patient) -> Iterable[Found]:
    doubts = patient.control.doubts()
    if not doubts:
        return [well("none")]
    oldest = max(one.age for one in doubts)
    ids = ", ".join(one.intent_id for one in doubts[:5]) + (", …" if len(doubts) > 5 else "")
    ailment = _OLD if oldest > patient.route.doubt_escalate_after else _OPEN
    return [ailment.found(f"{len(doubts)}, the oldest for {oldest:.0f} s: {ids}")]


_CROWDED = Ailment(
    "crowded",
    Severity.WARNING,
    "Above 80 % of `max_parked` intents wait for their lanes; at that number workers take no more.",
    "Find what holds the lanes: `worker doubt list --route ROUTE`; slow down the strategy.",
)
_WAITING = Ailment(
    "waiting",
    Severity.INFO,
    "Intents wait for an earlier one of their symbol.",
    "Nothing, as long as it is short: they are answered EXPIRED after `max_age`.",
)


def _lanes(patient: Patient) -> Iterable[Found]:
    parked = patient.status.parked
    registered = int(patient.client.zcard(patient.keys.lanes))
    evidence = f"{registered} registered, {parked} of them parked"
    if registered > 0.8 * patient.route.max_parked:
        return [_CROWDED.found(f"{evidence}; the limit is {patient.route.max_parked}")]
    return [_WAITING.found(evidence) if parked else well(evidence)]


CHECKS: Final = (
    Check(
        "halt.here", "The halt file of this machine is not there.", _halt_file, (_FILE,), needs_redis=False
    ),
    Check("registry.strays", "Only routes of these settings are registered.", _strays, (_STRAY, _UNREADABLE)),
    Check(
        "route.registry",
        "The route is registered as it is set, and its account with no other.",
        _registry,
        (_ACCOUNT, _DIFFERS, _NEW),
        per_route=True,
    ),
    Check("route.guard", "The guard lets orders through.", _guard, (_TRIPPED, _WARNS), per_route=True),
    Check("route.halt", "Nobody has halted the route.", _halt, (_HALTED,), per_route=True),
    Check("route.leases", "Every open intent is looked at in time.", _leases, (_LEASES,), per_route=True),
    Check("route.doubts", "No order is in doubt.", _doubts, (_OLD, _OPEN), per_route=True),
    Check(
        "route.lanes",
        "Few intents wait for an earlier one of their symbol.",
        _lanes,
        (_CROWDED, _WAITING),
        per_route=True,
    ),
)
