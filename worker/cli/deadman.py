"""`worker deadman`: notice from outside that no worker is alive."""

from __future__ import annotations

import os
import signal
import socket

import typer

from worker.cli.context import note, surroundings
from worker.cli.tools import RoutesOption, refuse_unknown
from worker.errors import ConfigError


def deadman(ctx: typer.Context, route: RoutesOption = None) -> None:
    """Look from outside whether workers are alive; publish NO_LIVE_WORKER when none is while the market is open.

    Best started on another machine than the workers, with their settings. SIGTERM ends it.
    """
    desk = surroundings(ctx)
    settings = desk.settings
    refuse_unknown(desk, route or [])
    from worker.deadman import watching_over
    from worker.logs import configure
    from worker.told import telling

    names = route or list(settings.routes)
    log = configure(settings.log_level, settings.log_format, secrets=settings.secrets())
    name = f"deadman-{socket.gethostname()}-{os.getpid()}"
    with (
        watching_over(settings, names, desk.clock, desk.connect, ends_on_fault=True) as watch,
        telling(settings, desk.connect, name, log, desk.clock),
    ):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: watch.stop.set())
        not_over = "; ".join(f"{route} is not watched: {why}" for route, why in watch.unwatched.items())
        if not watch.names:
            raise ConfigError([f"there is no route to watch over: {not_over or 'the settings have none'}"])
        note("; ".join(filter(None, [f"watching over {', '.join(watch.names)}", not_over])))
        watch.stop.wait()
        if watch.error is not None:
            raise watch.error
