"""What an operator sees and says: status, the story of an intent, guard, rollouts."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from threading import Event
from typing import TYPE_CHECKING, Annotated

import redis
import typer

from contracts import ContractError, load_intent, load_response
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
from worker.cli.submit import response_line
from worker.connection import is_unavailable
from worker.errors import Refused, Unavailable

if TYPE_CHECKING:
    from worker.audit.story import Step, Story
    from worker.audit.waiting import Waiting
    from worker.ledger.control import RouteStatus

guard = typer.Typer(help="The guard that stops a route after failures in a row.", no_args_is_help=True)
rollout = typer.Typer(help="Workers of two builds side by side.", no_args_is_help=True)

_NEVER = Event()
_CLEAR = "\x1b[2J\x1b[H"
_Watch = Annotated[bool, typer.Option("--watch", help="Again and again, until interrupted.")]
_Interval = Annotated[float, typer.Option("--interval", min=0.01, help="Seconds between two looks.")]
_IntentId = Annotated[str, typer.Argument(metavar="ID")]
_Approve = Annotated[bool, typer.Option("--approve", help="Needed to leave LOCKDOWN.")]
_Thorough = Annotated[bool, typer.Option("--thorough", help="Read the whole trail, however long it takes.")]
_For = Annotated[float, typer.Option("--for", min=1, max=86400, help="Seconds that the window stays open.")]


# --- Status -----------------------------------------------------------------------------------------------


def status(
    ctx: typer.Context,
    route: RouteOption = None,
    watch: _Watch = False,
    interval: _Interval = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Routes, guard, halt, backlog, doubts, workers.

    With --watch it goes on while Redis is away, and says since when.
    """
    desk = surroundings(ctx)
    away_since: datetime | None = None
    while True:
        try:
            names = [desk.route(route)] if route else desk.known_routes()
            found = [desk.control(name).status() for name in names]
        except (Unavailable, redis.RedisError) as error:
            if not watch or not _comes_back(error):
                raise
            first, away_since = away_since is None, away_since or desk.clock.now()
            _show_away(error, away_since, first, as_json)
        else:
            if as_json and away_since is not None:
                note("Redis answers again")
            away_since = None
            _show_status(found, watch, as_json)
        if not watch:
            return
        desk.clock.wait(_NEVER, interval)


def _show_status(found: list[RouteStatus], watch: bool, as_json: bool) -> None:
    if watch and not as_json:
        typer.echo(_CLEAR, nl=False)
    for one in found:
        show(dataclasses.asdict(one), _status_text(one), as_json)


def _comes_back(error: Exception) -> bool:
    """Whether waiting may help: Redis is away, and does not say that we or the command are wrong."""
    cause = error if isinstance(error, redis.RedisError) else error.__cause__
    if isinstance(cause, redis.AuthenticationError):
        return False
    return not isinstance(cause, redis.RedisError) or is_unavailable(cause)


def _show_away(error: Exception, since: datetime, first: bool, as_json: bool) -> None:
    line = f"Redis away since {since:%H:%M:%S} UTC: {error.__cause__ or error}"
    if not as_json:
        # What was shown before is not known any more.
        typer.echo(f"{_CLEAR}{visible(line)}")
    elif first:
        note(line)


def _status_text(one: RouteStatus) -> str:
    lines = [
        f"route {one.route}  broker {one.broker or '-'}  mode {one.mode or 'never started'}",
        f"  guard    {one.guard_state}, {one.consecutive_failures} of {one.threshold} failures in a row",
        f"  halt     {_halt_text(one)}",
        f"  queue    {one.queue_depth} waiting{_age(', oldest', one.oldest_age)}, {one.parked} of them for "
        f"their lane; {one.in_flight} in flight",
        f"  doubt    {one.in_doubt}{_age(', oldest', one.oldest_doubt_age)}",
        f"  dead     {one.dead}",
        f"  workers  {len(one.workers)}",
    ]
    lines += [
        f"    {worker.name}  {worker.host} pid {worker.pid}  port {worker.port}  heard {worker.age:.0f} s ago"
        for worker in one.workers
    ]
    return visible("\n".join(lines + [f"  ! {alarm}" for alarm in _alarms(one)]))


def _halt_text(one: RouteStatus) -> str:
    return f"HALTED by {one.halt_actor}: {one.halt_reason}" if one.halted else "no"


def _age(label: str, seconds: float | None) -> str:
    return "" if seconds is None else f"{label} {seconds:.0f} s"


def _alarms(one: RouteStatus) -> list[str]:
    alarms = []
    if one.guard_state in ("FAIL", "LOCKDOWN"):
        approve = " --approve" if one.guard_state == "LOCKDOWN" else ""
        alarms.append(f"tripped: `worker guard reset --route {one.route} --reason …{approve}` when mended")
    if one.halted:
        alarms.append(f"halted: `worker resume --route {one.route} --reason …`")
    if one.unsure_since is not None:
        alarms.append(
            f"Redis changed at {one.unsure_since:%H:%M:%S} UTC and may have forgotten launches: nothing is sent until "
            f"the broker's list was compared; by hand: `worker resume --route {one.route} --reason …`"
        )
    if one.rollout_until is not None:
        alarms.append(f"rollout: workers of two builds may send until {one.rollout_until:%H:%M:%S} UTC")
    elif one.builds_differ:
        alarms.append(
            f"workers differ, nothing is sent: `worker rollout open --route {one.route} --reason …`"
        )
    if len({worker.mode for worker in one.workers if worker.mode}) > 1:
        modes = ", ".join(f"{worker.name}: {worker.mode or '?'}" for worker in one.workers)
        alarms.append(f"workers run in different modes ({modes}): stop those that should not run")
    if one.in_doubt:
        alarms.append(f"in doubt: `worker doubt list --route {one.route}`")
    if one.dead:
        alarms.append(f"dead letters: `worker dead list --route {one.route}`")
    if not one.workers:
        alarms.append("no worker is alive: `worker run`")
    return alarms


# --- One intent -------------------------------------------------------------------------------------------


def intent(
    ctx: typer.Context,
    intent_id: _IntentId,
    route: RouteOption = None,
    thorough: _Thorough = False,
    as_json: JsonOption = False,
) -> None:
    """The full story of one intent: each step with its time and its worker, what went over the wire, fills, cancels.

    Of one that no worker has read yet: since when it waits in the queue, and who has it in hand.
    """
    desk = surroundings(ctx)
    names = [desk.route(route)] if route else desk.known_routes()
    told = (desk.control(name).story(intent_id, thorough=thorough) for name in names)
    stories = [story for story in told if story is not None]
    if not stories:
        _show_waiting(desk, names, intent_id, as_json)
    for story in stories:
        show(dataclasses.asdict(story), _story_text(story), as_json)
        if not story.complete:
            note(f"route {story.route}: the trail is long, and not all of it was read; --thorough reads all")


def _show_waiting(desk: Surroundings, names: list[str], intent_id: str, as_json: bool) -> None:
    found = [one for name in names for one in desk.control(name).waiting(intent_id)]
    if not found:
        raise Refused(
            f"no intent {intent_id} on {', '.join(names)}. It was never enqueued, was settled longer ago than the "
            "retention, was dead-lettered (worker dead list), waits in a queue outside of this Redis, or behind more "
            "than the 100,000 newest entries"
        )
    for one in found:
        show(dataclasses.asdict(one), _waiting_text(one), as_json)


def _waiting_text(one: Waiting) -> str:
    held = "unread: no worker has taken it"
    if one.consumer is not None:
        times = "" if one.deliveries == 1 else f", {one.deliveries} times by now"
        held = (
            f"handed to {one.consumer} {one.held_for or 0:.0f} s ago{times}; the ledger does not know it yet"
        )
    return visible(
        f"intent {one.intent_id} on route {one.route}: waits in the queue\n"
        f"  since {one.enqueued_at:%Y-%m-%d %H:%M:%S} UTC, {one.age:.0f} s, as {one.entry} in {one.stream}\n"
        f"  {held}"
    )


def _story_text(story: Story) -> str:
    lines = [f"intent {story.intent_id} on route {story.route}: {story.ledger.get('state', 'forgotten')}"]
    if story.response is not None:
        lines.append(f"  {response_line(load_response(to_json(story.response)))}")
    lines += [
        f"  {name}: {value}"
        for name, value in sorted(story.ledger.items())
        if value and name not in ("state", "body", "seen", "steps", "cancels")
    ]
    rows = [
        (
            f"{step.at:%m-%d %H:%M:%S.%f}"[:-3],
            "" if step.after is None else f"+{step.after:.3f} s",
            step.event if step.intent_id == story.intent_id else f"{step.intent_id}: {step.event}",
            step.worker,
            _step_text(step),
        )
        for step in story.audit
    ]
    text = visible("\n".join(lines))
    return text + ("\n" + table(("AT (UTC)", "AFTER", "EVENT", "BY", "DETAIL"), rows) if rows else "")


def _step_text(step: Step) -> str:
    if step.event not in ("claimed", "parked"):
        return step.detail
    try:
        asked = load_intent(step.detail)
    except ContractError:
        return step.detail
    if asked.target_intent_id:
        return f"{asked.intent_type} {asked.target_intent_id}"
    price = f" @ {asked.limit_price}" if asked.limit_price else ""
    return f"{asked.intent_type} {asked.side or ''} {asked.quantity or ''} {asked.symbol}{price}"


# --- Rollout ----------------------------------------------------------------------------------------------


@rollout.command("open")
def rollout_open(
    ctx: typer.Context,
    reason: ReasonOption,
    seconds: _For = 600.0,
    route: RouteOption = None,
    actor: ActorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let live workers of two builds send side by side for a while."""
    desk, who, why = surroundings(ctx), actor_name(actor), reason_text(reason)
    name = desk.route(route)
    desk.control(name).open_rollout(who, why, seconds)
    show(
        {"route": name, "rollout": "open", "seconds": seconds},
        f"route {name}: open for {seconds:g} s",
        as_json,
    )


@rollout.command("close")
def rollout_close(
    ctx: typer.Context,
    reason: ReasonOption,
    route: RouteOption = None,
    actor: ActorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close the window now: live workers must be of one build again."""
    desk, who, why = surroundings(ctx), actor_name(actor), reason_text(reason)
    name = desk.route(route)
    desk.control(name).close_rollout(who, why)
    show({"route": name, "rollout": "closed"}, f"route {name}: closed", as_json)


# --- Guard ------------------------------------------------------------------------------------------------


@guard.command("show")
def guard_show(ctx: typer.Context, route: RouteOption = None, as_json: JsonOption = False) -> None:
    """The guard's state and what it has counted."""
    desk = surroundings(ctx)
    for name in [desk.route(route)] if route else desk.known_routes():
        now = desk.control(name).status()
        document = {
            "route": name,
            "state": now.guard_state,
            "consecutive_failures": now.consecutive_failures,
            "threshold": now.threshold,
            "epoch": now.epoch,
        }
        text = f"route {name}: {now.guard_state}, {now.consecutive_failures} of {now.threshold} failures in a row"
        show(document, text, as_json)


@guard.command("reset")
def guard_reset(
    ctx: typer.Context,
    reason: ReasonOption,
    approve: _Approve = False,
    route: RouteOption = None,
    actor: ActorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open a tripped guard, in your name."""
    desk, who, why = surroundings(ctx), actor_name(actor), reason_text(reason)
    name = desk.route(route)
    state = desk.control(name).reset_guard(who, why, approve)
    show({"route": name, "state": state}, f"route {name}: the guard is {state}", as_json)
