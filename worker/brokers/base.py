"""What a broker promises to the engine, and an adapter to its broker."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, ClassVar, Final, Protocol, Self

import redis
from pydantic import BaseModel, ConfigDict

from contracts import (
    Code,
    ExecutionIntent,
    ExecutionResponse,
    OrderNotice,
    OrderQuery,
    OrderRecord,
    OrderRequest,
    OrderResponse,
    OrderScan,
    Outcome,
)
from worker.clock import Clock
from worker.errors import BrokerError, Denied, NotSent, OutcomeUnknown, Rejected


class AdapterFault(OutcomeUnknown):
    """A fault of ours while an order was on its way: in doubt, and a bug to fix. Its cause has the stack."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one kind of evidence means for an intent."""

    #: The answer; absent when there is none, since a doubt is not an answer.
    outcome: Outcome | None
    code: Code | None
    #: It provably never left, so it may be launched again.
    may_resend: bool


#: Can the order exist at the broker? One row for each error an adapter can end in; a test demands it.
VERDICTS: Final[dict[type[BrokerError], Verdict]] = {
    NotSent: Verdict(Outcome.NOT_SENT, Code.BROKER_UNREACHABLE, may_resend=True),
    Denied: Verdict(Outcome.DENIED, Code.PRETRADE, may_resend=False),
    Rejected: Verdict(Outcome.REJECTED, Code.BROKER_REJECTED, may_resend=False),
    OutcomeUnknown: Verdict(None, None, may_resend=False),
    AdapterFault: Verdict(None, None, may_resend=False),
}


def verdict_of(error: BrokerError) -> Verdict:
    """The row for an error; one of a kind nobody listed is a doubt."""
    for kind in type(error).__mro__:
        if kind in VERDICTS:
            return VERDICTS[kind]
    return VERDICTS[OutcomeUnknown]


@dataclass(frozen=True, slots=True)
class Send:
    """The launch behind a submission, as it goes into the answer."""

    route: str | None = None
    #: How often the order was launched, this launch included.
    attempts: int = 1
    #: Seconds on ``CLOCK_BOOTTIME``; what has not left by then is not sent.
    send_before: float | None = None
    #: Hears what a later cancel will need besides the broker's number, before the answer is given.
    refer: Callable[[str], None] | None = None
    #: Hears what the adapter tells of its call, for the audit trail, before the answer is given or the error raised.
    hear: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class TokenState:
    """An access token that workers share."""

    #: Seconds that it is good for; 0 where there is none.
    valid_for: float
    #: It was stored with the secret that this route has.
    readable: bool = True


class BrokerEngine(Protocol):
    """Takes an intent to its end, or says that the end is unknown."""

    @property
    def broker_id(self) -> str:
        """Who answers, as ``ExecutionResponse.broker`` shows it."""

    def submit_intent(self, intent: ExecutionIntent, send: Send | None = None) -> ExecutionResponse:
        """
        Place the order of one intent and answer what became of it. Call it once for each launch.

        Raises:
            OutcomeUnknown: the order may be at the broker. Never submit it again; resolve it.
        """


class BaseBrokerAdapter(ABC):
    """
    One broker's API behind four calls. Safe to share between threads.

    The calls that change something answer or raise exactly one of `NotSent`, `Rejected` and `OutcomeUnknown`,
    sorted by one question: can the order exist at the broker? When in doubt, it is `OutcomeUnknown`. Each makes
    one request and never repeats it.
    """

    #: The adapter's settings, closed to unknown names; a route's ``options`` are read with it.
    Options: ClassVar[type[BaseModel]]

    #: The name in responses, metrics and logs.
    broker_id: str
    #: The broker's order list shows the intent_id we sent (``OrderRecord.client_order_id``), so a doubt can be
    #: resolved by id. Without it an order is known by its order key only.
    client_order_ids: bool
    #: Seconds from a placement until the broker's order list shows it for certain. A list read earlier proves a
    #: presence, never an absence.
    visibility_lag: float
    #: Calls a second that the broker takes of one account, orders and look-ups together; ``None`` for no limit.
    rate_limit: float | None = None
    #: Whether anything happens to an order after its acceptance, so that there is something to follow.
    orders_change: bool = True
    #: Called before each request that only reads: it returns once the broker's call limit has room for one. Whoever
    #: shares the limit with others sets it; requests that change something have their room already.
    before_read: Callable[[], None] = staticmethod(lambda: None)

    @classmethod
    @abstractmethod
    def from_options(cls, options: Mapping[str, Any], *, mode: str, clock: Clock) -> Self:
        """
        Build the adapter from a route's ``options``, for mode ``off``, ``paper`` or ``live``. Sends nothing.

        Raises:
            pydantic.ValidationError: options are missing, unknown or malformed; each is named. Do not start.
            ConfigError: an option cannot be used as it stands; it is named. Do not start.
        """

    @abstractmethod
    def place_order(self, request: OrderRequest) -> OrderResponse:
        """
        Place one order, in one request. An answer means that the broker holds it under ``broker_order_id``.

        Raises:
            NotSent: no byte left this machine, or ``send_before`` was over. It may be launched again.
            Denied: the order is impossible or its market closed; nothing left.
            Rejected: the broker refused it, with a code on the adapter's own list. Never send it again.
            OutcomeUnknown: it may be at the broker. Never send it again; resolve it.
        """

    @abstractmethod
    def get_order(self, query: OrderQuery) -> OrderRecord | None:
        """
        Look one order up. ``None`` means that it is not shown now, which is no proof that it does not exist.

        Raises:
            BrokerError: the broker could not be asked and nothing was learned; ask again later.
        """

    @abstractmethod
    def cancel_order(self, query: OrderQuery) -> OrderResponse:
        """
        Ask for a cancel, in one request. An answer means that the broker took the request; its
        ``broker_order_id`` is the target's.

        Raises:
            NotSent: no byte left this machine, or ``send_before`` was over. It may be asked again.
            Rejected: the broker refused: it does not know the order, or the order is done.
            OutcomeUnknown: the request may have arrived. Look the target up.
        """

    @abstractmethod
    def list_orders(self, since: datetime) -> OrderScan:
        """
        Every order placed at or after ``since`` that the broker shows now, oldest first, all pages. Only a
        ``complete`` scan, started after the visibility lag, can speak for an absence.

        Raises:
            BrokerError: the broker could not be asked and nothing was learned; ask again later.
        """

    @classmethod
    def full_name(cls, text: str) -> str | None:
        """
        The order that a person names, as the lists spell it. ``None`` where the words name none: such as a number
        without its day, where the broker counts anew each day.
        """
        return text

    @classmethod
    def may_mean(cls, text: str, number: str) -> bool:
        """Whether a person who writes ``text`` may mean the order that the lists call ``number``."""
        return text == number

    def session_over(self, symbol: str, since: datetime) -> bool:
        """Whether the session in which an order of ``since`` could have been taken has ended for good."""
        return False

    def in_session(self, at: datetime) -> bool:
        """Whether an order could be taken at that moment, as far as the calendar tells."""
        return True

    def notices(  # noqa: B027 - many brokers say nothing by themselves
        self, heard: Callable[[OrderNotice], None], gap: Callable[[], None], stop: threading.Event
    ) -> None:
        """
        Listen to what the broker says by itself about the account's orders, until ``stop`` is set. Returns at once
        where it says nothing. ``heard`` takes each notice once, in order; ``gap`` is called each time that listening
        begins, at first and after each interruption: what came before was not heard. It connects again by itself,
        and raises nothing for the broker's faults. Only one worker of an account calls it at a time.
        """

    def knows_day(self, day: date) -> bool:
        """Whether the calendar tells if the market trades that day. Where it does not, orders may be denied."""
        return True

    def token_state(self, client: redis.Redis, prefix: str) -> TokenState | None:
        """
        What is shared of signing in, as `share` keeps it. Asks nobody but Redis and changes nothing; ``None`` where
        nothing is signed in for.
        """
        return None

    def share(self, client: redis.Redis, prefix: str) -> None:  # noqa: B027 - many have nothing to share
        """
        Keep in Redis, under keys that begin with ``prefix``, what all workers of an account use together, such as
        an access token. ``client`` stays the caller's. Without this call each process has its own.
        """

    def prepare(self) -> None:  # noqa: B027 - many need no preparation
        """
        Do now what the first order would have to wait for, such as signing in. It may take its time.

        Raises:
            BrokerError, Unavailable: it could not be done now; the first order will try again.
        """

    def close(self) -> None:  # noqa: B027 - an adapter without connections has nothing to do
        """Give up connections and files. Nothing may be called after it."""


class ClosedOptions(BaseModel):
    """A base for ``Options``: frozen, and a misspelt name is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
