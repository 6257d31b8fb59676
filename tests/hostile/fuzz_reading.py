"""
Coverage-guided: bytes into `contracts.load_intent` and `worker.reading`, steered by what they reach there.

Not collected by pytest. ``pip install atheris`` into an environment of its own beside this package, then::

    python -m tests.hostile.fuzz_reading -max_total_time=600 FOLDER

What leads further is kept in the folder. Give it a new, empty one: it is filled with entries of the mill at first.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.hostile.mill import Mill
from tests.hostile.truth import truth
from worker.clock import SystemClock
from worker.intake import Delivery
from worker.reading import Candidate, Reader
from worker.transport.entry import StreamMessage

_READER = Reader("default", 60.0, SystemClock())
_LIMIT = 65536


def one_entry(data: bytes) -> None:
    """
    One entry: its compression in the first byte, its body in the rest. Whatever it is, it is read or to be buried, and
    only what the contract's page calls an intent is a candidate.
    """
    kind, body = data[:1], data[1:]
    packing = {b"z": b"zlib", b"b": b"bzip2", b"x": b"xz"}.get(kind, b"")
    fields = [b"body", body, b"compression", packing] if packing else [b"body", body]
    message = StreamMessage(None, "q", "1795392000000-0", fields, 1, _LIMIT)
    fault = message.delivery_info.get("fault")
    found = _READER.read(Delivery(message.body, "1795392000000-0", "q", 1, fault, message))
    if isinstance(found, Candidate):
        wanted = truth(message.body)
        if fault or wanted.valid is False:
            raise AssertionError(f"taken for an intent: {message.body!r}")
        if min(found.entry.created, found.entry.not_after) < 0:
            raise AssertionError(f"a time that the ledger cannot hold: {message.body!r}")
    elif fault is None and truth(message.body).valid:
        raise AssertionError(f"refused, though it is an intent: {found.error}: {message.body!r}")
    if len(message.body) > max(_LIMIT, len(body)):
        raise AssertionError(f"unpacked beyond the limit: {body!r}")


def main() -> None:
    """Fuzz, with libFuzzer's own arguments."""
    if find_spec("atheris") is None:
        sys.exit("atheris is not installed: pip install atheris (Linux, CPython 3.11 to 3.13)")
    for folder in (Path(one) for one in sys.argv[1:] if not one.startswith("-")):
        if folder.is_dir() and not any(folder.iterdir()):
            _fill(folder)
    atheris: Any = __import__("atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, one_entry)
    atheris.Fuzz()


def _fill(folder: Path) -> None:
    for number, entry in enumerate(map(Mill(1).entry, range(400))):
        if entry.plain is not None:
            (folder / str(number)).write_bytes(b"." + entry.plain)


if __name__ == "__main__":
    main()
