"""
A Redis on a clock that the test moves: a redis-server with a preloaded library for its wall clock, or fakeredis where
this machine has no redis-server or no C compiler. The real one is some ten times faster, and its Lua is the real one.
"""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import fakeredis
import pytest
import redis

from tests.desk import script_texts
from worker.clock import ManualClock
from worker.connection import connect

#: fakeredis's modules that read the time.
_TIMED = ("_helpers", "_socket._base", "commands_mixins.server_mixin", "model._stream")
_LIBRARY = Path(__file__).with_name("moved_clock.c")


class VirtualRedis(Protocol):
    """One server after another, each empty."""

    name: str

    def fresh(self) -> ManualClock:
        """From here on it is another server, empty but for our scripts. Returns the clock that it lives on."""

    def connect(self) -> Any:
        """A client, as of another process."""


@contextmanager
def virtual_redis() -> Iterator[VirtualRedis]:
    """The best that this machine can do. While it lasts, no other fakeredis may be used in this process."""
    with ExitStack() as stack:
        if shutil.which("redis-server") and shutil.which("cc"):
            yield stack.enter_context(_real())
        else:
            yield stack.enter_context(_fake())


def _tell_scripts(client: Any) -> None:
    texts = script_texts()
    known: Sequence[bool] = client.script_exists(*texts)
    for text, is_known in zip(texts.values(), known, strict=True):
        if not is_known:
            client.script_load(text)


# A real server.


class _Clock(ManualClock):
    """Moves the server's clock along."""

    def __init__(self, page: mmap.mmap) -> None:
        super().__init__()
        self._page = page
        self._show()

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self._show()

    def _show(self) -> None:
        self._page[:8] = _microseconds(self.now()).to_bytes(8, "little")


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


class _Real:
    name = "redis-server"

    def __init__(self, socket: Path, page: mmap.mmap) -> None:
        self._page = page
        #: One for all clients, so that a new process costs no new connection.
        self._pool = connect(f"unix://{socket}", client_name="crash").connection_pool

    def fresh(self) -> ManualClock:
        clock = _Clock(self._page)
        client = self.connect()
        client.flushall()
        _tell_scripts(client)
        return clock

    def connect(self) -> Any:
        return redis.Redis(connection_pool=self._pool)

    def wait_until_up(self) -> None:
        for _ in range(500):
            try:
                self.connect().ping()
            except redis.ConnectionError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError("redis-server does not start")

    def close(self) -> None:
        self._pool.disconnect()


@contextmanager
def _real() -> Iterator[_Real]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crash-")))
        library, page_file, socket = folder / "moved_clock.so", folder / "now", folder / "redis.sock"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, _LIBRARY, "-ldl"], check=True)
        page_file.write_bytes(bytes(8))
        file = stack.enter_context(page_file.open("r+b"))
        page = stack.enter_context(mmap.mmap(file.fileno(), 8))
        server = _Real(socket, page)
        _Clock(page)
        process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder],
            env={**os.environ, "LD_PRELOAD": str(library), "MOVED_CLOCK": str(page_file)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        stack.callback(process.wait, 20)
        stack.callback(process.kill)
        stack.callback(server.close)
        server.wait_until_up()
        yield server


# A fake one.


class _Fake:
    """Stands also for the module `time` in fakeredis."""

    name = "fakeredis"

    def __init__(self) -> None:
        self._clock = ManualClock()
        self._server = fakeredis.FakeServer()

    def fresh(self) -> ManualClock:
        self._clock = ManualClock()
        client = self.connect()
        client.flushall()
        _tell_scripts(client)
        return self._clock

    def connect(self) -> Any:
        return fakeredis.FakeRedis(server=self._server, protocol=2)

    def time(self) -> float:
        return self._clock.now().timestamp()

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@contextmanager
def _fake() -> Iterator[_Fake]:
    found = _Fake()
    with pytest.MonkeyPatch.context() as patch:
        for name in _TIMED:
            patch.setattr(import_module(f"fakeredis.{name}"), "time", found)
        yield found
