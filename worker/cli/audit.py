"""The audit trail: proving that nothing in it was altered or is missing."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import FAILED, JsonOption, RouteOption, show, surroundings, visible

if TYPE_CHECKING:
    from worker.audit.verify import Verified

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
    from worker.audit.verify import is_copy, verify

    for copy in against or ():
        if not is_copy(copy):
            raise typer.BadParameter(
                f"{copy} is no copy of a seal: give NUMBER:HASH, the hash in 64 hexadecimal digits, as in 12:{'0a' * 32}",
                param_hint="--against",
            )
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
    lines += [f"  WARNING  {words}" for words in one.warnings]
    return visible("\n".join(lines))
