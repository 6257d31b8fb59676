"""Which broker a route gets: by permission, and by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
from mock_broker import MockBroker

import worker.brokers.registry as registry
from contracts import Code, ExecutionIntent, Outcome
from worker.brokers import (
    BrokerEngine,
    LiveBroker,
    NoopBroker,
    Send,
    adapter_class,
    broker_names,
    create_broker_for_execution,
)
from worker.brokers.simulated import SimulatedBrokerAdapter
from worker.clock import ManualClock
from worker.errors import ConfigError

Make = Callable[..., ExecutionIntent]


@pytest.mark.parametrize(
    ("live_allowed", "has_adapter", "code"),
    [(False, False, Code.NOOP), (True, False, Code.NOOP), (False, True, Code.LIVE_NOT_ALLOWED)],
)
def test_without_permission_and_an_adapter_nothing_can_be_sent(
    make_intent: Make, live_allowed: bool, has_adapter: bool, code: Code
) -> None:
    adapter = MockBroker()

    broker = create_broker_for_execution(live_allowed, adapter if has_adapter else None)
    response = broker.submit_intent(make_intent())

    assert isinstance(broker, NoopBroker)
    assert (response.outcome, response.code, response.broker) == (Outcome.DENIED, code, "noop")
    assert adapter.placed == []


def test_with_permission_and_an_adapter_orders_are_sent(make_intent: Make) -> None:
    adapter = MockBroker()

    broker = create_broker_for_execution(True, adapter, max_consecutive_failures=1, name="mine")

    assert isinstance(broker, LiveBroker)
    assert broker.submit_intent(make_intent()).broker == "mine"
    assert len(adapter.placed) == 1


@pytest.mark.parametrize("permission", ["false", "no", 1, "true", None])
def test_a_permission_that_is_not_exactly_true_is_none(permission: Any) -> None:
    assert isinstance(create_broker_for_execution(permission, MockBroker()), NoopBroker)


def test_the_noop_broker_says_on_which_route_and_when_nothing_was_sent(make_intent: Make) -> None:
    clock = ManualClock()
    broker: BrokerEngine = NoopBroker(Code.PRETRADE, "too big", clock=clock)

    response = broker.submit_intent(make_intent(), Send("main", 3))

    assert (response.code, response.message, response.route) == (Code.PRETRADE, "too big", "main")
    assert (response.timestamp, response.attempts, response.sent_at) == (clock.now(), 0, None)


def test_the_simulated_broker_is_found_by_name() -> None:
    assert adapter_class("simulated") is SimulatedBrokerAdapter
    assert "simulated" in broker_names()


def register(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    """Pretend that other packages registered these names."""
    found = EntryPoints(EntryPoint(name, value, registry.GROUP) for name, value in points)
    monkeypatch.setattr(registry, "entry_points", lambda **wanted: found.select(**wanted))


def test_a_broker_of_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ("mock", "mock_broker:MockBroker"))

    assert adapter_class("mock") is MockBroker
    assert "mock" in broker_names()


def test_our_own_brokers_work_where_the_installation_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)

    assert adapter_class("simulated") is SimulatedBrokerAdapter


def test_another_package_cannot_take_the_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ("simulated", "mock_broker:MockBroker"))

    assert adapter_class("simulated") is SimulatedBrokerAdapter


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ([], "no broker is called 'acme'; known are .*simulated"),
        ([("acme", "no_such_module:Adapter")], "cannot be loaded from no_such_module:Adapter"),
        ([("acme", "mock_broker:Missing")], "cannot be loaded"),
        ([("acme", "mock_broker:Answer")], "no BaseBrokerAdapter"),
        ([("acme", "mock_broker:MockBroker"), ("acme", "other:Adapter")], "more than once"),
    ],
)
def test_a_broker_that_cannot_be_used_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, points: list[tuple[str, str]], text: str
) -> None:
    register(monkeypatch, *points)

    with pytest.raises(ConfigError, match=text) as refused:
        adapter_class("acme")

    assert all(fault.startswith("broker: ") for fault in refused.value.faults)
