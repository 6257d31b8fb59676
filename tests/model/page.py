"""The rows of docs/model.md, made from what the search finds."""

from __future__ import annotations

from pathlib import Path

from tests.model.configurations import SETTINGS, named
from tests.model.rules import Rule
from tests.model.search import Found, search

PAGE = Path(__file__).parents[2] / "docs" / "model.md"
#: What is between these lines is made by `write`.
RULES = ("<!-- rules: begin -->", "<!-- rules: end -->")
WORLDS = ("<!-- worlds: begin -->", "<!-- worlds: end -->")


def without(rule: Rule) -> Found:
    """What happens when one rule is off."""
    return search(named(rule.statement.configuration).without(rule))


def rule_row(rule: Rule, found: Found) -> str:
    said = rule.statement
    story = "<br>".join(f"{number}. {step}" for number, step in enumerate(found.story, 1))
    return f"| `{rule.name}` | {said.text} | {found.promise} | {found.setting.name} | {story} |"


def world_rows() -> list[str]:
    return [f"| {one.name} | {one.about} | {_faults(one.faults)} |" for one in SETTINGS]


def _faults(faults: dict[str, int]) -> str:
    return ", ".join(name if times == 1 else f"{name} × {times}" for name, times in faults.items()) or "–"


def written(marks: tuple[str, str]) -> list[str]:
    """The rows that the page has now."""
    text = PAGE.read_text("utf-8")
    rows = text.partition(marks[0])[2].partition(marks[1])[0].strip().splitlines()
    return rows[2:]


def write() -> None:
    """Make the tables anew."""
    rules = [rule_row(rule, without(rule)) for rule in Rule]
    text = PAGE.read_text("utf-8")
    text = _put(text, RULES, ["| rule | says | breaks | in | how |", "|---|---|---|---|---|", *rules])
    text = _put(text, WORLDS, ["| world | about | faults |", "|---|---|---|", *world_rows()])
    PAGE.write_text(text, "utf-8")


def _put(text: str, marks: tuple[str, str], lines: list[str]) -> str:
    before, _, rest = text.partition(marks[0])
    after = rest.partition(marks[1])[2]
    return "\n".join((before + marks[0], *lines, marks[1])) + after
