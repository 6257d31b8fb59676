"""What operators see and say: all of `worker.ledger.steering`, status, the story of one intent, doubts decided by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from contracts import Code, ExecutionResponse, GuardState, Outcome, dump, load_intent, load_response
from worker.audit.story import Story, tell
from worker.errors import Refused
from worker.evidence import order_key
from worker.keys import GROUP
from worker.ledger.records import Doubt as OpenDoubt
from worker.ledger.steering import Steering, unavailable


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    name: str
    host: str
    pid: int
    #: Of its metrics server.
    port: int
    #: Seconds since its last heartbeat.
    age: float


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """One route at one moment. Ages in seconds; ``None`` where the server cannot tell."""

    route: str
    broker: str
    mode: str
    guard_state: GuardState
    consecutive_failures: int
    threshold: int
    halted: bool
    halt_reason: str | None
    halt_actor: str | None
    #: Live workers differ in version or settings; what they would send is refused.
    builds_differ: bool
    #: Until when they may all the same.
    rollout_until: datetime | None
    #: Since when nothing is sent because another server answers, or one without its last writes: until the broker's
    #: list has been compared with the ledger.
    unsure_since: datetime | None
    epoch: int
    #: Entries of the intents stream that nobody has finished: not taken, or taken and not acknowledged.
    queue_depth: int
    #: Entries not taken yet.
    queue_lag: int | None
    oldest_age: float | None
    parked: int
    in_flight: int
    in_doubt: int
    oldest_doubt_age: float | None
    dead: int
    workers: list[WorkerInfo]


@dataclass(frozen=True, slots=True)
class Doubt:
    """An intent that may or may not be at the broker."""

    intent_id: str
    symbol: str
    side: str | None
    quantity: str | None
    limit_price: str | None
    since: datetime
    #: Seconds.
    age: float
    looks: int
    escalated: bool
    worker: str


#: A worker that has not been heard of for so long is not live any more, in seconds.
HEARTBEAT_LOST = 15.0


class Control(Steering):
    """
    One route, as an operator sees and steers it. Needs no worker to be alive.

    Every method raises ``Unavailable`` when Redis does not answer, or does not confirm in time what was written.
    """

    def status(self) -> RouteStatus:
        """The route now, read in one round trip of cheap commands."""
        k = self._keys
        with unavailable():
            pipe = self._client.pipeline(transaction=False)
            pipe.hgetall(k.state)
            pipe.xlen(k.dead)
            pipe.zcard(k.open)
            pipe.zcard(k.doubts)
            pipe.hgetall(k.workers)
            pipe.time()
            pipe.zcard(k.lanes)
            pipe.xinfo_groups(k.intents)
            pipe.xpending(k.intents, GROUP)
            pipe.zrange(k.open, 0, 0)
            pipe.zrange(k.doubts, 0, 255)
            pipe.xlen(k.intents)
            rows = pipe.execute(raise_on_error=False)
            for row in rows[:7]:
                if isinstance(row, Exception):
                    raise row
            return self._status(rows)

    def _status(self, rows: list[Any]) -> RouteStatus:
        state = {key.decode(): value.decode() for key, value in rows[0].items()}
        now = rows[5][0] + rows[5][1] / 1e6
        # Others may read along in groups of their own.
        if isinstance(rows[7], list):
            rows[7] = [one for one in rows[7] if one["name"] == GROUP.encode()]
        # Without a group nobody has taken anything yet.
        has_group = isinstance(rows[7], list) and bool(rows[7])
        lag, pending = (_lag(rows[7]) if has_group else int(rows[11])), _pending(rows[8])
        waiting = self._oldest_waiting(rows[7], rows[8])
        held = self._held_states(1000)
        failures = state.get("guard_failures", "")
        return RouteStatus(
            route=self._keys.route,
            broker=state.get("broker", ""),
            mode=state.get("mode", ""),
            guard_state=GuardState(state.get("guard_state", "NORMAL")),
            consecutive_failures=len(failures.split(",")) if failures else 0,
            threshold=int(state.get("guard_threshold", 3)),
            halted=state.get("halted") == "1",
            halt_reason=state.get("halt_reason"),
            halt_actor=state.get("halt_actor"),
            builds_differ=state.get("build") == "",
            rollout_until=_window(state, now),
            unsure_since=_moment(state.get("unsure_since")),
            epoch=int(state.get("epoch", 0)),
            queue_depth=(lag or 0) + pending + held.get("parked", 0),
            queue_lag=lag,
            oldest_age=max(0.0, now - waiting) if waiting is not None else None,
            parked=held.get("parked", 0),
            in_flight=held.get("in_flight", 0),
            in_doubt=rows[3],
            oldest_doubt_age=self._oldest_doubt_age(rows[10], now),
            dead=rows[1],
            workers=_workers(rows[4], now),
        )

    def _held_states(self, limit: int) -> dict[str, int]:
        members = self._client.zrange(self._keys.open, 0, limit - 1)
        pipe = self._client.pipeline(transaction=False)
        for member in members:
            pipe.hget(self._keys.intent(member.decode()), "state")
        counts: dict[str, int] = {}
        for state in pipe.execute():
            if state:
                counts[state.decode()] = counts.get(state.decode(), 0) + 1
        return counts

    def _oldest_waiting(self, groups: Any, pending: Any) -> float | None:
        """When the oldest entry that nobody has finished was enqueued, in seconds since the epoch."""
        if isinstance(pending, dict) and pending.get("min"):
            return int(pending["min"].split(b"-")[0]) / 1000
        after = "0-0"
        if isinstance(groups, list) and groups:
            after = groups[0]["last-delivered-id"].decode()
        elif isinstance(groups, Exception):
            after = "0-0"
        first = self._client.xrange(self._keys.intents, min=f"({after}", count=1)
        return int(first[0][0].split(b"-")[0]) / 1000 if first else None

    def _oldest_doubt_age(self, members: list[bytes], now: float) -> float | None:
        if not members:
            return None
        pipe = self._client.pipeline(transaction=False)
        for member in members:
            pipe.hget(self._keys.intent(member.decode()), "since")
        ages = [now - int(since) / 1000 for since in pipe.execute() if since]
        return max(ages, default=None)

    def story(self, intent_id: str, *, thorough: bool = False) -> Story | None:
        """
        All that is known of one intent; ``None`` if the route has never seen it, or has forgotten it after the
        retention. ``thorough``: read the whole trail, however long it takes.
        """
        with unavailable():
            return tell(self._client, self._keys, intent_id, thorough=thorough)

    def doubts(self) -> list[Doubt]:
        """Every open doubt of the route, oldest first."""
        with unavailable():
            seconds, _ = self._client.time()
            found = []
            for member in self._client.zrange(self._keys.doubts, 0, -1):
                row = self._client.hgetall(self._keys.intent(member.decode()))
                if row.get(b"state") == b"in_doubt":
                    found.append(_doubt(member.decode(), row, float(seconds)))
        return sorted(found, key=lambda one: one.since)

    def look_now(self, intent_id: str) -> None:
        """
        Let the workers ask the broker about a doubt now, instead of when its pause is over.

        Raises:
            Refused: it is not in doubt.
        """
        with unavailable():
            if self._client.zscore(self._keys.doubts, intent_id) is None:
                raise Refused(f"{intent_id} is not in doubt; its story: worker intent {intent_id}")
            self._client.zadd(self._keys.doubts, {intent_id: 1}, xx=True)

    def answer(self, intent_id: str) -> ExecutionResponse | None:
        """The one answer to an intent, if it has one."""
        with unavailable():
            body = self._client.hget(self._keys.intent(intent_id), "response")
        return load_response(body) if body else None

    def resolve_by_hand(
        self, intent_id: str, *, broker_order_id: str | None, not_placed: bool, actor: str, reason: str
    ) -> ExecutionResponse:
        """
        End a doubt on a named person's word: the order's number, or that the broker does not hold it.

        Raises:
            Refused: it is not in doubt, it is too early to say that the broker does not hold it, the number is
                another intent's, or the words are incomplete. Nothing changed.
        """
        if bool(broker_order_id) == not_placed:
            raise Refused("say either the order's number or that it was not placed")
        if not reason.strip() or not actor.strip():
            raise Refused("a decision by hand needs a reason and a name")
        with unavailable():
            row = self._client.hgetall(self._keys.intent(intent_id))
        if row.get(b"state") != b"in_doubt":
            state = row.get(b"state", b"unknown").decode()
            raise Refused(f"{intent_id} is not in doubt: its state is {state}")
        doubt = _open_doubt(intent_id, row)
        left = (doubt.quiet_at - self._ledger.now_ms()) / 1000
        if left > 0:
            raise Refused(
                f"it may still be on its way: decide in {left:.0f} s, when it must show in the broker's list"
            )
        response = self._by_hand(doubt, broker_order_id, reason)
        words = f"by hand: {reason}"
        done = self._as(actor).resolve(
            doubt,
            outcome=response.outcome,
            payload=dump(response),
            reference="",
            actor=actor,
            reason=words,
            key=order_key(load_intent(doubt.body)),
        )
        if not done:
            raise Refused(
                f"{intent_id} was resolved in this very moment; look again with: worker intent {intent_id}"
            )
        return response

    def _by_hand(self, doubt: OpenDoubt, broker_order_id: str | None, reason: str) -> ExecutionResponse:
        placed = broker_order_id is not None
        if placed:
            self._refuse_owned(doubt.intent_id, str(broker_order_id))
        seconds = self._ledger.now_ms() / 1000
        return ExecutionResponse(
            intent_id=doubt.intent_id,
            accepted=placed,
            broker=self._broker(),
            message=f"resolved by hand: {reason}",
            timestamp=datetime.fromtimestamp(seconds, UTC),
            outcome=Outcome.ACCEPTED if placed else Outcome.NOT_PLACED,
            code=None if placed else Code.NOT_PLACED,
            broker_order_id=broker_order_id,
            route=self._keys.route,
            attempts=int(doubt.attempt),
            sent_at=datetime.fromtimestamp(doubt.launched_at / 1000, UTC),
        )

    def _broker(self) -> str:
        with unavailable():
            name = self._client.hget(self._keys.state, "broker")
        return name.decode() if name else "unknown"

    def _refuse_owned(self, intent_id: str, number: str) -> None:
        """An order number belongs to one intent. The responses of the last day are the record of who owns which."""
        since = self._ledger.now_ms() - 86_400_000
        with unavailable():
            start = f"{since}"
            while True:
                batch = self._client.xrange(self._keys.responses, min=start, count=5000)
                for _, row in batch:
                    answer = load_response(row[b"body"])
                    if answer.broker_order_id == number and answer.intent_id != intent_id:
                        raise Refused(f"order {number} belongs to intent {answer.intent_id} already")
                if len(batch) < 5000:
                    return
                start = f"({batch[-1][0].decode()}"


def _moment(milliseconds: str | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _window(state: dict[str, str], now: float) -> datetime | None:
    until = int(state.get("rollout_until", 0)) / 1000
    return datetime.fromtimestamp(until, UTC) if until > now else None


def _lag(groups: Any) -> int | None:
    if isinstance(groups, Exception) or not groups:
        return None
    lag = groups[0].get("lag")
    return int(lag) if lag is not None else None


def _pending(summary: Any) -> int:
    return int(summary.get("pending", 0)) if isinstance(summary, dict) else 0


def _workers(rows: dict[bytes, bytes], now: float) -> list[WorkerInfo]:
    found = []
    for name, body in rows.items():
        info = json.loads(body)
        age = max(0.0, now - info["beat"] / 1000)
        if age <= HEARTBEAT_LOST:
            found.append(WorkerInfo(name.decode(), info["host"], info["pid"], info["port"], age))
    return sorted(found, key=lambda one: one.name)


def _doubt(intent_id: str, row: dict[bytes, bytes], now: float) -> Doubt:
    intent = load_intent(row[b"body"])
    since = int(row[b"since"]) / 1000
    return Doubt(
        intent_id=intent_id,
        symbol=intent.symbol,
        side=intent.side,
        quantity=str(intent.quantity) if intent.quantity is not None else None,
        limit_price=str(intent.limit_price) if intent.limit_price is not None else None,
        since=datetime.fromtimestamp(since, UTC),
        age=max(0.0, now - since),
        looks=int(row.get(b"looks", b"0")),
        escalated=b"escalated" in row,
        worker=row.get(b"worker", b"").decode(),
    )


def _open_doubt(intent_id: str, row: dict[bytes, bytes]) -> OpenDoubt:
    flight = row[b"flight"].decode().split(":")
    return OpenDoubt(
        intent_id=intent_id,
        fence=row[b"fence"].decode(),
        attempt=flight[0],
        body=row[b"body"],
        launched_at=int(flight[3]),
        quiet_at=int(flight[4]),
        since=int(row[b"since"]),
        now=0,
        target=row.get(b"target", b"").decode(),
        target_response=b"",
        target_reference="",
    )
