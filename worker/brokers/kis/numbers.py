"""
The name of an order at KIS: date, branch and number.

KIS counts order numbers anew each trading day, so a number alone names nothing. We spell the three together, as in
``20261123-91252-0000117057``, and that is the order's ``broker_order_id`` everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Self

from worker.brokers.kis.facts import KST

_BRANCH = re.compile(r"[0-9A-Z]{0,5}", re.ASCII)
_SPELT = re.compile(r"(?P<day>\d{8})-(?P<branch>[0-9A-Z]{0,5})-(?P<number>\d{1,10})", re.ASCII)


@dataclass(frozen=True, slots=True)
class OrderNumber:
    """One order of one account."""

    #: The Korean date on which KIS received it.
    day: date
    #: ``KRX_FWDG_ORD_ORGNO`` of an answer, ``ord_gno_brno`` of a list.
    branch: str
    #: ``ODNO``: ten digits.
    number: str

    def __str__(self) -> str:
        return f"{self.day:%Y%m%d}-{self.branch}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what `__str__` wrote; ``None`` for anything else."""
        found = _SPELT.fullmatch(text)
        if found is None:
            return None
        try:
            day = date.fromisoformat(found["day"])
        except ValueError:
            return None
        return cls(day, found["branch"], found["number"].zfill(10))

    @classmethod
    def received(cls, branch: str, number: str, tmd: str, at: datetime) -> Self:
        """
        The number in an answer that came at ``at``. The answer tells the time of receipt (``HHMMSS``, KST) but not
        the date: it is the day on which that time is nearest.
        """
        local = at.astimezone(KST)
        days = [local.date() + timedelta(days=shift) for shift in (0, -1, 1)]
        time = clock_time(tmd)
        if time is not None:
            days.sort(key=lambda day: abs(_moment(day, *time) - local))
        branch = branch.strip()
        # The number names the order; a branch that is none would only make its name unreadable.
        return cls(days[0], branch if _BRANCH.fullmatch(branch) else "", number.strip().zfill(10))


def clock_time(tmd: str) -> tuple[int, int, int] | None:
    """Hours, minutes and seconds of ``HHMMSS``; ``None`` when it is no such time."""
    tmd = tmd.strip()
    if not (tmd.isascii() and tmd.isdigit() and len(tmd) == 6):
        return None
    hour, minute, second = int(tmd[:2]), int(tmd[2:4]), int(tmd[4:])
    return (hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None


def moment(day: str, tmd: str) -> datetime | None:
    """The moment of a row's date (``YYYYMMDD``) and time (``HHMMSS``), in KST; ``None`` when they are none."""
    time = clock_time(tmd)
    try:
        found = date.fromisoformat(day.strip()) if len(day.strip()) == 8 else None
    except ValueError:
        return None
    return None if time is None or found is None else _moment(found, *time)


def _moment(day: date, hour: int, minute: int, second: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=KST)
