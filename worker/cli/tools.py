"""The worker itself, the demo, and the contracts for other languages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.context import FAILED, JsonOption, Surroundings, fail, nearest, note, show, surroundings
from worker.errors import ConfigError

contracts = typer.Typer(help="The messages, for other languages.", no_args_is_help=True)

RoutesOption = Annotated[list[str] | None, typer.Option("--route", help="Only this route; may be repeated.")]
_StartHalted = Annotated[bool, typer.Option("--start-halted", help="Launch nothing until a resume.")]
_Keep = Annotated[bool, typer.Option("--keep", help="Go on until interrupted.")]
_Dir = Annotated[Path, typer.Option("--dir", help="Where to write.", file_okay=False)]
_Check = Annotated[bool, typer.Option("--check", help="Write nothing; fail when a file differs.")]


def run(ctx: typer.Context, route: RoutesOption = None, start_halted: _StartHalted = False) -> None:
    """Run a worker: SIGTERM drains, a second one stops.

    Exits 0 after a clean drain, 78 when the settings cannot be used.
    """
    desk = surroundings(ctx)
    settings = desk.settings
    refuse_unknown(desk, route or [])
    from worker.deadman import watching_over
    from worker.runtime import run as run_worker

    others = [name for name in settings.routes if route and name not in route]
    with watching_over(settings, others, desk.clock, desk.connect):
        code = run_worker(settings, route or None, start_halted)
    raise typer.Exit(code)


def refuse_unknown(desk: Surroundings, wanted: list[str]) -> None:
    """
    Raises:
        ConfigError: a route is in no setting of this machine.
    """
    known = desk.settings.routes
    faults = [
        f"--route {name}: there is no such route in the settings{nearest(name, known)}"
        for name in wanted
        if name not in known
    ]
    if faults:
        raise ConfigError(faults)


def demo(keep: _Keep = False, as_json: JsonOption = False) -> None:
    """Everything on this machine: no account, no Redis."""
    from worker.demo import main

    raise typer.Exit(main(keep, as_json))


@contracts.command()
def export(directory: _Dir, check: _Check = False, as_json: JsonOption = False) -> None:
    """Write the JSON Schemas and the AsyncAPI document."""
    from contracts.schema import files

    stale = []
    for name, text in files():
        path = directory / name
        same = path.is_file() and path.read_text("utf-8") == text
        if not same:
            stale.append(name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
        state = "unchanged" if same else "differs" if check else "written"
        show({"file": str(path), "state": state}, f"{state:<9}  {path}", as_json)
    if check and stale:
        fail(FAILED, f"{len(stale)} of the files differ from the code: run `worker contracts export`")
    if not stale:
        note("nothing has changed")
