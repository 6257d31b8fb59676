"""A primary, its replicas and three sentinels, as local processes."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.conftest import REDIS_SERVER, RedisServer, _free_port, start_redis
from tests.process.workers import wait_until
from worker.connection import connect

#: What a live route needs of a server.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--no-appendfsync-on-rewrite", "no")
SERVICE = "desk"


class Sentinels:
    """Three sentinels, and the servers that they watch. Everything started here is ended by `close`."""

    def __init__(self, *options: str, replicas: int = 1) -> None:
        quick = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
        self.servers = [start_redis(*options, *quick)]
        first = self.servers[0]
        for _ in range(replicas):
            self.servers.append(start_redis(*options, *quick, "--replicaof", f"127.0.0.1 {first.port}"))
        self.folder = Path(tempfile.mkdtemp(prefix="sentinels-"))
        self._watchers: list[subprocess.Popen[bytes]] = []
        self.ports = [_free_port() for _ in range(3)]
        for port in self.ports:
            self._watch(port, first.port)
        wait_until(lambda: all(self._knows_all(port, replicas) for port in self.ports), "all know each other")

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    @property
    def primary(self) -> RedisServer:
        """The server that the sentinels name now."""
        for port in self.ports:
            with _asking(port) as sentinel:
                address = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
                return next(one for one in self.servers if one.port == int(address[1]))
        raise AssertionError("no sentinel")

    def cut_off(self) -> None:
        """From here on no replica learns of what the first server does."""
        for replica in self.servers[1:]:
            with _asking(replica.port) as client:
                client.config_set("masterauth", "a word that the primary does not know")
        with _asking(self.servers[0].port) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
            wait_until(lambda: client.info("replication")["connected_slaves"] == 0, "no replica follows")

    def join(self) -> None:
        """Let the replicas follow again."""
        for replica in self.servers[1:]:
            with _asking(replica.port) as client:
                client.config_set("masterauth", "")
        with _asking(self.servers[0].port) as client:
            wait_until(lambda: client.info("replication")["connected_slaves"] > 0, "the replicas follow")

    def close(self) -> None:
        for process in self._watchers:
            process.kill()
            process.wait(20)
        for server in self.servers:
            server.kill()
            shutil.rmtree(server.folder, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _watch(self, port: int, primary: int) -> None:
        file = self.folder / f"{port}.conf"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self.folder}\nlogfile {self.folder}/{port}.log\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 1500\nsentinel failover-timeout {SERVICE} 6000\n"
        )
        quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        self._watchers.append(subprocess.Popen([REDIS_SERVER, str(file), "--sentinel"], **quiet))

    def _knows_all(self, port: int, replicas: int) -> bool:
        with _asking(port) as sentinel:
            master: Any = sentinel.sentinel_master(SERVICE)
            others = master["num-other-sentinels"] == 2 and master["num-slaves"] == replicas
            slaves: Any = sentinel.sentinel_slaves(SERVICE)
            return others and all(one["master-link-status"] == "ok" for one in slaves)


def _asking(port: int) -> Any:
    return connect(f"redis://127.0.0.1:{port}", client_name="test")
