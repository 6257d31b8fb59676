"""What a body means, read by the letter of ``docs/contracts.md`` and not by the code that is tested."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_AMOUNT: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{1,12})?")
_PATTERNS: Final = {
    "intent_id": _ID,
    "symbol": re.compile(r"[A-Z0-9][A-Z0-9._/-]{0,31}"),
    "intent_type": re.compile("MARKET|LIMIT|NOOP|CANCEL"),
    "side": re.compile("BUY|SELL"),
    "time_in_force": re.compile("DAY|IOC|FOK"),
    "target_intent_id": _ID,
    "venue": re.compile("[A-Z0-9_]{1,16}"),
    "strategy": re.compile(r"[^\x00-\x1f\x7f]{1,64}"),
}
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_REQUIRED: Final = {"intent_id", "symbol", "intent_type", "created_at"}
#: What may be null or left out.
_OPTIONAL: Final = {
    "side",
    "quantity",
    "limit_price",
    "target_intent_id",
    "expires_at",
    "venue",
    "strategy",
    "metadata",
}
_KNOWN: Final = _REQUIRED | _OPTIONAL | {"schema_version", "time_in_force"}


class Truth(NamedTuple):
    """``valid`` is ``None`` where a time is spelt in a way that the contract leaves open."""

    valid: bool | None
    #: The document, where there is one.
    document: dict[str, Any]

    @property
    def intent_id(self) -> str | None:
        found = self.document.get("intent_id")
        return found if isinstance(found, str) and _ID.fullmatch(found) else None

    @property
    def is_order(self) -> bool:
        return self.document.get("intent_type") in ("MARKET", "LIMIT")


def truth(body: bytes) -> Truth:
    """Whether the bytes are an intent, and which."""
    try:
        text = body.decode("utf-8")
        document = json.loads(text, parse_constant=_refuse)
        text.encode()
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return Truth(False, loose(body))
    if not isinstance(document, dict):
        return Truth(False, {})
    return Truth(_judge(document), document)


def _judge(found: dict[str, Any]) -> bool | None:
    given = {name: value for name, value in found.items() if not (value is None and name in _OPTIONAL)}
    if not _REQUIRED <= given.keys() <= _KNOWN:
        return False
    version = given.get("schema_version", 1)
    if version != 1 or isinstance(version, bool):
        return False
    for name, pattern in _PATTERNS.items():
        if name in given and not (isinstance(given[name], str) and pattern.fullmatch(given[name])):
            return False
    if not all(_is_amount(given[name]) for name in ("quantity", "limit_price") if name in given):
        return False
    if not _is_flat(given.get("metadata", {})) or not _fits(given):
        return False
    times = [given[name] for name in ("created_at", "expires_at") if name in given]
    if not all(isinstance(one, str) and len(one) > 9 for one in times):
        return False
    try:
        moments = [datetime.fromisoformat(one) if _TIME.fullmatch(one) else None for one in times]
    except ValueError:
        return None
    if None in moments:
        return None
    return len(moments) == 1 or moments[0] < moments[1]  # type: ignore[operator]


def _fits(given: dict[str, Any]) -> bool:
    kind = given["intent_type"]
    if kind in ("MARKET", "LIMIT") and not {"side", "quantity"} <= given.keys():
        return False
    if ("limit_price" in given) != (kind == "LIMIT") or ("target_intent_id" in given) != (kind == "CANCEL"):
        return False
    return given.get("target_intent_id") != given["intent_id"]


def _is_amount(value: object) -> bool:
    if type(value) is int:
        return 0 < value < 10**18
    return isinstance(value, str) and _AMOUNT.fullmatch(value) is not None and Decimal(value) > 0


def _is_flat(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    for one in value.values():
        if not (one is None or isinstance(one, (str, int, float))):
            return False
        if isinstance(one, float) and not math.isfinite(one):
            return False
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()) <= 4096


def _refuse(word: str) -> None:
    raise ValueError(word)


def loose(body: bytes) -> dict[str, Any]:
    """What can be read of bytes that are no intent: they may still have an id."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
