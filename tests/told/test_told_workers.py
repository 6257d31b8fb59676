"""Real workers tell, and whom they tell holds up nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RedisServer, make_intent
from tests.process.workers import Floor, Process, wait_until
from tests.told.told_case import runs, web_hook
from worker.connection import connect
from worker.ledger.control import Control
from worker.runtime import Worker
from worker.settings import load_settings

pytestmark = [pytest.mark.real_redis, pytest.mark.process]


class TellingFloor(Floor):
    """A floor whose processes tell."""

    told: dict[str, str]

    def environ(self, **route: Any) -> dict[str, str]:
        return super().environ(**route) | self.told


@pytest.fixture(name="floor")
def _floor(redis_server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., TellingFloor]]:
    floors: list[TellingFloor] = []
    connect(redis_server.url, client_name="test").flushall()

    def make(**told: str) -> TellingFloor:
        floors.append(TellingFloor(redis_server, tmp_path))
        floors[-1].told = {f"EXECWORKER_TOLD_{name.upper()}": value for name, value in told.items()}
        return floors[-1]

    yield make
    for one in floors:
        one.close()


def drill(desk: Floor) -> None:
    control = Control(desk.client, "default")
    assert control.halt("kim@desk", "a drill")
    assert control.resume("kim@desk", "it is over")


def counted(worker: Process) -> float:
    """Events that it told, says its page."""
    name = 'execworker_told_total{result="told",route="default"} '
    return sum(
        float(line.removeprefix(name)) for line in worker.get("/metrics")[1].splitlines() if name in line
    )


def test_two_workers_tell_each_event_once_and_the_metrics_count_it(
    floor: Callable[..., TellingFloor],
) -> None:
    with web_hook() as hook:
        hook.answers = [500]
        desk = floor(url=hook.url)
        workers = [desk.worker(), desk.worker()]
        drill(desk)
        wait_until(lambda: sum(map(counted, workers)) == 2, "both are told and counted")

        for worker in workers:
            worker.send(signal.SIGTERM)
        assert [worker.wait() for worker in workers] == [0, 0]
    assert hook.told == ["HALTED", "RESUMED"]
    assert not any("s3cr3t" in worker.log for worker in workers)


def test_a_command_that_hangs_holds_up_neither_orders_nor_leaving(
    floor: Callable[..., TellingFloor], tmp_path: Path
) -> None:
    (tmp_path / "hang").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    (tmp_path / "hang").chmod(0o700)
    desk = floor(command=str(tmp_path / "hang"))
    worker = desk.worker()
    drill(desk)
    desk.enqueue([make_intent(intent_id=f"i-{number}") for number in range(20)])
    wait_until(lambda: len(desk.answers()) == 20, "all are answered")
    wait_until((tmp_path / "pid").exists, "the command hangs")

    worker.send(signal.SIGTERM)

    assert worker.wait() == 0
    desk.check()
    assert not runs(int((tmp_path / "pid").read_text()))


def test_a_worker_with_nobody_to_tell_as_set_does_not_start(floor: Callable[..., TellingFloor]) -> None:
    done = floor(command="/no/such/program").run("run")

    assert done.returncode == 78
    assert "EXECWORKER_TOLD_COMMAND: there is no program" in done.stderr


def test_the_dead_man_tells_what_no_worker_can(floor: Callable[..., TellingFloor]) -> None:
    with web_hook() as hook:
        desk = floor(url=hook.url)
        worker = desk.worker()
        wait_until(lambda: desk.client.hexists("exec:{default}:state", "alive_at"), "it has been alive")
        worker.kill()
        desk.client.delete("exec:{default}:teller:url")

        desk.start("deadman", dead_man_after=1.5)
        wait_until(lambda: hook.told, "somebody is told")

    assert hook.told == ["NO_LIVE_WORKER"]


def test_nobody_to_tell_keeps_no_one_from_coming_to_cancel(floor: Callable[..., TellingFloor]) -> None:
    visitor = Worker(load_settings(floor(command="/no/such/program").environ()), visiting=True)
    visitor.stop()

    assert visitor.run() == 0
