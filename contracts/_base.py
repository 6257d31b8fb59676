"""The rules every message shares: frozen, closed, exact decimals, aware times."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

#: Plain digits with an optional fraction. No sign, exponent, grouping, or look-alike digits.
_AMOUNT = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,12})?", re.ASCII)
#: The same, as long as a broker's average price may get.
_DIGITS = re.compile(r"[0-9]{1,64}(?:\.[0-9]{1,64})?", re.ASCII)
_AMOUNT_TEXT = {"type": "string", "pattern": r"^(?=.*[1-9])[0-9]{1,18}(\.[0-9]{1,12})?$"}
_QUANTITY_TEXT = {"type": "string", "pattern": r"^[0-9]{1,64}(\.[0-9]{1,64})?$"}
_EPOCH = re.compile(r"[-+.0-9]+", re.ASCII)


def _amount(value: Any) -> Decimal:
    if type(value) is str and _AMOUNT.fullmatch(value) is None:
        raise ValueError(
            "must be plain digits with an optional fraction, such as '10' or '70100.5' "
            "(at most 18 digits before the point and 12 after it)"
        )
    exact = _decimal(value)
    if exact <= 0:
        raise ValueError("must be greater than zero")
    if exact >= 10**18:
        raise ValueError("must be below 10^18")
    exponent = exact.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -12:
        raise ValueError("must have at most 12 digits after the point")
    return exact


def _quantity(value: Any) -> Decimal:
    if type(value) is str and _DIGITS.fullmatch(value) is None:
        raise ValueError("must be plain digits with an optional fraction, such as '10' or '70100.5'")
    exact = _decimal(value)
    if exact < 0:
        raise ValueError("must not be below zero")
    # Of the two zeros that a Decimal has, only one can be written.
    return exact or Decimal(0)


def _decimal(value: Any) -> Decimal:
    if type(value) is not str and type(value) is not int and type(value) is not Decimal:
        raise ValueError(
            f"must be an integer or a decimal string such as '0.5', not a {type(value).__name__}: "
            "binary fractions cannot hold money exactly"
        )
    exact = Decimal(value)
    if not exact.is_finite():
        raise ValueError("must be a finite number")
    return exact


def _iso_time(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or _EPOCH.fullmatch(value):
        raise ValueError("must be an ISO 8601 time with its offset, such as 2026-11-23T09:00:00+09:00")
    return value


def _version(value: Any) -> Any:
    # To Python, and so to a Literal, true is 1.
    if type(value) is bool:
        raise ValueError("must be the number 1")
    return value


def plain(value: Decimal) -> str:
    """
    The one spelling of a decimal: no exponent, no trailing zeros (``10.50`` and ``1.05E+1`` are ``10.5``).

    Exact to the last digit: ``normalize`` and ``quantize`` would round to the decimal context's 28 digits.
    """
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


#: A decimal above zero: an ``int``, a ``Decimal`` or a string of plain digits. Floats are refused. Written as
#: a string.
Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    PlainSerializer(plain, return_type=str),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10**18}, _AMOUNT_TEXT]},
        mode="validation",
    ),
    WithJsonSchema(_AMOUNT_TEXT, mode="serialization"),
]

#: The same, or zero (cumulative quantities, average prices), with as many digits as a broker gives.
Quantity = Annotated[
    Decimal,
    BeforeValidator(_quantity),
    PlainSerializer(plain, return_type=str),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, _QUANTITY_TEXT]}, mode="validation"),
    WithJsonSchema(_QUANTITY_TEXT, mode="serialization"),
]

#: An aware time: ISO 8601 with an offset, or a ``datetime`` with a time zone. Numbers are refused.
Time = Annotated[AwareDatetime, BeforeValidator(_iso_time, json_schema_input_type=AwareDatetime)]

#: The version of a message's schema: the number 1.
Version = Annotated[Literal[1], BeforeValidator(_version)]

#: 1 to 64 of letters, digits and ``._:-``.
IntentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]

#: As the broker spells it, upper case: ``005930``, ``AAPL``, ``BRK.B``. The lane of an intent is its symbol.
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9._/-]{0,31}$")]

#: A market or route of trading: ``KRX``, ``NXT``, ``SOR``, ``NASD``.
Venue = Annotated[str, Field(pattern=r"^[A-Z0-9_]{1,16}$")]

RouteName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]


class Message(BaseModel):
    """A message of the wire: frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
