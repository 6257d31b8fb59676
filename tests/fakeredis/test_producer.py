"""A strategy enqueues intents and gets each answer, whatever happens to the connection in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import redis

from contracts import Code, ContractError, ExecutionIntent, ExecutionResponse, Outcome, dump, load_intent
from tests.conftest import start_redis
from worker.connection import connect
from worker.errors import Unavailable
from worker.keys import RouteKeys
from worker.producer import IntentProducer, NoAnswerYet

KEYS = RouteKeys("default")


def answer(intent_id: str = "intent-1") -> ExecutionResponse:
    return ExecutionResponse(
        intent_id=intent_id,
        accepted=False,
        broker="noop",
        message="nothing was sent",
        timestamp=datetime.now(UTC),
        outcome=Outcome.DENIED,
        code=Code.NOOP,
    )


def settle(client: Any, response: ExecutionResponse) -> None:
    """As the worker does it: ledger and stream together."""
    body = dump(response)
    with client.pipeline() as pipe:
        pipe.hset(
            KEYS.intent(response.intent_id),
            mapping={"state": "settled", "fingerprint": "f", "response": body},
        )
        pipe.xadd(KEYS.responses, {"intent_id": response.intent_id, "body": body})
        pipe.execute()


class Flaky:
    """A client whose calls of one name fail a few times, before or after the server has done them."""

    def __init__(self, client: Any, name: str, failures: int, *, after: bool = False) -> None:
        self._client, self._name, self._after = client, name, after
        self.failures = failures
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._wrap(found) if name == self._name else found

    def _wrap(self, found: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.failures > 0:
                self.failures -= 1
                if self._after:
                    found(*args, **options)
                raise redis.ConnectionError("the connection was reset")
            return found(*args, **options)

        return call


class FlakyPipelines(Flaky):
    """The same for the ``execute`` of every pipeline."""

    def pipeline(self, *args: Any, **options: Any) -> Any:
        pipe: Any = self._client.pipeline(*args, **options)
        pipe.execute = self._wrap(pipe.execute)
        return pipe


@pytest.fixture
def client(any_redis: Any) -> Any:
    return any_redis.connect()


@pytest.fixture
def producer(any_redis: Any) -> Iterator[IntentProducer]:
    with IntentProducer(any_redis.url, connect=any_redis.connect) as one:
        yield one


def flaky(client: Any) -> IntentProducer:
    return IntentProducer(client, patience=0.2)


def test_an_intent_arrives_as_it_was_made(
    producer: IntentProducer, client: Any, make_intent: Callable[..., ExecutionIntent]
) -> None:
    intent = make_intent()

    entry_id = producer.enqueue(intent)

    [(found_id, fields)] = client.xrange(KEYS.intents)
    assert found_id.decode() == entry_id
    assert load_intent(fields[b"body"]) == intent


def test_a_cancel_overtakes_the_intents_on_a_stream_of_its_own(
    producer: IntentProducer, client: Any, make_intent: Callable[..., ExecutionIntent]
) -> None:
    fields = {"intent_type": "CANCEL", "side": None, "quantity": None, "limit_price": None}

    producer.enqueue(make_intent(intent_id="stop", target_intent_id="intent-1", **fields))

    assert client.xlen(KEYS.cancels) == 1
    assert client.xlen(KEYS.intents) == 0


def test_a_long_list_of_intents_keeps_its_order_over_many_batches(
    producer: IntentProducer, client: Any, make_intent: Callable[..., ExecutionIntent]
) -> None:
    made = [make_intent(intent_id=f"i-{n}") for n in range(25)]

    entry_ids = producer.enqueue_many(iter(made), batch=10)

    rows = client.xrange(KEYS.intents)
    assert [load_intent(fields[b"body"]).intent_id for _, fields in rows] == [one.intent_id for one in made]
    assert [entry_id.decode() for entry_id, _ in rows] == entry_ids


def test_another_route_has_another_queue(
    any_redis: Any, client: Any, make_intent: Callable[..., ExecutionIntent]
) -> None:
    other: Any = any_redis.of("kis_main")
    IntentProducer(other, "kis_main").enqueue(make_intent())

    assert other.xlen(RouteKeys("kis_main").intents) == 1
    assert client.xlen(KEYS.intents) == 0


def test_an_intent_whose_receipt_was_lost_is_sent_again_under_the_same_id(
    client: Any, make_intent: Callable[..., ExecutionIntent]
) -> None:
    lossy = FlakyPipelines(client, "execute", 1, after=True)

    flaky(lossy).enqueue(make_intent())

    bodies = {fields[b"body"] for _, fields in client.xrange(KEYS.intents)}
    assert lossy.calls == 2
    assert len(bodies) == 1, "a doubled entry must be a replay"


def test_a_redis_that_stays_away_is_reported_and_the_report_says_what_is_safe(
    client: Any, make_intent: Callable[..., ExecutionIntent]
) -> None:
    gone = FlakyPipelines(client, "execute", 1_000_000)

    with pytest.raises(Unavailable, match="under the same intent_id") as refusal:
        flaky(gone).enqueue(make_intent())

    assert isinstance(refusal.value.__cause__, redis.ConnectionError)
    assert gone.calls > 1


def test_a_command_that_is_wrong_is_not_tried_again(
    client: Any, make_intent: Callable[..., ExecutionIntent]
) -> None:
    client.set(KEYS.intents, "not a stream")

    with pytest.raises(redis.ResponseError):
        flaky(client).enqueue(make_intent())


def test_an_answer_that_came_before_anybody_waited_is_found(producer: IntentProducer, client: Any) -> None:
    settle(client, answer())
    client.xtrim(KEYS.responses, maxlen=0)

    assert producer.wait("intent-1", timeout=0) == producer.find("intent-1")
    assert producer.find("intent-2") is None


def test_what_the_ledger_knows_is_recalled_by_id(producer: IntentProducer, client: Any) -> None:
    settle(client, answer())
    client.hset(KEYS.intent("open"), mapping={"state": "claimed", "fingerprint": "g"})

    known = producer.recall(["intent-1", "open", "never-seen"])

    assert known == {"intent-1": ("f", producer.find("intent-1")), "open": ("g", None)}


def test_an_answer_that_comes_while_somebody_waits_is_found(producer: IntentProducer, client: Any) -> None:
    late = threading.Timer(0.03, settle, (client, answer()))
    late.start()

    found = producer.wait("intent-1", timeout=5)

    late.join()
    assert found.intent_id == "intent-1"


def test_an_answer_between_the_first_look_and_the_wait_is_not_missed(any_redis: Any, client: Any) -> None:
    class Racing(FlakyPipelines):
        def _wrap(self, found: Callable[..., Any]) -> Callable[..., Any]:
            def call() -> Any:
                rows = found()
                settle(client, answer())
                return rows

            return call

    found = IntentProducer(cast("Any", Racing(any_redis.connect(), "execute", 0))).wait("intent-1", timeout=5)

    assert found.intent_id == "intent-1"


def test_each_of_many_answers_is_given_once_as_it_comes(producer: IntentProducer, client: Any) -> None:
    settle(client, answer("i-1"))
    waiting = producer.wait_many(["i-1", "i-2", "i-3"], timeout=5)

    first = next(waiting)
    for name in ("other", "i-3", "i-1", "i-2"):
        settle(client, answer(name))
    rest = [response.intent_id for response in waiting]

    assert first.intent_id == "i-1"
    assert rest == ["i-3", "i-2"]


def test_what_a_stranger_wrote_among_the_answers_does_not_end_the_wait(
    producer: IntentProducer, client: Any
) -> None:
    def others() -> None:
        client.xadd(KEYS.responses, {"intent_id": "intent-1", "body": "junk"})
        client.xadd(KEYS.responses, {"intent_id": "intent-1", "body": dump(answer("intent-2"))})
        client.xadd(KEYS.responses, {"intent_id": "intent-1"})
        settle(client, answer())

    timer = threading.Timer(0.1, others)
    timer.start()
    try:
        assert producer.wait("intent-1", timeout=5.0).intent_id == "intent-1"
    finally:
        timer.join()


def test_waiting_in_vain_says_what_is_safe_to_do(producer: IntentProducer, client: Any) -> None:
    settle(client, answer("i-1"))

    with pytest.raises(TimeoutError) as refusal:
        list(producer.wait_many(["i-1", "i-2"], timeout=0.02))

    assert isinstance(refusal.value, NoAnswerYet)
    assert refusal.value.intent_ids == ("i-2",)
    assert "may still trade" in str(refusal.value)
    assert "`worker intent i-2`" in str(refusal.value)
    assert "never send it again under another id" in str(refusal.value)


@pytest.mark.parametrize("name", ["xrevrange", "xread"])
def test_waiting_survives_a_lost_connection(client: Any, name: str) -> None:
    shaky = Flaky(client, name, 2)
    settle_later = threading.Timer(0.05, settle, (client, answer()))
    settle_later.start()

    found = IntentProducer(cast("Any", shaky)).wait("intent-1", timeout=5)

    settle_later.join()
    assert found.intent_id == "intent-1"
    assert shaky.failures == 0


def test_waiting_on_a_redis_that_is_away_ends_at_the_deadline(client: Any) -> None:
    gone = Flaky(client, "xrevrange", 1_000_000)

    with pytest.raises(NoAnswerYet):
        IntentProducer(cast("Any", gone)).wait("intent-1", timeout=0.05)


def test_answers_are_followed_from_a_remembered_position(producer: IntentProducer, client: Any) -> None:
    for n in range(3):
        settle(client, answer(f"i-{n}"))

    oldest = list(producer.responses("0-0", block=0))
    rest = list(producer.responses(oldest[0][0], block=0))

    assert [response.intent_id for _, response in oldest] == ["i-0", "i-1", "i-2"]
    assert rest == oldest[1:]


def test_following_from_now_on_begins_when_it_is_asked_for(producer: IntentProducer, client: Any) -> None:
    settle(client, answer("before"))

    following = producer.responses(block=0)
    settle(client, answer("after"))

    assert [response.intent_id for _, response in following] == ["after"]


def test_following_survives_a_lost_connection(client: Any) -> None:
    settle(client, answer())

    following = flaky(Flaky(client, "xread", 2)).responses("0-0", block=0)

    assert [response.intent_id for _, response in following] == ["intent-1"]


def test_an_entry_that_is_no_response_is_named_and_can_be_stepped_over(
    producer: IntentProducer, client: Any
) -> None:
    junk = client.xadd(KEYS.responses, {"body": b"\xff"}).decode()
    settle(client, answer())

    with pytest.raises(ContractError, match=f"entry {junk}: "):
        next(producer.responses("0-0", block=0))

    assert [response.intent_id for _, response in producer.responses(junk, block=0)] == ["intent-1"]


def test_a_client_that_turns_bytes_into_text_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="decode_responses"):
        IntentProducer(redis.Redis(decode_responses=True))


def test_a_client_of_the_callers_may_speak_the_newer_protocol(redis_server: Any) -> None:
    with redis.Redis(port=redis_server.port, protocol=3) as own:
        own.flushall()
        settle(own, answer())

        with IntentProducer(own) as producer:
            found = list(producer.responses("0-0", block=0))
            nothing = list(producer.responses("$", block=0.01))

        assert own.ping(), "a client that it did not make stays open"
    assert [response.intent_id for _, response in found] == ["intent-1"]
    assert nothing == []


@pytest.mark.real_redis
def test_waiting_survives_a_redis_that_is_killed_and_started_again() -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    try:
        with IntentProducer(server.url) as producer:
            answers: list[ExecutionResponse] = []
            waiting = threading.Thread(target=lambda: answers.append(producer.wait("intent-1", timeout=20)))
            waiting.start()

            server.kill()
            server.start()
            with connect(server.url, client_name="test") as client:
                settle(client, answer())
            waiting.join(20)
    finally:
        server.stop()

    assert [response.intent_id for response in answers] == ["intent-1"]
