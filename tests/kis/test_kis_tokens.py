"""One token for each app key, one issue a minute, and nobody left without one for longer than that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from kis_bench import APP_KEY, APP_SECRET, credentials
from pydantic import SecretStr

from worker.brokers.kis import AccessTokenPayload, Credentials, RedisTokenStore, TokenCache
from worker.brokers.kis.auth import Held, Issue, LocalTokenStore, TokenStore, Wait
from worker.clock import ManualClock, SystemClock
from worker.errors import NotSent, OutcomeUnknown, Unavailable

DAY = 86_400.0
PREFIX = "kis-token:"


class Issuer:
    """KIS's token call: counts, and gives what it is told to."""

    def __init__(self, clock: ManualClock | SystemClock, life: float = DAY) -> None:
        self.clock, self.life = clock, life
        self.calls = 0
        self.fails_with: list[Exception] = []
        self.lock = threading.Lock()

    def __call__(self) -> AccessTokenPayload:
        with self.lock:
            self.calls += 1
            if self.fails_with:
                raise self.fails_with.pop(0)
            number = self.calls
        return payload(f"token-{number}-of-the-tests", self.life)


def payload(token: str, life: float = DAY) -> AccessTokenPayload:
    return AccessTokenPayload(
        access_token=SecretStr(token), expires_in=life, expires_at=datetime.now(UTC) + timedelta(seconds=life)
    )


def shown(token: AccessTokenPayload) -> str:
    return token.access_token.get_secret_value()


# --- One process -----------------------------------------------------------------------------------------


def test_a_token_is_asked_for_once_and_used_until_it_is_due() -> None:
    clock = ManualClock()
    issue = Issuer(clock)
    cache = TokenCache(issue, clock)

    found = {shown(cache.token()) for _ in range(20)}
    clock.advance(DAY - 601)
    found |= {shown(cache.token())}

    assert (found, issue.calls) == ({"token-1-of-the-tests"}, 1)


def test_a_token_is_replaced_before_it_ends() -> None:
    clock = ManualClock()
    issue = Issuer(clock)
    cache = TokenCache(issue, clock)
    cache.token()
    clock.advance(DAY - 599)

    assert shown(cache.token()) == "token-2-of-the-tests"


def test_a_token_that_is_due_is_used_on_while_kis_gives_no_other() -> None:
    clock = ManualClock()
    issue = Issuer(clock)
    cache = TokenCache(issue, clock)
    cache.token()
    clock.advance(DAY - 599)
    issue.fails_with = [OutcomeUnknown("no answer")]
    with pytest.raises(NotSent):
        cache.token()

    assert shown(cache.token()) == "token-1-of-the-tests"
    clock.advance(61)
    assert shown(cache.token()) == "token-3-of-the-tests"


def test_a_token_that_was_revoked_early_is_replaced() -> None:
    clock = ManualClock()
    issue = Issuer(clock)
    cache = TokenCache(issue, clock)
    first = cache.token()
    clock.advance(3600)

    cache.drop(first)

    assert shown(cache.token()) == "token-2-of-the-tests"
    # A late refusal of the first one does not cost the second.
    cache.drop(first)
    assert shown(cache.token()) == "token-2-of-the-tests"


def test_kis_is_asked_at_most_once_a_minute_even_if_it_gives_nothing() -> None:
    clock = ManualClock()
    issue = Issuer(clock)
    issue.fails_with = [NotSent("too soon", code="EGW00133"), OutcomeUnknown("no answer")]
    cache = TokenCache(issue, clock)

    for _ in range(30):
        with pytest.raises(NotSent):
            cache.token(clock.boottime())
    assert issue.calls == 1
    clock.advance(60)
    with pytest.raises(NotSent):
        cache.token(clock.boottime())
    clock.advance(60)

    assert shown(cache.token()) == "token-3-of-the-tests"


def test_a_call_that_never_reached_kis_has_not_used_up_the_minute() -> None:
    clock = ManualClock()
    issue = Issuer(clock)
    issue.fails_with = [NotSent("could not be reached")]
    cache = TokenCache(issue, clock)
    with pytest.raises(NotSent):
        cache.token(clock.boottime())
    clock.advance(1)

    assert shown(cache.token()) == "token-2-of-the-tests"


def test_nobody_waits_for_a_token_past_its_deadline() -> None:
    clock = ManualClock()
    store = LocalTokenStore(clock)
    assert isinstance(store.take(""), Issue)
    cache = TokenCache(Issuer(clock), clock, store)
    began = clock.boottime()

    with pytest.raises(NotSent, match="another thread asks"):
        cache.token(began + 0.3)

    assert clock.boottime() <= began + 0.3


def test_a_token_shows_in_no_repr() -> None:
    token = payload("token-of-the-tests")

    assert "token-of-the-tests" not in f"{token!r} {token} {token.model_dump_json()} {Held(token, 1, 2)!r}"


# --- Stores ----------------------------------------------------------------------------------------------


@pytest.fixture(name="client")
def _client(any_redis: Any) -> redis.Redis:
    found: redis.Redis = any_redis.connect()
    return found


def store_in(client: redis.Redis, keys: Credentials | None = None) -> RedisTokenStore:
    return RedisTokenStore(client, PREFIX, keys or credentials(), SystemClock())


def test_eight_workers_that_start_together_ask_for_one_token(any_redis: Any) -> None:
    issue = Issuer(SystemClock())
    slow = threading.Event()

    def issue_slowly() -> AccessTokenPayload:
        slow.wait(0.2)
        return issue()

    caches = [TokenCache(issue_slowly, SystemClock(), store_in(any_redis.connect())) for _ in range(8)]
    start = threading.Barrier(32)

    def ask(cache: TokenCache) -> str:
        start.wait()
        return shown(cache.token())

    with ThreadPoolExecutor(32) as pool:
        found = set(pool.map(ask, caches * 4))

    assert issue.calls == 1
    assert found == {"token-1-of-the-tests"}


def test_eight_workers_whose_token_died_ask_for_one_more(any_redis: Any, client: redis.Redis) -> None:
    issue = Issuer(SystemClock())
    caches = [TokenCache(issue, SystemClock(), store_in(any_redis.connect())) for _ in range(8)]
    dead = [cache.token() for cache in caches]
    # Its minute is over.
    client.hset(store_in(client).key, "next_issue_ms", 0)
    start = threading.Barrier(8)

    def lose_and_ask(place: int) -> str:
        start.wait()
        caches[place].drop(dead[place])
        return shown(caches[place].token())

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lose_and_ask, range(8)))

    assert issue.calls == 2
    assert found == {"token-2-of-the-tests"}


def test_a_worker_that_dies_while_asking_blocks_the_others_for_its_lease_only(client: redis.Redis) -> None:
    store = store_in(client)
    dead = store.take("")
    assert isinstance(dead, Issue)
    assert isinstance(store.take(""), Wait)

    client.hset(store.key, mapping={"lease_until_ms": 0, "next_issue_ms": 0})
    after = store.take("")

    assert isinstance(after, Issue)
    assert after.fence == dead.fence + 1
    # What the first one brings after all comes too late, and takes nobody's lease away.
    assert store.put(dead.fence, payload("late")) is False
    store.give_up(dead.fence, 0)
    assert isinstance(store.take(""), Wait)
    assert store.put(after.fence, payload("in time")) is True
    held = store.take("")
    assert isinstance(held, Held)
    assert shown(held.payload) == "in time"


def test_a_worker_that_was_overtaken_uses_the_token_of_the_other(client: redis.Redis) -> None:
    store, clock = store_in(client), SystemClock()

    def overtaken() -> AccessTokenPayload:
        client.hset(store.key, mapping={"lease_until_ms": 0, "next_issue_ms": 0})
        other = store.take("")
        assert isinstance(other, Issue)
        store.put(other.fence, payload("the other's"))
        return payload("mine")

    assert shown(TokenCache(overtaken, clock, store).token()) == "the other's"


def test_the_stored_token_is_encrypted_and_the_app_key_is_in_no_key(client: redis.Redis) -> None:
    TokenCache(lambda: payload("token-of-the-tests"), SystemClock(), store_in(client)).token()

    [key] = client.keys("*")
    stored = repr((key, client.hgetall(key)))
    for secret in ("token-of-the-tests", APP_KEY, APP_SECRET):
        assert secret not in stored


def test_a_token_that_another_secret_closed_is_not_used_and_not_kept(client: redis.Redis) -> None:
    TokenCache(lambda: payload("old"), SystemClock(), store_in(client)).token()
    good = credentials()
    changed = Credentials(good.environment, good.app_key, SecretStr("a new secret"), good.account)
    client.hset(store_in(client).key, "next_issue_ms", 0)

    found = TokenCache(lambda: payload("new"), SystemClock(), store_in(client, changed)).token()

    assert shown(found) == "new"


def test_real_and_paper_keys_share_nothing(client: redis.Redis) -> None:
    from worker.brokers.kis import Environment

    assert store_in(client).key != store_in(client, credentials(Environment.PAPER)).key


# --- Redis away ------------------------------------------------------------------------------------------


class Away:
    """A store whose Redis answers when it is told to."""

    def __init__(self, inner: TokenStore) -> None:
        self.inner, self.away = inner, False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if self.away:
                raise Unavailable("gone")
            return getattr(self.inner, name)(*args)

        return call


def test_with_redis_away_a_worker_uses_what_it_holds_and_asks_kis_for_nothing() -> None:
    clock = ManualClock()
    issue, store = Issuer(clock), Away(LocalTokenStore(clock))
    cache = TokenCache(issue, clock, store)  # type: ignore[arg-type]
    cache.token()
    store.away = True

    clock.advance(DAY - 10)
    assert shown(cache.token()) == "token-1-of-the-tests"
    clock.advance(20)
    for _ in range(10):
        with pytest.raises(NotSent, match="does not answer"):
            cache.token()
    assert issue.calls == 1

    store.away = False
    assert shown(cache.token()) == "token-2-of-the-tests"


def test_a_token_that_redis_could_not_be_told_of_is_used_all_the_same() -> None:
    clock = ManualClock()
    store = Away(LocalTokenStore(clock))

    def issue() -> AccessTokenPayload:
        store.away = True
        return payload("mine")

    assert shown(TokenCache(issue, clock, store).token()) == "mine"  # type: ignore[arg-type]


def test_a_redis_that_refuses_connections_is_away_and_says_nothing_of_the_token() -> None:
    from worker.connection import connect

    store = store_in(connect("redis://127.0.0.1:1/0", client_name="test", socket_timeout=0.1))

    with pytest.raises(NotSent) as refused:
        TokenCache(lambda: payload("x"), SystemClock(), store).token()

    assert APP_KEY not in str(refused.value)
