"""Redis over TLS: a worker and its tools work there, and speak to nobody who cannot show who he is."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from contracts import Outcome
from tests.conftest import RedisServer, make_intent, start_redis
from tests.hostile.certificates import Authority
from tests.process.workers import Floor, wait_until
from worker.producer import IntentProducer

pytestmark = [pytest.mark.real_redis, pytest.mark.process]


class TLS(NamedTuple):
    """A server that takes nobody without a certificate, and what a client of it needs."""

    server: RedisServer
    port: int
    authority: Authority
    certificate: Path
    key: Path

    def url(self, scheme: str = "rediss", *, ca: Path | None = None, host: str = "127.0.0.1") -> str:
        ours = f"ssl_certfile={self.certificate}&ssl_keyfile={self.key}"
        return f"{scheme}://{host}:{self.port}/0?ssl_ca_certs={ca or self.authority.file}&{ours}"


def start_tls(folder: Path, *places: str) -> TLS:
    authority = Authority(folder, "the tests")
    certificate, key = authority.issue("server", *places)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = {"port": port, "cert-file": certificate, "key-file": key, "ca-cert-file": authority.file}
    words = [word for name, value in options.items() for word in (f"--tls-{name}", str(value))]
    server = start_redis("--appendonly", "no", *words)
    return TLS(server, port, authority, *authority.issue("client"))


@pytest.fixture(name="tls", scope="module")
def _tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TLS]:
    tls = start_tls(tmp_path_factory.mktemp("tls"), "127.0.0.1", "localhost")
    yield tls
    tls.server.stop()
    shutil.rmtree(tls.server.folder, ignore_errors=True)


class SecureFloor(Floor):
    """A floor whose workers and tools are told this URL."""

    def __init__(self, tls: TLS, folder: Path, url: str) -> None:
        super().__init__(tls.server, folder)
        self._url = url

    def environ(self, **route: object) -> dict[str, str]:
        return super().environ(**route) | {"EXECWORKER_REDIS_URL": self._url}


@pytest.fixture(name="floors")
def _floors(tls: TLS, tmp_path: Path) -> Iterator[list[SecureFloor]]:
    floors: list[SecureFloor] = []
    yield floors
    for floor in floors:
        floor.close()


def at(tls: TLS, floors: list[SecureFloor], folder: Path, url: str) -> SecureFloor:
    floors.append(SecureFloor(tls, folder, url))
    return floors[-1]


def test_an_order_goes_its_whole_way_over_tls(tls: TLS, floors: list[SecureFloor], tmp_path: Path) -> None:
    floor = at(tls, floors, tmp_path, tls.url())
    worker = floor.worker()

    with IntentProducer(tls.url()) as producer:
        producer.enqueue(make_intent(intent_id="tls-1"))
        answer = producer.wait("tls-1", timeout=30)

    assert answer.outcome is Outcome.ACCEPTED
    assert floor.run("status").returncode == 0
    # Every connection of the worker: ledger, queue, acks, and the rest.
    assert plain_connections(floor) == []
    worker.kill()


def plain_connections(floor: SecureFloor) -> list[str]:
    """The worker's connections that are not to the port for TLS."""
    port = f":{floor.server.port}"
    return [
        one["name"]
        for one in floor.client.client_list()
        if one["laddr"].endswith(port) and one["name"] != "test"
    ]


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 69, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_a_server_of_another_authority_is_refused_in_one_line(
    tls: TLS, floors: list[SecureFloor], tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger", "somebody else")

    done = at(tls, floors, tmp_path, tls.url(ca=stranger.file)).run("status")

    refused(done, "certificate verify failed", "ssl_ca_certs")


def test_a_server_of_another_name_is_refused_in_one_line(
    tls: TLS, floors: list[SecureFloor], tmp_path: Path
) -> None:
    other = start_tls(tmp_path / "other", "redis.example")
    try:
        done = at(other, floors, tmp_path, other.url()).run("status")
    finally:
        other.server.stop()
        shutil.rmtree(other.server.folder, ignore_errors=True)

    refused(done, "certificate", "127.0.0.1")


def test_a_client_that_cannot_show_who_it_is_is_told_so(
    tls: TLS, floors: list[SecureFloor], tmp_path: Path
) -> None:
    url = f"rediss://127.0.0.1:{tls.port}/0?ssl_ca_certs={tls.authority.file}"

    done = at(tls, floors, tmp_path, url).run("status")

    refused(done, "Redis at rediss://127.0.0.1")


def test_a_url_without_tls_to_a_server_with_it_is_told_in_one_line(
    tls: TLS, floors: list[SecureFloor], tmp_path: Path
) -> None:
    refused(at(tls, floors, tmp_path, f"redis://127.0.0.1:{tls.port}/0").run("status"), "does not answer")


def test_a_ca_file_that_is_not_there_is_named(tls: TLS, floors: list[SecureFloor], tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.pem"

    done = at(tls, floors, tmp_path, tls.url(ca=missing)).run("status")

    assert done.returncode in (69, 78)
    assert "nowhere.pem" in done.stderr and "Traceback" not in done.stderr


def test_a_worker_takes_nothing_from_a_server_that_it_cannot_trust(
    tls: TLS, floors: list[SecureFloor], tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger", "somebody else")
    floor = at(tls, floors, tmp_path, tls.url(ca=stranger.file))

    worker = floor.worker()
    wait_until(lambda: "certificate verify failed" in worker.log, "the worker says what is wrong")

    assert worker.get("/readyz")[0] == 503
    assert "Traceback" not in worker.log and not worker.ended
    worker.kill()
