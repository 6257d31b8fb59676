"""A bell: rung by any thread, waited for by one, alone or together with a socket."""

from __future__ import annotations

import os
import select
from contextlib import suppress


class Bell:
    """
    Whoever waits calls `clear` first and then looks for what there is to do: what was laid out before the ring is
    found then, also when the ring itself was merged with another one.
    """

    def __init__(self) -> None:
        self._is_rung = False
        self._is_heard = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        """Readable while it is rung."""
        return self._read

    @property
    def is_rung(self) -> bool:
        return self._is_rung

    def ring(self) -> None:
        """End the wait, or else the next one. Any thread."""
        if not self._is_rung:
            self._is_rung = True
            os.write(self._write, b"\0")

    def clear(self) -> None:
        if not (self._is_rung or self._is_heard):
            return
        # There may be no byte yet: a ring has its mark first. In this order, a ring that finds the mark and leaves no
        # byte was made before the caller looks.
        with suppress(BlockingIOError):
            os.read(self._read, 1024)
        self._is_rung = self._is_heard = False

    def wait(self, seconds: float, *beside: int) -> list[int]:
        """Wait for at most so many seconds. Returns which of the descriptors ``beside`` it are readable."""
        ready, _, _ = select.select((self._read, *beside), (), (), max(0.0, seconds))
        self._is_heard = self._read in ready
        return [fd for fd in ready if fd != self._read]

    def __del__(self) -> None:
        os.close(self._read)
        os.close(self._write)
