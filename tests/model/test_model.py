"""The protocol, searched: every state that can be reached in small worlds in which all goes wrong that may."""

from __future__ import annotations

import pytest

from tests.model import broker, ledger, page
from tests.model.configurations import DEEP, SETTINGS, named
from tests.model.rules import Rule
from tests.model.search import search
from tests.model.setting import Setting
from tests.model.world import LAG, QUIET, pack, unpack


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: one.name)
def test_no_promise_breaks_while_every_rule_holds(setting: Setting) -> None:
    found = search(setting)

    assert not found.broken, "\n".join((found.broken, *found.story))
    assert found.is_complete and found.states > 500


@pytest.mark.parametrize("rule", Rule, ids=lambda one: one.name)
def test_without_a_rule_the_promise_that_rests_on_it_breaks_as_the_page_tells(rule: Rule) -> None:
    found = page.without(rule)

    assert found.promise == rule.statement.promise, "\n".join((found.broken, *found.story))
    rows = dict(zip(Rule, page.written(page.RULES), strict=True))
    assert rows[rule] == page.rule_row(rule, found), "run python -m tests.model --table"


def test_the_page_names_every_world_that_is_searched() -> None:
    assert page.written(page.WORLDS) == page.world_rows(), "run python -m tests.model --table"


def test_an_absence_read_one_tick_too_early_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "QUIET", QUIET - 1)

    assert search(named("one order")).promise == "P4"


def test_a_list_that_is_later_than_its_lag_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "LAG", LAG + 1)

    assert search(named("one order")).promise == "P4"


def test_a_story_starts_at_the_beginning_and_each_step_follows_from_the_one_before() -> None:
    found = search(named("one order").without(Rule.SWEEP))

    assert found.story[0] == "worker 1 takes entry 1, A"
    assert found.story[-1] == "worker 1 is killed, and starts again" or "acknowledges" in found.story[-1]


def test_a_state_comes_out_of_its_packing_as_it_went_in() -> None:
    packed = pack(named("a lane").start())

    assert pack(unpack(packed)) == packed


def test_a_search_that_was_cut_short_does_not_say_that_all_is_well() -> None:
    assert not search(named("one order"), states_max=100).is_complete


def test_no_two_worlds_have_one_name() -> None:
    names = [one.name for one in (*SETTINGS, *DEEP)]

    assert len(set(names)) == len(names)
