"""`worker submit`: intents from flags, a file or standard input into the queue, and their answers back."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Self

import typer

from contracts import (
    ContractError,
    ExecutionIntent,
    ExecutionResponse,
    IntentType,
    Side,
    TimeInForce,
    dump,
    load_intent,
)
from worker.cli.context import (
    FAILED,
    JsonOption,
    RouteOption,
    Surroundings,
    fail,
    note,
    progress,
    show,
    surroundings,
    to_json,
    visible,
)
from worker.cli.rows import Format, Row, Source, expiring
from worker.errors import Refused, Unavailable
from worker.producer import IntentProducer
from worker.settings import QUEUE_SCHEMES

#: Intents that are looked up and enqueued together.
_BATCH = 500
_QUEUES = {queue: redis for redis, queue in QUEUE_SCHEMES.items()}

_File = Annotated[str | None, typer.Argument(metavar="[FILE]", help="JSONL or CSV; - is standard input.")]
_Format = Annotated[Format | None, typer.Option("--format", help="Unless FILE ends in .jsonl or .csv.")]
_Type = Annotated[
    IntentType | None, typer.Option("--type", case_sensitive=False, help="LIMIT when there is a price.")
]
_Side = Annotated[Side | None, typer.Option("--side", case_sensitive=False)]
_Tif = Annotated[TimeInForce | None, typer.Option("--tif", case_sensitive=False, help="Time in force.")]
_Text = Annotated[str | None, typer.Option()]
_Cancel = Annotated[str | None, typer.Option("--cancel", metavar="TARGET", help="Cancel this intent.")]
_Id = Annotated[str | None, typer.Option("--intent-id", help="Idempotency key. A new one when left out.")]
_Expires = Annotated[
    float | None, typer.Option("--expires-in", min=0.001, metavar="SECONDS", help="Never traded after that.")
]
_SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Send the good rows of a file with bad ones.")]
_Wait = Annotated[bool, typer.Option("--wait", help="Print each answer as it comes.")]
_Timeout = Annotated[float, typer.Option("--timeout", min=0, metavar="SECONDS", help="For all the answers.")]


def submit(
    ctx: typer.Context,
    file: _File = None,
    symbol: _Text = None,
    side: _Side = None,
    quantity: _Text = None,
    type_: _Type = None,
    price: _Text = None,
    venue: _Text = None,
    tif: _Tif = None,
    strategy: _Text = None,
    cancel: _Cancel = None,
    intent_id: _Id = None,
    expires_in: _Expires = None,
    form: _Format = None,
    skip_bad: _SkipBad = False,
    wait: _Wait = False,
    timeout: _Timeout = 120.0,
    route: RouteOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Enqueue intents from flags, a file or standard input.

    A row without an intent_id gets one from the file's digest and the row's number: the same file sent again is
    a replay, as long as the ledger keeps settled intents (7 days by default). A changed file gets new ids.
    """
    flags = {
        "symbol": symbol,
        "side": side,
        "quantity": quantity,
        "intent_type": type_,
        "limit_price": price,
        "venue": venue,
        "time_in_force": tif,
        "strategy": strategy,
        "target_intent_id": cancel,
        "intent_id": intent_id,
    }
    given = {name: str(value) for name, value in flags.items() if value is not None}
    desk = surroundings(ctx)
    if (file is None) is (not given):
        raise typer.BadParameter("give either FILE (or -) or the flags of one intent, such as --symbol")
    one = _intent(given, desk, expires_in) if file is None else None
    with _Submission(desk, desk.route(route), as_json, wait, timeout) as submission:
        if one is not None:
            submission.send_one(one)
        else:
            with _open(str(file)) as stream, Source(stream, _format(str(file), form)) as source:
                submission.send_file(source, expires_in, skip_bad)


def _intent(given: dict[str, str], desk: Surroundings, expires_in: float | None) -> ExecutionIntent:
    fields: dict[str, Any] = {
        "intent_id": f"cli-{uuid.uuid4().hex}",
        "created_at": desk.clock.now().isoformat(),
        **given,
    }
    if "target_intent_id" in given:
        fields.setdefault("intent_type", IntentType.CANCEL)
    elif "limit_price" in given:
        fields.setdefault("intent_type", IntentType.LIMIT)
    elif "intent_type" not in given:
        # A market order is never what somebody gets for leaving something out.
        raise typer.BadParameter("give --price, or say --type MARKET", param_hint="--type")
    try:
        return expiring(load_intent(to_json(fields)), expires_in)
    except ContractError as error:
        raise typer.BadParameter("; ".join(error.faults)) from None


def _open(file: str) -> AbstractContextManager[BinaryIO]:
    if file == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return closing(Path(file).open("rb"))
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from None


def _format(file: str, given: Format | None) -> Format:
    if given is not None:
        return given
    match Path(file).suffix.lower():
        case ".csv":
            return Format.CSV
        case ".jsonl" | ".ndjson":
            return Format.JSONL
    if file == "-":
        return Format.JSONL
    raise typer.BadParameter(
        "say --format csv or --format jsonl, which the name does not tell", param_hint="FILE"
    )


class _Submission:
    """One run of `submit`: what was sent, what was answered before, and what went wrong."""

    def __init__(self, desk: Surroundings, route: str, as_json: bool, wait: bool, timeout: float) -> None:
        desk.client.ping()  # what is away now is told at once, before anything is read or retried
        self._desk, self._route, self._as_json, self._wait, self._timeout = (
            desk,
            route,
            as_json,
            wait,
            timeout,
        )
        self._answers = IntentProducer(desk.at(route), route, clock=desk.clock)
        self._queue = self._answers
        url = _redis_of_the_queue(desk.settings.queue_url)
        if url != desk.settings.redis_url:
            self._queue = IntentProducer(url, route, connect=desk.connect, clock=desk.clock)
        #: Numbers of the rows that are no intents.
        self._bad: set[int] = set()
        #: Sent, and to be waited for.
        self._open: list[str] = []
        self._enqueued = self._replayed = self._refused = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.close()

    def send_one(self, intent: ExecutionIntent) -> None:
        """Send the intent of the flags."""
        note(f"intent {intent.intent_id} on route {self._route}")
        self._send([Row(1, intent)], 1, f"run it again with --intent-id {intent.intent_id}")

    def send_file(self, source: Source, expires_in: float | None, skip_bad: bool) -> None:
        """Check every row of a file, then send them all, or none."""
        now = self._desk.clock.now
        good = self._check(source.rows(now, expires_in))
        if self._bad and not skip_bad:
            bad = _count(len(self._bad), "bad row")
            fail(
                FAILED,
                f"nothing was sent: {bad}, {good} good. Correct the file, or leave them out: --skip-bad",
            )
        if not good and not self._bad:
            raise Refused("the file holds no intents")
        self._send(source.rows(now, expires_in), good, "send the same file again")

    def _check(self, rows: Iterable[Row]) -> int:
        good, seen = 0, dict[str, int]()
        for row in rows:
            faults = row.faults
            if row.named and row.intent is not None:
                first = seen.setdefault(row.intent.intent_id, row.number)
                if first != row.number:
                    faults = (f"intent_id: {row.intent.intent_id} is row {first}'s already",)
            if faults:
                self._report(row.number, faults)
            else:
                good += 1
        return good

    def _report(self, number: int, faults: Iterable[str]) -> None:
        self._bad.add(number)
        for fault in faults:
            note(f"row {number}: {fault}")

    def _send(self, rows: Iterable[Row], total: int, again: str) -> None:
        try:
            with progress("enqueued", total) as advance:
                for some in _batches(row for row in rows if row.number not in self._bad):
                    self._enqueue(some)
                    advance(len(some))
            self._tell()
            if self._wait:
                self._print_answers()
        except Unavailable:
            note(f"{self._enqueued} of {total} are surely enqueued; {again}: nothing is placed twice")
            raise
        except KeyboardInterrupt:
            note(f"{self._enqueued} of {total} are enqueued and will be worked; to see the answers, {again}")
            raise
        if self._bad or self._refused:
            raise typer.Exit(FAILED)

    def _enqueue(self, rows: list[Row]) -> None:
        known = self._answers.recall(row.intent.intent_id for row in rows if row.intent is not None)
        fresh = []
        for row in rows:
            if row.intent is None:  # it was good a moment ago, and has expired since
                self._report(row.number, row.faults)
                continue
            found = known.get(row.intent.intent_id)
            if found is not None and found.fingerprint not in ("", row.intent.fingerprint()):
                self._refuse(row.number, row.intent.intent_id)
            elif found is not None and found.response is not None:
                self._replay(found.response)
            else:
                fresh.append(row.intent)
        self._add(fresh)

    def _add(self, intents: list[ExecutionIntent]) -> None:
        entry_ids = self._queue.enqueue_many(intents)
        self._enqueued += len(intents)
        if self._wait:
            self._open += [intent.intent_id for intent in intents]
        elif self._as_json:
            for intent, entry_id in zip(intents, entry_ids, strict=True):
                show({"intent_id": intent.intent_id, "route": self._route, "entry_id": entry_id}, "", True)

    def _refuse(self, number: int, intent_id: str) -> None:
        self._refused += 1
        note(
            f"row {number}: intent_id: {intent_id} belongs to another order already, so it was not sent; "
            "give this one an id of its own"
        )

    def _replay(self, response: ExecutionResponse) -> None:
        self._replayed += 1
        if self._wait:
            self._print(response)
        elif self._as_json:
            answer = response.model_dump(mode="json", exclude_none=True)
            found = {"intent_id": response.intent_id, "route": self._route, "entry_id": None}
            show(found | {"response": answer}, "", True)

    def _print_answers(self) -> None:
        with progress("answered", len(self._open)) as advance:
            for response in self._answers.wait_many(self._open, self._timeout):
                self._print(response)
                advance()

    def _print(self, response: ExecutionResponse) -> None:
        self._refused += not response.accepted
        typer.echo(dump(response).decode() if self._as_json else response_line(response))

    def _tell(self) -> None:
        parts = [f"{_count(self._enqueued, 'intent')} enqueued on route {self._route}"]
        if self._replayed:
            parts.append(f"{self._replayed} answered before")
        if self._bad:
            parts.append(
                f"{_count(len(self._bad), 'bad row')} left out. Send those from a file of their own: a changed "
                "file gets new ids, and its rows would be new orders"
            )
        note("; ".join(parts))


def _redis_of_the_queue(queue_url: str) -> str:
    scheme, _, rest = queue_url.partition("://")
    if scheme not in _QUEUES:
        raise Refused(
            f"submit writes to redis-streams:// queues, and EXECWORKER_QUEUE_URL is {scheme}://; publish to that "
            "one with kombu"
        )
    return f"{_QUEUES[scheme]}://{rest}"


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while some := list(islice(rows, _BATCH)):
        yield some


def response_line(response: ExecutionResponse) -> str:
    """An answer in one line for people."""
    what = f"{response.outcome:<10} {response.intent_id}"
    if response.accepted:
        why = f"order {response.broker_order_id} at {response.broker}"
    else:
        why = f"{response.code} ({response.broker})"
    return visible(f"{what}  {why}" + (f": {response.message}" if response.message else ""))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
