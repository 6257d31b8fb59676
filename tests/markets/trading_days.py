"""
The closed weekdays of a market by the package ``holidays``, for the next yearly update of ``data/days.toml``.

    pip install holidays
    python -m tests.markets.trading_days KR 2028-01-01 2028-12-31

prints lines to be put into the file. The library knows neither late openings nor exam days: those come from KRX's
notices.
"""

from __future__ import annotations

import sys
from datetime import date
from importlib import import_module
from typing import Any

_MARKETS = {"KR": "XKRX", "US": "XNYS"}


def closed_weekdays(country: str, since: date, until: date) -> dict[date, str]:
    """Weekdays without trading, with the library's names."""
    return _of(_MARKETS[country], ("public",), since, until)


def half_days(since: date, until: date) -> dict[date, str]:
    """New York's early closings."""
    return _of("XNYS", ("half_day",), since, until)


def _of(market: str, categories: tuple[str, ...], since: date, until: date) -> dict[date, str]:
    library: Any = import_module("holidays")
    years = range(since.year, until.year + 1)
    found = library.financial_holidays(market, years=years, categories=categories, language="en_US")
    return {day: name for day, name in sorted(found.items()) if since <= day <= until and day.weekday() < 5}


def main(country: str, since: str, until: str) -> None:
    """Print the lines."""
    for day, name in closed_weekdays(country, date.fromisoformat(since), date.fromisoformat(until)).items():
        sys.stdout.write(f'{day} = "{name}"\n')


if __name__ == "__main__":
    main(*sys.argv[1:])
