"""A route with its queue, its Redis and its broker in one thread and on one clock, whose processes may die anywhere."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from io import StringIO
from typing import Any

import redis
from typer.main import get_command

from contracts import ExecutionIntent, dump
from tests.crash.exchange import LAG, BlindLine, Exchange, Line
from tests.crash.faults import OPERATOR, Fault, Killed
from tests.crash.judge import History, Rules, broken, read
from tests.crash.virtual import VirtualRedis
from tests.desk import KEYS, ROUTE, Desk, Wire, enqueue, unfinished
from worker.cli.app import app
from worker.cli.context import UNAVAILABLE, Surroundings
from worker.errors import Unavailable
from worker.keys import GROUP
from worker.ledger.control import Control
from worker.logs import silent
from worker.metrics import Metrics
from worker.reading import POISON_COUNT
from worker.upkeep import Upkeep

#: Seconds that pass when there is nothing to do: the pace of renewals.
PACE = 3.0
#: Seconds in which everything comes to rest: a doubt that only the end of the session can end, and what waits for it.
REST = 180.0
#: Seconds between the turns of the others while one worker stands still: for longer than any lease, and they renew theirs.
FREEZE = (5.5, 5.5, PACE, 0.0)
#: Seconds after which a worker looks again for what others left unacknowledged.
LOOK = 2.5

_METRICS = Metrics([ROUTE])


@dataclass(frozen=True)
class Act:
    """What an operator types. ``{dead}`` stands for the position of the oldest dead letter."""

    words: str


@dataclass(frozen=True)
class Wait:
    """Seconds pass; with ``workers`` they go on meanwhile, else nobody takes anything."""

    seconds: float
    workers: bool = True


@dataclass(frozen=True)
class Poison:
    """An intent that was handed over too often, as if each time whoever took it had died."""

    intent: ExecutionIntent


Step = ExecutionIntent | bytes | Act | Wait | Poison


@dataclass(frozen=True)
class Scenario:
    """What strategies and operators do, how the broker takes it, and how each intent ends if nothing else happens."""

    #: Each part begins when all is at rest after the one before it, unless that ended in a `Wait`.
    parts: Sequence[Sequence[Step]]
    outcomes: Mapping[str, str]
    replies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    workers: int = 1
    #: The broker's rows carry no ids of ours.
    blind: bool = False
    #: Nobody else trades on the account. Without it the operator looks at the broker's list and decides doubts by hand.
    exclusive: bool = True
    #: The workers also do their chores: heartbeats, trimming, weeding, comparing the broker's list.
    upkeep: bool = False
    ledger: Mapping[str, Any] = field(default_factory=dict)


class World:
    """One run of a scenario."""

    def __init__(self, server: VirtualRedis, scenario: Scenario, *faults: Fault) -> None:
        # Pauses between tries are random: the same ones in each run.
        random.seed(1)
        self.clock = server.fresh()
        self._server = server
        self._scenario = scenario
        self._faults = faults
        self.client = server.connect()
        self.exchange = Exchange(self.clock, scenario.replies)
        self.wires: dict[int, Wire] = {}
        self._queue: dict[tuple[str, str], bytes] = {}
        self._workers: dict[int, _Worker] = {}
        #: Workers in the middle of a turn.
        self._busy: set[int] = set()
        self._deaths = 0

    def run(self) -> History:
        """
        From the first entry until nothing is left to do.

        Raises:
            AssertionError: it does not come to rest.
        """
        for _ in range(self._scenario.workers):
            self._spawn()
        for part in self._scenario.parts:
            for step in part:
                self._take(step)
            if not isinstance(part[-1], Wait):
                self._come_to_rest()
        return self.history()

    def history(self) -> History:
        """What everybody can see now, with the intent of each order in the broker's book."""
        rules = Rules(
            order_timeout=5.0, lane_on_doubt=str(self._scenario.ledger.get("lane_on_doubt", "wait"))
        )
        queue = [(entry, body) for (_, entry), body in sorted(self._queue.items(), key=_in_queue_order)]
        return read(self.client, self.exchange.orders, keys=KEYS, queue=queue, rules=rules)

    def broken(self, history: History) -> list[str]:
        """Every promise that it breaks; where the broker's rows carry no ids of ours, also as they show it."""
        found = broken(history)
        if self._scenario.blind:
            book = [replace(row, client_order_id=None) for row in history.book]
            found += broken(replace(history, book=book))
        return list(dict.fromkeys(found))

    # What happens.

    def _take(self, step: Step) -> None:
        match step:
            case Act(words):
                self._operate(words)
            case Wait(seconds, workers):
                self._wait(seconds, workers)
            case Poison(intent):
                self._poison(intent)
            case message:
                enqueue(self.client, message)
        self._note_queue()

    def _note_queue(self) -> None:
        """What producers and operators enqueued, before it is trimmed."""
        for stream in (KEYS.cancels, KEYS.intents):
            for entry, row in self.client.xrange(stream):
                self._queue[stream, entry.decode()] = row[b"body"]

    def _wait(self, seconds: float, workers: bool) -> None:
        until = self.clock.boottime() + seconds
        while (left := until - self.clock.boottime()) > 0:
            if workers:
                self._turn_all()
            self.clock.advance(min(PACE, left))

    def _poison(self, intent: ExecutionIntent) -> None:
        entry = self.client.xadd(KEYS.intents, {"body": dump(intent)})
        with suppress(redis.ResponseError):
            self.client.xgroup_create(KEYS.intents, GROUP, "0", mkstream=True)
        self.client.xreadgroup(GROUP, "gone", {KEYS.intents: ">"}, count=1)
        self._hand_over_again([(KEYS.intents, entry)], POISON_COUNT + 1)

    def _operate(self, words: str) -> None:
        """An operator types a command, again and again until it tells how it went."""
        wire = self._wire(OPERATOR)
        for _ in range(5):
            client = wire.tap(self._server.connect())
            desk = Surroundings({}, lambda *_, client=client, **__: client, self.clock)
            line = words.format(dead=self._oldest_letter()).split()
            try:
                with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                    if _command_line().main(line, obj=desk, standalone_mode=False) != UNAVAILABLE:
                        return
            except Killed:
                wire = self.wires[OPERATOR] = wire.next_process()
        raise AssertionError(f"it never tells: worker {words}")

    def _decide(self) -> None:
        """An operator looks each doubt up and says what is so. When it is too early the command tells, and they wait."""
        numbers = {row.client_order_id: row.broker_order_id for row in self.exchange.shown()}
        for intent_id in [one.decode() for one in self.client.zrange(KEYS.doubts, 0, -1)]:
            number = numbers.get(intent_id)
            verdict = f"--accepted {number}" if number else "--not-placed"
            self._operate(f"doubt resolve {intent_id} {verdict} --reason seen --actor kim@desk")

    def _oldest_letter(self) -> str:
        letters = self.client.xrange(KEYS.dead, count=1)
        return letters[0][0].decode() if letters else "0-0"

    def _come_to_rest(self) -> None:
        for turn in range(int(REST / PACE)):
            self._turn_all()
            if not unfinished(self.client):
                return
            self.clock.advance(PACE)
            if not self._scenario.exclusive and turn % 3 == 2:
                self._decide()
        raise AssertionError(f"not at rest after {REST:.0f} s: {unfinished(self.client)}")

    # The processes.

    def _wire(self, actor: int) -> Wire:
        if actor not in self.wires:
            wire = self.wires[actor] = Wire()
            for fault in self._faults:
                if fault.actor == actor:
                    wire.plan(fault.number, after=fault.after, what=partial(self._befall, fault, actor))
        return self.wires[actor]

    def _spawn(self) -> None:
        """A new process, which knows nothing of those before."""
        number = max(self._workers, default=0) + 1
        while number in self.wires and number != OPERATOR:
            number += 1
        wire = self._wire(number)
        with self._in_the_middle(number):
            for _ in range(3):  # Redis may be away when it starts
                with suppress(Unavailable):
                    self._workers[number] = _Worker(self, number, wire)
                    return
        self._spawn()

    @contextmanager
    def _in_the_middle(self, number: int) -> Any:
        """Of a turn. When it dies, another one is started."""
        self._busy.add(number)
        try:
            yield
        except Killed:
            self._workers.pop(number, None)
            self._deaths += 1
        finally:
            self._busy.discard(number)

    def _turn_all(self) -> None:
        for number in [one for one in self._workers if one not in self._busy]:
            if number in self._workers:
                self._turn(number)

    def _turn(self, number: int) -> None:
        with self._in_the_middle(number):
            self._workers[number].turn()
        if number not in self._workers:
            self._spawn()

    # What befalls them.

    def _befall(self, fault: Fault, actor: int) -> None:
        match fault.kind:
            case "killed":
                raise Killed
            case "cut off":
                raise redis.ConnectionError("away")
            case "frozen":
                self._stand_still()
            case "overtaken":
                self.clock.advance(LOOK)
                self._hand_over_again(self._pending())
                self._let_others_go_on()
            case "halted":
                Control(self._server.connect(), ROUTE).halt("kim@desk", "a drill")
            case "flushed":
                self._server.connect().script_flush()
            case other:
                raise AssertionError(other)

    def _stand_still(self) -> None:
        """For longer than any lease, or until one who has taken over dies in the midst of it."""
        deaths = self._deaths
        for seconds in FREEZE:
            self._let_others_go_on()
            if self._deaths > deaths:
                return
            self.clock.advance(seconds)

    def _let_others_go_on(self) -> None:
        if not set(self._workers) - self._busy:
            self._spawn()
        self._turn_all()

    def _pending(self) -> list[tuple[str, bytes]]:
        client, found = self._server.connect(), []
        for stream in (KEYS.cancels, KEYS.intents):
            if client.exists(stream) and client.xinfo_groups(stream):
                rows = client.xpending_range(stream, GROUP, "-", "+", 1000)
                found += [(stream, row["message_id"]) for row in rows]
        return found

    def _hand_over_again(self, entries: Sequence[tuple[str, bytes]], times: int = 1) -> None:
        """Whoever has them has been silent for a minute."""
        for stream, entry in entries:
            self._server.connect().xclaim(
                stream, GROUP, "gone", 0, [entry], idle=60_000, retrycount=times, force=True, justid=True
            )


class _Worker:
    """One worker process."""

    def __init__(self, world: World, number: int, wire: Wire) -> None:
        scenario, clock = world._scenario, world.clock
        line = (BlindLine if scenario.blind else Line)(world.exchange, wire)
        client = wire.tap(world._server.connect())
        self._desk = desk = Desk(
            client,
            line,
            clock,
            name=f"w{number}",
            ledger={"visibility_lag": LAG, **scenario.ledger},
            exclusive=scenario.exclusive,
            ahead=True,
        )
        assert desk.resolver is not None
        self._chores: list[Callable[[], object]] = [
            desk.renew,
            desk.work_through_outages,
            desk.sweep,
            desk.work_through_outages,
            desk.resolver.step,
        ]
        if scenario.upkeep:
            upkeep = Upkeep(
                desk.ledger,
                desk.engine,
                client,
                _METRICS.route(ROUTE),
                silent(),
                clock,
                worker=f"w{number}",
                port=lambda: 0,
                lost=lambda: None,
                away=lambda _error: None,
                skew=lambda _: None,
                owns_stream=True,
                must_be_durable=False,
                confirmation=desk.ledger.rules.confirmation,
                is_alive=lambda: True,
            )
            self._chores += [upkeep.turn, self._scan]

    def turn(self) -> None:
        """What a worker's loops do in a while."""
        for chore in self._chores:
            with suppress(Unavailable):
                chore()

    def _scan(self) -> None:
        if self._desk.resolver is not None and self._desk.ledger.may_scan(PACE):
            self._desk.resolver.scan()


@cache
def _command_line() -> Any:
    return get_command(app)


def _in_queue_order(item: tuple[tuple[str, str], bytes]) -> tuple[bool, int, int]:
    """Cancels first, and each stream in its order."""
    (stream, entry), _ = item
    at, _, number = entry.partition("-")
    return stream != KEYS.cancels, int(at), int(number)
