"""What a strategy asks for: one order, or the cancel of one."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from json import dumps
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from contracts._base import Amount, IntentId, Message, Symbol, Time, Venue, Version, plain

#: Bytes that ``metadata`` may take as compact JSON.
METADATA_BYTES_MAX = 4096


class IntentType(StrEnum):
    MARKET = "MARKET"
    LIMIT = "LIMIT"
    #: Travels the whole path and is answered ``DENIED``/``NOOP``; for canaries.
    NOOP = "NOOP"
    CANCEL = "CANCEL"


class Side(StrEnum):
    BUY = "BUY"
    SELL = "SELL"


class TimeInForce(StrEnum):
    DAY = "DAY"
    IOC = "IOC"
    FOK = "FOK"


class ExecutionIntent(Message):
    """
    One order that a strategy wants placed, once.

    The ``intent_id`` is the idempotency key: make it, store it, then send, and send again under the same id
    whenever in doubt. The same id with other content is a conflict and is never traded.

    Raises:
        pydantic.ValidationError: names each field that is wrong. The intent was not sent; correct it.
    """

    schema_version: Version = 1
    #: Idempotency key, made by the producer.
    intent_id: IntentId
    intent_type: IntentType
    symbol: Symbol
    #: Present for MARKET and LIMIT.
    side: Side | None = None
    #: Shares or contracts, above zero. Present for MARKET and LIMIT.
    quantity: Amount | None = None
    #: Quote currency per share; present exactly when ``intent_type`` is LIMIT.
    limit_price: Amount | None = None
    time_in_force: TimeInForce = TimeInForce.DAY
    #: The intent to cancel; present exactly when ``intent_type`` is CANCEL.
    target_intent_id: IntentId | None = None
    #: When the strategy decided. An intent older than the route's ``max_age`` is answered EXPIRED.
    created_at: Time
    #: Past this time the intent is answered EXPIRED and never traded.
    expires_at: Time | None = None
    #: Where to trade; the route's default when absent.
    venue: Venue | None = None
    #: A label for people and reports. Not part of the fingerprint.
    strategy: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")] | None = None
    #: Flat JSON of at most 4 KiB, carried along. Not part of the fingerprint.
    metadata: dict[str, str | int | float | bool | None] | None = None

    @field_validator("metadata", mode="after")
    @classmethod
    def _metadata_is_small(
        cls, value: dict[str, str | int | float | bool | None] | None
    ) -> dict[str, str | int | float | bool | None] | None:
        if value:
            text = dumps(value, separators=(",", ":"), ensure_ascii=False)
            size = len(text.encode("utf-8", "surrogatepass"))
            if size > METADATA_BYTES_MAX:
                raise ValueError(f"must be at most {METADATA_BYTES_MAX} bytes as JSON, not {size}")
        return value

    @model_validator(mode="after")
    def _fields_fit_the_type(self) -> Self:
        kind = self.intent_type
        if kind is IntentType.MARKET or kind is IntentType.LIMIT:
            if self.side is None:
                raise ValueError(f"side: required for {kind}; give BUY or SELL")
            if self.quantity is None:
                raise ValueError(f"quantity: required for {kind}; give shares above zero")
        if (self.limit_price is not None) != (kind is IntentType.LIMIT):
            cure = "give a price above zero" if kind is IntentType.LIMIT else "leave it out"
            raise ValueError(f"limit_price: belongs to LIMIT exactly; this is {kind}, so {cure}")
        if (self.target_intent_id is not None) != (kind is IntentType.CANCEL):
            cure = "name the intent to cancel" if kind is IntentType.CANCEL else "leave it out"
            raise ValueError(f"target_intent_id: belongs to CANCEL exactly; this is {kind}, so {cure}")
        if self.target_intent_id == self.intent_id:
            raise ValueError("target_intent_id: must name another intent, not this one")
        if self.expires_at is not None and self.expires_at <= self.created_at:
            raise ValueError("expires_at: must be later than created_at")
        return self

    def fingerprint(self) -> str:
        """
        Digest of what the intent means, 32 hex characters: type, symbol, venue, side, quantity, price, time
        in force and target. Times, strategy and metadata do not count: a retry is a replay, not a conflict.
        """
        meaning = "|".join(
            (
                self.intent_type,
                self.symbol,
                self.venue or "",
                self.side or "",
                _amount(self.quantity),
                _amount(self.limit_price),
                self.time_in_force,
                self.target_intent_id or "",
            )
        )
        return blake2b(meaning.encode(), digest_size=16).hexdigest()


def _amount(value: Decimal | None) -> str:
    return "" if value is None else plain(value)
