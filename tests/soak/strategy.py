"""A producer with a retry habit, and all the bad habits that producers have besides."""

from __future__ import annotations

import csv
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import redis

from contracts import ExecutionIntent, IntentType, Side
from worker.connection import connect
from worker.errors import Unavailable
from worker.keys import RouteKeys
from worker.producer import IntentProducer, read_after

KRX200 = Path(__file__).parents[1] / "data/krx200.csv"
#: Seconds without an answer after which an intent is enqueued again, under the same id; the pause doubles up to the other.
PATIENCE, PATIENCE_MAX = 2.0, 16.0
#: Intents enqueued again in one go.
_AGAIN = 50
_TURN = 0.05


@dataclass(slots=True)
class _Wish:
    intent: ExecutionIntent
    #: When it was enqueued last, on the monotonic clock.
    at: float = 0.0
    times: int = 0

    @property
    def due(self) -> float:
        return self.at + min(PATIENCE * 2.0 ** (self.times - 1), PATIENCE_MAX)


class Strategy:
    """Sends intents until told to `hold_back`; asks again for what is unanswered until it is closed."""

    def __init__(self, url: str, seed: int, rate: float, symbols: frozenset[str] | None) -> None:
        self.counts: Counter[str] = Counter()
        self._dice = random.Random(f"strategy {seed}")
        self._rows = [row for row in _rows() if symbols is None or row["symbol"] in symbols]
        #: Kept out of everything: what is needed at the end stands in nobody's way.
        self._spare = self._rows.pop()
        self._rate = rate
        self._url = url
        self._open: dict[str, _Wish] = {}
        self._recent: deque[ExecutionIntent] = deque(maxlen=40)
        self._lock = threading.Lock()
        self._holds_back = threading.Event()
        self._closing = threading.Event()
        self._number = 0
        self._position = "0-0"
        self._thread = threading.Thread(target=self._run, name="strategy", daemon=True)
        #: What ended its thread, if anything did.
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def hold_back(self) -> None:
        """Nothing new from now on."""
        self._holds_back.set()

    def harmless(self) -> None:
        """One more order, of a symbol that nobody else trades. The broker's list then reaches past all others."""
        self._enqueue([self._order(self._spare, "later", IntentType.LIMIT)])

    @property
    def unanswered(self) -> list[str]:
        with self._lock:
            return list(self._open)

    def close(self) -> None:
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(30)

    def _run(self) -> None:
        try:
            client: Any = connect(self._url, client_name="soak-strategy")
            # Its own patience is the habit: an error is no answer, and it asks again later.
            with IntentProducer(client, patience=0.1) as self._producer:
                self._trade(client)
            client.close()
        except BaseException as error:  # noqa: BLE001  the storm must tell of it
            self.failure = error

    def _trade(self, client: Any) -> None:
        due = time.monotonic()
        while not self._closing.wait(_TURN):
            now = time.monotonic()
            fresh: list[ExecutionIntent] = []
            while not self._holds_back.is_set() and due <= now:
                due += self._dice.expovariate(self._rate)
                fresh += self._whim()
            # After a Redis that was away there is no flood.
            due = max(due, now - 1.0)
            self._enqueue([*fresh, *self._forgotten(now)])
            with suppress(redis.RedisError):
                self._listen(client)

    def _listen(self, client: Any) -> None:
        stream = RouteKeys("default").responses
        for _, (position, fields) in read_after(client, {stream: self._position}, 0.0):
            self._position = position
            self.counts["answers"] += 1
            with self._lock:
                self._open.pop(fields[b"intent_id"].decode(), None)

    def _forgotten(self, now: float) -> list[ExecutionIntent]:
        with self._lock:
            found = [wish.intent for wish in self._open.values() if now > wish.due][:_AGAIN]
        self.counts["again"] += len(found)
        return found

    def _enqueue(self, intents: Sequence[ExecutionIntent]) -> None:
        if not intents:
            return
        now = time.monotonic()
        with self._lock:
            for intent in intents:
                # Another content under a known id is nothing to wait for.
                wish = self._open.setdefault(intent.intent_id, _Wish(intent))
                wish.at, wish.times = now, wish.times + 1
        with suppress(Unavailable):
            self._producer.enqueue_many(intents)

    def _whim(self) -> list[ExecutionIntent]:
        """One new intent, in one of many ways."""
        dice = self._dice.random()
        self.counts["intents"] += 1
        if dice < 0.08 and self._recent:
            return [self._cancel(self._dice.choice(self._recent))]
        row = self._dice.choice(self._rows)
        kind = IntentType.MARKET if dice > 0.95 else IntentType.LIMIT
        intent = self._order(row, "i", kind)
        if dice < 0.14:
            ends = intent.created_at + timedelta(seconds=self._dice.uniform(0.1, 2.0))
            intent = intent.model_copy(update={"expires_at": ends})
        elif dice < 0.16:
            intent = intent.model_copy(update={"created_at": intent.created_at - timedelta(seconds=3600)})
        elif dice < 0.17:
            self._number += 1
            return [
                ExecutionIntent(
                    intent_id=f"noop-{self._number}",
                    intent_type=IntentType.NOOP,
                    symbol=row["symbol"],
                    created_at=datetime.now(UTC),
                )
            ]
        self._recent.append(intent)
        if dice < 0.23:
            self.counts["duplicates"] += 1
            return [intent] * self._dice.randint(2, 4)
        if dice < 0.26:
            self.counts["conflicts"] += 1
            return [intent, intent.model_copy(update={"quantity": (intent.quantity or Decimal(0)) + 1})]
        if dice < 0.30:
            # Alike in everything but the id: two orders, and which is whose is hard to tell.
            self.counts["alike"] += 1
            self._number += 1
            return [intent, intent.model_copy(update={"intent_id": f"i-{self._number:06d}"})]
        return [intent]

    def _order(self, row: dict[str, str], label: str, kind: IntentType) -> ExecutionIntent:
        self._number += 1
        return ExecutionIntent(
            intent_id=f"{label}-{self._number:06d}",
            intent_type=kind,
            symbol=row["symbol"],
            side=Side(row["side"]) if self._dice.random() < 0.8 else self._dice.choice(list(Side)),
            quantity=Decimal(self._dice.randint(1, 300)),
            limit_price=Decimal(row["limit_price"]) if kind is IntentType.LIMIT else None,
            created_at=datetime.now(UTC),
        )

    def _cancel(self, target: ExecutionIntent) -> ExecutionIntent:
        self._number += 1
        self.counts["cancels"] += 1
        return ExecutionIntent(
            intent_id=f"c-{self._number:06d}",
            intent_type=IntentType.CANCEL,
            symbol=target.symbol,
            target_intent_id=target.intent_id,
            created_at=datetime.now(UTC),
        )


def _rows() -> list[dict[str, str]]:
    with KRX200.open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    # A lane to each symbol, and a price that is on its grid.
    return list({row["symbol"]: row for row in found if row["limit_price"]}.values())
