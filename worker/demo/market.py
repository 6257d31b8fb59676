"""Real companies of the Korea Exchange (KRX), and prices it would take."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from worker.simulate.universe import universe


class Company(NamedTuple):
    symbol: str
    korean: str
    english: str


#: All of them trade at the simulator.
COMPANIES = (
    Company("005930", "삼성전자", "Samsung Electronics"),
    Company("000660", "SK하이닉스", "SK hynix"),
    Company("035420", "네이버", "NAVER"),
    Company("005380", "현대차", "Hyundai Motor"),
    Company("000270", "기아", "Kia"),
    Company("051910", "LG화학", "LG Chem"),
    Company("035720", "카카오", "Kakao"),
    Company("068270", "셀트리온", "Celltrion"),
    Company("105560", "KB금융", "KB Financial"),
    Company("055550", "신한지주", "Shinhan Financial"),
    Company("012330", "현대모비스", "Hyundai Mobis"),
    Company("066570", "LG전자", "LG Electronics"),
)


def limit_price(company: Company, ticks: int) -> Decimal:
    """A legal limit price, so many ticks away from the simulator's last close of the company."""
    instrument = universe()[company.symbol]
    return instrument.rounded(instrument.base + ticks * instrument.tick(instrument.base))
