"""Where the demo plays: a folder, a Redis and workers of its own, all gone at the end."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import redis

from worker.clock import Clock
from worker.connection import connect
from worker.demo.interrupts import Interrupts
from worker.errors import Unavailable
from worker.settings import PREFIX

#: The oldest server that has all the commands we use.
_VERSION_MIN = (6, 2)
_START_SECONDS = 15.0
_STOP_SECONDS = 3.0
_NEVER = threading.Event()
_NO_REDIS = (
    "the demo needs a Redis, and this machine has none: neither a redis-server (6.2 or newer) on PATH nor fakeredis in "
    "this Python. Install one of them: `apt install redis-server`, `brew install redis`, or "
    "`pip install 'execution-worker[embedded]'`."
)

#: The route of the demo: quick enough that whatever goes wrong is put right while somebody watches.
_ROUTE: Mapping[str, object] = {
    "BROKER": "simulated",
    "MODE": "paper",
    "CONCURRENCY": 2,
    "LEASE": 3,
    "ORDER_TIMEOUT": 2,
    "NOT_SENT_RETRIES": 1,
    "OPTIONS__LATENCY": 0.04,
    "OPTIONS__VISIBILITY_LAG": 1,
}


class Place:
    """
    A private Redis, the simulated broker's book and faults, and the workers. Leaving it ends and removes everything;
    should this process be killed, its watchdog does.
    """

    def __init__(self, interrupts: Interrupts, clock: Clock) -> None:
        self._interrupts = interrupts
        self._clock = clock
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._workers = 0
        self.folder = Path()
        self.url = ""
        #: Which Redis is in use, for people.
        self.redis_name = ""

    def __enter__(self) -> Self:
        try:
            with self._interrupts.held():
                self.folder = Path(tempfile.mkdtemp(prefix="execworker-demo-"))
                self._watchdog = _start_watchdog(self.folder)
            self.set_faults()
            self._start_redis()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def book(self) -> Path:
        """The orders that the broker holds, as JSON lines."""
        return self.folder / "book.jsonl"

    @property
    def faults(self) -> Path:
        """What goes wrong at the broker, as JSON."""
        return self.folder / "faults.json"

    @property
    def settings(self) -> dict[str, str]:
        """The environment variables of the demo's workers."""
        route: dict[str, object] = {**_ROUTE, "OPTIONS__BOOK": self.book, "OPTIONS__FAULTS": self.faults}
        return {
            f"{PREFIX}REDIS_URL": self.url,
            f"{PREFIX}METRICS_PORT": "0",
            f"{PREFIX}DRAIN_TIMEOUT": str(_STOP_SECONDS),
        } | {f"{PREFIX}ROUTES__DEFAULT__{name}": str(value) for name, value in route.items()}

    def set_faults(self, **faults: float) -> None:
        """Let the broker behave like this from its next order on; without any, well."""
        text = ", ".join(f'"{name}": {value}' for name, value in faults.items())
        fresh = self.faults.with_suffix(".new")
        fresh.write_text(f"{{{text}}}\n", "utf-8")
        fresh.replace(self.faults)

    def start_worker(self) -> int:
        """Start `worker run` as a process of its own. Returns its pid at once."""
        self._workers += 1
        return self._spawn([sys.executable, "-m", "worker", "run"], self.log(self._workers)).pid

    def kill_worker(self, pid: int) -> None:
        """Kill -9."""
        process = next(one for one in self._processes if one.pid == pid)
        with self._interrupts.held():
            process.kill()
            self._reap(process)

    def log(self, number: int) -> Path:
        """What the first, second … worker logs."""
        return self.folder / f"worker-{number}.log"

    def last_words(self) -> str:
        """The end of the newest worker's log."""
        try:
            lines = self.log(self._workers).read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-5:])

    def write_environment(self) -> Path:
        """A file for a shell to read, so that `worker` there is this one, and every verb speaks to this demo."""
        path = self.folder / "env"
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in self.settings.items())
        command = f'worker() {{ {shlex.quote(sys.executable)} -m worker "$@"; }}\n'
        path.write_text("".join(lines) + command, "utf-8")
        return path

    def redis_ended(self) -> bool:
        """Whether the Redis has ended by itself."""
        return self._processes[0].poll() is not None

    def workers_ended(self) -> bool:
        """Whether all workers have ended by themselves."""
        return all(one.poll() is not None for one in self._processes[1:])

    def close(self) -> None:
        """End all processes, workers first, and remove the folder."""
        with self._interrupts.ignored():
            while self._processes:
                process = self._processes[-1]
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
                process.kill()
                self._reap(process)
            if self._watchdog is not None:
                self._watchdog.communicate()
                shutil.rmtree(self.folder, ignore_errors=True)

    # Redis.

    def _start_redis(self) -> None:
        program = shutil.which("redis-server")
        if program is not None and self._start_redis_server(program):
            return
        if not _is_installed("fakeredis") or not _is_installed("lupa"):
            raise Unavailable(_NO_REDIS)
        self._start_fakeredis()

    def _start_redis_server(self, program: str) -> bool:
        for _ in range(5):
            port = _free_port()
            process = self._spawn(_redis_command(program, port, self.folder), self.folder / "redis.log")
            self.url = f"redis://127.0.0.1:{port}/0"
            if found := self._wait_for_answer(process):
                version = str(found["redis_version"])
                if tuple(map(int, version.split(".")[:2])) >= _VERSION_MIN:
                    self.redis_name = f"redis-server {version}, started for this demo on port {port}"
                    return True
            with self._interrupts.held():
                process.kill()
                self._reap(process)
            if found:
                break  # too old, and will not get younger
        return False

    def _wait_for_answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        until = self._clock.boottime() + _START_SECONDS
        client = connect(self.url, client_name="execworker:demo")
        try:
            while process.poll() is None and self._clock.boottime() < until:
                try:
                    with self._interrupts.held():
                        found: Any = client.info("server")
                except redis.RedisError:
                    self._clock.wait(_NEVER, 0.02)
                    continue
                # Somebody else may have been quicker on that port.
                return found if found["process_id"] == process.pid else None
        finally:
            client.close()
        return None

    def _start_fakeredis(self) -> None:
        command = [sys.executable, "-m", "worker.demo.fake_server"]
        process = self._spawn(command, self.folder / "redis.log", stdout=subprocess.PIPE)
        assert process.stdout is not None
        port = process.stdout.readline().strip().decode()
        if not port:
            raise Unavailable(f"fakeredis does not start: {(self.folder / 'redis.log').read_text()[-500:]}")
        self.url = f"redis://127.0.0.1:{port}/0"
        self.redis_name = f"fakeredis, a Redis made of Python, on port {port} (there is no redis-server here)"

    # Processes.

    def _spawn(self, command: list[str], log: Path, stdout: int | None = None) -> subprocess.Popen[bytes]:
        with self._interrupts.held(), open(log, "ab") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout if stdout is not None else out,
                stderr=out,
                env=_clean_environment() | self.settings,
                # A Ctrl-C is for the demo alone, which then ends the others in order.
                start_new_session=True,
            )
            self._processes.append(process)
            self._tell_watchdog(process.pid)
        return process

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._processes.remove(process)
        self._tell_watchdog(-process.pid)

    def _tell_watchdog(self, number: int) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with suppress(BrokenPipeError):
                self._watchdog.stdin.write(b"%d\n" % number)
                self._watchdog.stdin.flush()


def _start_watchdog(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "worker.demo.watchdog", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _redis_command(program: str, port: int, folder: Path) -> list[str]:
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always",
        "daemonize": "no",
    }
    return [program, *(word for name, value in options.items() for word in (f"--{name}", value))]


# The demo is the same on every machine: what its user has set for other workers is not for this one.
def _clean_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(PREFIX) and name != "PORT"
    }


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
