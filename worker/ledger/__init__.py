"""
The ledger: what became of every intent, in Redis, one atomic step a transition.

::

                         ┌── proof of not sent ──┐  (own token only; then launch again, or settle)
                         ▼                       │
    (none) ──claim──▶ claimed ──launch──▶ in_flight ──settle──▶ settled
               │         │  ▲                 ├── settle ──▶ in_doubt ──resolve──▶ settled
               ▼         │  │ handed on   lease ends              ▲
             parked ─────┼──┘                 └──────sweep────────┘
                     lease ends: handed to whoever sweeps

A *parked* intent waits for its lane; the ledger holds its bytes. A *tombstone* is all there is of an intent whose
CANCEL came first. Every call may be repeated after a lost reply.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, TypeVar

import redis

from worker.clock import Clock
from worker.connection import ServerChanged, is_unavailable
from worker.durability import Confirmation
from worker.errors import StateLost, Unavailable
from worker.keys import GROUP, RouteKeys
from worker.ledger import scripts
from worker.ledger.confirm import Confirmer
from worker.ledger.identity import ServerWatch, who_answers
from worker.ledger.records import (
    Barred,
    Buried,
    CancelDecision,
    CancelGate,
    Claim,
    Conflict,
    Doubt,
    Entry,
    Gate,
    Granted,
    Handed,
    Known,
    Later,
    Launch,
    Launched,
    Owner,
    Parked,
    Settled,
    Settlement,
    Stale,
    Unsure,
)
from worker.line import Line


def foreign_mark(broker_order_id: str) -> str:
    """How an order that is not ours is noted."""
    return f"foreign:{broker_order_id}"


def new_token() -> str:
    """The proof of one claim: unguessable, held in memory only."""
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class LedgerRules:
    """The settings that the ledger's scripts go by. Seconds, unless said otherwise."""

    lease: float = 10.0
    retention: float = 7 * 86400.0
    #: ``wait``: an intent in doubt holds its lane; ``continue``: it does not.
    lane_on_doubt: str = "wait"
    max_consecutive_failures: int = 3
    order_timeout: float = 5.0
    #: From the end of the order time-out until the broker's list shows every order that arrived.
    visibility_lag: float = 0.0
    #: Calls a second that the broker takes of the whole route; ``None`` for no limit.
    rate_limit: float | None = None
    future_skew: float = 5.0
    #: Version and settings of a worker that sends with real money: what all of them must share. Else empty.
    build: str = ""
    #: What must hold of a write before it counts.
    confirmation: Confirmation = field(default_factory=Confirmation)


T = TypeVar("T")

#: The scripts whose writes are waited for, where confirmations are wanted: what they note or answer is acted upon.
_CONFIRMED = frozenset(
    {"claim", "launch", "settle", "cancel", "control", "resolve", "bury", "note", "reconcile"}
)

#: What the kernel may still deliver for a sender that has died or timed out (TCP_USER_TIMEOUT), in seconds.
USER_TIMEOUT = 1.0


class Ledger:
    """
    One route's ledger. Safe to share between threads, but for `ask_claim` and `ask_settle` with a ``line``, which
    one thread may use.

    Every method raises ``Unavailable`` when Redis does not answer (nothing is known of the call: make the same call
    again) and ``StateLost`` when the server has forgotten the route (send nothing, ``register`` again).
    """

    def __init__(
        self,
        client: redis.Redis,
        route: str,
        worker: str,
        rules: LedgerRules,
        clock: Clock,
        line: Line | None = None,
        watch: ServerWatch | None = None,
    ) -> None:
        """
        ``line`` carries calls whose answers are not waited for; without one they are made on the spot. ``watch`` sees
        the client's connections, and is told which server to let through.
        """
        self.keys = RouteKeys(route)
        self.rules = rules
        self._client = client
        self._line = line
        self._worker = worker
        self._clock = clock
        self.incarnation = ""
        k = self.keys
        self._key_list = (
            k.state,
            k.open,
            k.doubts,
            k.lanes,
            k.ready,
            k.cancelling,
            k.responses,
            k.failsafe,
            k.audit,
            k.dead,
            k.noted,
            k.orders,
            k.workers,
            k.slots,
            k.owned,
        )
        self._quiet_ms = _ms(rules.order_timeout + USER_TIMEOUT + rules.visibility_lag)
        self._slots = _slots(rules.rate_limit)
        self._watch = watch or ServerWatch()
        #: The highest number of a launch that this worker has seen.
        self._sequence = 0
        self._confirmer = (
            Confirmer(client, line, rules.confirmation, k.state) if rules.confirmation.is_wanted else None
        )

    def register(self, *, broker: str, mode: str, start_halted: bool) -> str:
        """
        Find or make the route's state, on the server that answers now; from here on the ``watch`` admits no other.

        Returns ``found``, ``made``, or ``halted`` when it was made halted: a live route without a history, or one
        whose history was lost under this worker; or ``changed`` when this server may have forgotten what the last
        one acknowledged: what was launched is in doubt, and nothing launches until `reconciled`.
        """
        known, self.incarnation = self.incarnation, ""
        line = self._line or Line(self._client)
        try:
            with self._unavailable():
                server = who_answers(line)
                ask = (
                    new_token(),
                    known,
                    self.rules.max_consecutive_failures,
                    int(start_halted),
                    broker,
                    mode,
                    server.run_id,
                    server.address,
                    int(server.remembers),
                    self._sequence if known else 0,
                )
                incarnation, how = scripts.ask(
                    line, "register", self._key_list, (*self._context(), *ask)
                ).get()
                self._watch.admitted = server.run_id
        except Unavailable:
            self.incarnation = known
            raise
        finally:
            if line is not self._line:
                line.close()
        self.incarnation, self._sequence = incarnation.decode(), 0
        if how != b"found":
            # Connections that lead elsewhere are made anew, and looked at.
            self._client.connection_pool.disconnect(inuse_connections=False)
        return str(how.decode())

    def unsure(self) -> Unsure | None:
        """
        What the route waits for since its server changed, if it is this worker's turn to compare the broker's list
        with the ledger.
        """
        with self._unavailable():
            if not self._client.hexists(self.keys.state, "unsure_since"):
                return None
        answer = self._call("reconcile", "look")
        return Unsure(answer[1], answer[2] / 1000) if answer[0] == b"unsure" else None

    def reconciled(self, unsure: Unsure, strays: int, intent_ids: Sequence[str] = ()) -> bool:
        """
        Launch again: the broker's list was compared. With ``strays``, orders in it that no entry accounts for, every
        intent from before the change, and those with the ``intent_ids`` that they show, are in doubt when their turn
        comes; if some show none, the route is halted. False: the server has changed once more.
        """
        return bool(self._call("reconcile", "end", unsure.since, strays, *intent_ids)[0] == b"ended")

    def claim(self, entries: Sequence[Entry], room: int = 0) -> list[Claim]:
        """
        Take the right to work these intents, or learn for each why not. Up to ``room`` of those that can leave at
        once are launched in the same step, as by `launch`, under attempt 1.
        """
        return self.ask_claim(entries, room).get()

    def ask_claim(self, entries: Sequence[Entry], room: int) -> Asked[list[Claim]]:
        """The same, without waiting for the answer."""
        started = self._clock.boottime()
        # The rate limit has its place in launch.
        limits = (0 if self.rules.rate_limit else room, _ms(self.rules.future_skew))

        def read(answers: list[Any]) -> list[Claim]:
            claims = [_claim(answer, started, self.rules.order_timeout) for answer in answers]
            self._note_sequence(claims)
            return claims

        return self._ask(read, "claim", *limits, *chain.from_iterable(entries))

    def launch(self, wanted: Sequence[tuple[str, str, int]]) -> list[Launch]:
        """
        Note that these orders are about to leave: (intent_id, token, attempt) each. The last gate.

        The time to send starts here, before the note is written, and ends with the order time-out or the expiry.
        """
        started = self._clock.boottime()
        limits = (_ms(self.rules.future_skew), *self._slots)
        answers = self._call("launch", *limits, *chain.from_iterable(wanted))
        launches = [_launch(answer, started, self.rules.order_timeout) for answer in answers]
        self._note_sequence(launches)
        return launches

    def settle(self, ends: Sequence[Settlement], want: int = 0) -> tuple[list[Settled], list[Handed]]:
        """Close these intents, publish their answers and events, and take up to ``want`` lane heads in turn."""
        return self.ask_settle(ends, want).get()

    def ask_settle(self, ends: Sequence[Settlement], want: int) -> Asked[tuple[list[Settled], list[Handed]]]:
        """The same, without waiting for the answer."""
        token = new_token()
        args = chain.from_iterable(
            (
                end.intent_id,
                end.token,
                end.attempt,
                f"{end.verdict}:{end.outcome}:{end.effect}",
                end.payload,
                end.reference,
                end.key,
                end.wire,
            )
            for end in ends
        )

        def read(answer: list[Any]) -> tuple[list[Settled], list[Handed]]:
            answers, granted = answer
            return [_SETTLED[one] for one in answers], _handed(granted, token)

        return self._ask(read, "settle", want, token, *args)

    def sweep(self, want: int) -> tuple[list[Handed], list[str]]:
        """Take what nobody works on any more or whose turn has come; and learn which intents fell in doubt."""
        token = new_token()
        granted, doubts = self._call("sweep", want, token)
        return _handed(granted, token), [one.decode() for one in doubts]

    def renew(self, held: Sequence[tuple[str, str]]) -> list[bool]:
        """Renew the leases of (intent_id, token) each. False: it is not yours any more."""
        return [bool(answer) for answer in self._call("renew", *chain.from_iterable(held))]

    def release(self, held: Sequence[tuple[str, str]]) -> list[bool]:
        """Give back claims of (intent_id, token) each that were never launched; another worker takes them at once."""
        if not held:
            return []
        return [bool(answer) for answer in self._call("release", *chain.from_iterable(held))]

    def cancel(self, intent_id: str, token: str, attempt: int, target: str, symbol: str) -> CancelDecision:
        """Decide what a claimed CANCEL may do, and note it when a request is about to leave."""
        started = self._clock.boottime()
        answer = self._call("cancel", intent_id, token, attempt, target, symbol, *self._slots)
        gate = CancelGate(answer[0].decode())
        if gate is CancelGate.LAUNCHED:
            send_before = started + min(self.rules.order_timeout, answer[1] / 1000)
            return CancelDecision(gate, send_before, answer[2], answer[3].decode())
        if gate is CancelGate.LATER:
            return CancelDecision(gate, later=answer[1] / 1000)
        return CancelDecision(gate, response=answer[1] if len(answer) > 1 else b"")

    def slot(self) -> float:
        """Take one of the broker's call slots for a look-up. Returns 0, or in how many seconds to ask again."""
        return float(self._call("slot", *self._slots)) / 1000 if self.rules.rate_limit else 0.0

    def may_scan(self, interval: float) -> bool:
        """Whether it is this worker that compares the broker's list with the ledger for the next ``interval`` seconds."""
        with self._unavailable():
            taken = self._client.set(self.keys.scanner, self._worker, nx=True, px=_ms(interval * 0.9))
        return bool(taken)

    def look(self, limit: int, *, base: float, ceiling: float, escalate_after: float) -> list[Doubt]:
        """The doubts whose next look-up is due. The one after it is put off, with a doubling pause."""
        due = self._call("look", limit, _ms(base), _ms(ceiling), _ms(escalate_after))
        return [_doubt(one) for one in due]

    def resolve(
        self,
        doubt: Doubt,
        *,
        outcome: str,
        payload: bytes,
        reference: str,
        actor: str,
        reason: str,
        key: str = "",
    ) -> bool:
        """End a doubt with evidence. False: it is no longer that doubt, and nothing was written."""
        answer = self._call(
            "resolve",
            doubt.intent_id,
            doubt.fence,
            doubt.attempt,
            outcome,
            payload,
            reference,
            actor,
            reason,
            key,
            doubt.launched_at,
        )
        return bool(answer == b"settled")

    def bury(
        self,
        body: bytes,
        *,
        reason: str,
        error: str,
        entry_id: str,
        entry: str,
        intent_id: str = "",
        fingerprint: str = "",
        payload: bytes = b"",
        stream: str = "",
    ) -> Buried:
        """
        Put an entry of the queue into the dead-letter stream; answer it (``payload``) if its id is still free. Where
        the ``stream`` it was taken from is ours, that and its acknowledgement are one step.
        """
        args = (body, reason, error, entry_id, entry, intent_id, fingerprint, payload, stream, GROUP)
        return Buried(self._call("bury", *args).decode())

    def note(self, kind: str, mark: str, fields: str, *, intent_id: str = "", state: str = "") -> int:
        """Announce an order of the broker's list that is not ours or should not exist: 1 now, 0 before, -1 look again."""
        return int(self._call("note", kind, mark, fields, intent_id, state))

    def weed(self, stream: str, start: str = "-", limit: int = 500) -> tuple[int, str]:
        """Remove lane registrations that nobody knows any more. Returns how many, and where to go on."""
        removed, then = self._call("weed", stream, GROUP, start, limit)
        return int(removed), then.decode("utf-8", "surrogateescape")

    def states(self, intent_ids: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """State and stored response of each intent that the ledger knows."""
        with self._unavailable():
            pipe = self._client.pipeline(transaction=False)
            for intent_id in intent_ids:
                pipe.hmget(self.keys.intent(intent_id), "state", "response")
            rows = pipe.execute()
        found = zip(intent_ids, rows, strict=True)
        return {one: (row[0].decode(), row[1] or b"") for one, row in found if row[0]}

    def owners(self, numbers: Sequence[str]) -> dict[str, Owner]:
        """Whose these orders are, by the broker's numbers; only at brokers whose rows carry no ids of ours."""
        return {name: found[0] for name, found in self._owned("number:", numbers).items()}

    def unplaced(self, keys: Sequence[str]) -> dict[str, list[Owner]]:
        """The intents of each order key that were launched and answered as no order: the last ones of each kind."""
        found = self._owned("unplaced:", keys)
        for key, refused in self._owned("refused:", keys).items():
            found[key] = [*found.get(key, ()), *refused]
        return found

    def _owned(self, prefix: str, names: Sequence[str]) -> dict[str, list[Owner]]:
        if not names:
            return {}
        with self._unavailable():
            rows: list[Any] = self._client.hmget(self.keys.owned, [prefix + one for one in names])
        return {
            name: [_owner(line) for line in row.decode().split("\n")]
            for name, row in zip(names, rows, strict=True)
            if row
        }

    def noted_at(self, numbers: Sequence[str]) -> dict[str, int]:
        """When these orders of the broker were announced as foreign, in milliseconds; those that never were are left out."""
        if not numbers:
            return {}
        with self._unavailable():
            rows = self._client.hmget(self.keys.noted, [foreign_mark(one) for one in numbers])
        return {name: int(row) for name, row in zip(numbers, rows, strict=True) if row}

    def under_way(self) -> list[bytes]:
        """The intents, as JSON, that were launched and not answered yet."""
        with self._unavailable():
            client: Any = self._client
            ids = [*client.zrange(self.keys.open, 0, -1), *client.zrange(self.keys.doubts, 0, -1)]
            pipe = self._client.pipeline(transaction=False)
            for one in ids:
                pipe.hmget(self.keys.intent(one.decode()), "state", "body")
            rows = pipe.execute()
        return [body for state, body in rows if state in (b"in_flight", b"in_doubt") and body]

    def now_ms(self) -> int:
        """Redis's own clock."""
        with self._unavailable():
            seconds, micros = self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def beat(self, card: Mapping[str, object], *, fresh: float, forgotten: float) -> str:
        """
        This worker is alive. Returns '' while all workers that are alive, heard of within ``fresh`` seconds, are of one
        build; else which is of which: then nothing live is launched.
        """
        how, *which = self._call("beat", json.dumps(card), _ms(fresh), _ms(forgotten))
        # A stranger may have put any bytes among the workers' names.
        return which[0].decode("utf-8", "backslashreplace") if how == b"differ" else ""

    def is_in_use(self, fresh: float) -> bool:
        """Whether an intent is open or in doubt, or another worker was heard of within ``fresh`` seconds."""
        with self._unavailable():
            pipe = self._client.pipeline(transaction=False)
            pipe.zcard(self.keys.open)
            pipe.zcard(self.keys.doubts)
            pipe.hgetall(self.keys.workers)
            open_, doubts, cards = pipe.execute()
        oldest = self.now_ms() - _ms(fresh)
        alive = [name for name, card in cards.items() if _beat(card) >= oldest]
        return bool(open_ or doubts or set(alive) - {self._worker.encode()})

    def command(self, verb: str, actor: str, reason: str, seconds: float = 0.0) -> tuple[str, str]:
        """
        An operator's word: ``halt``, ``resume``, ``reset``, ``approve``, ``rollout`` (for so many seconds) or
        ``rollout_over``. Returns how it went, and a state or why not.
        """
        how, detail = self._call("control", verb, actor, reason, _ms(seconds))
        return how.decode(), detail.decode()

    def _note_sequence(self, answers: Sequence[Claim | Launch]) -> None:
        for answer in reversed(answers):
            if isinstance(answer, Launched):
                self._sequence = max(self._sequence, answer.sequence)
                return

    def _call(self, name: str, *args: Any) -> Any:
        with self._unavailable():
            if self._confirmer is not None and name in _CONFIRMED:
                return self._confirmer.call(name, self._key_list, (*self._context(), *args))
            return scripts.call(self._client, name, self._key_list, (*self._context(), *args))

    def _ask(self, read: Callable[[Any], T], name: str, *args: Any) -> Asked[T]:
        if self._line is None:
            answer = read(self._call(name, *args))
            return Asked(lambda: answer)
        with self._unavailable():
            sent = scripts.ask(self._line, name, self._key_list, (*self._context(), *args))
        confirmer, mark = self._confirmer, self._line.sent

        def get() -> T:
            with self._unavailable():
                return read(sent.get() if confirmer is None else confirmer.get(sent, mark))

        return Asked(get)

    def _context(self) -> tuple[Any, ...]:
        rules = self.rules
        return (
            self.keys.prefix,
            self.keys.route,
            self._worker,
            self.incarnation,
            _ms(rules.lease),
            _ms(rules.retention),
            rules.lane_on_doubt,
            rules.build,
            self._quiet_ms,
        )

    def _unavailable(self) -> _Unavailable:
        return _UNAVAILABLE


class Asked(Generic[T]):
    """A call on its way."""

    def __init__(self, get: Callable[[], T]) -> None:
        #: Wait for the answer. Raises as the call itself does.
        self.get = get


class _Unavailable:
    """Turns what redis-py raises into what callers act on. Stateless, and cheaper than a generator."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, ServerChanged):
            raise StateLost(str(error)) from error
        if isinstance(error, redis.RedisError) and is_unavailable(error):
            raise Unavailable(f"Redis does not answer: {error}") from error
        if isinstance(error, redis.ResponseError) and "STATELOST" in str(error):
            raise StateLost(str(error)) from error


_UNAVAILABLE = _Unavailable()


_SETTLED = {one.encode(): one for one in Settled}


def _slots(rate: float | None) -> tuple[int, int]:
    """A call limit as (calls, microseconds in which they may be made): whole calls, in a second or longer."""
    if not rate:
        return 0, 0
    calls = max(1, int(rate))
    return calls, round(calls / rate * 1e6)


def _beat(card: bytes) -> int:
    """When a worker was heard of last; long ago, where its card is none."""
    try:
        return int(json.loads(card)["beat"])
    except (ValueError, TypeError, KeyError):
        return 0


def _owner(line: str) -> Owner:
    _, launched_at, intent_id = line.split(":", 2)
    return Owner(intent_id, int(launched_at))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _claim(answer: list[Any], started: float, budget: float) -> Claim:
    match answer[0]:
        case b"launched":
            return Launched(int(answer[1]), started + min(budget, answer[2] / 1000))
        case b"granted":
            return Granted()
        case b"parked":
            return Parked()
        case b"known":
            return Known(answer[1].decode())
        case b"settled":
            return Known("settled", answer[1])
        case b"conflict":
            return Conflict(answer[1].decode())
        case other:
            raise AssertionError(f"claim.lua answered {other!r}")


def _launch(answer: list[Any], started: float, budget: float) -> Launch:
    match answer[0]:
        case b"launched":
            return Launched(int(answer[1]), started + min(budget, answer[2] / 1000))
        case b"later":
            return Later(answer[1] / 1000)
        case b"stale":
            return Stale()
        case b"halted":
            return Barred(Gate.HALTED, f"{answer[1].decode()}; a person lets it go on with: worker resume")
        case gate:
            return Barred(Gate(gate.decode()), answer[1].decode() if len(answer) > 1 else "")


def _handed(granted: list[Any], token: str) -> list[Handed]:
    return [Handed(one[0].decode(), one[1], token) for one in granted]


def _doubt(row: list[Any]) -> Doubt:
    return Doubt(
        intent_id=row[0].decode(),
        fence=row[1].decode(),
        attempt=row[2].decode(),
        body=row[3],
        launched_at=int(row[4]),
        quiet_at=int(row[5]),
        since=int(row[6]),
        now=int(row[7]),
        target=row[8].decode(),
        target_response=row[9],
        target_reference=row[10].decode(),
        is_forgotten_time=bool(row[11]),
    )
