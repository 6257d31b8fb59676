"""The demo from beginning to end."""

from __future__ import annotations

import shutil
import sys
import threading
from contextlib import closing
from pathlib import Path

import redis

from worker.cli.context import FAILED, INTERRUPTED, UNAVAILABLE, note
from worker.clock import SystemClock
from worker.demo.acts import REFUSAL, play_all
from worker.demo.desk import DemoFailed, Desk
from worker.demo.interrupts import Interrupts
from worker.demo.place import Place
from worker.demo.screen import JsonScreen, Screen, TextScreen
from worker.errors import Unavailable

_NEVER = threading.Event()
_OPENING = (
    "This is an order-execution worker. Trading strategies put intents on a Redis queue; it places each order once at a "
    "broker, and says truthfully what happened, also when it does not know. Everything here is real but the broker: a "
    "simulator of KIS (한국투자증권) on this machine, as strict as the real server is known to be and always open. No "
    "account, no money, and nothing stays behind."
)


def play(keep: bool, as_json: bool) -> int:
    """See `worker.demo.main`."""
    clock = SystemClock()
    screen: Screen = JsonScreen() if as_json else TextScreen(clock)
    began = clock.boottime()
    try:
        with Interrupts() as interrupts:
            screen.say(_OPENING)
            with Place(interrupts, clock) as place:
                screen.say(f"Redis: {place.redis.name}.", redis=place.redis.name, url=place.redis.url)
                screen.say(f"Broker: the KIS simulator, on {place.broker.url}.", broker=place.broker.url)
                with closing(Desk(place, screen, clock)) as desk:
                    return _play(desk, keep, began)
    except KeyboardInterrupt:
        note("demo: interrupted; everything it had started is ended")
        return INTERRUPTED


def _play(desk: Desk, keep: bool, began: float) -> int:
    try:
        pid = play_all(desk)
    except (DemoFailed, Unavailable, redis.RedisError) as error:
        note(f"demo: {str(error).rstrip('.')}. The end of the worker's log:\n{desk.place.last_words()}")
        return FAILED
    tally = desk.wait_for_fills()
    desk.screen.summary(tally, desk.clock.boottime() - began)
    if keep:
        return _keep(desk, pid) or (0 if tally.is_true else FAILED)
    desk.screen.commands("Next", _to_do_next())
    return 0 if tally.is_true else FAILED


def _keep(desk: Desk, pid: int) -> int:
    place = desk.place
    desk.screen.commands("It goes on running. In another terminal, in this folder:", _to_try(desk, pid))
    desk.screen.say("Ctrl-C here ends everything and removes its folder.")
    try:
        while (ended := place.ended()) is None:
            desk.clock.wait(_NEVER, 0.3)
    except KeyboardInterrupt:
        return 0
    note(f"demo: {ended} has ended, so the demo ends as well")
    return UNAVAILABLE


def _to_try(desk: Desk, pid: int) -> list[str]:
    place, url = desk.place, desk.place.broker.url
    return [
        f". {place.write_environment()}",
        f"# sets EXECWORKER_REDIS_URL={place.redis.url} and the rest",
        "worker submit --symbol 005930 --side BUY --quantity 3 --price 70400 --wait",
        *_lines(
            ("worker status", "the route at a glance"),
            ("worker watch", "all that it publishes, live"),
            ("worker intent demo-20", "the whole story of one intent"),
            ('worker halt --reason "a look around"', "stop all trading"),
            ('worker resume --reason "seen enough"', "and go on"),
            ("worker run", "one more worker"),
            (f"kill -9 {pid}", "and the first one dies"),
            ('worker guard reset --reason "mended"', "after the guard has tripped"),
        ),
        "# the broker goes wrong, is mended, and what it holds (more of it: docs/simulator.md):",
        f'curl -d \'[{{"what": "{REFUSAL}", "rate": 1}}]\' {url}/sim/faults',
        f"curl -X DELETE {url}/sim/faults",
        f"curl {url}/sim/book",
    ]


def _to_do_next() -> list[str]:
    return _lines(
        (f"{_command()} demo --keep", "it goes on running: try your own orders"),
        ("make test", "each of these promises is a test"),
        ("docs/", "settings, metrics, decisions"),
    )


def _lines(*rows: tuple[str, str]) -> list[str]:
    width = max(len(command) for command, _ in rows)
    return [f"{command:<{width}}  # {text}" for command, text in rows]


# As it can be typed here: the command beside this Python may not be on PATH.
def _command() -> str:
    beside = Path(sys.executable).with_name("worker")
    found = shutil.which("worker")
    if found is not None and Path(found) == beside:
        return "worker"
    if not beside.exists():
        return f"{sys.executable} -m worker"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
