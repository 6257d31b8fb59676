"""
Every Redis key, its type and its life span. No other module spells a key.

The braces are literal: all keys of a route share one cluster slot.

=============================  ======  ==========================  ==========================================
key                            type    lives                       holds
=============================  ======  ==========================  ==========================================
exec:routes                    hash    for ever                    route → JSON: broker, mode, account
exec:shared:{KEY}              hash    the token's life            an account's access token, encrypted; its turns; its days
exec:{ROUTE}:intents           stream  trimmed once settled        ``body`` = an intent as JSON
exec:{ROUTE}:cancels           stream  trimmed once settled        CANCEL intents, read first
exec:{ROUTE}:responses         stream  ``retention``               ``body`` = response JSON, ``intent_id``, ``target``
exec:{ROUTE}:failsafe          stream  ``retention``               ``body`` = event JSON, ``type``
exec:{ROUTE}:orders            stream  ``retention``               ``body`` = order event JSON
exec:{ROUTE}:dead              stream  until dropped               ``body`` = raw bytes, ``reason``, ``error``, ``entry_id``
exec:{ROUTE}:audit             stream  ``retention``               every transition, one entry each
exec:{ROUTE}:seals             stream  ``retention``               how far the audit trail is sealed: ids, marks, hash
exec:{ROUTE}:sealer            string  half a minute               the worker that seals it for all
exec:{ROUTE}:intent:ID         hash    ``retention`` from settling the ledger entry
exec:{ROUTE}:state             hash    for ever                    incarnation, halt, guard, counters, the last seal
exec:{ROUTE}:open              zset    while unsettled             intent_id by the time somebody must look again
exec:{ROUTE}:doubts            zset    while in doubt              intent_id by the time of its next look-up
exec:{ROUTE}:lanes             zset    while registered            ``SYMBOL NUL ENTRY NUL ID``, all scores 0: lanes in order
exec:{ROUTE}:ready             set     until handed out            symbols whose lane has a parked head
exec:{ROUTE}:cancelling        hash    while a CANCEL is open      target intent_id → the CANCEL's id and symbol
exec:{ROUTE}:noted             hash    for ever                    broker orders announced as foreign or orphan
exec:{ROUTE}:slots             list    the broker's window         when the last calls to the broker were made
exec:{ROUTE}:owned             hash    ``retention``               order number → intent, where rows carry no ids of ours
exec:{ROUTE}:scanner           string  one scan's interval         the worker that compares the broker's list for all
exec:{ROUTE}:working           hash    while an order works        accepted orders as far as they were seen; the answers read
exec:{ROUTE}:follower          string  a few seconds               the worker that follows the orders for all
exec:{ROUTE}:canary            string  some seconds                the worker that sends the canaries for all
exec:{ROUTE}:told              hash    for ever                    channel → the last failsafe entry told over it
exec:{ROUTE}:teller:CHANNEL    string  half a minute               the worker that tells over it for all
exec:{ROUTE}:workers           hash    a heartbeat                 worker → JSON: host, pid, port, beat, version, settings
=============================  ======  ==========================  ==========================================

Times in Redis are milliseconds of Redis's own clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

#: The registry of routes, the only key outside a route.
ROUTES = "exec:routes"
#: The consumer group of the intents and cancels streams.
GROUP = "workers"

#: Under which lies what all workers of an account use together, such as its access token.
SHARED = "exec:shared:"

_ROUTE = re.compile(r"[a-z0-9_]{1,32}", re.ASCII)


@dataclass(frozen=True)
class RouteKeys:
    """The keys of one route."""

    route: str

    def __post_init__(self) -> None:
        if _ROUTE.fullmatch(self.route) is None:
            raise ValueError(f"route: must be 1 to 32 of a-z, 0-9 and _, not {self.route!r}")

    @cached_property
    def prefix(self) -> str:
        return f"exec:{{{self.route}}}:"

    @cached_property
    def intents(self) -> str:
        return self.prefix + "intents"

    @cached_property
    def cancels(self) -> str:
        return self.prefix + "cancels"

    @cached_property
    def responses(self) -> str:
        return self.prefix + "responses"

    @cached_property
    def failsafe(self) -> str:
        return self.prefix + "failsafe"

    @cached_property
    def orders(self) -> str:
        return self.prefix + "orders"

    @cached_property
    def dead(self) -> str:
        return self.prefix + "dead"

    @cached_property
    def audit(self) -> str:
        return self.prefix + "audit"

    @cached_property
    def seals(self) -> str:
        return self.prefix + "seals"

    @cached_property
    def sealer(self) -> str:
        return self.prefix + "sealer"

    @cached_property
    def state(self) -> str:
        return self.prefix + "state"

    @cached_property
    def open(self) -> str:
        return self.prefix + "open"

    @cached_property
    def doubts(self) -> str:
        return self.prefix + "doubts"

    @cached_property
    def lanes(self) -> str:
        return self.prefix + "lanes"

    @cached_property
    def ready(self) -> str:
        return self.prefix + "ready"

    @cached_property
    def cancelling(self) -> str:
        return self.prefix + "cancelling"

    @cached_property
    def noted(self) -> str:
        return self.prefix + "noted"

    @cached_property
    def workers(self) -> str:
        return self.prefix + "workers"

    @cached_property
    def slots(self) -> str:
        return self.prefix + "slots"

    @cached_property
    def owned(self) -> str:
        return self.prefix + "owned"

    @cached_property
    def scanner(self) -> str:
        return self.prefix + "scanner"

    @cached_property
    def working(self) -> str:
        return self.prefix + "working"

    @cached_property
    def follower(self) -> str:
        return self.prefix + "follower"

    @cached_property
    def canary(self) -> str:
        return self.prefix + "canary"

    @cached_property
    def told(self) -> str:
        return self.prefix + "told"

    def teller(self, channel: str) -> str:
        return f"{self.prefix}teller:{channel}"

    @cached_property
    def intent_prefix(self) -> str:
        return self.prefix + "intent:"

    def intent(self, intent_id: str) -> str:
        return self.intent_prefix + intent_id
