"""Sessions: what a venue takes at a moment, and when it opens next."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from contracts import IntentType, TimeInForce
from worker.markets.calendar import Calendar, Day
from worker.markets.tables import table
from worker.markets.values import PLAIN, Country, Phase, Session, State, Take, Venue

#: Longer than any row of holidays; how far to look for the next opening.
_DAYS_AHEAD: Final = 21
_BUILT_IN: Final = Calendar()


def session(
    venue: Venue, at: datetime, *, calendar: Calendar = _BUILT_IN, phases: frozenset[Phase] = PLAIN
) -> Session:
    """
    The venue at that moment. ``phases`` are those that the caller's broker can reach; the others take nothing.

    Raises:
        ValueError: the moment has no zone.
    """
    if at.tzinfo is None:
        raise ValueError("a moment needs a zone")
    local = at.astimezone(venue.country.zone)
    day = calendar.day(venue.country, local.date())
    windows = _windows(venue, day)
    if day.state is State.UNKNOWN or windows is None:
        return _unknown(venue, day, local)
    now = tuple(window for window in windows if window.start <= local < window.end)
    takes = frozenset[Take]().union(*(window.takes for window in now if window.phase in phases))
    if not takes:
        return _closed(venue, day, local, now, calendar, phases)
    edges = [edge for window in windows for edge in (window.start, window.end) if edge > local]
    running = ", ".join(window.phase.words for window in now)
    return Session(
        venue=venue,
        state=State.OPEN,
        phases=tuple(window.phase for window in now),
        takes=takes,
        ends=min(edges),
        opens=None,
        text=f"{venue} is open: {running}, until {_clock(min(edges))}; it takes {spelt(takes)}",
    )


@cache
def ever_takes(venue: Venue, phases: frozenset[Phase] = PLAIN) -> frozenset[Take]:
    """What the venue takes in any of those phases, at some hour of some day."""
    found = (
        _takes(window["takes"])
        for hours in table("sessions")["hours"]
        if hours["venue"] in _sources(venue)
        for window in hours["phases"]
        if _reaches(venue, Phase(window["phase"])) and window["phase"] in phases
    )
    return frozenset[Take]().union(*found)


def spelt(takes: Set[Take]) -> str:
    """For people: ``LIMIT (DAY, IOC, FOK), MARKET (DAY)``."""
    kinds = (
        (kind, [force.value for force in TimeInForce if Take(kind, force) in takes])
        for kind in (IntentType.LIMIT, IntentType.MARKET)
    )
    return ", ".join(f"{kind} ({', '.join(forces)})" for kind, forces in kinds if forces) or "nothing"


@dataclass(frozen=True, slots=True)
class _Window:
    phase: Phase
    start: datetime
    end: datetime
    takes: frozenset[Take]


def _windows(venue: Venue, day: Day) -> tuple[_Window, ...] | None:
    # None: the day trades, but by hours that no table has for its date.
    if day.hours is None:
        return ()
    return _windows_of(venue, day.date, day.hours)


@cache
def _windows_of(venue: Venue, day: date, hours: str) -> tuple[_Window, ...] | None:
    windows: list[_Window] = []
    for source in _sources(venue):
        tables = [
            one
            for one in table("sessions")["hours"]
            if one["venue"] == source and one["day"] == hours and one["since"] <= day
        ]
        if not tables:
            return None
        newest = max(tables, key=lambda one: one["since"])
        windows += (
            _window(venue.country, day, row)
            for row in newest["phases"]
            if _reaches(venue, Phase(row["phase"]))
        )
    return tuple(sorted(windows, key=lambda window: window.start))


def _sources(venue: Venue) -> tuple[str, ...]:
    if venue is Venue.SOR:
        return (Venue.KRX, Venue.NXT)
    return ("US",) if venue.country is Country.US else (venue,)


def _reaches(venue: Venue, phase: Phase) -> bool:
    # Nobody has confirmed that the routing reaches KRX's separate after-market book. (2026-09)
    return not (venue is Venue.SOR and phase is Phase.KRX_AFTER)


def _window(country: Country, day: date, row: dict[str, Any]) -> _Window:
    start = datetime.combine(day, time.fromisoformat(row["from"]), country.zone)
    zone = ZoneInfo(row["to_zone"]) if "to_zone" in row else country.zone
    end = datetime.combine(start.astimezone(zone).date(), time.fromisoformat(row["to"]), zone)
    return _Window(Phase(row["phase"]), start, end.astimezone(country.zone), _takes(row["takes"]))


@cache
def _takes(name: str) -> frozenset[Take]:
    words = (text.split() for text in table("sessions")["takes"][name])
    return frozenset(Take(IntentType(kind), TimeInForce(force)) for kind, force in words)


def _unknown(venue: Venue, day: Day, local: datetime) -> Session:
    text = (
        f"whether {venue} trades on {local:%Y-%m-%d} is unknown: {day.reason}; set that day in the calendar of the "
        "route's options, or update the worker"
    )
    return Session(venue, State.UNKNOWN, (), frozenset(), None, None, text)


def _closed(
    venue: Venue,
    day: Day,
    local: datetime,
    now: tuple[_Window, ...],
    calendar: Calendar,
    phases: frozenset[Phase],
) -> Session:
    opening = next(_openings(venue, local, calendar, phases), None)
    if now:
        why = f"{', '.join(window.phase.words for window in now)}, which takes no such order"
    elif day.state is State.CLOSED:
        why = f"{local:%a %Y-%m-%d} is no trading day ({day.reason})"
    else:
        why = f"{_clock(local)} is outside its sessions"
    then = (
        "when it opens next is not in the calendar"
        if opening is None
        else f"it takes orders next from {opening.start:%a %Y-%m-%d} {_clock(opening.start)} ({opening.phase.words})"
    )
    return Session(
        venue=venue,
        state=State.CLOSED,
        phases=tuple(window.phase for window in now),
        takes=frozenset(),
        ends=None,
        opens=opening.start if opening else None,
        text=f"{venue} is closed: {why}; {then}",
    )


def _openings(
    venue: Venue, local: datetime, calendar: Calendar, phases: frozenset[Phase]
) -> Iterator[_Window]:
    for ahead in range(_DAYS_AHEAD):
        day = calendar.day(venue.country, local.date() + timedelta(days=ahead))
        windows = _windows(venue, day)
        # Beyond a day that nobody knows, the next opening is not known either.
        if day.state is State.UNKNOWN or windows is None:
            return
        for window in windows:
            if window.start > local and window.phase in phases and window.takes:
                yield window


def _clock(local: datetime) -> str:
    return f"{local:%H:%M}" + (f":{local:%S}" if local.second else "") + f" {local.tzname()}"
