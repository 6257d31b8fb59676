"""The processes of a demo and its folder, all gone at the end, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from worker.demo.interrupts import Interrupts
from worker.settings import PREFIX

_STOP_SECONDS = 3.0


class Processes:
    """
    Starts processes and ends them, from `open` to `close`, which removes the folder too; should this process be
    killed, its watchdog does. Close it even when `open` was cut short.
    """

    def __init__(self, interrupts: Interrupts) -> None:
        #: Hold them where a signal at the wrong moment would do harm.
        self.interrupts = interrupts
        self.folder = Path()
        self._started: list[subprocess.Popen[bytes]] = []
        self._watchdog: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Make the folder, and start the watchdog."""
        with self.interrupts.held():
            self.folder = Path(tempfile.mkdtemp(prefix="execworker-demo-"))
            self._watchdog = _start_watchdog(self.folder)

    def start(
        self,
        command: list[str],
        log: str,
        environment: Mapping[str, str] | None = None,
        *,
        is_read: bool = False,
    ) -> subprocess.Popen[bytes]:
        """
        Start a process that logs into a file of the folder. Where it ``is_read``, its standard output is a pipe. What
        the demo's user has set for other workers is not for this one.
        """
        with self.interrupts.held(), (self.folder / log).open("ab") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if is_read else out,
                stderr=out,
                env=_clean_environment() | dict(environment or {}),
                # A Ctrl-C is for the demo alone, which then ends the others in order.
                start_new_session=True,
            )
            self._started.append(process)
            self._tell_watchdog(process.pid)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill -9."""
        with self.interrupts.held():
            process.kill()
            self._reap(process)

    def close(self) -> None:
        """End all processes, the last one first, and remove the folder."""
        with self.interrupts.ignored():
            while self._started:
                process = self._started[-1]
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
                process.kill()
                self._reap(process)
            if self._watchdog is not None:
                self._watchdog.communicate()
                shutil.rmtree(self.folder, ignore_errors=True)

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._started.remove(process)
        self._tell_watchdog(-process.pid)

    def _tell_watchdog(self, number: int) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with suppress(BrokenPipeError):
                self._watchdog.stdin.write(b"%d\n" % number)
                self._watchdog.stdin.flush()


def _start_watchdog(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "worker.demo.watchdog", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _clean_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(PREFIX) and name != "PORT"
    }
