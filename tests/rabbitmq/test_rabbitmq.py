"""The queue at RabbitMQ, the ledger in Redis: the promises that do not rest on the queue hold through a short storm."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contracts import Code, Outcome, dump
from tests.conftest import RedisServer, intent_json, make_intent, start_redis
from tests.crash.judge import Rules, broken, read
from tests.process.workers import Floor, wait_until
from tests.rabbitmq.rabbit import Rabbit, is_installed
from worker.brokers.book import FileBook
from worker.keys import RouteKeys

pytestmark = [
    pytest.mark.process,
    pytest.mark.real_redis,
    pytest.mark.skipif(
        not is_installed() and not os.environ.get("CI"), reason="needs rabbitmq-server (apt install)"
    ),
]
KEYS = RouteKeys("default")
#: What this transport does not promise, or what is judged here by hand: it has no entry ids.
ELSEWHERE = ("P3", "P6", "P8")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    started = start_redis("--appendonly", "yes", "--appendfsync", "always")
    yield started
    started.stop()
    shutil.rmtree(started.folder, ignore_errors=True)


@pytest.fixture
def rabbit(tmp_path: Path) -> Iterator[Rabbit]:
    folder = tmp_path / "rabbit"
    folder.mkdir()
    started = Rabbit(folder)
    started.start()
    yield started
    started.close()


class Burrow(Floor):
    """A floor whose queue is at RabbitMQ."""

    def __init__(self, server: RedisServer, folder: Path, rabbit: Rabbit, **route: object) -> None:
        super().__init__(server, folder, **route)
        self._rabbit = rabbit

    def environ(self, **route: object) -> dict[str, str]:
        return super().environ(**route) | {"EXECWORKER_QUEUE_URL": self._rabbit.url}


@pytest.mark.timeout(400)
def test_a_storm_over_rabbitmq_doubles_loses_and_invents_nothing(
    server: RedisServer, rabbit: Rabbit, tmp_path: Path
) -> None:
    here = Burrow(
        server,
        tmp_path,
        rabbit,
        options__latency=0.02,
        options__lose_reply_rate=0.03,
        options__seed=7,
        max_consecutive_failures=100,
        lane_on_doubt="continue",
    )
    dice = random.Random(7)
    now = datetime.now(UTC)
    intents = [
        make_intent(intent_id=f"i-{number:03d}", symbol=f"{number % 40:06d}", created_at=now)
        for number in range(240)
    ]
    stale = [
        make_intent(intent_id=f"old-{number}", created_at=now - timedelta(hours=1)) for number in range(5)
    ]
    bodies = [dump(one) for one in (*intents, *stale)]
    bodies += dice.sample(bodies, 40)
    dice.shuffle(bodies)
    conflict = intent_json(intent_id="i-000", symbol="000000", quantity=77, created_at=now.isoformat())
    bodies += [conflict, b"{", b"\x80garbage"]
    try:
        workers = [here.worker(), here.worker()]
        for start in range(0, len(bodies), 50):
            rabbit.publish(KEYS.intents, bodies[start : start + 50])
            victim = dice.randrange(2)
            workers[victim].send(dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
            workers[victim] = here.worker()
            if start == 100:
                rabbit.kill()
                rabbit.start()

        ids = {one.intent_id for one in (*intents, *stale)}
        wait_until(lambda: ids <= here.answers().keys(), "all is answered", 120)
        wait_until(lambda: rabbit.waiting(KEYS.intents) == 0, "the queue is empty", 60)
        wait_until(lambda: here.client.xlen(KEYS.dead) >= 3, "what is no intent is put aside", 60)

        book, whole = FileBook(here.book_file).since(now - timedelta(days=1))
        assert whole
        queue = [(f"{number}-0", body) for number, body in enumerate(bodies)]
        history = read(
            here.client, book, keys=KEYS, queue=queue, rules=Rules(lane_on_doubt="continue", slack=5)
        )
        assert [one for one in broken(history) if not one.startswith(ELSEWHERE)] == []
        answers = here.answers()
        assert answers.keys() == ids
        assert {answers[one.intent_id].code for one in stale} == {Code.EXPIRED}
        placed = {name for name, one in answers.items() if one.outcome is Outcome.ACCEPTED}
        assert {row.client_order_id for row in book} == placed
        assert not any(row.quantity == 77 for row in book)
        dead = [(row[b"reason"], row[b"body"]) for _, row in here.client.xrange(KEYS.dead)]
        assert set(dead) == {(b"conflict", conflict), (b"invalid", b"{"), (b"invalid", b"\x80garbage")}
    finally:
        here.close()
