"""The calls that this server knows: path, TR ids on either server, and what they count for. As of autumn 2026."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

DOMESTIC = "/uapi/domestic-stock/v1/trading"
OVERSEAS = "/uapi/overseas-stock/v1/trading"
QUOTES = "/uapi/domestic-stock/v1/quotations"


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    method: str
    path: str
    #: The word of a fault rule's ``on``.
    group: str
    #: TR id → what it is about (``buy``, ``sell``, ``old`` for ranges of the past, or nothing).
    real: MappingProxyType[str, str]
    #: Empty: not offered on paper.
    paper: MappingProxyType[str, str]
    #: Counts for the ledger's own limit.
    ledger: bool = False


def _call(
    name: str,
    method: str,
    path: str,
    group: str,
    ids: dict[str, str],
    *,
    paper: dict[str, str] | None = None,
    ledger: bool = False,
) -> Call:
    # A paper id is the real one with another first letter, but for the exceptions that are written out.
    on_paper = {f"V{tr_id[1:]}": about for tr_id, about in ids.items()} if paper is None else paper
    return Call(name, method, path, group, MappingProxyType(ids), MappingProxyType(on_paper), ledger)


#: The old ids still work, without NXT and SOR.
OLD_ORDER_IDS = frozenset({"TTTC0801U", "TTTC0802U", "TTTC0803U", "VTTC0801U", "VTTC0802U", "VTTC0803U"})

CALLS = (
    _call(
        "order",
        "POST",
        f"{DOMESTIC}/order-cash",
        "order",
        {"TTTC0012U": "buy", "TTTC0011U": "sell", "TTTC0802U": "buy", "TTTC0801U": "sell"},
    ),
    _call("change", "POST", f"{DOMESTIC}/order-rvsecncl", "cancel", {"TTTC0013U": "", "TTTC0803U": ""}),
    _call(
        "changeable",
        "GET",
        f"{DOMESTIC}/inquire-psbl-rvsecncl",
        "list",
        {"TTTC0084R": "", "TTTC8036R": ""},
        paper={},
        ledger=True,
    ),
    _call(
        "daily",
        "GET",
        f"{DOMESTIC}/inquire-daily-ccld",
        "list",
        {"TTTC0081R": "", "TTTC8001R": "", "CTSC9215R": "old", "CTSC9115R": "old"},
        paper={"VTTC0081R": "", "VTTC8001R": "", "VTSC9215R": "old", "VTSC9115R": "old"},
        ledger=True,
    ),
    _call("balance", "GET", f"{DOMESTIC}/inquire-balance", "account", {"TTTC8434R": ""}, ledger=True),
    _call("buying_power", "GET", f"{DOMESTIC}/inquire-psbl-order", "account", {"TTTC8908R": ""}),
    _call("sellable", "GET", f"{DOMESTIC}/inquire-psbl-sell", "account", {"TTTC8408R": ""}, paper={}),
    _call(
        "price", "GET", f"{QUOTES}/inquire-price", "quote", {"FHKST01010100": ""}, paper={"FHKST01010100": ""}
    ),
    _call("listing", "GET", f"{QUOTES}/search-stock-info", "quote", {"CTPF1002R": ""}, paper={}),
    _call("holiday", "GET", f"{QUOTES}/chk-holiday", "quote", {"CTCA0903R": ""}, paper={}),
    # The paper sell has an id of its own; the derived one is wrong (portal, corrected 2026-07-09).
    _call(
        "us_order",
        "POST",
        f"{OVERSEAS}/order",
        "order",
        {"TTTT1002U": "buy", "TTTT1006U": "sell"},
        paper={"VTTT1002U": "buy", "VTTT1001U": "sell"},
    ),
    _call("us_change", "POST", f"{OVERSEAS}/order-rvsecncl", "cancel", {"TTTT1004U": ""}),
    _call("us_unfilled", "GET", f"{OVERSEAS}/inquire-nccs", "list", {"TTTS3018R": ""}, paper={}, ledger=True),
    _call("us_orders", "GET", f"{OVERSEAS}/inquire-ccnl", "list", {"TTTS3035R": ""}, ledger=True),
    _call("us_balance", "GET", f"{OVERSEAS}/inquire-balance", "account", {"TTTS3012R": ""}, ledger=True),
    _call("us_buying_power", "GET", f"{OVERSEAS}/inquire-psamount", "account", {"TTTS3007R": ""}),
)
