"""One simulated KIS server: everything put together, to be served in a thread or in this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp

from worker.clock import Clock, SystemClock
from worker.simulate import serving
from worker.simulate.book import Book
from worker.simulate.exchange import Exchange, Lags
from worker.simulate.faults import FaultPlan
from worker.simulate.journal import Journal
from worker.simulate.kis import accounts, domestic, overseas
from worker.simulate.kis.app import KISApp
from worker.simulate.kis.auth import Gatehouse
from worker.simulate.kis.desk import Desk, Handler
from worker.simulate.kis.options import KISOptions
from worker.simulate.orders import Order
from worker.simulate.prices import PricePath
from worker.simulate.rules import Rules
from worker.simulate.trading_time import TradingTime
from worker.simulate.universe import universe
from worker.simulate.venues import Venues

HANDLERS: dict[str, Handler] = {
    "order": domestic.order,
    "change": domestic.change,
    "changeable": domestic.changeable,
    "daily": domestic.daily,
    "balance": accounts.balance,
    "buying_power": accounts.buying_power,
    "sellable": accounts.sellable,
    "price": accounts.price,
    "listing": accounts.listing,
    "holiday": accounts.holiday,
    "us_order": overseas.order,
    "us_change": overseas.change,
    "us_unfilled": overseas.unfilled,
    "us_orders": overseas.orders,
    "us_balance": overseas.balance,
    "us_buying_power": overseas.buying_power,
}


class KISSimulator:
    """
    A KIS server on this machine.

    ::

        with KISSimulator(KISOptions(always_open=True)).serve() as url:
            …
    """

    def __init__(self, options: KISOptions | None = None, *, clock: Clock | None = None) -> None:
        """
        Raises:
            ConfigError: the book cannot be used.
        """
        self.options = options = options or KISOptions()
        clock = clock or SystemClock()
        self.faults = FaultPlan(options.faults, options.seed)
        self._journal = Journal(options.book)
        self.exchange = Exchange(
            Book(options.opening, universe()),
            self._journal,
            Rules(universe(), Venues(always_open=options.always_open)),
            PricePath(options.seed, options.depth),
            TradingTime(clock, options.at),
            Lags(options.visibility_lag, options.exchange_lag),
        )
        gatehouse = Gatehouse(
            clock,
            app_key=options.app_key,
            app_secret=options.app_secret,
            life=options.token_life,
            issue_interval=options.token_interval,
        )
        self.desk = Desk(options, self.exchange, gatehouse, clock, HANDLERS)
        self._app = KISApp(self.desk, self.faults, clock)

    def orders(self) -> list[Order]:
        """Every order on the book, as it truly is now."""
        with self.exchange.lock:
            self.exchange.advance()
            return list(self.exchange.book.everything())

    def asgi(self) -> ASGIApp:
        """The application, for a server of one's own."""
        return self._app.asgi()

    @contextmanager
    def serve(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
        """
        Serve in a thread while the block runs. Yields the base URL; port 0 takes a free one.

        Raises:
            OSError: the address cannot be had.
        """
        with serving.served(self.asgi(), serving.listen(host, port)) as url:
            yield url

    def close(self) -> None:
        """Close the book's file."""
        self._journal.close()
