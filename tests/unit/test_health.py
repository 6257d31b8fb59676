"""Probes and scrapes: what they answer, and which port answers them."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from worker.errors import ConfigError
from worker.health import PORT_DEFAULT, HealthServer
from worker.logs import Event
from worker.metrics import Metrics


class Log:
    """A logger that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def error(self, event: Event, **_fields: object) -> None:
        self.events.append(event)

    debug = info = warning = error

    def bind(self, **_fields: object) -> Log:
        return self


@pytest.fixture
def serve() -> Iterator[Callable[..., HealthServer]]:
    started: list[HealthServer] = []

    def start(port: int | None = 0, host: str = "127.0.0.1", **changes: Any) -> HealthServer:
        answers: dict[str, Any] = {
            "registry": Metrics(["default"]).registry,
            "live": lambda: None,
            "ready": lambda: None,
            "state": dict,
        }
        server = HealthServer(host, port, **(answers | changes))
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def ask(
    server: HealthServer, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers.get("Content-Type", ""), response.read().decode()
    finally:
        connection.close()


Serve = Callable[..., HealthServer]


def test_a_healthy_worker_is_live_and_ready(serve: Serve) -> None:
    server = serve()

    assert ask(server, "/livez") == (200, "text/plain; charset=utf-8", "ok\n")
    assert ask(server, "/readyz") == (200, "text/plain; charset=utf-8", "ok\n")


def test_a_stuck_worker_is_not_live_and_says_why(serve: Serve) -> None:
    server = serve(live=lambda: "the intake loop has not gone round for 31 s")

    assert ask(server, "/livez")[::2] == (503, "the intake loop has not gone round for 31 s\n")
    assert ask(server, "/readyz")[0] == 200


def test_a_worker_without_redis_is_live_but_not_ready(serve: Serve) -> None:
    server = serve(ready=lambda: "Redis is away")

    assert ask(server, "/livez")[0] == 200
    assert ask(server, "/readyz")[::2] == (503, "Redis is away\n")


def test_readiness_is_asked_anew_each_time(serve: Serve) -> None:
    reasons = iter(["starting", None])
    server = serve(ready=lambda: next(reasons))

    assert [ask(server, "/readyz")[0], ask(server, "/readyz")[0]] == [503, 200]


def test_prometheus_gets_every_series(serve: Serve) -> None:
    metrics = Metrics(["kis"])
    metrics.route("kis").received(3)
    server = serve(registry=metrics.registry)

    status, kind, text = ask(server, "/metrics")

    assert status == 200
    assert kind.startswith("text/plain; version=")
    assert 'execworker_intents_received_total{route="kis"} 3.0' in text


def test_prometheus_gets_open_metrics_when_it_asks_for_them(serve: Serve) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}

    status, kind, text = ask(serve(), "/metrics", headers=accept)

    assert status == 200
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_state_is_told_as_json(serve: Serve) -> None:
    status, kind, text = ask(serve(state=lambda: {"route": "한국", "port": 9464}), "/state?pretty")

    assert (status, kind) == (200, "application/json")
    assert json.loads(text) == {"route": "한국", "port": 9464}


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/state"])
def test_head_gives_the_head_only(serve: Serve, path: str) -> None:
    server = serve()

    assert ask(server, path, "HEAD")[::2] == (200, "")


@pytest.mark.parametrize("path", ["/", "/health", "/metrics/x", "//"])
def test_a_wrong_path_is_told_the_right_ones(serve: Serve, path: str) -> None:
    status, _, text = ask(serve(), path)

    assert status == 404
    assert text.endswith("only: /metrics /livez /readyz /state\n")


def test_nothing_can_be_changed_through_it(serve: Serve) -> None:
    assert ask(serve(), "/state", "POST")[0] == 501


def test_probes_leave_no_lines_in_the_log(serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    server = serve()

    ask(server, "/livez")
    ask(server, "/nowhere")

    assert capfd.readouterr() == ("", "")


def test_a_fault_of_ours_is_answered_and_logged_and_the_server_lives_on(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    def state() -> dict[str, object]:
        raise KeyError("missing")

    log = Log()
    server = serve(state=state, logger=log)

    assert ask(server, "/state")[0] == 500
    assert ask(server, "/livez")[0] == 200
    assert log.events == [Event.HEALTH_FAULT]
    assert capfd.readouterr() == ("", "")


def test_a_client_that_hangs_up_is_nobodys_fault(serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    log = Log()
    server = serve(logger=log)

    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(b"GET /metrics HTTP/1.0\r\n")

    assert ask(server, "/livez")[0] == 200
    assert log.events == []
    assert capfd.readouterr() == ("", "")


def test_a_client_that_says_nothing_does_not_delay_a_probe(serve: Serve) -> None:
    server = serve()

    with socket.create_connection(("127.0.0.1", server.port)):
        assert ask(server, "/livez")[0] == 200


# Ports


def test_a_configured_port_is_the_one(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    assert serve(port).port == port


def test_a_configured_port_that_is_taken_refuses_the_start(serve: Serve, taken: int) -> None:
    with pytest.raises(ConfigError) as caught:
        serve(taken)

    assert caught.value.faults == [
        f"EXECWORKER_METRICS_PORT (or PORT): cannot listen on 127.0.0.1 port {taken}: another process has it; "
        "give another port, or leave both out to take the next free one"
    ]


def test_without_a_configured_port_two_workers_take_two_ports(serve: Serve) -> None:
    ports = [serve(None).port, serve(None).port]

    assert min(ports) >= PORT_DEFAULT
    assert ports[0] != ports[1]


def test_when_every_default_port_is_taken_it_says_so(
    serve: Serve, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.health.PORT_DEFAULT", taken)
    monkeypatch.setattr("worker.health._PORTS_TRIED", 1)

    with pytest.raises(ConfigError, match=f"no port from {taken} to {taken} is free"):
        serve(None)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_not_ours_refuses_the_start(serve: Serve, host: str) -> None:
    with pytest.raises(ConfigError, match=rf"EXECWORKER_METRICS_HOST: {host} is "):
        serve(0, host)


def test_it_listens_on_ipv6_too(serve: Serve) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    server = serve(0, "::1")

    with socket.create_connection(("::1", server.port), timeout=5) as connection:
        connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 200")


def test_a_stopped_server_gives_its_port_back(serve: Serve) -> None:
    server = serve()
    port = server.port

    server.stop()
    server.stop()

    assert serve(port).port == port
    with pytest.raises(RuntimeError):
        server.port


def test_stopping_what_never_started_does_nothing() -> None:
    HealthServer(
        "127.0.0.1", 0, registry=Metrics([]).registry, live=lambda: None, ready=lambda: None, state=dict
    ).stop()
