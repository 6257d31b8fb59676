"""Real worker processes on a real Redis, and what they leave in streams and book."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from contracts import ExecutionIntent, ExecutionResponse, FailsafeEvent
from tests.conftest import RedisServer
from tests.desk import events, published
from worker.connection import connect
from worker.producer import IntentProducer

ROOT = Path(__file__).parents[2]


class Floor:
    """A folder with a book, a Redis, and the processes started on it. Everything started here is ended by `close`."""

    def __init__(self, server: RedisServer, folder: Path, **route: Any) -> None:
        self.server = server
        self.folder = folder
        self.book_file = folder / "book.jsonl"
        self.halt_file = folder / "halt"
        self._route: dict[str, Any] = {
            "mode": "paper",
            "lease": 1.0,
            "order_timeout": 0.5,
            "options__book": self.book_file,
            **route,
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._clients: list[Any] = []

    @property
    def client(self) -> Any:
        """A new one each time: the server may have been away."""
        self._clients.append(connect(self.server.url, client_name="test"))
        return self._clients[-1]

    def environ(self, **route: Any) -> dict[str, str]:
        """The settings of a worker, with the given ones changed."""
        settings = {
            f"EXECWORKER_ROUTES__DEFAULT__{name.upper()}": str(value)
            for name, value in {**self._route, **route}.items()
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EXECWORKER_")}
        return {
            **clean,
            **settings,
            "EXECWORKER_REDIS_URL": self.server.url,
            "EXECWORKER_METRICS_PORT": "0",
            "EXECWORKER_HALT_FILE": str(self.halt_file),
            "PYTHONWARNINGS": "error",
        }

    def start(self, *arguments: str, **route: Any) -> Process:
        """Start ``worker …`` in the background."""
        name = f"{len(self._processes)}"
        with (self.folder / f"{name}.out").open("wb") as out, (self.folder / f"{name}.err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", *arguments],
                cwd=ROOT,
                env=self.environ(**route),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self._processes.append(process)
        return Process(process, self.folder / name)

    def worker(self, **route: Any) -> Process:
        """Start a worker, and wait until it says where its probes are."""
        started = self.start("run", **route)
        wait_until(lambda: started.port is not None or started.ended, "a worker listens")
        return started

    def run(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run ``worker …`` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=ROOT,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def enqueue(self, intents: Sequence[ExecutionIntent]) -> None:
        with IntentProducer(self.server.url) as producer:
            producer.enqueue_many(intents)

    def answers(self) -> dict[str, ExecutionResponse]:
        """The answer to each intent. Fails when one was answered twice."""
        found = published(self.client)
        twice = [name for name, count in Counter(one.intent_id for one in found).items() if count > 1]
        assert twice == []
        return {one.intent_id: one for one in found}

    def events(self) -> list[FailsafeEvent]:
        return events(self.client)

    def book(self) -> list[str]:
        """The intent_id of each order that the broker holds, oldest first."""
        if not self.book_file.exists():
            return []
        lines = [json.loads(line) for line in self.book_file.read_text("utf-8").splitlines()]
        return [line["intent_id"] for line in lines if "intent_id" in line]

    def check(self) -> None:
        """No order twice, and each answer says what the book says."""
        book = self.book()
        assert [name for name, count in Counter(book).items() if count > 1] == []
        for name, answer in self.answers().items():
            assert answer.accepted == (name in book), answer
        assert set(book) <= set(self.answers())

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(20)
        for client in self._clients:
            client.close()


class Process:
    """One process, its output in files."""

    def __init__(self, process: subprocess.Popen[bytes], files: Path) -> None:
        self._process = process
        self._out, self._err = files.with_suffix(".out"), files.with_suffix(".err")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def output(self) -> str:
        return self._out.read_text("utf-8")

    @property
    def log(self) -> str:
        return self._err.read_text("utf-8")

    @property
    def port(self) -> int | None:
        """Of its metrics and probes, from its log."""
        for line in self.log.splitlines():
            if '"port"' in line:
                return int(json.loads(line)["port"])
        return None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        self._process.wait(20)

    def wait(self, seconds: float = 20) -> int:
        """The exit code."""
        return self._process.wait(seconds)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of its web page."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 30) -> None:
    """Look again and again until it is so. A Redis that is away meanwhile is nothing."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except redis.ConnectionError:
            pass
        assert time.monotonic() < give_up, f"not within {seconds} s: {what}"
        time.sleep(0.02)
