"""Properties of the source: who may know whom, and one place for each cross-cutting thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("worker", "contracts")
    for path in (ROOT / folder).rglob("*.py")
)
LUA = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "worker").rglob("*.lua"))

#: From left to right, as DESIGN draws it: a module imports its own layer and those before it. A package stands for
#: all that is in it.
LAYERS = (
    {"contracts"},
    {"bell", "keys", "clock", "errors", "redact", "settings", "metrics", "logs"},
    {"connection", "durability", "line", "script", "url_options"},
    {"evidence", "guard", "markets"},
    {"brokers"},
    {"audit", "fills", "transport", "ledger", "producer", "told"},
    {
        "answers",
        "canary",
        "cancels",
        "engine",
        "hand",
        "intake",
        "journal",
        "reading",
        "reconciler",
        "resolver",
        "sender",
        "settler",
        "upkeep",
    },
    {"assembly"},
    {"byhand", "health", "notify", "route", "stopping", "deadman", "runtime", "doctor"},
    {"simulate"},
    {"cli"},
    {"demo", "__main__"},
)
#: The demo is a verb of the command line, and uses its words.
KNOWN_BACKWARDS = {("worker/cli/app.py", "demo"), ("worker/cli/tools.py", "demo")}
LINES_MAX = 60


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"))


def text(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


def part(module: str) -> str:
    """The part of the product that a module belongs to: ``contracts``, or what follows ``worker.``"""
    first, _, rest = module.partition(".")
    return first if first == "contracts" else rest.partition(".")[0]


def rank(name: str) -> int:
    return next(place for place, layer in enumerate(LAYERS) if name in layer)


def imported(path: str) -> Iterator[str]:
    """Our own parts that a file imports, inside functions and for type checkers too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = (
                [f"worker.{alias.name}" for alias in node.names] if node.module == "worker" else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] in ("worker", "contracts") and name not in ("worker", "worker.__version__"):
                yield part(name)


def functions(path: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (
        node for node in ast.walk(tree(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


def test_every_module_has_its_place_in_a_layer() -> None:
    placed = set().union(*LAYERS)

    found = {part(".".join(Path(path).with_suffix("").parts)) for path in SOURCES} - {"__init__"}

    assert found == placed


@pytest.mark.parametrize("path", SOURCES)
def test_imports_go_one_way(path: str) -> None:
    own = part(".".join(Path(path).with_suffix("").parts))
    if own == "__init__":
        assert list(imported(path)) == []
        return

    backwards = {
        name for name in imported(path) if rank(name) > rank(own) and (path, name) not in KNOWN_BACKWARDS
    }

    assert backwards == set()


@pytest.mark.parametrize("path", SOURCES)
def test_no_function_is_longer_than_a_screen(path: str) -> None:
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in functions(path)
        if node.end_lineno is not None and node.end_lineno - node.lineno >= LINES_MAX
    ]

    assert long == []


def test_only_the_clock_reads_the_time() -> None:
    reads = re.compile(
        r"\btime\.(?:time|time_ns|monotonic|monotonic_ns|perf_counter|clock_gettime|sleep|localtime|gmtime)\b"
        r"|\bdatetime\.(?:now|utcnow|today)\b|\bdate\.today\b|^\s*(?:import time\b|from time import)",
        re.MULTILINE,
    )

    assert {path for path in SOURCES if reads.search(text(path))} == {"worker/clock.py"}


def test_only_one_module_spells_the_keys_of_redis() -> None:
    assert {path for path in SOURCES + LUA if re.search(r"exec:\{|['\"]exec:", text(path))} == {
        "worker/keys.py",
        # Names them for readers of the published documents.
        "contracts/schema.py",
        # In its header, where the guard is kept.
        "worker/ledger/lua/guard.lua",
    }


def test_only_one_module_makes_collectors() -> None:
    makes = {
        path
        for path in SOURCES
        if re.search(
            r"from prometheus_client import [^\n]*\b(?:Counter|Gauge|Info|Histogram|Summary)\b", text(path)
        )
        or re.search(r"from prometheus_client import \([^)]*\b(?:Counter|Gauge|Info)\b", text(path))
    }

    assert makes == {"worker/metrics.py"}


@pytest.mark.parametrize("path", SOURCES)
def test_whoever_catches_everything_raises_it_again_or_says_why_not(path: str) -> None:
    lines = text(path).splitlines()
    silent = []
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = {"BaseException"} if node.type is None else {ast.unparse(node.type)}
        raises = isinstance(node.body[-1], ast.Raise)
        says_why = re.search(r"# noqa: BLE001\s+\S+ \S+", lines[node.lineno - 1])
        if caught & {"Exception", "BaseException"} and not raises and not says_why:
            silent.append(f"{path}:{node.lineno}")

    assert silent == []


# Lua: the header is the contract.


def header(path: str) -> str:
    kept = []
    for line in text(path).splitlines():
        if not line.startswith("--"):
            break
        kept.append(line)
    return "\n".join(kept)


def body(path: str) -> str:
    return re.sub(r"--[^\n]*", "", text(path))


def arguments(lua: str) -> set[str]:
    """KEYS and ARGV as they are written: by number, or counted from ARGS."""
    return {re.sub(r"\s", "", one) for one in re.findall(r"(?:KEYS|ARGV)\[(?:\d+|ARGS(?: \+ \d+)?)\]", lua)}


@pytest.mark.parametrize("path", LUA)
def test_every_script_begins_with_what_it_does(path: str) -> None:
    assert re.match(r"-- \S.*[.:]?\n", text(path)) and len(header(path)) > 60


@pytest.mark.parametrize("path", [path for path in LUA if Path(path).stem not in ("guard", "lib")])
def test_the_header_of_a_script_names_its_arguments_and_its_answers(path: str) -> None:
    named, used = arguments(header(path)), arguments(body(path))

    assert "Returns" in header(path)
    assert used <= named, f"not in the header: {sorted(used - named)}"
    assert named <= used, f"in the header only: {sorted(named - used)}"


@pytest.mark.parametrize("path", [path for path in LUA if Path(path).stem not in ("guard", "lib")])
def test_a_script_answers_only_with_words_that_its_header_lists(path: str) -> None:
    answered = set(re.findall(r"return (?:done\()?\{?'([a-z_]+)'", body(path)))

    unlisted = {word for word in answered if f"'{word}'" not in header(path)}

    assert unlisted == set()
