"""
Venues by the clock: what may be entered, what trades, and when what is left of an order ends.

Days and hours are those of `worker.markets`. Added here is what a whole exchange has to know and a client has not:
which order types stand in which phase, and when they trade. A *session* is the word for the first; an order type
lists the sessions that it belongs to.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from worker.markets import Calendar, Country, Phase, Session, State, Venue, session

SEOUL: ZoneInfo = Country.KR.zone
NEW_YORK: ZoneInfo = Country.US.zone

#: May be entered in an auction.
AUCTION = "auction"
#: The continuous market.
REGULAR = "regular"
#: A limit in the wide sense, as NXT takes them before and after its main market.
LIMIT = "limit"
PRE_CLOSE = "pre_close"
POST_CLOSE = "post_close"
AFTER = "after"
NXT_PRE = "nxt_pre"
US_REGULAR = "us_regular"


class _Rules(NamedTuple):
    #: Sessions that may be entered.
    takes: frozenset[str] = frozenset()
    #: Sessions that trade.
    trades: frozenset[str] = frozenset()
    #: Sessions whose orders outlive the phase before it.
    keeps: frozenset[str] = frozenset()


def _rules(takes: set[str], trades: set[str] | None = None, keeps: set[str] | None = None) -> _Rules:
    return _Rules(
        frozenset(takes),
        frozenset(takes if trades is None else trades),
        frozenset(takes if keeps is None else keeps),
    )


_NOTHING = _Rules()
PHASES = {
    Phase.KRX_PRE_OPEN: _rules({PRE_CLOSE}),
    Phase.KRX_OPENING_AUCTION: _rules({AUCTION}, set()),
    Phase.KRX_CONTINUOUS: _rules({AUCTION, REGULAR}),
    Phase.KRX_CLOSING_AUCTION: _rules({AUCTION}, set(), {AUCTION, REGULAR}),
    Phase.KRX_POST_CLOSE: _rules({POST_CLOSE}),
    Phase.KRX_AFTER: _rules({AFTER}),
    Phase.NXT_PRE: _rules({LIMIT, NXT_PRE}),
    Phase.NXT_MAIN: _rules({REGULAR}),
    Phase.NXT_AFTER_AUCTION: _rules({LIMIT}, set(), {LIMIT, REGULAR}),
    Phase.NXT_AFTER: _rules({LIMIT}, None, {LIMIT, REGULAR}),
    Phase.US_PRE: _rules({US_REGULAR}, set()),
    Phase.US_REGULAR: _rules({US_REGULAR}),
}
#: The post-close phase takes orders from its first minute, and trades them that much later.
_POST_CLOSE_WAIT = timedelta(minutes=10)
#: How long the closing auction's one trade is looked for after its end.
_PRINT = timedelta(seconds=2)
_EVERY_PHASE = frozenset(Phase)
#: What runs at any hour on an exchange that never closes.
_ALWAYS = {Venue.KRX: (Phase.KRX_CONTINUOUS,), Venue.NXT: (Phase.NXT_MAIN,)} | {
    Venue.SOR: (Phase.KRX_CONTINUOUS, Phase.NXT_MAIN)
}
_CALENDAR = Calendar()


class Venues:
    """The venues' hours. ``always_open`` is the middle of a business day, at any hour."""

    def __init__(self, *, always_open: bool) -> None:
        self._always_open = always_open

    def is_open_day(self, venue: str, day: date) -> bool:
        """Whether the venue trades on that local date. A day that no table covers is not."""
        return self._always_open or _CALENDAR.day(Venue(venue).country, day).state is State.OPEN

    def phases(self, venue: str, moment: datetime) -> tuple[Phase, ...]:
        """What runs on the venue at that moment."""
        if self._always_open:
            return _ALWAYS.get(Venue(venue), (Phase.US_REGULAR,))
        return _session_at(venue, moment).phases

    def takes(self, venue: str, sessions: frozenset[str], moment: datetime) -> bool:
        return any(PHASES.get(phase, _NOTHING).takes & sessions for phase in self.phases(venue, moment))

    def trades(self, venue: str, sessions: frozenset[str], moment: datetime) -> bool:
        now = self.phases(venue, moment)
        if Phase.KRX_POST_CLOSE in now:
            before = self.phases(venue, moment - _PRINT)
            if REGULAR in sessions and Phase.KRX_CLOSING_AUCTION in before:
                return True
            if POST_CLOSE in sessions:
                return Phase.KRX_POST_CLOSE in self.phases(venue, moment - _POST_CLOSE_WAIT)
        return any(PHASES.get(phase, _NOTHING).trades & sessions for phase in now)

    def is_before_open(self, venue: str, moment: datetime) -> bool:
        """Whether nothing runs yet, and something will today."""
        found = _session_at(venue, moment)
        today = moment.astimezone(Venue(venue).country.zone).date()
        return not found.phases and found.opens is not None and found.opens.date() == today

    def end(self, venue: str, sessions: frozenset[str], moment: datetime) -> datetime:
        """When what is left of an order taken at that moment expires: with the last phase of the day that keeps it."""
        zone = Venue(venue).country.zone
        midnight = datetime.combine(moment.astimezone(zone).date() + timedelta(days=1), time(), zone)
        if self._always_open:
            return midnight.astimezone(UTC)
        end, at = moment, moment.replace(microsecond=0)
        while True:
            found = _session(venue, at)
            then = found.ends or found.opens or midnight
            if any(PHASES.get(phase, _NOTHING).keeps & sessions for phase in found.phases):
                end = then + (_PRINT if Phase.KRX_CLOSING_AUCTION in found.phases else timedelta())
            if then >= midnight:
                return end.astimezone(UTC)
            at = then


# Phases begin on whole tens of seconds: one answer serves all moments in between.
def _session_at(venue: str, moment: datetime) -> Session:
    return _session(venue, moment.replace(second=moment.second // 10 * 10, microsecond=0))


@lru_cache(maxsize=256)
def _session(venue: str, moment: datetime) -> Session:
    return session(Venue(venue), moment, calendar=_CALENDAR, phases=_EVERY_PHASE)
