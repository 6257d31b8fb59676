"""What is put before the judge, and what is kept when the verdict is bad."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from contracts import ExecutionResponse, dump
from tests.crash.judge import History
from worker.keys import GROUP, RouteKeys

_KEYS = RouteKeys("default")


class Companion(Protocol):
    """A thread of the soak's own."""

    @property
    def failure(self) -> BaseException | None: ...


def unfinished(client: Any) -> dict[str, int]:
    """What is still to be done on the route. Empty when it is at rest."""
    left = {name: client.zcard(getattr(_KEYS, name)) for name in ("open", "doubts", "lanes")}
    for name in ("intents", "cancels"):
        stream = getattr(_KEYS, name)
        for group in client.xinfo_groups(stream):
            if group["name"] == GROUP.encode():
                # After a trim the server does not always know the lag.
                unread = client.xrange(stream, min=f"({group['last-delivered-id'].decode()}", count=1000)
                left[name] = group["pending"] + len(unread)
    return {name: count for name, count in left.items() if count}


def on_the_clock_of_redis(history: History) -> History:
    """
    The history with its answers dated as the audit trail dates them. A worker whose clock is wrong dates its own
    answers wrong; the promises about time are about Redis's clock.
    """
    at = {
        fact.intent_id: datetime.fromtimestamp(fact.at / 1000, UTC)
        for fact in history.audit
        if fact.event == "settled"
    }

    def dated(one: ExecutionResponse) -> ExecutionResponse:
        return one.model_copy(update={"timestamp": at.get(one.intent_id, one.timestamp)})

    return replace(
        history,
        responses=[dated(one) for one in history.responses],
        ledger={name: one and dated(one) for name, one in history.ledger.items()},
    )


def of_processes(fell: Mapping[int, int], **companions: Companion) -> Iterator[str]:
    """Workers that ended by themselves, and threads of the soak that did."""
    for code, count in sorted(fell.items()):
        yield f"process: {count} workers ended by themselves with exit code {code}"
    for name, one in companions.items():
        if one.failure is not None:
            yield f"soak: the {name} failed: {one.failure!r}"


def events(history: History) -> Counter[str]:
    """How often what was announced on the failsafe stream."""
    return Counter(str(one.type) for one in history.events)


def keep(history: History, folder: Path) -> None:
    """Write down everything that the judge has seen."""
    _lines(
        folder / "queue.jsonl", ([entry, body.decode("utf-8", "replace")] for entry, body in history.queue)
    )
    _lines(folder / "audit.jsonl", (fact._asdict() for fact in history.audit))
    _lines(folder / "orders.jsonl", (asdict(row) for row in history.book))
    _lines(folder / "dead.jsonl", history.dead)
    for name, found in (("responses", history.responses), ("events", history.events)):
        (folder / f"{name}.jsonl").write_bytes(b"\n".join(dump(one) for one in found))


def _lines(file: Path, rows: Any) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows), "utf-8")
