"""`worker watch`: follow what a route publishes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import islice
from json import loads
from threading import Event
from typing import Annotated, Any

import redis
import typer

from contracts import ContractError, load_event, load_order_event, load_response
from worker.cli.context import (
    JsonOption,
    RouteOption,
    Surroundings,
    note,
    show,
    surroundings,
    visible,
)
from worker.cli.submit import response_line
from worker.connection import is_unavailable
from worker.keys import RouteKeys
from worker.producer import BLOCK_MAX, StreamEntry, read_after, tail

_POSITION = re.compile(r"\$|[0-9]+(-[0-9]+)?", re.ASCII)
_NEVER = Event()


class What(StrEnum):
    RESPONSES = "responses"
    FAILSAFE = "failsafe"
    ORDERS = "orders"
    ALL = "all"


_What = Annotated[What, typer.Argument(help="Which stream.")]
_From = Annotated[
    str, typer.Option("--from", metavar="POS", help="After this entry; 0 is the oldest kept, $ is now.")
]
_CountOption = Annotated[int | None, typer.Option("--count", min=1, help="End after so many.")]


def watch(
    ctx: typer.Context,
    what: _What = What.ALL,
    position: _From = "$",
    count: _CountOption = None,
    route: RouteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow answers, failsafe events and the life of orders. Goes on when Redis comes back."""
    if _POSITION.fullmatch(position) is None:
        raise typer.BadParameter(
            "must be $, 0 or the id of an entry such as 1795392000000-0", param_hint="--from"
        )
    desk = surroundings(ctx)
    name = desk.route(route)
    streams = [one for one in What if one is not What.ALL and what in (one, What.ALL)]
    keys = {str(getattr(RouteKeys(name), one)): one for one in streams}
    client = desk.at(name)
    start = {key: tail(client, key) if position == "$" else position for key in keys}
    for key, (entry_id, fields) in islice(_follow(desk, client, start), count):
        document = {"stream": keys[key], "route": name, "position": entry_id, "message": _message(fields)}
        show(document, _line(keys[key], fields), as_json)


def _follow(
    desk: Surroundings, client: redis.Redis, positions: dict[str, str]
) -> Iterator[tuple[str, StreamEntry]]:
    pause = 0.0
    while True:
        try:
            found = read_after(client, positions, BLOCK_MAX)
        except redis.RedisError as error:
            if not is_unavailable(error):
                raise
            if not pause:
                note(f"Redis does not answer ({error}); going on when it does")
            pause = min(BLOCK_MAX, pause * 2 or 0.05)
            desk.clock.wait(_NEVER, pause)
            continue
        if pause:
            note("Redis answers again")
            pause = 0.0
        for key, (entry_id, fields) in sorted(found, key=_age):
            positions[key] = entry_id
            yield key, (entry_id, fields)


def _age(found: tuple[str, StreamEntry]) -> tuple[int, ...]:
    return tuple(int(part) for part in found[1][0].split("-"))


def _message(fields: dict[bytes, bytes]) -> Any:
    body = fields.get(b"body", b"")
    try:
        return loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "backslashreplace")


def _line(stream: What, fields: dict[bytes, bytes]) -> str:
    try:
        return _LINES[stream](fields.get(b"body", b""))
    except ContractError as error:
        return visible(f"cannot be read: {error}")


def _response(body: bytes) -> str:
    response = load_response(body)
    return f"{response.timestamp:%H:%M:%S}  {response_line(response)}"


def _event(body: bytes) -> str:
    event = load_event(body)
    about = " ".join(
        str(part) for part in (event.intent_id, event.side, event.quantity, event.symbol) if part is not None
    )
    who = f" by {event.actor}" if event.actor else ""
    why = f" ({event.reason})" if event.reason else ""
    which = f" {about}" if about else ""
    return visible(f"{event.timestamp:%H:%M:%S}  {event.type:<16}{which}{who}{why}: {event.message}")


def _order(body: bytes) -> str:
    event = load_order_event(body)
    price = f" at {event.average_price}" if event.average_price is not None else ""
    return visible(
        f"{event.timestamp:%H:%M:%S}  {event.status:<16} {event.intent_id}  order {event.broker_order_id}: "
        f"{event.filled_quantity} {event.symbol} filled{price}"
    )


_LINES: dict[What, Callable[[bytes], str]] = {
    What.RESPONSES: _response,
    What.FAILSAFE: _event,
    What.ORDERS: _order,
}
