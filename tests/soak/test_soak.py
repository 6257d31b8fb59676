"""The storm in its short form: every kind of fault at least once, everything at rest afterwards, every promise kept."""

from __future__ import annotations

import pytest

from tests.conftest import RedisServer
from tests.soak.plan import Plan
from tests.soak.script import PACE, faults_of, script
from tests.soak.storm import run

pytestmark = [pytest.mark.process, pytest.mark.real_redis, pytest.mark.timeout(300)]


def test_after_a_storm_of_kills_freezes_cuts_and_lost_replies_every_promise_holds(
    redis_server: RedisServer,
) -> None:
    """It has a server of its own, which it kills; the fixture says whether there can be one."""
    plan = Plan(seed=4, seconds=15, broker="kis", kills=30, faults=faults_of("kis"), rate=4.0)

    result = run(plan, lambda _: None)

    assert result.broken == [], f"seed {plan.seed}; evidence: {result.evidence}"
    assert result.counts["orders"] > 0 and result.faults["kill"] == 30
    assert set(PACE) <= set(result.faults)


def test_the_same_seed_is_the_same_adversary_and_another_one_is_not() -> None:
    def of(seed: int, *faults: str) -> object:
        return script(seed, 60, workers=3, kills=9, faults=faults or faults_of("kis"), lease=2)

    assert of(1) == of(1) != of(2)


def test_without_one_kind_of_fault_the_others_befall_as_before() -> None:
    every = Plan(seed=7, seconds=60, broker="kis", faults=faults_of("kis")).script
    fewer = Plan(seed=7, seconds=60, broker="kis", faults=("kill", "freeze")).script

    assert fewer == [one for one in every if one.kind in ("kill", "freeze")]


def test_workers_are_frozen_for_longer_than_any_lease() -> None:
    plan = Plan(seed=1, seconds=600, faults=("freeze",))

    assert min(strike.lasts for strike in plan.script) > 2.0
