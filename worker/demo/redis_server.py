"""A Redis for the demo alone: a redis-server where there is one, else one made of Python."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis

from worker.clock import Clock
from worker.connection import connect
from worker.demo.processes import Processes
from worker.errors import Unavailable

#: The oldest server that has all the commands we use.
_VERSION_MIN = (6, 2)
_START_SECONDS = 15.0
_NEVER = threading.Event()
_LOG = "redis.log"
_NO_REDIS = (
    "the demo needs a Redis, and this machine has none: neither a redis-server (6.2 or newer) on PATH nor fakeredis in "
    "this Python. Install one of them: `apt install redis-server`, `brew install redis`, or "
    "`pip install 'execution-worker[embedded]'`."
)


@dataclass(frozen=True, slots=True)
class RedisServer:
    """One that answers."""

    process: subprocess.Popen[bytes]
    url: str
    #: Which one it is, for people.
    name: str
    #: It remembers what it has confirmed, even after a crash.
    is_durable: bool


def start_redis(processes: Processes, clock: Clock) -> RedisServer:
    """
    Start a Redis and wait until it answers.

    Raises:
        Unavailable: this machine has none of either kind; the text names the cure.
    """
    program = shutil.which("redis-server")
    if program is not None and (found := _start_real(processes, clock, program)):
        return found
    if find_spec("fakeredis") is None or find_spec("lupa") is None:
        raise Unavailable(_NO_REDIS)
    return _start_fake(processes)


def _start_real(processes: Processes, clock: Clock, program: str) -> RedisServer | None:
    for _ in range(5):
        port = _free_port()
        process = processes.start(_command(program, port, processes.folder), _LOG)
        url = f"redis://127.0.0.1:{port}/0"
        found = _wait_for_answer(processes, process, url, clock)
        if found:
            version = str(found["redis_version"])
            if tuple(map(int, version.split(".")[:2])) >= _VERSION_MIN:
                name = f"redis-server {version}, started for this demo on port {port}"
                return RedisServer(process, url, name, is_durable=True)
        processes.kill(process)
        if found:
            break  # too old, and will not get younger
    return None


def _wait_for_answer(
    processes: Processes, process: subprocess.Popen[bytes], url: str, clock: Clock
) -> dict[str, Any] | None:
    until = clock.boottime() + _START_SECONDS
    client = connect(url, client_name="execworker:demo")
    try:
        while process.poll() is None and clock.boottime() < until:
            try:
                with processes.interrupts.held():
                    found: Any = client.info("server")
            except redis.RedisError:
                clock.wait(_NEVER, 0.02)
                continue
            # Somebody else may have been quicker on that port.
            return found if found["process_id"] == process.pid else None
    finally:
        client.close()
    return None


def _start_fake(processes: Processes) -> RedisServer:
    process = processes.start([sys.executable, "-m", "worker.demo.fake_server"], _LOG, is_read=True)
    assert process.stdout is not None
    port = process.stdout.readline().strip().decode()
    if not port:
        raise Unavailable(f"fakeredis does not start: {(processes.folder / _LOG).read_text()[-500:]}")
    name = (
        f"fakeredis, a Redis made of Python, on port {port} (there is no redis-server here; a live route "
        "starts on one that forgets everything in a crash only because the demo allows it)"
    )
    return RedisServer(process, f"redis://127.0.0.1:{port}/0", name, is_durable=False)


def _command(program: str, port: int, folder: Path) -> list[str]:
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
