"""
Ends what a demo has started and removes its folder, once the demo is gone, however it went.

Standard input is a pipe that only the demo holds open, so its end is the demo's end. Each line is a process that
was started (``123``) or has been waited for (``-123``). The only argument is the folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Wait for the demo to end, then clean up behind it."""
    alive: set[int] = set()
    for line in sys.stdin:
        number = int(line)
        alive.add(number) if number > 0 else alive.discard(-number)
    for pid in alive:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
