"""The processes of a run: how they start, and how one is killed, frozen, told to leave, and replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[2]
#: How a worker may end without being told to: by its own kernel timer, when it woke up too late to send.
_OWN_TIMER = -signal.SIGALRM
#: And when it was asked to leave: all done, cut short by its drain time-out, asked before it could listen, or twice.
_LEAVES = (0, 1, -signal.SIGTERM, 128 + signal.SIGTERM)


class Child(Protocol):
    """A process of ours."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""


class Start(Protocol):
    """Starts ``worker …`` with these words, its output in a file."""

    def __call__(self, words: Sequence[str], environ: Mapping[str, str], log: Path) -> Child: ...


class Executor:
    """Starts each process as an operator would: ``python -m worker …``."""

    def __call__(self, words: Sequence[str], environ: Mapping[str, str], log: Path) -> Child:
        path = os.pathsep.join(map(str, (ROOT / "tests/soak/start", ROOT)))
        with log.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "worker", *words],
                cwd=ROOT,
                env={**environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def close(self) -> None:
        pass


class Forker:
    """Forks each process from one that has imported everything: a start takes milliseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.zygote"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, words: Sequence[str], environ: Mapping[str, str], log: Path) -> Child:
        order = {"start": list(words), "environ": dict(environ), "log": str(log)}
        pid = self._ask(order)
        assert pid is not None
        return _Forked(pid, lambda: self._ask({"look": pid}))

    def close(self) -> None:
        assert self._zygote.stdin is not None and self._zygote.stdout is not None
        self._zygote.stdin.close()
        try:
            self._zygote.wait(10)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait(10)
        self._zygote.stdout.close()

    def _ask(self, order: Mapping[str, object]) -> int | None:
        assert self._zygote.stdin is not None and self._zygote.stdout is not None
        with self._lock:
            self._zygote.stdin.write(json.dumps(order) + "\n")
            self._zygote.stdin.flush()
            answer = json.loads(self._zygote.stdout.readline())
        return answer if answer is None else int(answer)


class _Forked:
    def __init__(self, pid: int, look: Callable[[], int | None]) -> None:
        self.pid = pid
        self._look = look
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._look()
        return self._code


class Crew:
    """
    The workers, by their places. Whoever has ended is replaced by `mend`. For one thread at a time.

    ``environ`` says what the worker at a place is started with.
    """

    def __init__(
        self, start: Start, count: int, environ: Callable[[int], Mapping[str, str]], folder: Path
    ) -> None:
        self._start = start
        self._environ = environ
        self._folder = folder
        self._children = {place: self._spawn(place) for place in range(count)}
        #: Places whose process was frozen, and not thawed yet.
        self._frozen: set[int] = set()
        #: And those that were asked to leave.
        self._asked: set[int] = set()
        #: Ends that nobody asked for, by exit code.
        self.fell: Counter[int] = Counter()

    def pid(self, place: int) -> int:
        return self._children[place].pid

    def kill(self, place: int) -> None:
        """Kill -9, and start another at once."""
        self._end(place, signal.SIGKILL)
        self._wait(place)
        self._replace(place)

    def freeze(self, place: int) -> None:
        self._end(place, signal.SIGSTOP)
        self._frozen.add(place)

    def thaw(self, place: int) -> None:
        if place in self._frozen:
            self._frozen.discard(place)
            self._end(place, signal.SIGCONT)

    def ask_to_leave(self, place: int) -> None:
        """TERM. When it has left, `mend` starts another."""
        self._asked.add(place)
        self._end(place, signal.SIGTERM)

    def mend(self) -> None:
        for place, child in self._children.items():
            if (code := child.poll()) is not None:
                if code != _OWN_TIMER and not (place in self._asked and code in _LEAVES):
                    self.fell[code] += 1
                self._replace(place)

    def thaw_all(self) -> None:
        for place in list(self._frozen):
            self.thaw(place)

    def close(self) -> None:
        for place in self._children:
            self._end(place, signal.SIGKILL)
        for place in self._children:
            self._wait(place)

    def _spawn(self, place: int) -> Child:
        return self._start(["run"], self._environ(place), self._folder / f"worker-{place}.log")

    def _replace(self, place: int) -> None:
        self._frozen.discard(place)
        self._asked.discard(place)
        self._children[place] = self._spawn(place)

    def _end(self, place: int, number: signal.Signals) -> None:
        child = self._children[place]
        # Until its end was looked at, its pid is nobody else's.
        if child.poll() is None:
            os.kill(child.pid, number)

    def _wait(self, place: int) -> None:
        wait_for(self._children[place])


def wait_for(child: Child, seconds: float = 20.0) -> int:
    """Its exit code. Kills it when it takes longer."""
    until = time.monotonic() + seconds
    while (code := child.poll()) is None:
        if time.monotonic() > until:
            os.kill(child.pid, signal.SIGKILL)
            until += seconds
        time.sleep(0.001)
    return code
