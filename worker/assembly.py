"""What the parts of a route are made from: its settings."""

from __future__ import annotations

from pathlib import Path

from contracts import Code
from worker import __version__
from worker.brokers import (
    BaseBrokerAdapter,
    BrokerEngine,
    NoopBroker,
    adapter_class,
    create_broker_for_execution,
)
from worker.clock import Clock
from worker.durability import Confirmation
from worker.engine import EngineRules
from worker.errors import ConfigError
from worker.guard import OpenGuard
from worker.ledger import LedgerRules
from worker.settings import Mode, RouteSettings


def common(route: RouteSettings) -> dict[str, str]:
    """What all workers of a route should have in common, as it stands beside their heartbeat."""
    return {"version": __version__, "mode": route.mode, "settings": route.digest, "build": _build(route)}


def _build(route: RouteSettings) -> str:
    return f"{__version__}/{route.digest}"


def build_adapter(route: RouteSettings, clock: Clock) -> BaseBrokerAdapter | None:
    """
    The adapter of a route; none in mode off, which needs no credentials.

    Raises:
        ConfigError: the broker or its options cannot be used; each fault is named.
    """
    kind = adapter_class(route.broker)
    if route.mode is Mode.OFF:
        return None
    adapter = kind.from_options(route.options, mode=route.mode, clock=clock)
    if not adapter.client_order_ids and route.lane_on_doubt == "continue":
        fault = f"lane_on_doubt: {route.broker} knows no ids of ours, so an order in doubt must hold its lane; set it to wait"
        raise ConfigError([fault])
    return adapter


def build_broker(route: RouteSettings, adapter: BaseBrokerAdapter | None, clock: Clock) -> BrokerEngine:
    """The broker that the mode permits: one that sends nothing, unless all says otherwise."""
    if route.mode is Mode.OFF:
        message = "the route's mode is off: nothing was sent; set its MODE to paper or live to trade"
        return NoopBroker(Code.NOOP, message, clock=clock)
    allowed = route.mode is not Mode.LIVE or route.live_allowed
    return create_broker_for_execution(
        allowed,
        adapter,
        guard=OpenGuard(),
        clock=clock,
        count_rejected=route.count_rejected,
        default_venue=_venue(route),
    )


def _venue(route: RouteSettings) -> str | None:
    venue = route.options.get("venue")
    return str(venue) if venue else None


def ledger_rules(
    route: RouteSettings, adapter: BaseBrokerAdapter | None, confirmation: Confirmation
) -> LedgerRules:
    return LedgerRules(
        lease=route.lease,
        retention=route.retention,
        lane_on_doubt=route.lane_on_doubt,
        max_consecutive_failures=route.max_consecutive_failures,
        order_timeout=route.order_timeout,
        visibility_lag=adapter.visibility_lag if adapter else 0.0,
        rate_limit=route.rate_limit or (adapter.rate_limit if adapter else None),
        future_skew=route.future_skew,
        confirmation=confirmation,
        build=_build(route) if route.mode is Mode.LIVE and route.live_allowed else "",
    )


def engine_rules(
    name: str, route: RouteSettings, halt_file: Path | None, adapter: BaseBrokerAdapter | None
) -> EngineRules:
    return EngineRules(
        route=name,
        max_age=route.max_age,
        count_rejected=route.count_rejected,
        concurrency=route.concurrency,
        not_sent_retries=route.not_sent_retries,
        halt_file=halt_file,
        default_venue=_venue(route),
        order_keys=adapter is not None and not adapter.client_order_ids,
    )


def weak_redis(name: str, faults: list[str]) -> list[str]:
    cure = (
        f"route {name} is live, and this Redis may forget a launched order in a crash, so that it could be placed "
        "twice; make it durable, or say that you accept this: "
        f"EXECWORKER_ROUTES__{name}__ALLOW_WEAK_DURABILITY=true"
    )
    return [*faults, cure]
