"""
A process that has imported everything, and forks: the same ``worker …`` as any other, without the second that Python
takes to start. ``python -m tests.soak.zygote`` reads orders on standard input, one JSON object a line, and answers each
with one line: ``{"start": [words], "environ": {}, "log": FILE}`` with the pid, ``{"look": pid}`` with the exit code or null.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
from typing import Any

from tests.soak import child

#: What a worker or a simulator would import first.
_MODULES = (
    "worker.cli.app",
    "worker.runtime",
    "worker.deadman",
    "worker.brokers.simulated",
    "worker.brokers.kis",
    "worker.simulate.kis",
    "worker.simulate.serving",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio",
    "websockets.sync.client",
    "kombu.transport.virtual",
    "worker.transport.streams",
)
_DIE_WITH_PARENT = 1


def main() -> None:
    for name in _MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    living: set[int] = set()
    for line in sys.stdin:
        answer = _obey(json.loads(line), living)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in living:
        os.kill(pid, signal.SIGKILL)


def _obey(order: dict[str, Any], living: set[int]) -> int | None:
    if "start" in order:
        pid = os.fork()
        if pid == 0:
            _become(order)
        living.add(pid)
        return pid
    pid, status = os.waitpid(order["look"], os.WNOHANG)
    if pid == 0:
        return None
    living.discard(pid)
    return os.waitstatus_to_exitcode(status)


def _become(order: dict[str, Any]) -> None:
    """The child: it never returns."""
    code = 70
    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        os.environ.clear()
        os.environ.update(order["environ"])
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  for as long as the process lives
        child.prepare(os.environ)
        code = _run(order["start"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(words: list[str]) -> int:
    from worker.__main__ import main as worker

    sys.argv = ["worker", *words]
    try:
        worker()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    main()
