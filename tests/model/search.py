"""Breadth-first search of everything that can happen, the shortest story of what went wrong, and what can never end."""

from __future__ import annotations

import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from tests.model import people, workers
from tests.model.promises import is_answered
from tests.model.rules import Rule
from tests.model.setting import Setting
from tests.model.step import Step
from tests.model.world import World, pack, unpack


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of one search."""

    setting: Setting
    states: int
    depth: int
    #: Seconds of this process's CPU.
    seconds: float
    #: What is broken and how, empty if nothing is; and the shortest way there.
    broken: str
    story: tuple[str, ...]
    #: Whether all was searched, or the bound on states was met.
    is_complete: bool

    @property
    def promise(self) -> str:
        """Which one is broken."""
        return self.broken.partition(":")[0]


class _Graph:
    """States by number, in the order in which they were found."""

    def __init__(self, start: bytes) -> None:
        self.number = {start: 0}
        self.states = [start]
        self.parent = array("l", [-1])
        self.depth = array("l", [0])
        #: Steps that somebody is sure to take, as pairs.
        self.sources, self.targets = array("l"), array("l")

    def add(self, state: bytes, parent: int) -> int | None:
        """The number of a state that is new."""
        number = self.number.setdefault(state, len(self.states))
        if number < len(self.states):
            return None
        self.states.append(state)
        self.parent.append(parent)
        self.depth.append(self.depth[parent] + 1)
        return number

    def way(self, number: int) -> list[bytes]:
        found = []
        while number >= 0:
            found.append(self.states[number])
            number = self.parent[number]
        return found[::-1]


def steps(world: World, s: Setting) -> Iterator[Step]:
    yield from workers.steps(world, s)
    yield from people.steps(world, s)


def search(s: Setting, states_max: int = sys.maxsize) -> Found:
    """Look at every state that can be reached, until one breaks a promise or ``states_max`` were found."""
    began = time.process_time()
    # Where a worker's name is its claim, workers are not alike.
    named = not s.on(Rule.OWN_TOKEN)
    graph = _Graph(pack(s.start()))
    todo = deque([0])
    unanswered = "P3" in s.promises
    ended: list[int] = []

    def result(broken: str, story: list[str], is_complete: bool) -> Found:
        seconds = time.process_time() - began
        return Found(s, len(graph.states), max(graph.depth), seconds, broken, tuple(story), is_complete)

    while todo:
        number = todo.popleft()
        packed = graph.states[number]
        world = unpack(packed)
        if unanswered and is_answered(world, s):
            ended.append(number)
        for step in steps(world, s):
            after = unpack(packed)
            step.do(after, s, *step.with_)
            if after.broken:
                return result(after.broken, _tell(graph.way(number), s, after.broken), True)
            state = pack(after, named=named)
            new = graph.add(state, number)
            if new is not None:
                todo.append(new)
            if unanswered and not step.is_fault:
                graph.sources.append(number)
                graph.targets.append(graph.number[state])
        if len(graph.states) > states_max:
            return result("", [], False)
    if unanswered and (silent := _silent(graph, ended)) is not None:
        broken = "P3: from here on nothing that anybody is sure to do answers everything"
        return result(broken, _tell(graph.way(silent), s, ""), True)
    return result("", [], True)


def _silent(graph: _Graph, ended: list[int]) -> int | None:
    """The first state from which no way of sure steps leads to where everything is answered."""
    before: dict[int, list[int]] = {}
    for source, target in zip(graph.sources, graph.targets, strict=True):
        if source != target:
            before.setdefault(target, []).append(source)
    good = bytearray(len(graph.states))
    todo = list(ended)
    for number in ended:
        good[number] = 1
    while todo:
        for source in before.get(todo.pop(), ()):
            if not good[source]:
                good[source] = 1
                todo.append(source)
    return next((number for number, is_good in enumerate(good) if not is_good), None)


def _tell(way: list[bytes], s: Setting, broken: str) -> list[str]:
    """The way in words. In the search workers are interchangeable; here each keeps its name."""
    world = s.start()
    story = []
    for wanted in way[1:]:
        story.append(_follow(world, s, wanted)[0])
        world = _follow(world, s, wanted)[1]
    if broken:
        story.append(next(text for text, after in _after(world, s) if after.broken == broken))
    return story


def _follow(world: World, s: Setting, wanted: bytes) -> tuple[str, World]:
    return next(
        (text, after)
        for text, after in _after(world, s)
        if pack(after, named=not s.on(Rule.OWN_TOKEN)) == wanted
    )


def _after(world: World, s: Setting) -> Iterator[tuple[str, World]]:
    packed = pack(world, named=True)
    for step in steps(unpack(packed), s):
        after = unpack(packed)
        step.do(after, s, *step.with_)
        yield step.text, after
