"""One HTTP server for all simulators of a run: starting one for each test would take longer than the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kis_case import Host, hosted


@pytest.fixture(scope="session")
def kis_host() -> Iterator[Host]:
    """Where simulators are served."""
    with hosted() as host:
        yield host
