"""On a cluster each route is looked at, and told of, on the node where it is."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from tests.failover.cluster import Cluster
from tests.process.workers import wait_until
from tests.told.told_case import web_hook
from worker.cli.app import app
from worker.cli.context import Surroundings
from worker.clock import SystemClock
from worker.connection import at_home, connect
from worker.keys import RouteKeys
from worker.ledger import Ledger, LedgerRules
from worker.logs import silent
from worker.settings import load_settings
from worker.told import telling

pytestmark = [pytest.mark.process, pytest.mark.real_redis]
#: Their slots lie on different nodes.
ROUTES = ("kr_a", "kr_b", "kr_c", "us_a")


@pytest.fixture(name="environ")
def _environ() -> Iterator[dict[str, str]]:
    cluster = Cluster()
    routes = {f"EXECWORKER_ROUTES__{name.upper()}__MODE": "paper" for name in ROUTES}
    try:
        yield routes | {"EXECWORKER_REDIS_URL": cluster.url, "EXECWORKER_METRICS_PORT": "0"}
    finally:
        cluster.close()


def test_each_route_is_looked_at_where_it_is_and_told_from_there(environ: dict[str, str]) -> None:
    with web_hook() as hook:
        settings = load_settings(environ | {"EXECWORKER_TOLD_URL": hook.url})
        for name in ROUTES:
            home = connect(at_home(settings.redis_url, RouteKeys(name).prefix), client_name="test")
            with home:
                ledger = Ledger(home, name, "w", LedgerRules(), SystemClock())
                ledger.register(broker="simulated", mode="paper", start_halted=False)
                ledger.command("halt", "kim@desk", "a drill")

        with telling(settings, connect, "w1", silent(), SystemClock()):
            wait_until(lambda: len(hook.told) == len(ROUTES), "all are told")
        done = CliRunner().invoke(
            app, ["doctor", "--json"], obj=Surroundings(environ, connect, SystemClock())
        )

    assert sorted(body["route"] for _, _, body in hook.seen) == sorted(ROUTES)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["route"] for one in found if one["id"] == "route.halt.halted"] == list(ROUTES)
    unknown = {one["id"]: one["evidence"] for one in found if one["severity"] == "unknown"}
    assert unknown == {}
