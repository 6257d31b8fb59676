"""What a code of KIS proves about an order, from the dated table in ``codes.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from contracts import SafetyCode


class CodeVerdict(StrEnum):
    """Can the order exist at the broker?"""

    #: No: KIS or the exchange refused it.
    REJECTED = "rejected"
    #: No: the gateway turned it away before any order system saw it.
    NOT_SENT = "not_sent"
    #: Maybe.
    IN_DOUBT = "in_doubt"


class Then(StrEnum):
    """What a code asks for besides."""

    NOTHING = ""
    REFRESH_TOKEN = "refresh_token"
    SLOW_DOWN = "slow_down"


@dataclass(frozen=True, slots=True)
class CodeRow:
    """One row of the table."""

    code: str
    verdict: CodeVerdict
    safety: SafetyCode
    then: Then
    #: ``portal``, ``capture``, ``1src`` or ``caution``; the file says what they mean.
    source: str
    #: When the fact was last looked at.
    date: date
    #: What KIS says with it, shortened.
    korean: str
    note: str


@cache
def code_table() -> Mapping[str, CodeRow]:
    """Every listed code."""
    text = files("worker.brokers.kis").joinpath("codes.toml").read_text("utf-8")
    return MappingProxyType({code: _row(code, fields) for code, fields in tomllib.loads(text).items()})


def code_row(msg_cd: str | None) -> CodeRow | None:
    """The row of a code; ``None`` when it is unlisted, and then the order is in doubt."""
    return code_table().get(msg_cd.strip()) if msg_cd else None


def map_broker_error_to_safety(msg_cd: str | None) -> SafetyCode:
    """The safety code of a code of KIS. Without one, or with one that nobody listed, it is a delay: FS042."""
    row = code_row(msg_cd)
    return SafetyCode.FS042 if row is None else row.safety


def _row(code: str, fields: Mapping[str, Any]) -> CodeRow:
    return CodeRow(
        code=code,
        verdict=CodeVerdict(fields["verdict"]),
        safety=SafetyCode(fields["safety"]),
        then=Then(fields.get("then", "")),
        source=fields["source"],
        date=fields["date"],
        korean=fields["korean"],
        note=fields.get("note", ""),
    )
