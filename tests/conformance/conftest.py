"""What the suite needs of the adapters' own tests: their simulators."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "kis"))

from kis_case import Host, hosted


@pytest.fixture(scope="session")
def kis_host() -> Iterator[Host]:
    """Where KIS simulators are served."""
    with hosted() as host:
        yield host
