"""
The order book of the simulated broker: in memory, or in a file that several processes share.

The file is JSON lines, only ever appended to: one line for each order the broker holds, and one
``{"cancel": NUMBER}`` for each cancel. Every line is one ``O_APPEND`` write under ``flock``, so a process killed
at any instruction leaves whole lines. An order's number is the place of its line in the file: unique over
processes and restarts, and found again without an index.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic_core import to_json

from contracts import OrderRecord, OrderRequest, OrderStatus, Side
from worker.errors import OutcomeUnknown

#: Orders kept in memory, about 60 MB. A book in memory forgets older ones, and a scan that would need them is
#: incomplete; a book in a file reads them again.
ORDERS_MAX: Final = 10_000

#: An order in memory: intent_id, symbol, side, quantity, price, venue, time. Plain values only, which the garbage
#: collector does not walk through again and again.
_Held = tuple[str, str, str, Decimal, Decimal | None, str | None, datetime]
#: Answers the time of booking right before it, or raises: then nothing is booked.
Stamp = Callable[[], datetime]


class Book(Protocol):
    """What the simulated broker holds. Methods are atomic."""

    def add(self, request: OrderRequest, stamp: Stamp) -> str:
        """Book an order and answer its number. The same intent_id twice is two orders, as at a real broker."""

    def cancel(self, number: str | None, client_order_id: str | None, stamp: Stamp) -> OrderRecord | None:
        """Cancel an order that works, and answer it as it was before; ``None`` when there is none."""

    def find(self, number: str | None, client_order_id: str | None) -> OrderRecord | None:
        """An order by its number, otherwise the newest with that intent_id."""

    def since(self, start: datetime) -> tuple[list[OrderRecord], bool]:
        """The orders placed at or after ``start``, oldest first, and whether these are all."""

    def close(self) -> None:
        """Give up the file, if there is one."""


class MemoryBook:
    """The newest `ORDERS_MAX` orders of this process."""

    def __init__(self, orders_max: int = ORDERS_MAX) -> None:
        self._lock = threading.Lock()
        self._max = orders_max
        self._last = 0
        self._orders: dict[int, _Held] = {}
        self._by_client: dict[str, int] = {}
        self._cancelled: set[int] = set()
        #: When the newest forgotten order was placed.
        self._forgotten: datetime | None = None

    def add(self, request: OrderRequest, stamp: Stamp) -> str:
        with self._lock:
            placed_at = stamp()
            self._last = place = self._last + 1
            self._orders[place] = (
                request.client_order_id,
                request.symbol,
                request.side.value,
                request.quantity,
                request.limit_price,
                request.venue,
                placed_at,
            )
            self._by_client[request.client_order_id] = place
            if place > self._max:
                self._forget(place - self._max)
        return _number(place)

    def cancel(self, number: str | None, client_order_id: str | None, stamp: Stamp) -> OrderRecord | None:
        with self._lock:
            stamp()
            place = self._find(number, client_order_id)
            if place is None:
                return None
            record = self._record(place)
            self._cancelled.add(place)
        return record

    def find(self, number: str | None, client_order_id: str | None) -> OrderRecord | None:
        with self._lock:
            place = self._find(number, client_order_id)
            return None if place is None else self._record(place)

    def since(self, start: datetime) -> tuple[list[OrderRecord], bool]:
        with self._lock:
            held = [self._record(place) for place, order in self._orders.items() if order[-1] >= start]
            return held, self._forgotten is None or self._forgotten < start

    def close(self) -> None:
        pass

    def _forget(self, place: int) -> None:
        client_order_id, *_, self._forgotten = self._orders.pop(place)
        self._cancelled.discard(place)
        if self._by_client.get(client_order_id) == place:
            del self._by_client[client_order_id]

    def _find(self, number: str | None, client_order_id: str | None) -> int | None:
        place = self._by_client.get(client_order_id or "") if number is None else _place(number)
        return place if place in self._orders else None

    def _record(self, place: int) -> OrderRecord:
        client_order_id, symbol, side, quantity, limit_price, venue, placed_at = self._orders[place]
        return OrderRecord(
            broker_order_id=_number(place),
            symbol=symbol,
            side=Side(side),
            quantity=quantity,
            status=OrderStatus.CANCELLED if place in self._cancelled else OrderStatus.WORKING,
            placed_at=placed_at,
            limit_price=limit_price,
            client_order_id=client_order_id,
            venue=venue,
        )


class FileBook:
    """
    A book in a file, shared by every process that opens the same path.

    Looking up one order reads from the newest line back; listing reads on from where the last listing ended, and
    starts over only for orders older than the `ORDERS_MAX` it remembers. The file may not be cut while in use.

    Raises:
        OSError: the file cannot be opened or made.
    """

    def __init__(self, path: Path, orders_max: int = ORDERS_MAX) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._max = orders_max
        self._file = -1
        self._pid = 0
        self._recent: dict[str, OrderRecord] = {}
        self._read_to = 0
        self._forgotten: datetime | None = None
        self._open()

    def add(self, request: OrderRequest, stamp: Stamp) -> str:
        with self._exclusive() as end:
            placed_at = stamp()
            number = _number(end)
            price = request.limit_price
            line = {
                "broker_order_id": number,
                "intent_id": request.client_order_id,
                "symbol": request.symbol,
                "side": request.side.value,
                "quantity": f"{request.quantity:f}",
                "limit_price": None if price is None else f"{price:f}",
                "time_in_force": request.time_in_force.value,
                "venue": request.venue,
                "placed_at": placed_at.isoformat(),
                "worker_pid": self._pid,
            }
            self._append(line)
        return number

    def cancel(self, number: str | None, client_order_id: str | None, stamp: Stamp) -> OrderRecord | None:
        with self._exclusive():
            stamp()
            record = self._find(number, client_order_id)
            if record is not None and not record.status.is_final:
                self._append({"cancel": record.broker_order_id})
        return record

    def find(self, number: str | None, client_order_id: str | None) -> OrderRecord | None:
        with self._lock:
            self._open()
            return self._find(number, client_order_id)

    def since(self, start: datetime) -> tuple[list[OrderRecord], bool]:
        with self._lock:
            self._open()
            self._catch_up()
            if self._forgotten is None or self._forgotten < start:
                return [record for record in self._recent.values() if record.placed_at >= start], True
            orders: dict[str, OrderRecord] = {}
            for line in self._lines(0):
                _apply(line, orders)
            return [record for record in orders.values() if record.placed_at >= start], True

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    # A lock on a file belongs to its opening, which a forked child would share: it opens its own.
    def _open(self) -> None:
        if self._file >= 0 and self._pid == os.getpid():
            return
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._pid = os.getpid()

    # Alone in this process and among all; yields where the next line will start.
    @contextmanager
    def _exclusive(self) -> Iterator[int]:
        with self._lock:
            self._open()
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                end = os.lseek(self._file, 0, os.SEEK_END)
                if end and os.pread(self._file, 1, end - 1) != b"\n":
                    os.write(self._file, b"\n")  # after a line that somebody died on
                    end += 1
                yield end
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _append(self, line: dict[str, Any]) -> None:
        data = to_json(line) + b"\n"
        if os.write(self._file, data) != len(data):
            raise OutcomeUnknown(f"the book {self._path} took only part of a line; is the disk full?")

    def _find(self, number: str | None, client_order_id: str | None) -> OrderRecord | None:
        if os.fstat(self._file).st_size == 0:
            return None
        with mmap.mmap(self._file, 0, access=mmap.ACCESS_READ) as text:
            if number is not None:
                return _order_at(text, _place(number), number)
            needle = b'"intent_id":%s,' % to_json(client_order_id)
            at = len(text)
            while (at := text.rfind(needle, 0, at)) >= 0:
                order = _order_at(text, text.rfind(b"\n", 0, at) + 1)
                if order is not None:
                    return order
        return None

    def _catch_up(self) -> None:
        if os.fstat(self._file).st_size < self._read_to:
            self._recent.clear()
            self._read_to, self._forgotten = 0, None
        for line in self._lines(self._read_to):
            self._read_to += len(line)
            _apply(line, self._recent)
        surplus = len(self._recent) - self._max
        for number in list(self._recent)[: max(0, surplus)]:
            self._forgotten = self._recent.pop(number).placed_at

    # Whole lines only; what is still being written is read the next time.
    def _lines(self, start: int) -> Iterator[bytes]:
        with open(self._path, "rb") as lines:
            lines.seek(start)
            for line in lines:
                if line.endswith(b"\n"):
                    yield line


def _number(place: int) -> str:
    return f"S{place:012d}"


def _place(number: str) -> int:
    return int(number[1:]) if number[:1] == "S" and number[1:].isascii() and number[1:].isdigit() else -1


def _order_at(text: mmap.mmap, place: int, number: str | None = None) -> OrderRecord | None:
    end = text.find(b"\n", place) if 0 <= place < len(text) else -1
    if end < 0:
        return None
    orders: dict[str, OrderRecord] = {}
    _apply(text[place:end], orders)
    for held, record in orders.items():
        if number not in (None, held):
            return None
        cancelled = text.find(b'{"cancel":"%s"}\n' % held.encode(), end) >= 0
        return replace(record, status=OrderStatus.CANCELLED) if cancelled else record
    return None


# A line that is no order and no cancel is one that somebody died on.
def _apply(line: bytes, orders: dict[str, OrderRecord]) -> None:
    try:
        fields = json.loads(line)
        if "cancel" in fields:
            number = fields["cancel"]
            if number in orders:
                orders[number] = replace(orders[number], status=OrderStatus.CANCELLED)
            return
        price = fields["limit_price"]
        orders[fields["broker_order_id"]] = OrderRecord(
            broker_order_id=fields["broker_order_id"],
            symbol=fields["symbol"],
            side=Side(fields["side"]),
            quantity=Decimal(fields["quantity"]),
            status=OrderStatus.WORKING,
            placed_at=datetime.fromisoformat(fields["placed_at"]),
            limit_price=None if price is None else Decimal(price),
            client_order_id=fields["intent_id"],
            venue=fields["venue"],
        )
    except (ValueError, KeyError, TypeError, ArithmeticError):
        return
