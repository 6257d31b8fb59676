"""One listening to a broker's notices, in a thread of its own."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from contracts import OrderNotice
from worker.brokers.base import BaseBrokerAdapter
from worker.logs import Event, Logger

#: Notices that are kept while Redis is away. Of more, the list will tell.
_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Heard:
    """A notice, with what tells it from all others: who heard it, and as which."""

    listener: str
    number: int
    notice: OrderNotice


class Ear:
    """Listens from now on until it is closed."""

    def __init__(self, adapter: BaseBrokerAdapter, news: threading.Event, log: Logger) -> None:
        """``news`` is set whenever something was heard or missed."""
        self._adapter = adapter
        self._news = news
        self._log = log
        self._name = secrets.token_hex(4)
        self._count = 0
        self._heard: deque[Heard] = deque(maxlen=_KEPT)
        self._missed = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="notices", daemon=True)
        self._thread.start()

    def first(self) -> Heard | None:
        """The oldest notice that was not forgotten."""
        return self._heard[0] if self._heard else None

    def forget(self, heard: Heard) -> None:
        """It is written."""
        if self._heard and self._heard[0] is heard:
            self._heard.popleft()

    def has_missed(self) -> bool:
        """Whether something may have gone unheard since this was asked last."""
        missed = self._missed.is_set()
        self._missed.clear()
        return missed

    def close(self) -> None:
        """Listen no more, and wait a moment for the end of it."""
        self._stop.set()
        self._thread.join(2.0)

    def _listen(self) -> None:
        try:
            self._adapter.notices(self._take, self._miss, self._stop)
        except Exception as error:  # noqa: BLE001  without notices, the list tells
            self._log.error(Event.ADAPTER_FAULT, reason=repr(error), exc_info=True)

    def _take(self, notice: OrderNotice) -> None:
        self._count += 1
        self._heard.append(Heard(self._name, self._count, notice))
        self._news.set()

    def _miss(self) -> None:
        self._missed.set()
        self._news.set()
