"""
The strategy's side of the queue: enqueue intents, read their answers.

::

    with IntentProducer("redis://127.0.0.1:6379/0") as producer:
        producer.enqueue(intent)
        response = producer.wait(intent.intent_id, timeout=30)

An ``intent_id`` is worked once however often it is enqueued, so after any error the same call may be made again.
An answer lives in two places: in the ledger entry of its intent, and on the responses stream. The producer looks
into the ledger first, which is how one that lost an answer finds it again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

import redis
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from contracts import ContractError, ExecutionIntent, ExecutionResponse, IntentType, dump, load_response
from worker.clock import Clock, SystemClock
from worker.connection import Connect, at_home, connect, is_unavailable
from worker.errors import Unavailable
from worker.keys import RouteKeys

_T = TypeVar("_T")

#: An entry of a stream: its id and its fields.
StreamEntry = tuple[str, dict[bytes, bytes]]

#: The longest that one command blocks, in seconds: well below the socket's time-out.
BLOCK_MAX = 1.0
#: Entries that one read may bring.
_READ_COUNT = 500
_NEVER = threading.Event()
#: Ledger entries that one pipeline looks at.
_LOOK_COUNT = 500


class Known(NamedTuple):
    """What the ledger tells a producer of one intent."""

    fingerprint: str
    #: Absent while the intent is open.
    response: ExecutionResponse | None


class NoAnswerYet(TimeoutError):
    """No answer came in time. The intents may still trade; ``intent_ids`` names them."""

    def __init__(self, route: str, intent_ids: Sequence[str], seconds: float) -> None:
        self.route = route
        self.intent_ids = tuple(intent_ids)
        first = self.intent_ids[0]
        which = f"intent {first}" if len(intent_ids) == 1 else f"{len(intent_ids)} intents, such as {first},"
        super().__init__(
            f"no answer to {which} on route {route} within {seconds:g} s. It may still trade. Wait again, or look "
            f"with `worker intent {first}`; never send it again under another id."
        )


class IntentProducer:
    """
    Enqueues intents on one route and reads their answers.

    ``patience`` is how long, in seconds, a call goes on trying while Redis does not answer; it then raises
    ``Unavailable``. Safe to share between threads.
    """

    def __init__(
        self,
        client_or_url: redis.Redis | str,
        route: str = "default",
        *,
        connect: Connect = connect,
        patience: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self.keys = RouteKeys(route)
        self._owned = isinstance(client_or_url, str)
        self._client = (
            connect(at_home(client_or_url, self.keys.prefix), client_name="execworker:producer")
            if isinstance(client_or_url, str)
            else client_or_url
        )
        if self._client.get_encoder().decode_responses:
            raise ValueError("client: must be made with decode_responses=False; messages are bytes")
        self._patience = patience
        self._clock = clock or SystemClock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if it was made from a URL."""
        if self._owned:
            self._client.close()

    def enqueue(self, intent: ExecutionIntent) -> str:
        """
        Put an intent into the queue and return the id of its entry. A CANCEL goes to a stream of its own.

        Raises:
            Unavailable: it may or may not be enqueued. Enqueue it again, under the same id.
        """
        return self.enqueue_many((intent,))[0]

    def enqueue_many(self, intents: Iterable[ExecutionIntent], batch: int = 500) -> list[str]:
        """
        Put intents into the queue in this order, and return the ids of their entries.

        Raises:
            Unavailable: some may be enqueued. Enqueue all of them again, under the same ids.
        """
        pending, entry_ids = iter(intents), []
        while some := [(self._stream(intent), dump(intent)) for intent in islice(pending, batch)]:
            # When the reply is lost, nobody knows whether the entries are there, so they are added again. The
            # ledger knows each intent by its id: a doubled entry is a replay, and trades nothing.
            entry_ids += self._persist(partial(self._add, some))
        return entry_ids

    def find(self, intent_id: str) -> ExecutionResponse | None:
        """The answer to an intent, if there is one by now."""
        known = self.recall((intent_id,)).get(intent_id)
        return known.response if known else None

    def recall(self, intent_ids: Iterable[str]) -> dict[str, Known]:
        """What the ledger knows of these intents; those that it has never seen are left out."""
        pending, found = iter(intent_ids), dict[str, Known]()
        while some := list(islice(pending, _LOOK_COUNT)):
            rows = self._persist(partial(self._look, some))
            found |= {one: _known(row) for one, row in zip(some, rows, strict=True) if row[0] is not None}
        return found

    def wait(self, intent_id: str, timeout: float) -> ExecutionResponse:
        """
        The answer to an intent, now or as soon as it comes. Survives a restart of Redis.

        Raises:
            NoAnswerYet: a ``TimeoutError``. The intent may still trade: wait again, under the same id.
        """
        return next(self.wait_many((intent_id,), timeout))

    def wait_many(self, intent_ids: Iterable[str], timeout: float) -> Iterator[ExecutionResponse]:
        """
        The answers to these intents as they come, each once. ``timeout`` is for all of them, in seconds.

        Raises:
            NoAnswerYet: a ``TimeoutError`` that names those without an answer. They may still trade.
        """
        waiting = dict.fromkeys(intent_ids)
        deadline = self._clock.boottime() + timeout
        pause = 0.0
        while waiting:
            left = deadline - self._clock.boottime()
            try:
                for response in self._answers(waiting, deadline):
                    del waiting[response.intent_id]
                    pause = 0.0
                    yield response
                if not waiting:
                    return
                raise NoAnswerYet(self.keys.route, list(waiting), timeout)
            except redis.RedisError as error:
                # Look again from the start: the stream may have been trimmed while Redis was out of reach.
                if not is_unavailable(error):
                    raise
                if left <= 0:
                    raise NoAnswerYet(self.keys.route, list(waiting), timeout) from error
                pause = min(left, BLOCK_MAX, pause * 2 or 0.02)
                self._sleep(pause)

    def responses(
        self, position: str = "$", *, block: float | None = None
    ) -> Iterator[tuple[str, ExecutionResponse]]:
        """
        Every answer of the route after ``position`` (``0-0`` is the oldest kept, ``$`` the present moment), each
        with its own position: keep it, and go on from there after a restart.

        ``block`` is how long to wait for the next one, in seconds; for ever when ``None``.

        Raises:
            ContractError: an entry is no response, and its text names the entry. Go on from that position.
            Unavailable: Redis does not answer. Go on from the last position.
        """
        start = (
            self._persist(partial(tail, self._client, self.keys.responses)) if position == "$" else position
        )
        return self._follow(start, block)

    def _follow(self, position: str, block: float | None) -> Iterator[tuple[str, ExecutionResponse]]:
        quiet_until = None if block is None else self._clock.boottime() + block
        while True:
            left = BLOCK_MAX if quiet_until is None else quiet_until - self._clock.boottime()
            where = {self.keys.responses: position}
            entries = self._persist(partial(read_after, self._client, where, left))
            for _, (position, fields) in entries:
                yield position, _response(position, fields)
            if entries and block is not None:
                quiet_until = self._clock.boottime() + block
            elif not entries and left <= 0:
                return

    def _answers(self, waiting: dict[str, None], deadline: float) -> Iterator[ExecutionResponse]:
        # The position comes first: an answer that arrives during the look is then read from the stream.
        position = tail(self._client, self.keys.responses)
        ids = list(waiting)
        for start in range(0, len(ids), _LOOK_COUNT):
            rows = self._look(ids[start : start + _LOOK_COUNT])
            yield from (load_response(body) for _, body in rows if body)
        while waiting and (left := deadline - self._clock.boottime()) > 0:
            for _, (at, fields) in read_after(self._client, {self.keys.responses: position}, left):
                position = at
                if fields.get(b"intent_id", b"").decode("utf-8", "replace") not in waiting:
                    continue
                # What is no answer, or another's, a stranger wrote: the true one is still to come.
                if (response := _readable(fields)) is not None and response.intent_id in waiting:
                    yield response

    def _stream(self, intent: ExecutionIntent) -> str:
        return self.keys.cancels if intent.intent_type is IntentType.CANCEL else self.keys.intents

    def _add(self, entries: list[tuple[str, bytes]]) -> list[str]:
        with self._client.pipeline(transaction=False) as pipe:
            for stream, body in entries:
                pipe.xadd(stream, {"body": body})
            return [entry_id.decode() for entry_id in pipe.execute()]

    def _look(self, intent_ids: list[str]) -> list[tuple[bytes | None, bytes | None]]:
        with self._client.pipeline(transaction=False) as pipe:
            for intent_id in intent_ids:
                pipe.hmget(self.keys.intent(intent_id), "fingerprint", "response")
            return [(row[0], row[1]) for row in pipe.execute()]

    def _persist(self, call: Callable[[], _T]) -> _T:
        try:
            return Retrying(
                retry=retry_if_exception(_is_away),
                stop=stop_after_delay(self._patience),
                wait=wait_random_exponential(multiplier=0.02, max=BLOCK_MAX),
                sleep=self._sleep,
                reraise=True,
            )(call)
        except redis.RedisError as error:
            if not is_unavailable(error):
                raise
            raise Unavailable(
                f"Redis does not answer: {error}. What was asked of it may or may not have been done. Do the same "
                "again, under the same intent_id; that is safe at any time."
            ) from error

    def _sleep(self, seconds: float) -> None:
        self._clock.wait(_NEVER, seconds)


def _known(row: tuple[bytes | None, bytes | None]) -> Known:
    fingerprint, response = row
    return Known(
        (fingerprint or b"").decode("utf-8", "replace"), load_response(response) if response else None
    )


def tail(client: redis.Redis, stream: str) -> str:
    """The position of a stream's newest entry, to read on from. ``$`` would lose what comes between two reads."""
    newest = client.xrevrange(stream, count=1)
    return cast("bytes", newest[0][0]).decode() if newest else "0-0"


def read_after(
    client: redis.Redis, positions: dict[str, str], seconds: float, count: int = _READ_COUNT
) -> list[tuple[str, StreamEntry]]:
    """What came after these positions, stream by stream; waits for it at most so long, and at most a second."""
    block = round(min(seconds, BLOCK_MAX) * 1000)
    found: Any = client.xread(cast("Any", positions), count=count, block=block if block > 0 else None)
    if isinstance(found, dict):
        # RESP3, which a client of the caller's may speak, has one more level.
        found = [(name, entries[0]) for name, entries in found.items()]
    return [
        (name.decode(), (entry_id.decode(), fields))
        for name, entries in found or ()
        for entry_id, fields in entries
    ]


def _response(position: str, fields: dict[bytes, bytes]) -> ExecutionResponse:
    try:
        return load_response(fields.get(b"body", b""))
    except ContractError as error:
        raise ContractError(
            [f"entry {position}: {fault}" for fault in error.faults], error.intent_id
        ) from None


def _readable(fields: dict[bytes, bytes]) -> ExecutionResponse | None:
    try:
        return load_response(fields.get(b"body", b""))
    except ContractError:
        return None


def _is_away(error: BaseException) -> bool:
    return isinstance(error, redis.RedisError) and is_unavailable(error)
