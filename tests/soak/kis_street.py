"""The KIS simulator as a broker of the storm."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from contracts import OrderRecord, OrderStatus, Side
from tests.soak.crew import Child, Start, wait_for
from tests.soak.proxy import FAULTS, Lines
from worker.brokers.kis.numbers import OrderNumber
from worker.simulate.universe import universe

#: What the KIS simulator can be told to do, each with how often while it lasts.
KIS_FAULTS: tuple[dict[str, Any], ...] = (
    {"what": "lose_reply", "rate": 0.3, "seconds": 3},
    {"what": "delay", "rate": 0.5, "seconds": 0.4},
    {"what": "delay", "rate": 0.3, "seconds": 2.0},
    {"what": "hold", "rate": 0.3, "seconds": 0.5},
    {"what": "reset", "rate": 0.4},
    {"what": "reset", "rate": 0.4, "booked": False},
    {"what": "html", "rate": 0.4},
    {"what": "html", "rate": 0.4, "booked": True},
    {"what": "garbled", "rate": 0.3},
    {"what": "no_number", "rate": 0.3},
    {"what": "doubled", "rate": 0.5},
    {"what": "hide", "rate": 0.5, "seconds": 1},
    {"what": "refuse_later", "rate": 0.3, "seconds": 0.5},
    {"what": "IGW00009", "rate": 0.4},
    {"what": "EGW00201", "rate": 0.4},
    {"what": "EGW00301", "rate": 0.3},
    {"what": "lose_reply", "rate": 0.5, "seconds": 3, "on": "cancel"},
    {"what": "reset", "rate": 0.5, "on": "cancel"},
    {"what": "html", "rate": 0.5, "on": "list"},
    {"what": "garbled", "rate": 0.5, "on": "list"},
    {"what": "reset", "rate": 0.5, "on": "list"},
    {"what": "doubled", "rate": 0.5, "on": "list"},
    {"what": "EGW00215", "rate": 0.5, "on": "list"},
    {"what": "html", "rate": 0.8, "on": "token"},
    {"what": "EGW00133", "rate": 0.8, "on": "token"},
)
_PLENTY = 10**9


class KISStreet:
    """The KIS simulator, in a process of its own, and a line to it."""

    def __init__(self, folder: Path, start: Start, lines: Lines, environ: Mapping[str, str]) -> None:
        self.met: Counter[str] = Counter()
        self._folder = folder
        self._file = folder / "book.jsonl"
        self._start = start
        self._environ = dict(environ)
        self._port = 0
        self._child: Child | None = None
        self._size = self._count = 0
        self._serve()
        # A request that arrives long after its deadline is beyond what the worker may be asked to foresee.
        self._line = lines.open(self._port, late_requests=False)

    def route(self) -> dict[str, str]:
        return {
            "BROKER": "kis",
            "ACCOUNT": "12345678-01",
            "ACCOUNT_EXCLUSIVE": "true",
            "RATE_LIMIT": "100",
            "OPTIONS__ENVIRONMENT": "real",
            "OPTIONS__APP_KEY": "soak-key",
            "OPTIONS__APP_SECRET": "soak-secret",
            "OPTIONS__ACCOUNT": "12345678-01",
            "OPTIONS__HTS_ID": "soak",
            "OPTIONS__BASE_URL": f"http://127.0.0.1:{self._line.port}",
            "OPTIONS__CHECK_HOURS": "false",
            "OPTIONS__CONNECT_TIMEOUT": "0.5",
            "OPTIONS__REPLY_TIMEOUT": "1.0",
        }

    def symbols(self) -> frozenset[str]:
        return frozenset(symbol for symbol, one in universe().items() if one.market == "KR")

    def strike(self, kind: str, choice: float, seconds: float) -> None:
        match kind:
            case "broker":
                self._note_met()
                self._ask("/sim/faults", [KIS_FAULTS[int(choice * len(KIS_FAULTS))]])
            case "broker_line":
                line = FAULTS[int(choice * len(FAULTS))]
                self.met[f"broker line: {line}"] += 1
                self._line.strike(line, seconds)
            case "broker_kill":
                self._stop()
            case "tokens":
                self._ask("/sim/tokens", method="DELETE")

    def relent(self, kind: str) -> None:
        match kind:
            case "broker":
                self._note_met()
                self._ask("/sim/faults", method="DELETE")
            case "broker_kill" if self._child is None:
                self._serve()
            case "all":
                if self._child is None:
                    self._serve()
                self._note_met()
                self._ask("/sim/faults", method="DELETE")
                self._line.calm()

    def orders(self) -> int:
        if self._file.exists() and (size := self._file.stat().st_size) != self._size:
            with self._file.open("rb") as file:
                file.seek(self._size)
                self._count += file.read(size - self._size).count(b'"kind": "new"')
            self._size = size
        return self._count

    def book(self) -> list[OrderRecord]:
        rows = (self._ask("/sim/book") or {})["orders"]
        return [record_of(row) for row in rows if row["kind"] == "new"]

    def close(self) -> None:
        self._stop()

    def _serve(self) -> None:
        words = ["simulate", "kis", "--port", str(self._port), "--at", "open", "--book", str(self._file)]
        words += ["--rate", "0", "--ledger-rate", "0", "--token-interval", "0", "--visibility-lag", "0.3"]
        words += ["--cash", str(10**15), "--json", *self._holdings()]
        log = self._folder / "broker.log"
        log.touch()
        before = log.stat().st_size
        self._child = self._start(words, self._environ, log)
        until = time.monotonic() + 60
        while True:
            with log.open("rb") as file:
                file.seek(before)
                shown = [line for line in file.read().splitlines() if line.startswith(b"{")]
            if shown:
                self._port = int(json.loads(shown[0])["url"].rpartition(":")[2])
                break
            assert time.monotonic() < until and self._child.poll() is None, f"the simulator is not up: {log}"
            time.sleep(0.01)

    def _holdings(self) -> list[str]:
        return [word for symbol in sorted(self.symbols()) for word in ("--holding", f"{symbol}={_PLENTY}")]

    def _stop(self) -> None:
        if self._child is not None:
            self._note_met()
            if self._child.poll() is None:
                os.kill(self._child.pid, signal.SIGKILL)
            wait_for(self._child)
            self._child = None

    def _note_met(self) -> None:
        found = self._ask("/sim/faults")
        plan = {one["what"]: one["on"] for one in (found or {}).get("plan", ())}
        for what, count in (found or {}).get("met", {}).items():
            self.met[f"{plan.get(what, 'order')}: {what}"] += count

    def _ask(self, path: str, document: object = None, method: str | None = None) -> Any:
        """``None`` when it is away: then it forgets its faults by itself."""
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", body, method=method)
        for _ in range(5):
            try:
                with urllib.request.urlopen(request, timeout=20) as reply:
                    return json.load(reply)
            except urllib.error.HTTPError as error:
                raise AssertionError(error.read().decode()) from error
            except OSError:
                if self._child is None:
                    return None
                time.sleep(0.2)
        return None


def record_of(row: Mapping[str, Any]) -> OrderRecord:
    """An order of ``/sim/book`` as a list of KIS would show it, without an id of ours."""
    number = OrderNumber(datetime.fromisoformat(row["day"]).date(), row["branch"], row["number"])
    price = Decimal(row["price"])
    return OrderRecord(
        broker_order_id=str(number),
        symbol=row["symbol"],
        side=Side(row["side"]),
        quantity=Decimal(row["quantity"]),
        status=_status(row),
        placed_at=datetime.fromisoformat(row["placed_at"]),
        limit_price=price or None,
        filled_quantity=Decimal(row["filled"]),
    )


def _status(row: Mapping[str, Any]) -> OrderStatus:
    if row["remaining"]:
        return OrderStatus.PARTIALLY_FILLED if row["filled"] else OrderStatus.WORKING
    if row["refused"]:
        return OrderStatus.REFUSED
    return OrderStatus.CANCELLED if row["cancelled"] else OrderStatus.FILLED
