"""Signals that end the demo, and the moments in which they have to wait."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Self

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """
    Turns the signals that end a process into exceptions, and holds them back where a process is started or ended:
    what is started and not yet noted would be left behind.
    """

    def __init__(self) -> None:
        self._held = 0
        self._pending = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {one: signal.signal(one, self._handle) for one in _ENDINGS}
        return self

    def __exit__(self, *_error: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let a signal wait until the end of this block."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._pending and not self._held:
            number, self._pending = self._pending, 0
            _end(number)

    @contextmanager
    def ignored(self) -> Iterator[None]:
        """Let signals do nothing until the end of this block: everything is being ended already."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._pending = 0

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._held:
            self._pending = number
        else:
            _end(number)


def _end(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
