"""KIS over HTTP: one request for each call, and what is known when none is answered."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import httpcore2
import httpx2
from pydantic import SecretStr
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception_type, wait_random_exponential

from contracts import SafetyCode
from worker.brokers.kis.auth import AccessTokenPayload, TokenCache
from worker.brokers.kis.codes import CodeVerdict, Then, code_row, map_broker_error_to_safety
from worker.brokers.kis.facts import APPROVAL_PATH, KST, TOKEN_PATH
from worker.brokers.kis.options import Credentials, KISOptions, credentials_of
from worker.brokers.kis.payload import Call
from worker.brokers.kis.replies import AnswersSeen, Reply, read_reply
from worker.brokers.kis.sending import Departure, OneWay, TooLate
from worker.brokers.kis.turns import LocalTurns, Turns
from worker.clock import Clock, SystemClock
from worker.errors import BrokerError, NotSent, OutcomeUnknown, Rejected
from worker.redact import Redactor

_log = logging.getLogger(__name__)

#: No answer, or half of one. Whether the request left, its `Departure` knows.
_NO_ANSWER: Final = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError)
_CONTENT_TYPE: Final = "application/json; charset=utf-8"
#: What can stand in a header, as access tokens and approval keys have to.
_TOKEN: Final = re.compile(r"[!-~]{1,4096}", re.ASCII)
#: Seconds to write a request of one or two kilobytes.
_WRITE_TIMEOUT: Final = 2.0
#: Seconds to wait for the answer when a token or an approval key is asked for.
_TOKEN_TIMEOUT: Final = 10.0
#: Tries of one page or look-up, and the longest wait in seconds between two.
_READ_TRIES, _READ_WAIT_MAX = 4, 4.0
#: The same where KIS says that all of the account's workers together ask too often: their turns will come.
_CROWDED_TRIES, _CROWDED_WAIT = 12, 1.0


class ReadFailed(BrokerError):
    """A list or look-up was not answered. Nothing was learned, and asking again does no harm."""


class KISClient:
    """
    KIS's REST API for one account. Safe to share between threads.

    Orders and cancels are sent once, whatever happens. Reads are tried again, a few times.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        clock: Clock | None = None,
        connect_timeout: float = 2.0,
        reply_timeout: float = 5.0,
        connections: int = 32,
    ) -> None:
        self.credentials = credentials
        self.clock: Clock = clock or SystemClock()
        self.tokens = TokenCache(self._issue_token, self.clock)
        #: Who reads when.
        self.turns: Turns = LocalTurns(self.clock)
        #: Called before each request that only reads, each page and each retry; it returns when there is room for one.
        self.before_read: Callable[[], None] = lambda: None
        self._connect_timeout = connect_timeout
        self._reply_timeout = reply_timeout
        is_tls = credentials.base_url.startswith("https:")
        tls = httpx2.create_ssl_context(trust_env=False) if is_tls else None
        # Orders have connections of their own, which are kept: no list can keep them waiting.
        self._orders = OneWay(self.clock, connections, tls)
        self._reads = OneWay(self.clock, connections, tls)
        self._answers = AnswersSeen()
        self._closing = threading.Event()

    @classmethod
    def from_options(cls, options: KISOptions, *, mode: str, clock: Clock | None = None) -> KISClient:
        """
        Raises:
            ConfigError: the credentials cannot be used in that mode; every fault is named.
        """
        return cls(
            credentials_of(options, mode),
            clock=clock,
            connect_timeout=options.connect_timeout,
            reply_timeout=options.reply_timeout,
            connections=options.connections,
        )

    def __repr__(self) -> str:
        return f"KISClient({self.credentials.environment}, {self.credentials.account.shown})"

    def post(self, call: Call, send_before: float | None = None) -> Reply:
        """
        Send an order or a cancel, once, before ``send_before`` (seconds on ``CLOCK_BOOTTIME``) or not at all.

        The answer may be a refusal: see `parse_kis_place_response`. A token that KIS takes no more is dropped.

        Raises:
            NotSent: no byte of it left, or there is no access token.
            OutcomeUnknown: it left, and what came back is no answer of KIS.
        """
        token = self.tokens.token(send_before)
        request = self._request("POST", call, token, content=call.body())
        departure = Departure(send_before, self._reply_timeout)
        reply = self._answer(self._orders, request, departure, self._know_as_new)
        self._judge_token(reply, token)
        return reply

    def get(self, call: Call, *, continued: bool = False) -> Reply:
        """
        Ask for a page. What may pass by itself (no answer, rate limits, an old token) is tried again.

        Raises:
            ReadFailed: no page came. Nothing was learned.
        """
        tries = Retrying(
            stop=_were_enough,
            wait=_until_next,
            retry=retry_if_exception_type(_Again),
            sleep=self._pause,
        )
        try:
            return tries(self._read, call, continued)
        except RetryError as error:
            last = error.last_attempt.exception()
            assert isinstance(last, _Again)
            raise ReadFailed(last.message, code=last.code, safety_code=last.safety_code) from last

    def approval_key(self) -> SecretStr:
        """
        A key for one WebSocket connection.

        Raises:
            BrokerError: KIS gave none now. Asking again does no harm.
        """
        reply = self._oauth(APPROVAL_PATH, "secretkey")
        key = reply.text("approval_key")
        if _TOKEN.fullmatch(key) is None:
            raise Rejected(f"KIS gave no approval key: {reply.shown}", code=reply.code)
        return SecretStr(key)

    def close(self) -> None:
        """Close the connections and wake whoever waits. Nothing may be called after it."""
        self._closing.set()
        self.tokens.close()
        self._orders.close()
        self._reads.close()

    def _pause(self, seconds: float) -> None:
        self.clock.wait(self._closing, seconds)

    def _read(self, call: Call, continued: bool) -> Reply:
        try:
            # The token first: waiting for one would waste the room.
            token = self.tokens.token()
            if (seconds := self.turns.take()) > 0:
                self._pause(seconds)
            self.before_read()
            request = self._request("GET", call, token, params=call.fields, continued=continued)
            reply = self._answer(self._reads, request, Departure(None, self._reply_timeout), _use_once)
        except BrokerError as error:
            raise _Again(error.message, code=error.code, safety_code=error.safety_code) from error
        self._judge_token(reply, token)
        if reply.is_success:
            return reply
        row = code_row(reply.code)
        # A code that says that the question itself is wrong will say so again.
        kind = ReadFailed if row is not None and row.verdict is CodeVerdict.REJECTED else _Again
        raise kind(
            f"KIS answered no list: {reply.shown}",
            code=reply.code,
            safety_code=map_broker_error_to_safety(reply.code),
        )

    def _issue_token(self) -> AccessTokenPayload:
        reply = self._oauth(TOKEN_PATH, "appsecret")
        token, life = reply.text("access_token"), _seconds(reply.fields.get("expires_in"))
        if _TOKEN.fullmatch(token) is None or life is None:
            raise Rejected(f"KIS issued no access token: {reply.shown}", code=reply.code)
        return AccessTokenPayload(
            access_token=SecretStr(token),
            token_type=reply.text("token_type") or "Bearer",
            expires_in=life,
            expires_at=self.clock.now() + timedelta(seconds=life),
        )

    # What the app secret is called differs from path to path.
    def _oauth(self, path: str, secret_name: str) -> Reply:
        credentials = self.credentials
        body = {
            "grant_type": "client_credentials",
            "appkey": credentials.app_key.get_secret_value(),
            secret_name: credentials.app_secret.get_secret_value(),
        }
        request = httpx2.Request(
            "POST",
            credentials.base_url + path,
            headers={"content-type": _CONTENT_TYPE},
            content=Call(path, "", body).body(),
            extensions=self._timeouts(_TOKEN_TIMEOUT, None),
        )
        return self._answer(self._reads, request, Departure(None, _TOKEN_TIMEOUT), _use_once)

    def _request(
        self,
        method: str,
        call: Call,
        token: AccessTokenPayload,
        *,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        continued: bool = False,
    ) -> httpx2.Request:
        credentials = self.credentials
        headers = {
            "content-type": _CONTENT_TYPE,
            "authorization": f"Bearer {token.access_token.get_secret_value()}",
            "appkey": credentials.app_key.get_secret_value(),
            "appsecret": credentials.app_secret.get_secret_value(),
            "tr_id": call.tr_id,
            "custtype": "P",
        }
        if method == "GET":
            headers["tr_cont"] = "N" if continued else ""
        return httpx2.Request(
            method, credentials.base_url + call.path, headers=headers, content=content, params=params
        )

    # Every call goes through here, once. ``judge`` sees the answer while its connection is still ours alone.
    def _answer(
        self,
        wire: OneWay,
        request: httpx2.Request,
        departure: Departure,
        judge: Callable[[Reply, Departure], None],
    ) -> Reply:
        request.extensions = self._timeouts(departure.reply_timeout, departure.send_before)
        try:
            with wire.send(request, departure) as response:
                reply = _read(request, response, departure, self._redactor(request))
                judge(reply, departure)
        except TooLate:
            raise NotSent("the time to send it was over", safety_code=SafetyCode.FS042) from None
        except _NO_ANSWER as error:
            raise _unanswered(error, departure) from error
        return reply

    # An answer that a gateway repeats may come when the next order has left, on the same connection. A repeated number
    # shows it; a refusal has none, so what comes after it on its connection is not read.
    def _know_as_new(self, reply: Reply, departure: Departure) -> None:
        is_new = self._answers.is_new(reply, self.clock.now().astimezone(KST).date())
        if is_new:
            return
        departure.distrust()
        if is_new is False:
            raise OutcomeUnknown(
                f"this answer came before, so it is not the answer to this: {reply.shown}",
                code=reply.code,
                safety_code=SafetyCode.FS042,
            )

    # What the request shows to KIS, an answer may show to us.
    def _redactor(self, request: httpx2.Request) -> Redactor:
        credentials = self.credentials
        secrets = (
            request.headers.get("authorization", "").removeprefix("Bearer "),
            credentials.app_key.get_secret_value(),
            credentials.app_secret.get_secret_value(),
            credentials.account.number,
        )
        return Redactor(secrets)

    def _judge_token(self, reply: Reply, token: AccessTokenPayload) -> None:
        if reply.asks_for_a_token:
            self.tokens.drop(token)

    def _timeouts(self, reply: float, send_before: float | None) -> dict[str, Any]:
        left = float("inf") if send_before is None else max(send_before - self.clock.boottime(), 0.001)
        return {
            "timeout": {
                "connect": min(self._connect_timeout, left),
                "pool": min(self._connect_timeout, left),
                "write": min(_WRITE_TIMEOUT, left),
                "read": min(reply, left),
            }
        }


class _Again(BrokerError):
    """This try of a read was not answered."""

    @property
    def is_crowded(self) -> bool:
        row = code_row(self.code)
        return row is not None and row.then is Then.SLOW_DOWN


_backoff: Final = wait_random_exponential(multiplier=0.25, max=_READ_WAIT_MAX)


def _failure(state: RetryCallState) -> _Again:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, _Again)
    return error


def _were_enough(state: RetryCallState) -> bool:
    return state.attempt_number >= (_CROWDED_TRIES if _failure(state).is_crowded else _READ_TRIES)


def _until_next(state: RetryCallState) -> float:
    return _backoff(state) + (_CROWDED_WAIT if _failure(state).is_crowded else 0.0)


# An old page that came again on this connection could hide an order that is there.
def _use_once(_: Reply, departure: Departure) -> None:
    departure.distrust()


def _read(
    request: httpx2.Request, response: httpx2.Response, departure: Departure, redactor: Redactor
) -> Reply:
    reply = read_reply(response.status_code, response.headers, response.content, redactor)
    if reply is None:
        departure.distrust()
        raise OutcomeUnknown(
            f"HTTP {response.status_code} with {len(response.content)} bytes that are no answer of KIS",
            safety_code=SafetyCode.FS042,
        )
    asked, answered = request.headers.get("tr_id", ""), response.headers.get("tr_id", "")
    if answered not in ("", asked):
        departure.distrust()
        raise OutcomeUnknown(
            f"an answer to {redactor.text(answered)[:13]} came where {asked} was asked",
            safety_code=SafetyCode.FS042,
        )
    return reply


def _unanswered(error: Exception, departure: Departure) -> BrokerError:
    # The text of a network error names hosts and numbers of errors, nothing of the request.
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if not departure.left:
        return NotSent(f"KIS could not be reached: {what}")
    return OutcomeUnknown(f"it left, and no answer came: {what}", safety_code=SafetyCode.FS042)


def _seconds(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 < found < 10**7 else None
