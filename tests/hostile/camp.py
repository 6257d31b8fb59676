"""The besieged: a real worker on a real Redis, and what a siege of it showed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import RedisServer
from tests.desk import KEYS, unfinished
from tests.hostile.mill import Entry, Mill
from tests.hostile.siege import Fault, Fed, Judge, feed, gather
from tests.process.workers import Floor

#: Seconds in which something has to become less, or else it is stuck.
_PATIENCE = 90.0


class Camp:
    """One worker with the simulated broker."""

    def __init__(self, server: RedisServer, folder: Path, seed: int) -> None:
        self._floor = Floor(server, folder, lease=2.0, order_timeout=1.0)
        self._client: Any = self._floor.client
        self._client.flushall()
        self._worker = self._floor.worker()
        self._mill = Mill(seed)
        self._read = 0
        self.judge = Judge()
        #: Entries fed so far, orders at the broker, and seconds that the worker took.
        self.fed, self.orders, self.seconds = 0, 0, 0.0

    @property
    def rss(self) -> int:
        """The worker's memory, in bytes."""
        return int(psutil.Process(self._worker.pid).memory_info().rss)

    def run(self, entries: int, *, chunk: int, told: Callable[[Camp], None] = lambda _: None) -> list[Fault]:
        """Feed so many, chunk after chunk, each to its end. Stops at the first chunk in which a promise is broken."""
        for first in range(self.fed, self.fed + entries, chunk):
            faults = self._chunk(
                [(number, self._mill.entry(number)) for number in range(first, first + chunk)]
            )
            self.fed += chunk
            if faults:
                return faults
            told(self)
        return []

    def errors(self) -> list[str]:
        """The worker's log lines of level error."""
        lines = [line for line in self._worker.log.splitlines() if '"error"' in line]
        return [line for line in lines if json.loads(line)["level"] == "error"]

    def close(self) -> None:
        self._floor.close()

    def _chunk(self, entries: list[tuple[int, Entry]]) -> list[Fault]:
        began = time.monotonic()
        fed = feed(self._client, entries)
        stuck = self._wait(fed)
        self.seconds += time.monotonic() - began
        if stuck:
            return stuck
        booked = self._booked()
        self.orders += len(booked)
        return self.judge.judge(fed, gather(self._client, booked))

    def _booked(self) -> list[str]:
        """The intent_id of each order that came into the book since the last look."""
        if not self._floor.book_file.exists():
            return []
        with self._floor.book_file.open("rb") as book:
            book.seek(self._read)
            lines = book.readlines()
            self._read = book.tell()
        return [row["intent_id"] for row in map(json.loads, lines) if "intent_id" in row]

    def _wait(self, fed: list[Fed]) -> list[Fault]:
        before: dict[str, int] = {}
        give_up = time.monotonic() + _PATIENCE
        while left := unfinished(self._client):
            if left != before:
                give_up, before = time.monotonic() + _PATIENCE, left
            if self._worker.ended:
                return [Fault(one, "the worker ended") for one in self._pending(fed)]
            if time.monotonic() > give_up:
                return [Fault(one, f"not at rest: {left}") for one in self._pending(fed)]
            time.sleep(0.02)
        return []

    def _pending(self, fed: list[Fed]) -> list[Fed]:
        ids = {
            one["message_id"].decode()
            for stream in (KEYS.intents, KEYS.cancels)
            for one in self._client.xpending_range(stream, "workers", "-", "+", 100)
        }
        return [one for one in fed if one.entry_id in ids] or fed[-1:]
