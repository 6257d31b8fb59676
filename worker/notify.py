"""
What systemd is told about this process: ready, alive, leaving.

The protocol is sd_notify(3): a datagram of ``NAME=value`` lines to the socket that ``NOTIFY_SOCKET`` names (systemd 252,
read 2026-11). From ``STOPPING=1`` on, systemd minds its stop time-out and no watchdog any more.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

from worker.health import Check

#: The variable in which systemd names its socket. Without it there is nobody to tell, and nothing is sent.
SOCKET: Final = "NOTIFY_SOCKET"

#: Seconds that a worker which waits for Redis asks for, each time anew, before it counts as failed to start.
_MORE_TIME_TO_START = 30.0
#: Seconds that leaving may take beyond the drain: the side threads are given one each.
_AFTER_THE_DRAIN = 15.0


class Notifier:
    """Tells systemd how the worker is. What it tells comes from the same callables that answer probes."""

    def __init__(self, address: str | None, *, live: Check, ready: Check) -> None:
        self._address = address
        self._live = live
        self._ready = ready
        self._was_ready = False
        self._status: str | None = None

    def look(self) -> None:
        """
        Look at the worker and tell; call it once a second.

        ``WATCHDOG=1`` goes out only while every loop turns. A loop that hangs is not covered up: nothing goes out, and
        systemd restarts the worker once ``WatchdogSec`` is over.
        """
        if self._address is None:
            return
        hangs = self._live()
        lacks = hangs or self._ready()
        lines = self._status_if_new(lacks or "running")
        if hangs is None:
            lines.append("WATCHDOG=1")
            if lacks is None and not self._was_ready:
                self._was_ready = True
                lines.append("READY=1")
            elif not self._was_ready:
                # Redis away is no reason to fail: a restart would not bring it back.
                lines.append(_extend(_MORE_TIME_TO_START))
        self._send(lines)

    def stopping(self, drain_timeout: float) -> None:
        """The worker leaves, and may take ``drain_timeout`` seconds over what is in flight."""
        self._send(
            [*self._status_if_new("draining"), "STOPPING=1", _extend(drain_timeout + _AFTER_THE_DRAIN)]
        )

    def _status_if_new(self, status: str) -> list[str]:
        if status == self._status:
            return []
        self._status = status
        return [f"STATUS={' '.join(status.split())}"]

    def _send(self, lines: list[str]) -> None:
        if self._address is None or not lines:
            return
        # A systemd that is away or busy holds nothing up: the next second says it again.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
            way.setblocking(False)
            way.connect(_path(self._address))
            way.send("\n".join(lines).encode())


def _extend(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}"


def _path(address: str) -> str:
    # An @ stands for the zero byte of Linux's abstract sockets.
    return "\0" + address[1:] if address.startswith("@") else address
