"""All checks in order, done one after the other; and the table of what they can find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import redis
from redis.exceptions import NoPermissionError

from worker.connection import is_unavailable
from worker.doctor import crew, door, ledger, machine, queue, rights, server
from worker.doctor.findings import LOOK_BY_HAND, Check, Finding, Found, Severity, missing_right, unknown, well
from worker.doctor.patient import Patient
from worker.errors import Unavailable
from worker.redact import Redactor

#: In the order of the report: the ground first.
CHECKS: Final[tuple[Check, ...]] = (
    server.REACHABLE,
    *server.CHECKS,
    *door.CHECKS,
    *rights.CHECKS,
    *machine.CHECKS,
    *ledger.CHECKS,
    *crew.CHECKS,
    *queue.CHECKS,
)

_IS_AWAY = unknown("Redis does not answer", "See redis.reachable.")


def examine(patient: Patient, routes: Sequence[str]) -> list[Finding]:
    """
    Do every check, those of a route for each of ``routes``. Changes nothing. Where nothing bad is found there is one
    finding with severity ok; where it could not be asked, one with severity unknown.
    """
    redact = Redactor(patient.settings.secrets()).text
    on = {route: patient.on(route) for route in routes}
    findings: list[Finding] = []
    try:
        for check in CHECKS:
            is_away = any(one.id.startswith(f"{server.REACHABLE.area}.") for one in findings)
            for one in on.values() if check.per_route else [patient]:
                found = [_IS_AWAY] if is_away and check.needs_redis else _looked(check, one)
                findings += [_finding(check, each, one.name or None, redact(each.evidence)) for each in found]
    finally:
        for one in on.values():
            one.close()
    return findings


def _looked(check: Check, patient: Patient) -> list[Found]:
    try:
        found = list(check.look(patient))
    except (redis.RedisError, Unavailable) as error:
        return [_refused(check, error)]
    except Exception as error:  # noqa: BLE001  a sick system may hold anything, and the other checks are still wanted
        return [unknown(f"the check itself failed: {type(error).__name__}: {error}")]
    grave = [one for one in found if one.severity is not Severity.OK]
    return grave or found or [well(check.promise)]


def _refused(check: Check, error: Exception) -> Found:
    if isinstance(error, NoPermissionError):
        # What a check says itself of rights is more to the point.
        return unknown(
            f"Redis refuses: {error}", missing_right(error) if check.unknown_cure == LOOK_BY_HAND else ""
        )
    if isinstance(error, redis.ResponseError) and is_unavailable(error):
        return unknown(f"Redis serves nobody, or takes no writes, for now: {error}")
    away = not isinstance(error, redis.RedisError) or is_unavailable(error)
    return unknown(f"Redis {'does not answer' if away else 'refuses'}: {error}")


def _finding(check: Check, found: Found, route: str | None, evidence: str) -> Finding:
    word = f".{found.word}" if found.word else ""
    cure = found.cure or (check.unknown_cure if found.severity is Severity.UNKNOWN else "")
    return Finding(
        f"{check.area}{word}", found.severity, evidence, cure.replace("ROUTE", route or "ROUTE"), route
    )


def findings_table() -> str:
    """Every finding as a markdown table, for ``docs/doctor.md``."""
    return "\n".join(["| id | severity | means | do |", "|---|---|---|---|", *_rows()]) + "\n"


def _rows() -> Iterator[str]:
    for check in CHECKS:
        yield f"| `{check.area}` | ok | {check.promise} | |"
        for one in check.ailments:
            severity = (
                f"{one.severity}; {one.otherwise} where {one.otherwise_where}"
                if one.otherwise
                else one.severity
            )
            yield f"| `{check.area}.{one.word}` | {severity} | {one.meaning} | {one.cure} |"
        yield f"| `{check.area}.unknown` | unknown | It could not be told. | {check.unknown_cure} |"
