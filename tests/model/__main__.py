"""
Search the model. ``python -m tests.model`` looks at every state of the worlds that CI searches, ``--deep`` at larger ones.

Prints a line for each world; exits 1 when a promise was broken, with the shortest story of how, or when a world was too
large to be searched to its end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.model import page
from tests.model.configurations import DEEP, SETTINGS
from tests.model.rules import Rule
from tests.model.search import Found, search
from tests.model.setting import Setting


def main(arguments: Sequence[str] | None = None) -> int:
    given = _options().parse_args(arguments)
    if given.table:
        page.write()
        return 0
    off = Rule[given.off] if given.off else None
    chosen = [one for one in (*SETTINGS, *DEEP) if one.name in given.worlds]
    if not chosen:
        chosen = [one for one in SETTINGS if off is None or one.name == off.statement.configuration]
        chosen += DEEP if given.deep else ()
    _say(f"{'world':26} {'states':>9} {'depth':>5} {'CPU s':>7} {'states/s':>8}  verdict")
    verdicts = [_run(one.without(off) if off else one, given.states) for one in chosen]
    return int(any(verdicts))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("worlds", nargs="*", help="only these, by name")
    parser.add_argument("--deep", action="store_true", help="the larger ones too: about seven minutes of CPU")
    parser.add_argument("--off", choices=[rule.name for rule in Rule], help="leave a rule out")
    parser.add_argument("--states", type=int, default=3_000_000, help="give a world up at so many")
    parser.add_argument("--table", action="store_true", help="write the tables of docs/model.md anew")
    return parser


def _run(setting: Setting, states_max: int) -> bool:
    """True: something is wrong."""
    found = search(setting, states_max)
    rate = found.states / max(found.seconds, 0.001)
    _say(
        f"{setting.name:26} {found.states:9,} {found.depth:5} {found.seconds:7.1f} {rate:8,.0f}  {_verdict(found)}"
    )
    for number, step in enumerate(found.story, 1):
        _say(f"    {number:2}. {step}")
    return bool(found.broken) or not found.is_complete


def _verdict(found: Found) -> str:
    if found.broken:
        return found.broken
    return "holds" if found.is_complete else "not searched to its end"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
