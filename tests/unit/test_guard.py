"""The guard's policy, as values."""

from __future__ import annotations

import threading

import pytest

from contracts import FailsafeType, GuardState, Outcome
from worker.errors import Refused
from worker.guard import EFFECTS, RESET_REFUSED, Effect, Guard, LocalGuard, OpenGuard, counts


def failed(guard: Guard, *sequences: int) -> tuple[Guard, list[FailsafeType | None]]:
    edges = []
    for sequence in sequences:
        guard, edge = guard.failed(sequence, guard.generation)
        edges.append(edge)
    return guard, edges


def test_the_third_failure_in_a_row_trips_and_says_so_once() -> None:
    guard, edges = failed(Guard(threshold=3), 1, 2, 3)

    assert edges == [None, None, FailsafeType.GUARD_TRIPPED]
    assert (guard.state, guard.failures, guard.generation) == (GuardState.FAIL, (1, 2, 3), 1)
    assert not guard.admits


def test_fewer_failures_only_warn() -> None:
    guard, _ = failed(Guard(threshold=3), 1, 2)

    assert guard.state is GuardState.WARNING
    assert guard.admits


def test_a_threshold_of_one_trips_on_the_first_failure() -> None:
    guard, edges = failed(Guard(threshold=1), 1)

    assert edges == [FailsafeType.GUARD_TRIPPED]
    assert not guard.admits


def test_a_success_launched_after_the_failures_forgives_them() -> None:
    guard, _ = failed(Guard(threshold=3), 1, 2)

    guard, _ = guard.succeeded(3, 0)

    assert (guard.state, guard.failures) == (GuardState.NORMAL, ())


def test_a_success_launched_before_a_failure_does_not_forgive_it() -> None:
    guard, _ = failed(Guard(threshold=3), 2, 4)

    guard, _ = guard.succeeded(3, 0)

    assert (guard.state, guard.failures) == (GuardState.WARNING, (4,))


def test_a_late_failure_of_a_launch_before_the_last_success_is_not_in_the_row() -> None:
    guard, _ = Guard(threshold=1).succeeded(5, 0)

    assert guard.failed(4, 0) == (guard, None)


def test_one_launch_counts_once_however_often_its_failure_is_told() -> None:
    guard, edges = failed(Guard(threshold=2), 1, 1, 1)

    assert edges == [None, None, None]
    assert guard.failures == (1,)


def test_failures_answered_out_of_order_are_kept_in_launch_order() -> None:
    guard, _ = failed(Guard(threshold=4), 3, 1, 2)

    assert guard.failures == (1, 2, 3)


def test_what_was_launched_before_a_trip_counts_for_nothing_after_it() -> None:
    tripped, _ = failed(Guard(threshold=1), 3)
    reset, _ = tripped.reset()

    for guard in (tripped, reset):
        assert guard.succeeded(4, 0) == (guard, None)
        assert guard.failed(4, 0) == (guard, None)


def test_a_tripped_guard_stays_tripped_whatever_is_told_in_its_own_generation() -> None:
    guard, _ = failed(Guard(threshold=1), 3)

    assert guard.succeeded(9, guard.generation) == (guard, None)
    assert guard.failed(9, guard.generation) == (guard, None)


def test_a_reset_opens_a_tripped_guard_on_probation() -> None:
    guard, _ = failed(Guard(threshold=1), 1)

    guard, edge = guard.reset()

    assert edge is FailsafeType.GUARD_RESET
    assert (guard.state, guard.failures, guard.probation, guard.generation) == (
        GuardState.NORMAL,
        (),
        True,
        2,
    )


def test_a_trip_before_any_success_after_a_reset_locks_down() -> None:
    guard, _ = failed(Guard(threshold=1), 1)
    guard, _ = guard.reset()

    guard, edges = failed(guard, 2)

    assert edges == [FailsafeType.LOCKDOWN]
    assert guard.state is GuardState.LOCKDOWN


def test_a_success_after_a_reset_makes_the_next_trip_an_ordinary_one() -> None:
    guard, _ = failed(Guard(threshold=1), 1)
    guard, _ = guard.reset()
    guard, _ = guard.succeeded(2, guard.generation)

    guard, edges = failed(guard, 3)

    assert edges == [FailsafeType.GUARD_TRIPPED]
    assert guard.state is GuardState.FAIL


def test_a_lockdown_opens_only_with_approval() -> None:
    locked = Guard(state=GuardState.LOCKDOWN, generation=3, probation=True)

    with pytest.raises(Refused, match="--approve"):
        locked.reset()
    opened, edge = locked.reset(approve=True)

    assert (opened.state, opened.generation, edge) == (GuardState.NORMAL, 4, FailsafeType.GUARD_RESET)


@pytest.mark.parametrize("state", [GuardState.NORMAL, GuardState.WARNING])
def test_an_open_guard_has_nothing_to_reset_and_says_so(state: GuardState) -> None:
    with pytest.raises(Refused, match=f"nothing to reset.*{state}"):
        Guard(state=state).reset(approve=True)


def test_every_state_but_fail_says_why_it_refuses_a_reset() -> None:
    assert set(RESET_REFUSED) == set(GuardState) - {GuardState.FAIL}


def test_every_outcome_has_its_effect_on_the_guard() -> None:
    assert set(EFFECTS) == {*Outcome, None}


def test_refusals_count_only_while_the_setting_says_so() -> None:
    assert counts(Outcome.REJECTED, count_rejected=True)
    assert not counts(Outcome.REJECTED, count_rejected=False)


def test_doubts_and_unreachable_brokers_always_count_and_our_own_denials_never_do() -> None:
    assert all(counts(outcome, count_rejected=False) for outcome in (None, Outcome.NOT_SENT))
    assert not any(counts(outcome) for outcome in (Outcome.DENIED, Outcome.EXPIRED, Outcome.NOT_PLACED))
    assert [outcome for outcome, effect in EFFECTS.items() if effect is Effect.FORGIVES] == [Outcome.ACCEPTED]


@pytest.mark.parametrize("threshold", [0, -1])
def test_a_guard_that_could_never_work_is_refused_at_once(threshold: int) -> None:
    with pytest.raises(ValueError, match="max_consecutive_failures"):
        LocalGuard(threshold)


def test_the_local_guard_numbers_its_launches_and_admits_none_once_tripped() -> None:
    home = LocalGuard(threshold=2)
    first, second, third = home.launched(), home.launched(), home.launched()
    assert first and second and third

    edges = [home.failed(*first), home.failed(*second), home.failed(*third)]

    assert (first, second, third) == ((1, 0), (2, 0), (3, 0))
    assert edges == [None, FailsafeType.GUARD_TRIPPED, None]
    assert home.launched() is None
    assert home.reset() is FailsafeType.GUARD_RESET
    assert home.launched() == (4, 2)


def test_many_threads_failing_at_once_trip_the_local_guard_once() -> None:
    home = LocalGuard(threshold=50)
    launches = [launch for launch in (home.launched() for _ in range(200)) if launch]
    edges: list[FailsafeType | None] = []
    threads = [
        threading.Thread(
            target=lambda part=launches[at::4]: edges.extend(home.failed(*each) for each in part)
        )
        for at in range(4)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [edge for edge in edges if edge] == [FailsafeType.GUARD_TRIPPED]
    assert len(home.value.failures) == 50


def test_an_open_guard_admits_all_counts_nothing_and_sends_resets_elsewhere() -> None:
    home = OpenGuard()

    assert [home.failed(0, 0) for _ in range(9)] == [None] * 9
    assert home.succeeded(0, 0) is None
    assert home.launched() == (0, 0)
    with pytest.raises(Refused, match="worker guard reset"):
        home.reset()


def test_a_guard_that_nobody_configured_trips_at_the_third_failure() -> None:
    assert failed(Guard(), 1, 2, 3)[1] == [None, None, FailsafeType.GUARD_TRIPPED]


def test_a_refused_order_counts_unless_the_route_says_otherwise() -> None:
    assert counts(Outcome.REJECTED)
    assert not counts(Outcome.REJECTED, count_rejected=False)


def test_a_guard_in_lockdown_is_not_reset_by_a_word_without_approval() -> None:
    home = LocalGuard(threshold=1)
    for _ in range(2):
        launch = home.launched()
        assert launch is not None
        home.failed(*launch)
        if home.value.state is GuardState.FAIL:
            home.reset()

    with pytest.raises(Refused, match="LOCKDOWN"):
        home.reset()
    assert home.reset(approve=True) is FailsafeType.GUARD_RESET
