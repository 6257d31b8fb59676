"""``python -m bench [--json] [--quick|--full] [--only NAME]``: run the benchmarks and print a table of ratios."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

from bench import cases, halting, limits
from bench.machine import Machine, Row


def main() -> int:
    args = _arguments()
    rows: list[Row] = []
    with Machine.start() as machine:
        machine.say(f"redis-server {machine.redis_version}, {machine.cores} cores, Python {machine.python}")
        for name, case in _chosen(args.only):
            machine.say(f"{name} …")
            for row in case(machine, args.size):
                rows.append(row)
                if not args.json:
                    machine.say(f"  {row.what}: {row.shown}")
    if args.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}, indent=2))
    else:
        _print_table(rows)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--json", action="store_true", help="numbers on standard output, progress on standard error"
    )
    parser.add_argument("--only", choices=sorted(_CASES), help="one benchmark")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick", help="about 20 s")
    size.add_argument(
        "--full", dest="size", action="store_const", const="full", help="1,000,000 intents for memory"
    )
    parser.set_defaults(size="normal")
    return parser.parse_args()


Case = Callable[[Machine, str], Iterator[Row]]
_CASES: dict[str, Case] = {
    "throughput": cases.throughput,
    "latency": cases.latency,
    "slow-broker": cases.slow_broker,
    "memory": cases.memory,
    "limits": limits.limits,
    "halt": halting.halting,
}


def _chosen(only: str | None) -> list[tuple[str, Case]]:
    return [(name, case) for name, case in _CASES.items() if only in (None, name)]


def _print_table(rows: list[Row]) -> None:
    heads = ("what", "measured", "baseline", "ratio", "must", "want")
    lines = [heads, *((r.what, r.shown, r.baseline_shown, r.ratio_shown, r.must, r.want) for r in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for number, line in enumerate(lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


if __name__ == "__main__":
    sys.exit(main())
