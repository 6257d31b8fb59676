"""A private redis-server, workers as subprocesses, and rows of figures."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.connection import connect


@dataclass(frozen=True)
class Row:
    """One figure, with the baseline of the same run."""

    what: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    must: str = ""
    want: str = ""

    @property
    def shown(self) -> str:
        return f"{self.value:,.4g} {self.unit}" if self.value < 1000 else f"{self.value:,.0f} {self.unit}"

    @property
    def baseline_shown(self) -> str:
        return "" if self.baseline is None else f"{self.baseline:,.0f} {self.unit}"

    @property
    def ratio_shown(self) -> str:
        return "" if self.ratio is None else f"{self.ratio:.2f}"


class Machine:
    """What a benchmark runs on."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self.folder = folder
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client: Any = connect(self.url, client_name="bench", socket_timeout=30)
        self.cores = os.cpu_count() or 1
        self.python = platform.python_version()
        self.redis_version = ""

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Machine]:
        if shutil.which("redis-server") is None:
            sys.exit("the benchmarks need redis-server on PATH (apt-get install redis-server)")
        folder = Path(tempfile.mkdtemp(prefix="execworker-bench-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            "redis-server",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        machine = cls(port, folder)
        try:
            machine._wait_for_redis()
            yield machine
        finally:
            machine.client.close()
            server.terminate()
            server.wait()
            shutil.rmtree(folder, ignore_errors=True)

    def _wait_for_redis(self) -> None:
        for _ in range(200):
            try:
                self.redis_version = self.client.info("server")["redis_version"]
                return
            except Exception:
                time.sleep(0.02)
        sys.exit("redis-server did not start")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def environ(
        self,
        options: Mapping[str, object] | None = None,
        routes: Sequence[str] = ("default",),
        **settings: object,
    ) -> dict[str, str]:
        """What configures such a worker, and commands that are about it."""
        made = {name: value for name, value in os.environ.items() if not name.startswith("EXECWORKER_")}
        made |= {
            "EXECWORKER_REDIS_URL": self.url,
            "EXECWORKER_LOG_LEVEL": "warning",
            "EXECWORKER_METRICS_PORT": "0",
        }
        for route in routes:
            prefix = f"EXECWORKER_ROUTES__{route.upper()}__"
            for name, value in {"mode": "paper", "max_age": 36000, **settings}.items():
                made[f"{prefix}{name.upper()}"] = str(value)
            for name, value in (options or {}).items():
                made[f"{prefix}OPTIONS__{name.upper()}"] = str(value)
        return made

    @contextmanager
    def worker(
        self,
        options: Mapping[str, object] | None = None,
        routes: Sequence[str] = ("default",),
        **settings: object,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of simulated routes; settings of each by name, options of its broker beside them."""
        environ = self.environ(options, routes, **settings)
        process = subprocess.Popen([sys.executable, "-m", "worker", "run"], env=environ)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no VmRSS of {pid}")
