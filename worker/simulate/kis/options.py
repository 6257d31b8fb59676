"""What a KIS simulator can be told. Durations are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

from worker.simulate.book import Opening
from worker.simulate.faults import Fault
from worker.simulate.universe import universe

#: Calls a second and app key: portal notice of 2026-04-20.
REAL_RATE, PAPER_RATE = 18, 1
#: Balance, fill and open-order inquiries a second and account: field reports of 2026; KIS names no number.
LEDGER_RATE = 1
#: Rows a page.
REAL_PAGE, PAPER_PAGE, CHANGEABLE_PAGE, BALANCE_PAGE, PAPER_BALANCE_PAGE = 100, 15, 50, 50, 20
SHARES_OF_EACH = 1_000


@dataclass(frozen=True, slots=True)
class KISOptions:
    """How the server behaves. The defaults are as strict as the real one is known to be."""

    #: Which of the two servers it is: TR ids, codes, pages, limits, and what is not offered.
    mode: Literal["real", "paper"] = "real"
    #: The book's file, made when missing; without it the book is gone with the process.
    book: Path | None = None
    #: The moment that the exchange's clock shows at the start; it runs on from there. Tokens and limits keep to the
    #: real clock.
    at: datetime | None = None
    #: Every hour of every day is eleven in the morning of a business day, as far as sessions are concerned.
    always_open: bool = False
    #: The seed of prices, depths and fault rates.
    seed: int = 1
    #: Mean number of shares on each side of a symbol's market, in one second.
    depth: int = 200
    #: Calls a second and app key; the server's own when none, 0 for no limit.
    rate: int | None = None
    #: Ledger inquiries a second and account; 0 for no limit.
    ledger_rate: int = LEDGER_RATE
    #: A token's life.
    token_life: float = 86_400.0
    #: One token an app key in so much time; 0 for no limit.
    token_interval: float = 60.0
    #: Until lists show what happened.
    visibility_lag: float = 0.5
    #: Until an order reaches the exchange; a cancel before is too early.
    exchange_lag: float = 0.0
    #: The only app key and secret that are let in; any pair when none.
    app_key: str | None = None
    app_secret: str | None = field(default=None, repr=False)
    #: The only accounts (``12345678-01``); any when empty.
    accounts: frozenset[str] = frozenset()
    #: The only HTS id that may have notices; any when none.
    hts_id: str | None = None
    #: Notices as servers before sent them, with 23 and 21 fields: for clients that count.
    old_notices: bool = False
    #: Money that an account has when it is first seen, by currency.
    cash: Mapping[str, Decimal] = field(
        default_factory=lambda: {"KRW": Decimal(1_000_000_000), "USD": Decimal(1_000_000)}
    )
    #: Shares of it, by symbol.
    holdings: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(universe(), SHARES_OF_EACH))
    faults: tuple[Fault, ...] = ()

    @property
    def is_paper(self) -> bool:
        return self.mode == "paper"

    @property
    def calls_a_second(self) -> int:
        if self.rate is not None:
            return self.rate
        return PAPER_RATE if self.is_paper else REAL_RATE

    @property
    def opening(self) -> Opening:
        return Opening(self.cash, self.holdings)
