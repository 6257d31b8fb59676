"""What the demo shows: for people, or as JSON lines for programs."""

from __future__ import annotations

import sys
import threading
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from contracts import (
    Code,
    ExecutionIntent,
    ExecutionResponse,
    FailsafeEvent,
    FailsafeType,
    OrderEvent,
    Outcome,
)
from worker.cli.context import to_json, visible
from worker.clock import Clock
from worker.demo.market import Company
from worker.demo.tally import Tally

_WIDTH_MAX = 100
_NEVER = threading.Event()
_ALARMS = (FailsafeType.GUARD_TRIPPED, FailsafeType.LOCKDOWN, FailsafeType.HALTED, FailsafeType.ORPHAN_ORDER)
_GOOD_NEWS = (FailsafeType.GUARD_RESET, FailsafeType.RESUMED, FailsafeType.DOUBT_RESOLVED)
_HEADING = " SIDE QTY CODE   COMPANY                      LIMIT   ANSWER                TOOK"


class Screen(Protocol):
    """Where the acts show what happens."""

    def act(self, number: int, title: str, text: str) -> None:
        """A new act, and what to watch in it."""

    def say(self, text: str, **facts: object) -> None:
        """One more sentence; a program gets the facts with it."""

    def answers_follow(self) -> None:
        """The lines that follow are answers."""

    def answer(
        self, company: Company, intent: ExecutionIntent, response: ExecutionResponse, seconds: float
    ) -> None:
        """An answer has come, so many seconds after its intent had come."""

    def event(self, event: FailsafeEvent) -> None:
        """The worker has announced something."""

    def filled(self, event: OrderEvent) -> None:
        """More of an order was filled."""

    def summary(self, tally: Tally, seconds: float) -> None:
        """What it all came to."""

    def commands(self, text: str, lines: list[str]) -> None:
        """What to type next."""

    def pause(self, seconds: float) -> None:
        """Give people time to read."""


class JsonScreen:
    """One document a line on standard output; ``kind`` tells what it is."""

    def act(self, number: int, title: str, text: str) -> None:
        self._put("act", number=number, title=title, text=text)

    def say(self, text: str, **facts: object) -> None:
        self._put("note", text=text, **facts)

    def answers_follow(self) -> None:
        pass

    def answer(
        self, company: Company, intent: ExecutionIntent, response: ExecutionResponse, seconds: float
    ) -> None:
        self._put(
            "answer",
            company={"korean": company.korean, "english": company.english},
            intent=_plain(intent),
            response=_plain(response),
            milliseconds=round(seconds * 1000, 1),
        )

    def event(self, event: FailsafeEvent) -> None:
        self._put("event", event=_plain(event))

    def filled(self, event: OrderEvent) -> None:
        self._put("order", event=_plain(event))

    def summary(self, tally: Tally, seconds: float) -> None:
        claims = [{"claim": text, "true": holds} for text, holds in tally.claims]
        self._put("summary", **tally.figures(), seconds=round(seconds, 1), claims=claims, ok=tally.is_true)

    def commands(self, text: str, lines: list[str]) -> None:
        self._put("next", text=text, commands=[line for line in lines if line])

    def pause(self, seconds: float) -> None:
        pass

    def _put(self, kind: str, **fields: object) -> None:
        sys.stdout.write(to_json({"kind": kind, **fields}) + "\n")
        sys.stdout.flush()


class TextScreen:
    """Line after line, never going back: the same in a terminal, a dumb one, a log and a pipe."""

    def __init__(self, clock: Clock) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a terminal without Korean letters
        self._clock = clock
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._console.width = min(self._console.width, _WIDTH_MAX)

    def act(self, number: int, title: str, text: str) -> None:
        self._line()
        self._line(f"{number}  {title}", "bold")
        self._wrapped("", text)
        self.pause(0.6)

    def say(self, text: str, **facts: object) -> None:
        self._wrapped("", text)
        self.pause(0.3)

    def answers_follow(self) -> None:
        self._line(_HEADING, "dim")

    def answer(
        self, company: Company, intent: ExecutionIntent, response: ExecutionResponse, seconds: float
    ) -> None:
        name = Text(f"{company.korean} {company.english}")
        name.truncate(28, pad=True)
        line = Text(f" {intent.side:<4} {intent.quantity!s:>3} {intent.symbol} ")
        line.append(name)
        line.append(f" {intent.limit_price:>7,} ")
        line.append(f"{_answer(response):<19}", _outcome_style(response))
        line.append(f" {_took(seconds):>6}", "dim")
        self._print(line)

    def event(self, event: FailsafeEvent) -> None:
        style = "bold red" if event.type in _ALARMS else "green" if event.type in _GOOD_NEWS else "yellow"
        self._wrapped(f" event {event.type:<16}", visible(_event(event)), style)
        self.pause(0.15)

    def filled(self, event: OrderEvent) -> None:
        price = f" at {event.average_price:,}" if event.average_price is not None else ""
        text = f"{event.intent_id}: {event.filled_quantity} {event.symbol} filled{price} (seen in a {event.seen_by})"
        self._wrapped(f" order {event.status:<16}", text, "green")

    def summary(self, tally: Tally, seconds: float) -> None:
        self._line()
        self._line("Summary, counted from the streams and the broker's book", "bold")
        for name, value in tally.lines():
            self._wrapped(f" {name:<24}", value)
        for text, holds in tally.claims:
            mark, style = ("true ", "green") if holds else ("FALSE", "bold red")
            self._wrapped(f" {mark}", text, style)
        self._line(f" It took {seconds:.0f} s.")

    def commands(self, text: str, lines: list[str]) -> None:
        self._line()
        self._line(text, "bold")
        for line in lines:
            # Never wrapped: it is there to be copied.
            self._console.print(Text(f"  {line}".rstrip()), soft_wrap=True)

    def pause(self, seconds: float) -> None:
        if self._console.is_terminal:
            self._clock.wait(_NEVER, seconds)

    def _line(self, text: str = "", style: str = "") -> None:
        self._print(Text(text, style))

    def _wrapped(self, label: str, text: str, style: str = "") -> None:
        indent = len(label) + 1
        for line in Text(text).wrap(self._console, self._console.width - indent):
            line.rstrip()
            self._print(Text.assemble((label.ljust(indent), style), line))
            label = ""

    def _print(self, text: Text) -> None:
        self._console.print(text, overflow="ignore", no_wrap=True, crop=False)


def _plain(message: ExecutionIntent | ExecutionResponse | FailsafeEvent | OrderEvent) -> dict[str, Any]:
    return message.model_dump(mode="json", exclude_none=True)


def _answer(response: ExecutionResponse) -> str:
    if response.accepted and response.broker_order_id:
        # Without KIS's date and branch before it, as its own screens show it.
        return f"order {response.broker_order_id.rpartition('-')[2]}"
    if response.code is Code.FAILSAFE_TRIPPED:
        return "DENIED by failsafe"
    return f"{response.outcome} {response.broker_code or ''}".rstrip()


def _outcome_style(response: ExecutionResponse) -> str:
    return "green" if response.accepted else "red" if response.outcome is Outcome.DENIED else "yellow"


def _took(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def _event(event: FailsafeEvent) -> str:
    about = f"{event.side} {event.quantity} {event.symbol}" if event.side else event.intent_id
    match event.type:
        case FailsafeType.GUARD_TRIPPED | FailsafeType.LOCKDOWN:
            return f"{event.consecutive_failures} failures in a row: {event.message}"
        case FailsafeType.HALTED:
            return f"{event.message} ({event.reason})"
        case FailsafeType.GUARD_RESET | FailsafeType.RESUMED:
            return f"by {event.actor} ({event.reason}): {event.message}"
        case _:
            return f"{about}: {event.message}" if about else event.message
