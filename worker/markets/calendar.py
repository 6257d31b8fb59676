"""Trading days: dated tables, what an operator sets over them, and what the broker says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import Any, Final, Self

from worker.errors import ConfigError
from worker.markets.tables import table
from worker.markets.values import Country, State

#: A day's hours where nothing else is said.
REGULAR: Final = "regular"
#: What an override says of a day without trading.
CLOSED: Final = "closed"


@dataclass(frozen=True, slots=True)
class Day:
    """One local date of a country's markets."""

    date: date
    state: State
    #: Which table of hours holds; absent unless OPEN.
    hours: str | None
    #: Why, for people.
    reason: str


@dataclass(frozen=True, slots=True)
class Calendar:
    """
    The trading days. An override comes first, then the broker's word, then the tables; without any of them a day is
    UNKNOWN.
    """

    #: Hours of single days by country: ``closed``, ``regular``, or a name from ``data/sessions.toml``.
    overrides: Mapping[tuple[Country, date], str] = field(default_factory=dict)
    #: The broker's own holiday call: open, closed, or ``None`` when it does not say. It is asked for every check, so
    #: it should answer from memory, and it must not raise.
    broker: Mapping[Country, Callable[[date], bool | None]] = field(default_factory=dict)

    @classmethod
    def from_options(
        cls,
        options: Mapping[str, Any],
        broker: Mapping[Country, Callable[[date], bool | None]] | None = None,
    ) -> Self:
        """
        Read overrides from settings, such as ``{"KR": {"2027-06-01": "closed", "2027-11-18": "exam-day"}}``.

        Raises:
            ConfigError: names every override that cannot be read, with its cure.
        """
        faults: list[str] = []
        overrides = dict(_overrides(options, faults))
        if faults:
            raise ConfigError(faults)
        return cls(overrides, broker or {})

    def day(self, country: Country, day: date) -> Day:
        """What kind of day it is there."""
        said = self.overrides.get((country, day))
        if said is not None:
            return _day(day, said, "by a setting")
        listed = _listed(country, day)
        asked = self.broker.get(country)
        open_at_broker = asked(day) if asked is not None else None
        if open_at_broker is None:
            return listed
        if not open_at_broker:
            return listed if listed.state is State.CLOSED else _day(day, CLOSED, "a holiday, says the broker")
        return listed if listed.state is State.OPEN else _day(day, REGULAR, "a trading day, says the broker")


# The tables of hours that a day of each country can have.
@cache
def _names() -> Mapping[Country, frozenset[str]]:
    found = table("sessions")["hours"]
    return {
        country: frozenset(hours["day"] for hours in found if hours["country"] == country)
        for country in Country
    }


def _day(day: date, hours: str, reason: str) -> Day:
    if hours == CLOSED:
        return Day(day, State.CLOSED, None, reason)
    return Day(day, State.OPEN, hours, reason)


@cache
def _listed(country: Country, day: date) -> Day:
    days = table("days")[country]
    if not days["since"] <= day <= days["until"]:
        return Day(day, State.UNKNOWN, None, f"the calendar covers {days['since']} to {days['until']} only")
    if day.weekday() >= 5:
        return _day(day, CLOSED, day.strftime("%A"))
    holiday = days["closed"].get(day.isoformat())
    if holiday is not None:
        return _day(day, CLOSED, holiday)
    return _day(day, days["hours"].get(day.isoformat(), REGULAR), "a trading day")


def _overrides(options: Mapping[str, Any], faults: list[str]) -> Iterator[tuple[tuple[Country, date], str]]:
    for name, days in options.items():
        if name.upper() not in Country.__members__ or not isinstance(days, Mapping):
            faults.append(f"calendar.{name}: must be a table of days under KR or US")
            continue
        country = Country(name.upper())
        for text, hours in days.items():
            day = _date(text)
            if day is None:
                faults.append(f"calendar.{name}.{text}: must be a date such as 2027-06-01")
            elif hours not in _names()[country] | {CLOSED}:
                legal = ", ".join(sorted(_names()[country] | {CLOSED}))
                faults.append(f"calendar.{name}.{text}: must be one of {legal}, not {hours!r}")
            else:
                yield (country, day), hours


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
