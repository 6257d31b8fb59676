"""Under honcho and under systemd: started, told apart, and drained."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from contracts import Outcome
from tests.conftest import RedisServer, make_intent, start_redis
from tests.deploy.conftest import ROOT, tool
from tests.process.workers import Floor, wait_until
from worker.keys import RouteKeys

pytestmark = [pytest.mark.process, pytest.mark.real_redis]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    started = start_redis("--appendonly", "no")
    yield started
    started.stop()
    shutil.rmtree(started.folder, ignore_errors=True)


_ALL = ("worker.1", "worker.2", "deadman.1")


class Honcho:
    """``honcho start`` with two workers and a dead man's watch, on the Procfile as it is."""

    def __init__(self, floor: Floor) -> None:
        self._log = floor.folder / "honcho.log"
        self._environ = floor.environ()
        # The port comes as PORT, which counts where no other is set.
        del self._environ["EXECWORKER_METRICS_PORT"]
        self._environ["PATH"] = f"{Path(sys.executable).parent}:{self._environ['PATH']}"
        # honcho itself breaks a warning or two.
        self._environ["PYTHONWARNINGS"] = "default"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until each worker says on the port it was given that it is ready."""
        port = _two_free_ports()
        honcho = [tool("honcho"), "--procfile", str(ROOT / "Procfile"), "--env", os.devnull, "start"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*honcho, "--concurrency", "worker=2", "--port", str(port)],
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: _is_ready(port) and _is_ready(port + 1), f"two workers are ready; see {self._log}")

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8")

    def pid(self, name: str) -> int:
        found = re.search(rf"{re.escape(name)} started \(pid=(\d+)\)", self.log)
        assert found is not None
        return int(found[1])

    def ended(self) -> dict[str, int]:
        """The exit code of each process."""
        return {name: int(code) for name, code in re.findall(r"(\w+\.\d) stopped \(rc=(-?\d+)\)", self.log)}

    def terminate(self) -> None:
        assert self._process is not None
        self._process.terminate()

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(30)

    def close(self) -> None:
        if self._process is None:
            return
        # Each worker has a group of its own; honcho tells their ids.
        for name in _ALL:
            if name not in self.ended() and f"{name} started" in self.log:
                os.kill(self.pid(name), signal.SIGKILL)
        self._process.kill()
        self._process.wait(20)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _two_free_ports() -> int:
    # Below those that the system hands to whoever connects anywhere.
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as first, socket.socket() as second, suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port


@pytest.fixture
def floor(server: RedisServer, tmp_path: Path) -> Iterator[Floor]:
    here = Floor(server, tmp_path, options__latency=1.0, order_timeout=4.0, lease=10.0)
    yield here
    here.close()


@pytest.fixture
def honcho(floor: Floor) -> Iterator[Honcho]:
    made = Honcho(floor)
    try:
        made.start()
        yield made
    finally:
        made.close()


def orders_on_their_way(floor: Floor) -> None:
    floor.enqueue([make_intent(intent_id=f"i-{number}", symbol=f"{number:06d}") for number in range(6)])
    keys = RouteKeys("default")
    client = floor.client
    wait_until(
        lambda: all(client.hget(keys.intent(f"i-{n}"), "state") == b"in_flight" for n in range(6)),
        "six orders are on their way",
    )


def test_honcho_told_to_stop_lets_every_worker_finish_its_orders(floor: Floor, honcho: Honcho) -> None:
    orders_on_their_way(floor)

    honcho.terminate()

    assert honcho.wait() == 128 + signal.SIGTERM
    assert honcho.ended() == dict.fromkeys(_ALL, 0)
    assert {one.outcome for one in floor.answers().values()} == {Outcome.ACCEPTED}
    assert len(floor.answers()) == 6
    floor.check()


def test_when_one_worker_dies_honcho_stops_the_other_which_finishes_its_orders_first(
    floor: Floor, honcho: Honcho
) -> None:
    orders_on_their_way(floor)
    dead = honcho.pid("worker.2")

    os.kill(dead, signal.SIGKILL)

    assert honcho.wait() != 0
    assert honcho.ended() == {"worker.1": 0, "worker.2": -signal.SIGKILL, "deadman.1": 0}
    unanswered = [number for number in range(6) if f"i-{number}" not in floor.answers()]
    owners = [
        floor.client.hget(RouteKeys("default").intent(f"i-{number}"), "worker") for number in unanswered
    ]
    assert all(f"-{dead}-".encode() in owner for owner in owners)


# --- systemd ------------------------------------------------------------------------------------------------


class Systemd:
    """Where systemd listens. The path of a unix socket is short."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="notify-"))
        self.address = str(self.folder / "notify")
        self.lines: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind(self.address)
        self._listener.setblocking(False)

    def hears(self, line: str) -> bool:
        while True:
            try:
                self.lines += self._listener.recv(4096).decode().split("\n")
            except BlockingIOError:
                return line in self.lines

    def close(self) -> None:
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    listening = Systemd()
    yield listening
    listening.close()


class _Unit(Floor):
    notify_socket = ""

    def environ(self, **route: Any) -> dict[str, str]:
        return super().environ(**route) | {"NOTIFY_SOCKET": self.notify_socket}


def test_systemd_hears_of_a_worker_that_waits_for_redis_that_it_lives_and_then_that_it_is_ready(
    server: RedisServer, systemd: Systemd, tmp_path: Path
) -> None:
    server.stop()
    unit = _Unit(server, tmp_path)
    unit.notify_socket = systemd.address
    try:
        worker = unit.worker()
        wait_until(lambda: systemd.hears("EXTEND_TIMEOUT_USEC=30000000"), "it asks for more time")
        assert "WATCHDOG=1" in systemd.lines and "READY=1" not in systemd.lines

        server.start()
        wait_until(lambda: systemd.hears("READY=1"), "it is ready")
        worker.send(signal.SIGTERM)

        assert worker.wait() == 0
        assert systemd.hears("STOPPING=1")
        assert "EXTEND_TIMEOUT_USEC=60000000" in systemd.lines
    finally:
        unit.close()
