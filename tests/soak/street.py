"""The brokers of a run: how a route is set up for each, what can befall them, and the book they keep."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol

from contracts import OrderRecord
from tests.soak.child import QUICK
from worker.brokers.book import FileBook


class Street(Protocol):
    """A broker, as the storm sees it."""

    #: How many of each fault it has met.
    met: Counter[str]

    def route(self) -> dict[str, str]:
        """Settings of the route, by name."""

    def symbols(self) -> frozenset[str] | None:
        """The only symbols that it trades; ``None`` for any."""

    def strike(self, kind: str, choice: float, seconds: float) -> None:
        """A fault begins."""

    def relent(self, kind: str) -> None:
        """A fault ends."""

    def orders(self) -> int:
        """How many orders there are on its book, or a little less."""

    def book(self) -> list[OrderRecord]: ...

    def close(self) -> None: ...


class SimulatedStreet:
    """The simulated broker: in the workers themselves, with a book in one file."""

    _LUCK = ("lose_reply_rate", "fail_rate", "reject_rate", "latency")

    def __init__(self, folder: Path) -> None:
        self.met: Counter[str] = Counter()
        self._file, self._faults = folder / "book.jsonl", folder / "faults.json"

    def route(self) -> dict[str, str]:
        return {
            "BROKER": "simulated",
            "OPTIONS__BOOK": str(self._file),
            "OPTIONS__FAULTS": str(self._faults),
            "OPTIONS__LATENCY": "0.01",
        }

    def symbols(self) -> None:
        return None

    def strike(self, kind: str, choice: float, seconds: float) -> None:
        name = self._LUCK[int(choice * len(self._LUCK))]
        self.met[name] += 1
        self._write({name: 0.4})

    def relent(self, kind: str) -> None:
        self._write({})

    def orders(self) -> int:
        return self._file.read_bytes().count(b'"intent_id"') if self._file.exists() else 0

    def book(self) -> list[OrderRecord]:
        found = FileBook(self._file, orders_max=1_000_000)
        try:
            orders, whole = found.since(datetime.fromisoformat("2000-01-01T00:00:00+00:00"))
            assert whole
            return orders
        finally:
            found.close()

    def close(self) -> None:
        pass

    def _write(self, faults: Mapping[str, float]) -> None:
        # In one step: a worker may read it at any moment.
        new = self._faults.with_suffix(".new")
        new.write_text(json.dumps(faults), "utf-8")
        os.replace(new, self._faults)


def environ_of(redis_url: str, route: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker with these settings of its route."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("EXECWORKER_", "SOAK_"))
    }
    settings = {f"EXECWORKER_ROUTES__DEFAULT__{name}": value for name, value in route.items()}
    own = {
        "EXECWORKER_REDIS_URL": redis_url,
        "EXECWORKER_METRICS_PORT": "0",
        "PYTHONWARNINGS": "error",
        QUICK: "1",
    }
    return {**clean, **settings, **own, "EXECWORKER_DRAIN_TIMEOUT": "5"}
