"""The page of commands, made from the command line itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from worker.cli.app import app

HEAD = """# Commands

Made from the command line itself; `worker COMMAND --help` says the same. Exit codes: 0 done, 1 refused, failed or with
findings, 2 usage, 69 Redis or broker unavailable, 75 timed out waiting, 78 bad configuration, 130 and 143 when cut
short. With `--json`, data is on standard output and everything else on standard error.
"""


def page() -> str:
    """The whole page."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    return HEAD + "".join(_section(names, command) for names, command in _commands(("worker",), root))


def _commands(names: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(command, TyperGroup):
        for name, found in command.commands.items():
            yield from _commands((*names, name), found)
    else:
        yield names, command


def _section(names: tuple[str, ...], command: Any) -> str:
    arguments = [one for one in command.params if isinstance(one, TyperArgument)]
    options = [one for one in command.params if isinstance(one, TyperOption) and not one.hidden]
    words = " ".join(_argument(one) for one in arguments)
    usage = " ".join(filter(None, (*names, words, "[OPTIONS]" if options else "")))
    text = f"\n## {' '.join(names)}\n\n`{usage}`\n\n{_help(command)}\n"
    if options:
        text += "\n| option | means |\n|---|---|\n" + "".join(_row(one) for one in options)
    return text


def _argument(one: TyperArgument) -> str:
    name = one.metavar or (one.name or "").upper()
    return name if one.required or name.startswith("[") else f"[{name}]"


def _help(command: Any) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))


def _row(option: TyperOption) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    name = option.metavar or str(option.name).upper()
    value = "" if option.is_flag else f" {name}"
    default = option.default() if callable(option.default) else option.default
    if isinstance(option.show_default, str):
        shown = f" (default: {option.show_default})"
    elif option.is_flag or option.required or default is None:
        shown = " (required)" if option.required else ""
    else:
        shown = f" (default: {default})"
    return f"| {names}{value} | {(option.help or '').replace('|', '/')}{shown} |\n"
