"""
One line for each thing that happened, on standard error: JSON for machines, or coloured lines on a terminal.

Events are names from one list, with fields; nothing has to be parsed out of prose. Secrets are masked on the way
out, in fields and in tracebacks.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Protocol, Self, TextIO, cast

import structlog
from pydantic_core import to_json
from structlog.dev import ConsoleRenderer

from worker.clock import Clock, SystemClock
from worker.redact import MASK, Redactor, smells_of_secret


class Event(StrEnum):
    """Everything that is ever logged. The level at which each is logged stands beside it."""

    # The worker
    WORKER_STARTED = "worker_started"  # info
    WORKER_DRAINING = "worker_draining"  # info
    WORKER_STOPPED = "worker_stopped"  # info
    WORKER_CUT_SHORT = "worker_cut_short"  # warning: it left before all was finished
    WORKER_FAILED = "worker_failed"  # error, with its stack
    HEALTH_LISTENING = "health_listening"  # info
    HEALTH_FAULT = "health_fault"  # error, with its stack
    SETTINGS_NOTE = "settings_note"  # warning
    UPKEEP_FAULT = "upkeep_fault"  # error: a chore that no order hangs on failed; told once until it is well
    UPKEEP_WELL = "upkeep_well"  # info: that chore is done again
    LIBRARY_MESSAGE = "library_message"  # as the library said it

    # One intent
    INTENT_CLAIMED = "intent_claimed"  # debug
    INTENT_PARKED = "intent_parked"  # debug: it waits for its lane
    INTENT_LAUNCHED = "intent_launched"  # debug
    INTENT_NOT_SENT = "intent_not_sent"  # info: it provably never left and is launched again
    INTENT_SETTLED = "intent_settled"  # info
    INTENT_IN_DOUBT = "intent_in_doubt"  # warning
    INTENT_CONFLICT = "intent_conflict"  # warning
    INTENT_REPLAYED = "intent_replayed"  # debug: a repeat of one already answered
    INTENT_RETURNED = "intent_returned"  # info: given back to the queue, nothing was sent
    INTENT_DEAD_LETTERED = "intent_dead_lettered"  # warning
    INTENT_UNREADABLE = (
        "intent_unreadable"  # error: parked by a worker of a newer version; left to one of those
    )
    LEASE_LOST = "lease_lost"  # warning
    ADAPTER_FAULT = "adapter_fault"  # error, with its stack

    # Doubts, orders
    BROKER_NOT_READY = "broker_not_ready"  # warning: signing in failed; the first order tries again
    DOUBT_OPEN = "doubt_open"  # info: why nothing is proven yet
    DOUBT_RESOLVED = "doubt_resolved"  # info
    DOUBT_ESCALATED = "doubt_escalated"  # error
    LOOK_UP_FAILED = "look_up_failed"  # warning: the broker could not be asked; asked again later
    ORPHAN_ORDER = "orphan_order"  # error
    FOREIGN_ORDER = "foreign_order"  # warning
    ORDER_REFUSED = "order_refused"  # warning: accepted first, refused by the exchange later

    # The way is closed or open
    GUARD_TRIPPED = "guard_tripped"  # error
    GUARD_RESET = "guard_reset"  # info
    HALTED = "halted"  # warning
    RESUMED = "resumed"  # info
    BUILDS_DIFFER = "builds_differ"  # warning: live workers of a route differ; nothing live is sent
    BUILDS_AGREE = "builds_agree"  # info
    NO_LIVE_WORKER = "no_live_worker"  # error
    CANARY_FAILED = "canary_failed"  # warning: a NOOP did not come through
    CANCELLED_OPEN = "cancelled_open"  # error: working orders were cancelled because no worker was alive

    # The audit trail
    AUDIT_SEALED = "audit_sealed"  # info: keep a copy of the seal elsewhere
    AUDIT_CUT_OFF = "audit_cut_off"  # error: seals that this worker has seen are gone

    # What others put into our streams
    ENTRY_UNREADABLE = "entry_unreadable"  # error: an entry that is no message of ours is passed over

    # Telling people
    TOLD = "told"  # info
    TELL_FAILED = "tell_failed"  # warning: one try; it is told again
    TELL_GIVEN_UP = "tell_given_up"  # error: nobody was told of it
    TELLING_FAULT = "telling_fault"  # error, with its stack

    # What we depend on
    REDIS_AWAY = "redis_away"  # warning
    REDIS_BACK = "redis_back"  # info
    QUEUE_READY = "queue_ready"  # info: connected for the first time
    QUEUE_AWAY = "queue_away"  # warning
    QUEUE_BACK = "queue_back"  # info
    STATE_LOST = "state_lost"  # error
    SERVER_CHANGED = "server_changed"  # warning: nothing launches until the broker's list has been compared
    SERVER_RECONCILED = "server_reconciled"  # warning
    DURABILITY_WEAK = "durability_weak"  # warning
    CLOCK_SKEWED = "clock_skewed"  # warning
    BROKER_AUTHENTICATED = "broker_authenticated"  # info


class Logger(Protocol):
    """
    Writes lines. A method of a level that is switched off does nothing at all.

    ``exc_info=True`` adds the stack of the error being handled, as the field ``exception``.
    """

    def debug(self, event: Event, **fields: object) -> None: ...
    def info(self, event: Event, **fields: object) -> None: ...
    def warning(self, event: Event, **fields: object) -> None: ...
    def error(self, event: Event, **fields: object) -> None: ...
    def bind(self, **fields: object) -> Self:
        """The same, with these fields on every line (``worker``, ``route``)."""


_Fields = MutableMapping[str, Any]
_Processor = Callable[[Any, str, _Fields], Any]
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(
    level: str = "info",
    format: Literal["json", "console"] | str = "json",
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
    clock: Clock | None = None,
) -> Logger:
    """
    Set up the logs of this process, those of the libraries too, and return the logger to hand down.

    ``secrets`` are masked wherever they turn up (`worker.settings.Settings.secrets`).
    """
    stream = stream or sys.stderr
    threshold = _LEVELS[level]
    lines = _Lines(Redactor(secrets), clock or SystemClock())
    console: list[_Processor] = [lines.fields, ConsoleRenderer(colors=stream.isatty())]
    processors: list[_Processor] = console if format == "console" else [lines.json]
    logger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        context_class=dict,
    ).bind()
    _adopt_the_libraries(logger, threshold)
    return cast(Logger, logger)


def silent() -> Logger:
    """A logger that writes nothing, for library use and tests."""
    nothing = structlog.wrap_logger(
        None, wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
    )
    return cast(Logger, nothing.bind())


class _Lines:
    """What is written for one event. The work is in one function, because structlog's own chain costs more."""

    def __init__(self, redactor: Redactor, clock: Clock) -> None:
        self._redactor = redactor
        self._now = clock.now

    def json(self, _logger: object, level: str, fields: _Fields) -> str:
        fields = self._complete(level, fields)
        line = _encoded(fields)
        # Nearly every line is clean as it stands, and one look at it is cheaper than one at each field.
        return line if self._redactor.is_clean(line) else _encoded(self._masked(fields))

    def fields(self, _logger: object, level: str, fields: _Fields) -> _Fields:
        masked = self._masked(self._complete(level, fields))
        return masked | {"timestamp": self._now().isoformat(timespec="milliseconds")}

    def _complete(self, level: str, fields: _Fields) -> _Fields:
        if "exc_info" in fields:
            _put_stack(fields)
        return {"timestamp": self._now(), "level": level, "event": fields.pop("event"), **fields}

    def _masked(self, fields: Mapping[Any, Any]) -> dict[str, Any]:
        return {
            str(name): MASK if smells_of_secret(str(name)) else self._masked_value(value)
            for name, value in fields.items()
        }

    def _masked_value(self, value: Any) -> Any:
        # Containers keep their shape; what is no text and no number is shown as its text.
        if value is None or isinstance(value, (int, float, datetime)):
            return value
        if isinstance(value, Mapping):
            return self._masked(value)
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._masked_value(each) for each in value]
        return self._redactor.text(str(value))


def _put_stack(fields: _Fields) -> None:
    # Without the values of local variables: those hold credentials.
    error = fields.pop("exc_info")
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        fields["exception"] = "".join(traceback.format_exception(error)).rstrip()


def _encoded(fields: Mapping[str, Any]) -> str:
    try:
        return to_json(fields, fallback=str, inf_nan_mode="strings").decode()
    except ValueError:
        # Bytes or half a surrogate pair out of somebody else's message. A line must never be lost.
        return json.dumps(fields, default=str, skipkeys=True)


class _Libraries(logging.Handler):
    # What kombu and the others say through `logging`, so that every line is one of ours and is redacted.

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"library": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        self._logger.log(min(record.levelno, logging.ERROR), Event.LIBRARY_MESSAGE, **fields)


def _adopt_the_libraries(logger: Any, threshold: int) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Libraries):
            root.removeHandler(handler)
    root.addHandler(_Libraries(logger))
    # Their debug lines are about bytes and sockets: nothing that an operator asked for.
    root.setLevel(max(threshold, logging.WARNING))
