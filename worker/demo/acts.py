"""What the demo plays, act by act."""

from __future__ import annotations

from contracts import ExecutionIntent, FailsafeType, Side
from worker.cli.context import actor_name
from worker.demo.desk import Desk
from worker.demo.market import COMPANIES


def places(desk: Desk) -> ExecutionIntent:
    """Intents become orders, and orders answers. Returns the first."""
    desk.screen.act(
        1,
        "A strategy asks, the worker places",
        "A trading strategy puts 12 intents on a Redis queue, each asking for one order at the Korea Exchange. The worker "
        "takes them, places each order at the broker, and publishes one answer with the broker's order number.",
    )
    desk.screen.answers_follow()
    intents = []
    for number, company in enumerate(COMPANIES):
        side = Side.BUY if number % 2 == 0 else Side.SELL
        intents.append(desk.ask(company, side, 3 + 7 * number % 20, ticks=-2 if side is Side.BUY else 2))
        desk.wait_for_answers(intents[-1])
        desk.screen.pause(0.1)
    return intents[0]


def repeats(desk: Desk, first: ExecutionIntent) -> None:
    """The same id again, with the same content and with another."""
    desk.screen.act(
        2,
        "The same intent again",
        f"Networks fail and programs restart, so the strategy sends its first intent ({first.intent_id}) two more times. "
        "Then a bug sends the same id once more, with another quantity.",
    )
    desk.producer.enqueue_many([first, first])
    desk.wait_for_empty_queue()
    desk.producer.enqueue(first.model_copy(update={"quantity": first.quantity and first.quantity * 10}))
    desk.wait_for_event(FailsafeType.INTENT_CONFLICT, first)
    desk.wait_for_empty_queue()
    orders = desk.orders_of(first)
    answers = sum(one.intent_id == first.intent_id for one in desk.tally().answers)
    desk.screen.say(
        f"{first.intent_id} was sent 4 times: {orders} order in the broker's book, {answers} answer. The one with other "
        "content lies among the dead letters, for a person to look at.",
        intent_id=first.intent_id,
        orders=orders,
        answers=answers,
    )


def trips(desk: Desk) -> None:
    """Failures in a row, and the guard."""
    desk.screen.act(
        3,
        "The broker goes wrong",
        "Now no order gets through to the broker. After 3 failures in a row a guard trips and stops all trading, on every "
        "worker. It stays shut when the broker is well again: only a named person opens it.",
    )
    desk.place.set_faults(fail_rate=1)
    desk.screen.answers_follow()
    for company in COMPANIES[:3]:
        desk.wait_for_answers(desk.ask(company, Side.BUY, 5))
    desk.wait_for_event(FailsafeType.GUARD_TRIPPED)
    desk.place.set_faults()
    desk.screen.say("The broker is well again. The next two intents are denied all the same:")
    denied = [desk.ask(company, Side.BUY, 5) for company in COMPANIES[3:5]]
    desk.wait_for_answers(*denied)
    launches = sum(desk.answers[one.intent_id].attempts for one in denied)
    orders = desk.orders_of(*denied)
    desk.screen.say(
        f"Calls to the broker for these two: {launches}. Orders: {orders}.", launches=launches, orders=orders
    )


def resets(desk: Desk) -> None:
    """A named person opens the way again."""
    who = actor_name(None)
    desk.screen.act(
        4,
        "A named person resets the guard",
        f"The same as `worker guard reset --reason …`, here in the name of {who}. The audit trail keeps who and why.",
    )
    desk.control.reset_guard(who, "demo: the broker is well again")
    desk.wait_for_event(FailsafeType.GUARD_RESET)
    desk.screen.answers_follow()
    for company in COMPANIES[5:7]:
        desk.wait_for_answers(desk.ask(company, Side.SELL, 4))


def doubts(desk: Desk) -> None:
    """The broker's reply is lost; the lane waits until evidence ends the doubt."""
    lost, other = COMPANIES[1], COMPANIES[3]
    desk.screen.act(
        5,
        "The broker's answer gets lost",
        "The order leaves, and no reply comes. Other engines would now say 'rejected', and perhaps send it again. This one "
        "says that it does not know, keeps later intents of that symbol waiting, and asks the broker for its order list.",
    )
    desk.place.set_faults(lose_reply_rate=1)
    desk.screen.answers_follow()
    doubted = desk.ask(lost, Side.BUY, 6)
    desk.wait_for_event(FailsafeType.INTENT_IN_DOUBT, doubted)
    desk.place.set_faults()
    waiting = desk.ask(lost, Side.SELL, 2, ticks=1)
    desk.wait_for_answers(desk.ask(other, Side.BUY, 1))
    is_held = waiting.intent_id not in desk.answers and doubted.intent_id not in desk.answers
    if is_held:
        desk.screen.say(
            f"{other.english} is not held up. The next intent of {lost.english} ({waiting.side} {waiting.quantity}) waits.",
            waiting=waiting.intent_id,
        )
    desk.wait_for_event(FailsafeType.DOUBT_RESOLVED, doubted)
    desk.wait_for_answers(doubted, waiting)


def survives(desk: Desk, pid: int) -> int:
    """The worker is killed half-way, and another one takes over. Returns the pid of that one."""
    desk.screen.act(
        6,
        "The worker dies (kill -9)",
        "Eight intents, a slow broker, and the worker is killed in the middle. Nobody tells its successor what had left: "
        "it waits until the dead one's leases of 3 seconds end, resolves what was on its way, and places the rest.",
    )
    desk.place.set_faults(latency=0.5)
    desk.screen.answers_follow()
    intents = [desk.ask(company, Side.SELL, 9, ticks=3) for company in COMPANIES[:8]]
    desk.wait_for_answers(*intents[:2])
    desk.rest(0.2)
    desk.place.kill_worker(pid)
    desk.place.set_faults()
    desk.read(0.01)
    answered = sum(one.intent_id in desk.answers for one in intents)
    booked = desk.orders_of(*intents)
    desk.screen.say(
        f"Killed worker {pid}: {answered} intents were answered, yet the broker holds {booked} orders. Starting another.",
        killed=pid,
        answered=answered,
        booked=booked,
    )
    successor = desk.start_worker()
    desk.wait_for_answers(*intents)
    return successor


def play_all(desk: Desk) -> int:
    """
    All acts. Returns the pid of the worker that is alive at the end.

    Raises:
        DemoFailed: something did not happen in time.
    """
    pid = desk.start_worker()
    desk.screen.say(f"A worker is running (pid {pid}).", worker=pid)
    first = places(desk)
    repeats(desk, first)
    trips(desk)
    resets(desk)
    doubts(desk)
    pid = survives(desk, pid)
    desk.wait_for_empty_queue()
    return pid
