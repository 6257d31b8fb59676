"""The words of the markets, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from contracts import Code, IntentType, TimeInForce
from worker.markets.tables import table


class Country(StrEnum):
    """Whose trading days and clock a venue follows."""

    KR = "KR"
    US = "US"

    @property
    def zone(self) -> ZoneInfo:
        return _ZONES[self]


_ZONES: Final = {Country.KR: ZoneInfo("Asia/Seoul"), Country.US: ZoneInfo("America/New_York")}


class Venue(StrEnum):
    """Where an order trades, spelt as ``OrderRequest.venue``; ``NASD`` is taken for NASDAQ."""

    KRX = "KRX"
    #: Nextrade, the alternative trading system.
    NXT = "NXT"
    #: The broker's own routing over KRX and NXT: it takes what either of them takes.
    SOR = "SOR"
    NASDAQ = "NASDAQ"
    NYSE = "NYSE"
    AMEX = "AMEX"

    @classmethod
    def _missing_(cls, value: object) -> Venue | None:
        return cls.NASDAQ if value == "NASD" else None

    @property
    def country(self) -> Country:
        return Country.KR if self in (Venue.KRX, Venue.NXT, Venue.SOR) else Country.US


class Kind(StrEnum):
    """What sort of paper it is, which decides its grid. A Korean code does not tell; see `known_funds`."""

    STOCK = "STOCK"
    #: ETF and ETN.
    FUND = "FUND"
    ELW = "ELW"


@cache
def known_funds() -> frozenset[str]:
    """Codes of much-traded ETFs. Far from all: an operator's own list is to be added to it."""
    return frozenset(code for group in table("funds")["funds"] for code in group["codes"])


class Phase(StrEnum):
    """A stretch of a venue's day."""

    #: Before the opening, at the previous close (order type 05).
    KRX_PRE_OPEN = "KRX_PRE_OPEN"
    KRX_OPENING_AUCTION = "KRX_OPENING_AUCTION"
    KRX_CONTINUOUS = "KRX_CONTINUOUS"
    KRX_CLOSING_AUCTION = "KRX_CLOSING_AUCTION"
    #: After the close, at today's close (06).
    KRX_POST_CLOSE = "KRX_POST_CLOSE"
    #: The ten-minute auctions of 16:00 to 18:00 (07), until 2026-09-13.
    KRX_SINGLE_PRICE = "KRX_SINGLE_PRICE"
    #: From 2026-09-14: a book of its own, with order types of its own (41 to 47), without ETF and ETN.
    KRX_AFTER = "KRX_AFTER"
    NXT_PRE = "NXT_PRE"
    NXT_MAIN = "NXT_MAIN"
    NXT_AFTER_AUCTION = "NXT_AFTER_AUCTION"
    NXT_AFTER = "NXT_AFTER"
    US_PRE = "US_PRE"
    US_REGULAR = "US_REGULAR"
    US_AFTER = "US_AFTER"

    @property
    def words(self) -> str:
        """For people."""
        return _WORDS[self]


_WORDS: Final = {
    Phase.KRX_PRE_OPEN: "trading at the previous close",
    Phase.KRX_OPENING_AUCTION: "opening auction",
    Phase.KRX_CONTINUOUS: "continuous trading",
    Phase.KRX_CLOSING_AUCTION: "closing auction",
    Phase.KRX_POST_CLOSE: "trading at today's close",
    Phase.KRX_SINGLE_PRICE: "off-hours single price",
    Phase.KRX_AFTER: "KRX after-market",
    Phase.NXT_PRE: "NXT pre-market",
    Phase.NXT_MAIN: "NXT main market",
    Phase.NXT_AFTER_AUCTION: "NXT after-market, opening auction",
    Phase.NXT_AFTER: "NXT after-market",
    Phase.US_PRE: "pre-market",
    Phase.US_REGULAR: "regular session",
    Phase.US_AFTER: "after-market",
}

#: Phases that a plain order reaches. The others need order types of their own (`KRX_AFTER`), or nobody has confirmed
#: that the broker takes orders of its API in them (US before and after the regular session).
PLAIN: Final = frozenset(Phase) - {Phase.KRX_AFTER, Phase.US_PRE, Phase.US_AFTER}


class Take(NamedTuple):
    """A combination that a phase may take."""

    kind: IntentType
    time_in_force: TimeInForce

    def __str__(self) -> str:
        return f"{self.kind} {self.time_in_force}"


class State(StrEnum):
    OPEN = "OPEN"
    CLOSED = "CLOSED"
    #: No table covers the day, and nobody else has said. Treat it as neither.
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Session:
    """A venue at one moment."""

    venue: Venue
    #: OPEN exactly when ``takes`` holds something.
    state: State
    #: What runs now. Two may overlap; some take nothing that an intent can ask for.
    phases: tuple[Phase, ...]
    takes: frozenset[Take]
    #: When ``takes`` may change next; absent unless OPEN. Aware, in the venue's zone.
    ends: datetime | None
    #: When something is taken next; absent when OPEN, and when the calendar does not reach that far.
    opens: datetime | None
    #: All of it in a sentence, for people.
    text: str


@dataclass(frozen=True, slots=True)
class Denial:
    """Why an order may not leave. Nothing was sent, and it is no failure of the broker."""

    #: ``MARKET_CLOSED`` or ``PRETRADE``.
    code: Code
    #: The field of the intent to change; ``venue`` where the hour is wrong.
    field: str
    #: Names the field, what is wrong and what would be right.
    message: str
    #: The nearest legal values of the field, lowest first; empty where there are none.
    nearest: tuple[Decimal, ...] = ()
