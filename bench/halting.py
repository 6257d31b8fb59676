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

from bench.machine import Machine, Row
from contracts import load_event, load_response
from worker.keys import RouteKeys

ROUTES = ("default", "second", "third")
WORKERS = 2
#: Intents a second, of all routes together.
RATE = 600
_TIMES = {"quick": 1, "normal": 5, "full": 20}


def halting(machine: Machine, size: str) -> Iterator[Row]:
    """From the start of the command, its own start-up included, to the commit on the last route and to the last order."""
    machine.client.flushall()
    commits, orders, bare = [], [], []
    with ExitStack() as stack:
        for _ in range(WORKERS):
            stack.enter_context(machine.worker({"latency": 0.01}, ROUTES, concurrency=4))
        stack.enter_context(_fed(machine))
        _wait_for_orders(machine)
        for _ in range(_TIMES[size]):
            bare.append(_run("-c", "import worker.cli.app"))
            began = time.time()
            _run(
                "-m",
                "worker",
                "halt",
                "--all",
                "--reason",
                "measured",
                environ=machine.environ(routes=ROUTES),
            )
            time.sleep(2)
            commits.append(_last_commit(machine) - began)
            orders.append(_last_order(machine) - began)
            for route in ROUTES:
                told = ("resume", "--route", route, "--reason", "measured")
                _run("-m", "worker", *told, environ=machine.environ(routes=ROUTES))
            _wait_for_orders(machine)
    start = 1000 * min(bare)
    shown = f"{len(ROUTES)} routes at {RATE}/s"
    yield Row(f"halt --all, {shown}: last commit, worst", 1000 * max(commits), "ms", start, must="1000")
    yield Row(f"halt --all, {shown}: last order, worst", 1000 * max(orders), "ms", start, must="1000")


def _run(*arguments: str, environ: dict[str, str] | None = None) -> float:
    """Seconds that it took."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environ, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


@contextmanager
def _fed(machine: Machine) -> Iterator[None]:
    """All routes, all the time."""
    stop = threading.Event()

    def feed() -> None:
        number = 0
        while not stop.wait(0.05):
            pipe = machine.client.pipeline(transaction=False)
            for _ in range(RATE // 20):
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
