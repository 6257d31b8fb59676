"""The dashboard shows every figure that there is, and asks for none that there is not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.rules import ROOT, alerts, faults, names, records, series
from tests.deploy.conftest import tool
from worker.metrics import metrics_table

GRAFANA = ROOT / "deploy/grafana"
FILE = GRAFANA / "dashboards/execworker.json"


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return found


def exprs() -> list[str]:
    """Every query, with what Grafana fills in."""
    found = board()
    queries = [one["expr"] for panel in found["panels"] for one in panel.get("targets", ())]
    queries += [one["expr"] for one in found["annotations"]["list"]]
    return [query.replace("$__rate_interval", "1m") for query in queries]


def test_the_file_is_what_the_script_makes(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-c", "import make_dashboard; print(make_dashboard.text(), end='')"],
        cwd=GRAFANA,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert made.stdout == FILE.read_text("utf-8"), "run python deploy/grafana/make_dashboard.py"


def test_every_query_asks_only_for_what_exists() -> None:
    assert [fault for expr in exprs() for fault in faults(expr)] == []
    variables = [one["query"]["query"] for one in board()["templating"]["list"] if one["type"] == "query"]
    for name, label in re.findall(r"label_values\(([^;]+), (\w+)\)", " ; ".join(variables)):
        assert list(faults(name)) == []
        assert label in {"instance", *series()["execworker_workers"]}


def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"query:number:{number}", "expr": expr} for number, expr in enumerate(exprs())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), "utf-8")

    done = subprocess.run(
        [tool("promtool"), "check", "rules", file], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_figure_of_ours_is_shown_and_documented() -> None:
    asked = {name for expr in [*exprs(), *records().values()] for name in names(expr)}
    shown = {re.sub("_(bucket|count|sum)$", "", name) for name in asked}
    ours = {name for name in series() if name.startswith("execworker_")}

    assert {re.sub("_(bucket|count|sum)$", "", name) for name in ours} - shown == set()
    documented = set(re.findall(r"^\| `(\w+)`", metrics_table(), re.M))
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in ours} == documented


def test_every_rule_that_is_worked_out_beforehand_is_used() -> None:
    used = {
        name for expr in [*exprs(), *(rule["expr"] for rule in alerts().values())] for name in names(expr)
    }

    assert set(records()) - used == set()


def test_grafana_finds_the_file_and_asks_the_prometheus_that_is_chosen() -> None:
    found = board()

    assert found["uid"] == "execworker"
    sources = {json.dumps(one["datasource"]) for one in found["panels"] if "datasource" in one}
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}
    (providers,) = yaml.safe_load_all(
        (GRAFANA / "provisioning/dashboards/execworker.yaml").read_text("utf-8")
    )
    assert Path(providers["providers"][0]["options"]["path"]).name == FILE.parent.name


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = board()["panels"]

    assert len({one["id"] for one in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken) and max(x for x, _ in taken) == 23


@pytest.mark.parametrize(
    "panel", [one for one in board()["panels"] if one["type"] != "row"], ids=lambda one: one["title"]
)
def test_each_query_of_a_panel_has_a_name_and_a_route_can_be_chosen(panel: dict[str, Any]) -> None:
    letters = [one["refId"] for one in panel["targets"]]
    assert len(set(letters)) == len(letters)
    for one in panel["targets"]:
        chosen = 'route=~"$route"' in one["expr"] or 'instance=~"$instance"' in one["expr"]
        assert chosen or "ALERTS" in one["expr"], panel["title"]
