"""A primary that dies with what it had acknowledged: workers follow the next one, and no order is sent twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts import ExecutionIntent, Outcome
from tests.conftest import make_intent
from tests.failover.servers import DURABLE, Sentinels
from tests.process.workers import Floor, wait_until

pytestmark = [pytest.mark.process, pytest.mark.real_redis]


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    started = Sentinels(*DURABLE)
    yield started
    started.close()


class Desk(Floor):
    """Workers of a redundant Redis."""

    def __init__(self, server: Any, folder: Path, *, confirm_replicas: int = 0, **route: Any) -> None:
        super().__init__(server, folder, **{"options__latency": 0.02, "concurrency": 4, **route})
        self._confirm_replicas = confirm_replicas

    def environ(self, **route: Any) -> dict[str, str]:
        return super().environ(**route) | {"EXECWORKER_CONFIRM_REPLICAS": str(self._confirm_replicas)}


@pytest.fixture
def desk(sentinels: Sentinels, tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(**options: Any) -> Desk:
        made.append(Desk(sentinels, tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def orders(count: int, prefix: str) -> list[ExecutionIntent]:
    now = datetime.now(UTC)
    return [
        make_intent(intent_id=f"{prefix}-{number:03d}", symbol=f"{number % 40:06d}", created_at=now)
        for number in range(count)
    ]


def test_orders_whose_launch_died_with_the_primary_are_found_at_the_broker_and_not_sent_again(
    sentinels: Sentinels, desk: Callable[..., Desk]
) -> None:
    here = desk(max_age=600, future_skew=0.5)
    first, second = here.worker(), here.worker()
    before, lost = orders(60, "before"), orders(200, "lost")
    here.enqueue(before)
    wait_until(lambda: len(here.answers()) == 60, "all is well")

    sentinels.cut_off()
    here.enqueue(lost)
    wait_until(lambda: len(here.book()) >= 150, "orders leave whose launch no replica knows")
    first.kill()
    sentinels.servers[0].kill()
    wait_until(lambda: sentinels.primary is sentinels.servers[1], "the replica takes over")
    third = here.worker()
    # Nobody knows what became of them, so they are asked for again: some as they were, later some made anew.
    here.enqueue([*before, *lost[:100]])
    wait_until(lambda: "server_reconciled" in second.log + third.log, "the broker's list is compared")
    anew = [one.model_copy(update={"created_at": datetime.now(UTC)}) for one in lost[100:]]
    here.enqueue(anew)

    wait_until(lambda: len(here.answers()) == 260, "every order is answered", seconds=60)
    here.check()
    assert {one.outcome for one in here.answers().values()} <= {Outcome.ACCEPTED, Outcome.NOT_PLACED}
    here.enqueue(orders(20, "after"))
    wait_until(lambda: len(here.answers()) == 280, "the desk goes on")
    here.check()
    assert {f"after-{number:03d}" for number in range(20)} <= set(here.book())


def test_with_confirmed_writes_nothing_leaves_while_no_replica_follows_and_a_fail_over_forgets_nothing(
    sentinels: Sentinels, desk: Callable[..., Desk]
) -> None:
    here = desk(max_age=600, confirm_replicas=1)
    here.worker()
    worker = here.worker()
    here.enqueue(orders(60, "before"))
    wait_until(lambda: len(here.answers()) == 60, "all is well")

    sentinels.cut_off()
    here.enqueue(orders(60, "waiting"))
    wait_until(lambda: "confirmed by 0 of 1 replicas" in worker.log, "it says why it stands still")
    assert len(here.book()) == 60
    refused = here.run("halt", "--reason", "a drill")
    assert refused.returncode == 69, "a halt that no replica has is no halt"
    sentinels.join()
    here.run("resume", "--reason", "the drill is over")
    here.enqueue(orders(60, "later"))
    wait_until(lambda: len(here.answers()) == 180, "all are answered")
    sentinels.servers[0].kill()
    wait_until(lambda: sentinels.primary is sentinels.servers[1], "the replica takes over")

    wait_until(lambda: len(here.answers()) == 180, "the last answer is there as well")
    here.check()
