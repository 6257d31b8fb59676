"""Trading days, and who may say otherwise."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta

import pytest

from tests.markets.trading_days import closed_weekdays, half_days
from worker.errors import ConfigError
from worker.markets import Calendar, Country, State, Venue, session
from worker.markets.tables import table

KR, US = Country.KR, Country.US


@pytest.mark.parametrize(
    ("country", "day", "state"),
    [
        (KR, date(2026, 11, 20), State.OPEN),
        (KR, date(2026, 11, 21), State.CLOSED),
        (KR, date(2026, 12, 25), State.CLOSED),
        (KR, date(2026, 12, 31), State.CLOSED),
        (KR, date(2027, 5, 3), State.CLOSED),
        (US, date(2026, 12, 25), State.CLOSED),
        (US, date(2026, 12, 31), State.OPEN),
        (US, date(2027, 12, 31), State.OPEN),
        (KR, date(2025, 12, 31), State.UNKNOWN),
        (KR, date(2028, 1, 1), State.UNKNOWN),
        (US, date(2029, 1, 2), State.UNKNOWN),
    ],
)
def test_a_day_is_open_closed_or_unknown(country: Country, day: date, state: State) -> None:
    assert Calendar().day(country, day).state is state


def says(answer: bool | None) -> Callable[[date], bool | None]:
    return lambda day: answer


@pytest.mark.parametrize("day", [date(2026, 11, 23), date(2028, 3, 2)], ids=["listed", "beyond the tables"])
def test_a_holiday_called_at_short_notice_is_known_from_the_broker(day: date) -> None:
    found = Calendar(broker={KR: says(False)}).day(KR, day)

    assert found.state is State.CLOSED and "broker" in found.reason


def test_the_broker_opens_a_day_that_the_tables_do_not_cover() -> None:
    assert Calendar(broker={KR: says(True)}).day(KR, date(2028, 3, 2)).state is State.OPEN


def test_the_brokers_yes_keeps_the_late_hours_of_an_exam_day() -> None:
    assert Calendar(broker={KR: says(True)}).day(KR, date(2026, 11, 19)).hours == "exam-day"


def test_a_broker_that_does_not_say_leaves_the_tables() -> None:
    calendar = Calendar(broker={KR: says(None)})

    assert calendar.day(KR, date(2026, 12, 25)).state is State.CLOSED
    assert calendar.day(KR, date(2028, 3, 2)).state is State.UNKNOWN


def test_the_broker_of_one_country_says_nothing_of_another() -> None:
    assert Calendar(broker={KR: says(False)}).day(US, date(2026, 11, 23)).state is State.OPEN


def test_an_operators_word_comes_before_the_brokers() -> None:
    calendar = Calendar.from_options({"KR": {"2026-11-23": "regular"}}, {KR: says(False)})

    assert calendar.day(KR, date(2026, 11, 23)).state is State.OPEN


def test_overrides_close_open_and_shift_days() -> None:
    calendar = Calendar.from_options(
        {"kr": {"2026-11-24": "closed", "2026-11-21": "regular", "2028-11-16": "exam-day"}}
    )
    morning = datetime.fromisoformat("2028-11-16T09:15+09:00")

    assert calendar.day(KR, date(2026, 11, 24)).state is State.CLOSED
    assert calendar.day(KR, date(2026, 11, 21)).state is State.OPEN
    assert session(Venue.KRX, morning, calendar=calendar).opens == morning + timedelta(minutes=15)


def test_every_fault_of_the_overrides_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Calendar.from_options({"KR": {"tomorrow": "closed", "2026-11-24": "half-day"}, "JP": {}})

    text = str(caught.value)
    assert "calendar.KR.tomorrow" in text and "date" in text
    assert "calendar.KR.2026-11-24" in text and "exam-day" in text
    assert "calendar.JP" in text
    assert len(caught.value.faults) == 3


def test_the_days_listed_are_weekdays_within_the_covered_years() -> None:
    for country in Country:
        days = table("days")[country]
        listed = [date.fromisoformat(text) for text in (*days["closed"], *days["hours"])]
        assert days["source"]
        assert all(days["since"] <= day <= days["until"] and day.weekday() < 5 for day in listed)
        assert len(listed) == len(set(listed))


@pytest.mark.parametrize("country", Country)
def test_the_tables_agree_with_a_kept_library(country: Country) -> None:
    pytest.importorskip(
        "holidays", reason="the package holidays is not installed; see tests/markets/trading_days.py"
    )
    days = table("days")[country]

    assert set(days["closed"]) == {
        day.isoformat() for day in closed_weekdays(country, days["since"], days["until"])
    }
    if country is US:
        assert set(days["hours"]) == {day.isoformat() for day in half_days(days["since"], days["until"])}
