"""Each failsafe event is told at least once, normally once, in order, whoever tells it and whatever fails first."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import redis

from tests.conftest import AnyRedis
from tests.told.told_case import KEYS, Desk
from worker.keys import RouteKeys
from worker.metrics import TellResult
from worker.told import NotTold
from worker.told.place import Place


class Ear:
    """A channel that remembers; the next tries raise what ``faults`` holds."""

    name = "ear"

    def __init__(self, *faults: Exception | None) -> None:
        self.faults = list(faults)
        self.tries = 0
        self.heard: list[str] = []
        self.meanwhile: Any = lambda: None

    def tell(self, body: bytes) -> None:
        self.tries += 1
        self.meanwhile()
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault
        self.heard.append(json.loads(body)["type"])


@pytest.fixture(name="desk")
def _desk(any_redis: AnyRedis) -> Desk:
    return Desk(any_redis.connect)


def test_an_event_is_told_although_the_first_tries_fail(desk: Desk) -> None:
    ear = Ear(NotTold("away"), NotTold("still away"))
    desk.happen("halt", "resume")

    desk.teller(ear).step()

    assert ear.heard == ["HALTED", "RESUMED"]
    assert desk.counted == [TellResult.FAILED, TellResult.FAILED, TellResult.TOLD, TellResult.TOLD]
    assert [line["event"] for line in desk.log] == ["tell_failed", "tell_failed", "told", "told"]
    assert desk.log[0]["reason"] == "away"


def test_the_pauses_between_tries_grow(desk: Desk) -> None:
    times: list[float] = []
    ear = Ear(*[NotTold("away")] * 8)
    ear.meanwhile = lambda: times.append(desk.clock.boottime())
    desk.happen("halt")

    desk.teller(ear).step()

    pauses = [after - before for before, after in pairwise(times)]
    assert [int(pause) for pause in pauses[:6]] == pytest.approx([1, 2, 4, 8, 16, 32], abs=1)
    assert 60 <= pauses[-1] <= 61


def test_after_so_many_tries_an_event_is_given_up_and_the_next_one_told(desk: Desk) -> None:
    ear = Ear(*[NotTold("away")] * 3)
    desk.happen("halt", "resume")

    desk.teller(ear, tries="3").step()

    assert ear.heard == ["RESUMED"]
    assert desk.counted == [*[TellResult.FAILED] * 3, TellResult.GIVEN_UP, TellResult.TOLD]
    given_up = desk.log[3]
    assert (given_up["event"], given_up["level"], given_up["type"]) == ("tell_given_up", "error", "HALTED")


def test_of_two_workers_one_tells(desk: Desk) -> None:
    ear = Ear()
    first, second = desk.teller(ear, "w1"), desk.teller(ear, "w2")
    desk.happen("halt")

    for one in (first, second, first):
        one.step()

    assert ear.heard == ["HALTED"]


def test_the_next_worker_goes_on_where_the_last_one_ended(desk: Desk) -> None:
    ear = Ear()
    first = desk.teller(ear, "w1")
    desk.happen("halt")
    first.step()
    first.stop.set()
    first.run()
    desk.happen("resume")

    desk.teller(ear, "w2").step()

    assert ear.heard == ["HALTED", "RESUMED"]


def test_what_happened_while_nobody_was_there_is_told_later(desk: Desk) -> None:
    ear = Ear()
    first = desk.teller(ear, "w1")
    first.step()
    desk.happen("halt", "resume", "halt")
    desk.client.delete(KEYS.teller("ear"))

    desk.teller(ear, "w2").step()

    assert ear.heard == ["HALTED", "RESUMED", "HALTED"]


def test_a_worker_killed_between_telling_and_noting_it_leaves_the_event_to_be_told_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear = Ear()
    desk.happen("halt")
    dying = desk.teller(ear, "w1")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("worker.told.place.Place.done", die)
        with pytest.raises(KeyboardInterrupt):
            dying.step()
    desk.client.delete(KEYS.teller("ear"))
    desk.teller(ear, "w2").step()

    assert ear.heard == ["HALTED", "HALTED"]


def test_who_lost_the_right_to_tell_while_waiting_tells_no_more(desk: Desk) -> None:
    ear = Ear(NotTold("away"))
    ear.meanwhile = lambda: desk.client.set(KEYS.teller("ear"), "w2")
    desk.happen("halt")

    desk.teller(ear, "w1").step()
    assert (ear.tries, ear.heard) == (1, [])

    desk.teller(ear, "w2").step()

    assert ear.heard == ["HALTED"]


def test_a_worker_keeps_the_right_to_tell_through_long_pauses(desk: Desk) -> None:
    ear = Ear(*[NotTold("away")] * 8)
    wait, key = desk.clock.wait, KEYS.teller("ear")

    def waits(event: Any, seconds: float) -> bool:
        # Redis's clock is not the test's: let the lease grow shorter by hand, and somebody else have it at its end.
        left = desk.client.pttl(key) - round(seconds * 1000)
        if left > 0:
            desk.client.pexpire(key, left)
        else:
            desk.client.set(key, "w2")
        return wait(event, seconds)

    desk.clock.wait = waits  # type: ignore[method-assign]
    desk.happen("halt")

    desk.teller(ear, "w1").step()

    assert ear.heard == ["HALTED"]


def test_a_frozen_worker_that_wakes_does_not_turn_the_clock_back(desk: Desk) -> None:
    ear, other = Ear(), Ear()

    def frozen() -> None:
        ear.meanwhile = lambda: None
        desk.client.delete(KEYS.teller("ear"))
        desk.teller(other, "w2").step()

    ear.meanwhile = frozen
    desk.happen("halt", "resume")

    desk.teller(ear, "w1").step()
    assert ear.heard == ["HALTED"]
    desk.client.delete(KEYS.teller("ear"))
    desk.teller(other, "w3").step()

    assert other.heard == ["HALTED", "RESUMED"]


def test_only_the_types_that_are_wanted_are_told(desk: Desk) -> None:
    ear = Ear()
    desk.happen("halt", "resume")

    desk.teller(ear, types="resumed, guard_tripped").step()

    assert ear.heard == ["RESUMED"]


def test_a_new_channel_tells_the_last_minute_and_not_the_week(desk: Desk) -> None:
    ear = Ear()
    now = int(desk.client.time()[0]) * 1000
    event = {"type": "type", "body": '{"type":"OLD"}'}
    desk.client.xadd(KEYS.failsafe, event, id=f"{now - 3_600_000}-0")
    desk.client.xadd(KEYS.failsafe, event | {"body": '{"type":"NEW"}'}, id=f"{now - 20_000}-0")

    desk.teller(ear).step()

    assert ear.heard == ["NEW"]


def test_a_redis_that_is_away_is_waited_for(desk: Desk) -> None:
    ear = Ear()
    teller = desk.teller(ear)
    desk.happen("halt")
    client = teller._places["default"]._client
    real, faults = client.execute_command, [redis.ConnectionError("away")]

    def execute(*args: Any, **options: Any) -> Any:
        if faults:
            raise faults.pop()
        return real(*args, **options)

    client.execute_command = execute
    teller.step()
    assert ear.heard == []

    teller.step()

    assert ear.heard == ["HALTED"]


def test_a_fault_of_a_channel_is_a_try_that_failed(desk: Desk) -> None:
    ear = Ear(KeyError("surprise"))
    desk.happen("halt")

    desk.teller(ear).step()

    assert ear.heard == ["HALTED"]
    assert desk.log[0]["reason"] == "a fault: KeyError"


def test_an_event_that_a_newer_version_wrote_is_told_as_it_stands(desk: Desk) -> None:
    ear = Ear()
    desk.client.xadd(KEYS.failsafe, {"type": "BRAND_NEW", "body": '{"type":"BRAND_NEW","schema_version":9}'})

    desk.teller(ear).step()

    assert ear.heard == ["BRAND_NEW"]


def test_a_fault_of_ours_is_logged_and_telling_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear()
    desk.happen("halt")
    teller = desk.teller(ear)
    step, faults = teller.step, [RuntimeError("ours")]

    def once() -> None:
        if faults:
            raise faults.pop()
        step()
        teller.stop.set()

    monkeypatch.setattr(teller, "step", once)
    teller.run()

    assert ear.heard == ["HALTED"]
    assert "RuntimeError: ours" in desk.log[0]["exception"]


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{}", b'{"type": 7}', b"[" * 100_000])
def test_what_is_no_event_is_passed_over_at_once_and_the_next_one_is_told(desk: Desk, body: bytes) -> None:
    ear = Ear()
    began = desk.clock.boottime()
    entry = desk.client.xadd(KEYS.failsafe, {"type": "HALTED", "body": body}).decode()
    desk.happen("halt")

    desk.teller(ear).step()

    assert ear.heard == ["HALTED"] and ear.tries == 1
    assert desk.clock.boottime() == began
    assert [(line["event"], line.get("entry")) for line in desk.log] == [
        ("entry_unreadable", entry),
        ("told", None),
    ]


def test_a_route_whose_stream_is_no_stream_does_not_silence_the_others(desk: Desk) -> None:
    ear = Ear()
    teller = desk.teller(ear)
    teller._places = {"other": Place(desk.client, "other", "ear"), **teller._places}
    desk.client.set(RouteKeys("other").failsafe, "rubbish")
    desk.happen("halt")

    teller.step()
    teller.step()

    assert ear.heard == ["HALTED"]
    assert [line["event"] for line in desk.log].count("telling_fault") == 1
