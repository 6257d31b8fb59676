"""`worker report DAY`: the ledger beside the broker's own list."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime, time, timedelta
from threading import Event
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from contracts import load_intent
from worker.cli.broker import broker_at_hand
from worker.cli.context import (
    FAILED,
    JsonOption,
    RouteOption,
    Surroundings,
    show,
    surroundings,
    table,
    visible,
)
from worker.errors import BrokerError, Refused, Unavailable

if TYPE_CHECKING:
    from worker.audit.report import Line, Report
    from worker.brokers import BaseBrokerAdapter
    from worker.ledger import Ledger

_NEVER = Event()
_Day = Annotated[str, typer.Argument(metavar="DAY", help="As 2026-11-23, or today, or yesterday.")]
_Zone = Annotated[str, typer.Option("--zone", help="Whose day it is.")]


def report(
    ctx: typer.Context,
    day: _Day,
    route: RouteOption = None,
    zone: _Zone = "Asia/Seoul",
    as_json: JsonOption = False,
) -> None:
    """Compare the ledger with the broker's own list for a day, order by order.

    Exits 1 when they differ in anything or an order is still in doubt, and 69 when the broker does not answer. Needs
    the workers' settings; takes its turns within the broker's call limit.
    """
    desk = surroundings(ctx)
    name = desk.route(route)
    found = _compared(desk, name, *_bounds(desk, name, day, _zone(zone)))
    for line in found.lines if as_json else ():
        show({"route": name, **dataclasses.asdict(line)}, "", True)
    totals = {
        "route": name,
        "start": found.start,
        "end": found.end,
        **found.totals,
        "clean": found.is_clean,
    }
    show(totals, _text(found), as_json)
    if not found.is_clean:
        raise typer.Exit(FAILED)


def _text(found: Report) -> str:
    head = f"route {found.route}, {found.start:%Y-%m-%d %H:%M %Z} to {found.end:%Y-%m-%d %H:%M %Z}"
    rows = [
        (line.finding, line.broker_order_id, line.intent_id, line.symbol, "; ".join(line.differences))
        for line in found.lines
    ]
    lines = [head]
    if rows:
        lines.append(table(("FINDING", "ORDER", "INTENT", "SYMBOL", "WHAT DIFFERS"), rows))
    counted = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in found.totals.items() if count)
    return visible(
        "\n".join([*lines, f"{counted or 'no orders'}: {'clean' if found.is_clean else 'NOT CLEAN'}"])
    )


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise typer.BadParameter(f"{name} is no time zone", param_hint="--zone") from None


def _bounds(desk: Surroundings, route: str, day: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    now = desk.clock.now().astimezone(zone)
    words = {"today": now.date(), "yesterday": now.date() - timedelta(days=1)}
    try:
        wanted = words.get(day) or date.fromisoformat(day)
    except ValueError:
        raise typer.BadParameter(
            f"{day} is no day; write it as 2026-11-23, today or yesterday", param_hint="DAY"
        ) from None
    start = datetime.combine(wanted, time(), zone)
    if start > now:
        raise typer.BadParameter(f"{wanted} has not begun in {zone}", param_hint="DAY")
    settings = desk.settings.routes.get(route)
    if settings and now - start > timedelta(seconds=settings.retention):
        days = settings.retention / 86400
        raise Refused(
            f"the ledger of route {route} remembers {days:g} days (retention), and {wanted} is older"
        )
    return start, datetime.combine(wanted + timedelta(days=1), time(), zone)


def _compared(desk: Surroundings, route: str, start: datetime, end: datetime) -> Report:
    from worker.audit.report import Finding, Report

    with broker_at_hand(desk, route, "report") as (adapter, ledger):
        lines = _lines(desk, ledger, adapter, start, end)
        if end > desk.clock.now() and any(line.finding is not Finding.MATCHING for line in lines):
            # The day goes on: what has just happened may be on one side only.
            desk.clock.wait(_NEVER, max(1.0, adapter.visibility_lag))
            lines = _lines(desk, ledger, adapter, start, end)
        return Report(route, start, end, lines)


def _lines(
    desk: Surroundings, ledger: Ledger, adapter: BaseBrokerAdapter, start: datetime, end: datetime
) -> tuple[Line, ...]:
    from worker.audit.report import MARGIN, compare, read_ours

    try:
        # Before the ledger: each order of ours was noted there before it left.
        scan = adapter.list_orders(start - MARGIN)
    except BrokerError as error:
        raise Unavailable(f"the broker gave no list: {error}") from error
    if not scan.complete:
        raise Unavailable(
            "the broker gave a part of its list only, so nothing can be said of what is missing"
        )
    ours, odd = read_ours(desk.at(ledger.keys.route), ledger.keys, start - MARGIN, end + MARGIN)
    open_intents = [load_intent(body) for body in ledger.under_way()]
    compared = compare(ours, open_intents, scan.orders, start, end, follows=adapter.orders_change)
    return (*odd, *compared)
