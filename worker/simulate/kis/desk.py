"""
The counter behind the gateway: checks of a call in KIS's order, then the call's own handler.

No HTTP here: a call is a value, and so is its answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation

from worker.clock import Clock
from worker.simulate.exchange import Exchange, Mishap
from worker.simulate.kis.auth import Gatehouse
from worker.simulate.kis.calls import OVERSEAS
from worker.simulate.kis.codes import (
    CHANGED_PAPER,
    ORDERED_PAPER_BUY,
    ORDERED_PAPER_SELL,
    ORDERED_REAL,
    PAPER,
    PAPER_BAD_ACCOUNT,
    REAL,
    REAL_BAD_ACCOUNT,
    REAL_OVERSEAS,
    Code,
)
from worker.simulate.kis.options import KISOptions
from worker.simulate.kis.wire import Asked, Refused, Reply, answered, hash_of, refused
from worker.simulate.limits import SlidingWindow
from worker.simulate.orders import Order
from worker.simulate.rules import Reason, Refusal
from worker.simulate.venues import SEOUL

REAL_BRANCH, PAPER_BRANCH = "91252", "00950"

Handler = Callable[["Desk", Asked, Mishap], Reply]


class Desk:
    """What the handlers of calls work on. Called from one thread at a time for each call; state is the exchange's."""

    def __init__(
        self,
        options: KISOptions,
        exchange: Exchange,
        gatehouse: Gatehouse,
        clock: Clock,
        handlers: Mapping[str, Handler],
    ) -> None:
        self.options = options
        self.exchange = exchange
        self.gatehouse = gatehouse
        #: Calls by name, and refusals by code.
        self.calls: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self._clock = clock
        self._handlers = handlers
        self._calls = SlidingWindow(options.calls_a_second)
        self._ledger_calls = SlidingWindow(options.ledger_rate)

    @property
    def branch(self) -> str:
        return PAPER_BRANCH if self.options.is_paper else REAL_BRANCH

    def check(self, asked: Asked) -> Reply | None:
        """What the gateway says before anything else is looked at; none: the call may go on."""
        self.calls[asked.call.name] += 1
        try:
            self._check(asked)
        except Refused as error:
            return self._no(error.code)
        return None

    def carry_out(self, asked: Asked, mishap: Mishap) -> Reply:
        """Do what a checked call asks for."""
        try:
            return self._handlers[asked.call.name](self, asked, mishap)
        except Refused as error:
            return self._no(error.code)
        except Refusal as error:
            return self._no(self.code_of(asked, error.reason))

    def account(self, asked: Asked) -> str:
        """
        The ten digits of the account that a call is about.

        Raises:
            Refused: they are no account number, or none that is served here.
        """
        number, product = asked.text("CANO"), asked.text("ACNT_PRDT_CD")
        if not (
            len(number) == 8
            and len(product) == 2
            and (number + product).isascii()
            and (number + product).isdigit()
        ):
            raise refused("OPSQ2000")
        if self.options.accounts and f"{number}-{product}" not in self.options.accounts:
            raise Refused(PAPER_BAD_ACCOUNT if self.options.is_paper else REAL_BAD_ACCOUNT)
        return number + product

    def code_of(self, asked: Asked, reason: Reason) -> Code:
        """The code that this server has for a refusal."""
        if self.options.is_paper:
            return PAPER[reason]
        return (REAL_OVERSEAS if asked.call.path.startswith(OVERSEAS) else REAL)[reason]

    def ordered(self, order: Order, code: Code | None = None) -> Reply:
        """The answer to an order that was taken."""
        if code is None:
            paper = ORDERED_PAPER_BUY if order.side == "BUY" else ORDERED_PAPER_SELL
            code = paper if self.options.is_paper else ORDERED_REAL
        output = {
            "KRX_FWDG_ORD_ORGNO": order.branch,
            "ODNO": order.number,
            "ORD_TMD": f"{order.placed_at.astimezone(SEOUL):%H%M%S}",
            "SOR_ODNO": order.number if order.venue == "SOR" else "",
        }
        return answered(code, output=output)

    def changed(self, order: Order) -> Reply:
        """The answer to a modification or cancel that was taken."""
        return self.ordered(order, CHANGED_PAPER if self.options.is_paper else None)

    def _check(self, asked: Asked) -> None:
        headers, now = asked.headers, self._clock.boottime()
        key = self.gatehouse.check_pair(headers)
        self.gatehouse.check_token(key, headers)
        if not self._calls.passes(key, now):
            raise refused("EGW00201")
        ids = asked.call.paper if self.options.is_paper else asked.call.real
        if asked.tr_id not in ids:
            raise refused("EGW02006" if self.options.is_paper else "EGW00310")
        if asked.call.method == "POST":
            _check_body(asked)
        if asked.call.ledger and not self._ledger_calls.passes(asked.text("CANO", ""), now):
            raise refused("EGW00215")

    def _no(self, code: Code) -> Reply:
        self.refusals[code.code] += 1
        return answered(code)


def _check_body(asked: Asked) -> None:
    headers = asked.headers
    if not headers.get("content-type", "").startswith("application/json"):
        raise refused("EGW00132")
    # The gateway cannot read chunks: such a call dies on the way, valid or not.
    if "chunked" in headers.get("transfer-encoding", ""):
        raise refused("EGW00202")
    if headers.get("custtype", "P") not in ("P", "B"):
        raise refused("EGW00208")
    if not asked.params:
        raise refused("IGW00007")
    hashkey = headers.get("hashkey")
    if hashkey and hashkey != hash_of(asked.params):
        raise refused("EGW00131")


def whole_number(text: str) -> int:
    """
    A count as KIS writes it.

    Raises:
        Refused: anything else, ``70000.0`` too: the relay cannot build its message.
    """
    if not (text.isascii() and text.isdigit()):
        raise refused("IGW00007")
    return int(text)


def decimal_number(text: str) -> Decimal:
    """
    A foreign price.

    Raises:
        Refused: it is none.
    """
    try:
        found = Decimal(text)
    except InvalidOperation:
        raise refused("IGW00007") from None
    if not found.is_finite() or found < 0:
        raise refused("IGW00007")
    return found
