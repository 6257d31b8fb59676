"""How soon `worker halt --all` stops every order of every route, while all of them are under load."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from statistics import median

from bench.machine import Machine, Row
from contracts import load_event, load_response
from worker.keys import RouteKeys

ROUTES = ("default", "second", "third")
WORKERS = 2
#: Intents a second, of all routes together: as many as three accounts of KIS take, and ten times that.
RATES = (60, 600)
_TIMES = {"quick": 1, "normal": 5, "full": 20}


def halting(machine: Machine, size: str) -> Iterator[Row]:
    """From the start of the command, its own start-up included, to the commit on the last route and to the last order."""
    for rate in RATES:
        machine.client.flushall()
        with ExitStack() as stack:
            for _ in range(WORKERS):
                stack.enter_context(machine.worker({"latency": 0.01}, ROUTES, concurrency=4))
            stack.enter_context(_fed(machine, rate))
            _wait_for_orders(machine)
            runs = [_halt(machine) for _ in range(_TIMES[size])]
        bare, commits, orders = ([1000 * seconds for seconds in column] for column in zip(*runs, strict=True))
        shown = f"halt --all, {len(ROUTES)} routes at {rate}/s"
        yield Row(f"{shown}: last commit, median", median(commits), "ms", median(bare))
        yield Row(f"{shown}: last order, worst", max(orders), "ms", max(bare), must="1000")


def _halt(machine: Machine) -> tuple[float, float, float]:
    """Halt and resume. Seconds that the imports alone take, and from the command to the last commit and the last order."""
    environ = machine.environ(routes=ROUTES)
    bare = _run("-c", "import redis, typer, pydantic_settings")
    began = time.time()
    _run("-m", "worker", "halt", "--all", "--reason", "measured", environ=environ)
    time.sleep(2)
    commit, order = _last_commit(machine) - began, _last_order(machine) - began
    _run("-m", "worker", "resume", "--all", "--reason", "measured", environ=environ)
    _wait_for_orders(machine)
    return bare, commit, order


def _run(*arguments: str, environ: dict[str, str] | None = None) -> float:
    """Seconds that it took."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environ, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


@contextmanager
def _fed(machine: Machine, rate: int) -> Iterator[None]:
    """All routes, all the time."""
    stop = threading.Event()

    def feed() -> None:
        number = 0
        while not stop.wait(0.05):
            pipe = machine.client.pipeline(transaction=False)
            for _ in range(rate // 20):
                number += 1
                pipe.xadd(RouteKeys(ROUTES[number % len(ROUTES)]).intents, {"body": _intent(number)})
            pipe.execute()

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _intent(number: int) -> str:
    return json.dumps(
        {
            "intent_id": str(uuid.uuid4()),
            "intent_type": "LIMIT",
            "symbol": f"{number % 200:06d}",
            "side": "BUY",
            "quantity": 10,
            "limit_price": "71000",
            "created_at": datetime.now(UTC).isoformat(),
        }
    )


def _wait_for_orders(machine: Machine) -> None:
    """Until every route trades."""
    since = time.time()
    while not all(_last_order_of(machine, route) > since + 1 for route in ROUTES):
        time.sleep(0.1)


def _last_order(machine: Machine) -> float:
    return max(_last_order_of(machine, route) for route in ROUTES)


def _last_order_of(machine: Machine, route: str) -> float:
    """When the last order that is in the stream's last thousands left."""
    rows = machine.client.xrevrange(RouteKeys(route).responses, count=4000)
    answers = (load_response(fields[b"body"]) for _, fields in rows)
    return max((one.sent_at.timestamp() for one in answers if one.accepted and one.sent_at), default=0.0)


def _last_commit(machine: Machine) -> float:
    found = []
    for route in ROUTES:
        rows = machine.client.xrevrange(RouteKeys(route).failsafe, count=5)
        events = [load_event(fields[b"body"]) for _, fields in rows]
        found.append(max(one.timestamp.timestamp() for one in events if one.type == "HALTED"))
    return max(found)
