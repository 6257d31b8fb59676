"""What is searched: small worlds, each about one thing, that together have all faults and all rules in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from tests.model.setting import Intent, Setting

#: All but P3, which asks that every state be kept with its steps.
ALL: Final = frozenset(f"P{number}" for number in range(1, 9))
A, B, C = Intent("A"), Intent("B"), Intent("C", lane="M")
_CANCEL, _AGAIN = Intent("cancel", target=0), Intent("again", target=0)

#: Searched in CI.
SETTINGS: Final = (
    Setting(
        "one order",
        "two workers; one is killed, an entry is handed over twice, a person decides",
        (A,),
        ALL,
        faults={"crash": 1, "freeze": 1, "redelivery": 1},
        person=True,
    ),
    Setting(
        "lost replies",
        "Redis does what it was asked, and its reply is lost; a reading of the broker's list lacks a row",
        (A,),
        ALL,
        workers=1,
        faults={"lost reply": 2, "crash": 1, "freeze": 1, "bad reading": 1},
    ),
    Setting(
        "provably not sent",
        "an order that cannot be sent at first, or is refused, or its worker wakes up too late",
        (A,),
        ALL,
        workers=1,
        faults={"not sent": 1, "lost reply": 1, "refusal": 1, "freeze": 1},
        retries=1,
    ),
    Setting(
        "a lane",
        "two intents of one lane, two workers; a redelivery",
        (A, B),
        ALL,
        queue="A B",
        faults={"redelivery": 1},
    ),
    Setting(
        "enqueued twice",
        "two intents of one lane, the first enqueued once more behind the second; a killed worker",
        (A, B),
        ALL,
        queue="A B A",
        workers=1,
        faults={"crash": 1},
    ),
    Setting(
        "two lanes",
        "two intents of one lane and one of another",
        (A, B, C),
        ALL,
        queue="A B C",
        workers=1,
        claims_at_once=True,
    ),
    Setting(
        "halt",
        "a person halts and resumes; an order that cannot be sent at first",
        (A,),
        ALL,
        claims_at_once=True,
        faults={"halt": 2, "lost reply": 1, "not sent": 1, "freeze": 1},
        retries=1,
    ),
    Setting(
        "guard",
        "two launches that fail; a person resets the guard between the two failures",
        (A, C),
        ALL,
        queue="A C",
        workers=1,
        claims_at_once=True,
        faults={"reset": 1},
        threshold=1,
    ),
    Setting(
        "stale",
        "an intent that is stale after two ticks, enqueued twice; the ledger remembers it for three",
        (replace(A, fresh=2),),
        frozenset({"P1", "P3", "P7"}),
        queue="A A",
        workers=1,
        faults={"lost reply": 1},
        retention=3,
    ),
    Setting(
        "conflict",
        "the same id with other content",
        (A,),
        ALL,
        queue="A -A",
        faults={"crash": 1},
    ),
    Setting(
        "unreadable for one",
        "an entry that one of two workers cannot read",
        (replace(A, unreadable=True),),
        ALL,
        faults={"redelivery": 1},
    ),
    Setting(
        "cancel",
        "an order, its CANCEL, and the next of the lane",
        (A, _CANCEL, B),
        ALL,
        queue="A cancel B",
        workers=1,
        claims_at_once=True,
        faults={"fill": 1},
    ),
    Setting(
        "two cancels",
        "an order and two CANCELs of it",
        (A, _CANCEL, _AGAIN),
        ALL,
        queue="A cancel again",
        workers=1,
        claims_at_once=True,
    ),
    Setting(
        "no ids of ours",
        "a broker whose rows carry no ids of ours; two equal orders of one lane",
        (A, B),
        ALL,
        queue="A B",
        workers=1,
        claims_at_once=True,
        shows_ids=False,
    ),
    Setting(
        "stale list",
        "the same broker with a list older than its lag, and an order of another lane",
        (A, C),
        ALL,
        queue="A C",
        workers=1,
        claims_at_once=True,
        shows_ids=False,
        stale_list=True,
    ),
    Setting(
        "shared account",
        "the same broker, and somebody trades by hand on the account",
        (A,),
        ALL,
        workers=1,
        faults={"hand order": 1, "freeze": 1},
        shows_ids=False,
        exclusive=False,
        person=True,
    ),
    Setting(
        "Redis forgets",
        "Redis loses what it had not written to its disk; the strategy asks once more",
        (A,),
        frozenset({"P1", "P3", "P8"}),
        workers=1,
        faults={"Redis dies": 1, "freeze": 1},
        asks_again=True,
        claims_at_once=True,
        forgets=True,
        confirms=False,
    ),
    Setting(
        "resumed at once",
        "the same; a person ends the wait for the broker's list, and the strategy asks once more",
        (A,),
        frozenset({"P1", "P4", "P8"}),
        workers=1,
        faults={"Redis dies": 1, "halt": 1},
        asks_again=True,
        claims_at_once=True,
        forgets=True,
        confirms=False,
    ),
    Setting(
        "fail-over",
        "another server takes over without what was not confirmed; a halt",
        (A,),
        ALL - {"P7"},
        workers=1,
        claims_at_once=True,
        faults={"Redis dies": 1, "halt": 1, "lost reply": 1},
        forgets=True,
    ),
)


def _more(name: str, about: str, of: str = "", **changes: Any) -> Setting:
    return replace(_of_ci(of or name), name=f"{name}, more", about=about, **changes)


def _of_ci(name: str) -> Setting:
    return next(one for one in SETTINGS if one.name == name)


def named(name: str) -> Setting:
    return next(one for one in (*SETTINGS, *DEEP) if one.name == name)


#: Searched by ``--deep``: the same worlds with more going wrong at once, and one that is large by itself.
DEEP: Final = (
    _more(
        "one order",
        "all faults of one order together",
        faults={"crash": 1, "freeze": 1, "redelivery": 1, "lost reply": 1},
    ),
    _more(
        "provably not sent",
        "two workers, two resolvers, two failures to send, two launches more",
        workers=2,
        resolvers=2,
        retries=2,
        faults={"not sent": 2, "refusal": 1, "freeze": 1, "crash": 1},
    ),
    _more("a lane", "a frozen worker besides", faults={"redelivery": 1, "freeze": 1}),
    _more("enqueued twice", "two workers", workers=2),
    _more(
        "drain",
        "a worker that drains, and a lost reply",
        of="enqueued twice",
        faults={"drain": 1, "lost reply": 1},
    ),
    _more("two lanes", "a frozen worker", faults={"freeze": 1}),
    _more(
        "halt",
        "and a killed worker",
        claims_at_once=False,
        faults={"halt": 2, "not sent": 1, "crash": 1, "lost reply": 1},
    ),
    _more(
        "guard",
        "two workers, a success between, two failures in a row trip",
        workers=2,
        threshold=2,
        faults={"reset": 1, "freeze": 1},
    ),
    _more("stale", "two workers, a frozen one", workers=2, faults={"redelivery": 1, "freeze": 1}),
    _more("conflict", "and a redelivery", faults={"crash": 1, "redelivery": 1}),
    _more("cancel", "a killed worker", faults={"crash": 1}),
    _more("two cancels", "a frozen worker", faults={"freeze": 1}),
    _more("no ids of ours", "a frozen worker", faults={"freeze": 1, "crash": 1}),
    _more("stale list", "a killed worker", faults={"crash": 1}),
    _more("shared account", "two intents, two workers", intents=(A, B), queue="A B", workers=2),
    _more("Redis forgets", "two workers, twice", workers=2, faults={"Redis dies": 2}),
    _more(
        "fail-over",
        "two workers, a killed one",
        workers=2,
        faults={"Redis dies": 1, "halt": 1, "lost reply": 1, "crash": 1},
    ),
    _more(
        "fail-over, no ids",
        "two equal orders of one lane, at a broker whose rows carry no ids of ours",
        of="fail-over",
        intents=(A, B),
        queue="A B",
        shows_ids=False,
        faults={"Redis dies": 1, "crash": 1},
    ),
    Setting(
        "Redis forgets, no ids",
        "Redis loses what it had not written, at a broker whose rows carry no ids of ours; two equal orders of one lane",
        (A, B),
        frozenset({"P1", "P4", "P8"}),
        queue="A B",
        workers=1,
        faults={"Redis dies": 1},
        claims_at_once=True,
        forgets=True,
        confirms=False,
        shows_ids=False,
    ),
)
