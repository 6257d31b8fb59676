"""The smoke checks themselves, rehearsed against a simulated paper server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from worker.simulate.kis import KISOptions, KISSimulator

ROOT = Path(__file__).parents[2]
SMOKE = "tests/real_broker/test_kis_smoke.py"
#: A Monday at ten in the morning.
MORNING = "2026-11-23T10:00+09:00"
ROUTE = """
[routes.kis_paper]
broker = "kis"
mode = "{mode}"

[routes.kis_paper.options]
environment = "paper"
app_key = "a-key"
app_secret = "a-secret"
account = "12345678-01"
base_url = "{url}"
"""


def smoke(folder: Path, url: str, *arguments: str, mode: str = "paper", **env: str) -> tuple[int, str]:
    """Run the suite as an operator would. The exit code, and what it printed."""
    config = folder / "worker.toml"
    config.write_text(ROUTE.format(mode=mode, url=url), "utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EXECWORKER_", "KIS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, SMOKE],
        cwd=ROOT,
        env=kept | {"EXECWORKER_CONFIG": str(config), "KIS_SMOKE_PAUSE": "0.05"} | env,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stdout


@pytest.fixture
def simulator() -> Iterator[KISSimulator]:
    """A paper server at ten in the morning, whose market is thin: an order of some shares fills in parts."""
    made = KISSimulator(
        KISOptions(
            mode="paper",
            at=datetime.fromisoformat(MORNING),
            depth=1,
            rate=0,
            ledger_rate=0,
            visibility_lag=0,
        )
    )
    yield made
    made.close()


@pytest.mark.process
def test_the_smoke_checks_pass_and_leave_nothing_behind(simulator: KISSimulator, tmp_path: Path) -> None:
    with simulator.serve() as url:
        code, printed = smoke(
            tmp_path,
            url,
            "-m",
            "real_broker",
            KIS_SMOKE_ROUTE="kis_paper",
            KIS_SMOKE_AT=MORNING,
            KIS_SMOKE_PARTIAL="3",
        )

    assert code == 0, printed
    assert "5 passed" in printed
    orders = simulator.orders()
    assert [order for order in orders if order.remaining] == []
    assert sum(order.filled if order.side == "BUY" else -order.filled for order in orders) == 0


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "env", "reason"),
    [
        ((), {"KIS_SMOKE_ROUTE": "kis_paper"}, "opt-in"),
        (("-m", "real_broker"), {}, "no credentials"),
    ],
    ids=["marker missing", "credentials missing"],
)
def test_the_smoke_checks_are_skipped_with_the_reason(
    arguments: tuple[str, ...], env: dict[str, str], reason: str, tmp_path: Path
) -> None:
    code, printed = smoke(tmp_path, "http://127.0.0.1:9", *arguments, **env)

    assert code == 0 and "5 skipped" in printed and reason in printed


@pytest.mark.process
def test_the_smoke_checks_refuse_a_live_route(tmp_path: Path) -> None:
    code, printed = smoke(
        tmp_path, "http://127.0.0.1:9", "-m", "real_broker", mode="live", KIS_SMOKE_ROUTE="kis_paper"
    )

    assert code == 1 and "trades on paper only" in printed
