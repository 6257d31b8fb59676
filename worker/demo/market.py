"""Real companies of the Korea Exchange (KRX), and prices it would take."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple


class Company(NamedTuple):
    symbol: str
    korean: str
    english: str
    #: A price of the last months, in won. The demo knows nothing of today's market.
    price: int


COMPANIES = (
    Company("005930", "삼성전자", "Samsung Electronics", 70_400),
    Company("000660", "SK하이닉스", "SK hynix", 198_000),
    Company("035420", "네이버", "NAVER", 212_000),
    Company("005380", "현대차", "Hyundai Motor", 232_500),
    Company("000270", "기아", "Kia", 99_200),
    Company("051910", "LG화학", "LG Chem", 265_000),
    Company("035720", "카카오", "Kakao", 42_750),
    Company("068270", "셀트리온", "Celltrion", 181_300),
    Company("105560", "KB금융", "KB Financial", 98_800),
    Company("055550", "신한지주", "Shinhan Financial", 56_700),
    Company("012330", "현대모비스", "Hyundai Mobis", 269_000),
    Company("066570", "LG전자", "LG Electronics", 89_900),
)

#: The KRX price grid since January 2023: below this price, steps of so many won.
_GRID = ((2_000, 1), (5_000, 5), (20_000, 10), (50_000, 50), (200_000, 100), (500_000, 500))


def tick_size(price: int) -> int:
    """The step between two legal prices around this one, in won."""
    return next((step for below, step in _GRID if price < below), 1_000)


def limit_price(company: Company, ticks: int) -> Decimal:
    """A legal limit price, so many ticks away from the company's price."""
    step = tick_size(company.price)
    price = company.price // step * step + ticks * step
    return Decimal(price - price % tick_size(price))
