"""`worker doctor`: what will hurt, before it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from worker.cli.context import FAILED, UNAVAILABLE, JsonOption, RouteOption, show, surroundings, visible
from worker.cli.tools import refuse_unknown
from worker.connection import at_home
from worker.keys import RouteKeys

if TYPE_CHECKING:
    from worker.doctor import Finding


def doctor(ctx: typer.Context, route: RouteOption = None, as_json: JsonOption = False) -> None:
    """Find what will hurt before it does: Redis, rights, clocks, queue, workers, credentials, calendar.

    Changes nothing, and sends the broker nothing. Exits 1 when there is an error, 69 when Redis is away.
    """
    desk = surroundings(ctx)
    settings = desk.settings
    refuse_unknown(desk, [route] if route else [])
    from worker.doctor import Patient, Severity, examine

    routes = [route] if route else list(settings.routes)
    # Of a cluster, the node of the first route stands for the server; each route is looked at on its own.
    home = at_home(settings.redis_url, RouteKeys(routes[0]).prefix)
    client = desk.connect(home, client_name="execworker:doctor")
    findings = examine(Patient(settings, desk.environ, client, desk.connect, desk.clock), routes)
    if as_json:
        for one in findings:
            show(dataclasses.asdict(one), "", as_json)
    else:
        typer.echo(visible("\n".join(_lines(sorted(findings, key=lambda one: one.severity.rank)))))
    if any(one.id in ("redis.reachable.away", "redis.reachable.loading") for one in findings):
        raise typer.Exit(UNAVAILABLE)
    raise typer.Exit(FAILED if any(one.severity is Severity.ERROR for one in findings) else 0)


def _lines(findings: list[Finding]) -> Iterator[str]:
    """The gravest first, each with its cure; what is well, and what an absent Redis hides, in a line each."""
    hidden = [one for one in findings if one.cure == "See redis.reachable."]
    fine = [one for one in findings if one.severity == "ok"]
    for one in findings:
        if one not in hidden and one not in fine:
            yield f"{one.severity:<8} {_name(one)}"
            yield f"         {one.evidence}"
            yield f"         → {one.cure}"
    if hidden:
        yield f"unknown  {len(hidden)} checks that need Redis"
    yield f"ok       {', '.join(_name(one) for one in fine) or 'nothing'}"


def _name(one: Finding) -> str:
    return f"{one.id} ({one.route})" if one.route else one.id
