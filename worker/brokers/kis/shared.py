"""What all workers of an app key share in Redis: one token, encrypted with a key made of the app secret, turns, and days."""

from __future__ import annotations

import hashlib
import os
from datetime import date, timedelta
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final

import redis
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from worker.brokers.base import TokenState
from worker.brokers.kis.auth import (
    ISSUE_LEASE,
    AccessTokenPayload,
    Held,
    Issue,
    Wait,
    early,
)
from worker.brokers.kis.facts import TOKEN_INTERVAL
from worker.brokers.kis.holidays import Days, days_from, days_to
from worker.brokers.kis.options import Credentials
from worker.brokers.kis.turns import TURN_INTERVAL
from worker.clock import Clock
from worker.connection import is_unavailable
from worker.errors import Unavailable

_NONCE_BYTES: Final = 12
_INFO: Final = b"execution worker: KIS access token, version 1"


class RedisTokenStore:
    """
    One token for each app key and environment, under ``prefix`` and a digest of the two. Times are Redis's own.

    What is stored can be read with the app secret only.
    """

    def __init__(self, client: redis.Redis, prefix: str, credentials: Credentials, clock: Clock) -> None:
        self._client: Any = client
        self._clock = clock
        self._seal = _Seal(credentials)
        self.key = f"{prefix}{{{self._seal.name}}}"

    def take(self, dead: str) -> Held | Issue | Wait:
        answer = _run(self._client, self.key, "take_token", dead, _ms(ISSUE_LEASE), _ms(TOKEN_INTERVAL))
        match answer[0]:
            case b"held":
                return self._open(answer[1], answer[2] / 1000, answer[3] / 1000)
            case b"issue":
                return Issue(answer[1])
            case b"busy":
                return Wait(answer[1] / 1000, "another worker asks KIS for a token")
            case b"wait":
                return Wait(answer[1] / 1000, "KIS issues one token a minute")
            case other:
                raise RuntimeError(f"take_token answered {other!r}")

    def put(self, fence: int, payload: AccessTokenPayload) -> bool:
        life = payload.expires_in
        sealed = self._seal.close(payload)
        fresh = _ms(life - early(life))
        answer = _run(self._client, self.key, "put_token", fence, sealed, payload.digest, fresh, _ms(life), 0)
        return bool(answer == b"kept")

    def give_up(self, fence: int, wait: float) -> None:
        _run(self._client, self.key, "put_token", fence, "", "", 0, 0, _ms(wait))

    def state(self) -> TokenState:
        """
        Of the token that is kept. Changes nothing.

        Raises:
            Unavailable: the store does not answer.
        """
        try:
            sealed, valid_until = self._client.hmget(self.key, "sealed", "valid_until_ms")
            seconds, microseconds = self._client.time()
        except redis.RedisError as error:
            raise _unavailable(error) from error
        valid_for = int(valid_until or 0) / 1000 - seconds - microseconds / 1e6
        if not sealed or valid_for <= 0:
            return TokenState(0.0)
        return TokenState(valid_for, self._seal.open(sealed, valid_for, self._clock) is not None)

    def _open(self, sealed: bytes, fresh_for: float, valid_for: float) -> Held | Issue | Wait:
        payload = self._seal.open(sealed, valid_for, self._clock)
        if payload is not None:
            return Held(payload, fresh_for, valid_for)
        # The secret was changed, or somebody wrote there: as good as none.
        digest = self._read_digest()
        return self.take(digest) if digest else Wait(1.0, "the stored token cannot be opened")

    def _read_digest(self) -> str:
        try:
            found = self._client.hget(self.key, "digest")
        except redis.RedisError as error:
            raise _unavailable(error) from error
        return found.decode() if isinstance(found, bytes) else ""


class RedisTurns:
    """Turns of all workers of an app key, on Redis's clock. ``key`` is that of its `RedisTokenStore`."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._client = client
        self._key = key

    def take(self) -> float:
        return float(_run(self._client, self._key, "take_turn", _ms(TURN_INTERVAL))) / 1000


class _Seal:
    def __init__(self, credentials: Credentials) -> None:
        key = credentials.app_key.get_secret_value()
        self.name = hashlib.sha256(f"{credentials.environment}:{key}".encode()).hexdigest()[:32]
        secret = credentials.app_secret.get_secret_value().encode()
        derived = HKDF(algorithm=SHA256(), length=32, salt=self.name.encode(), info=_INFO).derive(secret)
        self._box = AESGCM(derived)

    def close(self, payload: AccessTokenPayload) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        token = payload.access_token.get_secret_value().encode()
        return nonce + self._box.encrypt(nonce, token, self.name.encode())

    def open(self, sealed: bytes, valid_for: float, clock: Clock) -> AccessTokenPayload | None:
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            token = self._box.decrypt(nonce, rest, self.name.encode())
        except (InvalidTag, ValueError):
            return None
        return AccessTokenPayload(
            access_token=SecretStr(token.decode()),
            expires_in=valid_for,
            expires_at=clock.now() + timedelta(seconds=valid_for),
        )


class RedisDayStore:
    """What KIS last said of its trading days. ``key`` is that of the `RedisTokenStore`."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._client = client
        self._key = key

    def take(self, today: date) -> tuple[bool, Days]:
        how, days = _run(self._client, self._key, "take_days", today.isoformat())
        return how == b"ask", days_from(days)

    def put(self, days: Days) -> None:
        try:
            self._client.hset(self._key, "days", days_to(days))
        except redis.RedisError as error:
            raise _unavailable(error) from error


def _run(client: redis.Redis, key: str, name: str, *args: Any) -> Any:
    try:
        try:
            return client.evalsha(_digest(name), 1, key, *args)
        except redis.exceptions.NoScriptError:
            return client.eval(_source(name), 1, key, *args)
    except redis.RedisError as error:
        raise _unavailable(error) from error


def _unavailable(error: redis.RedisError) -> Exception:
    return Unavailable("Redis does not answer") if is_unavailable(error) else error


@cache
def _source(name: str) -> str:
    return (files("worker.brokers.kis") / "lua" / f"{name}.lua").read_text("utf-8")


@cache
def _digest(name: str) -> str:
    return sha1(_source(name).encode(), usedforsecurity=False).hexdigest()


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
