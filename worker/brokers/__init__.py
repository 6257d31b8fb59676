"""Brokers: the policy around one adapter, and the adapters."""

from __future__ import annotations

from typing import Any

from contracts import Code
from worker.brokers.base import AdapterFault, BaseBrokerAdapter, BrokerEngine, ClosedOptions, Send
from worker.brokers.live import LiveBroker
from worker.brokers.noop import NoopBroker
from worker.brokers.registry import adapter_class, broker_names

__all__ = [
    "AdapterFault",
    "BaseBrokerAdapter",
    "BrokerEngine",
    "ClosedOptions",
    "LiveBroker",
    "NoopBroker",
    "Send",
    "adapter_class",
    "broker_names",
    "create_broker_for_execution",
]


def create_broker_for_execution(
    live_allowed: bool, adapter: BaseBrokerAdapter | None, **live_broker_kwargs: Any
) -> LiveBroker | NoopBroker:
    """A broker that can send needs both the permission and an adapter; without either it is a `NoopBroker`."""
    if adapter is None:
        return NoopBroker(Code.NOOP)
    if live_allowed is not True:
        return NoopBroker(Code.LIVE_NOT_ALLOWED)
    return LiveBroker(adapter, **live_broker_kwargs)
