"""The maker of faults makes them, and a fault that is put in is noticed."""

from __future__ import annotations

import ast

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
        assert path.is_dir() or path.with_suffix(".py").exists(), module
        assert all((ROOT / test).exists() for test in tests), module
