"""What alerts, dashboard and pages say, and what the worker's code says there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from worker.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules"
RUNBOOKS = ROOT / "docs/runbooks"

#: What Prometheus itself puts beside our labels, and names.
SCRAPE_LABELS = {"job", "instance"}
PROMETHEUS = {"up", "ALERTS"}

_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^{}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")
_NAME = re.compile(r"\b(?:execworker|process|python)_\w+|\b[a-z_]+:[a-z_]+:\w+|\bup\b|\bALERTS\b")


def groups() -> list[dict[str, Any]]:
    texts = [path.read_text("utf-8") for path in sorted(RULES.glob("*.yaml"))]
    return [group for text in texts for group in yaml.safe_load(text)["groups"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in groups() for rule in group["rules"] if "alert" in rule}


def records() -> dict[str, str]:
    return {rule["record"]: rule["expr"] for group in groups() for rule in group["rules"] if "record" in rule}


@cache
def series() -> dict[str, dict[str, set[str]]]:
    """Every series of a worker: its labels, each with the values that it can have; none where they are open."""
    metrics = Metrics(["ROUTE"])
    metrics.route("ROUTE").configured(broker="BROKER", mode="MODE")
    found: dict[str, dict[str, set[str]]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    for labels in found.values():
        for label in labels.keys() & {"route", "broker", "mode", "version", "revision", "python", "le"}:
            labels[label] = set()
    return found


def names(expr: str) -> set[str]:
    """The series that an expression asks for."""
    return set(_NAME.findall(_without_strings(expr)))


def _without_strings(expr: str) -> str:
    return re.sub(r"\{[^{}]*\}", "", _GROUPING.sub("", expr))


def faults(expr: str) -> Iterator[str]:
    """What the expression asks for that nobody makes."""
    known = set(series()) | set(records()) | PROMETHEUS
    for name in names(expr) - known:
        yield f"no such series: {name}"
    labels = {label for labels in series().values() for label in labels} | SCRAPE_LABELS
    for grouping in _GROUPING.findall(expr):
        for label in re.findall(r"\w+", grouping):
            if label not in labels:
                yield f"no such label: {label}"
    for name, inside in _SELECTOR.findall(expr):
        yield from _wrong_matchers(name, inside)


def _wrong_matchers(name: str, inside: str) -> Iterator[str]:
    matchers = _MATCHER.findall(inside)
    if len(matchers) != len([part for part in inside.split(",") if part.strip()]):
        yield f"{name}: cannot be read: {inside}"
    if name not in series():
        return
    for label, how, value in matchers:
        values = series()[name].get(label)
        if values is None and label not in SCRAPE_LABELS:
            yield f"{name} has no label {label}"
        elif values and not value.startswith("$"):
            wanted = set(value.split("|")) if how == "=~" else {value}
            yield from (f"{name}: {label} is never {one}" for one in sorted(wanted - values))
