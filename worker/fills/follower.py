"""Follows the accepted orders of a route: by what the broker says by itself, and by its list as second witness."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from contracts import OrderEvent, OrderRecord, OrderStatus
from worker.brokers.base import BaseBrokerAdapter
from worker.clock import Clock
from worker.errors import BrokerError
from worker.fills.ear import Ear, Heard
from worker.fills.life import Life
from worker.fills.working import Seen, Working
from worker.logs import Event, Logger

#: Reading the list takes at most one part in so many of the time: orders share the broker's call limit with it.
LIST_SHARE: Final = 4
#: Seconds between two readings of the list for what went unheard, at least.
GAPS_EVERY: Final = 1.0
#: Orders that are written in one step.
BATCH: Final = 200
#: How far before its launch an order may lie in the broker's list, for clocks that differ.
MARGIN: Final = timedelta(seconds=60)
#: An order that was heard of, and that no answer named for so long, is somebody else's.
NOBODYS: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class FollowRules:
    """Seconds."""

    #: Between two readings of the broker's list, at least, while an order works.
    interval: float = 10.0
    #: That the right to follow holds without being renewed.
    lease: float = 10.0
    #: An order of which nothing final was seen for so long is followed no more.
    retention: float = 7 * 86400.0


class Follower:
    """
    One worker's part in it. Every worker may turn it; one at a time leads.

    ``published`` hears of each event. ``turn`` raises ``Unavailable`` when Redis does not answer: turn it again.
    """

    def __init__(
        self,
        working: Working,
        adapter: BaseBrokerAdapter,
        rules: FollowRules,
        published: Callable[[OrderEvent], None],
        log: Logger,
        clock: Clock,
        worker: str,
    ) -> None:
        self._working = working
        self._adapter = adapter
        self._rules = rules
        self._published = published
        self._log = log
        self._clock = clock
        self._worker = worker
        #: Set whenever a turn has something to do before its time.
        self.news = threading.Event()
        self._ear: Ear | None = None
        #: When the list is due, and when it may be read before that because something went unheard.
        self._list_from = self._list_again_from = 0.0
        self._has_gap = False

    def turn(self) -> None:
        """Do what is due: publish what was heard, follow new answers, read the list. Call it a few times a second."""
        self.news.clear()
        if not self._working.lead(self._worker, self._rules.lease):
            self._stop_listening()
            return
        if self._ear is None:
            self._ear, self._list_from = Ear(self._adapter, self.news, self._log), 0.0
        self._take_notices(self._ear)
        self._take_answers()
        self._has_gap |= self._ear.has_missed()
        if self._clock.boottime() >= (self._list_again_from if self._has_gap else self._list_from):
            self._has_gap = False
            self._read_list()

    def leave(self) -> None:
        """Stop listening, and let another worker follow at once."""
        if self._ear is not None:
            self._stop_listening()
            self._working.resign(self._worker)

    def _stop_listening(self) -> None:
        if self._ear is not None:
            self._ear.close()
            self._ear = None

    def _take_answers(self) -> None:
        count = 1
        while count:
            count, events = self._working.take_answers()
            self._tell(events)

    def _take_notices(self, ear: Ear) -> None:
        """In the order in which they were heard; one is forgotten only when it is written."""
        while (heard := ear.first()) is not None:
            self._tell(self._working.see({heard.notice.broker_order_id: self._noticed(heard)}, "notice"))
            ear.forget(heard)

    def _noticed(self, heard: Heard) -> Seen:
        now = round(self._clock.now().timestamp() * 1000)

        def look(life: Life | None) -> Life:
            life = life or Life(heard.notice.broker_order_id, now)
            return life.after_notice(heard.notice, heard.listener, heard.number)

        return look

    def _read_list(self) -> None:
        lives = self._forget_old(self._working.lives())
        started = self._clock.boottime()
        if ours := [life for life in lives if life.is_ours]:
            since = _moment(min(life.since for life in ours)) - MARGIN
            try:
                rows = self._adapter.list_orders(since).orders
            except BrokerError as error:
                self._log.warning(Event.LOOK_UP_FAILED, reason=str(error))
                rows = ()
            followed = {life.broker_order_id for life in ours}
            self._take_rows([row for row in rows if row.broker_order_id in followed])
        now = self._clock.boottime()
        self._list_again_from = now + max(GAPS_EVERY, (now - started) * (LIST_SHARE - 1))
        self._list_from = max(self._list_again_from, now + self._rules.interval)

    def _take_rows(self, rows: Sequence[OrderRecord]) -> None:
        for start in range(0, len(rows), BATCH):
            seen = {row.broker_order_id: _listed(row) for row in rows[start : start + BATCH]}
            self._tell(self._working.see(seen, "list"))

    def _forget_old(self, lives: Sequence[Life]) -> list[Life]:
        now = self._clock.now()
        kept = timedelta(seconds=self._rules.retention)
        old = [one for one in lives if now - _moment(one.since) > (kept if one.is_ours else NOBODYS)]
        for start in range(0, len(old), BATCH):
            self._working.see({one.broker_order_id: _gone for one in old[start : start + BATCH]}, "list")
        return [one for one in lives if one not in old]

    def _tell(self, events: Sequence[OrderEvent]) -> None:
        for event in events:
            self._published(event)
            if event.status is OrderStatus.REFUSED:
                self._log.warning(
                    Event.ORDER_REFUSED,
                    intent_id=event.intent_id,
                    broker_order_id=event.broker_order_id,
                    reason=event.message,
                )


def _listed(row: OrderRecord) -> Seen:
    # What was over when another worker looked is followed no more.
    return lambda life: life.after_row(row) if life else None


def _gone(life: Life | None) -> None:
    return None


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
