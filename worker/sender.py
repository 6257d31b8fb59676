"""The threads that hand launched orders to the broker. The one place that calls it with an order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from worker.brokers.base import AdapterFault, BrokerEngine, Send
from worker.brokers.live import LiveBroker
from worker.clock import Clock
from worker.errors import OutcomeUnknown
from worker.hand import Answered, Ended, Held, InDoubt, Unsent

#: Orders that one thread may be given at once, as long as the broker answers them all in this time, in seconds.
#: An instant broker is fed in runs; one that takes longer than this gets one order a thread.
RUN_SECONDS = 0.005
RUN_LENGTH_MAX = 64

#: An order may be launched so long before a thread is free for it, in seconds: about a turn of the engine. What a
#: killed worker had launched is in doubt, so it is no longer.
AHEAD_SECONDS = 0.01

#: From this length of a run on, handing it to a thread costs more than the broker does: it is done in place.
IN_PLACE_FROM = 16

_STACK_BYTES = 512 * 1024


class Sender:
    """
    ``threads`` threads in front of one broker; one that answers at once is called in place. Orders of one run leave
    one after the other; the first that does not go smoothly ends its run, and the rest comes back ``Unsent``, to pass
    the guard again.
    """

    def __init__(
        self,
        broker: BrokerEngine,
        route: str,
        threads: int,
        ended: Callable[[Sequence[Ended]], None],
        clock: Clock,
        *,
        may_go_ahead: bool = True,
    ) -> None:
        """``may_go_ahead``: whether an order may be launched before a thread is free for it."""
        self._broker = broker
        self._route = route
        self._threads = threads
        self._ended = ended
        self._may_go_ahead = may_go_ahead
        self._clock = clock
        self._runs: SimpleQueue[list[Held] | None] = SimpleQueue()
        self._started: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._in_flight = 0
        #: What the engine's own thread hands over at its next turn.
        self._in_place: deque[Held] = deque()
        #: Seconds that one order takes, smoothed; a new or troubled broker gets one at a time.
        self._pace = RUN_SECONDS

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def room(self) -> int:
        """How many more orders it would take now."""
        return self._threads * self._run_length() + self._ahead() - self._in_flight

    def send(self, batch: Sequence[Held]) -> None:
        """Take launched orders. Each comes back through ``ended``, once."""
        length = self._run_length()
        if length >= IN_PLACE_FROM:
            with self._lock:
                self._in_flight += len(batch)
            self._in_place.extend(batch)
            return
        runs = [list(batch[start : start + length]) for start in range(0, len(batch), length)]
        with self._lock:
            self._in_flight += len(batch)
            wanted = min(self._threads, len(self._started) + len(runs))
            while len(self._started) < wanted:
                self._start_thread()
        for run in runs:
            self._runs.put(run)

    def turn(self) -> bool:
        """Hand to the broker, in this thread, what is not worth another one. True: there was something."""
        run = list(self._in_place)
        self._in_place.clear()
        if run:
            self.work(run)
        return bool(run)

    def stop(self) -> None:
        """Let idle threads end. A thread inside a broker call ends after it."""
        for _ in self._started:
            self._runs.put(None)

    def _start_thread(self) -> None:
        name = f"send-{self._route}-{len(self._started)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        before = threading.stack_size(_STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
        self._started.append(thread)

    def _run_length(self) -> int:
        return max(1, min(RUN_LENGTH_MAX, int(RUN_SECONDS / self._pace)))

    def _ahead(self) -> int:
        """How many orders more than threads: as many as will find a free one within `AHEAD_SECONDS`."""
        if not self._may_go_ahead or self._pace <= RUN_SECONDS:
            return 0
        return int(self._threads * AHEAD_SECONDS / self._pace)

    def _work(self) -> None:
        while (run := self._runs.get()) is not None:
            self.work(run)

    def work(self, run: Sequence[Held]) -> None:
        """Hand one run to the broker, in this thread."""
        ended: list[Ended] = []
        given = 0
        started = self._clock.boottime()
        try:
            for held in run:
                given += 1
                ended.append(self._submit(held))
                if not ended[-1].is_smooth or self._clock.boottime() - started > 4 * RUN_SECONDS:
                    break
        finally:
            # Reached also when something ends this thread: what the broker was given then is a doubt.
            ended += [_torn(held) for held in run[len(ended) : given]]
            ended += [Unsent(held) for held in run[given:]]
            self._learn(ended, self._clock.boottime() - started)
            self._ended(ended)

    def _learn(self, ended: Sequence[Ended], seconds: float) -> None:
        given = sum(not isinstance(one, Unsent) for one in ended)
        smooth = all(one.is_smooth for one in ended)
        pace = seconds / given if smooth and given else RUN_SECONDS
        with self._lock:
            self._in_flight -= len(ended)
            self._pace = max(1e-6, 0.8 * self._pace + 0.2 * pace) if smooth else RUN_SECONDS

    def _submit(self, held: Held) -> Ended:
        started = self._clock.boottime()
        send = Send(self._route, held.attempt, held.send_before, held.refer, held.hear)
        try:
            if held.target is not None and isinstance(self._broker, LiveBroker):
                response = self._broker.cancel_intent(held.intent, held.target, send)
            else:
                response = self._broker.submit_intent(held.intent, send)
        except OutcomeUnknown as doubt:
            return InDoubt(held, doubt, self._clock.boottime() - started)
        except Exception as fault:  # noqa: BLE001  a fault of ours after the launch is a doubt, never an answer
            return InDoubt(held, _fault(fault), self._clock.boottime() - started)
        return Answered(held, response, self._clock.boottime() - started)


def _fault(error: BaseException) -> AdapterFault:
    fault = AdapterFault(
        f"{type(error).__name__} in this worker after the launch; the broker may hold the order"
    )
    fault.__cause__ = error
    return fault


def _torn(held: Held) -> InDoubt:
    return InDoubt(held, AdapterFault("the sending thread was ended; the broker may hold the order"), 0.0)
