"""A TCP line that can be cut, stalled, half closed or slowed down. It never changes a byte of what it passes on."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_CHUNK = 65536


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


class Line:
    """One line. Every fault ends by itself after its seconds; `calm` ends all of them now."""

    def __init__(self, loop: asyncio.AbstractEventLoop, upstream: int, late_requests: bool) -> None:
        self._loop = loop
        self._upstream = upstream
        self._late_requests = late_requests
        self._talks: set[_Talk] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        #: On the monotonic clock.
        self.stalled_until = self.refuses_until = self.slow_until = 0.0
        self.delay = 0.0

    def strike(self, kind: str, seconds: float) -> None:
        """One of `LINE_FAULTS` befalls the line, for so long."""
        until = time.monotonic() + seconds
        match kind:
            case "cut":
                self._call(self._cut)
            case "stall":
                self.stalled_until = until
            case "half_open":
                self._call(lambda: self._forget(seconds))
            case "delay":
                self.delay, self.slow_until = min(0.2, seconds / 10), until
            case "refuse":
                self.refuses_until = until
                self._call(self._cut)
            case _:
                raise ValueError(kind)

    def calm(self) -> None:
        """From now on everything passes. What was swallowed stays so, and those lines are cut."""
        self.stalled_until = self.refuses_until = self.slow_until = 0.0
        self._call(lambda: [one.cut() for one in list(self._talks) if one.swallows])

    def end(self) -> None:
        """Take no more, and cut all. Called by the thread of the lines."""
        if self._server is not None:
            self._server.close()
        self._cut()

    async def serve(self) -> None:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def _call(self, act: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(act)

    def _cut(self) -> None:
        for one in list(self._talks):
            one.cut()

    def _forget(self, seconds: float) -> None:
        for one in list(self._talks):
            one.swallows = True
            self._loop.call_later(seconds, one.cut)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if time.monotonic() < self.refuses_until:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            _reset(writer)
            return
        talk = _Talk(writer, far_writer)
        self._talks.add(talk)
        ways = (
            self._pass(talk, reader, far_writer, may_stall=self._late_requests),
            self._pass(talk, far_reader, writer, may_stall=True),
        )
        try:
            await asyncio.gather(*ways)
        except asyncio.CancelledError:
            pass  # the run is over
        finally:
            self._talks.discard(talk)
            talk.cut()

    async def _pass(
        self, talk: _Talk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, may_stall: bool
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                while may_stall and time.monotonic() < self.stalled_until:
                    await asyncio.sleep(0.01)
                if time.monotonic() < self.slow_until:
                    await asyncio.sleep(self.delay)
                if talk.swallows:
                    continue
                writer.write(chunk)
                await writer.drain()
            if not talk.swallows and writer.can_write_eof():
                writer.write_eof()


class _Talk:
    """One connection through a line."""

    def __init__(self, *ends: asyncio.StreamWriter) -> None:
        self._ends = ends
        #: Half open: both ends believe in each other, and nothing arrives any more.
        self.swallows = False

    def cut(self) -> None:
        for end in self._ends:
            _reset(end)


def _reset(writer: asyncio.StreamWriter) -> None:
    if writer.transport.is_closing():
        return
    found = writer.get_extra_info("socket")
    with suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
