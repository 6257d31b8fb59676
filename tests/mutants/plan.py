"""Which modules are mutated, which tests must notice, and the survivors that no test can."""

from __future__ import annotations

from typing import Final

_ENGINE = ("tests/fakeredis/test_engine.py", "tests/fakeredis/test_rollout.py")
_LEDGER = (
    "tests/fakeredis/test_ledger.py",
    "tests/fakeredis/test_slots.py",
    "tests/fakeredis/test_rollout.py",
)

#: Module → the test files that are run, the quickest to notice first.
PLAN: Final[dict[str, tuple[str, ...]]] = {
    "worker.guard": ("tests/unit/test_guard.py", "tests/fakeredis/test_guard_homes.py"),
    "worker.evidence": ("tests/unit/test_evidence.py", "tests/fakeredis/test_resolver.py"),
    "worker.resolver": ("tests/fakeredis/test_resolver.py", "tests/fakeredis/test_byhand.py"),
    "worker.byhand": ("tests/fakeredis/test_byhand.py",),
    "worker.engine": ("tests/fakeredis/test_engine_flow.py", *_ENGINE, "tests/fakeredis/test_ledger.py"),
    "worker.settler": ("tests/unit/test_settler.py", *_ENGINE),
    "worker.cancels": ("tests/unit/test_cancels.py", *_ENGINE),
    "worker.answers": ("tests/unit/test_answers.py", *_ENGINE),
    "worker.ledger": (
        "tests/fakeredis/test_ledger_edges.py",
        *_LEDGER,
        *_ENGINE,
        "tests/fakeredis/test_resolver.py",
    ),
    "worker.ledger.control": (
        "tests/fakeredis/test_control.py",
        "tests/fakeredis/test_cli.py",
        "tests/fakeredis/test_resolver.py",
    ),
    "worker.ledger.steering": (
        "tests/fakeredis/test_steering.py",
        "tests/fakeredis/test_cli.py",
        "tests/fakeredis/test_rollout.py",
    ),
    "worker.ledger.records": (*_LEDGER, *_ENGINE, "tests/fakeredis/test_resolver.py"),
    "worker.brokers.live": ("tests/unit/test_brokers_live.py",),
    "worker.fills.life": ("tests/fills/test_fills_life.py", "tests/fills/test_fills_follower.py"),
    "worker.fills.working": ("tests/fills/test_fills_working.py", "tests/fills/test_fills_follower.py"),
    "worker.fills.follower": ("tests/fills/test_fills_follower.py",),
    "worker.brokers.kis.replies": (
        "tests/kis/test_kis_replies.py",
        "tests/kis/test_kis_orders.py",
        "tests/kis/test_kis_codes.py",
    ),
    "worker.brokers.kis.rows": ("tests/kis/test_kis_lists.py",),
    "worker.brokers.kis.payload": ("tests/kis/test_kis_payload.py",),
    "worker.brokers.kis.scan": ("tests/kis/test_kis_lists.py",),
    "worker.brokers.kis.codes": ("tests/kis/test_kis_codes.py",),
    # Lua.
    "worker.ledger.lua.guard": ("tests/fakeredis/test_guard_homes.py",),
    "worker.ledger.lua.lib": ("tests/fakeredis/test_slots.py",),
    "worker.ledger.lua.slot": ("tests/fakeredis/test_slots.py",),
}

#: Module → what is run on a real server when nothing above has noticed.
ON_A_SERVER: Final[dict[str, tuple[str, ...]]] = {
    "worker.ledger": ("tests/failover/test_identity.py", "tests/failover/test_confirmed.py"),
}

#: Of a long file only what lies between these texts: the broker's call limit.
PARTS: Final[dict[str, tuple[str, str]]] = {
    "worker.ledger.lua.lib": ("local WISHES", "local function lane_is_held"),
}

_LONG_AGO: Final = "a time that is missing counts as long ago, and a microsecond around 1970 is as long ago"
_EMPTY: Final = "a guard's fields are written together, and an empty list has no number to find"
_SAVED: Final = "no script saves a guard twice; it would write the same again"
_SAME_LENGTH: Final = "strict, of two lists that are of one length"
_DEFAULT: Final = "a default that a route's settings always replace"
_NONE: Final = "to do it with none is to do nothing"
_LONGER: Final = "the script says the same, and takes longer"
_NEXT_TURN: Final = "what comes between two lines of a turn, the next one sees to"
_FINDS_NONE: Final = "what follows finds none then, and takes longer"
_AS_GOOD_AS_NONE: Final = "nobody tells it from None"
_VERY_MOMENT: Final = "of the very moment"
_NO_NUMBER: Final = "no lane and no stream knows an entry without a number"
_AS_FALSE: Final = "as false as False"
_TRIES: Final = "how often it is tried is no promise"
_PROTOCOL: Final = "a default of a protocol's method, which nobody calls"
_BATCH: Final = "how many are taken in one go is no promise"

#: (module, what) → why nobody can tell it from the original.
EXPLAINED: Final[dict[tuple[str, str], str]] = {
    ("worker.guard", "returns None: return edge"): "a success crosses no edge, so this is None already",
    (
        "worker.guard",
        "turned round: False",
    ): "the default of a protocol, and of a guard that refuses every reset",
    ("worker.resolver", "off by one: 64"): _BATCH,
    ("worker.resolver", "off by one: 0"): "a default that every look-up sets before it is read",
    **{("worker.resolver", f"off by one: {number}"): _DEFAULT for number in ("300.0", "6.0")},
    ("worker.resolver", "turned round: False"): _DEFAULT,
    ("worker.resolver", "off by one: 500"): _BATCH,
    ("worker.resolver", "off by one: 30.0"): _TRIES,
    ("worker.resolver", "off by one: 2.0"): _TRIES,
    ("worker.resolver", "off by one: 60.0"): "how soon memory is given back is no promise",
    (
        "worker.resolver",
        "off by one: 0.0",
    ): "a second more before an absence counts; and the first time that memory is given back",
    (
        "worker.resolver",
        "off by one: 1000",
    ): "a thousandth: later than it must be, or a list read from earlier on",
    (
        "worker.resolver",
        "off by one: 1",
    ): "a list read from earlier on, or a reading kept that nobody looks at",
    ("worker.resolver", "turned round: True"): "of a CANCEL's reading only the time counts",
    ("worker.resolver", "turned round: late[-1].started - late[0].started > _APART"): _VERY_MOMENT,
    ("worker.resolver", "turned round: since < doubt.launched_at"): _VERY_MOMENT,
    ("worker.resolver", "and/or: state == 'settled' and response"): "no entry is settled without its answer",
    (
        "worker.resolver",
        "left out: self._ours.intersection_update([row.broker_order_id for row in listed.orders])",
    ): "it gives memory back",
    (
        "worker.resolver",
        "left out: self._watched.pop(doubt.intent_id, None)",
    ): "forgotten a minute later all the same",
    ("worker.resolver", "always: self._ledger.states(names) if names else {}"): _NONE,
    (
        "worker.resolver",
        "turned round: one.started >= self.absence_from",
    ): "of a reading at the very instant: it brings one look more, and proves the same",
    (
        "worker.resolver",
        "turned round: watched.followed < AGREEING",
    ): "by the second look of its own both readings are late ones, and none is missing",
    ("worker.resolver", "returns None: return False"): _AS_FALSE,
    ("worker.byhand", "off by one: 1"): "a list read from earlier on",
    (
        "worker.byhand",
        "and/or: load_response(doubt.target_response).broker_order_id or ''",
    ): "an accepted answer has one",
    ("worker.settler", "off by one: 64"): _BATCH,
    ("worker.settler", "always: if handed:"): _NONE,
    ("worker.engine", "off by one: 4096"): "how many parsed intents are kept is no promise",
    ("worker.engine", "always: if not self._arrived:"): "how early it reads more is no promise",
    **{("worker.engine", f"off by one: {number}"): _DEFAULT for number in ("60.0", "8", "3")},
    ("worker.engine", "turned round: False"): _DEFAULT,
    ("worker.engine", "never: if not self._arrived:"): "how early in a turn it sends is no promise",
    ("worker.engine", "always: if never_launched:"): _NONE,
    ("worker.engine", "always: if leaving:"): _NONE,
    ("worker.engine", "always: if done:"): _NONE,
    (
        "worker.engine",
        "never: while self._delivered:",
    ): "what comes between two lines of a turn, the next one reads",
    (
        "worker.engine",
        "never: if room <= 0 or not self._ready:",
    ): "what follows finds none then, and takes longer",
    **{("worker.ledger", f"off by one: {number}"): _DEFAULT for number in ("10.0", "5.0", "7", "86400.0")},
    ("worker.ledger", "off by one: 500"): _BATCH,
    (
        "worker.ledger",
        "always: float(self._call('slot', *self._slots)) / 1000 if self.rules.rate_limit else 0.0",
    ): _LONGER,
    ("worker.ledger", "off by one: 8"): "a token of nine bytes is as good as one of eight",
    ("worker.ledger", "off by one: 0"): "set again before it is read",
    ("worker.ledger", "never: if error is None:"): "no error is of none of these kinds",
    ("worker.ledger", "never: if not self._client.hexists(self.keys.state, 'unsure_since'):"): _LONGER,
    ("worker.ledger.records", "off by one: 0.0"): "a default, of decisions for which nobody reads it",
    ("worker.ledger.records", "turned round: False"): "a default, where a person decides and nobody reads it",
    ("worker.fills.working", "off by one: 200"): _BATCH,
    ("worker.fills.working", "off by one: 20"): _TRIES,
    ("worker.fills.follower", "off by one: 200"): _BATCH,
    **{("worker.fills.follower", f"off by one: {number}"): _DEFAULT for number in ("10.0", "7", "86400.0")},
    ("worker.fills.follower", "off by one: 0.0"): "any time before the first turn is the same",
    (
        "worker.fills.follower",
        "turned round: now - _moment(one.since) > (kept if one.is_ours else NOBODYS)",
    ): "of an order that is exactly so old",
    ("worker.fills.follower", "off by one: 1"): "it begins with any number but none",
    ("worker.fills.follower", "turned round: False"): "the first turn reads the list, gap or none",
    ("worker.brokers.kis.replies", "off by one: 4096"): "how many answers are remembered is no promise",
    ("worker.brokers.kis.scan", "turned round: False"): _PROTOCOL,
    ("worker.brokers.kis.scan", "turned round: True"): _SAME_LENGTH,
    ("worker.engine", "left out: deliveries.append(self._delivered.popleft())"): _NEXT_TURN,
    ("worker.engine", "never: if self.is_draining:"): _NEXT_TURN,
    ("worker.engine", "always: padded(delivery.entry) if delivery.entry else ''"): _NO_NUMBER,
    ("worker.engine", "always: delivery.queue if delivery.entry else ''"): _NO_NUMBER,
    ("worker.engine", "not left out: not self._arrived"): "how early in a turn it sends is no promise",
    ("worker.engine", "turned round: True"): _SAME_LENGTH,
    ("worker.engine", "and/or: room <= 0 or not self._ready"): _FINDS_NONE,
    ("worker.engine", "turned round: room <= 0"): _FINDS_NONE,
    ("worker.engine", "returns None: return []"): _AS_GOOD_AS_NONE,
    ("worker.engine", "returns None: return False"): _AS_GOOD_AS_NONE,
    ("worker.engine", "always: if seconds > 0:"): "a delay of nothing is over at once",
    ("worker.engine", "turned round: seconds > 0"): "a delay of nothing is over at once",
    ("worker.engine", "turned round: self._delayed[0][0] <= now"): _VERY_MOMENT,
    ("worker.engine", "off by one: 0"): "who delivers wakes it as well",
    ("worker.ledger", "turned round: True"): _SAME_LENGTH,
    ("worker.ledger", "turned round: False"): "a transaction reads the same",
    ("worker.ledger", "off by one: 0.0"): "a default, which no other word reads",
    ("worker.ledger", "off by one: 1000"): "of a wait, a thousandth",
    (
        "worker.ledger",
        "always: self._sequence if known else 0",
    ): "of a route that it has not known it saw no launch",
    ("worker.ledger.control", "never: if not members:"): "to ask for none asks nobody",
    ("worker.ledger.control", "always: if placed:"): "no order has the number None",
    ("worker.ledger.control", "turned round: False"): "a transaction reads the same; the command says either",
    ("worker.ledger.control", "turned round: True"): "of a doubt that ends in the very moment",
    ("worker.ledger.control", "turned round: left > 0"): _VERY_MOMENT,
    ("worker.ledger.control", "turned round: until > now"): _VERY_MOMENT,
    ("worker.ledger.control", "turned round: age <= HEARTBEAT_LOST"): _VERY_MOMENT,
    ("worker.ledger.control", "operator: limit - 1"): _BATCH,
    **{("worker.ledger.control", f"off by one: {number}"): _BATCH for number in ("1", "255", "5000")},
    ("worker.ledger.control", "off by one: 0"): "a default that is as long ago, or that nobody reads",
    ("worker.ledger.control", "off by one: 2"): "what is asked next fails as well",
    (
        "worker.ledger.control",
        "off by one: 1000",
    ): "of a wait that is shown, a thousandth; of those looked at, one",
    ("worker.ledger.control", "off by one: 86400000"): "of a day, a millisecond",
    ("worker.ledger.control", "off by one: 1000000.0"): "of an age, a microsecond",
    ("worker.fills.working", "turned round: True"): _SAME_LENGTH,
    ("worker.ledger.lua.guard", "false → true at 14: g.changed = false"): _SAVED,
    ("worker.ledger.lua.guard", "left out: g.changed = false"): _SAVED,
    ("worker.ledger.lua.guard", "left out: changed = false,"): "nil is as false as false",
    (
        "worker.ledger.lua.guard",
        "> → >= at 9: if seq > g.last_success then g.last_success, g.changed = seq, true end",
    ): _SAVED,
    (
        "worker.ledger.lua.guard",
        "left out: return nil",
    ): "a function of Lua that ends without it returns nothing",
    ("worker.ledger.lua.guard", "left out: seq = tonumber(seq)"): "both callers give a number",
    **{
        ("worker.ledger.lua.guard", f"{change}: if f[2] and f[2] ~= '' then"): _EMPTY
        for change in ("2 → 3 at 7", "2 → 1 at 7", "2 → 3 at 16", "2 → 1 at 16")
    },
    **{
        ("worker.ledger.lua.lib", f"{change} at {column}: {line}"): _LONG_AGO
        for change in ("0 → 1", "0 → -1")
        for column, line in (
            (40, "local cancel, look = tonumber(v[1] or 0) > now_us, tonumber(v[2] or 0) > now_us"),
            (70, "local cancel, look = tonumber(v[1] or 0) > now_us, tonumber(v[2] or 0) > now_us"),
            (75, "local cold_until = tonumber(redis.call('HGET', K.state, 'cold_until') or 0)"),
            (69, "local sent_at = tonumber(redis.call('HGET', K.state, 'sent_at') or 0)"),
            (69, "local free_at = tonumber(redis.call('HGET', K.state, 'rate_at') or 0)"),
            (70, "local oldest = tonumber(redis.call('LINDEX', K.slots, calls - 1) or 0)"),
        )
    },
}
