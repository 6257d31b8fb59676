"""
The flow of one intent on one route, from a delivery to its end, in batches of what is ready together.

::

    deliver ─▶ arrived ─▶ claim ─▶ ready ─▶ launch ─▶ sender ─▶ ended ─▶ settle ─▶ ack
                  │                  ▲         │                            │
                bury                 │         └── barred ─────────────────▶│
            (dead letters)           └─────────── the lane's next ◀─────────┘

What can leave at once is launched together with its claim. One thread calls ``turn``; others only hand things in,
read as far as they need no Redis. Every step keeps what it works on until Redis has confirmed it, so after an outage
the same call is made again.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count, islice
from pathlib import Path
from typing import Literal, Protocol

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
from contracts.wire import readable_intent_id
from worker import answers
from worker.brokers.base import AdapterFault, BrokerEngine
from worker.brokers.noop import NoopBroker
from worker.cancels import decide_cancel
from worker.clock import Clock
from worker.hand import Answered, Ended, Held, InDoubt, Unsent
from worker.intake import Delivery
from worker.journal import Journal
from worker.ledger import Ledger, new_token
from worker.ledger.records import (
    Barred,
    Buried,
    Conflict,
    Entry,
    Gate,
    Granted,
    Handed,
    Known,
    Later,
    Launched,
    Parked,
    Settled,
    Settlement,
    Stale,
)
from worker.transport import padded

#: Intents that one call to the ledger takes at most.
BATCH = 64
#: An entry handed over this often without ever reaching the ledger ends the process that reads it.
POISON_COUNT = 25
#: The year 2100, in milliseconds.
NEVER = 4_102_444_800_000
#: Parked intents whose parsed form is kept, so that their turn costs no second parse.
KEPT_MAX = 4096


class Acks(Protocol):
    """The queue's side: what is done with, and what must come back."""

    def ack(self, deliveries: Iterable[Delivery]) -> None: ...

    def release(self, deliveries: Iterable[Delivery]) -> None: ...


class Outbox(Protocol):
    """Takes launched orders, and brings each back through ``Engine.ended``."""

    @property
    def in_flight(self) -> int: ...

    def room(self) -> int: ...

    def send(self, batch: Sequence[Held]) -> None: ...


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


@dataclass(slots=True)
class Candidate:
    """A delivery that was read, on its way to its claim."""

    delivery: Delivery
    held: Held
    entry: Entry


@dataclass(slots=True)
class Burial:
    """A delivery on its way to the dead-letter stream."""

    delivery: Delivery
    reason: Literal["invalid", "conflict", "poison"]
    error: str
    intent_id: str = ""
    response: ExecutionResponse | None = None


@dataclass(slots=True)
class End:
    """An intent on its way to its settlement."""

    held: Held
    settlement: Settlement
    response: ExecutionResponse | None


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
    ) -> None:
        self._ledger = ledger
        self._broker = broker
        self._rules = rules
        self._acks = acks
        self._journal = journal
        self._clock = clock
        self._wake_up = threading.Event()
        self.orders: Outbox
        self.cancels: Outbox

        # Filled by other threads; deque.append is atomic.
        self._arrived: deque[Candidate | Burial] = deque()
        self._handed: deque[Handed] = deque()
        self._ended: deque[Ended] = deque()
        # The engine's own.
        self._candidates: list[Candidate] = []
        self._burials: deque[Burial] = deque()
        self._ready: deque[Held] = deque()
        self._cancels: deque[Held] = deque()
        self._delayed: list[tuple[float, int, Held]] = []
        self._ends: deque[End] = deque()
        self._held: dict[str, Held] = {}
        self._kept: OrderedDict[str, tuple[bytes, ExecutionIntent]] = OrderedDict()
        self._count = count()
        self._secret = new_token() + "."
        self._draining = False
        self._low_water = max(BATCH, rules.concurrency)

    # What other threads call.

    def deliver(self, delivery: Delivery) -> None:
        """Take one delivery from the queue, and read it."""
        self._arrived.append(self._read(delivery))
        if not self._wake_up.is_set():
            self._wake_up.set()

    def hand(self, handed: Iterable[Handed]) -> None:
        """Take intents that the ledger has handed to this worker."""
        self._handed.extend(handed)
        self._wake_up.set()

    def ended(self, ended: Sequence[Ended]) -> None:
        """Take orders back from the sender."""
        self._ended.extend(ended)
        if not self._wake_up.is_set():
            self._wake_up.set()

    def wants_more(self) -> bool:
        """Whether the intake should go on reading intents."""
        return not self._draining and len(self._arrived) < 2 * BATCH

    def room(self) -> int:
        """How many intents it would take from the ledger now."""
        if self._draining:
            return 0
        return max(0, self._low_water - len(self._ready) - len(self._handed))

    def held(self, now: float, silent_after: float) -> list[tuple[str, str]]:
        """
        What is worked on, as (intent_id, token): the leases to renew. An order that the broker's side has not
        come back from ``silent_after`` seconds past its deadline is left out, so that its doubt is announced.
        """
        return [
            (one.intent.intent_id, one.token)
            for one in list(self._held.values())
            if not (one.in_flight and now > one.send_before + silent_after)
        ]

    # The engine's thread.

    def turn(self) -> bool:
        """Do once what is ready. True: something was done, and there may be more at once."""
        self._collect()
        done = self._settle()
        done |= self._bury()
        done |= self._claim()
        done |= self._cancel()
        done |= self._launch()
        return done

    def wake(self) -> None:
        """End a wait."""
        self._wake_up.set()

    def has_to_settle(self) -> bool:
        """Whether it holds evidence that the ledger does not have yet."""
        return bool(self._ended or self._ends or any(one.in_flight for one in list(self._held.values())))

    def wait(self, seconds: float) -> None:
        """Wait until something comes in, or a delay is over."""
        if self._delayed:
            seconds = min(seconds, max(0.001, self._delayed[0][0] - self._clock.boottime()))
        self._clock.wait(self._wake_up, seconds)
        self._wake_up.clear()

    def drain(self) -> None:
        """Take no more: give back what was not launched. What is in flight still has to be settled."""
        self._draining = True
        idle = [*self._ready, *(one for _, _, one in self._delayed), *self._cancels]
        never_launched = [one for one in idle if not one.in_flight]
        deliveries = [one.delivery for one in (*self._arrived, *self._candidates)]
        if never_launched:
            self._ledger.release([(one.intent.intent_id, one.token) for one in never_launched])
        self._arrived.clear()
        self._candidates.clear()
        self._ready.clear()
        self._cancels.clear()
        self._delayed.clear()
        for one in never_launched:
            deliveries += self._forget(one)
        for one in idle:
            if one.in_flight:
                self._give_up(one, "the worker is leaving and the order had not left")
        self._acks.release(deliveries)

    def is_empty(self) -> bool:
        """Nothing is in hand."""
        return not (self._held or self._arrived or self._ended or self._ends or self._burials or self._handed)

    # 1. What came back from the broker.

    def _collect(self) -> None:
        seconds: list[float] = []
        while self._ended:
            one = self._ended.popleft()
            one.held.in_flight = False
            if not isinstance(one, Unsent):
                seconds.append(one.seconds)
            match one:
                case Answered(held, response) if response.outcome is Outcome.NOT_SENT:
                    self._not_sent(held, response)
                case Answered(held, response):
                    self._end(held, response)
                case InDoubt(held, error):
                    self._end_in_doubt(held, error)
                case Unsent(held):
                    held.in_flight = True  # in the ledger's eyes: only this token may launch it again
                    (self._cancels if held.target else self._ready).appendleft(held)
        if seconds:
            self._journal.submitted(seconds)
        while self._handed:
            self._receive(self._handed.popleft())
        now = self._clock.boottime()
        while self._delayed and self._delayed[0][0] <= now:
            held = heapq.heappop(self._delayed)[2]
            (self._cancels if held.intent.intent_type is IntentType.CANCEL else self._ready).appendleft(held)

    def _not_sent(self, held: Held, response: ExecutionResponse) -> None:
        self._journal.broker_failure(held, "not_sent", response.message)
        if self._draining or held.retries >= self._rules.not_sent_retries:
            self._end(held, response)
            return
        held.retries += 1
        held.in_flight = True
        self._delay(held, 0.05 * 2**held.retries * (0.5 + random.random()))

    def _give_up(self, held: Held, why: str) -> None:
        response = answers.refusal(
            held.intent.intent_id,
            Outcome.NOT_SENT,
            Code.BROKER_UNREACHABLE,
            why,
            route=self._rules.route,
            now=self._clock.now(),
            attempts=held.attempt,
        )
        self._end(held, response, effect="none")

    def _end(
        self,
        held: Held,
        response: ExecutionResponse,
        effect: Literal["success", "failure", "none"] | None = None,
    ) -> None:
        settlement = Settlement(
            held.intent.intent_id,
            held.token,
            held.attempt,
            "answer",
            response.outcome,
            effect or self._effect(held, response.outcome),
            dump(response),
            held.reference,
        )
        self._ends.append(End(held, settlement, response))

    def _effect(self, held: Held, outcome: Outcome) -> Literal["success", "failure", "none"]:
        if held.intent.intent_type is IntentType.CANCEL:
            return "none"
        if outcome is Outcome.ACCEPTED:
            return "success"
        if outcome is Outcome.NOT_SENT or (outcome is Outcome.REJECTED and self._rules.count_rejected):
            return "failure"
        return "none"

    def _end_in_doubt(self, held: Held, error: Exception) -> None:
        is_bug = isinstance(error, AdapterFault)
        self._journal.broker_failure(
            held, "bug" if is_bug else "in_doubt", str(error), error if is_bug else None
        )
        safety_code = getattr(error, "safety_code", None) or "FS042"
        settlement = Settlement(
            held.intent.intent_id,
            held.token,
            held.attempt,
            "doubt",
            safety_code,
            "bug" if is_bug else "none",
            str(error)[:500],
        )
        self._ends.append(End(held, settlement, None))

    def _settle(self) -> bool:
        if not self._ends:
            return False
        batch = list(islice(self._ends, BATCH))
        started = self._clock.boottime()
        settled, handed = self._ledger.settle([one.settlement for one in batch], self.room())
        for _ in batch:
            self._ends.popleft()
        done: list[Delivery] = []
        lost: list[Delivery] = []
        for end, answer in zip(batch, settled, strict=True):
            deliveries = self._forget(end.held)
            # A doubt is the ledger's from here on. What is stale may be nobody's: it must come back.
            (lost if answer is Settled.STALE else done).extend(deliveries)
        self._acks.ack(done)
        if lost:
            self._acks.release(lost)
        self._journal.settled(batch, settled, self._clock.boottime() - started)
        for one in handed:
            self._receive(one)
        return True

    # 2. What came from the queue.

    def _claim(self) -> bool:
        if not self._candidates and self._is_short():
            self._take_arrived()
        if not self._candidates:
            return False
        batch = self._candidates
        started = self._clock.boottime()
        claims = self._ledger.claim([one.entry for one in batch], self._room_to_launch())
        self._candidates = []
        done: list[Delivery] = []
        leaving: list[Held] = []
        granted = 0
        for candidate, claim in zip(batch, claims, strict=True):
            match claim:
                case Launched(_, send_before):
                    candidate.held.deliveries.append(candidate.delivery)
                    self._held[candidate.held.intent.intent_id] = candidate.held
                    leaving.append(candidate.held.launched(send_before))
                case Granted():
                    granted += 1
                    self._hold(candidate.held, candidate.delivery)
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
        return True

    def _room_to_launch(self) -> int:
        """How many orders may leave together with their claims. None go before those that are ready already."""
        if self._ready or isinstance(self._broker, NoopBroker) or self._halt_file_exists():
            return 0
        return max(0, self.orders.room())

    def _is_short(self) -> bool:
        """Whether more should be claimed: enough to keep the broker busy; the rest may wait in the queue."""
        ready = len(self._ready)
        return ready < self._low_water and ready + self.orders.in_flight < self._low_water + BATCH

    def _take_arrived(self) -> None:
        """Move one batch on."""
        for _ in range(min(BATCH, len(self._arrived))):
            one = self._arrived.popleft()
            if isinstance(one, Burial):
                self._burials.append(one)
            else:
                self._candidates.append(one)

    def _read(self, delivery: Delivery) -> Candidate | Burial:
        self._journal.received(delivery)
        if delivery.fault or delivery.count > POISON_COUNT:
            return self._unreadable(delivery)
        try:
            intent = load_intent(delivery.body)
        except ContractError as error:
            return self._invalid(delivery, error)
        held = Held(intent, self._new_token(), self._clock.boottime())
        return Candidate(delivery, held, self._entry(held, delivery))

    def _new_token(self) -> str:
        # Unguessable for everybody else, and another one for each delivery.
        return f"{self._secret}{next(self._count)}"

    def _entry(self, held: Held, delivery: Delivery) -> Entry:
        intent = held.intent
        created = int(held.created * 1000)
        max_age = int(self._rules.max_age * 1000)
        entry = padded(delivery.entry) if delivery.entry else ""
        # A CANCEL honours its own expires_at only: an old wish to be out is still a wish to be out.
        not_after = NEVER if intent.intent_type is IntentType.CANCEL else created + max_age
        if entry and intent.intent_type is not IntentType.CANCEL:
            not_after = min(not_after, int(delivery.entry.partition("-")[0]) + max_age)
        if intent.expires_at is not None:
            not_after = min(not_after, int(intent.expires_at.timestamp() * 1000))
        return Entry(
            intent.intent_id,
            held.token,
            intent.fingerprint(),
            intent.symbol if intent.intent_type in _ORDERS else "",
            entry,
            created,
            not_after,
            intent.target_intent_id or "",
            delivery.body,
        )

    def _hold(self, held: Held, delivery: Delivery | None) -> None:
        if delivery is not None:
            held.deliveries.append(delivery)
        self._held[held.intent.intent_id] = held
        is_cancel = held.intent.intent_type is IntentType.CANCEL
        (self._cancels if is_cancel else self._ready).append(held)

    def _keep(self, candidate: Candidate) -> None:
        intent = candidate.held.intent
        self._kept[intent.intent_id] = (candidate.delivery.body, intent)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    def _receive(self, one: Handed) -> None:
        kept = self._kept.pop(one.intent_id, None)
        intent = kept[1] if kept and kept[0] == one.body else load_intent(one.body)
        held = Held(intent, one.token, self._clock.boottime())
        self._hold(held, None)

    def _forget(self, held: Held) -> list[Delivery]:
        if self._held.get(held.intent.intent_id) is held:
            del self._held[held.intent.intent_id]
        deliveries, held.deliveries = held.deliveries, []
        return deliveries

    # 3. What is no intent.

    def _invalid(self, delivery: Delivery, error: ContractError) -> Burial:
        response = answers.unreadable(error, route=self._rules.route, now=self._clock.now())
        return Burial(delivery, "invalid", str(error), error.intent_id or "", response)

    def _unreadable(self, delivery: Delivery) -> Burial:
        if delivery.fault:
            return self._invalid(delivery, ContractError([delivery.fault], readable_intent_id(delivery.body)))
        error = f"handed over {delivery.count} times without reaching the ledger: it ends whoever reads it"
        return Burial(delivery, "poison", error, readable_intent_id(delivery.body) or "")

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
            detail = f"the file {self._rules.halt_file} exists on the worker's machine"
            for _ in range(min(room, len(self._ready))):
                self._bar(self._ready.popleft(), Barred(Gate.HALTED, detail))
            return []
        batch: list[Held] = []
        while self._ready and len(batch) < room and not self._needs_launch(self._ready[0]):
            self._answer_unlaunched(self._ready.popleft())
        for held in islice(self._ready, room):
            if not self._needs_launch(held):
                break
            batch.append(held)
        return batch

    def _halt_file_exists(self) -> bool:
        return self._rules.halt_file is not None and self._rules.halt_file.exists()

    def _needs_launch(self, held: Held) -> bool:
        return held.intent.intent_type in _ORDERS and not isinstance(self._broker, NoopBroker)

    def _answer_unlaunched(self, held: Held) -> None:
        """A NOOP, or a broker that sends nothing: the answer needs no launch, since nothing leaves."""
        if isinstance(self._broker, NoopBroker):
            self._end(held, self._broker.submit_intent(held.intent))
            return
        message = "a NOOP travels the whole path and sends nothing"
        self._end(
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
        self._end(
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
        self._acks.release(self._forget(held))

    def _delay(self, held: Held, seconds: float) -> None:
        heapq.heappush(self._delayed, (self._clock.boottime() + seconds, next(self._count), held))

    # 5. Cancels: they do not queue behind orders.

    def _cancel(self) -> bool:
        if not self._cancels or self.cancels.room() <= 0:
            return False
        held = self._cancels[0]
        if isinstance(self._broker, NoopBroker):
            self._cancels.popleft()
            self._end(held, self._broker.submit_intent(held.intent))
            return True
        step = decide_cancel(self._ledger, held, self._rules.route, self._rules.default_venue, self._clock)
        self._cancels.popleft()
        match step:
            case ExecutionResponse():
                held.in_flight = False
                self._end(held, step)
            case "launched":
                self.cancels.send([held])
            case "waiting":
                self._acks.ack(self._forget(held))
            case "again":
                self._delay(held, 0.25)
            case "stale":
                self._lose(held)
        return True


_ORDERS: frozenset[IntentType] = frozenset({IntentType.MARKET, IntentType.LIMIT})


def _conflict(candidate: Candidate) -> Burial:
    error = "the same intent_id came before with other content; the first outcome stands"
    return Burial(candidate.delivery, "conflict", error, candidate.held.intent.intent_id)
