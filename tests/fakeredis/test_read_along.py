"""Somebody else's consumer group on the queue, such as an auditor's, who reads along."""

from __future__ import annotations

from tests.conftest import AnyRedis, make_intent
from tests.desk import KEYS, enqueue
from worker.keys import GROUP
from worker.ledger.control import Control


def test_the_backlog_that_is_shown_is_the_workers_own_whoever_else_reads_along(any_redis: AnyRedis) -> None:
    client = any_redis.connect()
    enqueue(client, *(make_intent(intent_id=f"i{number}") for number in range(3)))
    client.xgroup_create(KEYS.intents, "an-auditor", "0")
    client.xreadgroup("an-auditor", "one", {KEYS.intents: ">"}, noack=True)
    client.xgroup_create(KEYS.intents, GROUP, "0")

    status = Control(client, KEYS.route).status()

    assert status.queue_depth == 3 and status.oldest_age is not None
    assert status.queue_lag in (3, None)
