"""
KIS's own word on Korean trading days, which knows of a holiday that the government has called yesterday.

KIS asks customers to make the call about once a day (portal, 2026-09-30), and an answer covers weeks. So all workers of
an app key share one answer, the first who wants it on a date asks, and nobody asks twice on one date, even when KIS
did not answer: what was read before, and then the tables, hold.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from datetime import date
from typing import Protocol

from worker.brokers.kis.client import KISClient, ReadFailed
from worker.brokers.kis.facts import HOLIDAY_ID, HOLIDAY_PATH, KST
from worker.brokers.kis.payload import Call
from worker.brokers.kis.replies import Reply
from worker.errors import Unavailable

_log = logging.getLogger(__name__)

#: What KIS last said: whether the stock market opens, by date (``20261123``).
Days = Mapping[str, bool]


class DayStore(Protocol):
    """Keeps what KIS last said, and on which date it was last asked."""

    def take(self, today: date) -> tuple[bool, Days]:
        """
        Whether the caller is to ask now, which is then noted as done; and what KIS said last.

        Raises:
            Unavailable: the store does not answer. Do not ask.
        """

    def put(self, days: Days) -> None:
        """
        Raises:
            Unavailable: the store does not answer, and has not kept it.
        """


class LocalDayStore:
    """A store in this process."""

    def __init__(self) -> None:
        self._asked: date | None = None
        self._days: Days = {}

    def take(self, today: date) -> tuple[bool, Days]:
        asks, self._asked = self._asked != today, today
        return asks, self._days

    def put(self, days: Days) -> None:
        self._days = days


class Holidays:
    """The days that KIS has told. Safe to share between threads; only `refresh` asks anybody."""

    def __init__(self, client: KISClient) -> None:
        self.store: DayStore = LocalDayStore()
        self._client = client
        self._lock = threading.Lock()
        self._days: Days = {}

    def is_open(self, day: date) -> bool | None:
        """Whether the stock market opens that day; ``None`` when KIS has not said."""
        return self._days.get(f"{day:%Y%m%d}")

    def refresh(self) -> None:
        """Get what KIS says today, once a date. When nothing can be had, what was known before stays."""
        today = self._client.clock.now().astimezone(KST).date()
        with self._lock:
            try:
                asks, days = self.store.take(today)
                if asks:
                    days = self._ask(today) or days
                    self.store.put(days)
            except Unavailable:
                return
            except ReadFailed as error:
                _log.warning("kis_holidays_unknown the calendar's tables hold: %s", error.message)
            self._days = days

    def _ask(self, today: date) -> Days:
        fields = {"BASS_DT": f"{today:%Y%m%d}", "CTX_AREA_NK": "", "CTX_AREA_FK": ""}
        return _days(self._client.get(Call(HOLIDAY_PATH, HOLIDAY_ID, fields)))


# ``opnd_yn`` is the one that says whether stocks trade. (portal, 2026-09-30)
def _days(reply: Reply) -> Days:
    rows = reply.rows("output") or []
    return {
        row["bass_dt"]: row["opnd_yn"] == "Y"
        for row in rows
        if row.get("bass_dt") and row.get("opnd_yn") in ("Y", "N")
    }


def days_from(text: bytes | None) -> Days:
    """Read what `days_to` wrote; nothing from anything else."""
    try:
        found = json.loads(text or b"{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {day: is_open for day, is_open in found.items() if isinstance(is_open, bool)}


def days_to(days: Days) -> str:
    return json.dumps(dict(days))
