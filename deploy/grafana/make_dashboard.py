"""
Makes ``dashboards/execworker.json``: ``python deploy/grafana/make_dashboard.py`` writes it anew.

Grafana takes the file as it is (schema 39, Grafana 10 to 12; https://grafana.com/docs/grafana/latest/dashboards/
build-dashboards/view-dashboard-json-model/, read 2026-11). A panel stands where it fits next, from left to right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "dashboards" / "execworker.json"

#: Grafana's grid is 24 wide.
WIDTH = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
ROUTE = 'route=~"$route"'
PROCESS = 'job="execworker", instance=~"$instance"'

#: A query, and how its lines are called.
Query = tuple[str, str]


def panel(
    title: str,
    *queries: Query,
    kind: str = "timeseries",
    unit: str = "short",
    wide: int = 8,
    tall: int = 8,
    about: str = "",
    red_from: float | None = None,
    mappings: Sequence[dict[str, Any]] = (),
    instant: bool = False,
) -> dict[str, Any]:
    """One panel, without its place. ``red_from``: the value from which it is shown in red."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if red_from is not None:
        steps.append({"color": "red", "value": red_from})
    defaults: dict[str, Any] = {
        "unit": unit,
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": list(mappings),
    }
    if kind == "timeseries":
        defaults["custom"] = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False}
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": DATASOURCE,
        "gridPos": {"w": wide, "h": tall},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(kind),
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "expr": expr,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                "format": {"table": "table", "heatmap": "heatmap"}.get(kind, "time_series"),
            }
            for number, (expr, legend) in enumerate(queries)
        ],
    }


def _options(kind: str) -> dict[str, Any]:
    match kind:
        case "stat":
            return {
                "colorMode": "background",
                "reduceOptions": {"calcs": ["lastNotNull"]},
                "textMode": "auto",
            }
        case "heatmap":
            return {"calculate": False, "yAxis": {"unit": "s"}, "color": {"scheme": "Oranges"}}
        case "state-timeline":
            return {"showValue": "never", "mergeValues": True}
        case "table":
            return {"showHeader": True}
        case _:
            return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}


def stat(title: str, expr: str, legend: str = "{{route}}", **more: Any) -> dict[str, Any]:
    return panel(title, (expr, legend), kind="stat", wide=4, tall=4, instant=True, **more)


def told(name: str) -> str:
    """What Redis tells, the same on every worker of a route."""
    return f"max by (route) (execworker_{name}{{{ROUTE}}})"


def rate(name: str, *by: str) -> str:
    """What each worker counts for itself, together and in a second."""
    return (
        f"sum by ({', '.join(('route', *by))}) (rate(execworker_{name}_total{{{ROUTE}}}[$__rate_interval]))"
    )


def heat(title: str, name: str) -> dict[str, Any]:
    expr = f"sum by (le) (increase(execworker_{name}_bucket{{{ROUTE}}}[$__rate_interval]))"
    return panel(title + ", spread", (expr, "{{le}}"), kind="heatmap")


def since(name: str, labels: str) -> str:
    """Seconds since a moment that a metric tells; nothing where it never came."""
    return f"time() - (execworker_{name}_timestamp_seconds{{{labels}}} > 0)"


_ON_OFF = [
    {
        "type": "value",
        "options": {"0": {"text": "no", "color": "green"}, "1": {"text": "YES", "color": "red"}},
    }
]
_OPEN_SHUT = [
    {
        "type": "value",
        "options": {"0": {"text": "closed", "color": "blue"}, "1": {"text": "open", "color": "green"}},
    }
]


def at_a_glance() -> Iterator[dict[str, Any]]:
    firing = 'ALERTS{alertname=~"ExecWorker.+", alertstate="firing"}'
    yield panel("Alerts that fire", (firing, ""), kind="table", wide=12, tall=8, instant=True)
    tripped = f'max by (route) (execworker_guard_state{{{ROUTE}, state=~"FAIL|LOCKDOWN"}})'
    yield stat("Guard tripped", tripped, mappings=_ON_OFF, red_from=1)
    yield stat("Halted", told("halted"), mappings=_ON_OFF, red_from=1)
    yield stat("Market", told("in_session"), mappings=_OPEN_SHUT)
    yield stat("In doubt", told("in_doubt_intents"), red_from=1)
    yield stat("Oldest in the queue", told("queue_oldest_intent_age_seconds"), unit="s", red_from=10)
    yield stat("Workers", told("workers"))


def traffic() -> Iterator[dict[str, Any]]:
    answers = f"sum by (outcome) (route_outcome:execworker_intents_processed:rate5m{{{ROUTE}}})"
    yield panel("Answers in a second", (answers, "{{outcome}}"), unit="ops")
    yield panel(
        "From created to answered",
        (f"route:execworker_intent_end_to_end_seconds:p50_5m{{{ROUTE}}}", "{{route}} half"),
        (f"route:execworker_intent_end_to_end_seconds:p99_5m{{{ROUTE}}}", "{{route}} 99 of 100"),
        unit="s",
    )
    yield heat("From created to answered", "intent_end_to_end_seconds")
    yield panel(
        "99 of 100, by stage",
        (f"route_stage:execworker_intent_stage_seconds:p99_5m{{{ROUTE}}}", "{{route}} {{stage}}"),
        unit="s",
    )
    yield heat("From the queue to the launch", "intent_queue_wait_seconds")
    yield panel(
        "Taken and worked on",
        (rate("intents_received"), "{{route}} taken in a second"),
        (f"sum by (route) (execworker_intents_in_progress{{{ROUTE}}})", "{{route}} in progress"),
    )
    yield panel(
        "What became of accepted orders", (rate("order_events", "status"), "{{route}} {{status}}"), unit="ops"
    )


def queue() -> Iterator[dict[str, Any]]:
    depth = f"max by (route, state) (execworker_queue_depth{{{ROUTE}}})"
    yield panel("Where intents wait", (depth, "{{route}} {{state}}"))
    yield panel(
        "Age of the oldest intent that waits",
        (told("queue_oldest_intent_age_seconds"), "{{route}}"),
        unit="s",
        red_from=10,
    )
    taken = f"min by (route) ({since('last_intent', ROUTE)})"
    yield panel("Since the last intent was taken", (taken, "{{route}}"), unit="s")
    yield panel("Dead letters in a second", (rate("dead_letters", "reason"), "{{route}} {{reason}}"))
    yield panel(
        "Handed over again; written too late",
        (rate("redeliveries"), "{{route}} again"),
        (rate("stale_writes", "operation"), "{{route}} too late: {{operation}}"),
    )


def broker() -> Iterator[dict[str, Any]]:
    yield panel("Failures in a second", (rate("broker_failures", "reason"), "{{route}} {{reason}}"))
    ratio = f"route:execworker_broker_failures:ratio_rate5m{{{ROUTE}}}"
    yield panel("Share of calls that fail", (ratio, "{{route}}"), unit="percentunit", red_from=0.2)
    yield panel(
        "Calls in five minutes", (f"route:execworker_broker_calls:increase5m{{{ROUTE}}}", "{{route}}")
    )
    state = f"max by (route, state) (execworker_guard_state{{{ROUTE}}})"
    yield panel("Guard", (state, "{{route}} {{state}}"), kind="state-timeline", red_from=1)
    yield panel(
        "Failures in a row, and trips",
        (told("guard_consecutive_failures"), "{{route}} in a row"),
        (
            f"max by (route) (increase(execworker_guard_trips_total{{{ROUTE}}}[$__rate_interval]))",
            "{{route}} trips",
        ),
    )
    yield panel(
        "Doubts",
        (told("in_doubt_intents"), "{{route}} open"),
        (rate("doubts_resolved", "resolution"), "{{route}} ended: {{resolution}}"),
    )
    yield panel("Age of the oldest doubt", (told("in_doubt_oldest_age_seconds"), "{{route}}"), unit="s")
    yield panel(
        "Orders that are not in the ledger",
        (rate("orphan_orders"), "{{route}} orphan"),
        (rate("foreign_orders"), "{{route}} foreign"),
    )


def canary() -> Iterator[dict[str, Any]]:
    age = f"min by (route) ({since('canary_last_success', ROUTE)})"
    yield panel(
        "Since a canary came back",
        (age, "{{route}}"),
        (told("canary_interval_seconds") + " > 0", "{{route}} interval"),
        unit="s",
    )
    ninety = f"route:execworker_canary_seconds:p90_10m{{{ROUTE}}}"
    yield panel("Its way, 90 of 100", (ninety, "{{route}}"), unit="s", red_from=1)
    yield panel("Lost canaries in a second", (rate("canary_failures"), "{{route}}"))


def processes() -> Iterator[dict[str, Any]]:
    yield panel("Reached by Prometheus", (f"up{{{PROCESS}}}", "{{instance}}"))
    yield panel(
        "State", (f"execworker_state{{{PROCESS}}} == 1", "{{instance}} {{state}}"), kind="state-timeline"
    )
    turned = since("last_progress", PROCESS)
    yield panel("Since the loop turned", (turned, "{{instance}}"), unit="s", red_from=30)
    errors = f"rate(execworker_redis_errors_total{{{PROCESS}}}[$__rate_interval])"
    yield panel(
        "Redis, as the workers see it",
        (f"execworker_redis_up{{{PROCESS}}}", "{{instance}} answers"),
        (errors, "{{instance}} errors in a second"),
    )
    skew = f"execworker_clock_skew_seconds{{{PROCESS}}}"
    yield panel("Clock ahead of Redis's", (skew, "{{instance}}"), unit="s", red_from=1)
    yield panel("Told to people, in a second", (rate("told", "result"), "{{route}} {{result}}"))
    cpu = f"rate(process_cpu_seconds_total{{{PROCESS}}}[$__rate_interval])"
    yield panel("Processor", (cpu, "{{instance}}"), unit="percentunit")
    yield panel("Memory", (f"process_resident_memory_bytes{{{PROCESS}}}", "{{instance}}"), unit="bytes")
    yield panel("Open files", (f"process_open_fds{{{PROCESS}}}", "{{instance}}"))
    yield panel(
        "What runs",
        (f"execworker_build_info{{{PROCESS}}}", ""),
        kind="table",
        wide=12,
        instant=True,
    )
    yield panel(
        "What it is set to",
        (f"execworker_config_info{{{PROCESS}}}", ""),
        kind="table",
        wide=12,
        instant=True,
    )


ROWS = (
    ("At a glance", at_a_glance),
    ("Traffic", traffic),
    ("Queue", queue),
    ("Broker and guard", broker),
    ("Canary", canary),
    ("Processes", processes),
)


def placed() -> list[dict[str, Any]]:
    """All panels, each with its place and its id."""
    found: list[dict[str, Any]] = []
    top = 0
    for title, make in ROWS:
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        found.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": place})
        panels = list(make())
        top = give_places(panels, top + 1)
        found += panels
    for number, one in enumerate(found, start=1):
        one["id"] = number
    return found


def give_places(panels: Sequence[dict[str, Any]], top: int) -> int:
    """Put each panel where it comes to lie highest, from this line on. Returns the first line below them all."""
    heights = [top] * WIDTH
    for one in panels:
        wide, tall = one["gridPos"]["w"], one["gridPos"]["h"]
        y, x = min((max(heights[x : x + wide]), x) for x in range(0, WIDTH - wide + 1, wide))
        heights[x : x + wide] = [y + tall] * wide
        one["gridPos"] |= {"x": x, "y": y}
    return max(heights)


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard() -> dict[str, Any]:
    versions = "count by (version) (execworker_build_info)"
    return {
        "uid": "execworker",
        "title": "Execution worker",
        "tags": ["execworker"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                variable("route", "Route", "label_values(execworker_workers, route)"),
                variable("instance", "Worker", 'label_values(up{job="execworker"}, instance)'),
            ]
        },
        "annotations": {
            "list": [
                {
                    "name": "Another version came up",
                    "datasource": DATASOURCE,
                    "enable": True,
                    "iconColor": "blue",
                    "expr": f"{versions} unless {versions.replace('_info', '_info offset 1m')}",
                    "titleFormat": "{{version}}",
                }
            ]
        },
        "panels": placed(),
    }


def text() -> str:
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
