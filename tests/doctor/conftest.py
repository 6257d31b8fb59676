from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisServer, start_redis
from tests.doctor.ward import Ward


@pytest.fixture(scope="session")
def durable_redis() -> Iterator[RedisServer]:
    """A server of our own: its settings are changed."""
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def ward(durable_redis: RedisServer, tmp_path: Path) -> Iterator[Ward]:
    made = Ward(durable_redis, tmp_path)
    yield made
    made.close()
