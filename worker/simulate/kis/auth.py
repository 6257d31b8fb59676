"""App keys, access tokens and approval keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from worker.clock import Clock
from worker.simulate.kis.wire import Reply, oauth_refused, refused
from worker.simulate.limits import SlidingWindow
from worker.simulate.venues import SEOUL

#: The part of a token's life in which the same one is issued again: 6 of 24 hours.
SAME_TOKEN_PART = 4
_TOO_SOON = oauth_refused("EGW00133", "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)")


@dataclass(frozen=True, slots=True)
class _Issued:
    token: str
    at: float
    until: float


class Gatehouse:
    """
    Who may come in. Tokens are signed with the app secret, so one survives a restart of this server.

    Without a key pair of its own it takes any; a key belongs to the secret that it came with first.
    """

    def __init__(
        self, clock: Clock, *, app_key: str | None, app_secret: str | None, life: float, issue_interval: float
    ) -> None:
        self._clock = clock
        self._secrets = {app_key: app_secret} if app_key and app_secret else {}
        self._takes_any = not self._secrets
        self._life = life
        self._issues = SlidingWindow(1 if issue_interval else 0, issue_interval)
        self._issued: dict[str, _Issued] = {}
        self._revoked: set[str] = set()
        self._revoked_until = float("-inf")
        self._approval_keys: dict[str, str] = {}
        #: Tokens issued so far, the repeated ones not counted.
        self.tokens_issued = 0

    def issue(self, body: Mapping[str, Any]) -> Reply:
        """``/oauth2/tokenP``."""
        wrong = self._wrong_pair(body, "appsecret")
        if wrong:
            return wrong
        key, secret = body["appkey"], body["appsecret"]
        if not self._issues.passes(key, self._clock.boottime()):
            return _TOO_SOON
        now = self._clock.now().timestamp()
        held = self._issued.get(key)
        if held is None or now - held.at >= self._life / SAME_TOKEN_PART or held.token in self._revoked:
            self.tokens_issued += 1
            # A clock that stands still must not make a new token one of those that were just revoked.
            at = max(now, self._revoked_until + 0.001)
            held = _Issued(_sign(key, secret, at, now + self._life), at, now + self._life)
            self._issued[key] = held
        ends = datetime.fromtimestamp(held.until, UTC).astimezone(SEOUL)
        return Reply(
            200,
            {
                "access_token": held.token,
                "access_token_token_expired": f"{ends:%Y-%m-%d %H:%M:%S}",
                "token_type": "Bearer",
                "expires_in": int(held.until - now),
            },
        )

    def revoke(self, body: Mapping[str, Any]) -> Reply:
        """``/oauth2/revokeP``."""
        wrong = self._wrong_pair(body, "appsecret")
        if wrong:
            return wrong
        self._revoked.add(str(body.get("token", "")))
        return Reply(200, {"code": 200, "message": "접근토큰 폐기에 성공하였습니다"})

    def revoke_all(self) -> None:
        """Every token issued so far is invalid from now on."""
        self._revoked_until = self._clock.now().timestamp()
        self._issued.clear()

    def approve(self, body: Mapping[str, Any]) -> Reply:
        """``/oauth2/Approval``: the key for the WebSocket."""
        wrong = self._wrong_pair(body, "secretkey")
        if wrong:
            return wrong
        key = str(uuid.uuid4())
        self._approval_keys[key] = body["appkey"]
        return Reply(200, {"approval_key": key})

    def app_key_of(self, approval_key: str) -> str | None:
        """The app key that an approval key was given to."""
        return self._approval_keys.get(approval_key)

    def check_pair(self, headers: Mapping[str, str]) -> str:
        """
        The app key of a call.

        Raises:
            Refused: EGW00102 to EGW00105.
        """
        key, secret = headers.get("appkey", ""), headers.get("appsecret", "")
        if not key:
            raise refused("EGW00102")
        if not secret:
            raise refused("EGW00104")
        if not self._knows(key, secret):
            raise refused("EGW00105" if key in self._secrets else "EGW00103")
        return key

    def check_token(self, key: str, headers: Mapping[str, str]) -> None:
        """
        The call carries a token that this app key was given, and that still holds.

        Raises:
            Refused: EGW00121, EGW00122, EGW00123.
        """
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or not token:
            raise refused("EGW00122")
        held = self._issued.get(key)
        claims = (
            (held.at, held.until) if held and held.token == token else _read(token, key, self._secrets[key])
        )
        if claims is None or token in self._revoked or claims[0] <= self._revoked_until:
            raise refused("EGW00121")
        if self._clock.now().timestamp() >= claims[1]:
            raise refused("EGW00123")

    def _knows(self, key: str, secret: str) -> bool:
        if self._takes_any:
            self._secrets.setdefault(key, secret)
        return hmac.compare_digest((self._secrets.get(key) or "").encode(), secret.encode())

    def _wrong_pair(self, body: Mapping[str, Any], secret_name: str) -> Reply | None:
        key, secret = body.get("appkey"), body.get(secret_name)
        if not isinstance(key, str) or not isinstance(secret, str) or not key or not secret:
            return oauth_refused("EGW00101", "유효하지 않은 요청입니다.")
        if self._knows(key, secret):
            return None
        if key in self._secrets:
            return oauth_refused("EGW00105", "유효하지 않은 AppSecret입니다.")
        return oauth_refused("EGW00103", "유효하지 않은 AppKey입니다.")


def _sign(key: str, secret: str, at: float, until: float) -> str:
    claims = {
        "key": hashlib.sha256(key.encode()).hexdigest()[:16],
        "at": at,
        "until": until,
        "jti": uuid.uuid4().hex,
    }
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{body}.{_seal(body, key, secret)}"


def _seal(body: str, key: str, secret: str) -> str:
    return hmac.new(f"{key}\n{secret}".encode(), body.encode(), hashlib.sha256).hexdigest()


def _read(token: str, key: str, secret: str) -> tuple[float, float] | None:
    body, _, seal = token.partition(".")
    if not hmac.compare_digest(_seal(body, key, secret).encode(), seal.encode()):
        return None
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims["at"], claims["until"]
