"""A TCP line that can be cut, stalled, half opened or slowed down. It never changes a byte of what it passes on."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

#: What can befall a line.
FAULTS = ("cut", "stall", "half_open", "delay", "refuse")
_CHUNK = 65536
#: How a worker introduces itself to Redis: its name ends in its pid and something random.
_NAME = re.compile(rb"execworker(?:-queue)?:\S*-(\d+)-[0-9a-f]{6}\r")


class Lines:
    """All lines of a run, in one thread. Close it when done."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lines", daemon=True)
        self._thread.start()
        self._lines: list[Line] = []

    def open(self, port: int, *, late_requests: bool = True) -> Line:
        """
        A line to that port of this machine. ``late_requests`` is false where the other end may not get a request long
        after it was sent: a stall then holds back answers alone.
        """
        line = Line(self._loop, port, late_requests)
        asyncio.run_coroutine_threadsafe(line.serve(), self._loop).result(10)
        self._lines.append(line)
        return line

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _end(self) -> None:
        for line in self._lines:
            line.end()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Fault:
    kind: str
    #: Of the process that it befalls; ``None`` for everybody.
    pid: int | None
    #: On the monotonic clock.
    until: float
    #: Seconds that each chunk takes longer.
    delay: float


class Line:
    """One line, with many connections. Every fault ends by itself after its seconds; `calm` ends all of them now."""

    def __init__(self, loop: asyncio.AbstractEventLoop, upstream: int, late_requests: bool) -> None:
        self._loop = loop
        self._upstream = upstream
        self._late_requests = late_requests
        self._talks: set[_Talk] = set()
        self._faults: list[_Fault] = []
        self._server: asyncio.Server | None = None
        self.port = 0

    def strike(self, kind: str, seconds: float, pid: int | None = None) -> None:
        """One of `FAULTS` befalls the line for so long; of a line to Redis, only what that process has on it."""
        fault = _Fault(kind, pid, time.monotonic() + seconds, min(0.2, seconds / 10))
        self._call(lambda: self._strike(fault))

    def calm(self) -> None:
        """From now on everything passes. What was swallowed stays so, and those connections are cut."""
        self._call(self._calm)

    def end(self) -> None:
        """Take no more, and cut all. Called by the thread of the lines."""
        if self._server is not None:
            self._server.close()
        self._cut(list(self._talks))

    async def serve(self) -> None:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def _call(self, act: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(act)

    def _strike(self, fault: _Fault) -> None:
        met = [one for one in self._talks if fault.pid in (None, one.pid)]
        match fault.kind:
            case "cut":
                self._cut(met)
            case "half_open":
                for one in met:
                    one.swallows = True
                self._loop.call_at(self._loop.time() + fault.until - time.monotonic(), self._cut, met)
            case "stall" | "delay" | "refuse":
                self._faults.append(fault)
                if fault.kind == "refuse":
                    self._cut(met)
            case unknown:
                raise ValueError(unknown)

    def _calm(self) -> None:
        self._faults.clear()
        self._cut([one for one in self._talks if one.swallows])

    def _cut(self, talks: list[_Talk]) -> None:
        for one in talks:
            one.cut()

    def _in_force(self, kind: str, talk: _Talk) -> _Fault | None:
        now = time.monotonic()
        self._faults = [one for one in self._faults if one.until > now]
        return next((one for one in self._faults if one.kind == kind and one.pid in (None, talk.pid)), None)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            reset(writer)
            return
        talk = _Talk(writer, far_writer)
        self._talks.add(talk)
        try:
            await asyncio.gather(
                self._pass(talk, reader, far_writer, is_request=True),
                self._pass(talk, far_reader, writer, is_request=False),
            )
        except asyncio.CancelledError:
            pass  # the run is over
        finally:
            self._talks.discard(talk)
            talk.cut()

    async def _pass(
        self, talk: _Talk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool
    ) -> None:
        may_stall = self._late_requests or not is_request
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if is_request and talk.pid is None:
                    talk.hear(chunk)
                if self._in_force("refuse", talk):
                    talk.cut()
                    return
                while may_stall and self._in_force("stall", talk):
                    await asyncio.sleep(0.01)
                if slow := self._in_force("delay", talk):
                    await asyncio.sleep(slow.delay)
                if not talk.swallows:
                    writer.write(chunk)
                    await writer.drain()
            if not talk.swallows and writer.can_write_eof():
                writer.write_eof()


class _Talk:
    """One connection through a line."""

    def __init__(self, *ends: asyncio.StreamWriter) -> None:
        self._ends = ends
        #: Of the process that made it, once it has said so.
        self.pid: int | None = None
        #: Half open: both ends believe in each other, and nothing arrives any more.
        self.swallows = False

    def hear(self, chunk: bytes) -> None:
        if found := _NAME.search(chunk):
            self.pid = int(found[1])

    def cut(self) -> None:
        for end in self._ends:
            reset(end)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset: what was not delivered yet is gone."""
    if writer.transport.is_closing():
        return
    found = writer.get_extra_info("socket")
    with suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
