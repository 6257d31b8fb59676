"""A desk in good health, on a real Redis; each test makes it sick in one way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import RedisServer, start_redis
from tests.process.workers import wait_until
from worker.assembly import common
from worker.clock import Clock, SystemClock
from worker.connection import Connect, connect
from worker.doctor import Finding, Patient, examine
from worker.keys import GROUP, RouteKeys
from worker.ledger import Ledger, LedgerRules
from worker.ledger.registry import enlist
from worker.settings import load_settings

KEYS = RouteKeys("default")
#: What the server is set to before each test.
DURABLE = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
    "maxmemory": "200mb",
}
KIS = {
    "BROKER": "kis",
    "OPTIONS__ENVIRONMENT": "paper",
    "OPTIONS__APP_KEY": "PS-key-of-the-desk",
    "OPTIONS__APP_SECRET": "secret-of-the-desk",
    "OPTIONS__ACCOUNT": "12345678-01",
}


@dataclass
class Ward:
    """``env`` is changed before `findings` is called; ``client`` is somebody who may do anything."""

    server: RedisServer
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)
    connect: Connect = connect
    ends: list[Callable[[], Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client: Any = connect(self.server.url, client_name="ward")
        self.ends.append(self.client.close)
        self.env |= {
            "EXECWORKER_REDIS_URL": self.server.url,
            "EXECWORKER_METRICS_PORT": "0",
            "EXECWORKER_TOLD_COMMAND": "true",
            "EXECWORKER_HALT_FILE": str(self.folder / "halt"),
        }
        self.route(MODE="paper")
        self.client.flushall()
        for name, value in DURABLE.items():
            self.client.config_set(name, value)
        enlist(self.client, "default", broker="simulated", mode="paper", account=None)
        self.ledger.register(broker="simulated", mode="paper", start_halted=False)
        for stream in (KEYS.intents, KEYS.cancels):
            self.client.xgroup_create(stream, GROUP, "0", mkstream=True)
        self.signs_in("w1")
        self.signs_in("w2")

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.client, "default", "w1", LedgerRules(), SystemClock())

    @property
    def now_ms(self) -> int:
        return int(self.client.time()[0]) * 1000

    def route(self, name: str = "default", /, **settings: str) -> None:
        self.env |= {f"EXECWORKER_ROUTES__{name.upper()}__{key}": value for key, value in settings.items()}

    def signs_in(self, worker: str, **about: Any) -> None:
        """A live worker's card."""
        told = common(load_settings(self.env).routes["default"])
        card = {"host": "h", "pid": 1, "port": 1, "beat": self.now_ms, **told, **about}
        self.client.hset(KEYS.workers, worker, json.dumps(card))

    def findings(self, *routes: str, client: Any = None) -> dict[str, Finding]:
        """What doctor finds, by id; of several with one id, the last."""
        settings = load_settings(self.env)
        found = client or connect(settings.redis_url, client_name="doctor")
        patient = Patient(settings, self.env, found, self.connect, self.clock)
        try:
            return {one.id: one for one in examine(patient, routes or list(settings.routes))}
        finally:
            found.close()

    def close(self) -> None:
        for end in reversed(self.ends):
            end()


class Answering:
    """A client that gives some replies of its own: for servers that cannot be had here."""

    def __init__(self, client: Any, replies: Mapping[str, Callable[[Any], Any]]) -> None:
        self._client = client
        self._replies = replies

    def execute_command(self, *words: Any) -> Any:
        real = self._client.execute_command
        name = " ".join(map(str, words)).upper()
        for beginning, reply in self._replies.items():
            if name.startswith(beginning):
                return reply(lambda: real(*words))
        return real(*words)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def other_server(ward: Ward, *options: str) -> RedisServer:
    server = start_redis(*options)
    ward.ends.append(server.stop)
    return server


def that_cannot_save(ward: Ward) -> RedisServer:
    """A server that wants to save into a folder that is gone."""
    folder = ward.folder / "gone"
    folder.mkdir()
    server = start_redis("--dir", str(folder), "--save", "3600 1")
    # One that cannot save does not shut down when it is asked to.
    ward.ends.append(server.kill)
    folder.rmdir()
    with connect(server.url, client_name="ward") as client:
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the save fails")
    return server
