"""
What an entry of a queue looks like, and the message it becomes.

==================  =====================================================================================
field               holds
==================  =====================================================================================
``body``            the payload, as it is: no envelope, no base64
``content-type``    ``application/json`` when absent
``content-encoding`` ``utf-8`` when absent
``properties``      JSON of AMQP properties such as ``correlation_id``; absent when there are none
any other           a header, such as ``traceparent``; text, or JSON of what is no text
==================  =====================================================================================

So ``XADD queue '*' body '{…}'`` from any language is a message.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from worker.transport import untyped
from worker.transport.unpack import unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON = "application/json"
UTF_8 = "utf-8"

#: Fields that are no headers.
_OURS = frozenset({"body", "content-type", "content-encoding", "properties"})
#: The header under which kombu notes how it compressed the body.
_COMPRESSION: Final = "compression"
#: Properties that kombu fills in for everybody and that mean nothing here.
_UNUSED = frozenset({"delivery_info", "delivery_mode", "priority"})


def padded(entry_id: str) -> str:
    """An entry id whose text sorts as the ids do: both halves with 20 digits. ``take.lua`` makes the same."""
    ms, _, seq = entry_id.partition("-")
    return f"{ms:0>20}-{seq:0>20}"


def tag_of(entry_id: str, queue: str) -> str:
    """The delivery tag of an entry. It says where the entry is, so an ack needs no look-up."""
    return f"{entry_id}@{queue}"


def fields_of(
    body: str | bytes,
    content_type: str | None = None,
    content_encoding: str | None = None,
    headers: Mapping[str, Any] | None = None,
    properties: Mapping[str, Any] | None = None,
) -> dict[str, str | bytes]:
    """
    The fields of one entry, for ``XADD``.

    Raises:
        ValueError: a header has the name of a field of ours; rename it.
    """
    fields: dict[str, str | bytes] = {"body": body}
    if content_type and content_type != JSON:
        fields["content-type"] = content_type
    if content_encoding and content_encoding != UTF_8:
        fields["content-encoding"] = content_encoding
    used = {
        name: value for name, value in (properties or {}).items() if name not in _UNUSED and value is not None
    }
    if used:
        fields["properties"] = json.dumps(used, default=str)
    for name, value in (headers or {}).items():
        if name in _OURS:
            raise ValueError(f"header {name!r}: the entry has a field of this name; rename the header")
        fields[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return fields


class StreamMessage(untyped.Message):  # type: ignore[misc]
    """An entry, handed over. ``body`` stays bytes until somebody asks for ``payload``."""

    errors: Any = ()

    def __init__(
        self,
        channel: Any,
        queue: str,
        entry_id: str,
        fields: list[bytes],
        count: int,
        bytes_max: int = sys.maxsize - 1,
    ) -> None:
        """``bytes_max``: how far a compressed body is unpacked."""
        # kombu's own __init__ is left out: it costs as much as all the rest of a delivery.
        self.channel = channel
        self.delivery_tag = f"{entry_id}@{queue}"  # as tag_of() says, without the call
        self.queue = queue
        self.delivery_info: dict[str, Any] = {
            "exchange": "",
            "routing_key": queue,
            "entry_id": entry_id,
            "delivery_count": count,
            "redelivered": count > 1,
        }
        self._decoded_cache = None
        self._state = "RECEIVED"
        self.accept = None
        if len(fields) == 2 and fields[0] == b"body":
            self.body = fields[1]
            self.content_type = JSON
            self.content_encoding = UTF_8
            self.headers: dict[str, str] = {}
            self.properties: dict[str, Any] = {}
        else:
            self._read(fields, bytes_max)

    def ack(self, multiple: bool = False) -> None:
        if self._state != "RECEIVED":
            super().ack(multiple)  # Says what is wrong.
        self.channel.basic_ack(self.delivery_tag)
        self._state = "ACK"

    def _read(self, fields: list[bytes], bytes_max: int) -> None:
        texts: dict[str, bytes] = {}
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            texts.setdefault(_text(name), value)
        body = texts.get("body")
        if body is None:
            self.delivery_info["fault"] = "the entry has no field 'body'"
            body = json.dumps({name: _text(value) for name, value in texts.items()}).encode()
            texts = {}
        self.errors = []
        headers = {name: _text(value) for name, value in texts.items() if name not in _OURS}
        # kombu would unpack it here and now, to whatever size.
        compression = headers.pop(_COMPRESSION, "")
        super().__init__(
            body=body,
            channel=self.channel,
            delivery_tag=self.delivery_tag,
            delivery_info=self.delivery_info,
            content_type=_text(texts.get("content-type", b"")) or JSON,
            content_encoding=_text(texts.get("content-encoding", b"")) or UTF_8,
            headers=headers,
            properties=_object(texts.get("properties", b"{}")),
        )
        if compression:
            self.headers[_COMPRESSION] = compression
            self._unpack(compression, bytes_max)

    def _unpack(self, compression: str, bytes_max: int) -> None:
        try:
            self.body = unpacked(self.body, compression, bytes_max)
        except ValueError as error:
            fault = f"cannot be unpacked: {error}"
            self.delivery_info["fault"] = fault
            # Where kombu looks for it. The error itself would keep this message, and what was unpacked so far, alive
            # through its traceback.
            self.errors.append((ValueError, ValueError(fault), None))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _object(text: bytes) -> dict[str, Any]:
    # Anybody may have written the entry; what is no JSON object is no properties.
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
