"""Stopping every launch, and allowing them again. Imports little: an order may leave while Python still loads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.context import (
    FAILED,
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
    visible,
)
from worker.errors import BrokerError, Refused, Unavailable

if TYPE_CHECKING:
    from worker.ledger.steering import Steering
    from worker.stopping import OpenOrder, Swept

_All = Annotated[bool, typer.Option("--all", help="Every route.")]
_CancelOpen = Annotated[bool, typer.Option("--cancel-open", help="Cancel the working orders as well.")]
_CancelTimeout = Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for the cancels.")]


def halt(
    ctx: typer.Context,
    reason: ReasonOption,
    route: RouteOption = None,
    all_: _All = False,
    cancel_open: _CancelOpen = False,
    timeout: _CancelTimeout = 30.0,
    actor: ActorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop all launches now, on every worker. Cancels and look-ups still pass.

    With --cancel-open, cancel the working orders as well, and exit 1 when some still work after that. Needs the
    workers' settings, and no worker that is alive.
    """
    who, why = actor_name(actor), reason_text(reason)
    names = _each_route(
        ctx, route, all_, as_json, lambda steering: steering.halt(who, why), "halted", "was halted already"
    )
    if cancel_open and not all(_cancel_open(surroundings(ctx), names, timeout, as_json)):
        raise typer.Exit(FAILED)


def _cancel_open(desk: Surroundings, routes: list[str], timeout: float, as_json: bool) -> list[bool]:
    """Cancel what works, on all routes at once: a broker that hangs holds up no other. For each, whether nothing works."""
    from concurrent.futures import ThreadPoolExecutor

    from worker.stopping import cancel_open

    client, settings = desk.client, desk.settings

    def cancel(route: str) -> Swept | str:
        try:
            return cancel_open(settings, route, client, desk.clock, desk.connect, timeout)
        except (Refused, BrokerError) as error:
            return f"route {route}: nothing was cancelled: {error}"
        except Unavailable as error:
            return f"route {route}: not finished, say it again: {error}"

    with ThreadPoolExecutor(max(1, len(routes))) as pool:
        return [
            _tell_swept(route, swept, as_json)
            for route, swept in zip(routes, pool.map(cancel, routes), strict=True)
        ]


def _tell_swept(route: str, swept: Swept | str, as_json: bool) -> bool:
    if isinstance(swept, str):
        note(swept)
        return False
    for one in swept.orders:
        show(_open_order(route, one), _open_order_text(one), as_json)
    found, left = len(swept.orders), len(swept.left)
    document = {
        "route": route,
        "action": "cancel_open",
        "found": found,
        "left": left,
        "saw_all": swept.saw_all,
    }
    show(document, f"route {route}: {found - left} of {found} working orders cancelled", as_json)
    if not swept.saw_all:
        note(
            f"route {route}: the broker showed a part of its list only: more orders may work; "
            "say this again, and look at the broker's own screen"
        )
    return not left and swept.saw_all


def _open_order(route: str, one: OpenOrder) -> dict[str, Any]:
    order = one.order
    return {
        "route": route,
        "broker_order_id": order.broker_order_id,
        "intent_id": one.intent_id or None,
        "symbol": order.symbol,
        "side": order.side,
        "left": str(order.quantity - order.filled_quantity),
        "cancelled": not one.still_works,
        "why": one.why if one.still_works else None,
    }


def _open_order_text(one: OpenOrder) -> str:
    order = one.order
    what = (
        f"order {order.broker_order_id}  {order.side} {order.quantity - order.filled_quantity} {order.symbol}"
    )
    whose = f" ({one.intent_id})" if one.intent_id else ""
    return visible(f"  {what}{whose}: " + (f"STILL WORKS: {one.why}" if one.still_works else "cancelled"))


def resume(
    ctx: typer.Context,
    reason: ReasonOption,
    route: RouteOption = None,
    all_: _All = False,
    actor: ActorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Allow launches again after a halt."""
    who, why = actor_name(actor), reason_text(reason)
    _each_route(
        ctx, route, all_, as_json, lambda steering: steering.resume(who, why), "resumed", "was not halted"
    )


def _each_route(
    ctx: typer.Context,
    route: str | None,
    every: bool,
    as_json: bool,
    act: Callable[[Steering], bool],
    done: str,
    otherwise: str,
) -> list[str]:
    if every and route is not None:
        raise typer.BadParameter("give --route or --all, not both", param_hint="--all")
    desk = surroundings(ctx)
    names = desk.known_routes() if every else [desk.route(route)]
    for name in names:
        changed = act(desk.steering(name))
        document = {"route": name, "action": done, "changed": changed}
        show(document, f"route {name}: {done if changed else otherwise}", as_json)
    return names
