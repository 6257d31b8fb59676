"""What operators see and say: all of `worker.ledger.steering`, status, the story of one intent, doubts decided by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from contracts import (
    Code,
    ContractError,
    ExecutionResponse,
    GuardState,
    Outcome,
    dump,
    load_intent,
    load_response,
)
from worker.audit.story import Story, tell
from worker.audit.waiting import Waiting, find_waiting
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
    #: Empty where an older version does not tell.
    mode: str = ""


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
            pipe.time()
            pipe.hgetall(k.workers)
            pipe.xlen(k.dead)
            pipe.zcard(k.doubts)
            pipe.zrange(k.doubts, 0, 255)
            pipe.xlen(k.intents)
            # These two fail while there is no stream or no group.
            pipe.xinfo_groups(k.intents)
            pipe.xpending(k.intents, GROUP)
            rows = pipe.execute(raise_on_error=False)
            for row in rows[:-2]:
                if isinstance(row, Exception):
                    raise row
            return self._status(*rows)

    def _status(
        self,
        fields: dict[bytes, bytes],
        time: tuple[int, int],
        beats: dict[bytes, bytes],
        dead: int,
        in_doubt: int,
        doubts: list[bytes],
        length: int,
        groups: Any,
        pending: Any,
    ) -> RouteStatus:
        state = {key.decode(): value.decode() for key, value in fields.items()}
        now = time[0] + time[1] / 1e6
        # Others may read along in groups of their own.
        known = groups if isinstance(groups, list) else []
        group = next((one for one in known if one["name"] == GROUP.encode()), None)
        # Without a group nobody has taken anything yet.
        lag = length if group is None else group.get("lag")
        taken = pending if isinstance(pending, dict) else {}
        waiting = self._oldest_waiting(group, taken)
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
            queue_depth=(lag or 0) + taken.get("pending", 0) + held["parked"],
            queue_lag=lag,
            oldest_age=None if waiting is None else max(0.0, now - waiting),
            parked=held["parked"],
            in_flight=held["in_flight"],
            in_doubt=in_doubt,
            oldest_doubt_age=self._oldest_doubt_age(doubts, now),
            dead=dead,
            workers=_workers(beats, now),
        )

    def _held_states(self, limit: int) -> Counter[str]:
        members = self._client.zrange(self._keys.open, 0, limit - 1)
        pipe = self._client.pipeline(transaction=False)
        for member in members:
            pipe.hget(self._keys.intent(member.decode()), "state")
        return Counter(state.decode() for state in pipe.execute() if state)

    def _oldest_waiting(self, group: dict[str, Any] | None, taken: dict[str, Any]) -> float | None:
        """When the oldest entry that nobody has finished was enqueued, in seconds since the epoch."""
        if taken.get("min"):
            return _seconds(taken["min"])
        after = group["last-delivered-id"].decode() if group else "0-0"
        first = self._client.xrange(self._keys.intents, min=f"({after}", count=1)
        return _seconds(first[0][0]) if first else None

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

    def waiting(self, intent_id: str) -> list[Waiting]:
        """Where an intent waits that no worker has brought to the ledger: unread, or handed to a worker."""
        with unavailable():
            return find_waiting(self._client, self._keys, intent_id)

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

    def open_doubt(self, intent_id: str) -> OpenDoubt:
        """
        A doubt that a person may decide now.

        Raises:
            Refused: it is not in doubt, or the order may still be on its way.
        """
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
        if doubt.target:
            with unavailable():
                response = self._client.hget(self._keys.intent(doubt.target), "response")
            doubt = replace(doubt, target_response=response or b"")
        return doubt

    def resolve_by_hand(
        self,
        intent_id: str,
        *,
        broker_order_id: str | None,
        not_placed: bool,
        actor: str,
        reason: str,
        reference: str = "",
    ) -> ExecutionResponse:
        """
        End a doubt on a named person's word: the order's number, as the broker's list spells it, or that the broker
        does not hold it. ``reference`` is the row's, which a later CANCEL needs.

        Raises:
            Refused: it is not in doubt, it is too early to decide, the number is another intent's, or the words are
                incomplete. Nothing changed.
        """
        if bool(broker_order_id) == not_placed:
            raise Refused("say either the order's number or that it was not placed")
        if not reason.strip() or not actor.strip():
            raise Refused("a decision by hand needs a reason and a name")
        doubt = self.open_doubt(intent_id)
        response = self._by_hand(doubt, broker_order_id, reason)
        words = f"by hand: {reason}"
        done = self._as(actor).resolve(
            doubt,
            outcome=response.outcome,
            payload=dump(response),
            reference=reference,
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
        if broker_order_id is not None and doubt.target:
            _refuse_other_than_target(doubt, broker_order_id)
        elif broker_order_id is not None:
            self._refuse_owned(doubt.intent_id, broker_order_id)
        seconds = self._ledger.now_ms() / 1000
        return ExecutionResponse(
            intent_id=doubt.intent_id,
            accepted=placed,
            broker=self.broker(),
            message=f"resolved by hand: {reason}",
            timestamp=datetime.fromtimestamp(seconds, UTC),
            outcome=Outcome.ACCEPTED if placed else Outcome.NOT_PLACED,
            code=None if placed else Code.NOT_PLACED,
            broker_order_id=broker_order_id,
            route=self._keys.route,
            attempts=int(doubt.attempt),
            sent_at=datetime.fromtimestamp(doubt.launched_at / 1000, UTC),
        )

    def broker(self) -> str:
        """The name of the broker that the route's workers trade at."""
        with unavailable():
            name = self._client.hget(self._keys.state, "broker")
        return name.decode() if name else "unknown"

    def _refuse_owned(self, intent_id: str, number: str) -> None:
        """
        An order number belongs to one intent. Where rows carry no ids of ours the ledger keeps whose it is; elsewhere the
        responses of the last day tell.
        """
        owner = self._ledger.owners([number]).get(number)
        if owner is not None and owner.intent_id != intent_id:
            raise Refused(f"order {number} belongs to intent {owner.intent_id} already")
        since = self._ledger.now_ms() - 86_400_000
        with unavailable():
            start = f"{since}"
            while True:
                batch = self._client.xrange(self._keys.responses, min=start, count=5000)
                for _, row in batch:
                    answer = _readable(row)
                    if answer and answer.broker_order_id == number and answer.intent_id != intent_id:
                        raise Refused(f"order {number} belongs to intent {answer.intent_id} already")
                if len(batch) < 5000:
                    return
                start = f"({batch[-1][0].decode()}"


def _readable(row: dict[bytes, bytes]) -> ExecutionResponse | None:
    """An answer; none where somebody else has written the entry, which gives no order to anybody."""
    try:
        return load_response(row.get(b"body", b""))
    except ContractError:
        return None


def _refuse_other_than_target(doubt: OpenDoubt, number: str) -> None:
    """An accepted CANCEL is answered with its target's number."""
    known = load_response(doubt.target_response).broker_order_id if doubt.target_response else number
    if number != known:
        raise Refused(f"a CANCEL is answered with the number of its target, {doubt.target}: order {known}")


def _moment(milliseconds: str | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _window(state: dict[str, str], now: float) -> datetime | None:
    until = int(state.get("rollout_until", 0)) / 1000
    return datetime.fromtimestamp(until, UTC) if until > now else None


def _seconds(entry: bytes) -> float:
    return int(entry.split(b"-")[0]) / 1000


def _workers(rows: dict[bytes, bytes], now: float) -> list[WorkerInfo]:
    read = (_worker(name, body, now) for name, body in rows.items())
    return sorted((one for one in read if one), key=lambda one: one.name)


def _worker(name: bytes, body: bytes, now: float) -> WorkerInfo | None:
    """One that is alive. What no worker of ours has written is none; for the next heartbeat it counts as another build."""
    try:
        info = json.loads(body)
        age = now - info["beat"] / 1000
        found = WorkerInfo(
            name.decode(),
            str(info["host"]),
            int(info["pid"]),
            int(info["port"]),
            max(0.0, age),
            str(info.get("mode", "")),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return found if abs(age) <= HEARTBEAT_LOST else None


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
