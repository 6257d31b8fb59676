"""What the demo came to, read from the streams and the broker's book. Nothing here is remembered by the demo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import redis

from contracts import (
    ExecutionIntent,
    ExecutionResponse,
    FailsafeEvent,
    FailsafeType,
    GuardState,
    load_event,
    load_order_event,
    load_response,
)
from worker.demo.broker import BookedOrder
from worker.keys import RouteKeys
from worker.ledger.control import Control


@dataclass(frozen=True, slots=True)
class Tally:
    """The end state of the demo's route."""

    #: The ids that were asked.
    asked: tuple[str, ...]
    answers: tuple[ExecutionResponse, ...]
    events: tuple[FailsafeEvent, ...]
    #: Reasons of the dead letters.
    dead: tuple[str, ...]
    #: The last word on each order, by its number.
    fills: dict[str, Decimal]
    #: What the broker's book says is filled of each.
    booked_fills: dict[str, Decimal]
    #: (intent_id, order number) of each order that the broker holds; no intent_id where it is nobody's.
    orders: tuple[tuple[str, str], ...]
    doubts_open: int
    guard: GuardState

    @property
    def doubles(self) -> int:
        """Orders that the broker holds beyond the first of their intent."""
        return len(self.orders) - len({intent_id for intent_id, _ in self.orders})

    @property
    def fills_are_told(self) -> bool:
        return {number: told for number, told in self.fills.items() if told} == self.booked_fills

    @property
    def outcomes(self) -> dict[str, int]:
        return dict(Counter(str(answer.outcome) for answer in self.answers))

    @property
    def is_true(self) -> bool:
        return all(holds for _, holds in self.claims)

    @property
    def claims(self) -> list[tuple[str, bool]]:
        """What this project promises, and whether it was so here."""
        answered = Counter(answer.intent_id for answer in self.answers)
        accepted = {(one.intent_id, one.broker_order_id) for one in self.answers if one.accepted}
        resets = [one for one in self.events if one.type is FailsafeType.GUARD_RESET]
        opened = self.count(FailsafeType.INTENT_IN_DOUBT)
        trips = self.count(FailsafeType.GUARD_TRIPPED)
        denied = [one for one in self.answers if one.broker == "failsafe"]
        return [
            ("every intent has one answer, and no answer is nobody's", answered == Counter(self.asked)),
            ("no intent was placed twice", self.doubles == 0),
            (
                "what was answered ACCEPTED is in the broker's book, under that number, and nothing else is",
                accepted == set(self.orders),
            ),
            (
                "what was told of fills is what the book says, and some orders were filled",
                self.fills_are_told and bool(self.booked_fills),
            ),
            (
                "no doubt is open; each that was opened was ended by evidence",
                self.doubts_open == 0 and 0 < opened == self.count(FailsafeType.DOUBT_RESOLVED),
            ),
            (
                "while the guard was tripped, nothing was sent",
                trips == 1 and bool(denied) and all(one.attempts == 0 for one in denied),
            ),
            (
                "a named person reset it, once, and trading goes on",
                len(resets) == 1 and bool(resets[0].actor) and self.guard is GuardState.NORMAL,
            ),
            ("the one conflict lies in the dead letters", self.dead == ("conflict",)),
        ]

    def count(self, kind: FailsafeType) -> int:
        return sum(event.type is kind for event in self.events)

    def figures(self) -> dict[str, Any]:
        """The numbers, for programs."""
        return {
            "intents": len(self.asked),
            "answers": len(self.answers),
            "outcomes": self.outcomes,
            "orders": len(self.orders),
            "doubles": self.doubles,
            "filled": len(self.booked_fills),
            "doubts_opened": self.count(FailsafeType.INTENT_IN_DOUBT),
            "doubts_open": self.doubts_open,
            "guard": self.guard,
            "dead": len(self.dead),
        }

    def lines(self) -> list[tuple[str, str]]:
        """The numbers, for people."""
        outcomes = ", ".join(f"{number} {name}" for name, number in sorted(self.outcomes.items()))
        opened = self.count(FailsafeType.INTENT_IN_DOUBT)
        return [
            ("intents asked", str(len(self.asked))),
            ("answers", f"{len(self.answers)}: {outcomes}"),
            ("orders in the book", str(len(self.orders))),
            ("orders placed twice", str(self.doubles)),
            ("orders filled so far", str(len(self.booked_fills))),
            (
                "doubts open",
                f"{self.doubts_open} ({opened} opened, {self.count(FailsafeType.DOUBT_RESOLVED)} resolved)",
            ),
            ("guard", str(self.guard)),
            ("dead letters", f"{len(self.dead)}: {', '.join(self.dead) or 'none'}"),
        ]


def read_tally(
    client: redis.Redis,
    control: Control,
    route: str,
    asked: Sequence[ExecutionIntent],
    book: Iterable[BookedOrder],
) -> Tally:
    """Read what there is now."""
    keys, status = RouteKeys(route), control.status()
    events = [load_order_event(fields[b"body"]) for fields in _entries(client, keys.orders)]
    book = list(book)
    return Tally(
        asked=tuple(intent.intent_id for intent in asked),
        answers=tuple(load_response(fields[b"body"]) for fields in _entries(client, keys.responses)),
        events=tuple(load_event(fields[b"body"]) for fields in _entries(client, keys.failsafe)),
        dead=tuple(fields[b"reason"].decode() for fields in _entries(client, keys.dead)),
        fills={event.broker_order_id: event.filled_quantity for event in events},
        booked_fills={row.number: Decimal(row.filled) for row in book if row.filled},
        orders=tuple(owned_orders(book, asked)),
        doubts_open=status.in_doubt,
        guard=status.guard_state,
    )


def owned_orders(book: Iterable[BookedOrder], asked: Iterable[ExecutionIntent]) -> list[tuple[str, str]]:
    """(intent_id, order number) of each order of the book, by what it is an order for."""
    owners = {
        (intent.symbol, intent.side, intent.quantity, intent.limit_price): intent.intent_id
        for intent in asked
    }
    return [
        (owners.get((row.symbol, row.side, Decimal(row.quantity), row.price), ""), row.number) for row in book
    ]


def _entries(client: redis.Redis, stream: str) -> list[dict[bytes, bytes]]:
    found: Any = client.xrange(stream)
    return [fields for _, fields in found]
