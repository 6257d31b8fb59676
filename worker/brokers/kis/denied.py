"""The one error of our own rules: the order could not have been placed, so nothing was sent."""

from __future__ import annotations

from decimal import Decimal

from contracts import Code
from worker.errors import Denied


class PretradeDenied(Denied):
    """
    Our own rules say no. Nothing left this machine, the broker did not fail, and the same order will never do.

    ``denial`` is ``PRETRADE`` or ``MARKET_CLOSED``; the text names the field, what is wrong and what would be right.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str,
        denial: Code = Code.PRETRADE,
        nearest: tuple[Decimal, ...] = (),
    ) -> None:
        super().__init__(message, denial=denial)
        #: The field of the intent to change.
        self.field = field
        #: The nearest legal values, lowest first; empty where there are none.
        self.nearest = nearest
