"""The page of codes says what the adapter does."""

from __future__ import annotations

import os
from pathlib import Path

from worker.brokers.kis import CodeRow, CodeVerdict, code_table

PAGE = Path(__file__).parents[2] / "docs" / "kis" / "codes.md"
BEGIN, END = "<!-- codes_table() -->\n", "<!-- end -->\n"


def codes_table() -> str:
    """Every listed code as a markdown table, sorted by code."""
    head = [
        "| code | KIS says | verdict | safety code | source | date |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(_line(row) for _, row in sorted(code_table().items()))]) + "\n"


def _line(row: CodeRow) -> str:
    says = row.korean + (f" ({row.note})" if row.note else "")
    then = f", {row.then.replace('_', ' ')}" if row.then else ""
    cells = (f"`{row.code}`", says, f"{row.verdict}{then}", row.safety, row.source, f"{row.date}")
    return "| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |"


def test_the_page_lists_every_code_as_it_is() -> None:
    head, begin, rest = PAGE.read_text("utf-8").partition(BEGIN)
    table, end, tail = rest.partition(END)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(head + begin + codes_table() + end + tail, "utf-8")
        return

    assert (begin, end) == (BEGIN, END)
    assert table == codes_table(), "run UPDATE_DOCS=1 pytest tests/kis/test_kis_codes_page.py"


def test_the_page_explains_every_verdict_and_source_of_the_table() -> None:
    head = PAGE.read_text("utf-8").partition(BEGIN)[0]

    assert [verdict for verdict in CodeVerdict if f"| `{verdict}` |" not in head] == []
    assert [row.source for row in code_table().values() if f"\n| {row.source} |" not in head] == []
