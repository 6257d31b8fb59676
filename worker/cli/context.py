"""What every verb shares: what it reads from outside, how it fails, and how it speaks."""

from __future__ import annotations

import dataclasses
import difflib
import getpass
import json
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Protocol

import redis
import typer
from redis.exceptions import NoPermissionError
from typer.core import TyperGroup

from contracts import ContractError
from worker.clock import Clock, SystemClock
from worker.connection import Connect, at_home, cannot_save, connect, is_unavailable
from worker.errors import ConfigError, NotSent, Refused, StateLost, Unavailable
from worker.keys import RouteKeys

if TYPE_CHECKING:
    from worker.ledger.control import Control
    from worker.ledger.steering import Steering
    from worker.settings import Settings

FAILED = 1
USAGE = 2
UNAVAILABLE = 69
TIMED_OUT = 75
BAD_CONFIG = 78
INTERRUPTED = 130

JsonOption = Annotated[bool, typer.Option("--json", help="Data as JSON lines on standard output.")]
RouteOption = Annotated[str | None, typer.Option("--route", help="The route; the only one when left out.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why. It is kept in the audit trail.")]
ActorOption = Annotated[str | None, typer.Option("--actor", help="Who does it.", show_default="user@host")]


@dataclass
class Surroundings:
    """What the verbs read from outside; a test hands over its own."""

    environ: Mapping[str, str] | None = None
    connect: Connect = connect
    clock: Clock = field(default_factory=SystemClock)

    @cached_property
    def settings(self) -> Settings:
        from worker.settings import load_settings

        return load_settings(self.environ)

    @cached_property
    def client(self) -> redis.Redis:
        return self.connect(str(self.settings.redis_url), client_name="execworker:cli")

    def at(self, route: str) -> redis.Redis:
        """A client of a route's keys: of a cluster, the node where they are."""
        url = str(self.settings.redis_url)
        home = at_home(url, RouteKeys(route).prefix)
        return self.client if home == url else self.connect(home, client_name="execworker:cli")

    def known_routes(self) -> list[str]:
        """The routes of the settings, and those that a worker has registered."""
        from worker.ledger.steering import routes

        return sorted({*self.settings.routes, *routes(self.client)})

    def route(self, wanted: str | None) -> str:
        """
        The route that a verb is about.

        Raises:
            Refused: nobody has heard of it, so what is sent there would lie unread.
        """
        if wanted is None:
            return self._only_route()
        try:
            RouteKeys(wanted)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--route") from None
        if wanted not in self.settings.routes and wanted not in (known := self.known_routes()):
            raise Refused(
                f"route {wanted!r} is in no setting and no worker has registered it{nearest(wanted, known)} "
                f"Known are: {', '.join(known)}."
            )
        return wanted

    def _only_route(self) -> str:
        known = list(self.settings.routes)
        if len(known) == 1:
            return known[0]
        raise typer.BadParameter(f"say which of {', '.join(sorted(known))}", param_hint="--route")

    def steering(self, route: str) -> Steering:
        from worker.durability import Confirmation
        from worker.ledger.steering import Steering

        return Steering(self.at(route), route, Confirmation.of(self.settings))

    def control(self, route: str) -> Control:
        from worker.durability import Confirmation
        from worker.ledger.control import Control

        return Control(self.at(route), route, Confirmation.of(self.settings))


def surroundings(ctx: typer.Context) -> Surroundings:
    """The surroundings of this call."""
    found = ctx.find_object(Surroundings)
    if found is None:
        found = ctx.find_root().obj = Surroundings()
    return found


def actor_name(given: str | None) -> str:
    """Who is at the keyboard, unless somebody says who."""
    if given is not None:
        if not given.strip():
            raise typer.BadParameter("must not be empty", param_hint="--actor")
        return given.strip()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def reason_text(given: str) -> str:
    """A reason that says something."""
    if not given.strip():
        raise typer.BadParameter("must say why", param_hint="--reason")
    return given.strip()


def nearest(word: str, known: Iterable[str]) -> str:
    """`. Did you mean …?` or just the full stop."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f". Did you mean {close[0]!r}?" if close else "."


# --- Failing ----------------------------------------------------------------------------------------------


class Verbs(TyperGroup):
    """The one place that turns an error into a text for people and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            fail(BAD_CONFIG, *(f"settings: {fault}" for fault in error.faults))
        except (Refused, ContractError) as error:
            fail(FAILED, str(error))
        except (Unavailable, StateLost, NotSent, redis.RedisError) as error:
            fail(UNAVAILABLE, _what_is_away(error, surroundings(ctx)))
        except BrokenPipeError:
            raise  # who read our output has left; typer ends quietly
        except TimeoutError as error:
            fail(TIMED_OUT, str(error))
        except KeyboardInterrupt:
            fail(INTERRUPTED, "interrupted")


def fail(code: int, *lines: str) -> NoReturn:
    """Say why on standard error, and end with this exit code."""
    for line in lines:
        note(f"worker: {line}")
    raise typer.Exit(code)


def _what_is_away(error: Exception, desk: Surroundings) -> str:
    cause = error if isinstance(error, redis.RedisError) else error.__cause__
    if not isinstance(cause, redis.RedisError):
        return str(error)
    why = str(cause).rstrip(".")
    where = f"Redis at {desk.settings.redis_url.shown}"
    if "CERTIFICATE_VERIFY_FAILED" in why:
        cure = "Correct ssl_ca_certs or the host in EXECWORKER_REDIS_URL, or the server's certificate."
        return f"{where} cannot show that it is the server that is meant: {why}. {cure}"
    if isinstance(cause, redis.AuthenticationError):
        return f"{where} does not let us in: {why}. Correct the password in EXECWORKER_REDIS_URL."
    if isinstance(cause, redis.BusyLoadingError):
        return f"{where} has started and still reads its data: {why}. Wait, then try again."
    if isinstance(cause, NoPermissionError):
        return f"{where} does not allow it: {why}. Give its user that right: deploy/redis/users.acl, then ACL LOAD."
    if cannot_save(cause):
        said = why.partition(". ")[0]
        cure = "Free or repair its disk, and look at who may write there; `worker doctor` tells more."
        return f"{where} refuses writes because it cannot save to its disk: {said}. {cure}"
    if isinstance(cause, redis.ResponseError):
        verb = "takes no writes for now" if is_unavailable(cause) else "refused a command"
        return f"{where} {verb}: {why}. Look into its log."
    return f"{where} does not answer: {why}. Start it, or set EXECWORKER_REDIS_URL."


# --- Speaking ---------------------------------------------------------------------------------------------


def note(text: str) -> None:
    """A line for people, on standard error."""
    typer.echo(visible(text), err=True)


def show(document: object, text: str, as_json: bool) -> None:
    """The data, on standard output: the document as one JSON line, or the text."""
    typer.echo(to_json(document) if as_json else text)


def to_json(document: object) -> str:
    """One line of JSON."""
    line = json.dumps(document, ensure_ascii=False, separators=(",", ":"), default=_jsonable)
    try:
        line.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair out of somebody else's message, which no terminal takes.
        return json.dumps(document, separators=(",", ":"), default=_jsonable)
    return line


def _jsonable(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if isoformat else str(value)


def visible(text: str) -> str:
    """The text with everything escaped that could steer a terminal; brokers and strangers write parts of it."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns for people."""
    cells = [list(headings), *([visible("-" if c is None else str(c)) for c in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


class Advance(Protocol):
    def __call__(self, steps: int = 1) -> None: ...


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """A bar on standard error, where somebody watches it."""
    if not sys.stderr.isatty() or total < 2:
        yield lambda steps=1: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda steps=1: bar.advance(task, steps)
