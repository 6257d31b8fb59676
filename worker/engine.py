"""
The flow of one intent on one route, from a delivery to its end, in batches of what is ready together.

::

    deliver ─▶ read ─▶ claim ─▶ ready ─▶ launch ─▶ sender ─▶ ended ─▶ settle ─▶ ack
                 │                 ▲        │                            │
               bury                │        └── barred ─────────────────▶│
           (dead letters)          └─────────── the lane's next ◀────────┘

What can leave at once is launched together with its claim. One thread calls ``turn``; others only hand things in.
While Redis works one batch's claims and another's settlements, this thread reads the next and feeds the broker.
Every step keeps what it works on until Redis has confirmed it, so after an outage the same call is made again.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count, islice
from pathlib import Path
from typing import Protocol

from contracts import (
    Code,
    ContractError,
    ExecutionIntent,
    ExecutionResponse,
    IntentType,
    Outcome,
    dump,
    load_intent,
)
from worker import answers
from worker.brokers.base import BrokerEngine
from worker.brokers.noop import NoopBroker
from worker.cancels import decide_cancel
from worker.clock import Clock
from worker.evidence import order_key
from worker.hand import Ended, Hands, Held
from worker.intake import Delivery
from worker.journal import Journal
from worker.ledger import Ledger
from worker.ledger.records import (
    Barred,
    Buried,
    Claim,
    Conflict,
    Gate,
    Granted,
    Handed,
    Known,
    Later,
    Launched,
    Parked,
    Stale,
)
from worker.reading import ORDERS, Burial, Candidate, Reader
from worker.settler import BATCH, Acks, Settler
from worker.transport import padded

#: Orders that an instant broker is given ahead: two batches.
DEPTH_MAX = 2 * BATCH
#: Parked intents whose parsed form is kept, so that their turn costs no second parse.
KEPT_MAX = 4096


class Outbox(Protocol):
    """Takes launched orders, and brings each back through ``Engine.ended``."""

    @property
    def in_flight(self) -> int: ...

    def room(self) -> int: ...

    def send(self, batch: Sequence[Held]) -> None: ...

    def turn(self) -> bool:
        """Do what is to be done in the caller's own thread. True: something was."""


@dataclass(frozen=True, slots=True)
class EngineRules:
    """The settings that the engine goes by. Durations in seconds."""

    route: str
    max_age: float = 60.0
    count_rejected: bool = True
    concurrency: int = 8
    #: How often an order that provably never left is launched again, expiry permitting.
    not_sent_retries: int = 3
    #: While this file exists nothing is launched here, whatever Redis says.
    halt_file: Path | None = None
    default_venue: str | None = None
    #: The broker's rows carry no ids of ours: orders are known by their keys.
    order_keys: bool = False


class Engine:
    """One route's engine. ``turn`` raises ``Unavailable`` and ``StateLost`` as the ledger does, and may be called again."""

    def __init__(
        self,
        ledger: Ledger,
        broker: BrokerEngine,
        rules: EngineRules,
        acks: Acks,
        journal: Journal,
        clock: Clock,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """``wake`` ends the wait of the thread that calls ``turn``."""
        self._ledger = ledger
        self._broker = broker
        self._rules = rules
        self._acks = acks
        self._journal = journal
        self._clock = clock
        self._wake = wake
        #: The thread that turns it.
        self._turner: int | None = None
        self.orders: Outbox
        self.cancels: Outbox
        self.hands = Hands()
        self.settler = Settler(
            ledger,
            self.hands,
            acks,
            journal,
            clock,
            count_rejected=rules.count_rejected,
            not_sent_retries=rules.not_sent_retries,
            returned=self._take_back,
            hand=self.hand,
            room=self.room,
            wake=self.wake,
            key_of=order_key if rules.order_keys else lambda _: "",
        )
        self._reader = Reader(rules.route, rules.max_age, clock)

        # Filled by other threads; deque.append is atomic.
        self._delivered: deque[Delivery] = deque()
        self._handed: deque[Handed] = deque()
        self._returned: deque[tuple[Held, float]] = deque()
        # Its own.
        self._arrived: deque[Candidate | Burial] = deque()
        self._urgent: deque[Candidate] = deque()
        self._candidates: list[Candidate] = []
        self._burials: deque[Burial] = deque()
        self._ready: deque[Held] = deque()
        self._cancels: deque[Held] = deque()
        self._delayed: list[tuple[float, int, Held]] = []
        self._kept: OrderedDict[str, tuple[bytes, ExecutionIntent]] = OrderedDict()
        self._count = count()
        self.is_draining = False

    # What other threads call.

    def deliver(self, delivery: Delivery) -> None:
        """Take one delivery from the queue. Another thread than that of ``turn`` then calls `wake`."""
        self._delivered.append(delivery)

    def hand(self, handed: Iterable[Handed]) -> None:
        """Take intents that the ledger has handed to this worker."""
        self._handed.extend(handed)
        self.wake()

    def ended(self, ended: Sequence[Ended]) -> None:
        """Take orders back from the sender."""
        self.settler.ended(ended)

    def _take_back(self, held: Held, seconds: float) -> None:
        # It never left, and is ours for as long as it waits for its next launch.
        held.send_before = math.inf
        self._returned.append((held, seconds))

    def wants_more(self) -> bool:
        """Whether the intake should go on reading intents."""
        return not self.is_draining and len(self._delivered) + len(self._arrived) < 2 * BATCH

    def room(self) -> int:
        """How many intents it would take from the ledger now."""
        if self.is_draining:
            return 0
        in_work = len(self._ready) + len(self._handed) + self.orders.in_flight
        return max(0, self._depth() * 3 // 2 - in_work)

    def appetite(self) -> int:
        """How many deliveries it would hold unanswered: what keeps the broker busy, the rest is left to other workers."""
        return 3 * self._depth()

    def _depth(self) -> int:
        """How many orders keep the broker busy: one for each thread, or more where it answers at once."""
        busy = self.orders.room() + self.orders.in_flight
        return max(self._rules.concurrency, min(busy, DEPTH_MAX))

    def wake(self) -> None:
        """Let the next turn be soon. In a turn there is nobody to wake."""
        if threading.get_ident() != self._turner:
            self._wake()

    def is_empty(self) -> bool:
        """Nothing is in hand."""
        arrived = self._delivered or self._urgent or self._arrived or self._candidates or self._burials
        on_the_way = arrived or self._handed or self._returned
        return self.hands.is_empty() and self.settler.is_empty() and not on_the_way

    def has_to_settle(self) -> bool:
        """Whether it holds evidence that the ledger does not have yet, or soon will."""
        return not self.settler.is_empty() or self.hands.any_in_flight()

    # The engine's thread.

    def turn(self) -> bool:
        """Do once what is ready. True: something was done, and there may be more at once."""
        self._turner = threading.get_ident()
        settle = self.settler.ask()
        if not self._arrived:
            self._read()
        claim = self._ask_claim()
        # Meanwhile, what needs no answer.
        done = self._send_in_place() | self._read()
        for answer in (settle, claim):
            if answer is not None:
                answer()
                done = True
        self._take_in()
        done |= self.is_draining and self._give_back()
        done |= self._bury()
        while self._cancel():
            done = True
        done |= self._launch()
        if not self._arrived:
            done |= self._send_in_place()
        return done or not self.settler.is_empty()

    def _send_in_place(self) -> bool:
        return self.orders.turn() | self.cancels.turn()

    def patience(self, seconds: float) -> float:
        """How long nothing needs to be done, as far as it can tell now; at most so many seconds."""
        if self._delayed:
            return min(seconds, max(0.001, self._delayed[0][0] - self._clock.boottime()))
        return seconds

    def drain(self) -> None:
        """From here on take no more, and give back what was not launched. What is in flight still has to be settled."""
        self.is_draining = self.settler.is_leaving = True

    def _give_back(self) -> bool:
        """Whatever was not launched, also what other threads still bring: the intake may be in the midst of a batch."""
        idle = [*self._ready, *(one for _, _, one in self._delayed), *self._cancels]
        never_launched = [one for one in idle if not one.in_flight]
        given_back = self._ledger.release([(one.intent.intent_id, one.token) for one in never_launched])
        deliveries = [one.delivery for one in self._candidates]
        while self._delivered:
            deliveries.append(self._delivered.popleft())
        for arrivals in (self._urgent, self._arrived):
            while arrivals:
                deliveries.append(arrivals.popleft().delivery)
        for held, is_free in zip(never_launched, given_back, strict=True):
            if is_free:
                deliveries += self.hands.forget(held)
            else:
                # Its launch was noted, and the reply lost; or it is another's, and then this changes nothing.
                held.attempt += 1
                self._give_up(held)
        for held in idle:
            if held.in_flight:
                self._give_up(held)
        for waiting in (self._candidates, self._ready, self._cancels, self._delayed):
            waiting.clear()
        self._acks.release(deliveries)
        return bool(idle or deliveries)

    def _give_up(self, held: Held) -> None:
        """It was launched, provably did not leave, and will not be tried again here."""
        held.in_flight = False
        response = answers.refusal(
            held.intent.intent_id,
            Outcome.NOT_SENT,
            Code.BROKER_UNREACHABLE,
            "it could not be sent, and the worker is leaving",
            route=self._rules.route,
            now=self._clock.now(),
            attempts=held.attempt,
        )
        self.settler.answer(held, response, effect="none")

    # 1. What comes back, or is handed over.

    def _take_in(self) -> None:
        while self._returned:
            held, seconds = self._returned.popleft()
            if self.is_draining:
                self._give_up(held)
            elif seconds > 0:
                self._delay(held, seconds)
            else:
                self._line_of(held).appendleft(held)
        while self._handed:
            self._receive(self._handed.popleft())
        now = self._clock.boottime()
        while self._delayed and self._delayed[0][0] <= now:
            held = heapq.heappop(self._delayed)[2]
            self._line_of(held).appendleft(held)

    def _line_of(self, held: Held) -> deque[Held]:
        return self._cancels if held.intent.intent_type is IntentType.CANCEL else self._ready

    def _receive(self, one: Handed) -> None:
        kept = self._kept.pop(one.intent_id, None)
        try:
            intent = kept[1] if kept and kept[0] == one.body else load_intent(one.body)
        except ContractError as error:
            # Parked by a worker of a newer version. Its lease ends, and that one may take it.
            self._journal.unreadable(one.intent_id, str(error))
            return
        held = Held(intent, one.token, self._clock.boottime())
        self.hands.take(held)
        self._line_of(held).append(held)

    # 2. What came from the queue.

    def _read(self) -> bool:
        """Read all that came, so that no CANCEL is behind an order."""
        came = len(self._delivered)
        for _ in range(came):
            delivery = self._delivered.popleft()
            self._journal.received(delivery)
            one = self._reader.read(delivery)
            if isinstance(one, Candidate) and one.entry.target:
                self._urgent.append(one)
            else:
                self._arrived.append(one)
        return came > 0

    def _ask_claim(self) -> Callable[[], None] | None:
        """Begin to claim one batch, if there is one. What is returned waits for the answer, and acts on it."""
        if not self._candidates and (self._urgent or (self._arrived and self.room() > 0)):
            self._take_arrived()
        if not self._candidates:
            return None
        started = self._clock.boottime()
        asked = self._ledger.ask_claim([one.entry for one in self._candidates], self._room_to_launch())
        return lambda: self._claimed(asked.get(), started)

    def _claimed(self, claims: list[Claim], started: float) -> None:
        batch, self._candidates = self._candidates, []
        done: list[Delivery] = []
        leaving: list[Held] = []
        granted = 0
        for candidate, claim in zip(batch, claims, strict=True):
            match claim:
                case Launched(_, send_before):
                    self.hands.take(candidate.held, candidate.delivery)
                    leaving.append(candidate.held.launched(send_before))
                case Granted():
                    granted += 1
                    self.hands.take(candidate.held, candidate.delivery)
                    self._line_of(candidate.held).append(candidate.held)
                case Parked():
                    self._keep(candidate)
                    done.append(candidate.delivery)
                case Known(state):
                    self._journal.replay(candidate.held.intent, state)
                    done.append(candidate.delivery)
                case Conflict():
                    self._burials.append(_conflict(candidate))
        if leaving:
            self.orders.send(leaving)
        if done:
            self._acks.ack(done)
        self._journal.claimed(len(batch), granted, self._clock.boottime() - started)
        self._journal.launched(leaving, 0.0)

    def _room_to_launch(self) -> int:
        """How many orders may leave together with their claims. None go before those that are ready already."""
        if self._ready or isinstance(self._broker, NoopBroker) or self._halt_file_exists():
            return 0
        return max(0, self.orders.room())

    def _take_arrived(self) -> None:
        """Move one batch on. CANCELs go alone and first, so that no order leaves that one of them stops."""
        while self._urgent:
            self._candidates.append(self._urgent.popleft())
        if self._candidates:
            return
        for _ in range(min(BATCH, len(self._arrived))):
            one = self._arrived.popleft()
            if isinstance(one, Burial):
                self._burials.append(one)
            else:
                self._candidates.append(one)

    def _keep(self, candidate: Candidate) -> None:
        intent = candidate.held.intent
        self._kept[intent.intent_id] = (candidate.delivery.body, intent)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    # 3. What is no intent.

    def _bury(self) -> bool:
        if not self._burials:
            return False
        burial = self._burials[0]
        delivery, response = burial.delivery, burial.response
        digest = blake2b(delivery.body, digest_size=16).hexdigest()
        buried = self._ledger.bury(
            delivery.body,
            reason=burial.reason,
            error=burial.error[:2000],
            entry_id=delivery.entry,
            entry=padded(delivery.entry) if delivery.entry else "",
            intent_id=burial.intent_id,
            fingerprint=f"{burial.reason}:{digest}",
            payload=dump(response) if response else b"",
            stream=delivery.queue if delivery.entry else "",
        )
        self._burials.popleft()
        self._acks.ack([delivery])
        if buried is not Buried.OPEN:
            self._journal.buried(burial, response if buried is Buried.ANSWERED else None)
        return True

    # 4. What may leave.

    def _launch(self) -> bool:
        batch = self._next_to_launch()
        if not batch:
            return False
        started = self._clock.boottime()
        launches = self._ledger.launch([(one.intent.intent_id, one.token, one.attempt + 1) for one in batch])
        for _ in batch:
            self._ready.popleft()
        leaving: list[Held] = []
        for held, launch in zip(batch, launches, strict=True):
            match launch:
                case Launched(_, send_before):
                    leaving.append(held.launched(send_before))
                case Later(seconds):
                    self._delay(held, seconds)
                case Barred():
                    self._bar(held, launch)
                case Stale():
                    self._lose(held)
        if leaving:
            self.orders.send(leaving)
        self._journal.launched(leaving, self._clock.boottime() - started)
        return True

    def _next_to_launch(self) -> list[Held]:
        """The first of those ready, after answering what needs no launch to be answered."""
        room = min(BATCH, self.orders.room())
        if room <= 0 or not self._ready:
            return []
        if self._halt_file_exists():
            detail = f"the file {self._rules.halt_file} lies on the worker's machine; remove it to go on"
            for _ in range(min(room, len(self._ready))):
                self._bar(self._ready.popleft(), Barred(Gate.HALTED, detail))
            return []
        while self._ready and not self._needs_launch(self._ready[0]):
            self._answer_unlaunched(self._ready.popleft())
        batch: list[Held] = []
        for held in islice(self._ready, room):
            if not self._needs_launch(held):
                break
            batch.append(held)
        return batch

    def _halt_file_exists(self) -> bool:
        return self._rules.halt_file is not None and self._rules.halt_file.exists()

    def _needs_launch(self, held: Held) -> bool:
        return held.intent.intent_type in ORDERS and not isinstance(self._broker, NoopBroker)

    def _answer_unlaunched(self, held: Held) -> None:
        """A NOOP, or a broker that sends nothing: the answer needs no launch, since nothing leaves."""
        if isinstance(self._broker, NoopBroker):
            self.settler.answer(held, self._broker.submit_intent(held.intent))
            return
        message = "a NOOP travels the whole path and sends nothing"
        self.settler.answer(
            held,
            answers.refusal(
                held.intent.intent_id,
                Outcome.DENIED,
                Code.NOOP,
                message,
                route=self._rules.route,
                now=self._clock.now(),
            ),
        )

    def _bar(self, held: Held, bar: Barred) -> None:
        held.in_flight = False
        self.settler.answer(
            held,
            answers.barred(
                held.intent.intent_id,
                bar,
                route=self._rules.route,
                attempts=held.attempt,
                now=self._clock.now(),
            ),
        )

    def _lose(self, held: Held) -> None:
        self._journal.lease_lost(held)
        self._acks.release(self.hands.forget(held))

    def _delay(self, held: Held, seconds: float) -> None:
        heapq.heappush(self._delayed, (self._clock.boottime() + seconds, next(self._count), held))

    # 5. Cancels: they do not queue behind orders.

    def _cancel(self) -> bool:
        if not self._cancels or self.cancels.room() <= 0:
            return False
        held = self._cancels[0]
        if isinstance(self._broker, NoopBroker):
            self._cancels.popleft()
            self.settler.answer(held, self._broker.submit_intent(held.intent))
            return True
        step = decide_cancel(self._ledger, held, self._rules.route, self._rules.default_venue, self._clock)
        self._cancels.popleft()
        match step:
            case ExecutionResponse():
                held.in_flight = False
                self.settler.answer(held, step)
            case "launched":
                self.cancels.send([held])
            case "waiting":
                self._acks.ack(self.hands.forget(held))
            case float(seconds):
                self._delay(held, seconds)
            case "stale":
                self._lose(held)
        return True


def _conflict(candidate: Candidate) -> Burial:
    error = "the same intent_id came before with other content; the first outcome stands"
    return Burial(candidate.delivery, "conflict", error, candidate.held.intent.intent_id)
