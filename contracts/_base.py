"""The rules every message shares: frozen, closed, exact decimals, aware times."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

#: Plain digits with an optional fraction. No sign, exponent, grouping, or look-alike digits.
_DECIMAL = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,12})?", re.ASCII)
_EPOCH = re.compile(r"[-+.0-9]+", re.ASCII)


def _exact_decimal(value: Any) -> Decimal:
    if type(value) is str:
        if _DECIMAL.fullmatch(value) is None:
            raise ValueError(
                "must be plain digits with an optional fraction, such as '10' or '70100.5' "
                "(at most 18 digits before the point and 12 after it)"
            )
        value = Decimal(value)
    elif type(value) is int:
        value = Decimal(value)
    elif type(value) is not Decimal:
        raise ValueError(
            f"must be an integer or a decimal string such as '0.5', not a {type(value).__name__}: "
            "binary fractions cannot hold money exactly"
        )
    if not value.is_finite() or value <= 0:
        raise ValueError("must be greater than zero")
    if value >= 10**18:
        raise ValueError("must be below 10^18")
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -12:
        raise ValueError("must have at most 12 digits after the point")
    return value


def _iso_time(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or _EPOCH.fullmatch(value):
        raise ValueError("must be an ISO 8601 time with its offset, such as 2026-11-23T09:00:00+09:00")
    return value


def plain(value: Decimal) -> str:
    """The one spelling of a decimal: no exponent, no trailing zeros (``10.50`` and ``1.05E+1`` are ``10.5``)."""
    if value == value.to_integral_value():
        return str(value.quantize(Decimal(1)))
    return f"{value.normalize():f}"


#: A decimal above zero: an ``int``, a ``Decimal`` or a string of plain digits. Floats are refused. Written as a string.
Amount = Annotated[
    Decimal,
    BeforeValidator(_exact_decimal, json_schema_input_type=int | str),
    PlainSerializer(plain, return_type=str),
    Field(
        json_schema_extra={
            "anyOf": [
                {"type": "integer", "exclusiveMinimum": 0},
                {"type": "string", "pattern": r"^[0-9]{1,18}(\.[0-9]{1,12})?$"},
            ]
        }
    ),
]

#: A decimal that may be zero (cumulative quantities). Written as a string.
Quantity = Annotated[Decimal, Field(ge=0, allow_inf_nan=False), PlainSerializer(plain, return_type=str)]

#: An aware time: ISO 8601 with an offset, or a ``datetime`` with a time zone. Numbers are refused.
Time = Annotated[AwareDatetime, BeforeValidator(_iso_time, json_schema_input_type=AwareDatetime)]

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
