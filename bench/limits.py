"""The broker's call limit under load: eight workers, a full queue, and a simulated KIS with its strict window."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import cycle
from typing import Any

from bench.machine import Machine, Row
from contracts import load_response
from worker.brokers.kis import Environment
from worker.brokers.kis.facts import KST, RATE_LIMIT
from worker.clock import SystemClock
from worker.keys import RouteKeys
from worker.simulate.kis import KISOptions, KISSimulator
from worker.simulate.universe import universe

KEYS = RouteKeys("default")
WORKERS = 8
CALLS_A_SECOND = RATE_LIMIT[Environment.REAL]
_TOO_MANY = "EGW00201"
#: Seconds of full load that are measured.
_SECONDS = {"quick": 15, "normal": 60, "full": 300}
#: Seconds between two CANCELs.
_CANCEL_EVERY = 1.0


@dataclass
class _Call:
    at: float
    name: str
    refused: str


@dataclass
class _Record:
    """What the simulator's gateway saw, in the order of arrival."""

    calls: list[_Call] = field(default_factory=list)

    def wait_for(self, name: str, start: int) -> float:
        """When the first such call behind the first ``start`` calls came that was not refused for rate."""
        while True:
            for one in self.calls[start:]:
                if one.name == name and one.refused != _TOO_MANY:
                    return one.at
            time.sleep(0.005)

    def listen(self, simulator: KISSimulator) -> None:
        desk, clock = simulator.desk, SystemClock()
        check = desk.check

        def recorded(asked: Any) -> Any:
            at = clock.boottime()
            reply = check(asked)
            self.calls.append(_Call(at, asked.call.name, reply.body["msg_cd"] if reply else ""))
            return reply

        desk.check = recorded  # type: ignore[method-assign]


def limits(machine: Machine, size: str) -> Iterator[Row]:
    """How much of the window is used, how many calls are refused for rate, and how soon a CANCEL leaves."""
    seconds = _SECONDS[size]
    machine.client.flushall()
    record = _Record()
    simulator = KISSimulator(
        KISOptions(always_open=True, cash={"KRW": Decimal(10**15), "USD": Decimal(10**9)})
    )
    record.listen(simulator)
    with ExitStack() as stack:
        url = stack.enter_context(simulator.serve())
        orders = round(CALLS_A_SECOND * (seconds + 15))
        for _ in range(WORKERS):
            stack.enter_context(machine.worker(_options(url), **_SETTINGS))
        _resume(machine)
        sent = _enqueue(machine, orders)
        _wait_until(lambda: len(record.calls) > CALLS_A_SECOND, "the first orders leave")
        started = SystemClock().boottime() + 2.0
        ended = started + seconds
        delays = _cancel_now_and_then(machine, record, sent, ended)
        _wait_until(
            lambda: machine.client.xlen(KEYS.responses) >= len(sent) + len(delays), "all is answered", 120
        )
    passed = [one for one in record.calls if started <= one.at < ended and one.refused != _TOO_MANY]
    throttled = [one for one in record.calls if one.refused == _TOO_MANY]
    slot = 1 / CALLS_A_SECOND
    yield Row(
        "share of the call limit in use", 100 * len(passed) / (CALLS_A_SECOND * seconds), "%", must="95"
    )
    yield Row("calls refused for rate", 100 * len(throttled) / len(record.calls), "%", must="0.1")
    yield Row(
        "orders without an answer, or with another than the book's",
        _untrue(machine, simulator, sent),
        "",
        must="0",
    )
    yield Row("CANCEL, enqueued to at the broker, median", statistics.median(delays) / slot, "slots")
    yield Row("CANCEL, enqueued to at the broker, longest", max(delays) / slot, "slots", must="2")


_SETTINGS: dict[str, object] = {
    "broker": "kis",
    "mode": "live",
    "live_allowed": "true",
    "allow_weak_durability": "true",
    "account_exclusive": "true",
}


def _options(url: str) -> dict[str, object]:
    return {
        "environment": "real",
        "app_key": "bench-key",
        "app_secret": "bench-secret",
        "account": "12345678-01",
        "base_url": url,
        "check_hours": "false",
    }


# A live route without a state starts halted.
def _resume(machine: Machine) -> None:
    _wait_until(lambda: machine.client.hget(KEYS.state, "halted") == b"1", "the route is there")
    _wait_until(lambda: machine.client.hlen(KEYS.workers) >= WORKERS, "all workers are there")
    command = [sys.executable, "-m", "worker", "resume", "--route", KEYS.route, "--reason", "bench", "--json"]
    environ = os.environ | {"EXECWORKER_REDIS_URL": machine.url}
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL, timeout=60)


# Limit buys far below the market: they rest, and can be cancelled.
def _enqueue(machine: Machine, count: int) -> dict[str, str]:
    """The symbol of each intent that was sent."""
    stocks = [one for one in universe().values() if one.market == "KR" and not one.fund]
    sent = {}
    pipe = machine.client.pipeline(transaction=False)
    for stock, number in zip(cycle(stocks), range(count), strict=False):
        intent = _intent(
            intent_type="LIMIT",
            symbol=stock.symbol,
            side="BUY",
            quantity=number % 9 + 1,
            limit_price=str(stock.rounded(stock.base * Decimal("0.8"))),
        )
        sent[intent["intent_id"]] = stock.symbol
        pipe.xadd(KEYS.intents, {"body": json.dumps(intent)})
    pipe.execute()
    return sent


def _intent(**fields: object) -> dict[str, Any]:
    return {"intent_id": str(uuid.uuid4()), "created_at": datetime.now(UTC).isoformat(), **fields}


def _cancel_now_and_then(
    machine: Machine, record: _Record, sent: Mapping[str, str], until: float
) -> list[float]:
    """Cancel the newest order every now and then. Returns how many seconds later each request was at the broker."""
    clock = SystemClock()
    delays = []
    while clock.boottime() < until - _CANCEL_EVERY:
        time.sleep(_CANCEL_EVERY * random.uniform(0.5, 1.5))
        newest = [
            load_response(fields[b"body"]) for _, fields in machine.client.xrevrange(KEYS.responses, count=9)
        ]
        target = next(one.intent_id for one in newest if one.accepted and one.intent_id in sent)
        cancel = _intent(intent_type="CANCEL", symbol=sent[target], target_intent_id=target)
        enqueued, before = clock.boottime(), len(record.calls)
        machine.client.xadd(KEYS.cancels, {"body": json.dumps(cancel)})
        delays.append(record.wait_for("change", before) - enqueued)
    return delays


def _untrue(machine: Machine, simulator: KISSimulator, sent: Mapping[str, str]) -> int:
    """How many orders have no answer, or one that the broker's book does not bear out."""
    book = Counter(
        f"{one.placed_at.astimezone(KST):%Y%m%d}-{one.branch}-{one.number}" for one in simulator.orders()
    )
    answers = [load_response(fields[b"body"]) for _, fields in machine.client.xrange(KEYS.responses)]
    told = {one.intent_id: one for one in answers}
    good = [told[one] for one in sent if one in told and book[told[one].broker_order_id or ""] == 1]
    return len(sent) - len({one.broker_order_id for one in good})


def _wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            sys.exit(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)
