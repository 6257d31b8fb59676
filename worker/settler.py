"""The way out of the engine: what came back from the broker, or was denied, to its settlement and its acknowledgement."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from contracts import ExecutionIntent, ExecutionResponse, IntentType, Outcome, dump
from worker.brokers.base import AdapterFault
from worker.clock import Clock
from worker.hand import Answered, Ended, Hands, Held, InDoubt, Unsent
from worker.intake import Delivery
from worker.journal import Journal
from worker.ledger import Ledger
from worker.ledger.records import Handed, Settled, Settlement

#: Intents that one call to the ledger takes at most.
BATCH = 64

Effect = Literal["success", "failure", "none"]


class Acks(Protocol):
    """The queue's side: what is done with, and what must come back."""

    def ack(self, deliveries: Iterable[Delivery]) -> None: ...

    def release(self, deliveries: Iterable[Delivery]) -> None: ...


@dataclass(slots=True)
class End:
    """An intent on its way to its settlement."""

    held: Held
    settlement: Settlement
    response: ExecutionResponse | None


class Settler:
    """
    Settles what has ended, in batches of what is ready together. The engine's thread calls ``turn``, which raises
    ``Unavailable`` and ``StateLost`` as the ledger does and may then be called again: nothing is dropped before Redis
    has confirmed it.
    """

    def __init__(
        self,
        ledger: Ledger,
        hands: Hands,
        acks: Acks,
        journal: Journal,
        clock: Clock,
        *,
        count_rejected: bool,
        not_sent_retries: int,
        returned: Callable[[Held, float], None],
        hand: Callable[[Iterable[Handed]], None],
        room: Callable[[], int],
        wake: Callable[[], None],
        key_of: Callable[[ExecutionIntent], str],
    ) -> None:
        """
        ``returned`` takes an order that may be launched again after so many seconds; ``hand`` the lanes' next.
        ``key_of`` tells what a broker's row can show of an order, where rows carry no ids of ours.
        """
        self._ledger = ledger
        self._hands = hands
        self._acks = acks
        self._journal = journal
        self._clock = clock
        self._count_rejected = count_rejected
        self._not_sent_retries = not_sent_retries
        self._returned = returned
        self._hand = hand
        self._room = room
        self._wake = wake
        self._key_of = key_of
        self.is_leaving = False
        # Filled by other threads; deque.append is atomic.
        self._ended: deque[Ended] = deque()
        self._ends: deque[End] = deque()
        # Its own, until Redis has confirmed it.
        self._batch: list[End] = []

    def ended(self, ended: Sequence[Ended]) -> None:
        """Take orders back from the sender. Any thread."""
        self._ended.extend(ended)
        self._wake()

    def answer(self, held: Held, response: ExecutionResponse, effect: Effect | None = None) -> None:
        """Take an intent whose answer is known. Any thread."""
        settlement = Settlement(
            held.intent.intent_id,
            held.token,
            held.attempt,
            "answer",
            response.outcome,
            effect or self._effect(held, response.outcome),
            dump(response),
            held.reference,
            self._key_of(held.intent) if held.attempt else "",
            held.wire,
        )
        self._ends.append(End(held, settlement, response))
        self._wake()

    def ask(self) -> Callable[[], None] | None:
        """Begin to settle one batch, if there is one. What is returned waits for the answer, and ends it."""
        self._collect()
        while self._ends and len(self._batch) < BATCH:
            self._batch.append(self._ends.popleft())
        if not self._batch:
            return None
        started = self._clock.boottime()
        asked = self._ledger.ask_settle([one.settlement for one in self._batch], self._room())
        return lambda: self._settled(*asked.get(), started)

    def _settled(self, settled: list[Settled], handed: list[Handed], started: float) -> None:
        batch, self._batch = self._batch, []
        done: list[Delivery] = []
        lost: list[Delivery] = []
        for end, answer in zip(batch, settled, strict=True):
            # A doubt is the ledger's from here on. What is stale may be nobody's: it must come back.
            (lost if answer is Settled.STALE else done).extend(self._hands.forget(end.held))
        if handed:
            self._hand(handed)
        self._acks.ack(done)
        if lost:
            self._acks.release(lost)
        self._journal.settled(batch, settled, self._clock.boottime() - started)

    def is_empty(self) -> bool:
        return not (self._ended or self._ends or self._batch)

    def _collect(self) -> None:
        seconds: list[float] = []
        while self._ended:
            one = self._ended.popleft()
            match one:
                case Answered(held, response) if response.outcome is Outcome.NOT_SENT:
                    self._not_sent(held, response)
                case Answered(held, response):
                    held.in_flight = False
                    self.answer(held, response)
                case InDoubt(held, error):
                    held.in_flight = False
                    self._doubt(held, error)
                case Unsent(held):
                    self._returned(held, 0.0)
                    continue
            seconds.append(one.seconds)
        if seconds:
            self._journal.submitted(seconds)

    def _not_sent(self, held: Held, response: ExecutionResponse) -> None:
        self._journal.broker_failure(held, "not_sent", response.message)
        if self.is_leaving or held.retries >= self._not_sent_retries:
            held.in_flight = False
            self.answer(held, response)
            return
        # In the ledger's eyes it is in flight: only this token may launch it again.
        held.retries += 1
        self._returned(held, 0.05 * 2**held.retries * (0.5 + random.random()))

    def _doubt(self, held: Held, error: Exception) -> None:
        is_bug = isinstance(error, AdapterFault)
        self._journal.broker_failure(
            held, "bug" if is_bug else "in_doubt", str(error), error if is_bug else None
        )
        settlement = Settlement(
            held.intent.intent_id,
            held.token,
            held.attempt,
            "doubt",
            getattr(error, "safety_code", None) or "FS042",
            "bug" if is_bug else "none",
            str(error)[:500],
            wire=held.wire,
        )
        self._ends.append(End(held, settlement, None))

    def _effect(self, held: Held, outcome: Outcome) -> Effect:
        if held.intent.intent_type is IntentType.CANCEL:
            return "none"
        if outcome is Outcome.ACCEPTED:
            return "success"
        if outcome is Outcome.NOT_SENT or (outcome is Outcome.REJECTED and self._count_rejected):
            return "failure"
        return "none"
