from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisServer, start_redis
from tests.doctor.ward import Ward


@pytest.fixture(scope="session")
def durable_redis() -> Iterator[RedisServer]:
    """A server of our own: its settings are changed."""
    # In memory where there is such a folder: with an fsync for each write the disk is all that is waited for.
    memory = Path("/dev/shm")
    folder = str(memory) if memory.is_dir() and os.access(memory, os.W_OK) else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", folder)
        server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def ward(durable_redis: RedisServer, tmp_path: Path) -> Iterator[Ward]:
    made = Ward(durable_redis, tmp_path)
    yield made
    made.close()
