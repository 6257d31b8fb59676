"""What a worker may do is tried command by command: with the rights of the profile all goes, with less it does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.ward import Ward
from worker.doctor.rights import calls

pytestmark = pytest.mark.real_redis

ROOT = Path(__file__).parents[2]
RULES = next(
    line.split()[3:]
    for line in (ROOT / "deploy/redis/users.acl").read_text("utf-8").splitlines()
    if line.startswith("user worker ")
)
ASKS = ["+acl|whoami", "+acl|dryrun"]


@pytest.fixture(name="as_user")
def _as_user(ward: Ward) -> Iterator[Any]:
    def become(*rules: str) -> Any:
        ward.client.execute_command("ACL", "SETUSER", "w", "reset", "on", *rules, ">pw-of-the-worker")
        ward.env["EXECWORKER_REDIS_URL"] = ward.server.url.replace("://", "://w:pw-of-the-worker@")
        return ward.findings()

    yield become
    ward.client.acl_deluser("w")


def test_the_worker_of_the_profile_may_do_all_that_a_worker_does(as_user: Any) -> None:
    found = as_user(*RULES, *ASKS)

    assert "may do all" in found["redis.rights"].evidence


def test_every_right_of_the_profile_is_tried() -> None:
    granted = {rule[1:] for rule in RULES if rule.startswith("+")}
    tried = {words[0] for words in calls("default")} | {"|".join(words[:2]) for words in calls("default")}

    # What only commands ask that somebody types where the workers run.
    asked_for_itself = {"acl|whoami", "acl|dryrun", "command|info", "xdel", "xinfo|stream", "zcount"}
    assert {name for name in granted if name not in tried} <= asked_for_itself


@pytest.mark.parametrize("right", ["xautoclaim", "evalsha", "config|get", "hset"])
def test_a_right_that_is_missing_is_named(as_user: Any, right: str) -> None:
    found = as_user(*RULES, *ASKS, f"-{right}")["redis.rights.refused"]

    assert re.search(rf"may not: {right.replace('|', ' ')}\b", found.evidence)


def test_keys_that_are_out_of_reach_are_named(as_user: Any) -> None:
    found = as_user(*[rule for rule in RULES if rule != "~exec:*"], "~exec:{default}:*", *ASKS)

    assert "hgetall exec:routes" in found["redis.rights.refused"].evidence


def test_a_user_who_may_not_try_its_rights_is_unknown_and_told_what_to_grant(as_user: Any) -> None:
    found = as_user(*[rule for rule in RULES if not rule.startswith("+acl")])

    assert "redis.rights" not in found
    assert "+acl|dryrun" in found["redis.rights.unknown"].cure
