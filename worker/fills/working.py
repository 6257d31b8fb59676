"""The orders that are followed, in Redis, for all workers of the route."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from contracts import (
    ContractError,
    ExecutionResponse,
    OrderEvent,
    OrderStatus,
    SafetyCode,
    dump,
    load_response,
)
from worker.clock import Clock
from worker.connection import is_unavailable
from worker.errors import Unavailable
from worker.fills.life import Life, dump_life, load_life
from worker.keys import RouteKeys
from worker.script import Script

_FIELD = "order:"
_POSITION = "position"
#: Answers that are read in one go.
ANSWERS = 200
#: How often a write is tried again that another worker's write made void. Two workers do this at once for moments only.
_TRIES = 20

_PUBLISH = Script("worker.fills", "publish")

#: The next life of an order from its last; ``None`` for one that is not followed so far.
Seen = Callable[[Life | None], Life | None]


@dataclass(frozen=True, slots=True)
class _Change:
    field: str
    old: bytes
    new: bytes
    event: OrderEvent | None

    @property
    def args(self) -> tuple[str | bytes, ...]:
        return self.field, self.old, self.new, dump(self.event) if self.event else b""


class Working:
    """
    One route's accepted orders until they are over. Every method raises ``Unavailable`` when Redis does not answer:
    make the same call again; what it published is not published twice.
    """

    def __init__(
        self,
        client: redis.Redis,
        route: str,
        broker: str,
        clock: Clock,
        unreadable: Callable[[str, str], None] = lambda _entry, _why: None,
    ) -> None:
        """``unreadable`` hears of each answer that is none: its entry, and why."""
        self._client: Any = client
        self._keys = RouteKeys(route)
        self._broker = broker
        self._clock = clock
        self._unreadable = unreadable

    def lead(self, worker: str, seconds: float) -> bool:
        """Whether it is this worker that follows the orders for all, for so long from now."""
        with _unavailable():
            key, lease = self._keys.follower, round(seconds * 1000)
            if self._client.set(key, worker, nx=True, px=lease):
                return True
            # Two that both hold it for a moment publish nothing twice.
            if self._client.get(key) != worker.encode():
                return False
            return bool(self._client.pexpire(key, lease))

    def resign(self, worker: str) -> None:
        """Let another worker follow at once."""
        with _unavailable():
            if self._client.get(self._keys.follower) == worker.encode():
                self._client.delete(self._keys.follower)

    def lives(self) -> list[Life]:
        """Every order that is followed, or was heard of."""
        with _unavailable():
            fields = self._client.hgetall(self._keys.working)
        return [load_life(text) for name, text in fields.items() if name != _POSITION.encode()]

    def take_answers(self) -> tuple[int, list[OrderEvent]]:
        """Follow the orders of the next answers. Returns how many answers were read, and the events published."""
        for _ in range(_TRIES):
            with _unavailable():
                position = self._client.hget(self._keys.working, _POSITION) or b""
                after = f"({position.decode()}" if position else "-"
                answers = self._client.xrange(self._keys.responses, after, "+", count=ANSWERS)
            if not answers:
                return 0, []
            seen, odd = _read(answers)
            # What was seen of an order before its answer came from notices.
            written = self._write(seen, "notice", position, answers[-1][0])
            if written is not None:
                for entry, why in odd:
                    self._unreadable(entry, why)
                return len(answers), written
        return 0, []

    def see(self, seen: dict[str, Seen], seen_by: str) -> list[OrderEvent]:
        """Take in what a witness saw of these orders, by the broker's numbers. Returns the events published."""
        for _ in range(_TRIES):
            with _unavailable():
                position = self._client.hget(self._keys.working, _POSITION) or b""
            written = self._write(seen, seen_by, position, position)
            if written is not None:
                return written
        raise Unavailable("the followed orders are written by somebody else all the time")

    def _write(
        self, seen: dict[str, Seen], seen_by: str, position: bytes, position_new: bytes
    ) -> list[OrderEvent] | None:
        with _unavailable():
            names = [_FIELD + number for number in seen]
            olds = self._client.hmget(self._keys.working, names) if names else []
        changes = [
            change
            for name, old, look in zip(names, olds, seen.values(), strict=True)
            if (change := self._change(name, old or b"", look, seen_by)) is not None
        ]
        if not changes and position == position_new:
            return []
        args = [position, position_new, *(arg for change in changes for arg in change.args)]
        with _unavailable():
            how = _PUBLISH(self._client, [self._keys.working, self._keys.orders], *args)
        return [one.event for one in changes if one.event] if how == b"written" else None

    def _change(self, name: str, old: bytes, look: Seen, seen_by: str) -> _Change | None:
        before = load_life(old) if old else None
        after = look(before)
        if after is None:
            return _Change(name, old, b"", None) if before else None
        new = b"" if after.is_over else dump_life(after)
        if new == old:
            return None
        was_told = before is not None and before.is_known and before.shown == after.shown
        event = self._event(after, seen_by) if after.is_known and not was_told else None
        return _Change(name, old, new, event)

    def _event(self, life: Life, seen_by: str) -> OrderEvent:
        return OrderEvent(
            intent_id=life.intent_id,
            route=self._keys.route,
            broker=self._broker,
            broker_order_id=life.broker_order_id,
            symbol=life.symbol,
            status=life.status,
            filled_quantity=life.filled,
            average_price=life.average_price,
            seen_by=seen_by,
            safety_code=_safety_code(life),
            message=life.message,
            timestamp=self._clock.now(),
        )


def _read(answers: list[tuple[bytes, dict[bytes, bytes]]]) -> tuple[dict[str, Seen], list[tuple[str, str]]]:
    """The accepted orders of these answers; and the entries that are none, which must not hold up those behind them."""
    seen, odd = {}, []
    for entry, fields in answers:
        if b"target" in fields:
            continue
        try:
            one = load_response(fields.get(b"body", b""))
        except ContractError as error:
            odd.append((entry.decode(), str(error)))
            continue
        if one.accepted and one.broker_order_id:
            seen[one.broker_order_id] = _answered(one)
    return seen, odd


def _answered(answer: ExecutionResponse) -> Seen:
    number = answer.broker_order_id or ""
    since = round((answer.sent_at or answer.timestamp).timestamp() * 1000)
    return lambda life: (life or Life(number, since)).after_answer(answer.intent_id)


def _safety_code(life: Life) -> SafetyCode | None:
    if life.status is OrderStatus.REFUSED:
        return SafetyCode.FS040
    return SafetyCode.FS041 if life.filled and life.average_price is None else None


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        if not is_unavailable(error):
            raise
        raise Unavailable(f"Redis does not answer: {error}") from error
