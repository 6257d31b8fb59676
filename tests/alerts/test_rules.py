"""The rules say what they mean: each alert was seen to fire, has a page, and asks only for what there is."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.alerts.rules import ROOT, RULES, RUNBOOKS, alerts, faults, names, records, series
from tests.deploy.conftest import tool
from worker.cli.app import app
from worker.logs import Event
from worker.metrics import metrics_table
from worker.settings import RouteSettings, settings_table

UNIT_TESTS = ROOT / "tests/alerts/rules.promtool.yaml"
ALERTS = alerts()
SECTIONS = ["What it means", "Look at", "Do", "Do not"]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def expected() -> list[list[dict[str, str]]]:
    """For each look of the unit tests at the alerts, the labels of those that fire."""
    looks = [look for test in _unit_tests() for look in test["promql_expr_test"] if "ALERTS" in look["expr"]]
    return [
        [dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"])) for sample in look.get("exp_samples", ())]
        for look in looks
    ]


def _unit_tests() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(UNIT_TESTS.read_text("utf-8"))["tests"]
    return found


def test_prometheus_reads_the_rules() -> None:
    done = promtool("check", "rules", *sorted(RULES.glob("*.yaml")))

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_pass_their_unit_tests() -> None:
    done = promtool("test", "rules", UNIT_TESTS)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_unit_tests_would_see_thresholds_that_are_never_reached(tmp_path: Path) -> None:
    rules = tmp_path / "deploy/prometheus/rules"
    rules.mkdir(parents=True)
    for path in RULES.glob("*.yaml"):
        # Everything fires ten times later, or never.
        text = re.sub(r"(> 0|== 1|== 0|>= 10)$", r"\1 + 1000000", path.read_text("utf-8"), flags=re.M)
        (rules / path.name).write_text(text, "utf-8")
    (tmp_path / "tests/alerts").mkdir(parents=True)
    (tmp_path / "tests/alerts/rules.yaml").write_text(UNIT_TESTS.read_text("utf-8"), "utf-8")

    done = promtool("test", "rules", tmp_path / "tests/alerts/rules.yaml")

    assert done.returncode == 1
    assert done.stdout.count("got: nil") + done.stderr.count("got: nil") >= 10


def test_every_alert_was_seen_to_fire_with_its_severity_and_to_be_silent() -> None:
    looks = expected()

    fired = {(one["alertname"], one["severity"]) for look in looks for one in look}
    assert fired == {(name, rule["labels"]["severity"]) for name, rule in ALERTS.items()}
    for name in ALERTS:
        tests = [test for test in _unit_tests() if name in str(test)]
        assert any("exp_samples" not in look for test in tests for look in test["promql_expr_test"]), name


@pytest.mark.parametrize(
    ("name", "expr"), [*((name, rule["expr"]) for name, rule in ALERTS.items()), *records().items()]
)
def test_a_rule_asks_only_for_series_labels_and_values_that_exist(name: str, expr: str) -> None:
    assert list(faults(expr)) == []
    assert names(expr), name


@pytest.mark.parametrize(
    "slip",
    [
        "execworker_redis_upp == 0",
        'execworker_guard_state{state="BROKEN"} == 1',
        'execworker_guard_state{state=~"FAIL|BROKEN"} == 1',
        'execworker_guard_state{stat="FAIL"} == 1',
        "sum by (rote) (execworker_workers)",
        "route:execworker_nothing:p99_5m > 1",
        'execworker_redis_up{route="kis"} == 0',
    ],
)
def test_a_slip_in_a_rule_would_be_seen(slip: str) -> None:
    assert list(faults(slip)) != []


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_its_page_lies(name: str) -> None:
    rule = ALERTS[name]
    told = rule["annotations"]

    assert re.fullmatch("ExecWorker[A-Z][A-Za-z]+", name)
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(told) == {"summary", "description", "runbook"}
    assert "{{" not in told["summary"] and told["summary"].endswith(".")
    assert told["runbook"] == f"docs/runbooks/{name}.md"
    assert (ROOT / told["runbook"]).is_file()
    # A description tells which route or which worker, if the alert is about one.
    by_route, by_worker = "by (route)" in rule["expr"] or "route:" in rule["expr"], "{{ $labels.instance }}"
    assert by_route == ("{{ $labels.route }}" in told["description"]) or by_worker in told["description"]


def test_the_alert_for_an_old_doubt_fires_when_the_worker_announces_it_anew() -> None:
    default = RouteSettings.model_fields["doubt_escalate_after"].default

    assert ALERTS["ExecWorkerDoubtEscalated"]["expr"].endswith(f"> {default:g}")


def test_intents_that_wait_are_told_long_before_they_expire() -> None:
    default = RouteSettings.model_fields["max_age"].default
    rule = ALERTS["ExecWorkerQueueOld"]

    assert int(rule["expr"].split()[-1]) + int(rule["for"].removesuffix("s")) < default


def page(name: str) -> str:
    return (RUNBOOKS / f"{name}.md").read_text("utf-8")


def test_there_is_a_page_for_each_alert_and_no_other() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"index"} == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_a_page_says_what_it_means_what_to_look_at_to_do_and_not_to_do(name: str) -> None:
    text, rule = page(name), ALERTS[name]

    assert text.startswith(f"# {name}\n")
    assert re.findall("^## (.+)$", text, re.M) == SECTIONS
    assert all(len(part.strip()) > 40 for part in re.split("^## .+$", text, flags=re.M)[1:])
    after = f"after {rule['for']}" if "for" in rule else "at once"
    assert f"Severity **{rule['labels']['severity']}**, fires {after}." in text


@pytest.mark.parametrize("name", ALERTS)
def test_everything_that_a_page_names_exists(name: str) -> None:
    quoted = re.findall("`([^`]+)`", page(name))

    for command in quoted:
        if command.startswith("worker "):
            _parse(command)
    text = " ".join(quoted)
    known = set(re.findall(r"execworker_\w+", metrics_table())) | set(series())
    assert set(re.findall(r"execworker_\w+", text)) <= known
    variables = set(re.findall(r"EXECWORKER_\w+", text))
    assert all(variable in settings_table() for variable in variables)
    words = {word for word in quoted if re.fullmatch(r"[a-z]+(_[a-z]+)+", word)}
    settings = set(re.findall(r"`(?:routes\.<route>\.)?([a-z_]+)`", settings_table()))
    words = {word for word in words if not word.startswith("execworker_")}
    assert words <= settings | {event.value for event in Event} | _FIELDS


#: Fields of messages, and values of labels, that pages name.
_FIELDS = {"created_at", "expires_at", "in_doubt", "not_sent"}


def _parse(command: str) -> None:
    # In place of what the reader fills in stands something that the flag takes.
    words = command.replace("…", "why").replace('"what you saw, and when"', "why").split()[1:]
    verb = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    # Before the flags, so that none can take it for its value and run the command.
    done = CliRunner().invoke(app, [*words[:verb], "--help", *words[verb:]])
    assert done.exit_code == 0, (command, done.output)


def test_the_list_of_runbooks_says_what_the_rules_say() -> None:
    path = RUNBOOKS / "index.md"
    head, begin, rest = path.read_text("utf-8").partition("<!-- alerts -->\n")
    table, end, tail = rest.partition("<!-- end -->\n")
    made = "| alert | severity | after | tells |\n|---|---|---|---|\n" + "".join(
        f"| [{name}]({name}.md) | {rule['labels']['severity']} | {rule.get('for', 'at once')} "
        f"| {rule['annotations']['summary']} |\n"
        for name, rule in ALERTS.items()
    )
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(head + begin + made + end + tail, "utf-8")
        return

    assert begin and end
    assert table == made, "run UPDATE_DOCS=1 pytest tests/alerts/test_rules.py"
