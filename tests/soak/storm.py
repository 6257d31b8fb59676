"""One run: everything started, the script carried out, faults off, rest awaited, and judged."""

from __future__ import annotations

import heapq
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import redis

from tests.conftest import RedisServer
from tests.crash.judge import Rules, broken, read
from tests.soak import verdict
from tests.soak.child import SHIFT
from tests.soak.crew import Crew, Executor, Forker
from tests.soak.kis_street import KISStreet
from tests.soak.people import KEYS, Clerk, Operator
from tests.soak.plan import LEASE, MAX_AGE, ORDER_TIMEOUT, Plan, Result
from tests.soak.proxy import FAULTS, Lines
from tests.soak.script import Strike
from tests.soak.strategy import Strategy
from tests.soak.street import SimulatedStreet, Street, environ_of
from worker.connection import connect

#: What a live route needs: a launch is on the disk before the order leaves.
_DURABLE = (
    *("--appendonly", "yes", "--appendfsync", "always", "--no-appendfsync-on-rewrite", "no"),
    *("--maxmemory-policy", "noeviction"),
)
#: Until everything has come to rest by itself after the storm: what still waits in its lane grows too old, the doubts in
#: front of it end one after the other, and a resolver's pause between two looks is up to 30 seconds.
REST = 120.0
#: What clocks on one machine, and a broker told to be slow, may differ by.
_SLACK = 3.0
_TURN = 0.005


Say = Callable[[str], None]


def run(plan: Plan, say: Say) -> Result:
    """Everything from the first process to the verdict. Nothing is left running."""
    result = Result(plan)
    folder = Path(tempfile.mkdtemp(prefix=f"soak-{plan.seed}-"))
    with ExitStack() as stack:
        storm = _Storm(plan, result, folder, say, stack)
        storm.rage()
        storm.rest()
        storm.judge()
    if result.broken:
        result.evidence = str(folder)
        (folder / "result.json").write_text(json.dumps(result.document(), indent=1, default=str), "utf-8")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return result


class _Storm:
    def __init__(self, plan: Plan, result: Result, folder: Path, say: Say, stack: ExitStack) -> None:
        self._plan, self._result, self._folder, self._say = plan, result, folder, say
        starter = stack.enter_context(closing(Executor() if plan.exec else Forker()))
        self._server = _redis(folder)
        stack.callback(self._server.stop)
        self._client: Any = stack.enter_context(closing(connect(self._url, client_name="soak-storm")))
        lines = stack.enter_context(closing(Lines()))
        # One address for all: a Redis that was restarted is known by where it is.
        self._line = lines.open(self._server.port)
        self._street: Street = (
            SimulatedStreet(folder)
            if plan.broker == "simulated"
            else KISStreet(folder, starter, lines, environ_of("", {}))
        )
        stack.callback(self._street.close)
        self._clerk = stack.enter_context(closing(Clerk(self._url)))
        self._operator = stack.enter_context(closing(Operator(self._url)))
        self._strategy = stack.enter_context(
            closing(Strategy(self._url, plan.seed, plan.rate, self._street.symbols()))
        )
        self._shifts: dict[int, float] = {}
        self._crew = stack.enter_context(closing(Crew(starter, plan.workers, self._environ, folder)))
        self._redis_is_up = True
        #: What ends later, by its time and its number.
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._began = time.monotonic()

    @property
    def _url(self) -> str:
        return f"unix://{self._server.socket}"

    def rage(self) -> None:
        """Carry out the script."""
        for one in (self._clerk, self._operator, self._strategy):
            one.start()
        self._began = time.monotonic()
        shown = 0.0
        for strike in [*self._plan.script, Strike(self._plan.seconds, "end", 0)]:
            while (now := self._now()) < strike.at:
                self._end_what_is_due(now)
                self._crew.mend()
                if now - shown >= 1.0:
                    shown = now
                    self._tell()
                time.sleep(_TURN)
            self._end_what_is_due(self._now())
            self._strike(strike)

    def rest(self) -> None:
        """All faults off; what is left must come to rest by itself."""
        self._strategy.hold_back()
        while self._later:
            heapq.heappop(self._later)[2]()
        self._street.relent("all")
        self._line.calm()
        self._crew.thaw_all()
        self._shifts.clear()
        ended = self._now()
        shown = asked = ended
        while left := self._unfinished():
            now = self._now()
            if now - ended > REST:
                self._result.broken.append(f"P3: not at rest after {REST:.0f} s: {left}")
                break
            self._crew.mend()
            if now - ended > REST / 2 and left.get("doubts"):
                self._operator.decide(self._street.book())
            if now - asked > 3.0:
                # Where rows carry no ids of ours, a later order shows how far the list reaches.
                asked = now
                self._strategy.harmless()
            if now - shown >= 1.0:
                shown = now
                self._tell(f"  left {left}")
            time.sleep(0.05)
        self._result.rest = self._now() - ended

    def judge(self) -> None:
        """Put everything that anybody can see before the judge."""
        result, street = self._result, self._street
        # Nothing moves any more. What is accepted by nobody's order would show as a launch without an answer.
        self._crew.close()
        self._operator.close()
        self._strategy.close()
        book = street.book()
        rules = Rules(max_age=MAX_AGE, order_timeout=ORDER_TIMEOUT, slack=_SLACK)
        history = read(self._client, book, keys=KEYS, queue=self._clerk.queue(), rules=rules)
        self._clerk.close()
        result.broken += broken(verdict.on_the_clock_of_redis(history))
        result.broken += verdict.of_processes(
            self._crew.fell, strategy=self._strategy, operator=self._operator, clerk=self._clerk
        )
        result.faults.update(street.met)
        result.counts.update(self._strategy.counts + self._operator.counts)
        result.counts["orders"] = len(book)
        result.outcomes.update(str(one.outcome) for one in history.responses)
        result.counts.update({f"event {kind}": count for kind, count in verdict.events(history).items()})
        if result.broken:
            verdict.keep(history, self._folder)

    # --- Faults -----------------------------------------------------------------------------------------------

    def _strike(self, strike: Strike) -> None:
        if strike.kind == "end":
            return
        kind, place = strike.kind, strike.worker
        self._result.faults[kind] += 1
        match kind:
            case "kill":
                self._crew.kill(place)
            case "freeze":
                self._crew.freeze(place)
                self._after(strike, lambda: self._crew.thaw(place))
            case "roll":
                self._crew.ask_to_leave(place)
            case "clock":
                # Seconds; a whole day now and then.
                self._shifts[place] = (strike.choice - 0.5) * (40.0 if strike.choice < 0.8 else 86400.0)
                self._crew.kill(place)
            case "halt":
                self._operator.halt()
                self._after(strike, self._operator.resume)
            case "redis_kill" if self._redis_is_up:
                self._redis_is_up = False
                self._server.kill()
                self._after(strike, self._start_redis)
            case "redis_kill":
                pass  # it is dead already
            case "clients" | "flush" | "memory":
                self._disturb_redis(strike)
            case "redis_line":
                name = FAULTS[int(strike.choice * len(FAULTS))]
                self._result.faults[f"redis line: {name}"] += 1
                self._line.strike(name, strike.lasts, self._crew.pid(place))
            case _:
                self._street.strike(kind, strike.choice, strike.lasts)
                self._after(strike, lambda: self._street.relent(kind))

    def _disturb_redis(self, strike: Strike) -> None:
        with suppress(redis.RedisError):
            match strike.kind:
                case "clients":
                    self._kill_clients(strike.choice)
                case "flush":
                    self._client.script_flush()
                case "memory":
                    self._client.config_set("maxmemory", 1)
                    self._after(strike, self._give_memory)

    def _kill_clients(self, share: float) -> None:
        found = [one for one in self._client.client_list() if one["name"].startswith("execworker")]
        for one in found[: 1 + int(share * len(found))]:
            self._client.client_kill_filter(_id=one["id"])

    def _give_memory(self) -> None:
        # One that is away has forgotten that it had too little.
        with suppress(redis.RedisError):
            self._client.config_set("maxmemory", 0)

    def _start_redis(self) -> None:
        self._server.start()
        self._redis_is_up = True

    def _after(self, strike: Strike, end: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._later, (self._now() + strike.lasts, self._number, end))

    def _end_what_is_due(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()

    # --- Looking ----------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _environ(self, place: int) -> dict[str, str]:
        route = self._street.route() | {
            "MODE": "live",
            "LIVE_ALLOWED": "true",
            "LEASE": str(LEASE),
            "ORDER_TIMEOUT": str(ORDER_TIMEOUT),
            "MAX_AGE": str(MAX_AGE),
            "CONCURRENCY": "4",
            "ORPHAN_SCAN_INTERVAL": "3",
            "ORDER_LIST_INTERVAL": "2",
            "DOUBT_ESCALATE_AFTER": "15",
        }
        url = f"redis://127.0.0.1:{self._line.port}/0"
        return environ_of(url, route) | {SHIFT: str(self._shifts.get(place, 0.0))}

    def _unfinished(self) -> dict[str, int]:
        try:
            left = verdict.unfinished(self._client)
        except redis.RedisError:
            return {"redis": 1}
        if unanswered := len(self._strategy.unanswered):
            left["unanswered"] = unanswered
        return left

    def _tell(self, more: str = "") -> None:
        counts, faults = self._strategy.counts, self._result.faults + self._street.met
        shown = " ".join(f"{kind} {count}" for kind, count in sorted(faults.items()))
        self._say(
            f"{self._now():5.0f} s  intents {counts['intents']}  answers {counts['answers']}  "
            f"orders {self._street.orders()}  {shown}{more}"
        )


def _redis(folder: Path) -> RedisServer:
    (folder / "redis").mkdir()
    server = RedisServer(folder / "redis", *_DURABLE)
    server.start()
    return server
