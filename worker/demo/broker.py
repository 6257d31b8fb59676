"""The broker of the demo: the KIS simulator as a process of its own, and what it alone knows."""

from __future__ import annotations

import json
import secrets
import sys
from dataclasses import dataclass
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from contracts import Side
from worker.demo.processes import Processes
from worker.errors import Unavailable

#: What the extras kis and simulator bring.
_NEEDS = ("httpx2", "httpcore2", "h11", "cryptography", "websockets", "starlette", "uvicorn")
_LOG = "simulator.log"
#: An order that goes well takes so long, as at a server far away. In front of a quicker one a worker launches orders
#: ahead; of a killed worker, that such an order never left is proven only after KIS's lag: nothing to watch.
DISTANCE = {"what": "delay", "rate": 1, "seconds": 0.1}
#: Nobody's: the simulator takes every account.
_ACCOUNT = "50000000-01"


@dataclass(frozen=True, slots=True)
class BookedOrder:
    """A row of the simulator's own book."""

    #: As the worker's answers spell it.
    number: str
    symbol: str
    side: Side
    quantity: int
    price: Decimal
    filled: int


class KISBroker:
    """A simulated KIS server, as strict as the real one, at which every hour is the middle of a business day."""

    def __init__(self, processes: Processes) -> None:
        """
        Start it. Until `wait` has returned it may not be up.

        Raises:
            Unavailable: its libraries are missing; the text names the extras that bring them.
        """
        missing = [name for name in _NEEDS if find_spec(name) is None]
        if missing:
            raise Unavailable(
                f"the demo needs the KIS adapter and the KIS simulator, and {', '.join(missing)} is not installed: "
                "pip install 'execution-worker[kis,simulator]' brings them"
            )
        self._folder = processes.folder
        command = [sys.executable, "-m", "worker", "simulate", "kis", "--port", "0", "--at", "open", "--json"]
        self.process = processes.start(command, _LOG, is_read=True)
        self.url = ""
        self._write_credentials()

    def wait(self) -> None:
        """
        Wait until it listens.

        Raises:
            Unavailable: it does not come up; the text has its last words.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            words = (self._folder / _LOG).read_text("utf-8", "replace")[-500:]
            raise Unavailable(f"the KIS simulator does not start: {words}")
        self.url = json.loads(line)["url"]
        self.set_faults()

    @property
    def options(self) -> dict[str, object]:
        """What a route needs to trade here."""
        return {
            "CREDENTIALS": self._credentials,
            "ACCOUNT": _ACCOUNT,
            "BASE_URL": self.url,
            "VENUE": "KRX",
            "CHECK_HOURS": "false",
            "REPLY_TIMEOUT": 2,
            # Any: with one, the server tells of executions at once.
            "HTS_ID": "demo",
        }

    def set_faults(self, *rules: dict[str, object]) -> None:
        """Let it behave like this from the next call on; without rules, well. ``docs/simulator.md`` lists them."""
        self._ask("POST", "/sim/faults", [*rules, DISTANCE])

    def order_calls(self) -> int:
        """How many orders have reached it, those that it refused too."""
        return int(self._ask("GET", "/sim/stats")["calls"].get("order", 0))

    def orders(self) -> list[BookedOrder]:
        """Every order that it holds: the truth, without lag."""
        found = self._ask("GET", "/sim/book")["orders"]
        return [_booked(row) for row in found if row["kind"] == "new"]

    @property
    def _credentials(self) -> Path:
        return self._folder / "kis.toml"

    def _write_credentials(self) -> None:
        # Made up here and now: the simulator lets every pair in.
        self._credentials.touch(0o600)
        self._credentials.write_text(
            'environment = "real"\n'
            f'app_key = "demo-{secrets.token_hex(8)}"\n'
            f'app_secret = "demo-{secrets.token_hex(16)}"\n',
            "utf-8",
        )

    def _ask(self, method: str, path: str, document: object = None) -> Any:
        # Who asks for the help of the command line needs no HTTP client.
        import httpx2

        try:
            with httpx2.Client(base_url=self.url, trust_env=False, timeout=5.0) as client:
                answer = client.request(method, path, json=document)
                answer.raise_for_status()
                return answer.json()
        except httpx2.HTTPError as error:
            raise Unavailable(f"the KIS simulator does not answer at {path}: {error}") from error


def _booked(row: dict[str, Any]) -> BookedOrder:
    return BookedOrder(
        number=f"{row['day'].replace('-', '')}-{row['branch']}-{row['number']}",
        symbol=row["symbol"],
        side=Side(row["side"]),
        quantity=row["quantity"],
        price=Decimal(row["price"]),
        filled=row["filled"],
    )
