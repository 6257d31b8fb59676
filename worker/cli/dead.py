"""`worker dead`: entries of the queue that no answer could be given to."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from contracts import ContractError, ExecutionIntent, IntentType, load_intent
from contracts.wire import readable_intent_id
from worker.audit.records import moment
from worker.cli.context import (
    ActorOption,
    JsonOption,
    ReasonOption,
    RouteOption,
    Surroundings,
    actor_name,
    note,
    reason_text,
    show,
    surroundings,
    table,
    to_json,
    visible,
)
from worker.errors import Refused
from worker.keys import RouteKeys
from worker.producer import IntentProducer

dead = typer.Typer(help="Entries of the queue that no answer could be given to.", no_args_is_help=True)

_ENTRY_ID = re.compile(r"[0-9]+-[0-9]+", re.ASCII)
_Position = Annotated[str, typer.Argument(metavar="POS", help="As `dead list` shows it.")]
_Positions = Annotated[list[str], typer.Argument(metavar="POS…", help="As `dead list` shows them.")]
_Limit = Annotated[int, typer.Option("--count", min=1, help="At most so many.")]


@dataclass(frozen=True)
class _Letter:
    position: str
    body: bytes
    reason: str
    error: str
    entry_id: str

    @property
    def intent_id(self) -> str | None:
        return readable_intent_id(self.body)

    @property
    def at(self) -> datetime:
        return moment(int(self.position.split("-")[0]))

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "position": self.position,
            "at": self.at.isoformat(),
            "reason": self.reason,
            "error": self.error,
            "entry_id": self.entry_id,
            "intent_id": self.intent_id,
        }
        try:
            return found | {"body": self.body.decode()}
        except UnicodeDecodeError:
            return found | {"body_base64": base64.b64encode(self.body).decode()}


@dead.command("list")
def list_(
    ctx: typer.Context, count: _Limit = 100, route: RouteOption = None, as_json: JsonOption = False
) -> None:
    """The dead letters of a route, oldest first."""
    desk = surroundings(ctx)
    name = desk.route(route)
    key = RouteKeys(name).dead
    client = desk.at(name)
    letters = [_letter(*row) for row in client.xrange(key, count=count) or ()]
    for letter in letters if as_json else ():
        show(letter.document(), "", True)
    if not as_json:
        rows = [
            (one.position, f"{one.at:%Y-%m-%d %H:%M:%S}", one.reason, one.intent_id, one.error)
            for one in letters
        ]
        typer.echo(
            table(("POS", "AT (UTC)", "REASON", "INTENT", "ERROR"), rows) if rows else "no dead letters"
        )
    if (left := client.xlen(key) - len(letters)) > 0:
        note(f"{left} more; see them with --count")


@dead.command("show")
def show_letter(
    ctx: typer.Context, position: _Position, route: RouteOption = None, as_json: JsonOption = False
) -> None:
    """One dead letter, with its raw bytes."""
    letter = _find(surroundings(ctx), surroundings(ctx).route(route), position)
    text = "\n".join(
        (
            f"{letter.position}  {letter.at:%Y-%m-%d %H:%M:%S} UTC  {letter.reason}",
            f"entry   {letter.entry_id}",
            f"intent  {letter.intent_id or '-'}",
            f"error   {letter.error}",
            letter.body.decode("utf-8", "backslashreplace"),
        )
    )
    show(letter.document(), visible(text), as_json)


@dead.command()
def replay(
    ctx: typer.Context,
    positions: _Positions,
    route: RouteOption = None,
    actor: ActorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put dead letters back into the queue, once what was wrong with them is mended."""
    desk, who = surroundings(ctx), actor_name(actor)
    name = desk.route(route)
    letters = [_find(desk, name, position) for position in positions]
    intents = [_replayable(desk, name, letter) for letter in letters]
    for letter, intent in zip(letters, intents, strict=True):
        entry_id = _put_back(desk, name, letter, intent, who)
        document = {"position": letter.position, "intent_id": intent.intent_id, "entry_id": entry_id}
        show(document, f"{letter.position}: intent {intent.intent_id} is in the queue again", as_json)


@dead.command()
def drop(
    ctx: typer.Context,
    positions: _Positions,
    reason: ReasonOption,
    route: RouteOption = None,
    actor: ActorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove dead letters for good. The audit trail keeps who did it, why, and what they held."""
    desk, who, why = surroundings(ctx), actor_name(actor), reason_text(reason)
    name = desk.route(route)
    keys = RouteKeys(name)
    for letter in [_find(desk, name, position) for position in positions]:
        with desk.at(keys.route).pipeline() as pipe:
            detail = to_json({"why": why, **letter.document()})
            _audit(pipe, keys, "dead_dropped", letter.intent_id, who, detail)
            pipe.xdel(keys.dead, letter.position)
            pipe.execute()
        show({"position": letter.position, "dropped": True}, f"{letter.position}: dropped", as_json)


def _find(desk: Surroundings, route: str, position: str) -> _Letter:
    if _ENTRY_ID.fullmatch(position) is None:
        raise typer.BadParameter(f"{position!r} is no position such as 1795392000000-0", param_hint="POS")
    found = desk.at(route).xrange(RouteKeys(route).dead, position, position)
    if not found:
        raise Refused(f"route {route} has no dead letter {position}; see `worker dead list`")
    return _letter(*found[0])


def _letter(position: Any, fields: Any) -> _Letter:
    words = ((name.decode("utf-8", "backslashreplace"), value) for name, value in fields.items())
    texts = {name: value.decode("utf-8", "backslashreplace") for name, value in words}
    return _Letter(
        position.decode(),
        fields.get(b"body", b""),
        texts.get("reason", ""),
        texts.get("error", ""),
        texts.get("entry_id", ""),
    )


def _replayable(desk: Surroundings, route: str, letter: _Letter) -> ExecutionIntent:
    if letter.reason == "conflict":
        raise Refused(
            f"{letter.position} is a conflict: intent {letter.intent_id} has been used for another order, and one "
            "id has one answer. If this order is still wanted, send it under an id of its own"
        )
    if letter.reason == "oversize":
        raise Refused(
            f"{letter.position} was too large, and only its first bytes were kept; send it again, smaller"
        )
    try:
        intent = load_intent(letter.body)
    except ContractError as error:
        raise Refused(f"{letter.position} is still no intent: {error}") from None
    known = IntentProducer(desk.at(route), route).recall([intent.intent_id]).get(intent.intent_id)
    if known is not None and known.response is not None:
        raise Refused(
            f"intent {intent.intent_id} was answered {known.response.outcome} already, and one id has one answer. "
            "If this order is still wanted, send it under an id of its own"
        )
    return intent


def _put_back(desk: Surroundings, route: str, letter: _Letter, intent: ExecutionIntent, who: str) -> str:
    keys = RouteKeys(route)
    stream = keys.cancels if intent.intent_type is IntentType.CANCEL else keys.intents
    # Together: the letter is in the queue or among the dead. Should both happen after all, it is a replay.
    with desk.at(keys.route).pipeline() as pipe:
        pipe.xadd(stream, {"body": letter.body})
        pipe.xdel(keys.dead, letter.position)
        _audit(pipe, keys, "dead_replayed", intent.intent_id, who, letter.position)
        return str(pipe.execute()[0].decode())


def _audit(pipe: Any, keys: RouteKeys, event: str, intent_id: str | None, who: str, detail: str) -> None:
    # As the ledger's scripts write it: who, and a list of (event, intent_id, detail).
    pipe.xadd(keys.audit, {"worker": who, "records": to_json([[event, intent_id or "", detail]])})
