"""KIS's order divisions (``ORD_DVSN``) in our words; portal's order-cash page and the notice of 2026-09-09."""

from __future__ import annotations

from contracts import TimeInForce
from worker.simulate.rules import Pricing, Terms
from worker.simulate.venues import AFTER, AUCTION, LIMIT, NXT_PRE, POST_CLOSE, PRE_CLOSE, REGULAR, US_REGULAR

DAY, IOC, FOK = TimeInForce.DAY, TimeInForce.IOC, TimeInForce.FOK
_ALL = ("KRX", "NXT", "SOR")
US_VENUES = ("NASD", "NYSE", "AMEX")


def _terms(
    division: str,
    name: str,
    pricing: Pricing,
    force: TimeInForce,
    sessions: tuple[str, ...],
    venues: tuple[str, ...] = _ALL,
) -> tuple[str, Terms]:
    return division, Terms(division, name, pricing, force, frozenset(sessions), frozenset(venues))


DOMESTIC_DIVISIONS = dict(
    (
        _terms("00", "지정가", Pricing.LIMIT, DAY, (AUCTION, REGULAR, LIMIT)),
        _terms("01", "시장가", Pricing.MARKET, DAY, (AUCTION, REGULAR), ("KRX", "SOR")),
        _terms("02", "조건부지정가", Pricing.LIMIT, DAY, (REGULAR,), ("KRX",)),
        _terms("03", "최유리지정가", Pricing.COUNTER, DAY, (REGULAR, LIMIT)),
        _terms("04", "최우선지정가", Pricing.OWN, DAY, (REGULAR, LIMIT)),
        _terms("05", "장전 시간외", Pricing.BASE, DAY, (PRE_CLOSE,), ("KRX",)),
        _terms("06", "장후 시간외", Pricing.MARKET, DAY, (POST_CLOSE,), ("KRX",)),
        _terms("11", "IOC지정가", Pricing.LIMIT, IOC, (REGULAR, LIMIT)),
        _terms("12", "FOK지정가", Pricing.LIMIT, FOK, (REGULAR, LIMIT)),
        _terms("13", "IOC시장가", Pricing.MARKET, IOC, (REGULAR,)),
        _terms("14", "FOK시장가", Pricing.MARKET, FOK, (REGULAR,)),
        _terms("15", "IOC최유리", Pricing.COUNTER, IOC, (REGULAR, LIMIT)),
        _terms("16", "FOK최유리", Pricing.COUNTER, FOK, (REGULAR, LIMIT)),
        _terms("27", "GTP지정가", Pricing.LIMIT, DAY, (NXT_PRE,), ("NXT",)),
        _terms("28", "GTP최유리", Pricing.COUNTER, DAY, (NXT_PRE,), ("NXT",)),
        _terms("29", "GTP최우선", Pricing.OWN, DAY, (NXT_PRE,), ("NXT",)),
        _terms("41", "애프터 지정가", Pricing.LIMIT, DAY, (AFTER,), ("KRX",)),
        _terms("42", "애프터 IOC지정가", Pricing.LIMIT, IOC, (AFTER,), ("KRX",)),
        _terms("43", "애프터 FOK지정가", Pricing.LIMIT, FOK, (AFTER,), ("KRX",)),
        _terms("44", "애프터 최유리", Pricing.COUNTER, DAY, (AFTER,), ("KRX",)),
        _terms("45", "애프터 IOC최유리", Pricing.COUNTER, IOC, (AFTER,), ("KRX",)),
        _terms("46", "애프터 FOK최유리", Pricing.COUNTER, FOK, (AFTER,), ("KRX",)),
        _terms("47", "애프터 최우선", Pricing.OWN, DAY, (AFTER,), ("KRX",)),
    )
)
US_DIVISIONS = dict((_terms("00", "지정가", Pricing.LIMIT, DAY, (US_REGULAR,), US_VENUES),))
#: A price with this one is a malformed body [1src].
TAKES_NO_PRICE = frozenset({"06"})
