"""
The promises hold wherever a process is struck: a worker, or the command of an operator.

`python -m tests.crash` plays all points, pairs of deaths and storms; here is what fits into a minute or two. A failure
names the trial, and the command that plays it once more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from hashlib import sha1
from itertools import islice
from zlib import crc32

import pytest

from tests.crash.__main__ import main
from tests.crash.exchange import Exchange
from tests.crash.faults import KINDS, Fault
from tests.crash.scenarios import SCENARIOS
from tests.crash.search import Trial, play, singles, storms
from tests.crash.virtual import VirtualRedis, virtual_redis
from worker.ledger import scripts

#: One point of so many is played here. A fakeredis is some times slower.
STRIDES = {"killed": 6, "cut off": 40, "frozen": 50, "overtaken": 32, "halted": 32, "flushed": 40}
SLOWER = {"redis-server": 1, "fakeredis": 8}


@pytest.fixture(scope="module")
def server() -> Iterator[VirtualRedis]:
    with virtual_redis() as found:
        yield found


def check(server: VirtualRedis, trial: Trial) -> None:
    _, found = play(server, trial)
    assert found == [], f"{trial}; again with: {trial.again}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_that_nothing_disturbs_ends_as_it_should(server: VirtualRedis, name: str) -> None:
    check(server, Trial(name, ()))


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_promise_holds_wherever_a_process_is(server: VirtualRedis, kind: str, name: str) -> None:
    stride = STRIDES[kind] * SLOWER[server.name]
    trials = list(singles(server, name, kind))

    for trial in trials[crc32(name.encode()) % stride :: stride]:
        check(server, trial)


@pytest.mark.parametrize("first", ["killed", "frozen"])
@pytest.mark.parametrize("name", ["lane", "halted", "paced", "reply_lost", "cancel_lost", "blind_lost"])
def test_every_promise_holds_when_the_next_worker_dies_as_well(
    server: VirtualRedis, name: str, first: str
) -> None:
    dice = random.Random(name)
    trials = [one for one in singles(server, name, first) if one.faults[0].actor == 1]

    for trial in dice.choices(trials, k=max(1, 5 // SLOWER[server.name])):
        check(server, Trial(name, (*trial.faults, Fault(dice.randint(1, 40), True, "killed", 2))))


@pytest.mark.parametrize("seed", range(2))
def test_every_promise_holds_in_a_storm(server: VirtualRedis, seed: int) -> None:
    for trial in islice(storms(seed), 30 // SLOWER[server.name]):
        check(server, trial)


# The search itself: it finds what is broken, and what it prints can be played again.


def test_what_a_fault_prints_names_it() -> None:
    for fault in (Fault(7, True, "killed"), Fault(12, False, "cut off", 3), Fault(1, True, "frozen", 0)):
        assert Fault.parse(str(fault)) == fault

    with pytest.raises(ValueError, match="is no fault such as: killed after call 7 of worker 2"):
        Fault.parse("hit by a truck before call 7")


def test_a_trial_is_the_same_each_time(server: VirtualRedis) -> None:
    trial = next(trial for trial in storms(1) if len(trial.faults) > 3)

    worlds = [play(server, trial)[0] for _ in range(2)]

    first, second = ([(wire.calls, wire.names) for wire in world.wires.values()] for world in worlds)
    assert first == second


def struck(scenario: str, kind: str) -> Callable[[VirtualRedis], Iterator[Trial]]:
    return lambda server: singles(server, scenario, kind)


def left_half_done(scenario: str, call: str) -> Callable[[VirtualRedis], Iterator[Trial]]:
    """One worker stands still before this call; the next takes over, and dies at some point of it."""

    def trials(server: VirtualRedis) -> Iterator[Trial]:
        world, _ = play(server, Trial(scenario, ()))
        frozen = Fault(world.wires[1].names.index(call) + 1, False, "frozen")
        for number in range(1, 40):
            yield Trial(scenario, (frozen, Fault(number, True, "killed", 2)))

    return trials


@pytest.mark.parametrize(
    ("script", "rule", "without", "trials_of", "broken"),
    [
        # Who launches shows the token of the newest claim.
        (
            "launch",
            "stored_token ~= token or token == ''",
            "false",
            left_half_done("lane", "launch"),
            "fence",
        ),
        # Who settles does so too.
        ("settle", "if not is_own then", "if false then", left_half_done("halted", "settle"), "fence"),
        # A lease that ends after a launch proves nothing.
        ("sweep", "if e.state == 'in_flight' then", "if false then", struck("plain", "killed"), "P"),
        # A halt closes the gate.
        ("launch", "if gates.halted then", "if false then", struck("not_sent", "halted"), "P5"),
        # One of a lane at a time.
        (
            "claim",
            "parked = must_wait(symbol, member)",
            "must_wait(symbol, member)",
            struck("lane", "killed"),
            "P6",
        ),
        # The same id with other content is a conflict.
        ("claim", "if known[2] ~= fingerprint then", "if false then", struck("conflict", "killed"), "P8"),
    ],
)
def test_a_rule_that_is_left_out_is_missed(
    server: VirtualRedis,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    rule: str,
    without: str,
    trials_of: Callable[[VirtualRedis], Iterator[Trial]],
    broken: str,
) -> None:
    source = scripts.source
    assert rule in source(script)
    trials = list(trials_of(server))
    weaker = source(script).replace(rule, without)
    monkeypatch.setattr(scripts, "source", lambda name: weaker if name == script else source(name))
    monkeypatch.setattr(scripts, "digest", lambda name: sha1(scripts.source(name).encode()).hexdigest())
    play(server, Trial("plain", ()))  # tells the server the weaker script

    found = (words for trial in trials for words in play(server, trial)[1])

    assert any(words.startswith(broken) for words in found)


def test_a_broken_promise_ends_the_search_with_its_replay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Exchange.place
    monkeypatch.setattr(
        Exchange, "place", lambda self, request: (place(self, request), place(self, request))[1]
    )

    code = main(["--scenario", "plain", "--fault", "flushed before call 2"])

    assert code == 1
    printed = capsys.readouterr().out
    assert "P1: the broker holds 2 orders of a" in printed
    assert 'again: python -m tests.crash --scenario plain --fault "flushed before call 2"' in printed


def test_a_search_that_finds_nothing_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenario", "plain", "--seconds", "0.5", "--seed", "3"]) == 0

    assert "seed 3" in capsys.readouterr().out
