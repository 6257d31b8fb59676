"""The live workers of a route: whether there are any, and whether they agree."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from worker.assembly import common
from worker.doctor.findings import Ailment, Check, Found, Severity, well
from worker.doctor.patient import Patient, text
from worker.settings import Mode

_NONE = Ailment(
    "none",
    Severity.ERROR,
    "No worker of the route is alive: nobody takes intents.",
    "Start one: worker run --route ROUTE. One that is frozen or hangs is not alive: look at its /livez and its log.",
    Severity.WARNING,
    "the route is off, its market is closed, or no worker has ever served it",
)
_SINGLE = Ailment(
    "single",
    Severity.INFO,
    "One worker only: while it is away nobody takes intents or resolves doubts.",
    "Start a second one, best on another machine.",
)


def _alive(patient: Patient) -> Iterable[Found]:
    workers = patient.status.workers
    evidence = ", ".join(f"{one.name} ({one.age:.0f} s ago)" for one in workers)
    if not workers:
        return [_nobody(patient)]
    return [_SINGLE.found(evidence) if len(workers) == 1 else well(evidence)]


def _nobody(patient: Patient) -> Found:
    """As `worker.deadman` decides it: an outage is where orders could be placed now, and a worker once was."""
    beat = patient.client.hmget(patient.keys.state, "alive_at", "made_at")
    last = next((int(one) for one in beat if one), None)
    if last is None:
        return _NONE.found("no worker has ever served it", live=False)
    evidence = f"no heartbeat for {(patient.now_ms - last) / 1000:.0f} s"
    if patient.route.mode is Mode.OFF:
        return _NONE.found(f"{evidence}; its mode is off", live=False)
    # Whether its market is open cannot be told with faulty options: then it counts as open.
    is_open = patient.adapter is None or patient.adapter.in_session(patient.clock.now())
    return _NONE.found(f"{evidence}, and its market is {'open' if is_open else 'closed'}", live=is_open)


_MODES = Ailment(
    "modes",
    Severity.ERROR,
    "Workers of the route run in different modes, or in another one than these settings have: some may send real money.",
    "Stop those that should not run, and give all the same settings.",
)
_STILL_TRADES: Final = "the route is not live, its live workers are alike, or a rollout window is open"
_VERSIONS = Ailment(
    "versions",
    Severity.ERROR,
    "Workers of the route run different versions, or another one than this. A live route denies every order (ROLLOUT) "
    "while its workers differ and no rollout window is open.",
    "Finish the upgrade: drain the old ones and start new ones; until then `worker rollout open --route ROUTE --reason …`.",
    Severity.WARNING,
    _STILL_TRADES,
)
_SETTINGS = Ailment(
    "settings",
    Severity.ERROR,
    "Workers of the route have different settings, or others than these: limits and times differ between them. A live "
    "route denies every order (ROLLOUT) while its workers differ and no rollout window is open.",
    "Give all machines the same settings, then restart the workers; until then "
    "`worker rollout open --route ROUTE --reason …`.",
    Severity.WARNING,
    _STILL_TRADES,
)


def _agreement(patient: Patient) -> Iterator[Found]:
    cards = _cards(patient)
    if not cards:
        yield well("no worker is alive")
        return
    ours = common(patient.route)
    denied = _all_is_denied(patient, cards)
    disagree = False
    for name, ailment in (("mode", _MODES), ("settings", _SETTINGS), ("version", _VERSIONS)):
        # An older version does not tell; that shows among the versions.
        told = {worker: str(card.get(name, "?")) for worker, card in cards.items()}
        values = set(told.values()) - ({"?"} if name != "version" else set())
        if len(values | {ours[name]}) > 1:
            disagree = True
            seen = ", ".join(f"{worker}: {value}" for worker, value in sorted(told.items()))
            # Workers that are alike trade, whatever the settings are that doctor was given.
            stops = denied and len(set(told.values())) > 1
            why = "; every order is denied" if stops else ""
            yield ailment.found(f"{seen}; here: {ours[name]}{why}", live=stops)
    if not disagree:
        yield well(f"{len(cards)} alive, version {ours['version']}, mode {ours['mode']}")


def _all_is_denied(patient: Patient, cards: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the ledger refuses what the route's workers would send with real money, as `beat.lua` judges it."""
    is_live = patient.is_live or any(card.get("mode") == Mode.LIVE for card in cards.values())
    differ = len({card.get("build", "") for card in cards.values()}) > 1
    return is_live and differ and patient.status.rollout_until is None


def _cards(patient: Patient) -> Mapping[str, Mapping[str, Any]]:
    rows = patient.client.hgetall(patient.keys.workers)
    alive = {one.name for one in patient.status.workers}
    # What no worker of ours has written is not among those.
    return {name: json.loads(body) for key, body in rows.items() if (name := text(key)) in alive}


CHECKS: Final = (
    Check(
        "workers.alive",
        "At least two workers of the route are alive.",
        _alive,
        (_NONE, _SINGLE),
        per_route=True,
    ),
    Check(
        "workers.agree",
        "They run the same version, mode and settings, which are those here.",
        _agreement,
        (_MODES, _SETTINGS, _VERSIONS),
        per_route=True,
    ),
)
