"""The maker of faults makes them, and a fault that is put in is noticed."""

from __future__ import annotations

import ast

from tests.mutants.lua import lua_mutants
from tests.mutants.mutate import mutants
from tests.mutants.plan import PLAN
from tests.tidy.test_source import ROOT

SOURCE = '''
def check(a: int, b: int = 3) -> bool:
    """Says whether."""
    if a < b and not done(a):
        call(a + 1)
        return True
    raise ValueError("no " + str(a))
'''


def test_each_kind_of_fault_is_made_once_and_changes_the_source() -> None:
    found = list(mutants(SOURCE))

    whats = {one.what.split(":")[0] for one in found}
    assert whats >= {
        "turned round",
        "and/or",
        "not left out",
        "operator",
        "off by one",
        "always",
        "never",
        "left out",
    }
    assert len({one.source for one in found}) == len(found)
    assert all(ast.parse(one.source) for one in found)
    assert not any("raise" in one.what or "Says" in one.what for one in found)


def test_the_plan_names_modules_and_tests_that_exist() -> None:
    for module, tests in PLAN.items():
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or any(path.with_suffix(end).exists() for end in (".py", ".lua")), module
        assert all((ROOT / test).exists() for test in tests), module


LUA = """
-- Not this: 1 + 1.
local function wait(kind, left)
  if kind == 'a + b' and left < 10 then return left - 1 end
  left = left + 20000
  return left
end
local function other() return 1 end
"""


def test_lua_gets_the_same_faults_word_by_word_and_only_those_that_compile() -> None:
    found = list(lua_mutants(LUA, ("local function wait", "local function other")))

    assert [one.what.split(":")[0] for one in found] == [
        "== → ~= at 10",
        "and → or at 21",
        "< → <= at 30",
        "10 → 11 at 32",
        "10 → 9 at 32",
        "- → + at 51",
        "1 → 2 at 54",
        "1 → 0 at 54",
        "left out",
        "+ → - at 14",
        "20000 → 40000 at 16",
        "20000 → 10000 at 16",
        "left out",
        "left out",
    ]
    assert len({one.source for one in found}) == len(found)
