"""Metrics: names and edges that dashboards depend on, all series from the start, batches counted right."""

from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from contracts import GuardState, Outcome
from worker.metrics import (
    END_TO_END_BUCKETS,
    PREFIX,
    STAGE_BUCKETS,
    WAIT_BUCKETS,
    BoundHistogram,
    DeadReason,
    FailureReason,
    Metrics,
    Resolution,
    Stage,
    StaleOperation,
    WorkerState,
    metrics_table,
)

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"

#: The names that DESIGN.md fixes, as Prometheus shows them.
FIXED = {
    "execworker_intents_received_total",
    "execworker_intents_processed_total",
    "execworker_broker_failures_total",
    "execworker_guard_state",
    "execworker_guard_trips_total",
    "execworker_in_doubt_intents",
    "execworker_queue_depth",
    "execworker_queue_oldest_intent_age_seconds",
    "execworker_intent_end_to_end_seconds_count",
    "execworker_build_info",
}


@dataclass(frozen=True)
class Status:
    guard_state: GuardState = GuardState.NORMAL
    consecutive_failures: int = 0
    halted: bool = False
    ready: int | None = 0
    leased: int = 0
    parked: int = 0
    dead: int = 0
    oldest_age_seconds: float | None = 0.0
    in_doubt: int = 0
    in_doubt_oldest_age_seconds: float = 0.0
    workers: int = 1


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(PREFIX + name, labels)


def samples(metrics: Metrics) -> set[str]:
    return {sample.name for family in metrics.registry.collect() for sample in family.samples}


def test_the_names_that_dashboards_depend_on_are_all_there() -> None:
    assert samples(Metrics(["default"])) >= FIXED


def test_every_series_of_every_route_is_at_zero_before_anything_happened() -> None:
    metrics = Metrics(["kis", "paper"])

    ours = [
        sample
        for family in metrics.registry.collect()
        if family.name.startswith(PREFIX) and family.type != "info"
        for sample in family.samples
    ]
    assert {sample.value for sample in ours} == {0}
    by_route = {
        route: sorted(
            str((s.name, {**s.labels, "route": ""})) for s in ours if s.labels.get("route") == route
        )
        for route in ("kis", "paper")
    }
    assert by_route["kis"] == by_route["paper"]
    assert len(by_route["kis"]) > 100


def test_no_series_tells_when_it_was_created() -> None:
    assert not [name for name in samples(Metrics(["default"])) if name.endswith("_created")]


def test_every_answer_is_counted_under_its_outcome() -> None:
    metrics = Metrics(["default"])

    for n, outcome in enumerate(Outcome, start=1):
        metrics.route("default").processed(outcome, n)

    counted = {
        outcome: value(metrics, "intents_processed_total", route="default", outcome=outcome)
        for outcome in ("accepted", "rejected", "denied", "expired", "not_sent", "not_placed")
    }
    assert list(counted.values()) == [1, 2, 3, 4, 5, 6]


def test_every_count_lands_on_its_own_series_and_route() -> None:
    metrics = Metrics(["default", "other"])
    route = metrics.route("default")

    route.received(64)
    route.broker_failure(FailureReason.BUG)
    route.redelivered(2)
    route.dead(DeadReason.POISON)
    route.stale_write(StaleOperation.SETTLE, 3)
    route.doubt_resolved(Resolution.NOT_PLACED)
    route.guard_tripped()
    route.orphan_order()
    route.foreign_order(4)
    route.in_progress(7)
    route.intent_taken(1e9)

    def of(name: str, **labels: str) -> float | None:
        assert value(metrics, name, route="other", **labels) == 0
        return value(metrics, name, route="default", **labels)

    assert of("intents_received_total") == 64
    assert of("broker_failures_total", reason="bug") == 1
    assert of("redeliveries_total") == 2
    assert of("dead_letters_total", reason="poison") == 1
    assert of("stale_writes_total", operation="settle") == 3
    assert of("doubts_resolved_total", resolution="not_placed") == 1
    assert of("guard_trips_total") == 1
    assert of("orphan_orders_total") == 1
    assert of("foreign_orders_total") == 4
    assert of("intents_in_progress") == 7
    assert of("last_intent_timestamp_seconds") == 1e9


def test_the_guard_shows_exactly_one_state_once_redis_has_told_it() -> None:
    metrics = Metrics(["default"])

    for told in GuardState:
        metrics.route("default").observe_status(Status(guard_state=told))

        shown = {state: value(metrics, "guard_state", route="default", state=state) for state in GuardState}
        assert shown == {state: float(state is told) for state in GuardState}


def test_what_redis_tells_is_shown() -> None:
    metrics = Metrics(["default"])
    status = Status(
        consecutive_failures=2,
        halted=True,
        ready=10,
        leased=3,
        parked=4,
        dead=5,
        oldest_age_seconds=6.5,
        in_doubt=7,
        in_doubt_oldest_age_seconds=8.5,
        workers=9,
    )

    metrics.route("default").observe_status(status)

    depth = [
        value(metrics, "queue_depth", route="default", state=s) for s in ("ready", "leased", "parked", "dead")
    ]
    assert depth == [10, 3, 4, 5]
    assert value(metrics, "guard_consecutive_failures", route="default") == 2
    assert value(metrics, "halted", route="default") == 1
    assert value(metrics, "queue_oldest_intent_age_seconds", route="default") == 6.5
    assert value(metrics, "in_doubt_intents", route="default") == 7
    assert value(metrics, "in_doubt_oldest_age_seconds", route="default") == 8.5
    assert value(metrics, "workers", route="default") == 9


def test_a_backlog_that_redis_cannot_tell_is_not_shown_as_empty() -> None:
    metrics = Metrics(["default"])
    status = Status(ready=3, oldest_age_seconds=1.0)

    metrics.route("default").observe_status(replace(status, ready=None, oldest_age_seconds=None))

    assert math.isnan(value(metrics, "queue_depth", route="default", state="ready") or 0)
    assert math.isnan(value(metrics, "queue_oldest_intent_age_seconds", route="default") or 0)


def test_an_adapter_that_fails_to_tell_of_its_market_hides_no_other_figure() -> None:
    metrics = Metrics(["default", "other"])
    metrics.route("default").in_session(lambda: bool(1 // 0))
    metrics.route("other").in_session(lambda: True)

    assert math.isnan(value(metrics, "in_session", route="default") or 0)
    assert value(metrics, "in_session", route="other") == 1


def test_a_canary_that_passed_is_measured_and_dated_and_one_that_failed_is_counted() -> None:
    metrics = Metrics(["default"])
    route = metrics.route("default")

    route.canary_scheduled(30.0)
    route.canary_passed(0.02, 1e9)
    route.canary_failed()

    assert value(metrics, "canary_interval_seconds", route="default") == 30
    assert value(metrics, "canary_seconds_bucket", route="default", le="0.025") == 1
    assert value(metrics, "canary_last_success_timestamp_seconds", route="default") == 1e9
    assert value(metrics, "canary_failures_total", route="default") == 1


def test_the_worker_is_in_exactly_one_state() -> None:
    metrics = Metrics(["default"])

    metrics.state(WorkerState.RUNNING)
    metrics.state(WorkerState.DRAINING)

    assert [value(metrics, "state", state=state) for state in WorkerState] == [0, 0, 1]


def test_the_process_shows_its_version_its_routes_and_its_link_to_redis() -> None:
    metrics = Metrics(["default"], revision="abc")

    metrics.route("default").configured(broker="kis", mode="paper")
    metrics.redis_up(True)
    metrics.redis_error(2)
    metrics.clock_skew(-0.5)
    metrics.progress(1e9)

    assert value(metrics, "config_info", route="default", broker="kis", mode="paper") == 1
    text = generate_latest(metrics.registry).decode()
    assert 'execworker_build_info{python="3.' in text
    assert 'revision="abc"' in text
    assert value(metrics, "redis_up") == 1
    assert value(metrics, "redis_errors_total") == 2
    assert value(metrics, "clock_skew_seconds") == -0.5
    assert value(metrics, "last_progress_timestamp_seconds") == 1e9


def test_the_edges_of_the_histograms_never_change() -> None:
    assert WAIT_BUCKETS == (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
    assert STAGE_BUCKETS == (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
    assert END_TO_END_BUCKETS == (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
    text = DOCS.read_text(encoding="utf-8")
    for edges in (WAIT_BUCKETS, STAGE_BUCKETS, END_TO_END_BUCKETS):
        assert " ".join(f"{edge:g}" for edge in edges) in text


def test_a_batch_is_counted_as_the_prometheus_client_would_count_it_one_by_one() -> None:
    metrics = Metrics(["default"])
    registry = CollectorRegistry()
    theirs = prometheus_client.Histogram(
        PREFIX + "intent_end_to_end_seconds", "-", ["route"], buckets=END_TO_END_BUCKETS, registry=registry
    )
    seconds = [0.0, 0.005, 0.0050001, 0.3, 1.0, 299.0, 300.0, 301.0, 1e6]

    metrics.route("default").end_to_end(seconds[:4])
    metrics.route("default").end_to_end(seconds[4:])
    for each in seconds:
        theirs.labels("default").observe(each)

    for sample in next(iter(registry.collect())).samples:
        assert metrics.registry.get_sample_value(sample.name, sample.labels) == sample.value, sample


def test_each_stage_has_its_own_histogram() -> None:
    metrics = Metrics(["default"])

    for n, stage in enumerate(Stage, start=1):
        metrics.route("default").stage(stage, [0.02] * n)
    metrics.route("default").queue_wait([1.0])

    counts = [value(metrics, "intent_stage_seconds_count", route="default", stage=stage) for stage in Stage]
    assert counts == [1, 2, 3, 4]
    assert value(metrics, "intent_queue_wait_seconds_sum", route="default") == 1


def test_no_observation_is_lost_between_threads() -> None:
    histogram = BoundHistogram((1.0,))

    def observe() -> None:
        for _ in range(2000):
            histogram.observe(0.5)

    threads = [threading.Thread(target=observe) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert histogram.read() == ([("1.0", 8000), ("+Inf", 8000)], 4000.0)


def test_two_workers_in_one_process_do_not_share_counts() -> None:
    one, other = Metrics(["default"]), Metrics(["default"])

    one.route("default").received()

    assert value(other, "intents_received_total", route="default") == 0


def test_a_route_that_is_not_configured_has_no_series() -> None:
    with pytest.raises(KeyError):
        Metrics(["default"]).route("other")


def test_every_collector_says_what_it_means_and_carries_its_unit() -> None:
    plain = {"guard_state", "guard_consecutive_failures", "halted", "in_doubt_intents", "intents_in_progress"}
    plain |= {"in_session", "queue_depth", "redis_up", "state", "workers"}

    for family in Metrics(["default"]).registry.collect():
        if family.name.startswith(PREFIX):
            assert family.documentation.endswith("."), family.name
            name = family.name.removeprefix(PREFIX)
            assert family.type in ("counter", "info") or name.endswith("_seconds") or name in plain, (
                family.name
            )


def test_labels_come_from_closed_lists_and_never_name_an_intent() -> None:
    allowed = {
        "route",
        "outcome",
        "reason",
        "state",
        "operation",
        "stage",
        "resolution",
        "result",
        "status",
        "le",
    }
    allowed |= {"broker", "mode", "version", "revision", "python"}

    labels = {
        label
        for family in Metrics(["default"]).registry.collect()
        if family.name.startswith(PREFIX)
        for sample in family.samples
        for label in sample.labels
    }

    assert labels <= allowed


def test_the_docs_list_every_series_as_it_is() -> None:
    head, begin, rest = DOCS.read_text(encoding="utf-8").partition("<!-- metrics_table() -->\n")
    table, end, tail = rest.partition("<!-- end -->\n")
    if os.environ.get("UPDATE_DOCS"):
        DOCS.write_text(head + begin + metrics_table() + end + tail, encoding="utf-8")
        return

    assert begin
    assert table == metrics_table(), "run UPDATE_DOCS=1 pytest tests/unit/test_metrics.py"
