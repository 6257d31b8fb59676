"""What one search is about: which intents, which faults and how often, which rules are off."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tests.model.rules import Rule
from tests.model.world import NEVER, Redis, Worker, World, remember

#: What goes wrong, each at most so often as a setting says.
FAULTS = (
    "crash",
    "lost reply",
    "redelivery",
    "not sent",
    "refusal",
    "bad reading",
    "hand order",
    "fill",
    "Redis dies",
    "halt",
    "reset",
    "freeze",
    "drain",
)
(
    CRASH,
    LOST,
    REDELIVERY,
    NOT_SENT_FAULT,
    REFUSAL,
    BAD_READING,
    HAND_ORDER,
    FILL,
    REDIS_DIES,
    HALT,
    RESET,
    FREEZE,
    DRAIN,
) = range(len(FAULTS))


@dataclass(frozen=True, slots=True)
class Intent:
    """One intent_id."""

    name: str
    #: Its symbol.
    lane: str = "L"
    #: For a CANCEL: which intent.
    target: int | None = None
    #: Ticks from being made until it is stale.
    fresh: int = NEVER
    #: The bytes of one entry cannot be read by all workers: it may be dead-lettered while another works on it.
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    about: str
    intents: tuple[Intent, ...]
    #: Which promises hold here.
    promises: frozenset[str]
    #: The queue at first, as places of ``intents``; one after a dash means something else. When it is that an entry comes
    #: makes no difference, since nobody need take it.
    queue: str = "A"
    #: A strategy that enqueues an intent again when Redis has lost it.
    asks_again: bool = False
    workers: int = 2
    resolvers: int = 1
    #: Leave out that a worker may stop between taking an entry and claiming it.
    claims_at_once: bool = False
    faults: dict[str, int] = field(default_factory=dict)
    #: How often an order that provably did not leave is launched again.
    retries: int = 0
    #: The broker's rows show ids of ours; else the account is nobody else's, if ``exclusive``.
    shows_ids: bool = True
    exclusive: bool = True
    #: The broker's list may be older than its lag, but shows orders in the order of their acceptance.
    stale_list: bool = False
    #: A person may end a doubt.
    person: bool = False
    #: Failures in a row that trip the guard; 0: it counts nothing.
    threshold: int = 0
    #: Ticks that a settled entry is remembered.
    retention: int = NEVER
    #: Whether Redis may forget what was not confirmed.
    forgets: bool = False
    #: Whether a call counts only once it is confirmed.
    confirms: bool = True
    off: frozenset[Rule] = frozenset()

    def on(self, rule: Rule) -> bool:
        return rule not in self.off

    def without(self, rule: Rule) -> Setting:
        return replace(self, off=self.off | {rule})

    def lane_of(self, intent: int) -> str:
        return self.intents[intent].lane

    def lane_bit(self, intent: int) -> int:
        lane = self.intents[intent].lane
        return 1 << next(n for n, one in enumerate(self.intents) if one.lane == lane)

    def is_cancel(self, intent: int) -> bool:
        return self.intents[intent].target is not None

    def start(self) -> World:
        count = len(self.intents)
        world = World(
            Redis([None] * count, [0] * count),
            [Worker() for _ in range(self.workers)],
            watches=[],
            orders=[],
            wires=[],
            sent=[0] * count,
            first=[0] * count,
            fresh=[one.fresh for one in self.intents],
            left=[self.faults.get(name, 0) for name in FAULTS],
            told=[0] * count if self.forgets else [],
        )
        self._enqueue_all(world)
        if self.forgets:
            remember(world)
        return world

    def _enqueue_all(self, world: World) -> None:
        names = [one.name for one in self.intents]
        for number, name in enumerate(self.queue.split(), 1):
            intent = names.index(name.strip("-"))
            world.redis.queue.append([number, intent, int(name.startswith("-")), 0])
            world.first[intent] = world.first[intent] or number
            world.sent[intent] += 1
            world.numbered = number
