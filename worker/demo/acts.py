"""What the demo plays, act by act."""

from __future__ import annotations

from contracts import ExecutionIntent, FailsafeType, Side
from worker.cli.context import actor_name
from worker.demo.desk import Desk
from worker.demo.market import COMPANIES

#: API 사용 권한이 없습니다: the app key may not use the API.
REFUSAL = "EGW00206"


def arms(desk: Desk) -> int:
    """A worker starts, and a named person lets it trade. Returns its pid."""
    desk.screen.act(
        1,
        "A worker starts, and a named person arms it",
        "Its route is live: the settings of real trading, with the broker's address set to the simulator. A live route "
        "begins halted. Nothing is sent before a person has looked and said `worker resume --reason …`.",
    )
    pid = desk.start_worker()
    desk.screen.say(f"A worker is running (pid {pid}).", worker=pid)
    desk.control.resume(actor_name(None), "demo: first start")
    desk.wait_for_event(FailsafeType.RESUMED)
    return pid


def places(desk: Desk) -> ExecutionIntent:
    """Intents become orders, and orders answers. Returns the first."""
    desk.screen.act(
        2,
        "A strategy asks, the worker places",
        "A trading strategy puts 12 intents on a Redis queue, each asking for one order at the Korea Exchange. The worker "
        "takes them, places each order at the broker over its HTTP protocol, and publishes one answer with the broker's "
        "order number. It makes at most 18 calls a second, which is what KIS allows.",
    )
    desk.screen.answers_follow()
    intents = []
    for number, company in enumerate(COMPANIES):
        side = Side.BUY if number % 2 == 0 else Side.SELL
        intents.append(desk.ask(company, side, ticks=-2 if side is Side.BUY else 2))
        desk.wait_for_answers(intents[-1])
    return intents[0]


def repeats(desk: Desk, first: ExecutionIntent) -> None:
    """The same id again, with the same content and with another."""
    desk.screen.act(
        3,
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
        4,
        "The broker goes wrong",
        "From now on KIS refuses every order. After 3 failures in a row a guard trips and stops all trading, on every "
        "worker. It stays shut when the broker is well again: only a named person opens it.",
    )
    desk.place.broker.set_faults({"what": REFUSAL, "rate": 1})
    desk.screen.answers_follow()
    for company in COMPANIES[:3]:
        desk.wait_for_answers(desk.ask(company, Side.BUY))
    desk.wait_for_event(FailsafeType.GUARD_TRIPPED)
    desk.place.broker.set_faults()
    desk.screen.say("The broker is well again. The next two intents are denied all the same:")
    before = desk.place.broker.order_calls()
    denied = [desk.ask(company, Side.BUY) for company in COMPANIES[3:5]]
    desk.wait_for_answers(*denied)
    calls = desk.place.broker.order_calls() - before
    desk.screen.say(
        f"The broker counts {before} orders asked of it so far, and {calls} for these two.",
        before=before,
        calls=calls,
    )


def resets(desk: Desk) -> None:
    """A named person opens the way again."""
    who = actor_name(None)
    desk.screen.act(
        5,
        "A named person resets the guard",
        f"The same as `worker guard reset --reason …`, here in the name of {who}. The audit trail keeps who and why.",
    )
    desk.control.reset_guard(who, "demo: the broker is well again")
    desk.wait_for_event(FailsafeType.GUARD_RESET)
    desk.screen.answers_follow()
    for company in COMPANIES[5:7]:
        desk.wait_for_answers(desk.ask(company, Side.SELL))


def doubts(desk: Desk) -> None:
    """The broker's reply is lost; the lane waits until evidence ends the doubt."""
    lost, other = COMPANIES[1], COMPANIES[3]
    desk.screen.act(
        6,
        "The broker's answer gets lost",
        "The order leaves, and for 2 seconds no reply comes. Other engines would now say 'rejected', and perhaps send it "
        "again. This one says that it does not know, keeps later intents of that symbol waiting, and reads the broker's "
        "order list of the day. The list shows no ids of ours: a row is evidence only if it is the one order of that "
        "symbol, side, quantity and price that no other intent owns.",
    )
    desk.place.broker.set_faults({"what": "lose_reply", "nth": 1})
    desk.screen.answers_follow()
    doubted = desk.ask(lost, Side.BUY)
    desk.wait_for_orders(1, doubted)
    waiting = desk.ask(lost, Side.SELL, ticks=1)
    desk.wait_for_answers(desk.ask(other, Side.BUY))
    is_held = waiting.intent_id not in desk.answers and doubted.intent_id not in desk.answers
    if is_held:
        desk.screen.say(
            f"{other.english} is not held up. The next intent of {lost.english} ({waiting.side} {waiting.quantity}) waits.",
            waiting=waiting.intent_id,
        )
    desk.wait_for_event(FailsafeType.INTENT_IN_DOUBT, doubted)
    desk.wait_for_event(FailsafeType.DOUBT_RESOLVED, doubted)
    desk.wait_for_answers(doubted, waiting)


def survives(desk: Desk, pid: int) -> int:
    """The worker is killed half-way, and another one takes over. Returns the pid of that one."""
    desk.screen.act(
        7,
        "The worker dies (kill -9)",
        "Eight intents, a slow broker, and the worker is killed in the middle. Nobody tells its successor what had left: "
        "it waits until the dead one's leases of 3 seconds end, resolves what was on its way, and places the rest.",
    )
    desk.place.broker.set_faults({"what": "delay", "rate": 1, "seconds": 0.5})
    desk.screen.answers_follow()
    intents = [desk.ask(company, Side.SELL, ticks=3) for company in COMPANIES[:8]]
    desk.wait_for_answers(*intents[:2])
    desk.wait_for_orders(4, *intents)
    desk.place.kill_worker(pid)
    desk.place.broker.set_faults()
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


def fills(desk: Desk) -> None:
    """What happens to orders after their answers."""
    desk.screen.act(
        8,
        "Orders are filled",
        "ACCEPTED means that the broker holds the order. What becomes of it is told on a stream of its own, with cumulative "
        "quantities: at once, by KIS's notices, and by its order list where a notice was missed, as while the worker was "
        "dead. The last intent asks at a price that is met.",
    )
    desk.screen.answers_follow()
    desk.wait_for_answers(desk.ask(COMPANIES[0], Side.BUY, ticks=20))


def play_all(desk: Desk) -> int:
    """
    All acts. Returns the pid of the worker that is alive at the end.

    Raises:
        DemoFailed: something did not happen in time.
    """
    pid = arms(desk)
    first = places(desk)
    repeats(desk, first)
    trips(desk)
    resets(desk)
    doubts(desk)
    pid = survives(desk, pid)
    desk.wait_for_empty_queue()
    fills(desk)
    return pid
