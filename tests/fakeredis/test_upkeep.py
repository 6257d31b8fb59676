"""A worker's chores go on whatever a stranger puts into the route's keys, but for those that orders hang on."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from tests.conftest import AnyRedis, make_intent
from tests.desk import KEYS, Desk, enqueue, published
from tests.mock_broker import MockBroker
from worker.audit.verify import verify
from worker.cli.app import app
from worker.cli.context import Surroundings
from worker.clock import ManualClock
from worker.ledger.control import Control
from worker.logs import configure
from worker.metrics import Metrics
from worker.upkeep import Upkeep

#: Seconds after which every chore is due again.
LONG = 3601.0
_METRICS = Metrics(["default"])


class Worker:
    """One worker with its chores, on a clock of its own."""

    def __init__(self, client: Any, name: str) -> None:
        self.clock = ManualClock()
        self.lost: list[str] = []
        self._logged = io.StringIO()
        self.desk = Desk(client, MockBroker(), self.clock, name=name)
        self._upkeep = Upkeep(
            self.desk.ledger,
            self.desk.engine,
            client,
            _METRICS.route("default"),
            configure("info", "json", stream=self._logged),
            self.clock,
            worker=name,
            port=lambda: 9464,
            lost=lambda: self.lost.append("lost"),
            away=lambda error: self.lost.append(str(error)),
            skew=lambda _: None,
            owns_stream=True,
            must_be_durable=False,
            confirmation=self.desk.ledger.rules.confirmation,
            is_alive=lambda: True,
        )
        self.leave = self._upkeep.leave

    def turn(self, times: int = 1) -> None:
        """Every chore, so many times."""
        for _ in range(times):
            self._upkeep.turn()
            self.clock.advance(LONG)

    def logged(self, *events: str) -> list[tuple[str, str]]:
        """The lines of these events, each with its chore."""
        lines = [json.loads(line) for line in self._logged.getvalue().splitlines()]
        return [(line["event"], line["chore"]) for line in lines if line["event"] in events]


@pytest.fixture
def client(any_redis: AnyRedis) -> Any:
    return any_redis.connect()


@pytest.fixture(name="start")
def _start(any_redis: AnyRedis) -> Callable[[str], Worker]:
    return lambda name: Worker(any_redis.connect(), name)


def work(worker: Worker, client: Any, name: str) -> None:
    """An intent comes and is answered, so there is something to seal."""
    enqueue(client, make_intent(intent_id=name))
    worker.desk.work()
    assert name in {one.intent_id for one in published(client)}


def test_an_alien_entry_among_the_seals_ends_no_worker_and_sealing_goes_on(
    client: Any, start: Callable[[str], Worker]
) -> None:
    first, second = start("w1"), start("w2")
    for number in range(3):
        work(first, client, f"i-{number}")
        client.xadd(KEYS.seals, {"x": "y"})
        first.turn()
        second.turn()
    first.leave()
    work(second, client, "later")
    second.turn()
    third = start("w3")
    second.leave()
    third.turn()

    found = verify(client, "default")

    assert first.logged("upkeep_fault") == second.logged("upkeep_fault") == third.logged("upkeep_fault") == []
    assert found.fault is not None and "is no seal" in found.fault.text
    last = client.xrevrange(KEYS.seals, count=1)[0][1]
    assert last[b"last"] == client.xrevrange(KEYS.audit, count=1)[0][0]


def test_junk_among_the_workers_ends_none_of_them_and_status_shows_those_that_are(
    client: Any, start: Callable[[str], Worker], any_redis: AnyRedis
) -> None:
    workers = [start("w1"), start("w2")]
    rubbish = [
        b"junk",
        b"",
        b"[]",
        b"7",
        b'{"beat": "soon"}',
        b'{"beat": 1e300}',
        b'{"build": {}, "beat": 1}',
    ]
    rubbish += [b'{"beat": NaN}', b'"\xff\xfe"']
    for number, junk in enumerate(rubbish):
        client.hset(KEYS.workers, b"ghost\xff%d" % number, junk)
    desk = Surroundings({"EXECWORKER_REDIS_URL": any_redis.url}, any_redis.connect, ManualClock())

    shown = CliRunner().invoke(app, ["status"], obj=desk)
    for worker in workers:
        worker.turn(2)

    assert shown.exception is None or isinstance(shown.exception, SystemExit)
    assert [one.name for one in Control(client, "default").status().workers] == ["w1", "w2"]
    assert [worker.lost for worker in workers] == [[], []]


def test_a_key_that_is_of_another_type_for_a_moment_is_told_once_and_when_it_is_well_again(
    client: Any, start: Callable[[str], Worker]
) -> None:
    worker = start("w1")
    work(worker, client, "i-1")
    worker.turn()
    client.rename(KEYS.audit, KEYS.audit + ":aside")
    client.set(KEYS.audit, "not a stream")
    worker.turn(4)
    client.delete(KEYS.audit)
    client.rename(KEYS.audit + ":aside", KEYS.audit)
    worker.turn(2)

    assert worker.logged("upkeep_fault", "upkeep_well") == [("upkeep_fault", "seal"), ("upkeep_well", "seal")]
    assert worker.lost == []


@pytest.mark.parametrize(
    "key", ["responses", "failsafe", "orders", "seals", "owned", "lanes", "intents", "dead"]
)
def test_what_no_order_hangs_on_may_be_broken_for_good_and_the_worker_goes_on(
    client: Any, start: Callable[[str], Worker], key: str
) -> None:
    worker = start("w1")
    work(worker, client, "i-1")
    client.delete(getattr(KEYS, key))
    client.set(getattr(KEYS, key), "rubbish")
    worker.turn(3)
    worker.leave()

    told = worker.logged("upkeep_fault")
    assert told and len(told) == len(set(told))
    assert worker.lost == []


@pytest.mark.parametrize("key", ["open", "workers"])
def test_a_chore_that_orders_hang_on_ends_the_worker_rather_than_to_go_on_without_it(
    client: Any, start: Callable[[str], Worker], key: str
) -> None:
    worker = start("w1")
    client.set(getattr(KEYS, key), "rubbish")

    with pytest.raises(redis.ResponseError):
        worker.turn()


def test_an_owner_that_cannot_be_read_does_not_keep_old_ones_from_being_forgotten(
    client: Any, start: Callable[[str], Worker]
) -> None:
    worker = start("w1")
    client.hset(KEYS.owned, mapping={"a": "alien", "number:1": "1000:1000:i-1", "z": b"\xff:"})
    worker.turn()

    assert set(client.hkeys(KEYS.owned)) == {b"a", b"z"}


def test_a_worker_leaves_the_list_and_ends_also_when_it_cannot_seal(
    client: Any, start: Callable[[str], Worker]
) -> None:
    worker = start("w1")
    worker.turn()
    client.set(KEYS.seals, "rubbish")
    work(worker, client, "i-1")
    worker.leave()

    assert not client.hexists(KEYS.workers, "w1")
    assert worker.logged("upkeep_fault") == [("upkeep_fault", "seal")]
