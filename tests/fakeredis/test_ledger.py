"""The ledger's transitions, on both kinds of Redis."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts import Code, ExecutionResponse, Outcome, dump, load_event, load_response
from tests.conftest import intent_json, make_intent
from worker.clock import SystemClock
from worker.errors import StateLost
from worker.ledger import Ledger, LedgerRules, new_token
from worker.ledger.records import (
    Barred,
    CancelGate,
    Conflict,
    Entry,
    Gate,
    Granted,
    Known,
    Later,
    Launched,
    Parked,
    Settled,
    Settlement,
    Stale,
)


class Bench:
    """One Redis and as many workers' ledgers as a test needs."""

    def __init__(self, any_redis: Any) -> None:
        self.redis = any_redis
        self.client = any_redis.connect()
        self.arrivals = 0
        self.tokens: dict[str, str] = {}

    def ledger(self, worker: str = "w1", **rules: Any) -> Ledger:
        ledger = Ledger(self.client, "default", worker, LedgerRules(**rules), SystemClock())
        ledger.register(broker="simulated", mode="paper", start_halted=False)
        return ledger

    def entry(self, intent_id: str, **changes: Any) -> Entry:
        intent = make_intent(intent_id=intent_id, **changes)
        self.arrivals += 1
        self.tokens[intent_id] = new_token()
        now = int(intent.created_at.timestamp() * 1000)
        lane = intent.symbol if intent.side else ""
        return Entry(
            intent_id,
            self.tokens[intent_id],
            intent.fingerprint(),
            lane,
            f"{self.arrivals:013d}-0000000000",
            now,
            now + 60_000,
            intent.target_intent_id or "",
            dump(intent),
        )

    def claim(self, ledger: Ledger, intent_id: str, **changes: Any) -> Any:
        return ledger.claim([self.entry(intent_id, **changes)])[0]

    def launch(self, ledger: Ledger, intent_id: str, attempt: int = 1) -> Any:
        return ledger.launch([(intent_id, self.tokens[intent_id], attempt)])[0]

    def accept(
        self, ledger: Ledger, intent_id: str, attempt: int = 1, number: str = "N1", want: int = 0
    ) -> Any:
        return self.settle(ledger, intent_id, attempt, accepted(intent_id, number), "success", want)

    def settle(
        self,
        ledger: Ledger,
        intent_id: str,
        attempt: int,
        response: ExecutionResponse,
        effect: Any,
        want: int = 0,
    ) -> Any:
        end = Settlement(
            intent_id, self.tokens[intent_id], attempt, "answer", response.outcome, effect, dump(response)
        )
        return ledger.settle([end], want)

    def doubt(self, ledger: Ledger, intent_id: str, attempt: int = 1, effect: Any = "none") -> Settled:
        end = Settlement(
            intent_id, self.tokens[intent_id], attempt, "doubt", "FS042", effect, "no answer came"
        )
        return ledger.settle([end])[0][0]

    def state(self, ledger: Ledger, intent_id: str) -> str:
        return ledger.states([intent_id]).get(intent_id, ("none", b""))[0]

    def events(self, ledger: Ledger) -> list[str]:
        return [load_event(fields[b"body"]).type for _, fields in self.client.xrange(ledger.keys.failsafe)]

    def responses(self, ledger: Ledger) -> list[ExecutionResponse]:
        return [load_response(fields[b"body"]) for _, fields in self.client.xrange(ledger.keys.responses)]

    def end_lease(self, ledger: Ledger, intent_id: str) -> None:
        self.client.zadd(ledger.keys.open, {intent_id: 1})


@pytest.fixture
def bench(any_redis: Any) -> Bench:
    return Bench(any_redis)


def accepted(intent_id: str, number: str = "N1") -> ExecutionResponse:
    return ExecutionResponse(
        intent_id=intent_id,
        accepted=True,
        broker="simulated",
        message="",
        timestamp=datetime.now(UTC),
        outcome=Outcome.ACCEPTED,
        broker_order_id=number,
    )


def refused(
    intent_id: str, outcome: Outcome = Outcome.DENIED, code: Code = Code.PRETRADE
) -> ExecutionResponse:
    return ExecutionResponse(
        intent_id=intent_id,
        accepted=False,
        broker="worker",
        message="no",
        timestamp=datetime.now(UTC),
        outcome=outcome,
        code=code,
    )


def test_an_intent_goes_from_claim_to_one_published_answer(bench: Bench) -> None:
    ledger = bench.ledger()

    assert isinstance(bench.claim(ledger, "a"), Granted)
    assert isinstance(bench.launch(ledger, "a"), Launched)
    assert bench.accept(ledger, "a") == ([Settled.SETTLED], [])

    assert bench.state(ledger, "a") == "settled"
    assert [one.intent_id for one in bench.responses(ledger)] == ["a"]
    assert bench.client.zcard(ledger.keys.open) == bench.client.zcard(ledger.keys.lanes) == 0


def test_a_replay_is_told_the_first_answer_and_nothing_else_happens(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.launch(ledger, "a")
    bench.accept(ledger, "a")

    again = bench.claim(ledger, "a")

    assert isinstance(again, Known) and again.response == dump(bench.responses(ledger)[0])
    assert bench.client.zcard(ledger.keys.lanes) == 0


def test_the_same_id_with_other_content_is_a_conflict_and_the_first_outcome_stands(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")

    assert isinstance(bench.claim(ledger, "a", quantity=11), Conflict)

    bench.tokens["a"] = "x"
    assert isinstance(bench.launch(ledger, "a"), Stale)


def test_a_launch_needs_the_token_of_the_claim(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.tokens["a"] = "guessed"

    assert bench.launch(ledger, "a") == Stale()


def test_every_call_may_be_repeated_after_a_lost_reply(bench: Bench) -> None:
    ledger = bench.ledger()
    entry = bench.entry("a")
    response = accepted("a")

    assert ledger.claim([entry])[0] == ledger.claim([entry])[0]
    first, again = bench.launch(ledger, "a"), bench.launch(ledger, "a")
    assert isinstance(first, Launched) and isinstance(again, Launched)
    assert bench.settle(ledger, "a", 1, response, "success")[0] == [Settled.SETTLED]
    assert bench.settle(ledger, "a", 1, response, "success")[0] == [Settled.ALREADY]

    assert len(bench.responses(ledger)) == 1


def test_intents_of_one_symbol_wait_for_each_other_and_other_symbols_do_not(bench: Bench) -> None:
    one, two = bench.ledger("w1"), bench.ledger("w2")

    assert isinstance(bench.claim(one, "a"), Granted)
    assert isinstance(bench.claim(two, "b"), Parked)
    assert isinstance(bench.claim(two, "other", symbol="000660"), Granted)
    bench.launch(one, "a")
    _, handed = bench.accept(one, "a", want=5)

    assert [one.intent_id for one in handed] == ["b"]
    assert handed[0].body == intent_json(intent_id="b", created_at=make_intent().created_at) or handed[0].body


def test_a_lane_is_handed_to_whoever_sweeps_when_the_settler_wants_no_more(bench: Bench) -> None:
    one, two = bench.ledger("w1"), bench.ledger("w2")
    bench.claim(one, "a")
    bench.claim(one, "b")
    bench.launch(one, "a")
    bench.accept(one, "a", want=0)

    handed, doubts = two.sweep(10)

    assert [one.intent_id for one in handed] == ["b"] and doubts == []
    assert two.sweep(10) == ([], [])


def test_a_later_entry_claimed_first_waits_for_the_earlier_one(bench: Bench) -> None:
    ledger = bench.ledger()
    first, second = bench.entry("first"), bench.entry("second")
    bench.client.zadd(
        ledger.keys.lanes, {f"005930\0{first.entry}\0first": 0, f"005930\0{second.entry}\0second": 0}
    )

    assert isinstance(ledger.claim([second])[0], Parked)
    assert isinstance(ledger.claim([first])[0], Granted)


def test_a_silent_worker_loses_what_it_had_not_launched(bench: Bench) -> None:
    one, two = bench.ledger("w1"), bench.ledger("w2")
    bench.claim(one, "a")
    bench.end_lease(one, "a")

    handed, doubts = two.sweep(10)

    assert [one.intent_id for one in handed] == ["a"] and doubts == []
    assert bench.launch(one, "a") == Stale()
    assert two.launch([("a", handed[0].token, 1)])[0].sequence == 1  # type: ignore[union-attr]


def test_a_launched_order_of_a_silent_worker_is_in_doubt_and_never_handed_out(bench: Bench) -> None:
    one, two = bench.ledger("w1"), bench.ledger("w2")
    bench.claim(one, "a")
    bench.launch(one, "a")
    bench.end_lease(one, "a")

    assert two.sweep(10) == ([], ["a"])

    assert bench.events(one) == ["INTENT_IN_DOUBT"]
    assert isinstance(bench.claim(two, "a"), Known)
    assert bench.launch(one, "a", 2) == Stale()


def test_dead_workers_never_trip_the_guard_but_one_that_hangs_in_the_brokers_call_does(bench: Bench) -> None:
    dead, alive, other = bench.ledger("dead"), bench.ledger("alive"), bench.ledger("other")
    for worker in (dead, alive):
        for number in range(3):
            name, symbol = f"{worker._worker}-{number}", f"{number}-{worker._worker}".upper()
            bench.claim(worker, name, symbol=symbol)
            bench.launch(worker, name)
    for number in range(3):
        bench.end_lease(other, f"dead-{number}")
    other.sweep(10)
    assert "GUARD_TRIPPED" not in bench.events(other)

    beat = json.dumps({"host": "h", "pid": 1, "port": 1, "beat": other.now_ms()})
    bench.client.hset(other.keys.workers, "alive", beat)
    for number in range(3):
        bench.end_lease(other, f"alive-{number}")
    other.sweep(10)

    assert bench.events(other).count("GUARD_TRIPPED") == 1


def test_a_doubt_holds_its_lane(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.claim(ledger, "b")
    bench.launch(ledger, "a")

    assert bench.doubt(ledger, "a") is Settled.IN_DOUBT

    assert ledger.sweep(10) == ([], [])
    assert bench.state(ledger, "b") == "parked"


def test_a_route_may_be_set_to_go_on_beside_a_doubt(bench: Bench) -> None:
    ledger = bench.ledger(lane_on_doubt="continue")
    bench.claim(ledger, "a")
    bench.claim(ledger, "b")
    bench.launch(ledger, "a")
    bench.doubt(ledger, "a")

    assert [one.intent_id for one in ledger.sweep(10)[0]] == ["b"]


def test_a_late_acceptance_by_the_launching_worker_ends_its_doubt(bench: Bench) -> None:
    one, two = bench.ledger("w1"), bench.ledger("w2")
    bench.claim(one, "a")
    bench.launch(one, "a")
    bench.end_lease(one, "a")
    two.sweep(10)

    assert bench.accept(one, "a")[0] == [Settled.SETTLED]

    assert bench.events(one) == ["INTENT_IN_DOUBT", "DOUBT_RESOLVED"]


def test_a_late_not_sent_does_not_end_a_doubt(bench: Bench) -> None:
    one, two = bench.ledger("w1"), bench.ledger("w2")
    bench.claim(one, "a")
    bench.launch(one, "a")
    bench.end_lease(one, "a")
    two.sweep(10)

    late = refused("a", Outcome.NOT_SENT, Code.BROKER_UNREACHABLE)

    assert bench.settle(one, "a", 1, late, "failure")[0] == [Settled.STALE]
    assert bench.state(one, "a") == "in_doubt"


def test_an_acceptance_after_the_answer_said_otherwise_is_an_orphan_and_halts_the_route(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.launch(ledger, "a")
    bench.doubt(ledger, "a")
    resolve(ledger, "a", refused("a", Outcome.NOT_PLACED, Code.NOT_PLACED))

    assert bench.accept(ledger, "a")[0] == [Settled.STALE]

    assert bench.events(ledger)[-2:] == ["ORPHAN_ORDER", "HALTED"]
    assert bench.responses(ledger)[0].outcome is Outcome.NOT_PLACED and len(bench.responses(ledger)) == 1


def test_a_late_acceptance_of_the_very_order_the_resolver_found_is_no_orphan(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.launch(ledger, "a")
    bench.doubt(ledger, "a")
    resolve(ledger, "a", accepted("a", "N7"))

    assert bench.accept(ledger, "a", number="N7")[0] == [Settled.ALREADY]
    assert bench.events(ledger) == ["INTENT_IN_DOUBT", "DOUBT_RESOLVED"]


def resolve(ledger: Ledger, intent_id: str, response: ExecutionResponse) -> bool:
    doubt = next(d for d in ledger.look(10, base=0, ceiling=0, escalate_after=60) if d.intent_id == intent_id)
    return ledger.resolve(
        doubt, outcome=response.outcome, payload=dump(response), reference="", actor="w1", reason="found"
    )


def test_a_doubt_is_resolved_only_as_it_was_read(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.claim(ledger, "b")
    bench.launch(ledger, "a")
    bench.doubt(ledger, "a")
    read = ledger.look(10, base=0, ceiling=0, escalate_after=60)[0]

    assert resolve(ledger, "a", accepted("a"))
    again = ledger.resolve(read, outcome="NOT_PLACED", payload=b"{}", reference="", actor="w", reason="r")

    assert not again
    assert bench.responses(ledger)[0].accepted and len(bench.responses(ledger)) == 1
    assert [one.intent_id for one in ledger.sweep(10)[0]] == ["b"]


def test_look_ups_back_off_and_an_old_doubt_is_escalated_once(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.launch(ledger, "a")
    bench.doubt(ledger, "a")

    assert len(ledger.look(10, base=60, ceiling=60, escalate_after=60)) == 1
    assert ledger.look(10, base=60, ceiling=60, escalate_after=60) == []
    for _ in range(2):
        bench.client.zadd(ledger.keys.doubts, {"a": 1})
        bench.client.hset(ledger.keys.intent("a"), "since", 1)
        ledger.look(10, base=60, ceiling=60, escalate_after=60)

    assert bench.events(ledger) == ["INTENT_IN_DOUBT", "DOUBT_ESCALATED"]


def test_after_the_third_counted_failure_nothing_launches_on_any_worker_until_a_reset(bench: Bench) -> None:
    one, two = bench.ledger("w1"), bench.ledger("w2")
    for number in range(3):
        name = f"bad-{number}"
        bench.claim(one, name)
        bench.launch(one, name)
        bench.settle(one, name, 1, refused(name, Outcome.REJECTED, Code.BROKER_REJECTED), "failure")

    bench.claim(two, "next")
    assert bench.launch(two, "next") == Barred(Gate.TRIPPED)
    assert bench.events(one) == ["GUARD_TRIPPED"]

    assert two.command("reset", "kim@desk", "broker is back") == ("done", "NORMAL")
    assert isinstance(bench.launch(two, "next"), Launched)
    assert two.command("reset", "kim@desk", "again")[0] == "refused"


def test_halt_stops_launches_at_once_and_resume_lets_them_go_on(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")

    assert ledger.command("halt", "kim@desk", "looks odd")[0] == "done"
    assert ledger.command("halt", "lee@desk", "me too")[0] == "already"
    assert bench.launch(ledger, "a").detail.startswith("looks odd")
    assert ledger.command("resume", "kim@desk", "fine")[0] == "done"
    assert isinstance(bench.launch(ledger, "a"), Launched)

    assert bench.events(ledger) == ["HALTED", "RESUMED"]


def test_what_is_too_old_or_from_the_future_does_not_launch(bench: Bench) -> None:
    ledger = bench.ledger()
    now = int(datetime.now(UTC).timestamp() * 1000)
    old = bench.entry("old")._replace(not_after=now - 1)
    future = bench.entry("future", symbol="000660")._replace(created=now + 60_000, not_after=now + 90_000)
    ledger.claim([old, future])

    assert bench.launch(ledger, "old") == Barred(Gate.EXPIRED)
    assert bench.launch(ledger, "future") == Barred(Gate.FUTURE)


def test_a_parked_intent_that_expires_is_handed_out_without_its_turn(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    ledger.claim([bench.entry("b")._replace(not_after=1)])

    handed, _ = ledger.sweep(10)

    assert [one.intent_id for one in handed] == ["b"]
    assert ledger.launch([("b", handed[0].token, 1)]) == [Barred(Gate.EXPIRED)]


def test_the_rate_limit_spaces_launches(bench: Bench) -> None:
    ledger = bench.ledger(rate_limit=1)
    bench.claim(ledger, "a")
    bench.claim(ledger, "b", symbol="000660")

    assert isinstance(bench.launch(ledger, "a"), Launched)
    later = bench.launch(ledger, "b")
    assert isinstance(later, Later) and 0.5 < later.seconds <= 1.1


def test_a_proof_of_not_sent_lets_the_same_token_launch_again(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.launch(ledger, "a", 1)

    second = bench.launch(ledger, "a", 2)

    assert isinstance(second, Launched) and second.sequence == 2
    assert bench.accept(ledger, "a", attempt=1)[0] == [Settled.STALE]


def test_a_server_that_forgot_the_route_sends_nothing_and_comes_back_halted(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.client.flushall()

    with pytest.raises(StateLost):
        bench.launch(ledger, "a")

    assert ledger.register(broker="simulated", mode="paper", start_halted=False) == "halted"
    bench.claim(ledger, "a")
    assert isinstance(bench.launch(ledger, "a"), Later)


def test_a_live_route_without_a_history_starts_halted(bench: Bench) -> None:
    ledger = Ledger(bench.client, "default", "w1", LedgerRules(), SystemClock())

    assert ledger.register(broker="kis", mode="live", start_halted=True) == "halted"
    ledger.command("resume", "kim", "looked")
    assert ledger.register(broker="kis", mode="live", start_halted=True) == "found"


def cancel_of(bench: Bench, ledger: Ledger, target: str, intent_id: str = "c", attempt: int = 1) -> Any:
    if intent_id not in bench.tokens:
        claim_cancel(bench, ledger, target, intent_id)
    return ledger.cancel(intent_id, bench.tokens[intent_id], attempt, target, "005930")


def claim_cancel(bench: Bench, ledger: Ledger, target: str, intent_id: str = "c") -> Any:
    gone = {"side": None, "quantity": None, "limit_price": None}
    return bench.claim(ledger, intent_id, intent_type="CANCEL", target_intent_id=target, **gone)


def test_a_cancel_of_an_intent_that_has_not_left_stops_it(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")

    assert cancel_of(bench, ledger, "a").gate is CancelGate.NEVER_SENT
    assert bench.launch(ledger, "a") == Barred(Gate.CANCELLED, "c")


def test_a_cancel_that_comes_before_its_target_stops_it_when_it_comes(bench: Bench) -> None:
    ledger = bench.ledger()

    assert cancel_of(bench, ledger, "a").gate is CancelGate.UNKNOWN
    assert isinstance(bench.claim(ledger, "a"), Granted)
    assert bench.launch(ledger, "a") == Barred(Gate.CANCELLED, "c")


def test_a_cancel_of_a_working_order_goes_to_the_broker_and_holds_the_lane(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.launch(ledger, "a")
    bench.accept(ledger, "a", number="N9")

    decision = cancel_of(bench, ledger, "a")
    bench.claim(ledger, "b")
    assert decision.gate is CancelGate.LAUNCHED
    assert load_response(decision.response).broker_order_id == "N9"
    assert isinstance(bench.launch(ledger, "b"), Later)

    bench.accept(ledger, "c", number="N9")
    assert isinstance(bench.launch(ledger, "b"), Launched)


def test_a_cancel_of_an_intent_in_doubt_waits_for_the_doubt_to_end(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.launch(ledger, "a")
    bench.doubt(ledger, "a")

    assert cancel_of(bench, ledger, "a").gate is CancelGate.WAITING
    resolve(ledger, "a", accepted("a"))
    handed, _ = ledger.sweep(10)

    assert [one.intent_id for one in handed] == ["c"]
    assert ledger.cancel("c", handed[0].token, 1, "a", "005930").gate is CancelGate.LAUNCHED


def test_a_cancel_while_the_target_is_being_sent_stops_a_second_launch(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.launch(ledger, "a")

    assert cancel_of(bench, ledger, "a").gate is CancelGate.WAITING
    assert bench.launch(ledger, "a", 2) == Barred(Gate.CANCELLED, "c")


def test_only_one_cancel_of_a_target_is_open_at_a_time(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.launch(ledger, "a")
    bench.accept(ledger, "a")

    assert cancel_of(bench, ledger, "a", "c").gate is CancelGate.LAUNCHED
    assert cancel_of(bench, ledger, "a", "d").gate is CancelGate.WAITING


def test_an_unreadable_entry_with_an_id_is_buried_and_answered_once(bench: Bench) -> None:
    ledger = bench.ledger()
    answer = refused("bad", code=Code.INVALID_INTENT)
    args = {
        "reason": "invalid",
        "error": "quantity: required",
        "entry_id": "5-0",
        "entry": "0000000000005-0000000000",
        "intent_id": "bad",
        "fingerprint": "invalid:1",
        "payload": dump(answer),
    }

    assert ledger.bury(b'{"intent_id":"bad"}', **args) == "answered"
    assert ledger.bury(b'{"intent_id":"bad"}', **args) == "already"

    assert [one.intent_id for one in bench.responses(ledger)] == ["bad"]
    dead = bench.client.xrange(ledger.keys.dead)
    assert [fields[b"body"] for _, fields in dead] == [b'{"intent_id":"bad"}']
    assert isinstance(bench.claim(ledger, "bad"), Conflict)


def test_an_unreadable_entry_never_answers_an_intent_that_is_being_worked(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")

    buried = ledger.bury(
        b"x",
        reason="invalid",
        error="e",
        entry_id="9-0",
        entry="0000000000009-0000000000",
        intent_id="a",
        fingerprint="invalid:2",
        payload=dump(refused("a", code=Code.INVALID_INTENT)),
    )

    assert buried == "buried" and bench.responses(ledger) == []
    assert isinstance(bench.launch(ledger, "a"), Launched)


def test_a_held_lease_is_renewed_and_a_lost_one_is_told(bench: Bench) -> None:
    one, two = bench.ledger("w1"), bench.ledger("w2")
    bench.claim(one, "a")
    mine = ("a", bench.tokens["a"])
    assert one.renew([mine]) == [True]
    bench.end_lease(one, "a")
    two.sweep(1)

    assert one.renew([mine]) == [False]


def test_a_registration_that_nobody_knows_any_more_does_not_block_its_lane(bench: Bench) -> None:
    ledger = bench.ledger()
    ghost = "005930\x000000000000000-0000000000\0ghost"
    bench.client.zadd(ledger.keys.lanes, {ghost: 0})
    assert isinstance(bench.claim(ledger, "a"), Parked)

    assert ledger.weed("") == (1, "")

    assert [one.intent_id for one in ledger.sweep(10)[0]] == ["a"]


def test_scripts_survive_being_forgotten_by_the_server(bench: Bench) -> None:
    ledger = bench.ledger()
    bench.claim(ledger, "a")
    bench.client.script_flush()

    assert isinstance(bench.launch(ledger, "a"), Launched)


def test_one_worker_of_a_route_scans_for_all_and_another_takes_over_when_it_is_gone(bench: Bench) -> None:
    one, other = bench.ledger("w1"), bench.ledger("w2")

    assert one.may_scan(30) and not other.may_scan(30) and not one.may_scan(30)
    assert 25_000 < bench.client.pttl(one.keys.scanner) <= 27_000

    bench.client.delete(one.keys.scanner)
    assert other.may_scan(30)
