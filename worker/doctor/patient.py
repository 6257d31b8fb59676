"""What checks look at: the settings, the machine and the Redis, each asked once and remembered."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self
from urllib.parse import urlsplit

import redis
from pydantic import ValidationError
from redis.exceptions import NoPermissionError

from contracts.wire import explain
from worker.assembly import build_adapter
from worker.brokers import BaseBrokerAdapter
from worker.clock import Clock
from worker.connection import Connect, at_home, is_cluster, without_health_checks
from worker.doctor.findings import missing_right
from worker.durability import Confirmation
from worker.errors import ConfigError
from worker.keys import RouteKeys
from worker.ledger.control import Control, RouteStatus
from worker.ledger.registry import Enlisted, enlisted
from worker.settings import Mode, RouteSettings, Settings
from worker.transport.streams import SCHEMES


@dataclass
class Patient:
    """One Redis, one machine's settings, and the route that is looked at, if it is one."""

    settings: Settings
    #: Where the settings came from, for the files that they name; that of the process when absent.
    environ: Mapping[str, str] | None
    client: Any
    connect: Connect
    clock: Clock
    #: Empty while nothing is looked at for a route.
    name: str = ""
    _shared: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        without_health_checks(self.client)

    def on(self, route: str) -> Self:
        """The same, looked at for a route; what was asked of the server is not asked again."""
        other = copy.copy(self)
        other.name = route
        for asked in ("status", "control", "keys", "_built"):
            other.__dict__.pop(asked, None)
        home = at_home(self.settings.redis_url, other.keys.prefix)
        if home != self.settings.redis_url:
            other.client = self.connect(home, client_name="execworker:doctor")
            without_health_checks(other.client)
        return other

    @cached_property
    def everywhere(self) -> Any:
        """What reaches keys outside of a route: of a cluster all nodes."""
        url = self.settings.redis_url
        return self.connect(url, client_name="execworker:doctor") if is_cluster(url) else self.client

    # The settings.

    @property
    def route(self) -> RouteSettings:
        return self.settings.routes[self.name]

    @cached_property
    def keys(self) -> RouteKeys:
        return RouteKeys(self.name)

    @property
    def is_live(self) -> bool:
        """Whether the route that is looked at, or any, sends real money."""
        routes = [self.route] if self.name else self.settings.routes.values()
        return any(one.mode is Mode.LIVE and one.live_allowed for one in routes)

    @property
    def must_be_durable(self) -> bool:
        return any(
            one.mode is Mode.LIVE and one.live_allowed and not one.allow_weak_durability
            for one in self.settings.routes.values()
        )

    @cached_property
    def confirmation(self) -> Confirmation:
        return Confirmation.of(self.settings)

    @property
    def queue_is_here(self) -> bool:
        """Whether intents are queued on the Redis that is looked at, in streams of ours."""
        queue, ours = urlsplit(self.settings.queue_url), urlsplit(self.settings.redis_url)
        # Without the logins, and whole: the name of several sentinels is not one host and port.
        places = {(one.netloc.rpartition("@")[2], one.path) for one in (queue, ours)}
        return queue.scheme.partition("+")[0] in SCHEMES and len(places) == 1

    # The server.

    def ask(self, name: str, *words: str | int) -> Any:
        """
        A command's reply, asked for once.

        Raises:
            redis.RedisError: it does not answer, or refuses.
        """
        key = " ".join(map(str, (name, *words)))
        if key not in self._shared:
            try:
                self._shared[key] = self.client.execute_command(name, *words)
            except redis.ResponseError as error:
                self._shared[key] = error
        reply = self._shared[key]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def info(self, section: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.ask("INFO", section)
        return found

    def config(self, name: str) -> str | None:
        """One of the server's settings; ``None`` where it does not tell."""
        try:
            found = self.ask("CONFIG GET", name)
        except redis.ResponseError:
            return None
        pairs = found.items() if isinstance(found, Mapping) else zip(found[::2], found[1::2], strict=True)
        values = {text(key): text(value) for key, value in pairs}
        return values.get(name)

    def way_to_ask(self, name: str) -> str:
        """What to do where `config` is ``None``; empty where that is no matter of rights."""
        try:
            self.ask("CONFIG GET", name)
        except NoPermissionError as error:
            return missing_right(error)
        except redis.ResponseError:
            pass
        return ""

    @cached_property
    def registry(self) -> Mapping[str, Enlisted | None]:
        return enlisted(self.everywhere)

    # The route on it.

    @cached_property
    def now_ms(self) -> int:
        seconds, microseconds = self.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    @cached_property
    def control(self) -> Control:
        return Control(self.client, self.name)

    @cached_property
    def status(self) -> RouteStatus:
        return self.control.status()

    # Its broker.

    @property
    def adapter(self) -> BaseBrokerAdapter | None:
        """The route's adapter, which sends nothing by being built; ``None`` in mode off, and with `faults`."""
        return self._built[0]

    @property
    def faults(self) -> list[str]:
        """Why the adapter cannot be built."""
        return self._built[1]

    def close(self) -> None:
        built = self.__dict__.get("_built")
        if built is not None and built[0] is not None:
            built[0].close()

    @cached_property
    def _built(self) -> tuple[BaseBrokerAdapter | None, list[str]]:
        try:
            return build_adapter(self.route, self.clock), []
        except ConfigError as error:
            return None, error.faults
        except ValidationError as error:
            return None, explain(error)


def text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
