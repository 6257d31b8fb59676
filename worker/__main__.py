"""`python -m worker`, and the command `worker`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["halt"]:
        _before_all_others()
    from worker.cli.app import app

    app(prog_name="worker")


def _before_all_others() -> None:
    """A stop must not wait for the workers that it stops to leave it a processor. Only root may ask for that."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)


if __name__ == "__main__":
    main()
