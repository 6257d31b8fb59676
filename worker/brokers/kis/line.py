"""One WebSocket connection to KIS: dialled, subscribed, read until it is down."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import SecretStr
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from worker.brokers.kis.facts import NOTICE_FORGETS, NOTICE_SILENCE
from worker.brokers.kis.frames import Answer, Frame, FrameFault, Ping, Seal, read_said
from worker.clock import Clock

_log = logging.getLogger(__name__)
# The library would write whole messages, with the approval key and the seal's key in them.
_library_log = logging.getLogger(f"{__name__}.library")
_library_log.setLevel(logging.CRITICAL)

#: Seconds in which KIS answers a subscription.
_ANSWER: Final = 10.0
#: Seconds of one look; whoever wants to stop waits no longer.
_LOOK: Final = 0.1
#: Seconds for a farewell that nobody may hear.
_FAREWELL: Final = 0.5
_IN_USE: Final = "OPSP8996"


class LineDown(Exception):
    """There is no line, or none any more. The text says why, without secrets. Wait ``at_least`` seconds for the next."""

    def __init__(self, reason: str, *, at_least: float = 0.0) -> None:
        super().__init__(reason)
        self.at_least = at_least


class Line:
    """An open connection. It answers KIS's signs of life by itself. For one thread at a time."""

    def __init__(self, connection: ClientConnection, end: ExitStack, clock: Clock) -> None:
        """``end`` closes the connection."""
        self._connection = connection
        self._end = end
        self._clock = clock
        self._last_word = clock.boottime()
        self._seals: dict[str, Seal] = {}
        #: What came while the second subscription was not answered yet.
        self._early: deque[Frame] = deque()

    @classmethod
    def dial(cls, url: str, clock: Clock, timeout: float) -> Self:
        """
        Raises:
            LineDown: nobody answers there, or not as a WebSocket.
        """
        end = ExitStack()
        place = urlsplit(url)
        try:
            # Given a socket, the library neither asks a proxy nor follows a redirect: the keys go there and nowhere else.
            reached = socket.create_connection((place.hostname, place.port), timeout)
            reached.settimeout(None)
            # KIS has a sign of life of its own.
            connection = end.enter_context(
                connect(
                    url,
                    sock=reached,
                    open_timeout=timeout,
                    close_timeout=_FAREWELL,
                    ping_interval=None,
                    compression=None,
                    logger=_library_log,
                )
            )
        except (OSError, ValueError, WebSocketException) as error:
            raise LineDown(f"KIS's WebSocket cannot be reached: {type(error).__name__}: {error}") from error
        return cls(connection, end, clock)

    def subscribe(
        self, approval_key: SecretStr, tr_ids: Sequence[str], hts_id: str, stop: threading.Event
    ) -> None:
        """
        Subscribe to all of them. One that is refused is done without, as long as another is not.

        Raises:
            LineDown: none was granted, or ``stop`` was set.
        """
        for tr_id in tr_ids:
            self._send(_subscription(approval_key.get_secret_value(), tr_id, hts_id))
        refused: dict[str, str] = {}
        until = self._clock.boottime() + _ANSWER
        while len(self._seals) + len(refused) < len(tr_ids):
            if stop.is_set() or self._clock.boottime() > until:
                raise LineDown("a subscription was not answered")
            try:
                said = self._next()
            except FrameFault:
                # Listening has not begun.
                continue
            match said:
                case Answer(tr_id, True, _, Seal() as seal) if tr_id in tr_ids:
                    self._seals[tr_id] = seal
                case Answer(tr_id, _, code, _):
                    if code == _IN_USE:
                        raise LineDown(
                            f"another connection has this app key, or had it just now: {code}",
                            at_least=NOTICE_FORGETS,
                        )
                    if tr_id not in tr_ids or len(refused) == len(tr_ids) - 1:
                        raise LineDown(f"KIS refused the subscription: {code}")
                    refused[tr_id] = code
                case Frame() as frame:
                    self._early.append(frame)
        for tr_id, code in refused.items():
            _log.warning("kis_notices_refused tr_id=%s code=%s", tr_id, code)

    def read(self) -> Frame | None:
        """
        The next frame; ``None`` when none came in a moment.

        Raises:
            FrameFault: something came that cannot be read. The line goes on.
            LineDown: it is closed, or nobody has said anything for too long.
        """
        if self._early:
            return self._early.popleft()
        said = self._next()
        if isinstance(said, Answer) and not said.is_success:
            raise LineDown(f"KIS ended the subscription: {said.code}")
        return said if isinstance(said, Frame) else None

    def close(self) -> None:
        """Say farewell, and close."""
        self._end.close()

    def _next(self) -> Answer | Frame | None:
        try:
            text = self._connection.recv(timeout=_LOOK)
        except TimeoutError:
            if self._clock.boottime() - self._last_word > NOTICE_SILENCE:
                raise LineDown(f"KIS said nothing for {NOTICE_SILENCE:.0f} s") from None
            return None
        except (ConnectionClosed, OSError) as error:
            raise _closed(error) from error
        self._last_word = self._clock.boottime()
        if isinstance(text, bytes):
            raise FrameFault("a message in bytes")
        said = read_said(text, self._seals)
        if isinstance(said, Ping):
            self._send(said.text)
            return None
        return said

    def _send(self, text: str) -> None:
        try:
            self._connection.send(text)
        except (ConnectionClosed, OSError) as error:
            raise _closed(error) from error


def _subscription(approval_key: str, tr_id: str, hts_id: str) -> str:
    header = {"approval_key": approval_key, "custtype": "P", "tr_type": "1", "content-type": "utf-8"}
    return json.dumps({"header": header, "body": {"input": {"tr_id": tr_id, "tr_key": hts_id}}})


def _closed(error: Exception) -> LineDown:
    # The other end chose the words of a farewell, so they are not repeated.
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        return LineDown(f"KIS closed the connection ({error.rcvd.code})")
    return LineDown("the connection broke off; if it always does at once, the HTS id is wrong")
