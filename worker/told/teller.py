"""
Tells each failsafe event at least once, and normally once, in the order of the stream.

Each channel has a thread and a place of its own, so that one which fails holds up neither the others nor trading. Of
all workers one tells, by a lease in Redis; how far it came is kept there too, so that the next one goes on from there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import redis
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from worker.clock import Clock
from worker.connection import Connect, at_home
from worker.errors import Unavailable
from worker.keys import RouteKeys
from worker.logs import Event, Logger
from worker.metrics import TellResult
from worker.settings import Settings
from worker.told.channels import Channel, NotTold, build_channels
from worker.told.place import Fact, Place

#: Seconds between two looks for new events.
LOOK_EVERY: Final = 1.0
#: Seconds that the right to tell holds without being renewed: longer than one try takes.
LEASE: Final = 30.0
#: Seconds between two tries to tell one event: doubled from the first to the longest.
PAUSE_FIRST, PAUSE_LONGEST = 1.0, 60.0
#: Seconds that leaving waits for a try to end.
_LEAVE_WITHIN = 2.0

#: Hears of each try: the route, and what came of it.
Counted = Callable[[str, TellResult], None]


class _Left(Exception):
    # Another worker tells by now, or this one leaves: the event waits.
    pass


class Teller:
    """Tells the events of some routes over one channel. ``run`` is for a thread of its own; ``step`` is one round of it."""

    def __init__(
        self,
        channel: Channel,
        clients: Mapping[str, redis.Redis],
        *,
        worker: str,
        kinds: frozenset[str],
        tries: int,
        counted: Counted,
        log: Logger,
        clock: Clock,
    ) -> None:
        """
        ``clients``: to each route's Redis. ``kinds``: the types of event to tell; all when empty. After ``tries`` an
        event is given up.
        """
        self._channel = channel
        self._places = {route: Place(client, route, channel.name) for route, client in clients.items()}
        self._worker = worker
        self._kinds = kinds
        self._tries = tries
        self._counted = counted
        self._log = log.bind(channel=channel.name)
        self._clock = clock
        #: Routes whose keys are of another type, as was told.
        self._broken: set[str] = set()
        self.stop = threading.Event()

    def run(self) -> None:
        """Tell until ``stop`` is set, then let another worker go on at once."""
        while not self.stop.is_set():
            try:
                self.step()
            except Exception:  # noqa: BLE001  telling must neither end the worker nor end for good by a fault of ours
                self._log.error(Event.TELLING_FAULT, exc_info=True)
                self._clock.wait(self.stop, PAUSE_LONGEST)
            self._clock.wait(self.stop, LOOK_EVERY)
        self._resign()

    def step(self) -> None:
        """Tell what is waiting on every route."""
        for route, place in self._places.items():
            try:
                self._tell_route(route, place)
            except (Unavailable, _Left):
                continue  # the next step goes on from where it was
            except redis.ResponseError as error:
                # Somebody has put something else under a key of this route. The others are told all the same.
                if route not in self._broken:
                    self._broken.add(route)
                    self._log.error(Event.TELLING_FAULT, route=route, reason=str(error), exc_info=True)
            else:
                self._broken.discard(route)

    def _resign(self) -> None:
        for place in self._places.values():
            try:
                place.resign(self._worker)
            except (Unavailable, redis.RedisError):
                return  # the lease ends by itself

    def _tell_route(self, route: str, place: Place) -> None:
        while not self.stop.is_set() and place.lead(self._worker, LEASE) and (facts := place.waiting()):
            for fact in facts:
                if not fact.is_event:
                    # Tries would only hold up the events behind it.
                    entry = fact.entry_id.decode()
                    self._log.error(Event.ENTRY_UNREADABLE, route=route, stream=place.stream, entry=entry)
                elif not self._kinds or fact.kind in self._kinds:
                    self._tell(route, place, fact)
                place.done(fact)

    def _tell(self, route: str, place: Place, fact: Fact) -> None:
        """Until it is told, or given up after so many tries."""

        def failed(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            self._counted(route, TellResult.FAILED)
            self._log.warning(Event.TELL_FAILED, route=route, type=fact.kind, reason=str(error))

        trying = Retrying(
            retry=retry_if_exception_type(NotTold),
            stop=stop_after_attempt(self._tries),
            wait=wait_exponential(PAUSE_FIRST, PAUSE_LONGEST) + wait_random(0, 1),
            sleep=lambda seconds: self._pause(place, seconds),
            after=failed,
            reraise=True,
        )
        try:
            trying(self._try, place, fact)
        except NotTold as error:
            self._counted(route, TellResult.GIVEN_UP)
            entry = fact.entry_id.decode()
            self._log.error(Event.TELL_GIVEN_UP, route=route, type=fact.kind, entry=entry, reason=str(error))
        else:
            self._counted(route, TellResult.TOLD)
            self._log.info(Event.TOLD, route=route, type=fact.kind)

    def _try(self, place: Place, fact: Fact) -> None:
        self._keep(place)
        try:
            self._channel.tell(fact.body)
        except NotTold:
            raise
        except Exception as error:
            # Whatever a service's code or an odd event raises: this try failed.
            raise NotTold(f"a fault: {type(error).__name__}") from error

    def _pause(self, place: Place, seconds: float) -> None:
        """Wait between two tries, and keep the right to tell meanwhile."""
        while seconds > 0:
            slice_ = min(seconds, LEASE / 3)
            if self._clock.wait(self.stop, slice_):
                raise _Left
            seconds -= slice_
            self._keep(place)

    def _keep(self, place: Place) -> None:
        if self.stop.is_set() or not place.lead(self._worker, LEASE):
            raise _Left


@contextmanager
def telling(
    settings: Settings,
    connect: Connect,
    worker: str,
    log: Logger,
    clock: Clock,
    counted: Counted = lambda _route, _result: None,
) -> Iterator[None]:
    """
    Tell the events of all routes of the settings, in threads, until the block ends. Also of those that this process
    does not serve: that none of a route's workers is alive is told by somebody else.

    Raises:
        ConfigError: a channel cannot work on this machine.
    """
    channels = build_channels(settings)
    if not channels:
        yield
        return
    homes = {route: at_home(settings.redis_url, RouteKeys(route).prefix) for route in settings.routes}
    clients = {route: connect(home, client_name=f"execworker-told:{worker}") for route, home in homes.items()}
    tellers = [
        Teller(
            channel,
            clients,
            worker=worker,
            kinds=frozenset(settings.told_types),
            tries=settings.told_tries,
            counted=counted,
            log=log,
            clock=clock,
        )
        for channel in channels
    ]
    threads = [threading.Thread(target=one.run, name="teller", daemon=True) for one in tellers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for one in tellers:
            one.stop.set()
        for thread in threads:
            thread.join(_LEAVE_WITHIN)
        for channel in channels:
            channel.close()
        for client in clients.values():
            client.close()
