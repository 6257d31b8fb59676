"""When a venue takes orders, to the second."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import IntentType, TimeInForce
from worker.markets import PLAIN, Calendar, Country, Phase, State, Take, Venue, session
from worker.markets.tables import table

LIMIT_DAY = Take(IntentType.LIMIT, TimeInForce.DAY)
LIMIT_IOC = Take(IntentType.LIMIT, TimeInForce.IOC)
MARKET_DAY = Take(IntentType.MARKET, TimeInForce.DAY)
MARKET_IOC = Take(IntentType.MARKET, TimeInForce.IOC)


def kst(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+09:00")


def new_york(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=Country.US.zone)


#: A Monday as any other.
MONDAY = "2026-11-23"


@pytest.mark.parametrize(
    ("clock", "phases"),
    [
        ("08:29:59", ""),
        ("08:30:00", "KRX_PRE_OPEN KRX_OPENING_AUCTION"),
        ("08:39:59", "KRX_PRE_OPEN KRX_OPENING_AUCTION"),
        ("08:40:00", "KRX_OPENING_AUCTION"),
        ("08:59:59.999999", "KRX_OPENING_AUCTION"),
        ("09:00:00", "KRX_CONTINUOUS"),
        ("15:19:59", "KRX_CONTINUOUS"),
        ("15:20:00", "KRX_CLOSING_AUCTION"),
        ("15:29:59", "KRX_CLOSING_AUCTION"),
        ("15:30:00", "KRX_POST_CLOSE"),
        ("15:59:59", "KRX_POST_CLOSE"),
        ("16:00:00", "KRX_AFTER"),
        ("19:59:59", "KRX_AFTER"),
        ("20:00:00", ""),
    ],
)
def test_krx_changes_its_phases_on_the_second(clock: str, phases: str) -> None:
    assert " ".join(session(Venue.KRX, kst(f"{MONDAY}T{clock}")).phases) == phases


@pytest.mark.parametrize(
    ("clock", "phases"),
    [
        ("07:59:59", ""),
        ("08:00:00", "NXT_PRE"),
        ("08:49:59", "NXT_PRE"),
        ("08:50:00", ""),
        ("09:00:29", ""),
        ("09:00:30", "NXT_MAIN"),
        ("15:19:59", "NXT_MAIN"),
        ("15:20:00", ""),
        ("15:30:00", "NXT_AFTER_AUCTION"),
        ("15:40:00", "NXT_AFTER"),
        ("19:59:59", "NXT_AFTER"),
        ("20:00:00", ""),
    ],
)
def test_nxt_changes_its_phases_on_the_second(clock: str, phases: str) -> None:
    assert " ".join(session(Venue.NXT, kst(f"{MONDAY}T{clock}")).phases) == phases


@pytest.mark.parametrize(
    ("clock", "state"),
    [
        ("09:29:59", State.CLOSED),
        ("09:30:00", State.OPEN),
        ("15:59:59", State.OPEN),
        ("16:00:00", State.CLOSED),
    ],
)
@pytest.mark.parametrize("day", ["2026-11-23", "2026-07-06"])
@pytest.mark.parametrize("venue", [Venue.NASDAQ, Venue.NYSE, Venue.AMEX])
def test_america_keeps_its_own_clock_in_summer_and_in_winter(
    venue: Venue, day: str, clock: str, state: State
) -> None:
    assert session(venue, new_york(f"{day}T{clock}")).state is state


@pytest.mark.parametrize(
    ("korean_moment", "state"),
    [
        # In winter New York opens at 23:30 in Seoul, in summer at 22:30; the date is New York's.
        ("2026-11-23T23:29:59", State.CLOSED),
        ("2026-11-23T23:30:00", State.OPEN),
        ("2026-11-24T05:59:59", State.OPEN),
        ("2026-11-24T06:00:00", State.CLOSED),
        ("2026-07-06T22:30:00", State.OPEN),
        ("2026-07-11T04:59:59", State.OPEN),
        ("2026-07-11T05:00:00", State.CLOSED),
    ],
)
def test_an_american_night_is_seen_from_seoul(korean_moment: str, state: State) -> None:
    assert session(Venue.NASDAQ, kst(korean_moment)).state is state


@pytest.mark.parametrize("day", ["2026-11-24", "2026-07-07"])
def test_the_brokers_american_after_market_ends_at_seven_in_seoul(day: str) -> None:
    every = frozenset(Phase)

    assert session(Venue.NYSE, kst(f"{day}T06:59:59"), phases=every).phases == (Phase.US_AFTER,)
    assert session(Venue.NYSE, kst(f"{day}T07:00:00"), phases=every).phases == ()


def test_sor_takes_what_either_venue_takes() -> None:
    early = session(Venue.SOR, kst(f"{MONDAY}T08:10"))
    both = session(Venue.SOR, kst(f"{MONDAY}T08:35"))
    late = session(Venue.SOR, kst(f"{MONDAY}T17:00"))

    assert early.phases == (Phase.NXT_PRE,)
    assert LIMIT_IOC in early.takes and MARKET_DAY not in early.takes
    assert LIMIT_IOC in both.takes and MARKET_DAY in both.takes
    assert late.phases == (Phase.NXT_AFTER,)


def test_an_auction_takes_only_what_can_wait() -> None:
    auction = session(Venue.KRX, kst(f"{MONDAY}T15:25"))

    assert auction.takes == {LIMIT_DAY, MARKET_DAY}


def test_nxt_takes_market_orders_only_where_they_do_not_rest() -> None:
    main = session(Venue.NXT, kst(f"{MONDAY}T10:00"))
    after = session(Venue.NXT, kst(f"{MONDAY}T18:00"))

    assert MARKET_IOC in main.takes and MARKET_DAY not in main.takes
    assert {take.kind for take in after.takes} == {IntentType.LIMIT}


def test_a_phase_that_the_broker_cannot_reach_is_closed_to_it() -> None:
    at = kst(f"{MONDAY}T17:00")

    assert session(Venue.KRX, at).state is State.CLOSED
    assert session(Venue.KRX, at, phases=PLAIN | {Phase.KRX_AFTER}).takes >= {LIMIT_DAY, LIMIT_IOC}


def test_the_single_price_session_ended_with_the_after_market() -> None:
    assert session(Venue.KRX, kst("2026-09-11T17:00")).phases == (Phase.KRX_SINGLE_PRICE,)
    assert session(Venue.KRX, kst("2026-09-14T17:00")).phases == (Phase.KRX_AFTER,)


@pytest.mark.parametrize(
    ("venue", "moment", "phases"),
    [
        (Venue.KRX, "2026-11-19T09:29:59", ""),
        (Venue.KRX, "2026-11-19T09:59:59", "KRX_OPENING_AUCTION"),
        (Venue.KRX, "2026-11-19T10:00:00", "KRX_CONTINUOUS"),
        (Venue.KRX, "2026-11-19T16:19:59", "KRX_CONTINUOUS"),
        (Venue.KRX, "2026-11-19T16:29:59", "KRX_CLOSING_AUCTION"),
        (Venue.KRX, "2026-11-19T16:30:00", "KRX_POST_CLOSE"),
        (Venue.NXT, "2026-11-19T08:30:00", ""),
        (Venue.NXT, "2026-11-19T16:19:59", "NXT_MAIN"),
        (Venue.NXT, "2026-11-19T16:30:00", "NXT_AFTER_AUCTION"),
    ],
)
def test_on_the_day_of_the_entrance_exam_all_is_an_hour_later(venue: Venue, moment: str, phases: str) -> None:
    assert " ".join(session(venue, kst(moment)).phases) == phases


@pytest.mark.parametrize(
    ("venue", "moment", "phases"),
    [
        (Venue.KRX, "2027-01-04T09:59:59", "KRX_OPENING_AUCTION"),
        (Venue.KRX, "2027-01-04T10:00:00", "KRX_CONTINUOUS"),
        (Venue.KRX, "2027-01-04T15:30:00", "KRX_POST_CLOSE"),
        (Venue.NXT, "2027-01-04T08:30:00", ""),
        (Venue.NXT, "2027-01-04T10:00:29", ""),
        (Venue.NXT, "2027-01-04T10:00:30", "NXT_MAIN"),
    ],
)
def test_the_first_session_of_a_year_opens_an_hour_late_and_closes_as_ever(
    venue: Venue, moment: str, phases: str
) -> None:
    assert " ".join(session(venue, kst(moment)).phases) == phases


def test_half_a_day_in_america_ends_at_one() -> None:
    assert session(Venue.NYSE, new_york("2026-11-27T12:59:59")).state is State.OPEN
    assert session(Venue.NYSE, new_york("2026-11-27T13:00:00")).state is State.CLOSED


@pytest.mark.parametrize(
    ("venue", "moment", "opens"),
    [
        # A second early, over a week-end, over Christmas, over the year's end into a late opening.
        (Venue.KRX, "2026-11-23T08:29:59", "2026-11-23T08:30"),
        (Venue.KRX, "2026-11-21T12:00", "2026-11-23T08:30"),
        (Venue.KRX, "2026-12-24T21:00", "2026-12-28T08:30"),
        (Venue.KRX, "2026-12-30T21:00", "2027-01-04T09:30"),
        (Venue.NXT, "2026-11-23T15:25", "2026-11-23T15:30"),
        (Venue.SOR, "2026-11-22T12:00", "2026-11-23T08:00"),
        (Venue.NYSE, "2026-11-26T20:00", "2026-11-27T23:30"),
    ],
)
def test_a_closed_venue_says_when_it_opens_next(venue: Venue, moment: str, opens: str) -> None:
    closed = session(venue, kst(moment))

    assert closed.state is State.CLOSED
    assert closed.opens == kst(opens)
    local = kst(opens).astimezone(venue.country.zone)
    assert f"{local:%Y-%m-%d %H:%M}" in closed.text


def test_what_opens_after_the_last_day_of_the_calendar_is_not_made_up() -> None:
    closed = session(Venue.KRX, kst("2027-12-31T12:00"))

    assert closed.state is State.CLOSED and closed.opens is None
    assert "not in the calendar" in closed.text


def test_an_unknown_day_hides_what_opens_after_it() -> None:
    calendar = Calendar({(Country.KR, date(2028, 1, 10)): "regular"})

    assert session(Venue.KRX, kst("2027-12-31T12:00"), calendar=calendar).opens is None


def test_a_day_outside_the_calendar_is_neither_open_nor_closed() -> None:
    unknown = session(Venue.KRX, kst("2028-01-03T10:00"))

    assert unknown.state is State.UNKNOWN
    assert not unknown.takes and unknown.opens is None
    assert "2026-01-01 to 2027-12-31" in unknown.text and "calendar" in unknown.text


def test_hours_that_no_table_has_for_a_date_are_unknown() -> None:
    # Exam days before the after-market of 2026-09-14 had other hours; none lies in the calendar.
    calendar = Calendar({(Country.KR, date(2026, 3, 3)): "exam-day"})

    assert session(Venue.KRX, kst("2026-03-03T11:00"), calendar=calendar).state is State.UNKNOWN


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        session(Venue.KRX, datetime(2026, 11, 23, 10, 0))  # noqa: DTZ001 - the point of the test


@settings(deadline=None)
@given(
    st.sampled_from(Venue),
    st.datetimes(datetime(2025, 12, 25), datetime(2029, 1, 10), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_a_session_never_contradicts_itself(venue: Venue, at: datetime) -> None:
    now = session(venue, at)

    assert (now.state is State.OPEN) == bool(now.takes)
    assert (now.ends is not None) == (now.state is State.OPEN)
    if now.ends is not None:
        assert now.ends > at
        assert session(venue, now.ends - timedelta(microseconds=1)).takes == now.takes
    if now.opens is not None:
        assert now.state is State.CLOSED and now.opens > at
        assert session(venue, now.opens).state is State.OPEN
        assert session(venue, now.opens - timedelta(seconds=1)).state is State.CLOSED


def test_every_table_of_hours_has_a_source_and_a_date() -> None:
    for hours in table("sessions")["hours"]:
        assert hours["source"] and isinstance(hours["since"], date)
