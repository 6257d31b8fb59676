"""The adapter in front of its simulator, in each condition of the conformance suite."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final, Literal

from kis_bench import options
from starlette.types import ASGIApp, Receive, Scope, Send

from worker.brokers.kis import KISBrokerAdapter
from worker.brokers.kis.facts import KST
from worker.clock import Clock
from worker.simulate import serving
from worker.simulate.faults import Fault
from worker.simulate.kis import KISOptions, KISSimulator
from worker.simulate.orders import Kind

Mode = Literal["real", "paper"]

#: With it the price of 005930 is above 71,000 at ten in the morning of `ManualClock`'s day, so that a buy at that rests.
SEED: Final = 1
#: A refusal that each server has.
REFUSAL: Final[dict[Mode, str]] = {"real": "APBK0952", "paper": "40250000"}


#: Seconds that an adapter waits where it would wait in vain.
REPLY_TIMEOUT: Final = 0.1
_LATE: Final = frozenset({"stays silent", "answers too late", "takes it late"})


class Host:
    """An ASGI application of many simulators, each below a path of its own."""

    def __init__(self) -> None:
        self.url = ""
        self._simulators: dict[str, ASGIApp] = {}

    def add(self, simulator: KISSimulator) -> str:
        """Serve it from now on. Answers its base URL."""
        name = str(len(self._simulators) + 1)
        self._simulators[name] = simulator.asgi()
        return f"{self.url}/{name}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for answer in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{answer}.complete"})
            return
        name, _, rest = scope["path"].lstrip("/").partition("/")
        await self._simulators[name](dict(scope) | {"path": f"/{rest}"}, receive, send)


@contextmanager
def hosted() -> Iterator[Host]:
    """A host while the block runs."""
    host = Host()
    with serving.served(host, serving.listen("127.0.0.1", 0)) as url:
        host.url = url
        yield host


class KISCase:
    """
    One case: a simulator for each folder, behind HTTP, with its exchange on the test's clock. Conditions are called as
    `adapter_cases.Condition` spells them. Without a host, each simulator is served by itself.
    """

    def __init__(self, mode: Mode, host: Host | None = None) -> None:
        self.name = f"kis-{mode}"
        self._mode: Mode = mode
        self._host = host
        self._servers: dict[Path, tuple[KISSimulator, str]] = {}
        self._stack = ExitStack()

    def make(self, condition: str, clock: Clock, folder: Path) -> KISBrokerAdapter:
        simulator, url = self._server(clock, folder)
        simulator.faults.set(self._faults(condition))
        if condition == "unreachable":
            url = f"http://127.0.0.1:{_closed_port()}"
        given = options(url, environment=self._mode, us=True)
        if condition in _LATE:
            given["reply_timeout"] = REPLY_TIMEOUT
        return KISBrokerAdapter.from_options(
            given, mode="live" if self._mode == "real" else "paper", clock=clock
        )

    def held(self, folder: Path) -> int:
        return len(self.book(folder))

    def book(self, folder: Path) -> dict[str, Decimal]:
        """Quantity by order number."""
        orders = self._servers[folder][0].orders() if folder in self._servers else []
        return {
            f"{order.placed_at.astimezone(KST):%Y%m%d}-{order.branch}-{order.number}": Decimal(order.quantity)
            for order in orders
            if order.kind is Kind.NEW
        }

    def simulator(self, folder: Path) -> KISSimulator:
        """The server of a folder."""
        return self._servers[folder][0]

    def close(self) -> None:
        """Stop every server."""
        self._stack.close()
        self._servers.clear()

    def _server(self, clock: Clock, folder: Path) -> tuple[KISSimulator, str]:
        if folder not in self._servers:
            free = KISOptions(
                mode=self._mode, seed=SEED, rate=0, ledger_rate=0, token_interval=0, visibility_lag=0
            )
            simulator = KISSimulator(free, clock=clock)
            url = self._host.add(simulator) if self._host else self._stack.enter_context(simulator.serve())
            self._servers[folder] = simulator, url
        return self._servers[folder]

    def _faults(self, condition: str) -> list[Fault]:
        found = REFUSAL[self._mode] if condition == "refuses" else _ACCIDENTS.get(condition)
        if found is None:
            return []
        fault = found if isinstance(found, Fault) else Fault(what=found, rate=1)
        return [fault, fault.model_copy(update={"on": "cancel"})]


#: What the server does on each condition: a code or an accident, with every order and cancel.
_ACCIDENTS: Final[dict[str, str | Fault]] = {
    "loses the reply": "reset",
    "stays silent": Fault(what="lose_reply", rate=1, seconds=2 * REPLY_TIMEOUT),
    "answers too late": Fault(what="delay", rate=1, seconds=2 * REPLY_TIMEOUT),
    "takes it late": Fault(what="hold", rate=1, seconds=2 * REPLY_TIMEOUT),
    "breaks off": Fault(what="reset", rate=1, booked=False),
    "shows a page": "html",
    "garbles the reply": "garbled",
    "names no number": "no_number",
    "answers twice": "doubled",
    "shows late": Fault(what="hide", rate=1, seconds=5),
    "fails and holds it": "IGW00009",
    "times out inside": "EGW00301",
    "has too many calls": "EGW00201",
    "has too many calls inside": "EGW00215",
    "says what nobody knows": "ZZZZ9999",
    "forgets the token": "EGW00121",
}


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
