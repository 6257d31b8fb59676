"""The audit trail: proving that nothing in it was altered or is missing."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import FAILED, JsonOption, RouteOption, show, surroundings, visible

if TYPE_CHECKING:
    from worker.audit.verify import Verified

_SEAL = re.compile(r"([0-9]{1,18}:)?[0-9a-fA-F]{64}", re.ASCII)
#: Seconds after which what is not sealed is told with a mark.
_LATE = 60.0

audit = typer.Typer(help="The trail of everything that happened to intents.", no_args_is_help=True)

_Against = Annotated[
    list[str] | None,
    typer.Option(
        "--against",
        metavar="SEAL",
        help="A copy of a seal, NUMBER:HASH, as the log line audit_sealed has it. May be repeated.",
    ),
]


@audit.callback()
def _audit() -> None: ...


@audit.command("verify")
def verify_trail(
    ctx: typer.Context, route: RouteOption = None, against: _Against = None, as_json: JsonOption = False
) -> None:
    """Prove that nothing was altered or is missing.

    Walks the whole trail, computes its chain of hashes anew, and names the first entry that was altered, removed,
    inserted or moved. Exits 1 on a fault. Every route, unless one is named; a copy of a seal needs its route.
    """
    from worker.audit.verify import verify

    for copy in against or ():
        if _SEAL.fullmatch(copy.strip()) is None:
            wanted = "a copy of a seal is NUMBER:HASH, such as 7:0f3a… with 64 hexadecimal digits, or the hash alone"
            raise typer.BadParameter(f"{copy} is none: {wanted}", param_hint="--against")
    if against and route is None:
        raise typer.BadParameter("say with --route whose seal it is", param_hint="--against")
    desk = surroundings(ctx)
    names = [desk.route(route)] if route else desk.known_routes()
    found = [verify(desk.at(name), name, against or ()) for name in names]
    for one in found:
        show(dataclasses.asdict(one), _text(one), as_json)
    if any(one.fault for one in found):
        raise typer.Exit(FAILED)


def _text(one: Verified) -> str:
    lines = [f"route {one.route}: {'FAULT: ' + one.fault.text if one.fault else 'sound'}"]
    if one.seals:
        lines.append(f"  sealed   {one.entries} entries under {one.seals} seals, {one.first} to {one.last}")
    if one.newest:
        lines.append(f"  seal     {one.newest}")
    if one.fault is None:
        since = f", from {one.unsealed_from}" if one.unsealed_from else ""
        lines.append(f"  unsealed {one.unsealed} entries{since}")
    if one.unsealed_age is not None and one.unsealed_age > _LATE:
        lines.append(
            f"  ! not sealed for {one.unsealed_age:.0f} s, and not proven: is a worker of the route alive?"
        )
    return visible("\n".join(lines))
