"""KIS as a broker of a route: the orders of an account, and signing in."""

from __future__ import annotations

import redis

from worker.brokers.base import TokenState
from worker.brokers.kis.auth import AccessTokenPayload, BrokerAdapter
from worker.brokers.kis.orders import KISOrderAdapter
from worker.brokers.kis.shared import RedisDayStore, RedisTokenStore, RedisTurns


class KISBrokerAdapter(KISOrderAdapter, BrokerAdapter):
    """The adapter registered as ``kis``."""

    def authenticate(self) -> AccessTokenPayload:
        return self.client.tokens.token()

    def prepare(self) -> None:
        self.authenticate()

    def token_state(self, client: redis.Redis, prefix: str) -> TokenState:
        return RedisTokenStore(client, prefix, self.client.credentials, self.client.clock).state()

    def share(self, client: redis.Redis, prefix: str) -> None:
        """
        Keep in Redis, under ``prefix`` and a digest of the app key, the access token and what KIS says of trading days,
        and take turns there to read lists. Without it each process asks KIS for a token of its own, of which KIS gives
        one a minute.
        """
        store = RedisTokenStore(client, prefix, self.client.credentials, self.client.clock)
        self.client.tokens.share(store)
        self.client.turns = RedisTurns(client, store.key)
        self.holidays.store = RedisDayStore(client, store.key)
