"""
Faults on demand: which call meets which accident, by number or by chance.

A plan is a list of rules. The first rule that meets a call has it; a call that no rule meets goes well.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from worker.errors import ConfigError


class Accident(StrEnum):
    """What may happen to a call, beside being answered with a code of somebody's choice."""

    #: Carried out; then silence, and after ``seconds`` (30) the connection is closed.
    LOSE_REPLY = "lose_reply"
    #: Carried out at once; the answer takes ``seconds`` (1).
    DELAY = "delay"
    #: Held back for ``seconds`` (1), and only then carried out and answered, even when nobody waits any more.
    HOLD = "hold"
    #: Carried out; then the connection is reset.
    RESET = "reset"
    #: Not carried out; HTTP 502 with a page for people.
    HTML = "html"
    #: Carried out; HTTP 200 with half a JSON document.
    GARBLED = "garbled"
    #: Carried out; the answer says so, but names no order.
    NO_NUMBER = "no_number"
    #: Carried out once; the answer comes twice on the same connection.
    DOUBLED = "doubled"
    #: Carried out; lists do not show the order for ``seconds`` (10) longer than usual.
    HIDE = "hide"
    #: Taken; the exchange refuses the order after ``seconds`` (0.5).
    REFUSE_LATER = "refuse_later"


#: Codes that are answered although the order is on the book.
BOOKED_CODES = frozenset({"IGW00009", "EGW00301", "EGW00302"})
_NOT_CARRIED_OUT = frozenset({Accident.HTML})
_SECONDS = {
    Accident.LOSE_REPLY: 30.0,
    Accident.DELAY: 1.0,
    Accident.HOLD: 1.0,
    Accident.HIDE: 10.0,
    Accident.REFUSE_LATER: 0.5,
}
_CODE = re.compile(r"[A-Z0-9]{8}")


class Fault(BaseModel):
    """One rule of a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: An `Accident`, or an eight-character code of the broker to answer with.
    what: str
    #: The calls that it is about.
    on: Literal["order", "cancel", "list", "account", "quote", "token"] = "order"
    #: It meets the nth such call since the plan was set, counted from 1 …
    nth: Annotated[int, Field(ge=1)] | None = None
    #: … or each with this probability.
    rate: Annotated[float, Field(gt=0, le=1)] | None = None
    #: How long it takes, where it takes time.
    seconds: Annotated[float, Field(ge=0, le=3600)] | None = None
    #: Whether the call is carried out all the same; each accident has its own way when left out.
    booked: bool | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.what not in set(Accident) and not _CODE.fullmatch(self.what):
            raise ValueError(f"what: one of {', '.join(Accident)}, or a code of eight letters and digits")
        if (self.nth is None) == (self.rate is None):
            raise ValueError("say either nth or rate")
        return self

    @property
    def code(self) -> str | None:
        """The code to answer with, when it is one."""
        return None if self.what in set(Accident) else self.what

    @property
    def carried_out(self) -> bool:
        if self.booked is not None:
            return self.booked
        return self.what in BOOKED_CODES if self.code else self.what not in _NOT_CARRIED_OUT

    @property
    def lasts(self) -> float:
        """Seconds."""
        return (
            _SECONDS.get(Accident(self.what), 0.0)
            if self.seconds is None and not self.code
            else self.seconds or 0.0
        )


_PLAN = TypeAdapter(list[Fault])


def read_plan(given: Any) -> list[Fault]:
    """
    A plan from a JSON document, or from what it says.

    Raises:
        ConfigError: every rule that cannot be used.
    """
    try:
        return _PLAN.validate_json(given) if isinstance(given, (str, bytes)) else _PLAN.validate_python(given)
    except ValidationError as error:
        faults = [
            f"faults: {'.'.join(map(str, one['loc'])) or 'plan'}: {one['msg']}" for one in error.errors()
        ]
        raise ConfigError(faults) from error


class FaultPlan:
    """The plan in force. Any thread may change it."""

    def __init__(self, rules: Iterable[Fault] = (), seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._rules: list[Fault] = list(rules)
        self._calls: Counter[str] = Counter()
        self._met: Counter[str] = Counter()

    def set(self, rules: Iterable[Fault]) -> None:
        """Put another plan in force; counting starts again."""
        with self._lock:
            self._rules = list(rules)
            self._calls.clear()
            self._met.clear()

    def draw(self, on: str) -> Fault | None:
        """Count a call, and say what it meets."""
        with self._lock:
            self._calls[on] += 1
            number = self._calls[on]
            for rule in self._rules:
                if rule.on == on and (rule.nth == number or self._chance(rule.rate)):
                    self._met[rule.what] += 1
                    return rule
        return None

    def state(self) -> dict[str, Any]:
        """The plan, the calls counted so far, and the faults they met, as JSON can hold it."""
        with self._lock:
            rules = [json.loads(rule.model_dump_json(exclude_none=True)) for rule in self._rules]
            return {"plan": rules, "calls": dict(self._calls), "met": dict(self._met)}

    def _chance(self, rate: float | None) -> bool:
        return rate is not None and self._random.random() < rate
