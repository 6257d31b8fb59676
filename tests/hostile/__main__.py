"""The long form: ``python -m tests.hostile --entries 1000000``, with a redis-server on the PATH. Seed and number replay."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.conftest import start_redis
from tests.hostile.camp import Camp
from tests.hostile.mill import Mill
from tests.hostile.siege import shown

_MIB = 1024 * 1024


def main() -> int:
    """Besiege one worker, and print what became of it. 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--chunk", type=int, default=2000, help="entries that are fed and judged at a time")
    parser.add_argument(
        "--show", type=int, metavar="NUMBER", help="print one entry of the seed, and feed nothing"
    )
    given = parser.parse_args()
    if given.show is not None:
        _say(Mill(given.seed).entry(given.show))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    server = start_redis("--appendonly", "no")
    try:
        return _besiege(Camp(server, folder, given.seed), given.seed, given.entries, given.chunk)
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _besiege(camp: Camp, seed: int, entries: int, chunk: int) -> int:
    _say(f"seed {seed}: {entries} entries, {chunk} at a time")
    chunk = min(chunk, entries)
    try:
        # The first entries bring the worker to its size.
        faults = camp.run(chunk, chunk=chunk)
        before = camp.rss

        def told(camp: Camp) -> None:
            if camp.fed % (25 * chunk) == 0:
                rate = camp.fed / camp.seconds
                _say(f"{camp.fed:>9} fed  {rate:6.0f}/s  worker {camp.rss / _MIB:.0f} MiB")

        faults = faults or camp.run(entries - chunk, chunk=chunk, told=told)
        errors = camp.errors()
        _say(f"{camp.fed} entries, {camp.fed / camp.seconds:.0f}/s, {camp.orders} orders at the broker")
        _say(f"worker {before / _MIB:.0f} MiB after the first {chunk}, {camp.rss / _MIB:.0f} MiB at the end")
        _table(camp.judge.ends)
    finally:
        camp.close()
    for line in [*(shown(fault, seed) for fault in faults[:20]), *errors[:5]]:
        _say(line)
    _say(f"{len(faults)} promises broken, {len(errors)} errors logged")
    return 1 if faults or errors else 0


def _say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _table(ends: Counter[tuple[str, str]]) -> None:
    by_kind = Counter[str]()
    by_end = Counter[str]()
    for (kind, end), count in ends.items():
        by_kind[kind] += count
        by_end[end] += count
    for title, counts in (("by kind", by_kind), ("by end", by_end)):
        _say(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.most_common()))


if __name__ == "__main__":
    sys.exit(main())
