"""
The access token: one for each app key, shared by all who use the key.

KIS issues one token a minute and tells the customer's phone of each; a token lives a day, and whether a new one ends
the old one is not documented. So whoever needs one asks the store first: it hands out the token that is held, or lets
exactly one caller ask KIS, or says how long to wait.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from pydantic import BaseModel, ConfigDict, SecretStr

from worker.brokers.kis.facts import TOKEN_INTERVAL
from worker.clock import Clock
from worker.errors import BrokerError, NotSent, Unavailable

_log = logging.getLogger(__name__)

#: A token is replaced when a tenth of its life, and at most ten minutes, is left.
_EARLY_PART, _EARLY_MAX = 0.1, 600.0
#: Seconds that one caller has for asking KIS; after them another may.
ISSUE_LEASE: Final = 20.0
#: Seconds between two looks while somebody else asks KIS.
_POLL: Final = 0.05
#: Seconds that a caller waits for a token when it names no deadline.
_PATIENCE: Final = 10.0


class AccessTokenPayload(BaseModel):
    """An access token as KIS issued it. No text of it shows the token."""

    model_config = ConfigDict(frozen=True)

    access_token: SecretStr
    token_type: str = "Bearer"
    #: Seconds that it lives, counted from its issue.
    expires_in: float
    #: By the clock of whoever got it.
    expires_at: datetime

    @property
    def digest(self) -> str:
        """Names the token without telling it."""
        return hashlib.sha256(self.access_token.get_secret_value().encode()).hexdigest()[:32]


class BrokerAdapter(ABC):
    """What can sign in at a broker."""

    @abstractmethod
    def authenticate(self) -> AccessTokenPayload:
        """
        A valid access token: the one that is held, or a new one.

        Raises:
            NotSent: there is none now, and nothing was sent with an old one. Try again later.
        """


@dataclass(frozen=True, slots=True)
class Held:
    """There is a token. ``fresh_for`` and ``valid_for`` are seconds from now."""

    payload: AccessTokenPayload
    fresh_for: float
    valid_for: float


@dataclass(frozen=True, slots=True)
class Issue:
    """Ask KIS for one, and bring it with this number."""

    fence: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody else asks, or asked less than a minute ago. Seconds; look again sooner."""

    seconds: float
    reason: str


class TokenStore(Protocol):
    """Where tokens are kept, and who may ask for the next one. Methods are atomic."""

    def take(self, dead: str) -> Held | Issue | Wait:
        """
        The token, unless its digest is ``dead``; else what to do.

        Raises:
            Unavailable: the store does not answer. Use what you hold; ask KIS for nothing.
        """

    def put(self, fence: int, payload: AccessTokenPayload) -> bool:
        """Keep a token. False, and nothing is kept, when a later caller was let to ask KIS meanwhile."""

    def give_up(self, fence: int, wait: float) -> None:
        """KIS gave none: nobody asks again for so many seconds."""


class LocalTokenStore:
    """A store in this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: AccessTokenPayload | None = None
        self._from = 0.0
        self._fence = 0
        self._lease_ends = self._next_issue = float("-inf")

    def take(self, dead: str) -> Held | Issue | Wait:
        with self._lock:
            now = self._clock.boottime()
            held = self._usable(now, dead)
            if held is not None and held.fresh_for > 0:
                return held
            if self._lease_ends > now:
                return held or Wait(self._lease_ends - now, "another thread asks KIS for a token")
            if self._next_issue > now:
                return held or Wait(self._next_issue - now, "KIS issues one token a minute")
            self._fence += 1
            self._lease_ends, self._next_issue = now + ISSUE_LEASE, now + TOKEN_INTERVAL
            return Issue(self._fence)

    def put(self, fence: int, payload: AccessTokenPayload) -> bool:
        with self._lock:
            if fence != self._fence:
                return False
            self._held, self._from = payload, self._clock.boottime()
            self._lease_ends = float("-inf")
            return True

    def give_up(self, fence: int, wait: float) -> None:
        with self._lock:
            if fence == self._fence:
                self._lease_ends, self._next_issue = float("-inf"), self._clock.boottime() + wait

    def _usable(self, now: float, dead: str) -> Held | None:
        held = self._held
        if held is None or held.digest == dead:
            return None
        valid = self._from + held.expires_in - now
        return Held(held, valid - early(held.expires_in), valid) if valid > 0 else None


class TokenCache:
    """
    The token of one app key, for all threads of this process. ``issue`` asks KIS for one. Safe to share.

    With a store in Redis all workers of the key share one token; when Redis is away a process uses what it holds.
    """

    def __init__(
        self, issue: Callable[[], AccessTokenPayload], clock: Clock, store: TokenStore | None = None
    ) -> None:
        self._issue = issue
        self._clock = clock
        self._store: TokenStore = store or LocalTokenStore(clock)
        self._lock = threading.Lock()
        self._held: AccessTokenPayload | None = None
        self._fresh_until = self._valid_until = float("-inf")
        self._dead = ""
        self._closing = threading.Event()

    def share(self, store: TokenStore) -> None:
        """Keep tokens there from now on."""
        with self._lock:
            self._store = store

    def token(self, until: float | None = None) -> AccessTokenPayload:
        """
        A valid token, waiting for one until ``until`` (seconds on ``CLOCK_BOOTTIME``) at most.

        Raises:
            NotSent: there is none by then. Nothing was sent with an old one.
        """
        held = self._held
        if held is not None and self._clock.boottime() < self._fresh_until:
            return held
        now = self._clock.boottime()
        still_holds = held is not None and now < self._valid_until
        until = now + _PATIENCE if until is None else until
        # In real time: one thread of this process looks, the others have what it finds, or go on with what still holds.
        patience = 0.0 if still_holds else min(max(until - now, 0.0) + 0.001, _PATIENCE)
        if not self._lock.acquire(timeout=patience):
            if held is not None and still_holds:
                return held
            raise NotSent("no access token yet: another thread of this worker asks for one")
        try:
            return self._fetch(until)
        finally:
            self._lock.release()

    def drop(self, token: AccessTokenPayload) -> None:
        """KIS takes this token no more. If it is still the one that is held, the next call gets another one."""
        with self._lock:
            self._dead = token.digest
            if self._held is not None and self._held.digest == token.digest:
                self._held, self._fresh_until, self._valid_until = None, float("-inf"), float("-inf")
                _log.warning("kis_token_dropped the broker takes it no more")

    def close(self) -> None:
        """Wake whoever waits."""
        self._closing.set()

    def _fetch(self, until: float) -> AccessTokenPayload:
        while True:
            now = self._clock.boottime()
            if self._held is not None and now < self._fresh_until:
                return self._held
            try:
                found = self._store.take(self._dead)
            except Unavailable as error:
                if self._held is not None and now < self._valid_until:
                    return self._held
                raise NotSent("no access token: the Redis that keeps it does not answer") from error
            match found:
                case Held():
                    return self._hold(found)
                case Issue(fence):
                    self._ask(fence)
                case Wait(seconds, reason):
                    # What cannot end before the deadline is not waited for.
                    poll = min(_POLL, seconds)
                    if self._clock.boottime() + poll > until or self._clock.wait(self._closing, poll):
                        raise NotSent(f"no access token for the next {seconds:.0f} s: {reason}")

    def _ask(self, fence: int) -> None:
        try:
            payload = self._issue()
        except BrokerError as error:
            # Provably never asked: KIS's minute has not begun.
            self._give_up(fence, 1.0 if _never_asked(error) else TOKEN_INTERVAL)
            raise NotSent(
                f"KIS gave no access token: {error.message}", code=error.code, safety_code=error.safety_code
            ) from error
        # Asked for because the last one was dead, and KIS says that it is this one: let the next call judge.
        self._dead = ""
        try:
            kept = self._store.put(fence, payload)
        except Unavailable:
            _log.warning("kis_token_not_shared Redis does not answer; this worker uses it alone")
            kept = True
        if kept:
            valid = payload.expires_in
            self._hold(Held(payload, valid - early(valid), valid))
            _log.info("kis_token_issued valid_for=%d", int(valid))

    def _give_up(self, fence: int, wait: float) -> None:
        try:
            self._store.give_up(fence, wait)
        except Unavailable:
            _log.warning("kis_token_issue_not_noted Redis does not answer; the lease ends by itself")

    def _hold(self, found: Held) -> AccessTokenPayload:
        now = self._clock.boottime()
        self._held = found.payload
        # One that nobody may replace yet is looked after at each use, until it can be.
        self._fresh_until, self._valid_until = now + max(found.fresh_for, 0.0), now + found.valid_for
        return found.payload


def early(life: float) -> float:
    """How long before its end a token of that life is replaced, in seconds."""
    return min(life * _EARLY_PART, _EARLY_MAX)


def _never_asked(error: BrokerError) -> bool:
    return isinstance(error, NotSent) and error.code is None
