"""Who is at the desk during a storm: an operator who lets trading go on, and a clerk who writes down the queue."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import redis

from contracts import OrderRecord, load_response
from worker.connection import connect
from worker.errors import Refused, Unavailable
from worker.keys import RouteKeys
from worker.ledger.control import Control

KEYS = RouteKeys("default")
_NAME = "kim@desk"
_GROUP = "clerk"


class _Person:
    """Comes by again and again, in a thread of their own. A Redis that is away is nothing to them."""

    _pause = 0.2

    def __init__(self, url: str) -> None:
        self._client: Any = connect(url, client_name=f"soak-{type(self).__name__.lower()}")
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(30)
        self._client.close()

    def _run(self) -> None:
        try:
            while not self._closing.wait(self._pause):
                with suppress(redis.RedisError, Unavailable):
                    self._look()
        except BaseException as error:  # noqa: BLE001  the storm must tell of it
            self.failure = error

    def _look(self) -> None:
        raise NotImplementedError


class Operator(_Person):
    """Resets the guard whenever it has tripped, and resumes whatever was halted, in a name and with a reason."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.counts: Counter[str] = Counter()
        self._desk = Control(self._client, "default")
        self._drill = False

    def halt(self) -> None:
        """A drill: until `resume` nothing may launch."""
        self._drill = True
        with suppress(redis.RedisError, Unavailable):
            self._desk.halt("lee@desk", "a drill")

    def resume(self) -> None:
        """The drill is over: at the next look all goes on."""
        self._drill = False

    def decide(self, book: Sequence[OrderRecord]) -> None:
        """
        End the doubts that only a named person may end: there are orders of the same symbol and side that belong to
        nobody, and not just the one that matches. Whatever evidence can end is left to end by itself.
        """
        owned = {
            load_response(fields[b"body"]).broker_order_id
            for _, fields in self._client.xrange(KEYS.responses)
        }
        nobodys = [row for row in book if row.broker_order_id not in owned and not row.client_order_id]
        for doubt in self._desk.doubts():
            strangers = [row for row in nobodys if (row.symbol, row.side) == (doubt.symbol, doubt.side)]
            wanted = (doubt.quantity, doubt.limit_price and Decimal(doubt.limit_price))
            matching = [row for row in strangers if (str(row.quantity), row.limit_price) == wanted]
            if not strangers or len(strangers) == len(matching) == 1:
                continue
            number = matching[0].broker_order_id if matching else None
            with suppress(Refused):
                self._desk.resolve_by_hand(
                    doubt.intent_id,
                    broker_order_id=number,
                    not_placed=number is None,
                    actor=_NAME,
                    reason="seen in the broker's own book",
                )
                self.counts["doubts that a person had to end"] += 1

    def _look(self) -> None:
        guard, halted, why = self._client.hmget(KEYS.state, "guard_state", "halted", "halt_reason")
        if guard in (b"FAIL", b"LOCKDOWN"):
            with suppress(Refused):
                self._desk.reset_guard(_NAME, "the storm goes on", approve=guard == b"LOCKDOWN")
                self.counts["guard resets"] += 1
        if halted == b"1" and not self._drill:
            self._desk.resume(_NAME, "the storm goes on")
            self.counts[f"resumed after: {(why or b'').decode()[:60]}"] += 1


class Clerk(_Person):
    """
    Keeps every entry of the queue, in order. What the workers have settled is trimmed away meanwhile, but not before
    it was written down: the clerk is a consumer group of their own, and acknowledges what is on paper.
    """

    _pause = 0.05

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._noted: dict[str, dict[str, bytes]] = {KEYS.cancels: {}, KEYS.intents: {}}
        for stream in self._noted:
            self._client.xgroup_create(stream, _GROUP, "0", mkstream=True)

    def queue(self) -> list[tuple[str, bytes]]:
        """Entry id and bytes of everything there ever was, cancels first."""
        self._look()
        return [
            (entry, noted[entry])
            for noted in self._noted.values()
            for entry in sorted(noted, key=lambda entry: tuple(map(int, entry.split("-"))))
        ]

    def _look(self) -> None:
        for stream, noted in self._noted.items():
            # What was handed over when the reply was lost, and then what is new.
            for position in ("0", ">"):
                while self._note(stream, noted, position):
                    pass

    def _note(self, stream: str, noted: dict[str, bytes], position: str) -> int:
        found = self._client.xreadgroup(_GROUP, "clerk", {stream: position}, count=500)
        rows = found[0][1] if found else []
        for entry, fields in rows:
            noted[entry.decode()] = (fields or {}).get(b"body", b"")
        if rows:
            self._client.xack(stream, _GROUP, *(entry for entry, _ in rows))
        return len(rows)
