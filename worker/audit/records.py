"""What an entry of the audit trail tells. A script writes one entry for all that one call of it did."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from worker.audit.chain import Entry

#: The last second of the year 9999.
_LAST: Final = 253_402_300_799_000


class Record(NamedTuple):
    """One thing that happened."""

    at: datetime
    event: str
    #: Empty where it is about no single intent.
    intent_id: str
    #: A worker's name, or a person's.
    worker: str
    detail: str
    #: The end of the claim's token under which it was done, where there is one.
    claim: str
    #: Of a claim: the queue's entry, which tells when it was enqueued.
    entry: str


def records_of(entry: Entry) -> list[Record]:
    """Everything in an entry, in its order. What is no record of ours is left out."""
    at = moment(entry.place[0])
    worker = entry.fields.get(b"worker", b"").decode("utf-8", "backslashreplace")
    text = entry.fields.get(b"records", b"").decode("utf-8", "backslashreplace")
    try:
        rows: Any = json.loads(text)
    except (ValueError, RecursionError):
        return []
    found = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, list) and len(row) >= 3 and all(isinstance(cell, str) for cell in row):
            event, intent_id, detail, claim, source, *_ = [*row, "", ""]
            found.append(Record(at, event, intent_id, worker, detail, claim, source))
    return found


def moment(milliseconds: int) -> datetime:
    """A time of Redis's. Whoever gives an entry an id of their own may have put it beyond all years."""
    return datetime.fromtimestamp(min(milliseconds, _LAST) / 1000, UTC)
