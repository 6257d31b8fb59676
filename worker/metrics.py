"""
Every collector, with its labels and their closed sets of values.

Nothing is labelled with an id, a symbol, an account or a text: the number of series is known at start, and all of
them begin at 0. What comes from Redis is the same on every worker of a route (take the ``max``); the counters and
histograms are each worker's own (take the ``sum``).
"""

from __future__ import annotations

import math
import platform
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from contracts import GuardState, OrderStatus, Outcome
from worker import __version__

# They double the series and tell nothing that a restart does not.
disable_created_metrics()  # type: ignore[no-untyped-call]

PREFIX: Final = "execworker_"


class FailureReason(StrEnum):
    """Why a broker call did not end in an accepted order."""

    NOT_SENT = "not_sent"
    REJECTED = "rejected"
    IN_DOUBT = "in_doubt"
    #: An exception of ours after launch.
    BUG = "bug"


class DeadReason(StrEnum):
    """Why a worker put an entry aside. Oversized ones Redis puts aside itself; they show in the queue's depth."""

    INVALID = "invalid"
    CONFLICT = "conflict"
    POISON = "poison"


class StaleOperation(StrEnum):
    """Which write came too late: another worker held the intent by then, and nothing was changed."""

    LAUNCH = "launch"
    SETTLE = "settle"
    RESOLVE = "resolve"


class Stage(StrEnum):
    CLAIM = "claim"
    LAUNCH = "launch"
    SUBMIT = "submit"
    SETTLE = "settle"


class Resolution(StrEnum):
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    NOT_PLACED = "not_placed"


class QueueState(StrEnum):
    READY = "ready"
    LEASED = "leased"
    #: Waiting in the ledger for their lane.
    PARKED = "parked"
    DEAD = "dead"


class TellResult(StrEnum):
    """What came of trying to tell somebody of a failsafe event."""

    TOLD = "told"
    #: One try failed; there may be more.
    FAILED = "failed"
    GIVEN_UP = "given_up"


class WorkerState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"


#: Seconds. Dashboards and alerts are written against these edges: they are part of the public surface.
WAIT_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
STAGE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
END_TO_END_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class RouteStatusLike(Protocol):
    """What Redis says of a route, read about once a second. ``None``: it could not tell; shown as NaN, never 0."""

    @property
    def guard_state(self) -> GuardState: ...
    @property
    def consecutive_failures(self) -> int: ...
    @property
    def halted(self) -> bool: ...
    @property
    def ready(self) -> int | None: ...
    @property
    def leased(self) -> int: ...
    @property
    def parked(self) -> int: ...
    @property
    def dead(self) -> int: ...
    @property
    def oldest_age_seconds(self) -> float | None: ...
    @property
    def in_doubt(self) -> int: ...
    @property
    def in_doubt_oldest_age_seconds(self) -> float: ...
    @property
    def workers(self) -> int: ...


class BoundHistogram:
    """One series of a histogram."""

    __slots__ = ("_counts", "_edges", "_lock", "_sum")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self._edges = edges
        self._counts = [0] * (len(edges) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, seconds: float) -> None:
        self.observe_many((seconds,))

    def observe_many(self, seconds: Iterable[float]) -> None:
        """Count a batch under one lock, which is what makes it cheap."""
        edges, counts = self._edges, self._counts
        with self._lock:
            for value in seconds:
                counts[bisect_left(edges, value)] += 1
                self._sum += value

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """The cumulative counts by upper edge, and the sum."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        buckets: list[tuple[str, float]] = []
        below = 0
        for edge, count in zip((*self._edges, math.inf), counts, strict=True):
            below += count
            buckets.append(("+Inf" if edge == math.inf else str(edge), below))
        return buckets, total


class Histogram(Collector):
    """
    A histogram that takes batches.

    The library's own one takes two locks for each value and walks the edges; an order has six values.
    """

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], edges: tuple[float, ...]
    ) -> None:
        self._name, self._documentation, self._labels, self._edges = name, documentation, tuple(labels), edges
        self._series: dict[tuple[str, ...], BoundHistogram] = {}

    def labels(self, *values: str) -> BoundHistogram:
        return self._series.setdefault(values, BoundHistogram(self._edges))

    def describe(self) -> Iterator[HistogramMetricFamily]:
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, series in list(self._series.items()):
            buckets, total = series.read()
            family.add_metric(values, buckets, total)
        yield family


class _Collectors:
    # The list of all there is. Counters are named without ``_total``: the client adds it.

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._about_intents()
        self._about_the_broker()
        self._about_the_queue()
        self._about_the_canary()
        self._about_the_process()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self._registry)

    def _info(self, name: str, text: str, *labels: str) -> Info:
        return Info(PREFIX + name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, edges: tuple[float, ...], *labels: str) -> Histogram:
        histogram = Histogram(PREFIX + name, text, labels, edges)
        self._registry.register(histogram)
        return histogram

    def _about_intents(self) -> None:
        self.received = self._counter(
            "intents_received", "Intents taken off the queue, repeats included.", "route"
        )
        self.processed = self._counter("intents_processed", "Final answers published.", "route", "outcome")
        self.redeliveries = self._counter("redeliveries", "Queue entries handed over again.", "route")
        self.dead_letters = self._counter("dead_letters", "Queue entries put aside.", "route", "reason")
        self.stale_writes = self._counter(
            "stale_writes",
            "Writes refused because another worker held the intent by then.",
            "route",
            "operation",
        )
        self.in_progress = self._gauge(
            "intents_in_progress", "Intents that this worker works on now.", "route"
        )
        self.last_intent = self._gauge(
            "last_intent_timestamp_seconds",
            "When this worker last took an intent; 0 before the first.",
            "route",
        )
        self.queue_wait = self._histogram(
            "intent_queue_wait_seconds", "From entering the queue to being claimed.", WAIT_BUCKETS, "route"
        )
        self.stages = self._histogram(
            "intent_stage_seconds", "Time spent in one stage of one intent.", STAGE_BUCKETS, "route", "stage"
        )
        self.end_to_end = self._histogram(
            "intent_end_to_end_seconds",
            "From created_at to the published answer.",
            END_TO_END_BUCKETS,
            "route",
        )

    def _about_the_broker(self) -> None:
        self.broker_failures = self._counter(
            "broker_failures", "Broker calls that did not end in an accepted order.", "route", "reason"
        )
        self.guard_state = self._gauge(
            "guard_state", "1 for the guard's state; all 0 until Redis has told it.", "route", "state"
        )
        self.failures_in_a_row = self._gauge(
            "guard_consecutive_failures", "Failures in a row that the guard has counted.", "route"
        )
        self.guard_trips = self._counter(
            "guard_trips",
            "Trips of the guard that this worker has seen; all workers of a route see the same ones.",
            "route",
        )
        self.halted = self._gauge("halted", "1 while an operator has halted the route.", "route")
        self.in_doubt = self._gauge(
            "in_doubt_intents", "Intents sent, with nothing to prove either way.", "route"
        )
        self.in_doubt_age = self._gauge(
            "in_doubt_oldest_age_seconds", "Age of the oldest doubt; 0 when there is none.", "route"
        )
        self.doubts_resolved = self._counter("doubts_resolved", "Doubts that ended.", "route", "resolution")
        self.orphans = self._counter(
            "orphan_orders", "Orders at the broker that look like ours and that nobody owns.", "route"
        )
        self.foreign = self._counter("foreign_orders", "Orders on the account that are not ours.", "route")
        self.in_session = self._gauge(
            "in_session",
            "1 while the broker's market takes orders, as far as the calendar tells; 0 in mode off.",
            "route",
        )
        self.order_events = self._counter(
            "order_events", "Changes of accepted orders that this worker published.", "route", "status"
        )

    def _about_the_queue(self) -> None:
        self.depth = self._gauge(
            "queue_depth", "Queue entries and intents by where they wait.", "route", "state"
        )
        self.oldest = self._gauge(
            "queue_oldest_intent_age_seconds", "Age of the oldest intent that nobody has claimed.", "route"
        )
        self.workers = self._gauge("workers", "Workers of the route with a fresh heartbeat.", "route")

    def _about_the_canary(self) -> None:
        self.canary_interval = self._gauge(
            "canary_interval_seconds", "What `canary_interval` is set to; 0 when there is no canary.", "route"
        )
        self.canary = self._histogram(
            "canary_seconds",
            "From before a canary is enqueued until its answer is read, by the worker that sends them.",
            END_TO_END_BUCKETS,
            "route",
        )
        self.canary_failures = self._counter(
            "canary_failures", "Canaries without an answer in time, or with a wrong one.", "route"
        )
        self.canary_success = self._gauge(
            "canary_last_success_timestamp_seconds",
            "When this worker last had a canary back; 0 on the workers that send none.",
            "route",
        )

    def _about_the_process(self) -> None:
        self.told = self._counter(
            "told",
            "Failsafe events told to people by this process, and tries that failed.",
            "route",
            "result",
        )
        self.build = self._info("build", "The version that runs; always 1.")
        self.config = self._info("config", "What the route is set to; always 1.", "route")
        self.state = self._gauge("state", "1 for the worker's state.", "state")
        self.progress = self._gauge(
            "last_progress_timestamp_seconds", "When the loop that takes intents last went round."
        )
        self.redis_up = self._gauge("redis_up", "1 while Redis answers.")
        self.redis_errors = self._counter("redis_errors", "Calls that Redis did not answer.")
        self.clock_skew = self._gauge("clock_skew_seconds", "This machine's clock minus Redis's.")


class RouteMetrics:
    """The series of one route, bound once: what a hot path calls looks nothing up."""

    def __init__(self, collectors: _Collectors, route: str) -> None:
        self._config = collectors.config.labels(route)
        self._bind_counters(collectors, route)
        self._bind_gauges(collectors, route)
        self._queue_wait = collectors.queue_wait.labels(route)
        self._end_to_end = collectors.end_to_end.labels(route)
        self._stages = {stage: collectors.stages.labels(route, stage) for stage in Stage}
        self._canary = collectors.canary.labels(route)

    def _bind_counters(self, collectors: _Collectors, route: str) -> None:
        self._received = collectors.received.labels(route)
        self._processed = {
            outcome: collectors.processed.labels(route, outcome.lower()) for outcome in Outcome
        }
        self._failures = _bound(collectors.broker_failures, route, FailureReason)
        self._redeliveries = collectors.redeliveries.labels(route)
        self._dead_letters = _bound(collectors.dead_letters, route, DeadReason)
        self._stale_writes = _bound(collectors.stale_writes, route, StaleOperation)
        self._resolved = _bound(collectors.doubts_resolved, route, Resolution)
        self._trips = collectors.guard_trips.labels(route)
        self._orphans = collectors.orphans.labels(route)
        self._foreign = collectors.foreign.labels(route)
        self._canary_failures = collectors.canary_failures.labels(route)
        self._order_events = {
            status: collectors.order_events.labels(route, status.lower()) for status in OrderStatus
        }

    def _bind_gauges(self, collectors: _Collectors, route: str) -> None:
        self._guard = {state: collectors.guard_state.labels(route, state) for state in GuardState}
        self._depth = {state: collectors.depth.labels(route, state) for state in QueueState}
        self._failures_in_a_row = collectors.failures_in_a_row.labels(route)
        self._halted = collectors.halted.labels(route)
        self._in_doubt = collectors.in_doubt.labels(route)
        self._in_doubt_age = collectors.in_doubt_age.labels(route)
        self._oldest = collectors.oldest.labels(route)
        self._workers = collectors.workers.labels(route)
        self._in_progress = collectors.in_progress.labels(route)
        self._last_intent = collectors.last_intent.labels(route)
        self._in_session = collectors.in_session.labels(route)
        self._canary_interval = collectors.canary_interval.labels(route)
        self._canary_success = collectors.canary_success.labels(route)

    def received(self, n: int = 1) -> None:
        self._received.inc(n)

    def processed(self, outcome: Outcome, n: int = 1) -> None:
        self._processed[outcome].inc(n)

    def broker_failure(self, reason: FailureReason, n: int = 1) -> None:
        self._failures[reason].inc(n)

    def redelivered(self, n: int = 1) -> None:
        self._redeliveries.inc(n)

    def dead(self, reason: DeadReason, n: int = 1) -> None:
        self._dead_letters[reason].inc(n)

    def stale_write(self, operation: StaleOperation, n: int = 1) -> None:
        self._stale_writes[operation].inc(n)

    def doubt_resolved(self, resolution: Resolution, n: int = 1) -> None:
        self._resolved[resolution].inc(n)

    def guard_tripped(self) -> None:
        self._trips.inc()

    def orphan_order(self, n: int = 1) -> None:
        self._orphans.inc(n)

    def foreign_order(self, n: int = 1) -> None:
        self._foreign.inc(n)

    def order_event(self, status: OrderStatus) -> None:
        self._order_events[status].inc()

    def in_progress(self, n: int) -> None:
        """So many are being worked on now."""
        self._in_progress.set(n)

    def intent_taken(self, timestamp: float) -> None:
        """The last intent was taken at this time, in seconds since 1970."""
        self._last_intent.set(timestamp)

    def queue_wait(self, seconds: Iterable[float]) -> None:
        self._queue_wait.observe_many(seconds)

    def stage(self, stage: Stage, seconds: Iterable[float]) -> None:
        self._stages[stage].observe_many(seconds)

    def end_to_end(self, seconds: Iterable[float]) -> None:
        self._end_to_end.observe_many(seconds)

    def in_session(self, look: Callable[[], bool]) -> None:
        """Ask ``look`` at each scrape whether the market takes orders. What it raises shows as NaN."""

        def ask() -> float:
            try:
                return float(look())
            except Exception:  # noqa: BLE001  a fault of an adapter must not hide all other figures
                return math.nan

        self._in_session.set_function(ask)

    def canary_scheduled(self, interval: float) -> None:
        """A canary leaves every so many seconds, from this worker or another one."""
        self._canary_interval.set(interval)

    def canary_passed(self, seconds: float, timestamp: float) -> None:
        """It took so long, and was back at this time, in seconds since 1970."""
        self._canary.observe(seconds)
        self._canary_success.set(timestamp)

    def canary_failed(self) -> None:
        self._canary_failures.inc()

    def configured(self, *, broker: str, mode: str) -> None:
        self._config.info({"broker": broker, "mode": mode})

    def observe_status(self, status: RouteStatusLike) -> None:
        """Show what Redis says of the route. Call it about once a second."""
        for state, gauge in self._guard.items():
            gauge.set(state is status.guard_state)
        self._failures_in_a_row.set(status.consecutive_failures)
        self._halted.set(status.halted)
        self._depth[QueueState.READY].set(_or_nan(status.ready))
        self._depth[QueueState.LEASED].set(status.leased)
        self._depth[QueueState.PARKED].set(status.parked)
        self._depth[QueueState.DEAD].set(status.dead)
        self._oldest.set(_or_nan(status.oldest_age_seconds))
        self._in_doubt.set(status.in_doubt)
        self._in_doubt_age.set(status.in_doubt_oldest_age_seconds)
        self._workers.set(status.workers)


class Metrics:
    """All series of this process. Each has a registry of its own, so that two never meet in one test."""

    def __init__(
        self, routes: Sequence[str], registry: CollectorRegistry | None = None, *, revision: str = ""
    ) -> None:
        self.registry = registry or CollectorRegistry()
        self._collectors = _Collectors(self.registry)
        self._routes: Mapping[str, RouteMetrics] = {
            name: RouteMetrics(self._collectors, name) for name in routes
        }
        for name in routes:
            _bound(self._collectors.told, name, TellResult)
        self._states = {state: self._collectors.state.labels(state) for state in WorkerState}
        build = {"version": __version__, "revision": revision, "python": platform.python_version()}
        self._collectors.build.info(build)
        # Memory, processor time and open files of this process, under the names that every dashboard knows.
        ProcessCollector(registry=self.registry)

    def route(self, name: str) -> RouteMetrics:
        return self._routes[name]

    def told(self, route: str, result: TellResult) -> None:
        """Of any route: events are told by whoever is alive."""
        self._collectors.told.labels(route, result).inc()

    def state(self, state: WorkerState) -> None:
        for each, gauge in self._states.items():
            gauge.set(each is state)

    def progress(self, timestamp: float) -> None:
        """The loop that takes intents went round, in seconds since 1970. Not to be called from a thread beside it."""
        self._collectors.progress.set(timestamp)

    def redis_up(self, up: bool) -> None:
        self._collectors.redis_up.set(up)

    def redis_error(self, n: int = 1) -> None:
        self._collectors.redis_errors.inc(n)

    def clock_skew(self, seconds: float) -> None:
        self._collectors.clock_skew.set(seconds)


_L = TypeVar("_L", bound=StrEnum)


def _bound(counter: Counter, route: str, values: type[_L]) -> dict[_L, Counter]:
    return {value: counter.labels(route, value) for value in values}


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


#: Labels whose values come from the settings or the machine, not from a list above.
_OPEN_LABELS = frozenset({"route", "broker", "mode", "version", "revision", "python", "le"})


def metrics_table() -> str:
    """Every series as a markdown table, for ``docs/metrics.md``."""
    metrics = Metrics(["default"])
    metrics.route("default").configured(broker="simulated", mode="off")
    rows = ["| name | type | labels | meaning |", "|---|---|---|---|"]
    for family in metrics.registry.collect():
        if not family.name.startswith(PREFIX):
            continue
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        values: dict[str, list[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                seen = values.setdefault(label, [])
                if value not in seen:
                    seen.append(value)
        values.pop("le", None)
        labels = ", ".join(_label(label, seen) for label, seen in values.items())
        rows.append(f"| `{name}` | {family.type} | {labels or '–'} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def _label(label: str, values: list[str]) -> str:
    return f"`{label}`" if label in _OPEN_LABELS else f"`{label}` ({', '.join(values)})"
