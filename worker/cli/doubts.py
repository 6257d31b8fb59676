"""`worker doubt`: intents that may or may not be at the broker, and how a person ends one."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from contracts import ExecutionResponse
from worker.cli.broker import OutOfReach
from worker.cli.context import (
    ActorOption,
    JsonOption,
    RouteOption,
    Surroundings,
    actor_name,
    note,
    reason_text,
    show,
    surroundings,
    table,
)
from worker.cli.submit import response_line
from worker.errors import BrokerError, ConfigError, Refused

if TYPE_CHECKING:
    from worker.brokers import BaseBrokerAdapter
    from worker.byhand import Named, Word
    from worker.ledger.control import Control, Doubt
    from worker.ledger.records import Doubt as OpenDoubt

doubt = typer.Typer(help="Intents that may or may not be at the broker.", no_args_is_help=True)

_NEVER = Event()
_IntentId = Annotated[str, typer.Argument(metavar="ID")]
_Accepted = Annotated[
    str | None, typer.Option("--accepted", metavar="ORDER_ID", help="The broker holds it, under this number.")
]
_NotPlaced = Annotated[bool, typer.Option("--not-placed", help="The broker does not hold it.")]
_Foreign = Annotated[
    list[str] | None,
    typer.Option("--foreign", metavar="ORDER_ID", help="It looks like it, and somebody else has placed it."),
]
_Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for evidence.")]


@doubt.command("list")
def doubt_list(ctx: typer.Context, route: RouteOption = None, as_json: JsonOption = False) -> None:
    """The open doubts, oldest first."""
    desk = surroundings(ctx)
    found = [
        (name, one)
        for name in ([desk.route(route)] if route else desk.known_routes())
        for one in desk.control(name).doubts()
    ]
    for name, one in found if as_json else ():
        show({"route": name, **dataclasses.asdict(one)}, "", True)
    if not as_json:
        headings = ("ROUTE", "INTENT", "ORDER", "AGE", "LOOKS", "ESCALATED", "WORKER")
        rows = [(name, *_doubt_row(one)) for name, one in found]
        typer.echo(table(headings, rows) if rows else "no doubts")


def _doubt_row(one: Doubt) -> tuple[object, ...]:
    price = f" @ {one.limit_price}" if one.limit_price else ""
    order = f"{one.side or ''} {one.quantity or ''} {one.symbol}{price}".strip()
    return one.intent_id, order, f"{one.age:.0f} s", one.looks, "yes" if one.escalated else "no", one.worker


def _ask_now(control: Control, intent_id: str, timeout: float) -> ExecutionResponse:
    """Let a worker ask the broker, and wait for what the evidence says."""
    control.look_now(intent_id)
    for _ in range(max(1, round(timeout / 0.1))):
        if (response := control.answer(intent_id)) is not None:
            return response
        _NEVER.wait(0.1)
    if not control.status().workers:
        raise Refused("no worker of the route is alive to ask the broker: start one (worker run)")
    raise Refused(
        f"the broker has given no proof yet; the worker goes on asking. Look at the broker's own list, then decide: "
        f"worker doubt resolve {intent_id} --accepted ORDER_ID | --not-placed, with --reason"
    )


@doubt.command("resolve")
def doubt_resolve(
    ctx: typer.Context,
    intent_id: _IntentId,
    accepted: _Accepted = None,
    not_placed: _NotPlaced = False,
    foreign: _Foreign = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; needed to decide by hand.")] = None,
    route: RouteOption = None,
    actor: ActorOption = None,
    timeout: _Timeout = 10.0,
    as_json: JsonOption = False,
) -> None:
    """End a doubt: by evidence, asking the broker now; or by hand, on your word.

    By hand needs --reason and one of --accepted ORDER_ID and --not-placed, after looking at the broker's own list. Where
    the broker's list shows no ids of ours, your word is held against it, with the workers' settings.
    """
    if accepted and not_placed:
        raise typer.BadParameter("give one of --accepted ORDER_ID and --not-placed")
    if foreign and not not_placed:
        raise typer.BadParameter("belongs to --not-placed", param_hint="--foreign")
    desk = surroundings(ctx)
    if not accepted and not not_placed:
        response = _ask_now(desk.control(desk.route(route)), intent_id, timeout)
        show(response.model_dump(mode="json", exclude_none=True), response_line(response), as_json)
        return
    if reason is None:
        raise typer.BadParameter("a decision by hand needs --reason")
    who, why = actor_name(actor), reason_text(reason)
    response = _decide(desk, desk.route(route), intent_id, accepted, tuple(foreign or ()), who, why)
    note(f"resolved by {who}: {why}")
    show(response.model_dump(mode="json", exclude_none=True), response_line(response), as_json)


def _decide(
    desk: Surroundings,
    route: str,
    intent_id: str,
    accepted: str | None,
    foreign: tuple[str, ...],
    who: str,
    why: str,
) -> ExecutionResponse:
    from worker.byhand import Word

    control = desk.control(route)
    named = _named(desk, route, control, control.open_doubt(intent_id), Word(accepted, foreign))
    return control.resolve_by_hand(
        intent_id,
        broker_order_id=named.broker_order_id if named else None,
        not_placed=named is None,
        actor=who,
        reason=why,
        reference=named.reference if named else "",
    )


def _named(desk: Surroundings, route: str, control: Control, one: OpenDoubt, word: Word) -> Named | None:
    """The order that the person names; ``None`` when it is said that there is none."""
    from worker.byhand import named_in_full, named_in_list, target_named
    from worker.cli.broker import broker_at_hand

    kind = _kind(control.broker())
    if word.accepted is not None and one.target:
        return target_named(one, kind, word.accepted)
    if one.target or getattr(kind, "client_order_ids", False):
        # Rows that carry ids have told what they know.
        return None if word.accepted is None else named_in_full(kind, word.accepted)
    with ExitStack() as stack:
        try:
            adapter, ledger = stack.enter_context(broker_at_hand(desk, route, "doubt"))
            return named_in_list(adapter, ledger, one, word)
        except (ConfigError, BrokerError, OutOfReach) as error:
            note(f"not held against the broker's list: {error}")
    return None if word.accepted is None else named_in_full(kind, word.accepted)


def _kind(broker: str) -> type[BaseBrokerAdapter]:
    from worker.brokers import BaseBrokerAdapter, adapter_class, broker_names

    if broker not in broker_names():
        # Somebody else's, and not installed here: the name is taken as it is said.
        return BaseBrokerAdapter
    try:
        return adapter_class(broker)
    except ConfigError as error:
        raise Refused(f"decide where the route's broker is installed: {error}") from error
