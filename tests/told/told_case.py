"""Somebody to be told: a small HTTP server that can fail first, and tellers turned by hand."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from worker.clock import ManualClock
from worker.keys import RouteKeys
from worker.ledger import Ledger, LedgerRules
from worker.logs import configure
from worker.metrics import TellResult
from worker.settings import Settings, load_settings
from worker.told import Channel, Teller

KEYS = RouteKeys("default")


class Hook:
    """What a web hook saw. ``answers`` are the next ones, before 200 for ever."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hook/s3cr3t-path?sig=s3cr3t-query"
        self.port = port
        self.answers: list[int] = []
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    @property
    def told(self) -> list[str]:
        return [body["type"] for _, _, body in self.seen]


@contextmanager
def web_hook() -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = hook.answers.pop(0) if hook.answers else 200
            if status < 300:
                hook.seen.append((self.path, dict(self.headers), body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook = Hook(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Desk:
    """A route whose events are told."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self.connect = connect
        self.client = connect()
        self.clock = ManualClock()
        self.lines = io.StringIO()
        self.counted: list[TellResult] = []
        self._ledger = Ledger(self.client, "default", "w", LedgerRules(), self.clock)
        self._ledger.register(broker="simulated", mode="paper", start_halted=False)

    def happen(self, *commands: str) -> None:
        """``halt``, ``resume``: each publishes one event."""
        for command in commands:
            self._ledger.command(command, "kim@desk", "a drill")

    def teller(self, channel: Channel, worker: str = "w1", **environ: str) -> Teller:
        settings = read(**environ)
        return Teller(
            channel,
            {"default": self.connect()},
            worker=worker,
            kinds=frozenset(settings.told_types),
            tries=settings.told_tries,
            counted=lambda _route, result: self.counted.append(result),
            log=configure("debug", "json", secrets=settings.secrets(), stream=self.lines, clock=self.clock),
            clock=self.clock,
        )

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.getvalue().splitlines()]


def read(**told: str) -> Settings:
    return load_settings({f"EXECWORKER_TOLD_{name.upper()}": value for name, value in told.items()})


def runs(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False
