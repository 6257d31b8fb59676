"""
Venues by the clock: which session runs, what it takes and what trades in it.

A session is named by what may trade in it; an order type lists the sessions it belongs to. Times are local to the
venue; Korean ones as in force from 2026-09-14 (KRX and NXT notices of that month).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

SEOUL = ZoneInfo("Asia/Seoul")
NEW_YORK = ZoneInfo("America/New_York")

# What a phase takes, and what an order type belongs to.
#: May stand in an auction.
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


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the day on one venue."""

    start: time
    end: time
    takes: frozenset[str]
    #: Of those, what trades; an auction only collects.
    trades: frozenset[str]


def _phase(start: str, end: str, takes: Iterable[str], trades: Iterable[str]) -> Phase:
    return Phase(time.fromisoformat(start), time.fromisoformat(end), frozenset(takes), frozenset(trades))


PHASES: dict[str, tuple[Phase, ...]] = {
    "KRX": (
        _phase("08:30", "08:40", (AUCTION, PRE_CLOSE), (PRE_CLOSE,)),
        _phase("08:40", "09:00", (AUCTION,), ()),
        _phase("09:00", "15:20", (AUCTION, REGULAR), (AUCTION, REGULAR)),
        _phase("15:20", "15:30", (AUCTION,), ()),
        # The closing auction is over: what stood in it trades once.
        _phase("15:30", "15:30:02", (POST_CLOSE,), (AUCTION, REGULAR)),
        _phase("15:30:02", "15:40", (POST_CLOSE,), ()),
        _phase("15:40", "16:00", (POST_CLOSE,), (POST_CLOSE,)),
        _phase("16:00", "20:00", (AFTER,), (AFTER,)),
    ),
    "NXT": (
        _phase("08:00", "08:50", (LIMIT, NXT_PRE), (LIMIT, NXT_PRE)),
        _phase("09:00:30", "15:20", (REGULAR,), (REGULAR,)),
        _phase("15:30", "15:40", (LIMIT,), ()),
        _phase("15:40", "20:00", (LIMIT,), (LIMIT,)),
    ),
    "US": (
        _phase("04:00", "09:30", (US_REGULAR,), ()),
        _phase("09:30", "16:00", (US_REGULAR,), (US_REGULAR,)),
    ),
}
#: When what is left of an order expires, by venue and the first of its sessions that is named here.
ENDS: dict[str, tuple[tuple[str, time], ...]] = {
    "KRX": (
        (PRE_CLOSE, time(9, 0)),
        (POST_CLOSE, time(16, 0)),
        (AFTER, time(20, 0)),
        (REGULAR, time(15, 30, 2)),
    ),
    "NXT": ((NXT_PRE, time(8, 50)), (REGULAR, time(20, 0))),
    "SOR": ((REGULAR, time(20, 0)),),
    "US": ((US_REGULAR, time(16, 0)),),
}
#: KRX is closed, beside week-ends. From KRX's trading calendar of 2026, and the law on public holidays for 2027.
CLOSED_KRX = frozenset(
    date(year, month, day)
    for year, months in {
        2026: {1: (1,), 2: (16, 17, 18), 3: (2,), 5: (1, 5, 25), 6: (3,), 7: (17,), 8: (17,)}
        | {9: (24, 25), 10: (5, 9), 12: (25, 31)},
        2027: {1: (1,), 2: (8, 9), 3: (1,), 5: (5, 13)},
    }.items()
    for month, days in months.items()
    for day in days
)
#: NYSE's holidays, from its calendar of 2026 and 2027.
CLOSED_US = frozenset(
    date(year, month, day)
    for year, months in {
        2026: {1: (1, 19), 2: (16,), 4: (3,), 5: (25,), 6: (19,), 7: (3,), 9: (7,), 11: (26,), 12: (25,)},
        2027: {1: (1, 18), 2: (15,), 3: (26,), 5: (31,)},
    }.items()
    for month, days in months.items()
    for day in days
)


class Venues:
    """The venues' hours. ``always_open`` is eleven in the morning of a business day, at any hour."""

    def __init__(self, *, always_open: bool) -> None:
        self._always_open = always_open

    def is_open_day(self, venue: str, day: date) -> bool:
        """Whether the venue trades on that local date."""
        closed = CLOSED_US if venue == "US" else CLOSED_KRX
        return self._always_open or (day.weekday() < 5 and day not in closed)

    def phases(self, venue: str, moment: datetime) -> list[Phase]:
        """What runs on the venue at that moment; none when it is closed. SOR is KRX and NXT at once."""
        if venue == "SOR":
            return self.phases("KRX", moment) + self.phases("NXT", moment)
        local = moment.astimezone(_zone(venue))
        if not self.is_open_day(venue, local.date()):
            return []
        clock = time(11, 0) if self._always_open else local.time()
        return [phase for phase in PHASES[venue] if phase.start <= clock < phase.end]

    def takes(self, venue: str, sessions: frozenset[str], moment: datetime) -> bool:
        return any(phase.takes & sessions for phase in self.phases(venue, moment))

    def trades(self, venue: str, sessions: frozenset[str], moment: datetime) -> bool:
        return any(phase.trades & sessions for phase in self.phases(venue, moment))

    def is_before_open(self, venue: str, moment: datetime) -> bool:
        """Whether the day's first phase is still to come."""
        parts = ("KRX", "NXT") if venue == "SOR" else (venue,)
        return all(moment.astimezone(_zone(part)).time() < PHASES[part][0].start for part in parts)

    def end(self, venue: str, sessions: frozenset[str], moment: datetime) -> datetime:
        """When what is left of an order taken at that moment expires."""
        local = moment.astimezone(_zone(venue))
        if self._always_open:
            midnight = datetime.combine(local.date() + timedelta(days=1), time(), local.tzinfo)
            return midnight.astimezone(UTC)
        clock = next(end for session, end in ENDS[venue] if session in sessions)
        return datetime.combine(local.date(), clock, local.tzinfo).astimezone(UTC)


def _zone(venue: str) -> ZoneInfo:
    return NEW_YORK if venue == "US" else SEOUL
