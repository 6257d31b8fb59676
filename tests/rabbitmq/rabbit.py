"""A RabbitMQ of the tests' own: on loopback, in a folder of its own, killed and started again at will."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import kombu

#: Debian's, without the wrapper that changes the user.
_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
untyped: Any = kombu


def is_installed() -> bool:
    return _SERVER.exists()


class Rabbit:
    """One server. What is in durable queues outlives its kills."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._dist, self._epmd = (_free_port() for _ in range(3))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self._folder / "out.log").open("ab") as out:
            self._process = subprocess.Popen(
                [str(_SERVER)], env=self._environ(), stdout=out, stderr=out, start_new_session=True
            )
        until = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "out.log").read_text()
            assert time.monotonic() < until, "RabbitMQ does not come up"
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill -9 all of it."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)

    def close(self) -> None:
        self.kill()
        # Erlang's name server was started on the way; it has no end of its own.
        epmd = shutil.which("epmd")
        if epmd is not None:
            subprocess.run(
                [epmd, "-port", str(self._epmd), "-kill"], capture_output=True, timeout=20, check=False
            )

    def publish(self, queue: str, bodies: list[bytes]) -> None:
        """Publish these, persistent and confirmed, as often as it takes. A repeat may double some."""
        for _ in range(100):
            try:
                self._publish(queue, bodies)
            except (OSError, untyped.exceptions.OperationalError):
                time.sleep(0.3)
            else:
                return
        raise AssertionError("RabbitMQ takes nothing")

    def waiting(self, queue: str) -> int:
        """How many messages nobody has been given."""
        with untyped.Connection(self.url) as connection:
            channel = connection.channel()
            return int(channel.queue_declare(queue, passive=True).message_count)

    def _publish(self, queue: str, bodies: list[bytes]) -> None:
        options = {"confirm_publish": True}
        with untyped.Connection(self.url, transport_options=options, connect_timeout=5) as connection:
            channel = connection.channel()
            untyped.Queue(queue, channel=channel).declare()
            producer = untyped.Producer(channel)
            for body in bodies:
                producer.publish(
                    body,
                    routing_key=queue,
                    delivery_mode=2,
                    content_type="application/json",
                    content_encoding="utf-8",
                )

    def _answers(self) -> bool:
        try:
            with untyped.Connection(self.url, connect_timeout=2) as connection:
                connection.connect()
        except (OSError, untyped.exceptions.OperationalError):
            return False
        return True

    def _environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")}
        return kept | {
            "HOME": str(self._folder),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd),
            "RABBITMQ_NODENAME": f"test{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "db"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "none"),
        }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
