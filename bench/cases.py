"""The benchmarks. Each yields rows; none of them asserts anything."""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from kombu import Connection, Consumer, Producer, Queue

from bench.machine import Machine, Row, resident_mb
from contracts import ExecutionIntent, ExecutionResponse, Outcome, dump, load_intent
from worker.keys import RouteKeys
from worker.producer import IntentProducer

KEYS = RouteKeys("default")
SYMBOLS = [f"{number:06d}" for number in range(200)]
_COUNTS = {"quick": 10_000, "normal": 40_000, "full": 100_000}


def _intent(number: int) -> dict[str, Any]:
    return {
        "intent_id": str(uuid.uuid4()),
        "intent_type": "LIMIT",
        "symbol": SYMBOLS[number % len(SYMBOLS)],
        "side": "BUY",
        "quantity": 10,
        "limit_price": "71000",
        "created_at": datetime.now(UTC).isoformat(),
        "strategy": "bench",
    }


def _fill(machine: Machine, stream: str, count: int) -> None:
    pipe = machine.client.pipeline(transaction=False)
    for number in range(count):
        pipe.xadd(stream, {"body": json.dumps(_intent(number))})
        if number % 1000 == 999:
            pipe.execute()
    pipe.execute()


# Throughput


def throughput(machine: Machine, size: str) -> Iterator[Row]:
    """One worker process, an instant broker and a full queue, between two runs of each baseline."""
    count = _COUNTS[size]
    bare, ours, stock = [], [], []
    for _ in range(1 if size == "quick" else 3):
        bare.append(_bare(machine, count))
        ours.append(_ours(machine, count))
        stock.append(_stock_kombu(machine, max(2000, count // 10)))
    rate, base, kombu = statistics.median(ours), statistics.median(bare), statistics.median(stock)
    yield Row("intents/s against a bare loop", rate, "/s", base, rate / base, "0.30", "0.50")
    yield Row("intents/s against kombu redis://", rate, "/s", kombu, rate / kombu, "6", "10")


def _bare(machine: Machine, count: int) -> float:
    """
    XREADGROUP 100, validate, XADD a valid response, XACK, in one round trip a batch: no dedupe, no lanes, no ledger,
    no guard, no broker, no metrics.
    """
    client = machine.client
    client.flushall()
    _fill(machine, "bench:in", count)
    client.xgroup_create("bench:in", "g", "0")
    done, started = 0, time.perf_counter()
    while done < count:
        pipe = client.pipeline(transaction=False)
        ids = []
        for _, entries in client.xreadgroup("g", "c", {"bench:in": ">"}, count=100):
            for entry_id, fields in entries:
                response = _answer(load_intent(fields[b"body"]))
                pipe.xadd("bench:out", {"intent_id": response.intent_id, "body": dump(response)})
                ids.append(entry_id)
        pipe.xack("bench:in", "g", *ids)
        pipe.execute()
        done += len(ids)
    return count / (time.perf_counter() - started)


def _answer(intent: ExecutionIntent) -> ExecutionResponse:
    now = datetime.now(UTC)
    return ExecutionResponse(
        intent_id=intent.intent_id,
        accepted=True,
        broker="simulated",
        message="the simulated broker holds the order",
        timestamp=now,
        outcome=Outcome.ACCEPTED,
        broker_order_id="S000000000001",
        route="default",
        attempts=1,
        sent_at=now,
    )


def _ours(machine: Machine, count: int) -> float:
    machine.client.flushall()
    _fill(machine, KEYS.intents, count)
    with machine.worker():
        return _rate_of_responses(machine, count)


def _rate_of_responses(machine: Machine, count: int) -> float:
    """Answers a second, from the first to the last, so that starting the process does not count."""
    first: tuple[float, int] | None = None
    while True:
        have = machine.client.xlen(KEYS.responses)
        now = time.perf_counter()
        if have and first is None:
            first = (now, have)
        if have >= count and first is not None:
            return (have - first[1]) / (now - first[0])
        time.sleep(0.02)


def _stock_kombu(machine: Machine, count: int) -> float:
    """A consumer that does nothing but acknowledge, on kombu's own redis:// transport."""
    machine.client.flushall()
    queue = Queue("bench-stock", routing_key="bench-stock")
    with Connection(machine.url) as connection:
        producer = Producer(connection.channel())
        for number in range(count):
            producer.publish(_intent(number), routing_key="bench-stock", serializer="json", declare=[queue])
        done = 0

        def on_message(message: Any) -> None:
            nonlocal done
            message.ack()
            done += 1

        with Consumer(connection.channel(), queues=[queue], on_message=on_message, prefetch_count=100):
            started = time.perf_counter()
            while done < count:
                connection.drain_events(timeout=5)
            return count / (time.perf_counter() - started)


# Latency


def latency(machine: Machine, size: str) -> Iterator[Row]:
    """Enqueue to response at a steady 200 a second, as a producer sees it."""
    count = {"quick": 1000, "normal": 4000, "full": 12_000}[size]
    machine.client.flushall()
    with machine.worker():
        _warm_up(machine)
        delays = _steady(machine, count, 200.0)
    yield Row("enqueue to response at 200/s, p50", _percentile(delays, 50), "ms", must="4", want="2")
    yield Row("enqueue to response at 200/s, p99", _percentile(delays, 99), "ms", must="15", want="6")


def _steady(machine: Machine, count: int, rate: float) -> list[float]:
    sent: dict[str, float] = {}
    delays: list[float] = []
    position = machine.client.xinfo_stream(KEYS.responses)["last-generated-id"].decode()

    def listen() -> None:
        with IntentProducer(machine.url) as reader:
            for _, response in reader.responses(position, block=5):
                delays.append((time.perf_counter() - sent[response.intent_id]) * 1000)
                if len(delays) == count:
                    return

    listener = threading.Thread(target=listen)
    listener.start()
    due = time.perf_counter()
    for number in range(count):
        due += random.expovariate(rate)
        time.sleep(max(0.0, due - time.perf_counter()))
        intent = _intent(number)
        sent[intent["intent_id"]] = time.perf_counter()
        machine.client.xadd(KEYS.intents, {"body": json.dumps(intent)})
    listener.join(60)
    return delays


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def _warm_up(machine: Machine) -> None:
    _fill(machine, KEYS.intents, 200)
    while machine.client.xlen(KEYS.responses) < 200:
        time.sleep(0.02)


# A slow broker


def slow_broker(machine: Machine, size: str) -> Iterator[Row]:
    """A broker that takes 50 ms, 100 orders at a time: the ideal is 2,000 a second."""
    count = {"quick": 6000, "normal": 20_000, "full": 60_000}[size]
    machine.client.flushall()
    _fill(machine, KEYS.intents, count)
    with machine.worker({"latency": 0.05}, concurrency=100):
        while machine.client.xlen(KEYS.responses) < 1000:
            time.sleep(0.02)
        rate = _rate_of_responses(machine, count - 200)
    yield Row("50 ms broker, concurrency 100", rate, "/s", 2000, rate / 2000, "0.80", "0.92")


# Memory


def memory(machine: Machine, size: str) -> Iterator[Row]:
    """Resident memory of the worker, its growth, and what Redis keeps of a settled intent."""
    count = {"quick": 20_000, "normal": 200_000, "full": 1_000_000}[size]
    machine.client.flushall()
    machine.client.config_set("activedefrag", "no")
    empty = machine.client.info("memory")["used_memory"]
    with machine.worker() as process:
        _warm_up(machine)
        idle = resident_mb(process.pid)
        done = 200
        early = 0.0
        while done < count:
            step = min(20_000, count - done)
            _fill(machine, KEYS.intents, step)
            done += step
            while machine.client.xlen(KEYS.responses) < done:
                time.sleep(0.05)
            early = early or resident_mb(process.pid)
            if done % 100_000 < 20_000:
                machine.say(f"  {done:,} of {count:,} intents, {resident_mb(process.pid):.0f} MB resident")
        late = resident_mb(process.pid)
        time.sleep(3)  # the queue is trimmed every two seconds
        used = machine.client.info("memory")["used_memory"] - empty
        audit = machine.client.memory_usage(KEYS.audit, samples=0)
    yield Row("resident memory of a worker, idle", idle, "MB", must="90", want="60")
    yield Row(f"resident memory after {done:,} intents", late, "MB", must="90", want="60")
    growth = 100 * (late - early) / early
    yield Row(f"growth of it from 20,000 to {done:,}", growth, "%", must="10", want="0")
    yield Row(
        "Redis memory per settled intent, audit apart", (used - audit) / done, "B", must="1400", want="900"
    )
    yield Row("audit per settled intent", audit / done, "B")
