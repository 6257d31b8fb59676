"""One policy, two homes: the guard in Python and the one in Redis answer the same histories alike."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import FailsafeType, GuardState
from worker.errors import Refused
from worker.guard import RESET_REFUSED, Guard
from worker.keys import RouteKeys

KEY = RouteKeys("default").state

#: KEYS[1] the state hash; ARGV = verb, then its arguments. Answers {edge or reason, '1' if it would launch}.
DRIVER = """
local g = guard_load(KEYS[1])
local edge, reason
if ARGV[1] == 'succeeded' then edge = guard_succeeded(g, ARGV[2], ARGV[3])
elseif ARGV[1] == 'failed' then edge = guard_failed(g, tonumber(ARGV[2]), tonumber(ARGV[3]))
elseif ARGV[1] == 'reset' then edge, reason = guard_reset(g, ARGV[2] == '1') end
guard_save(KEYS[1], g)
return {edge or '', reason or '', guard_admits(g) and 1 or 0}
"""


class RedisHome:
    """The guard of one route in Redis, driven through its Lua policy."""

    def __init__(self, client: Any, threshold: int) -> None:
        policy = resources.files("worker").joinpath("ledger/lua/guard.lua").read_text("utf-8")
        self._client = client
        self._script = client.register_script(policy + DRIVER)
        client.delete(KEY)
        client.hset(KEY, "guard_threshold", threshold)

    def call(self, *args: object) -> tuple[str, str, bool]:
        edge, reason, admits = self._script(keys=[KEY], args=args)
        return edge.decode(), reason.decode(), admits == 1

    def value(self) -> Guard:
        fields = {name.decode(): value.decode() for name, value in self._client.hgetall(KEY).items()}
        return Guard(
            threshold=int(fields["guard_threshold"]),
            state=GuardState(fields.get("guard_state", "NORMAL")),
            failures=tuple(int(each) for each in fields.get("guard_failures", "").split(",") if each),
            last_success=int(fields.get("guard_last_success", 0)),
            generation=int(fields.get("guard_generation", 0)),
            probation=fields.get("guard_probation") == "1",
        )


#: Which launch an answer is about, counted from the newest: mostly one that can still matter.
RECENT = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3, 5, 9, 20])
#: A step: a launch; an answer to one of the launches so far, told before or not; a reset, approved or not.
STEPS = st.one_of(
    st.just(("launch", 0)),
    st.tuples(st.sampled_from(["succeeded", "failed", "failed"]), RECENT),
    st.tuples(st.just("reset"), st.integers(0, 1)),
)
HISTORIES = st.lists(STEPS, max_size=40)


def play(home: RedisHome, threshold: int, history: list[tuple[str, int]]) -> None:
    guard, must_stay_closed = Guard(threshold), False
    launches: list[tuple[int, int]] = []
    for verb, number in history:
        before, edge, reason = guard, None, ""
        if verb == "launch":
            if guard.admits:
                launches.append((len(launches) + 1, guard.generation))
            args: tuple[object, ...] = ("look",)
        elif verb == "reset":
            args = (verb, number)
            try:
                guard, edge = guard.reset(approve=bool(number))
            except Refused as refused:
                reason = next(state for state, text in RESET_REFUSED.items() if text == str(refused))
        elif launches:
            launch = launches[-1 - number % len(launches)]
            args = (verb, *launch)
            guard, edge = getattr(guard, verb)(*launch)
            forgiven = set(before.failures) - set(guard.failures)
            assert all(sequence <= launch[0] for sequence in forgiven), "a success forgave a later launch"
        else:
            continue

        assert home.call(*args) == (edge or "", reason, guard.admits)
        assert home.value() == guard
        must_stay_closed = (must_stay_closed or edge in TRIPS) and edge is not FailsafeType.GUARD_RESET
        assert guard.admits is not must_stay_closed, (
            "only a reset opens a tripped guard, only a trip closes one"
        )
        assert (edge is not None) == (guard.generation == before.generation + 1)


TRIPS = (FailsafeType.GUARD_TRIPPED, FailsafeType.LOCKDOWN)


def test_both_homes_of_the_guard_give_the_same_answers_to_every_history(any_redis: Any) -> None:
    client = any_redis.connect()

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(threshold=st.integers(1, 4), history=HISTORIES)
    def run(threshold: int, history: list[tuple[str, int]]) -> None:
        play(RedisHome(client, threshold), threshold, history)

    run()


FAILURE = [("launch", 0), ("failed", 0)]
SUCCESS = [("launch", 0), ("succeeded", 0)]


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_both_homes_lock_down_on_a_second_trip_and_not_after_a_success(
    any_redis: Any, threshold: int
) -> None:
    trip, reset = FAILURE * threshold, ("reset", 0)
    approved = ("reset", 1)

    for history in (
        [*trip, reset, *trip, reset, approved, *SUCCESS],
        [*trip, reset, *SUCCESS, *trip, reset, *trip],
        [*trip, reset, *trip, approved, *trip, approved, *SUCCESS, *trip],
        [*FAILURE * (threshold - 1), *SUCCESS, *trip],
    ):
        play(RedisHome(any_redis.connect(), threshold), threshold, history)


def test_in_both_homes_a_success_forgives_nothing_that_was_launched_after_it(any_redis: Any) -> None:
    launches = [("launch", 0)] * 4
    late_first = [("failed", 0), ("failed", 2), ("failed", 1), ("succeeded", 3)]

    play(RedisHome(any_redis.connect(), 4), 4, [*launches, *late_first, *FAILURE])
    play(RedisHome(any_redis.connect(), 4), 4, [*launches, *late_first, ("succeeded", 1), *FAILURE * 3])


def test_a_route_that_was_never_touched_has_a_fresh_guard(any_redis: Any) -> None:
    client = any_redis.connect()
    home = RedisHome(client, 3)
    client.delete(KEY)

    edges = [home.call("failed", sequence, 0)[0] for sequence in (1, 2, 3)]

    assert edges == ["", "", "GUARD_TRIPPED"]


def test_a_look_at_the_guard_writes_nothing(any_redis: Any) -> None:
    client = any_redis.connect()
    home = RedisHome(client, 3)
    client.delete(KEY)

    home.call("look")
    home.call("succeeded", 7, 5)  # of another generation

    assert client.exists(KEY) == 0


def test_launch_numbers_far_beyond_a_lifetime_of_trading_stay_exact(any_redis: Any) -> None:
    home = RedisHome(any_redis.connect(), 3)
    far = 2**53 - 10

    home.call("succeeded", far, 0)
    home.call("failed", far + 1, 0)

    assert (home.value().last_success, home.value().failures) == (far, (far + 1,))


def test_a_lowered_threshold_trips_on_the_next_failure(any_redis: Any) -> None:
    client = any_redis.connect()
    home = RedisHome(client, 4)
    for sequence in (1, 2, 3):
        home.call("failed", sequence, 0)
    client.hset(KEY, "guard_threshold", 2)

    assert home.call("failed", 4, 0)[0] == "GUARD_TRIPPED"


def test_the_policy_keeps_to_local_names() -> None:
    source = resources.files("worker").joinpath("ledger/lua/guard.lua").read_text("utf-8")
    outermost = [line for line in source.splitlines() if line and not line.startswith((" ", "--", "end"))]

    assert outermost
    assert all(line.startswith("local function guard_") for line in outermost)
