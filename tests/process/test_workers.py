"""Real workers, real signals, a real Redis that dies: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts import Code, ExecutionIntent, Outcome
from tests.conftest import RedisServer, make_intent, start_redis
from tests.process.workers import Floor, wait_until

pytestmark = [pytest.mark.process, pytest.mark.real_redis]

KRX200 = Path(__file__).parents[1] / "data/krx200.csv"
#: What a live route needs: a launch is on the disk before the order leaves.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--no-appendfsync-on-rewrite", "no")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    started = start_redis(*DURABLE)
    yield started
    started.stop()
    shutil.rmtree(started.folder, ignore_errors=True)


@pytest.fixture
def floor(server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Floor]]:
    made: list[Floor] = []

    def make(**route: Any) -> Floor:
        made.append(Floor(server, tmp_path, **route))
        return made[-1]

    yield make
    for one in made:
        one.close()


def orders(count: int, prefix: str = "i") -> list[ExecutionIntent]:
    """Orders of many symbols, a few of each."""
    now = datetime.now(UTC)
    return [
        make_intent(intent_id=f"{prefix}-{number:03d}", symbol=f"{number % 40:06d}", created_at=now)
        for number in range(count)
    ]


def faults(floor: Floor, **rates: float) -> dict[str, Path]:
    """The faults of the broker, in a file that can be changed while workers run."""
    file = floor.folder / "faults.json"
    file.write_text(json.dumps(rates), "utf-8")
    return {"options__faults": file}


def test_a_worker_told_to_stop_finishes_what_is_on_its_way_and_gives_back_the_rest(
    floor: Callable[..., Floor],
) -> None:
    here = floor(options__latency=0.3, concurrency=4)
    worker = here.worker()
    here.enqueue(orders(60))
    wait_until(lambda: len(here.book()) >= 8, "orders are on their way")

    worker.send(signal.SIGTERM)

    assert worker.wait() == 0
    left = len(here.book())
    assert left < 60 and len(here.answers()) == left
    here.check()
    here.worker()
    wait_until(lambda: len(here.answers()) == 60, "the next worker does the rest")
    here.check()
    assert all(one.accepted for one in here.answers().values())


def test_a_second_signal_ends_a_worker_at_once(floor: Callable[..., Floor]) -> None:
    here = floor(options__latency=3, order_timeout=5, lease=6, concurrency=2)
    worker = here.worker()
    here.enqueue(orders(4))
    wait_until(lambda: len(here.book()) == 2, "orders are on their way")

    worker.send(signal.SIGTERM)
    wait_until(lambda: "worker_draining" in worker.log, "it drains")
    worker.send(signal.SIGTERM)

    assert worker.wait(2) == 128 + signal.SIGTERM


def test_a_worker_and_the_submit_killed_half_way_through_200_intents_lose_and_double_nothing(
    floor: Callable[..., Floor],
) -> None:
    here = floor(options__latency=0.02, concurrency=4)
    one, _two = here.worker(), here.worker()
    submit = here.start("submit", str(KRX200), "--wait", "--json")
    wait_until(lambda: len(here.book()) >= 60, "half the work is done")

    one.kill()
    submit.kill()
    here.worker()
    again = here.run("submit", str(KRX200), "--wait", "--json")

    printed = [json.loads(line) for line in again.stdout.splitlines()]
    assert len(printed) == len({answer["intent_id"] for answer in printed}) == 200, again.stderr
    assert len(here.answers()) == 200
    here.check()
    # What was launched by the killed worker and never left it is provably not at the broker.
    others = [one for one in here.answers().values() if not one.accepted]
    assert {one.outcome for one in others} <= {Outcome.NOT_PLACED} and len(others) <= 4
    assert again.returncode == (1 if others else 0)


def test_a_redis_killed_and_restarted_in_the_middle_of_the_work_is_waited_for(
    floor: Callable[..., Floor], server: RedisServer
) -> None:
    here = floor(options__latency=0.02, concurrency=4, lease=3)
    workers = [here.worker(), here.worker()]
    here.enqueue(orders(200))
    wait_until(lambda: len(here.book()) >= 60, "the work is under way")

    server.kill()
    wait_until(lambda: all("redis_away" in one.log for one in workers), "they notice")
    wait_until(lambda: workers[0].get("/readyz")[0] == 503, "they say so")
    server.start()

    wait_until(lambda: len(here.answers()) == 200, "they go on by themselves")
    here.check()
    assert not any(one.ended for one in workers) and len(here.book()) >= 190
    wait_until(lambda: workers[0].get("/readyz")[0] == 200, "they are ready again")


def test_a_tripped_guard_stays_tripped_when_everything_is_restarted(
    floor: Callable[..., Floor], server: RedisServer
) -> None:
    here = floor()
    bad = faults(here, reject_rate=1.0)
    worker = here.worker(**bad)
    here.enqueue(orders(3))
    wait_until(lambda: "GUARD_TRIPPED" in {event.type for event in here.events()}, "it trips")

    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    server.kill()
    server.start()
    faults(here)
    here.worker(**bad)
    here.enqueue(orders(5, "later"))
    wait_until(lambda: len(here.answers()) == 8, "all are answered")

    later = [one for name, one in here.answers().items() if name.startswith("later")]
    assert {(one.code, one.broker) for one in later} == {(Code.FAILSAFE_TRIPPED, "failsafe")}
    assert here.book() == []
    assert here.run("guard", "reset", "--reason", "the broker is back").returncode == 0
    here.enqueue(orders(5, "reset"))
    wait_until(lambda: len(here.book()) == 5, "orders go out again")


def test_halt_all_stops_every_worker_and_resume_lets_them_go_on(floor: Callable[..., Floor]) -> None:
    here = floor()
    here.worker(), here.worker()
    here.enqueue(orders(20))
    wait_until(lambda: len(here.answers()) == 20, "all are answered")

    assert here.run("halt", "--all", "--reason", "a drill").returncode == 0
    here.enqueue(orders(20, "halted"))
    wait_until(lambda: len(here.answers()) == 40, "all are answered")
    assert here.run("resume", "--all", "--reason", "over").returncode == 0
    here.enqueue(orders(20, "resumed"))
    wait_until(lambda: len(here.answers()) == 60, "all are answered")

    found = here.answers()
    assert {found[one.intent_id].code for one in orders(20, "halted")} == {Code.HALTED}
    assert len(here.book()) == 40 and not any(name.startswith("halted") for name in here.book())
    here.check()


def test_a_worker_with_bad_settings_refuses_to_start_and_names_every_fault(
    floor: Callable[..., Floor],
) -> None:
    here = floor()

    worker = here.start("run", mode="papper", lease=-1, options__latency="slow", no_such_thing=1)

    assert worker.wait() == 78
    for word in ("MODE", "LEASE", "NO_SUCH_THING"):
        assert word in worker.log, worker.log
    assert "Traceback" not in worker.log


def test_bad_options_of_a_broker_are_named_too(floor: Callable[..., Floor]) -> None:
    here = floor()

    worker = here.start("run", options__latency="slow", options__colour="red")

    assert worker.wait() == 78
    assert "LATENCY" in worker.log.upper() and "COLOUR" in worker.log.upper(), worker.log
    assert "Traceback" not in worker.log


def test_a_worker_started_before_its_redis_waits_and_says_so(
    floor: Callable[..., Floor], server: RedisServer
) -> None:
    here = floor()
    server.kill()
    worker = here.worker()
    assert worker.get("/readyz")[0] == 503 and worker.get("/livez")[0] == 200

    server.start()
    wait_until(lambda: worker.get("/readyz")[0] == 200, "it is ready")
    here.enqueue(orders(5))
    wait_until(lambda: len(here.answers()) == 5, "it works")

    here.check()


def test_a_worker_frozen_past_its_lease_doubles_nothing_when_it_thaws(floor: Callable[..., Floor]) -> None:
    here = floor(options__latency=0.05, concurrency=4)
    frozen = here.worker()
    here.worker()
    here.enqueue(orders(150))
    wait_until(lambda: len(here.book()) >= 30, "the work is under way")

    frozen.send(signal.SIGSTOP)
    wait_until(lambda: len(here.answers()) == 150, "the other one takes over", 60)
    frozen.send(signal.SIGCONT)
    here.enqueue(orders(50, "after"))
    wait_until(lambda: len(here.answers()) == 200, "both go on")

    here.check()
    assert not any(event.type == "ORPHAN_ORDER" for event in here.events())
    frozen.send(signal.SIGTERM)
    assert frozen.wait() == 0


def test_the_metrics_port_answers_what_operators_and_kubernetes_ask(floor: Callable[..., Floor]) -> None:
    here = floor()
    worker = here.worker()
    here.enqueue(orders(3))
    wait_until(lambda: len(here.answers()) == 3, "they are answered")

    wait_until(
        lambda: (
            'intents_processed_total{outcome="accepted",route="default"} 3.0' in worker.get("/metrics")[1]
        ),
        "they are counted",
    )
    assert worker.get("/livez")[0] == worker.get("/readyz")[0] == 200
    text = worker.get("/metrics")[1]
    for name in (
        "intents_received_total",
        "broker_failures_total",
        "guard_state",
        "queue_depth",
        "build_info",
    ):
        assert f"execworker_{name}" in text
    assert worker.get("/nothing")[0] == 404
