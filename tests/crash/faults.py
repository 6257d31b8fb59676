"""What may befall a process at one of its calls, in words that can be said again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

#: kind → whether it makes a difference that the call was carried out before.
KINDS: Final = {
    #: The process ends, as by kill -9.
    "killed": True,
    #: The connection breaks: the process lives on, and does not know whether the call arrived.
    "cut off": True,
    #: The process stands still for longer than any lease, as by SIGSTOP; others take over; then it goes on.
    "frozen": True,
    #: Everything that is unacknowledged is handed over once more, to other workers, which go on for a while.
    "overtaken": False,
    #: An operator halts the route.
    "halted": False,
    #: The server forgets all scripts, as by SCRIPT FLUSH.
    "flushed": False,
}

#: The actor that is no worker.
OPERATOR: Final = 0

_WORDS = re.compile(r"(?P<kind>[a-z ]+?) (?P<when>before|after) call (?P<number>\d+)(?: of (?P<actor>.+))?")


class Killed(BaseException):
    """The process ends here. No handler may catch it."""


@dataclass(frozen=True, order=True)
class Fault:
    """
    What befalls one actor at its n-th call. Workers are numbered from 1 in the order of their birth; the operator is
    whoever types commands, one process each, whose calls are counted through.
    """

    number: int
    after: bool
    kind: str
    actor: int = 1

    def __str__(self) -> str:
        words = f"{self.kind} {'after' if self.after else 'before'} call {self.number}"
        if self.actor == 1:
            return words
        return f"{words} of {'the operator' if self.actor == OPERATOR else f'worker {self.actor}'}"

    @classmethod
    def parse(cls, words: str) -> Self:
        """
        The fault that prints so.

        Raises:
            ValueError: nothing prints so.
        """
        found = _WORDS.fullmatch(words.strip())
        if found is None or found["kind"] not in KINDS:
            raise ValueError(
                f"{words!r} is no fault such as: killed after call 7 of worker 2; kinds: {', '.join(KINDS)}"
            )
        actor = found["actor"] or "worker 1"
        number = OPERATOR if actor == "the operator" else int(actor.removeprefix("worker "))
        return cls(int(found["number"]), found["when"] == "after", found["kind"], number)
