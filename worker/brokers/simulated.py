"""
A broker made of a book and some bad luck: the whole product without an account.

It takes every order and keeps it working until it is cancelled; nothing is ever filled. Like a real one it does
not mind the same intent twice: a double shows in its book. It books first and then takes ``latency`` to say so,
and it can refuse an order, fail before it is booked, or book it and lose the reply.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, Field, ValidationError

from contracts import OrderQuery, OrderRecord, OrderRequest, OrderResponse, OrderScan, SafetyCode
from worker.brokers.base import BaseBrokerAdapter, ClosedOptions
from worker.brokers.book import Book, FileBook, MemoryBook
from worker.clock import Clock, SystemClock
from worker.errors import ConfigError, NotSent, OutcomeUnknown, Rejected

_log = logging.getLogger(__name__)

Rate = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


class SimulatedFaults(ClosedOptions):
    """How the broker behaves. Rates are probabilities from 0 to 1, drawn for each order and each cancel."""

    #: Seconds that the reply takes, counted from the booking.
    latency: Seconds = 0.0
    #: Refused, with the code ``SIM-REFUSED``; not booked.
    reject_rate: Rate = 0.0
    #: Booked, and the reply lost: the outcome is unknown.
    lose_reply_rate: Rate = 0.0
    #: Fails before anything is booked: not sent.
    fail_rate: Rate = 0.0


class SimulatedOptions(SimulatedFaults):
    """The options of a route with ``broker = "simulated"``."""

    #: Makes the faults the same in every run; each process draws the same row of them.
    seed: int | None = None
    #: A JSONL file that holds the orders, shared by all processes that name it, and made when missing. Without it
    #: they are in this process's memory, the newest 10,000 of them.
    book: Path | None = None
    #: Seconds until an order shows in look-ups and lists.
    visibility_lag: Seconds = 0.0
    #: A JSON file with any of ``latency`` and the three rates, read again whenever it changes; what it names
    #: replaces the options, so faults can be turned on and off while workers run.
    faults: Path | None = None


class SimulatedBrokerAdapter(BaseBrokerAdapter):
    """The simulated broker. It moves no money, so every mode is the same to it."""

    Options: ClassVar[type[BaseModel]] = SimulatedOptions
    broker_id = "simulated"
    client_order_ids = True
    orders_change = False

    def __init__(self, options: SimulatedOptions | None = None, *, clock: Clock | None = None) -> None:
        """
        Raises:
            ConfigError: the book or the faults file cannot be used; each is named.
        """
        options = options or SimulatedOptions()
        self.visibility_lag = options.visibility_lag
        self._clock = clock or SystemClock()
        self._book = _open_book(options.book)
        self._luck = _Luck(options)
        self._closing = threading.Event()

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, mode: str, clock: Clock) -> Self:
        return cls(SimulatedOptions.model_validate(dict(options)), clock=clock)

    def place_order(self, request: OrderRequest) -> OrderResponse:
        loses_reply, latency = self._meet_faults()
        number = self._book.add(request, partial(self._stamp, request.send_before))
        self._reply(loses_reply, latency)
        return OrderResponse(number, "the simulated broker holds the order")

    def cancel_order(self, query: OrderQuery) -> OrderResponse:
        loses_reply, latency = self._meet_faults()
        order = self._book.cancel(
            query.broker_order_id, query.client_order_id, partial(self._stamp, query.send_before)
        )
        self._reply(loses_reply, latency)
        if order is None:
            raise Rejected("the simulated broker holds no such order", code="SIM-UNKNOWN-ORDER")
        if order.status.is_final:
            raise Rejected(f"the order is {order.status} already", code="SIM-ORDER-DONE")
        return OrderResponse(order.broker_order_id, "the simulated broker cancelled the order")

    def get_order(self, query: OrderQuery) -> OrderRecord | None:
        order = self._book.find(query.broker_order_id, query.client_order_id)
        return order if order is not None and self._shows(order) else None

    def list_orders(self, since: datetime) -> OrderScan:
        orders, complete = self._book.since(since)
        return OrderScan(tuple(order for order in orders if self._shows(order)), complete)

    def close(self) -> None:
        self._closing.set()
        self._book.close()

    def _meet_faults(self) -> tuple[bool, float]:
        faults, draw = self._luck.today(), self._luck.draw
        if draw(faults.fail_rate):
            raise NotSent("the simulated broker could not be reached", code="SIM-UNREACHABLE")
        if draw(faults.reject_rate):
            self._reply(False, faults.latency)
            raise Rejected("the simulated broker refused", code="SIM-REFUSED", safety_code=SafetyCode.FS040)
        return draw(faults.lose_reply_rate), faults.latency

    # The last look at the clock, in the book's lock, right before booking.
    def _stamp(self, send_before: float | None) -> datetime:
        if send_before is not None and self._clock.boottime() > send_before:
            raise NotSent("too late to send", code="SIM-LATE", safety_code=SafetyCode.FS042)
        return self._clock.now()

    def _reply(self, lost: bool, latency: float) -> None:
        if latency:
            self._clock.wait(self._closing, latency)
        if lost:
            raise OutcomeUnknown("the reply was lost", code="SIM-NO-REPLY", safety_code=SafetyCode.FS042)

    def _shows(self, order: OrderRecord) -> bool:
        lag = self.visibility_lag
        return not lag or self._clock.now() - order.placed_at >= timedelta(seconds=lag)


class _Luck:
    """The faults of the moment: those of the options, under those of the faults file."""

    def __init__(self, options: SimulatedOptions) -> None:
        self._base = options.model_dump(include=set(SimulatedFaults.model_fields))
        self._random = random.Random(options.seed)
        self._file = options.faults
        # Until one thread has read the file, none may go on with the faults of before.
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._today = SimulatedFaults(**self._base)
        try:
            self._read_if_changed()
        except (OSError, ValueError) as error:
            raise ConfigError([_faults_fault(self._file, error)]) from error

    def today(self) -> SimulatedFaults:
        if self._file is not None:
            with self._lock:
                try:
                    self._read_if_changed()
                except (OSError, ValueError) as error:
                    _log.warning("simulated_faults_unreadable %s", _faults_fault(self._file, error))
        return self._today

    def draw(self, rate: float) -> bool:
        return rate > 0 and self._random.random() < rate

    def _read_if_changed(self) -> None:
        seen = _version(self._file)
        if seen == self._seen:
            return
        self._seen = seen
        found = SimulatedFaults.model_validate_json(self._file.read_bytes()) if seen and self._file else None
        named = found.model_dump(exclude_unset=True) if found else {}
        self._today = SimulatedFaults(**(self._base | named))


def _version(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _faults_fault(path: Path | None, error: Exception) -> str:
    if isinstance(error, ValidationError):
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        return f"faults: {path} cannot be used: {'; '.join(lines)}"
    return f"faults: {path} cannot be read: {error}"


def _open_book(path: Path | None) -> Book:
    if path is None:
        return MemoryBook()
    try:
        return FileBook(path)
    except OSError as error:
        fault = f"book: cannot open {path}: {error.strerror}; name a file in a folder that can be written"
        raise ConfigError([fault]) from error
