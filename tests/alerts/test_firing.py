"""A real Prometheus scrapes real workers; what goes wrong with them is told, and what is mended falls silent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.rules import RULES
from tests.conftest import RedisServer, make_intent, start_redis
from tests.deploy.conftest import free_port, tool
from tests.process.workers import Floor, wait_until

pytestmark = [pytest.mark.process, pytest.mark.real_redis]

#: What the rules wait for is cut to this, so that nobody waits for minutes.
PATIENCE = "1s"


class Prometheus:
    """A Prometheus with our rules, quick ones, and the targets of a file. Ended by `stop`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._targets = folder / "targets.json"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        rules = folder / "rules"
        rules.mkdir()
        for path in RULES.glob("*.yaml"):
            (rules / path.name).write_text(quick(path.read_text("utf-8")), "utf-8")
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules/*.yaml"],
            "scrape_configs": [
                {
                    "job_name": "execworker",
                    "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")

    def scrape(self, *ports: int | None) -> None:
        """From now on, the processes on these ports and no others."""
        made = self._targets.with_suffix(".new")
        made.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}" for port in ports]}]), "utf-8")
        made.rename(self._targets)

    def start(self) -> None:
        for _ in range(5):
            self._port = free_port()
            with (self._folder / "prometheus.log").open("wb") as log:
                self._process = subprocess.Popen(
                    [
                        tool("prometheus"),
                        f"--config.file={self._folder / 'prometheus.yml'}",
                        f"--storage.tsdb.path={self._folder / 'data'}",
                        f"--web.listen-address=127.0.0.1:{self._port}",
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            with suppress(AssertionError):
                wait_until(self._is_up_or_gone, "Prometheus starts")
                if self._process.poll() is None:
                    return
        pytest.fail((self._folder / "prometheus.log").read_text("utf-8"))

    def _is_up_or_gone(self) -> bool:
        assert self._process is not None
        with suppress(OSError):
            self._get("/-/ready")
            return True
        return self._process.poll() is not None

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as reply:
            body = reply.read()
        return json.loads(body)["data"] if path.startswith("/api") else body

    def firing(self) -> dict[str, dict[str, Any]]:
        """The alerts that fire, by name."""
        found = self._get("/api/v1/alerts")["alerts"]
        return {one["labels"]["alertname"]: one for one in found if one["state"] == "firing"}

    def scraped(self) -> int:
        """How many workers answer it."""
        targets = self._get("/api/v1/targets?state=active")["activeTargets"]
        return sum(one["health"] == "up" for one in targets)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)


def quick(rules: str) -> str:
    """The rules as they are, but for how long something must last."""
    return re.sub(r"^( +)for: \S+$", rf"\1for: {PATIENCE}", rules, flags=re.M)


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    server: RedisServer = start_redis()
    here = Floor(server, tmp_path, canary_interval=1)
    yield here
    here.close()
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    folder = Path(tempfile.mkdtemp(prefix="prometheus-"))
    started = Prometheus(folder)
    started.start()
    yield started
    started.stop()
    shutil.rmtree(folder, ignore_errors=True)


def canaries(here: Floor) -> int:
    return len([name for name in here.answers() if name.startswith("canary-")])


def test_a_dead_worker_a_tripped_guard_and_a_redis_that_is_away_are_told_and_a_reset_is_too(
    floor: Floor, prometheus: Prometheus
) -> None:
    faults = floor.folder / "faults.json"
    faults.write_text('{"reject_rate": 1}', "utf-8")
    one, other = floor.worker(options__faults=faults), floor.worker(options__faults=faults)
    prometheus.scrape(one.port, other.port)
    wait_until(lambda: prometheus.scraped() == 2, "both are scraped")
    wait_until(lambda: canaries(floor) >= 2, "canaries come back")
    wait_until(lambda: not prometheus.firing(), "all is well")

    # A worker dies, and the guard trips.
    one.kill()
    now = datetime.now(UTC)
    floor.enqueue([make_intent(intent_id=f"i-{n}", symbol=f"{n:06d}", created_at=now) for n in range(3)])
    wait_until(
        lambda: {"ExecWorkerDown", "ExecWorkerGuardTripped"} <= prometheus.firing().keys(), "both tell"
    )
    told = prometheus.firing()
    assert told["ExecWorkerGuardTripped"]["labels"] == {
        "alertname": "ExecWorkerGuardTripped",
        "severity": "critical",
        "route": "default",
    }
    assert "route default" in told["ExecWorkerGuardTripped"]["annotations"]["description"]
    assert told["ExecWorkerDown"]["annotations"]["description"].startswith(f"127.0.0.1:{one.port} ")

    # The other one goes on: canaries come back, whoever sent them before.
    assert {"ExecWorkerAbsent", "ExecWorkerRouteUnserved"} & told.keys() == set()
    before = canaries(floor)
    wait_until(lambda: canaries(floor) > before, "the other one sends them now")
    wait_until(lambda: "ExecWorkerCanaryMissing" not in prometheus.firing(), "they are seen")

    # A person resets the guard.
    assert floor.run("guard", "reset", "--reason", "a drill").returncode == 0
    wait_until(lambda: "ExecWorkerGuardTripped" not in prometheus.firing(), "it is silent again")

    # Redis goes away, and then the last worker.
    floor.server.kill()
    wait_until(lambda: "ExecWorkerRedisUnreachable" in prometheus.firing(), "it tells of Redis")
    other.kill()
    wait_until(
        lambda: {"ExecWorkerAbsent", "ExecWorkerRouteUnserved"} <= prometheus.firing().keys(), "all are gone"
    )


def test_a_worker_with_nothing_to_do_shows_that_redis_is_away_and_that_it_is_back(floor: Floor) -> None:
    worker = floor.worker(canary_interval=0)
    wait_until(lambda: "execworker_redis_up 1.0" in worker.get("/metrics")[1], "Redis is there")

    floor.server.kill()
    wait_until(lambda: "execworker_redis_up 0.0" in worker.get("/metrics")[1], "it is away")
    assert worker.get("/readyz")[0] == 503
    floor.server.start()

    wait_until(lambda: "execworker_redis_up 1.0" in worker.get("/metrics")[1], "it is back")
    wait_until(lambda: worker.get("/readyz")[0] == 200, "the worker is ready")
