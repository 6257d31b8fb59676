"""The rules of the design that the model can express, each as a switch: what it says, and which promise rests on it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Statement:
    """What a rule says, and where the search shows what it is for."""

    text: str
    #: The promise that breaks without it.
    promise: str
    #: The configuration of `tests.model.configurations` in which the search finds that.
    configuration: str


class Rule(Enum):
    """One rule. Its name is what a switch is called."""

    OWN_TOKEN = Statement("a claim is its own unguessable token, not a worker's name", "P1", "one order")
    DEADLINE_FROM_CALL = Statement(
        "the send deadline runs from before the launch is asked for", "P4", "one order"
    )
    KERNEL_TIMER = Statement("no write after the deadline: a timer ends the process", "P4", "one order")
    DEADLINE_IN_EXPIRY = Statement("the deadline is never later than the expiry", "P7", "stale")
    SOCKET_TIMEOUT = Statement("the kernel gives up what it could not deliver in time", "P4", "one order")
    RESOLUTION_WAITS = Statement(
        "absence is read after deadline, kernel's time-out and lag", "P4", "one order"
    )
    RELAUNCH = Statement("what provably did not leave goes through launch again", "P4", "provably not sent")
    DOUBT_ENDS_LAUNCHES = Statement(
        "a doubt takes the right to launch from who had it", "P4", "provably not sent"
    )
    RESOLVE_COMPARES = Statement("a resolution compares and sets what was read before", "P2", "one order")
    EXCLUSIVE = Statement(
        "without ids a row is evidence on an exclusive account only", "P4", "shared account"
    )
    OWNED_NUMBERS = Statement("a broker's number belongs to one intent", "P4", "no ids of ours")
    TWO_READINGS = Statement("absence needs two readings that agree", "P4", "lost replies")
    REACHES_PAST = Statement(
        "without ids absence needs a later order of ours, or the session's end", "P4", "stale list"
    )
    LATER_BY_LAUNCH = Statement(
        "that order was launched after all of the doubt had arrived", "P4", "stale list"
    )
    HAND_WAITS = Statement("a person decides after deadline and lag only", "P4", "one order")
    INCARNATION = Statement("a server that may have forgotten is noticed", "P1", "Redis forgets")
    READ_ANEW = Statement(
        "what was read of a doubt counts for that launch only, not for one after Redis forgot it",
        "P4",
        "resumed at once",
    )
    SUSPECT_WAITS = Statement(
        "what may have been launched before Redis forgot is given all the time to arrive",
        "P4",
        "resumed at once",
    )
    FORGOTTEN_TIME = Statement(
        "without ids nothing tells whose an order is, of a time whose launches Redis forgot: a person decides",
        "P4",
        "Redis forgets, no ids",
    )
    CONFIRMED = Statement("what Redis was told counts once it will survive", "P5", "fail-over")
    SWEEP = Statement("unsettled entries are found by an index, not by redelivery", "P3", "one order")
    RETENTION = Statement("an id is remembered for longer than it can trade", "P1", "stale")
    BURY_UNOPENED = Statement("what the ledger holds open is never dead-lettered", "P4", "unreadable for one")
    TAKE_REGISTERS = Statement("taking and registering in lanes is one step", "P6", "a lane")
    LEAVE_LANES = Statement("every way out of the ledger leaves the lane", "P3", "enqueued twice")
    LANE_HELD = Statement("while a CANCEL is open its lane launches nothing", "P6", "cancel")
    ONE_CANCEL = Statement("one open CANCEL of a target", "P4", "two cancels")
    GUARD_EPOCH = Statement("only launches of this epoch of the guard count", "P5", "guard")
    GATE_IN_LAUNCH = Statement("halt and guard are looked at in the launch itself", "P5", "halt")
    EXPIRY_IN_LAUNCH = Statement("expiry is looked at in the launch itself", "P7", "stale")
    FINGERPRINT = Statement("a claim compares what the intent means", "P8", "conflict")
    SETTLE_PUBLISHES = Statement("entry and response are written in one step", "P3", "one order")
    ACK_LAST = Statement("the queue entry is acknowledged last", "P3", "one order")
    DOUBT_HOLDS_LANE = Statement("a doubt holds its lane", "P6", "a lane")

    @property
    def statement(self) -> Statement:
        return self.value
