"""
Everything raised on purpose.

::

    WorkerError
    ├─ ConfigError          refuse to start; every fault is listed at once
    ├─ Unavailable          Redis or the queue does not answer: nothing was decided; wait and call again
    ├─ StateLost            the server behind the URL has forgotten this route: send nothing, register anew
    ├─ Refused              an operator's command cannot be carried out as given; nothing changed
    └─ BrokerError          can the order exist at the broker?
       ├─ NotSent           no:    it provably never left this machine
       ├─ Denied            no:    our own rules refused it before anything left
       ├─ Rejected          no:    the broker refused it, on its own evidence
       └─ OutcomeUnknown    maybe: it left, and nothing proves either way

`contracts.ContractError` (the bytes are no message of ours) is the one error from outside this tree.
"""

from __future__ import annotations

from contracts import Code, SafetyCode


class WorkerError(Exception):
    """The root of everything this package raises on purpose."""


class ConfigError(WorkerError):
    """The settings cannot be used. ``faults`` has one line for each, naming the setting and the cure."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Unavailable(WorkerError):
    """Redis or the queue does not answer. The call may or may not have been carried out; all of ours may be repeated."""


class StateLost(WorkerError):
    """The route's state is missing or is another incarnation's. Send nothing."""


class Refused(WorkerError):
    """An operator's command cannot be carried out as given. Nothing changed; the text says what to do instead."""


class BrokerError(WorkerError):
    """What an adapter raises, sorted by one question: can the order exist at the broker?"""

    def __init__(
        self, message: str, *, code: str | None = None, safety_code: SafetyCode | None = None
    ) -> None:
        super().__init__(message)
        #: For people; without secrets.
        self.message = message
        #: The broker's own code, where it gave one.
        self.code = code
        self.safety_code = safety_code
        #: What went over the wire and came back, for the audit trail; without secrets. Empty where nothing is told.
        self.wire = ""


class NotSent(BrokerError):
    """It provably never left this machine. It may be launched again."""


class Denied(BrokerError):
    """
    Our own rules say no: the order cannot exist, or its market is closed. Nothing left, and no broker failed.

    ``denial`` is ``PRETRADE`` or ``MARKET_CLOSED``; the text names the field and the nearest legal values.
    """

    def __init__(self, message: str, *, denial: Code = Code.PRETRADE) -> None:
        super().__init__(message)
        self.denial = denial


class Rejected(BrokerError):
    """The broker refused it, on its own evidence. It may never be sent again under this id."""


class OutcomeUnknown(BrokerError):
    """It left, and nothing proves either way. Never send it again; resolve it by asking the broker."""
