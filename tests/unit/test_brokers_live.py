"""One adapter behind one guard: what is answered, what is raised, what counts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from mock_broker import MockBroker

from contracts import (
    Code,
    ExecutionIntent,
    FailsafeType,
    IntentType,
    OrderQuery,
    OrderResponse,
    Outcome,
    SafetyCode,
    Side,
)
from worker.brokers import AdapterFault, LiveBroker, Send, base
from worker.brokers.base import VERDICTS, verdict_of
from worker.clock import ManualClock
from worker.errors import BrokerError, Denied, NotSent, OutcomeUnknown, Refused, Rejected
from worker.guard import LocalGuard, OpenGuard

Make = Callable[..., ExecutionIntent]


def subclasses(kind: type[Any]) -> set[type[Any]]:
    """Every error below it that an adapter is told to raise or that we raise for it."""
    found = {each for each in kind.__subclasses__() if each.__module__ in ("worker.errors", base.__name__)}
    return found.union(*(subclasses(each) for each in found))


def a_cancel(make_intent: Make) -> ExecutionIntent:
    return make_intent(
        intent_id="cancel-1",
        intent_type=IntentType.CANCEL,
        side=None,
        quantity=None,
        limit_price=None,
        target_intent_id="intent-1",
    )


def a_noop(make_intent: Make) -> ExecutionIntent:
    return make_intent(intent_type=IntentType.NOOP, side=None, quantity=None, limit_price=None)


# --- answers ---------------------------------------------------------------------------------------------


def test_an_accepted_order_is_answered_with_the_brokers_number(make_intent: Make) -> None:
    clock = ManualClock()
    adapter = MockBroker(OrderResponse("A-7", "ok", broker_code="0"))
    broker = LiveBroker(adapter, clock=clock, default_venue="KRX", name="kis_main")

    response = broker.submit_intent(make_intent(), Send(route="main", attempts=2, send_before=42.5))

    assert (response.accepted, response.outcome, response.code) == (True, Outcome.ACCEPTED, None)
    assert (response.broker, response.broker_order_id, response.broker_code) == ("kis_main", "A-7", "0")
    assert (response.route, response.attempts) == ("main", 2)
    assert response.sent_at == response.timestamp == clock.now()
    [request] = adapter.placed
    assert (request.client_order_id, request.symbol, request.side) == ("intent-1", "005930", Side.BUY)
    assert (request.quantity, request.limit_price) == (Decimal(10), Decimal(71000))
    assert (request.venue, request.send_before) == ("KRX", 42.5)


def test_an_intents_own_venue_wins_over_the_routes(make_intent: Make) -> None:
    adapter = MockBroker()

    LiveBroker(adapter, default_venue="KRX").submit_intent(make_intent(venue="NXT"))

    assert adapter.placed[0].venue == "NXT"


def test_a_refusal_is_answered_with_the_brokers_code(make_intent: Make) -> None:
    refusal = Rejected("no money", code="APBK0952", safety_code=SafetyCode.FS041)

    response = LiveBroker(MockBroker(refusal)).submit_intent(make_intent(), Send("main", 3))

    assert (response.accepted, response.outcome, response.code) == (
        False,
        Outcome.REJECTED,
        Code.BROKER_REJECTED,
    )
    assert (response.broker_code, response.safety_code) == ("APBK0952", SafetyCode.FS041)
    assert (response.broker, response.message, response.attempts) == ("mock", "no money", 3)
    assert response.sent_at is not None


def test_an_order_that_never_left_is_answered_so_and_shows_no_time_of_sending(make_intent: Make) -> None:
    response = LiveBroker(MockBroker(NotSent("connection refused"))).submit_intent(make_intent())

    assert (response.outcome, response.code) == (Outcome.NOT_SENT, Code.BROKER_UNREACHABLE)
    assert (response.sent_at, response.safety_code) == (None, SafetyCode.FS040)


def test_a_noop_is_denied_and_no_broker_hears_of_it(make_intent: Make) -> None:
    adapter = MockBroker()

    response = LiveBroker(adapter).submit_intent(a_noop(make_intent))

    assert (response.outcome, response.code, response.broker) == (Outcome.DENIED, Code.NOOP, "worker")
    assert response.attempts == 0
    assert adapter.placed == []


def test_an_order_against_our_own_rules_is_denied_in_the_workers_name_and_says_which(
    make_intent: Make,
) -> None:
    shut = Denied("opens at 09:00", denial=Code.MARKET_CLOSED)

    response = LiveBroker(MockBroker(shut)).submit_intent(make_intent(), Send("main", 2))

    assert (response.outcome, response.code) == (Outcome.DENIED, Code.MARKET_CLOSED)
    assert (response.broker, response.message, response.attempts) == ("worker", "opens at 09:00", 1)
    assert (response.safety_code, response.sent_at) == (None, None)


def test_a_refusal_without_a_code_shows_none(make_intent: Make) -> None:
    assert LiveBroker(MockBroker(Rejected("no"))).submit_intent(make_intent()).broker_code is None


# --- what the audit trail and a later cancel hear --------------------------------------------------------


def listening() -> tuple[Send, list[str], list[str]]:
    wires: list[str] = []
    references: list[str] = []
    return Send(hear=wires.append, refer=references.append), wires, references


def test_what_went_over_the_wire_and_what_a_cancel_will_need_are_told_with_the_answer(
    make_intent: Make,
) -> None:
    send, wires, references = listening()

    LiveBroker(MockBroker(OrderResponse("A-7", reference="06010", wire="POST 200"))).submit_intent(
        make_intent(), send
    )

    assert (wires, references) == (["POST 200"], ["06010"])


@pytest.mark.parametrize("kind", [NotSent, Rejected, OutcomeUnknown])
def test_what_went_over_the_wire_is_told_of_a_failure_too(make_intent: Make, kind: type[BrokerError]) -> None:
    send, wires, references = listening()
    error = kind("no answer")
    error.wire = "POST 500"

    with suppress(OutcomeUnknown):
        LiveBroker(MockBroker(error)).submit_intent(make_intent(), send)

    assert (wires, references) == (["POST 500"], [])


def test_a_success_without_a_number_still_tells_its_wire_and_no_reference(make_intent: Make) -> None:
    send, wires, references = listening()

    with pytest.raises(OutcomeUnknown):
        LiveBroker(MockBroker(OrderResponse("", reference="06010", wire="POST 200"))).submit_intent(
            make_intent(), send
        )

    assert (wires, references) == (["POST 200"], [])


def test_nothing_is_told_where_the_adapter_has_nothing_to_tell(make_intent: Make) -> None:
    send, wires, references = listening()

    broker = LiveBroker(MockBroker(OrderResponse("A-7"), NotSent("down")))
    broker.submit_intent(make_intent(), send)
    broker.submit_intent(make_intent(), send)

    assert (wires, references) == ([], [])


def test_who_does_not_listen_is_answered_alike(make_intent: Make) -> None:
    failure = NotSent("down")
    failure.wire = "POST"
    broker = LiveBroker(MockBroker(OrderResponse("A-7", reference="06010", wire="POST 200"), failure))

    outcomes = [broker.submit_intent(make_intent()).outcome for _ in range(2)]

    assert outcomes == [Outcome.ACCEPTED, Outcome.NOT_SENT]


# --- doubts ----------------------------------------------------------------------------------------------


def test_a_doubt_is_raised_and_never_answered(make_intent: Make) -> None:
    doubt = OutcomeUnknown("read timeout")

    with pytest.raises(OutcomeUnknown) as raised:
        LiveBroker(MockBroker(doubt)).submit_intent(make_intent())

    assert raised.value is doubt
    assert not isinstance(doubt, AdapterFault)


@pytest.mark.parametrize("number", ["", "  "])
def test_a_success_without_an_order_number_is_a_doubt(make_intent: Make, number: str) -> None:
    with pytest.raises(OutcomeUnknown, match="without an order number"):
        LiveBroker(MockBroker(OrderResponse(number))).submit_intent(make_intent())


@pytest.mark.parametrize(
    "nonsense",
    [None, "A-7", {"broker_order_id": "A-7"}, OrderResponse(7), OrderResponse("A-7", message=None)],  # type: ignore[arg-type]
)
def test_an_answer_of_the_wrong_kind_is_a_doubt_and_our_bug(make_intent: Make, nonsense: Any) -> None:
    with pytest.raises(AdapterFault):
        LiveBroker(MockBroker(lambda _: nonsense)).submit_intent(make_intent())


@pytest.mark.parametrize(
    "bug", [KeyError("output"), TimeoutError(), BrokerError("unsorted"), AssertionError()]
)
def test_a_bug_after_launch_is_a_doubt_with_its_stack_and_counts(make_intent: Make, bug: Exception) -> None:
    broker = LiveBroker(MockBroker(bug), max_consecutive_failures=1)

    with pytest.raises(AdapterFault) as raised:
        broker.submit_intent(make_intent())

    assert raised.value.__cause__ is bug
    assert broker.submit_intent(make_intent()).code is Code.FAILSAFE_TRIPPED


def test_a_bugs_text_stays_out_of_what_is_published(make_intent: Make) -> None:
    with pytest.raises(AdapterFault) as raised:
        LiveBroker(MockBroker(ValueError("appsecret=hunter2"))).submit_intent(make_intent())

    assert "hunter2" not in raised.value.message


@pytest.mark.parametrize("leave", [KeyboardInterrupt, SystemExit])
def test_leaving_the_process_is_no_answer_and_no_failure(
    make_intent: Make, leave: type[BaseException]
) -> None:
    guard = LocalGuard(1)

    with pytest.raises(leave):
        LiveBroker(MockBroker(leave()), guard=guard).submit_intent(make_intent())

    assert guard.value.admits


# --- the guard -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [NotSent("down"), Rejected("no"), OutcomeUnknown("silence")])
def test_after_three_failures_in_a_row_no_order_reaches_the_broker(
    make_intent: Make, failure: BrokerError
) -> None:
    adapter = MockBroker(failure)
    broker = LiveBroker(adapter, max_consecutive_failures=3)

    for _ in range(3):
        try:
            assert broker.submit_intent(make_intent()).broker == "mock"
        except OutcomeUnknown:
            assert isinstance(failure, OutcomeUnknown)
    responses = [broker.submit_intent(make_intent()) for _ in range(20)]

    assert len(adapter.placed) == 3
    assert {
        (each.accepted, each.broker, each.outcome, each.code, each.safety_code) for each in responses
    } == {(False, "failsafe", Outcome.DENIED, Code.FAILSAFE_TRIPPED, SafetyCode.FS040)}
    assert {(each.attempts, each.sent_at) for each in responses} == {(0, None)}


def test_a_success_starts_the_count_anew(make_intent: Make) -> None:
    down = NotSent("down")
    adapter = MockBroker(down, down, OrderResponse("A-1"), down, down, OrderResponse("A-2"))
    broker = LiveBroker(adapter, max_consecutive_failures=3)

    outcomes = [broker.submit_intent(make_intent()).outcome for _ in range(6)]

    assert outcomes == [*[Outcome.NOT_SENT] * 2, Outcome.ACCEPTED] * 2


def test_a_reset_lets_orders_through_and_a_second_trip_needs_approval(make_intent: Make) -> None:
    adapter = MockBroker(NotSent("down"))
    broker = LiveBroker(adapter, max_consecutive_failures=1)
    broker.submit_intent(make_intent())

    assert broker.reset("kim@desk", "line repaired") is FailsafeType.GUARD_RESET
    broker.submit_intent(make_intent())
    with pytest.raises(Refused, match="LOCKDOWN"):
        broker.reset("kim@desk", "again")
    assert broker.submit_intent(make_intent()).code is Code.FAILSAFE_TRIPPED
    broker.reset("kim@desk", "checked by hand", approve=True)

    assert broker.submit_intent(make_intent()).outcome is Outcome.NOT_SENT
    assert len(adapter.placed) == 3


def test_trips_and_resets_are_logged_once_with_who_and_why(
    make_intent: Make, caplog: pytest.LogCaptureFixture
) -> None:
    broker = LiveBroker(MockBroker(NotSent("down")), max_consecutive_failures=2)

    with caplog.at_level(logging.WARNING):
        broker.submit_intent(make_intent())
        broker.submit_intent(make_intent())
        broker.reset("kim@desk", "line repaired")

    assert [record.getMessage() for record in caplog.records] == [
        "guard_tripped broker=mock edge=GUARD_TRIPPED",
        "guard_reset broker=mock actor=kim@desk reason=line repaired",
    ]


def test_refusals_do_not_trip_where_the_setting_says_so(make_intent: Make) -> None:
    broker = LiveBroker(MockBroker(Rejected("no")), max_consecutive_failures=1, count_rejected=False)

    outcomes = {broker.submit_intent(make_intent()).outcome for _ in range(5)}

    assert outcomes == {Outcome.REJECTED}


def test_an_uncounted_refusal_forgives_nothing(make_intent: Make) -> None:
    adapter = MockBroker(NotSent("down"), Rejected("no"), NotSent("down"))
    broker = LiveBroker(adapter, max_consecutive_failures=2, count_rejected=False)

    for _ in range(3):
        broker.submit_intent(make_intent())

    assert broker.submit_intent(make_intent()).code is Code.FAILSAFE_TRIPPED


def test_noops_never_count_for_the_guard(make_intent: Make) -> None:
    broker = LiveBroker(MockBroker(), max_consecutive_failures=1)

    codes = {broker.submit_intent(a_noop(make_intent)).code for _ in range(5)}

    assert codes == {Code.NOOP}


def test_a_worker_whose_guard_lives_in_redis_is_never_stopped_here(make_intent: Make) -> None:
    broker = LiveBroker(MockBroker(NotSent("down")), max_consecutive_failures=1, guard=OpenGuard())

    outcomes = {broker.submit_intent(make_intent()).outcome for _ in range(5)}

    assert outcomes == {Outcome.NOT_SENT}
    with pytest.raises(Refused, match="worker guard reset"):
        broker.reset("kim@desk", "why not")


# --- cancels ---------------------------------------------------------------------------------------------

TARGET = OrderQuery(symbol="005930", broker_order_id="A-7")


def test_a_cancel_the_broker_took_is_accepted_under_the_targets_number(make_intent: Make) -> None:
    adapter = MockBroker()

    response = LiveBroker(adapter).cancel_intent(a_cancel(make_intent), TARGET, Send("main"))

    assert (response.intent_id, response.outcome) == ("cancel-1", Outcome.ACCEPTED)
    assert (response.broker_order_id, response.route) == ("A-7", "main")
    assert (adapter.cancelled, adapter.placed) == ([TARGET], [])


def test_a_cancel_passes_a_tripped_guard_and_never_counts(make_intent: Make) -> None:
    adapter = MockBroker(NotSent("down"), cancels=[Rejected("done"), NotSent("down"), OrderResponse("A-7")])
    broker = LiveBroker(adapter, max_consecutive_failures=1)

    outcomes = [broker.cancel_intent(a_cancel(make_intent), TARGET).outcome for _ in range(2)]
    tripped_by = broker.submit_intent(make_intent()).outcome
    passed = broker.cancel_intent(a_cancel(make_intent), TARGET).outcome

    assert outcomes == [Outcome.REJECTED, Outcome.NOT_SENT]
    assert tripped_by is Outcome.NOT_SENT
    assert broker.submit_intent(make_intent()).code is Code.FAILSAFE_TRIPPED
    assert passed is Outcome.ACCEPTED


@pytest.mark.parametrize(
    ("end", "raised"), [(OutcomeUnknown("silence"), OutcomeUnknown), (KeyError("output"), AdapterFault)]
)
def test_a_cancel_without_an_answer_is_a_doubt(
    make_intent: Make, end: Exception, raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        LiveBroker(MockBroker(cancels=[end])).cancel_intent(a_cancel(make_intent), TARGET)


def test_a_cancel_by_our_id_goes_to_brokers_that_know_it(make_intent: Make) -> None:
    adapter = MockBroker()

    broker = LiveBroker(adapter, default_venue="KRX")
    broker.submit_intent(a_cancel(make_intent), Send(send_before=9.0))

    assert adapter.cancelled == [
        OrderQuery("005930", client_order_id="intent-1", venue="KRX", send_before=9.0)
    ]


def test_a_cancel_by_our_id_is_denied_where_the_broker_cannot_know_it(make_intent: Make) -> None:
    adapter = MockBroker()
    adapter.client_order_ids = False

    response = LiveBroker(adapter).submit_intent(a_cancel(make_intent))

    assert (response.outcome, response.code) == (Outcome.DENIED, Code.TARGET_UNKNOWN)
    assert (adapter.cancelled, adapter.placed) == ([], [])


# --- the table -------------------------------------------------------------------------------------------


def test_every_broker_error_has_its_verdict() -> None:
    assert set(VERDICTS) == subclasses(BrokerError)


def test_only_what_provably_never_left_may_be_sent_again() -> None:
    assert [kind for kind, verdict in VERDICTS.items() if verdict.may_resend] == [NotSent]


def test_an_error_of_a_finer_kind_means_what_its_kind_means() -> None:
    class Maintenance(Rejected):
        pass

    assert verdict_of(Maintenance("closed")) is VERDICTS[Rejected]
    assert verdict_of(BrokerError("of no kind")).outcome is None


def test_closing_the_broker_closes_its_adapter() -> None:
    adapter = MockBroker()

    LiveBroker(adapter).close()

    assert adapter.closed


def test_a_response_carries_the_worker_clock_and_not_the_machines(make_intent: Make) -> None:
    clock = ManualClock(datetime(2030, 1, 2, tzinfo=UTC))

    response = LiveBroker(MockBroker(Rejected("no")), clock=clock).submit_intent(make_intent())

    assert response.timestamp == datetime(2030, 1, 2, tzinfo=UTC)
