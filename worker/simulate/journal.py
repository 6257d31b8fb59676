"""The book's file: JSON lines, only ever appended to, in the page cache before anybody is answered."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from worker.errors import ConfigError
from worker.simulate.orders import Event, from_line, to_line


class Journal:
    """
    Where events are kept. Without a path they are kept nowhere.

    It survives a kill -9 of this process at any instruction, not a power failure: nothing is synced to the disk.
    """

    def __init__(self, path: Path | None) -> None:
        """
        Raises:
            ConfigError: the file cannot be opened.
        """
        self._path = path
        self._file: int | None = None
        if path is not None:
            try:
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            except OSError as error:
                raise ConfigError([f"book: cannot open {path}: {error.strerror}"]) from error

    def replay(self) -> Iterator[Event]:
        """
        The events of before. A last line that a kill tore is cut off: nobody was ever told of it.

        Raises:
            ConfigError: a whole line cannot be read, so what follows it would be built on sand.
        """
        if self._file is None or self._path is None:
            return
        found = self._path.read_bytes()
        whole = found.rfind(b"\n") + 1
        if whole < len(found):
            os.ftruncate(self._file, whole)
        for number, line in enumerate(found[:whole].splitlines(), start=1):
            try:
                yield from_line(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    [f"book: line {number} of {self._path} cannot be read ({error}); move the file away"]
                ) from error

    def append(self, events: Iterable[Event]) -> None:
        """Keep the events, in one write: all of them are there, or a torn end that the next start cuts off."""
        if self._file is not None:
            lines = (json.dumps(to_line(event), ensure_ascii=False) + "\n" for event in events)
            _write_all(self._file, "".join(lines).encode())

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _write_all(file: int, left: bytes) -> None:
    while left:
        left = left[os.write(file, left) :]
