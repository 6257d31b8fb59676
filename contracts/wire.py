"""Between bytes and messages."""

from __future__ import annotations

import re
from json import JSONDecodeError, loads
from typing import Literal, TypeVar

from pydantic import ValidationError

from contracts._base import Message
from contracts.failsafe import FailsafeEvent
from contracts.intent import ExecutionIntent
from contracts.orders import OrderEvent
from contracts.response import ExecutionResponse

_INTENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)

#: The patterns of ``_base``, for people.
_SPELLINGS = {
    "intent_id": "must be 1 to 64 letters (a-z, A-Z), digits (0-9) or ._:-",
    "target_intent_id": "must be 1 to 64 letters (a-z, A-Z), digits (0-9) or ._:-",
    "symbol": "must be spelled as the broker does, in upper case, such as 005930 or BRK.B",
    "venue": "must be 1 to 16 upper-case letters, digits or _, such as KRX",
    "strategy": "must not hold control characters",
    "route": "must be 1 to 32 of a-z, 0-9 and _",
}

_M = TypeVar("_M", bound=Message)


class ContractError(ValueError):
    """The bytes are no message of ours. Its text names each field and the cure."""

    def __init__(self, faults: list[str], intent_id: str | None = None) -> None:
        super().__init__("; ".join(faults))
        #: One line a fault, each starting with the field's name.
        self.faults = faults
        #: The id, when the bytes have a readable one.
        self.intent_id = intent_id


def dump(message: Message) -> bytes:
    """A message as compact JSON. Fields that are absent are left out."""
    return message.__pydantic_serializer__.to_json(message, exclude_none=True)


def load_intent(body: bytes | str) -> ExecutionIntent:
    """
    Read an intent.

    Raises:
        ContractError: the bytes are no intent; ``intent_id`` is set where it can be read.
    """
    return _load(ExecutionIntent, body)


def load_response(body: bytes | str) -> ExecutionResponse:
    """
    Read a response. Fields that a newer worker added are ignored, so a producer survives its upgrade.

    Raises:
        ContractError: the bytes are no response.
    """
    return _load(ExecutionResponse, body, extra="ignore")


def load_event(body: bytes | str) -> FailsafeEvent:
    """
    Read a failsafe event. Fields that a newer worker added are ignored.

    Raises:
        ContractError: the bytes are no failsafe event.
    """
    return _load(FailsafeEvent, body, extra="ignore")


def load_order_event(body: bytes | str) -> OrderEvent:
    """
    Read an order event. Fields that a newer worker added are ignored.

    Raises:
        ContractError: the bytes are no order event.
    """
    return _load(OrderEvent, body, extra="ignore")


def _load(model: type[_M], body: bytes | str, *, extra: Literal["ignore", "forbid"] = "forbid") -> _M:
    try:
        message: _M = model.__pydantic_validator__.validate_json(body, extra=extra)
    except ValidationError as error:
        raise ContractError(explain(error), readable_intent_id(body)) from None
    return message


def explain(error: ValidationError) -> list[str]:
    """One line a fault, ``field: what is wrong``, without the value (it may be huge, or a secret)."""
    lines = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        path, text = fault["loc"], fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            text = "unknown field; remove it or correct its spelling"
        elif fault["type"] == "string_pattern_mismatch":
            text = _SPELLINGS.get(str(path[-1]), text)
        elif path[:1] == ("metadata",) and len(path) > 2:
            # Pydantic has one fault for each type that the value could have been.
            path, text = path[:2], "must be a string, a finite number, true, false or null"
        field = ".".join(str(part) for part in path)
        lines.append(f"{field}: {text}" if field else text)
    return list(dict.fromkeys(lines))


def readable_intent_id(body: bytes | str) -> str | None:
    """The intent_id of bytes that are otherwise no intent, where one can be read."""
    try:
        document = loads(body)
    except (JSONDecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    candidate = document.get("intent_id") if isinstance(document, dict) else None
    if isinstance(candidate, str) and _INTENT_ID.fullmatch(candidate):
        return candidate
    return None
