"""The adapter in front of its simulator, in each condition of the conformance suite."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal

from kis_bench import options
from starlette.types import ASGIApp, Receive, Scope, Send

from worker.brokers.kis import KISBrokerAdapter
from worker.clock import ManualClock
from worker.simulate import serving
from worker.simulate.faults import Fault
from worker.simulate.kis import KISOptions, KISSimulator
from worker.simulate.orders import Kind

Mode = Literal["real", "paper"]

#: With it the price of 005930 is above 71,000 at ten in the morning of `ManualClock`'s day, so that a buy at that rests.
SEED: Final = 1
#: A refusal that each server has.
REFUSAL: Final[dict[Mode, str]] = {"real": "APBK0952", "paper": "40250000"}


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

    def make(self, condition: str, clock: ManualClock, folder: Path) -> KISBrokerAdapter:
        simulator, url = self._server(clock, folder)
        simulator.faults.set(self._faults(condition))
        if condition == "unreachable":
            url = f"http://127.0.0.1:{_closed_port()}"
        given = options(url, environment=self._mode, us=True)
        return KISBrokerAdapter.from_options(
            given, mode="live" if self._mode == "real" else "paper", clock=clock
        )

    def held(self, folder: Path) -> int:
        if folder not in self._servers:
            return 0
        return sum(order.kind is Kind.NEW for order in self._servers[folder][0].orders())

    def simulator(self, folder: Path) -> KISSimulator:
        """The server of a folder."""
        return self._servers[folder][0]

    def close(self) -> None:
        """Stop every server."""
        self._stack.close()
        self._servers.clear()

    def _server(self, clock: ManualClock, folder: Path) -> tuple[KISSimulator, str]:
        if folder not in self._servers:
            free = KISOptions(
                mode=self._mode, seed=SEED, rate=0, ledger_rate=0, token_interval=0, visibility_lag=0
            )
            simulator = KISSimulator(free, clock=clock)
            url = self._host.add(simulator) if self._host else self._stack.enter_context(simulator.serve())
            self._servers[folder] = simulator, url
        return self._servers[folder]

    def _faults(self, condition: str) -> list[Fault]:
        match condition:
            case "refuses":
                return [Fault(what=REFUSAL[self._mode], rate=1)]
            case "loses the reply":
                return [Fault(what="reset", on=on, rate=1) for on in ("order", "cancel")]  # type: ignore[arg-type]
            case "shows late":
                return [Fault(what="hide", rate=1, seconds=5)]
            case _:
                return []


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
