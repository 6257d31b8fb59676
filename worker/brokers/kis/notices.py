"""Listening to KIS: a line, the next one when it is down, and what is heard on it."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import closing
from typing import Final

from pydantic import SecretStr

from contracts import OrderNotice
from worker.brokers.kis import facts
from worker.brokers.kis.client import KISClient
from worker.brokers.kis.executions import Hearing, Untold, read_record
from worker.brokers.kis.frames import FrameFault
from worker.brokers.kis.line import Line, LineDown
from worker.brokers.kis.options import Credentials
from worker.errors import BrokerError

_log = logging.getLogger(__name__)

#: Seconds to reach the server.
_CONNECT: Final = 5.0
#: Seconds between two looks at whether a line is open, or wanted no more.
_LOOK: Final = 0.1
#: Seconds before the second try, doubled before each that follows, to a minute: KIS blocks who connects endlessly fast
#: (portal, 2026-09-30).
_PAUSE, _DOUBLINGS = 1.0, 6
#: A line that has held for so many seconds was a good one: what comes after it is a new trouble.
_GOOD: Final = 60.0


class KISNotices:
    """Execution notices of one account. For one thread at a time."""

    def __init__(self, client: KISClient, hts_id: str, *, us: bool) -> None:
        self._client = client
        self._clock = client.clock
        self._hts_id = hts_id
        environment = client.credentials.environment
        ids = (facts.NOTICE_ID, facts.US_NOTICE_ID) if us else (facts.NOTICE_ID,)
        self._tr_ids = tuple(each.of(environment) for each in ids)
        self._account = "".join(client.credentials.account.fields.values())
        #: Kept while it works.
        self._approval_key: SecretStr | None = None
        self._failures = 0
        self._said: set[str] = set()

    def listen(
        self, heard: Callable[[OrderNotice], None], gap: Callable[[], None], stop: threading.Event
    ) -> None:
        """As `worker.brokers.base.BaseBrokerAdapter.notices` has it."""
        while not stop.is_set():
            opened = self._clock.boottime()
            try:
                line = self._open(stop)
                if line is None:
                    return
                opened = self._clock.boottime()
                with closing(line):
                    self._say(logging.INFO, f"kis_notices_listening tr_ids={','.join(self._tr_ids)}")
                    gap()
                    self._pass_on(line, heard, gap, stop)
            except LineDown as down:
                if stop.is_set():
                    return
                if self._clock.boottime() - opened >= _GOOD:
                    self._failures = 0
                    self._said.clear()
                self._say(logging.WARNING, f"kis_notices_down {down}")
                self._clock.wait(stop, self._pause(down))

    def _pass_on(
        self, line: Line, heard: Callable[[OrderNotice], None], gap: Callable[[], None], stop: threading.Event
    ) -> None:
        hearing = Hearing(self._account)
        while not stop.is_set():
            try:
                frame = line.read()
            except FrameFault as fault:
                self._missed(fault, gap)
                continue
            if frame is not None:
                for fields in frame.records:
                    self._tell(hearing, fields, frame.tr_id != self._tr_ids[0], heard, gap)

    def _tell(
        self,
        hearing: Hearing,
        fields: tuple[str, ...],
        is_us: bool,
        heard: Callable[[OrderNotice], None],
        gap: Callable[[], None],
    ) -> None:
        try:
            record = read_record(fields, is_us=is_us)
            notice = hearing.tell(record, self._clock.now()) if record else None
        except FrameFault as fault:
            self._missed(fault, gap)
        except Untold:
            gap()
        else:
            if notice is not None:
                heard(notice)

    def _missed(self, fault: FrameFault, gap: Callable[[], None]) -> None:
        self._say(logging.WARNING, f"kis_notices_unreadable {fault}")
        gap()

    # Names, addresses and gateways may keep one waiting for long; whoever stops need not wait for them.
    def _open(self, stop: threading.Event) -> Line | None:
        found: Future[Line] = Future()
        threading.Thread(target=self._open_into, args=(found, stop), name="kis-line", daemon=True).start()
        while not wait([found], _LOOK).done:
            if stop.is_set() and found.cancel():
                return None
        return found.result()

    def _open_into(self, found: Future[Line], stop: threading.Event) -> None:
        try:
            line = self._opened(stop)
        except Exception as error:  # noqa: BLE001  it is raised where the line is waited for
            if found.set_running_or_notify_cancel():
                found.set_exception(error)
            return
        if found.set_running_or_notify_cancel():
            found.set_result(line)
        else:
            line.close()

    def _opened(self, stop: threading.Event) -> Line:
        # Only one that the last line was opened with is used again: KIS may have ended any other.
        key, self._approval_key = self._approval_key, None
        try:
            key = key or self._client.approval_key()
        except BrokerError as error:
            raise LineDown(f"no approval key: {error.message}") from error
        if stop.is_set():
            raise LineDown("stopped")
        line = Line.dial(notice_url(self._client.credentials), self._clock, _CONNECT)
        try:
            line.subscribe(key, self._tr_ids, self._hts_id, stop)
        except BaseException:
            line.close()
            raise
        self._approval_key = key
        return line

    def _pause(self, down: LineDown) -> float:
        pause = _PAUSE * 2.0 ** min(self._failures, _DOUBLINGS)
        self._failures += 1
        return max(pause, down.at_least) * random.uniform(0.75, 1.0)

    # Once until a line has held: who tries for a night need not fill the log.
    def _say(self, level: int, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            _log.log(level, text)


def notice_url(credentials: Credentials) -> str:
    """Where an account's notices come from: KIS's own server of the environment, or the simulator that was named."""
    if credentials.base_url == facts.HOSTS[credentials.environment]:
        return facts.NOTICE_HOSTS[credentials.environment] + facts.NOTICE_PATH
    return credentials.base_url.replace("http", "ws", 1) + facts.NOTICE_PATH
