"""
Put one fault after the other into the code, and see whether a test notices.

``python -m tests.mutants [--module worker.guard …] [--share 0.2] [--seed 1] [--jobs 1] [--json FILE]``

Each mutant runs in a process of its own, forked from one that has imported the libraries already. A mutant that no test
notices is a survivor: its line is printed. Exit code 1 when less than 90 % are killed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.mutants.lua import lua_mutants
from tests.mutants.mutate import Mutant, mutants
from tests.mutants.plan import EXPLAINED, ON_A_SERVER, PARTS, PLAN

ROOT = Path(__file__).parents[2]
#: Seconds after which a mutant counts as noticed: it hangs, and the suite would.
PATIENCE = 90.0
MUST = 0.9


@dataclass(frozen=True, slots=True)
class Survivor:
    module: str
    line: int
    what: str
    why: str


def main(arguments: Sequence[str]) -> int:
    """Run the plan, or a part of it. Returns the exit code."""
    given = _parse(arguments)
    _import_libraries()
    survivors: list[Survivor] = []
    ran = 0
    for module in given.module or PLAN:
        count, found = _run_module(module, given.share, given.seed, given.jobs)
        ran += count
        survivors += found
        _say(f"{module}: {count - len(found)} of {count} killed")
    unexplained = [one for one in survivors if not one.why]
    rate = 1 - len(unexplained) / ran if ran else 1.0
    _say(
        f"{ran} mutants, {ran - len(survivors)} killed, {len(survivors)} survived, {len(unexplained)} unexplained"
    )
    if given.json:
        Path(given.json).write_text(
            json.dumps({"ran": ran, "survivors": [asdict(one) for one in survivors]}), "utf-8"
        )
    return 0 if rate >= MUST else 1


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--module", action="append", choices=list(PLAN))
    parser.add_argument("--share", type=float, default=1.0, help="of all mutants, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json")
    return parser.parse_args(arguments)


def _run_module(module: str, share: float, seed: int, jobs: int) -> tuple[int, list[Survivor]]:
    source = _path(module).read_text("utf-8")
    if _is_noticed(module, Mutant(0, "nothing", source)):
        raise SystemExit(f"{module}: its tests fail as it is")
    dice = random.Random(f"{seed}:{module}")
    chosen = [one for one in _all_of(module, source) if dice.random() < share]
    found: list[Survivor] = []
    with ThreadPoolExecutor(jobs) as pool:
        noticed = pool.map(lambda one: _is_noticed(module, one), chosen)
        for one, is_noticed in zip(chosen, noticed, strict=True):
            if not is_noticed:
                found.append(Survivor(module, one.line, one.what, EXPLAINED.get((module, one.what), "")))
                _say(f"  survived: {module} line {one.line}: {one.what} [{found[-1].why}]")
    return len(chosen), found


def _all_of(module: str, source: str) -> Iterable[Mutant]:
    if _path(module).suffix == ".lua":
        return lua_mutants(source, PARTS.get(module, ("", "")))
    return mutants(source)


def _path(module: str) -> Path:
    # Nothing may be imported here: the children import it, mutated.
    found = ROOT / module.replace(".", "/")
    if found.is_dir():
        return found / "__init__.py"
    return next(one for one in (found.with_suffix(".lua"), found.with_suffix(".py")) if one.exists())


def _is_noticed(module: str, mutant: Mutant) -> bool:
    child = os.fork()
    if child == 0:
        _be_the_mutant(module, mutant)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) != 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _be_the_mutant(module: str, mutant: Mutant) -> None:
    """In the child: run the tests with the mutated module in place of the real one, and end."""
    code = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        import pytest

        if _path(module).suffix == ".lua":
            _show(_path(module), mutant.source)
        else:
            sys.meta_path.insert(0, _Finder(module, mutant.source))
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        code = int(pytest.main([*options, "-m", "not real_redis", *PLAN[module]]))
        if code == 0 and module in ON_A_SERVER:
            code = int(pytest.main([*options, *ON_A_SERVER[module]]))
    finally:
        os._exit(code)


def _show(script: Path, source: str) -> None:
    """Whoever reads this script reads it as mutated."""
    read_text = Path.read_text

    def read(path: Path, *args: Any, **kwargs: Any) -> str:
        return source if path == script else read_text(path, *args, **kwargs)

    Path.read_text = read  # type: ignore[method-assign]


class _Finder:
    """Finds the one module, as mutated."""

    def __init__(self, module: str, source: str) -> None:
        self._module = module
        self._source = source

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name != self._module:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        code = compile(self._source, str(spec.origin), "exec")
        spec.loader.exec_module = lambda found: exec(code, found.__dict__)  # type: ignore[method-assign]
        return spec


def _import_libraries() -> None:
    os.chdir(ROOT)
    for name in (
        "fakeredis",
        "kombu",
        "prometheus_client",
        "pydantic",
        "pytest",
        "redis",
        "tenacity",
    ):
        importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
