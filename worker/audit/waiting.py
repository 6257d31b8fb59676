"""Where an intent waits that the ledger does not know: in the entries of its route's streams that nobody has finished."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from contracts.wire import readable_intent_id
from worker.audit.records import moment
from worker.keys import GROUP, RouteKeys

#: The newest entries of a stream that are looked through, and how many in one go.
LOOKED_AT: Final = 100_000
_PAGE: Final = 1000
#: How far a compressed body is unpacked.
_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Waiting:
    """One entry with the intent that no worker has brought to the ledger."""

    intent_id: str
    route: str
    #: The stream, and the entry in it.
    stream: str
    entry: str
    enqueued_at: datetime
    #: Seconds since then, by Redis's clock.
    age: float
    #: Who has it in hand; ``None``: nobody has read it.
    consumer: str | None
    #: Seconds since it was handed over; absent while nobody has read it.
    held_for: float | None
    #: How often it was handed over.
    deliveries: int


def find_waiting(client: Any, keys: RouteKeys, intent_id: str) -> list[Waiting]:
    """
    Where the intent waits, newest first; of each stream the newest `LOOKED_AT` entries are looked through.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    seconds, micros = client.time()
    now = seconds + micros / 1e6
    return [
        found
        for stream in (keys.intents, keys.cancels)
        if client.exists(stream)
        for found in _in_stream(client, keys.route, stream, intent_id, now)
    ]


def _in_stream(client: Any, route: str, stream: str, intent_id: str, now: float) -> Iterator[Waiting]:
    group = next((one for one in client.xinfo_groups(stream) if one["name"] == GROUP.encode()), None)
    read_to, oldest = b"0-0", b"0-0"
    if group is not None:
        read_to = group["last-delivered-id"]
        oldest = client.xpending(stream, GROUP)["min"] or read_to
    for entry in _entries_with(client, stream, intent_id, oldest):
        held = client.xpending_range(stream, GROUP, entry, entry, 1) if group is not None else []
        # What was read and is in nobody's hand is finished, and waits only to be trimmed.
        if not held and _place(entry) <= _place(read_to):
            continue
        at = moment(_place(entry)[0])
        yield Waiting(
            intent_id,
            route,
            stream,
            entry.decode(),
            at,
            max(0.0, now - at.timestamp()),
            held[0]["consumer"].decode("utf-8", "backslashreplace") if held else None,
            held[0]["time_since_delivered"] / 1000 if held else None,
            held[0]["times_delivered"] if held else 0,
        )


def _entries_with(client: Any, stream: str, intent_id: str, oldest: bytes) -> Iterator[bytes]:
    newest = "+"
    for _ in range(LOOKED_AT // _PAGE):
        rows = client.xrevrange(stream, newest, oldest, count=_PAGE)
        for entry, fields in rows:
            if readable_intent_id(_body(fields)) == intent_id:
                yield entry
        if len(rows) < _PAGE:
            return
        newest = f"({rows[-1][0].decode()}"


def _body(fields: dict[bytes, bytes]) -> bytes:
    body = fields.get(b"body", b"")
    if b"compression" not in fields:
        return body
    # With it comes kombu, which few need here.
    from worker.transport.unpack import unpacked

    try:
        return unpacked(body, fields[b"compression"].decode("utf-8", "replace"), _BYTES_MAX)
    except ValueError:
        return b""


def _place(entry: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number)
