"""The command `worker`: every verb in one place."""

from __future__ import annotations

from typing import Annotated

import typer

from worker import __version__
from worker.cli import operate, tools
from worker.cli.audit import audit
from worker.cli.context import Verbs
from worker.cli.dead import dead
from worker.cli.deadman import deadman
from worker.cli.doctor import doctor
from worker.cli.report import report
from worker.cli.simulate import simulate
from worker.cli.submit import submit
from worker.cli.watch import watch

app = typer.Typer(
    cls=Verbs,
    help="Takes trading intents from a queue, places each order once, and says truthfully what happened.",
    no_args_is_help=True,
    # Plain help and errors: they read the same in a terminal, a log and a pipe, and cost no import of rich.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"worker {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


app.command()(tools.demo)
app.command()(tools.run)
app.command()(submit)
app.command()(watch)
app.command()(operate.status)
app.command()(operate.intent)
app.command()(report)
app.command()(operate.halt)
app.command()(operate.resume)
app.command()(deadman)
app.command()(doctor)
app.add_typer(operate.guard, name="guard")
app.add_typer(operate.rollout, name="rollout")
app.add_typer(operate.doubt, name="doubt")
app.add_typer(dead, name="dead")
app.add_typer(audit, name="audit")
app.add_typer(simulate, name="simulate")
app.add_typer(tools.contracts, name="contracts")
