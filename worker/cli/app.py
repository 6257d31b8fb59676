"""The command `worker`: every verb in one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_group

from worker import __version__
from worker.cli.context import Verbs

#: Where each verb is, in the order of the help. Only the one that is called is loaded: a `halt` does not wait for
#: what the others need.
_VERBS = {
    "demo": "worker.cli.tools:demo",
    "run": "worker.cli.tools:run",
    "submit": "worker.cli.submit:submit",
    "watch": "worker.cli.watch:watch",
    "status": "worker.cli.operate:status",
    "intent": "worker.cli.operate:intent",
    "report": "worker.cli.report:report",
    "halt": "worker.cli.halting:halt",
    "resume": "worker.cli.halting:resume",
    "deadman": "worker.cli.deadman:deadman",
    "doctor": "worker.cli.doctor:doctor",
    "guard": "worker.cli.operate:guard",
    "rollout": "worker.cli.operate:rollout",
    "doubt": "worker.cli.doubts:doubt",
    "dead": "worker.cli.dead:dead",
    "audit": "worker.cli.audit:audit",
    "simulate": "worker.cli.simulate:simulate",
    "contracts": "worker.cli.tools:contracts",
}

#: Plain help and errors: they read the same in a terminal, a log and a pipe, and cost no import of rich.
_PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}


class _Loaded(Mapping[str, Any]):
    """The verbs, each loaded when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        return _load(name, _VERBS[name])

    def __iter__(self) -> Iterator[str]:
        return iter(_VERBS)

    def __len__(self) -> int:
        return len(_VERBS)


@cache
def _load(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    found = getattr(import_module(module), attribute)
    alone = typer.Typer(**_PLAIN)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name)(found)
    return get_group(alone).commands[name]


class _LazyVerbs(Verbs):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{**attributes, "commands": _Loaded()})


app = typer.Typer(
    cls=_LazyVerbs,
    help="Takes trading intents from a queue, places each order once, and says truthfully what happened.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    **_PLAIN,
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
