"""The answers that are ours to give."""

from __future__ import annotations

from contracts import Code, ContractError, Outcome
from worker.answers import refusal, unreadable
from worker.clock import ManualClock

NOW = ManualClock().now()


def test_what_never_was_launched_counts_no_attempt() -> None:
    answer = refusal("a", Outcome.DENIED, Code.HALTED, "halted", route="default", now=NOW)

    assert (answer.attempts, answer.sent_at, answer.accepted) == (0, None, False)


def test_the_answer_to_unreadable_bytes_is_cut_to_what_an_answer_may_hold() -> None:
    answer = unreadable(ContractError(["x" * 5000], "a"), route="default", now=NOW)

    assert answer is not None
    assert (len(answer.message), answer.code) == (2000, Code.INVALID_INTENT)


def test_bytes_without_an_id_cannot_be_answered() -> None:
    assert unreadable(ContractError(["not JSON"]), route="default", now=NOW) is None
