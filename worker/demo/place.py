"""Where the demo plays: a Redis, a KIS simulator and workers of its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from worker.clock import Clock
from worker.demo.broker import KISBroker
from worker.demo.interrupts import Interrupts
from worker.demo.processes import Processes
from worker.demo.redis_server import RedisServer, start_redis
from worker.settings import PREFIX

#: The route of the demo. It trades as with real money, at a broker on this machine, and is quick enough that whatever
#: goes wrong is put right while somebody watches.
_ROUTE: Mapping[str, object] = {
    "BROKER": "kis",
    "MODE": "live",
    "LIVE_ALLOWED": "true",
    # Nobody else trades on its account. Only then does a row of the order list end a doubt.
    "ACCOUNT_EXCLUSIVE": "true",
    "CONCURRENCY": 2,
    "LEASE": 3,
    "ORDER_TIMEOUT": 2,
    "NOT_SENT_RETRIES": 1,
}


class Place:
    """
    The processes that the acts need. Leaving it ends and removes everything.

    Entering it raises ``Unavailable`` where this machine lacks something; the text names the cure.
    """

    redis: RedisServer
    broker: KISBroker

    def __init__(self, interrupts: Interrupts, clock: Clock) -> None:
        self._processes = Processes(interrupts)
        self._clock = clock
        self._workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._processes.open()
            self.broker = KISBroker(self._processes)
            self.redis = start_redis(self._processes, self._clock)
            self.broker.wait()
        except BaseException:
            self._processes.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._processes.close()

    @property
    def settings(self) -> dict[str, str]:
        """The environment variables of the demo's workers."""
        route = dict(_ROUTE) | {f"OPTIONS__{name}": value for name, value in self.broker.options.items()}
        if not self.redis.is_durable:
            route["ALLOW_WEAK_DURABILITY"] = "true"
        return {
            f"{PREFIX}REDIS_URL": self.redis.url,
            f"{PREFIX}METRICS_PORT": "0",
            f"{PREFIX}DRAIN_TIMEOUT": "3",
        } | {f"{PREFIX}ROUTES__DEFAULT__{name}": str(value) for name, value in route.items()}

    def start_worker(self) -> int:
        """Start `worker run` as a process of its own. Returns its pid at once."""
        log = f"worker-{len(self._workers) + 1}.log"
        process = self._processes.start([sys.executable, "-m", "worker", "run"], log, self.settings)
        self._workers.append(process)
        return process.pid

    def kill_worker(self, pid: int) -> None:
        """Kill -9."""
        self._processes.kill(next(one for one in self._workers if one.pid == pid))

    def last_words(self) -> str:
        """The end of the newest worker's log."""
        try:
            log = self._processes.folder / f"worker-{len(self._workers)}.log"
            lines = log.read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-5:])

    def write_environment(self) -> Path:
        """A file for a shell to read, so that `worker` there is this one, and every verb speaks to this demo."""
        path = self._processes.folder / "env"
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in self.settings.items())
        command = f'worker() {{ {shlex.quote(sys.executable)} -m worker "$@"; }}\n'
        path.write_text("".join(lines) + command, "utf-8")
        return path

    def ended(self) -> str | None:
        """Which of the two that everything needs has ended by itself."""
        if self.redis.process.poll() is not None:
            return "its Redis"
        return "its KIS simulator" if self.broker.process.poll() is not None else None

    def workers_ended(self) -> bool:
        """Whether all workers have ended by themselves."""
        return all(one.poll() is not None for one in self._workers)
