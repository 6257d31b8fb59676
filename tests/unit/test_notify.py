"""What systemd hears of a worker: only the truth, and nothing that holds it up."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.notify import Notifier


class Systemd:
    """The end of the socket where systemd listens."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind("\0" + address[1:] if address.startswith("@") else address)
        self._listener.setblocking(False)

    def heard(self) -> list[str]:
        """The lines since the last time, in order."""
        lines: list[str] = []
        while True:
            try:
                lines += self._listener.recv(4096).decode().split("\n")
            except BlockingIOError:
                return lines

    def close(self) -> None:
        self._listener.close()


class Worker:
    """A worker that starts, and what its probes would say."""

    def __init__(self) -> None:
        self.hangs: str | None = None
        self.lacks: str | None = "route default: starting"


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture(params=["a path", "an abstract name"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    address = str(tmp_path / "notify") if request.param == "a path" else f"@notify-{os.getpid()}"
    listening = Systemd(address)
    yield listening
    listening.close()


def notifier(address: str | None, worker: Worker) -> Notifier:
    return Notifier(address, live=lambda: worker.hangs, ready=lambda: worker.lacks)


def test_a_worker_counts_as_started_once_it_is_ready_and_is_said_so_once(
    systemd: Systemd, worker: Worker
) -> None:
    tell = notifier(systemd.address, worker)

    tell.look()
    before = systemd.heard()
    worker.lacks = None
    tell.look()
    then = systemd.heard()
    tell.look()
    after = systemd.heard()

    assert "READY=1" not in before
    assert then == ["STATUS=running", "WATCHDOG=1", "READY=1"]
    assert after == ["WATCHDOG=1"]


def test_a_worker_that_waits_for_redis_asks_for_more_time_to_start(systemd: Systemd, worker: Worker) -> None:
    tell = notifier(systemd.address, worker)
    worker.lacks = "route default: Redis does not answer"

    tell.look()

    assert systemd.heard() == [
        "STATUS=route default: Redis does not answer",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=30000000",
    ]


def test_the_watchdog_is_fed_while_redis_is_away_later(systemd: Systemd, worker: Worker) -> None:
    tell = notifier(systemd.address, worker)
    worker.lacks = None
    tell.look()
    systemd.heard()

    worker.lacks = "route default: Redis does not answer"
    tell.look()

    assert systemd.heard() == ["STATUS=route default: Redis does not answer", "WATCHDOG=1"]


def test_a_loop_that_hangs_starves_the_watchdog_and_its_name_is_told(
    systemd: Systemd, worker: Worker
) -> None:
    tell = notifier(systemd.address, worker)
    worker.lacks = None
    tell.look()
    systemd.heard()

    worker.hangs = "the engine loop of route default has not turned for 31 s"
    tell.look()
    tell.look()
    starved = systemd.heard()
    worker.hangs = None
    tell.look()

    assert starved == ["STATUS=the engine loop of route default has not turned for 31 s"]
    assert systemd.heard() == ["STATUS=running", "WATCHDOG=1"]


def test_leaving_asks_for_the_whole_drain_and_a_little_more(systemd: Systemd, worker: Worker) -> None:
    notifier(systemd.address, worker).stopping(45.0)

    assert systemd.heard() == ["STATUS=draining", "STOPPING=1", "EXTEND_TIMEOUT_USEC=60000000"]


def test_a_status_of_several_lines_is_one_line_to_systemd(systemd: Systemd, worker: Worker) -> None:
    worker.lacks = "route default: away\nREADY=1"

    notifier(systemd.address, worker).look()

    assert systemd.heard()[0] == "STATUS=route default: away READY=1"
    assert "READY=1" not in systemd.heard()


def test_a_worker_without_systemd_tells_nobody_and_does_not_even_look() -> None:
    asked: list[str] = []

    tell = Notifier(None, live=lambda: asked.append("live"), ready=lambda: asked.append("ready"))
    tell.look()
    tell.stopping(45.0)

    assert asked == []


def test_a_systemd_that_went_away_or_does_not_read_holds_nothing_up(tmp_path: Path, worker: Worker) -> None:
    deaf = Systemd(str(tmp_path / "notify"))
    tell = notifier(deaf.address, worker)

    for number in range(2000):  # more than any queue holds
        worker.lacks = f"away for {number} s"
        tell.look()
    deaf.close()
    tell.look()
    Path(deaf.address).unlink()
    tell.stopping(1.0)
