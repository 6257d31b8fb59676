"""
The same small faults for Lua, which has no parser here: made word by word, and kept where the text still compiles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lupa.lua51 import LuaRuntime, LuaSyntaxError

from tests.mutants.mutate import Mutant

#: What is code is in no comment and in no string.
_SILENT = re.compile(r"--.*|'(?:\\.|[^'\\])*'")
_WORDS = re.compile(
    r"==|~=|<=|>=|[<>*/+]| - |\band\b|\bor\b|\bnot |\btrue\b|\bfalse\b|(?<![\w.])\d+(?![\w.])"
)
_OTHER = {
    "==": "~=",
    "~=": "==",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "+": "-",
    " - ": " + ",
    "*": "/",
    "/": "*",
    "and": "or",
    "or": "and",
    "not ": "",
    "true": "false",
    "false": "true",
}
#: A line that does something by itself; a `local` that is missing would only be a name that nobody knows.
_STATEMENT = re.compile(r"\s*(?!local\b|end\b|else\b|for\b|while\b|function\b)\S.*")


def lua_mutants(source: str, part: tuple[str, str] = ("", "")) -> Iterator[Mutant]:
    """Every fault between the two texts, in the order of the source."""
    first = source.index(part[0])
    last = source.index(part[1], first) if part[1] else len(source)
    runtime = LuaRuntime()
    at = 0
    for number, line in enumerate(source.splitlines(keepends=True), 1):
        if first <= at < last:
            for what, changed in _faults(line):
                text = source[:at] + changed + source[at + len(line) :]
                if _compiles(runtime, text):
                    yield Mutant(number, f"{what}: {line.strip()[:90]}", text)
        at += len(line)


def _faults(line: str) -> Iterator[tuple[str, str]]:
    code = _SILENT.sub(lambda found: "\0" * len(found[0]), line)
    for found in _WORDS.finditer(code):
        for other in _others(found[0]):
            what = f"{found[0].strip()} → {other.strip() or 'nothing'} at {found.start()}"
            yield what, line[: found.start()] + other + line[found.end() :]
    if _STATEMENT.match(code.strip("\0\n")):
        yield "left out", "\n"


def _others(word: str) -> tuple[str, ...]:
    if word in _OTHER:
        return (_OTHER[word],)
    number = int(word)
    # Nobody could tell 20000 microseconds from 20001.
    changed = (number * 2, number // 2) if number >= 1000 else (number + 1, number - 1)
    return tuple(map(str, changed))


def _compiles(runtime: LuaRuntime, text: str) -> bool:
    try:
        runtime.compile(text)
    except LuaSyntaxError:
        return False
    return True
