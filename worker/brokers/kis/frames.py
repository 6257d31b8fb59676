"""What KIS says over its WebSocket: sealed frames, answers to a subscription, signs of life. No I/O."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeAlias

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

_KEY_BYTES, _IV_BYTES = 32, 16
#: No record of any length that KIS has used has as many fields: two records that were counted as one do.
_FIELDS_MAX: Final = 34


class FrameFault(ValueError):
    """It cannot be read. The text names the kind of fault, and nothing of what came."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Opens what comes under one subscription: AES-256-CBC. No text of it shows the key."""

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)

    @classmethod
    def parse(cls, output: Any) -> Self | None:
        """The seal in the answer to a subscription; ``None`` when there is none."""
        if not isinstance(output, dict):
            return None
        key, iv = (str(output.get(name, "")).encode() for name in ("key", "iv"))
        return cls(key, iv) if len(key) == _KEY_BYTES and len(iv) == _IV_BYTES else None

    def open(self, sealed: str) -> str:
        """
        Raises:
            FrameFault: it was sealed by another key, or is no sealed text.
        """
        try:
            decryptor = Cipher(algorithms.AES(self.key), modes.CBC(self.iv)).decryptor()
            padded = decryptor.update(base64.b64decode(sealed, validate=True)) + decryptor.finalize()
            unpadder = PKCS7(128).unpadder()
            return (unpadder.update(padded) + unpadder.finalize()).decode()
        except ValueError:
            raise FrameFault("a frame that its key does not open") from None


@dataclass(frozen=True, slots=True)
class Ping:
    """A sign of life, to be sent back as it came."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a subscription."""

    tr_id: str
    is_success: bool
    #: ``OPSP0000`` and its like.
    code: str
    seal: Seal | None


@dataclass(frozen=True, slots=True)
class Frame:
    """Some records of one kind, each as its fields. Names and accounts are among them."""

    tr_id: str
    records: tuple[tuple[str, ...], ...] = field(repr=False)


Said: TypeAlias = Ping | Answer | Frame


def read_said(text: str, seals: Mapping[str, Seal]) -> Said:
    """
    One message of KIS. ``seals`` are those of the subscriptions, by TR id.

    Raises:
        FrameFault: it cannot be read.
    """
    return _document(text) if text.startswith("{") else _frame(text, seals)


def _document(text: str) -> Said:
    try:
        found = json.loads(text)
        header, body = found["header"], found.get("body", {})
        tr_id = str(header["tr_id"])
        if tr_id == "PINGPONG":
            return Ping(text)
        return Answer(
            tr_id, body["rt_cd"] == "0", str(body.get("msg_cd", "")), Seal.parse(body.get("output"))
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FrameFault("a message that is no answer of KIS") from None


def _frame(text: str, seals: Mapping[str, Seal]) -> Frame:
    # 1|H0STCNI0|001|…: sealed or not, the TR id, how many records, and they.
    parts = text.split("|", 3)
    if len(parts) != 4 or parts[0] not in ("0", "1") or not (parts[2].isascii() and parts[2].isdigit()):
        raise FrameFault("a message without the four parts of a frame")
    is_sealed, tr_id, count, payload = parts[0] == "1", parts[1], int(parts[2]), parts[3]
    if tr_id not in seals:
        raise FrameFault("a frame that nobody subscribed to")
    fields = (seals[tr_id].open(payload) if is_sealed else payload).split("^")
    return Frame(tr_id, _split(fields, count))


def _split(fields: list[str], count: int) -> tuple[tuple[str, ...], ...]:
    # Records follow each other without a mark between them.
    if count < 1 or len(fields) % count:
        raise FrameFault("a frame whose fields are not so many records")
    size = len(fields) // count
    if size >= _FIELDS_MAX:
        raise FrameFault("a record with too many fields")
    return tuple(tuple(fields[at : at + size]) for at in range(0, len(fields), size))
