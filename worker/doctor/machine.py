"""This machine: credentials, secret files, the calendar, the port, and whom to tell."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Iterator
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from worker.doctor.findings import Ailment, Check, Found, Severity, unknown, well
from worker.doctor.patient import Patient
from worker.errors import ConfigError
from worker.health import HealthServer
from worker.keys import SHARED
from worker.settings import Mode, secret_files
from worker.told import build_channels

# --- Credentials -----------------------------------------------------------------------------------------------

_FAULTY = Ailment(
    "faulty",
    Severity.ERROR,
    "The broker's options cannot be used: credentials are missing, or for the other environment. A worker does not start.",
    "The evidence names each option and its cure; docs/kis/README.md has where they come from.",
)
_OFF = Ailment(
    "off",
    Severity.INFO,
    "The route's mode is off: every intent is denied, and no credentials are needed.",
    "Set its MODE to paper or live to trade.",
)


def _credentials(patient: Patient) -> Iterable[Found]:
    route = patient.route
    if route.mode is Mode.OFF:
        return [_OFF.found("mode off")]
    if patient.faults:
        # A colon behind such a name would look like a secret, and what follows would be masked.
        return [_FAULTY.found("; ".join(fault.replace(": ", " – ", 1) for fault in patient.faults))]
    return [
        well(f"the options of {route.broker} are complete and fit for mode {route.mode}; nothing was sent")
    ]


_NOTE = Ailment(
    "odd",
    Severity.WARNING,
    "The settings are allowed, and may not mean what they seem to.",
    "The evidence says what to set.",
)


def _settings(patient: Patient) -> Iterable[Found]:
    return [_NOTE.found(note) for note in patient.settings.notes()]


_NO_TOKEN = Ailment(
    "none",
    Severity.INFO,
    "No access token is kept. The first worker asks for one; KIS gives one a minute and tells the customer's phone.",
    "Nothing: a worker that starts signs in by itself.",
)
_UNREADABLE = Ailment(
    "unreadable",
    Severity.WARNING,
    "The token that is kept was stored with another app secret. A new one will be asked for.",
    "If the secret was not changed on purpose, correct it: the app key is right and the secret is not.",
)


def _token(patient: Patient) -> Iterable[Found]:
    if patient.adapter is None:
        return (
            [well("no adapter is used")]
            if patient.route.mode is Mode.OFF
            else [unknown("see route.credentials")]
        )
    state = patient.adapter.token_state(patient.everywhere, SHARED)
    if state is None:
        return [well(f"{patient.route.broker} needs none")]
    if not state.valid_for:
        return [_NO_TOKEN.found("none that is valid")]
    evidence = f"good for another {state.valid_for / 3600:.1f} h"
    return [well(evidence) if state.readable else _UNREADABLE.found(evidence)]


# --- Calendar --------------------------------------------------------------------------------------------------

#: Days ahead.
_AHEAD: Final = 30
_TODAY = Ailment(
    "today",
    Severity.ERROR,
    "The calendar does not tell whether the market trades today: orders may be denied as MARKET_CLOSED.",
    "Upgrade, or set the days: EXECWORKER_ROUTES__ROUTE__OPTIONS__CALENDAR, see docs/kis/README.md.",
)
_SOON = Ailment(
    "soon",
    Severity.WARNING,
    "The calendar ends within 30 days.",
    "Upgrade in time, or set the days: EXECWORKER_ROUTES__ROUTE__OPTIONS__CALENDAR.",
)


def _calendar(patient: Patient) -> Iterable[Found]:
    adapter = patient.adapter
    if adapter is None:
        return (
            [well("no adapter is used")]
            if patient.route.mode is Mode.OFF
            else [unknown("see route.credentials")]
        )
    today = patient.clock.now().date()
    days = [today + timedelta(days=number) for number in range(_AHEAD + 1)]
    missing = [day for day in days if not adapter.knows_day(day)]
    if not missing:
        return [well(f"known until {days[-1]} at least")]
    ailment = _TODAY if missing[0] == today else _SOON
    return [ailment.found(f"nothing is known of {missing[0]}, and of {len(missing)} days in all")]


# --- Files -----------------------------------------------------------------------------------------------------

_READABLE = Ailment(
    "readable",
    Severity.WARNING,
    "Others on this machine may read a file with secrets.",
    "chmod 600 the file, or 700 the folder that it is in, and give it to the user who runs the worker.",
)


def _files(patient: Patient) -> Iterator[Found]:
    files = list(secret_files(patient.environ))
    for name, route in patient.settings.routes.items():
        given = route.options.get("credentials")
        if given is not None:
            path = given.get_secret_value() if isinstance(given, SecretStr) else str(given)
            files.append((f"credentials of route {name}", Path(path)))
    for name, file in files:
        try:
            who = _others(file.resolve())
        except OSError as error:
            yield unknown(
                f"{file} ({name}): {error.strerror}", "Let this user look at the file and its folders."
            )
            continue
        if who:
            yield _READABLE.found(f"{file} ({name}) may be read by {who}")
    yield well(f"{len(files)} files with secrets")


def _others(file: Path) -> str:
    """Who besides its owner gets to the file, through all the folders above it."""
    everybody, group = stat.S_IROTH, stat.S_IRGRP
    above = [folder.stat().st_mode for folder in file.parents]
    mode = file.stat().st_mode
    if mode & everybody and all(folder & stat.S_IXOTH for folder in above):
        return "everybody"
    if mode & group and all(folder & (stat.S_IXOTH | stat.S_IXGRP) for folder in above):
        return "its group"
    return ""


# --- Port ------------------------------------------------------------------------------------------------------

_TAKEN = Ailment(
    "taken",
    Severity.ERROR,
    "The port of the metrics cannot be had, and no worker of ours has it. A worker does not start.",
    "Set another EXECWORKER_METRICS_PORT, or stop what has it.",
)


def _port(patient: Patient) -> Iterable[Found]:
    host, port = patient.settings.metrics_host, patient.settings.metrics_port
    server = HealthServer(
        host, port, registry=CollectorRegistry(), live=lambda: None, ready=lambda: None, state=dict
    )
    try:
        got = server.try_port()
    except ConfigError as error:
        if port and (worker := _worker_at(host, port)):
            return [well(f"{worker} has port {port}")]
        return [_TAKEN.found("; ".join(error.faults))]
    return [well(f"port {got} of {host} is free")]


def _worker_at(host: str, port: int) -> str:
    """The name of the worker that answers there, if one does."""
    asked = HTTPConnection("127.0.0.1" if host == "0.0.0.0" else host, port, timeout=2)
    try:
        asked.request("GET", "/state")
        told = json.loads(asked.getresponse().read(65536))
        return str(told["worker"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return ""
    finally:
        asked.close()


# --- Telling ---------------------------------------------------------------------------------------------------

_UNUSABLE = Ailment(
    "unusable",
    Severity.ERROR,
    "A channel for failsafe events cannot work on this machine. A worker does not start.",
    "The evidence names the setting and its cure; docs/told.md has the channels.",
)
_NOBODY = Ailment(
    "nobody",
    Severity.INFO,
    "No channel is set: of a trip or a doubt only metrics, logs and streams tell.",
    "Set one (docs/told.md), or have alerts on the metrics.",
)


def _told(patient: Patient) -> Iterable[Found]:
    try:
        channels = build_channels(patient.settings)
    except ConfigError as error:
        return [_UNUSABLE.found("; ".join(error.faults))]
    return [well(", ".join(one.name for one in channels)) if channels else _NOBODY.found("none is set")]


CHECKS: Final = (
    Check("settings.notes", "The settings mean what they seem to.", _settings, (_NOTE,), needs_redis=False),
    Check(
        "secrets.files",
        "Nobody else may read the files with secrets.",
        _files,
        (_READABLE,),
        needs_redis=False,
    ),
    Check(
        "metrics.port",
        "The port of the metrics is free, or a worker has it.",
        _port,
        (_TAKEN,),
        needs_redis=False,
    ),
    Check(
        "told.channels",
        "Somebody is told of failsafe events.",
        _told,
        (_UNUSABLE, _NOBODY),
        needs_redis=False,
    ),
    Check(
        "route.credentials",
        "The broker's options are complete, and fit for the mode.",
        _credentials,
        (_FAULTY, _OFF),
        per_route=True,
        needs_redis=False,
    ),
    Check(
        "route.token",
        "The access token that workers share is there, and can be read.",
        _token,
        (_NO_TOKEN, _UNREADABLE),
        per_route=True,
    ),
    Check(
        "route.calendar",
        "The calendar knows today and the next 30 days.",
        _calendar,
        (_TODAY, _SOON),
        per_route=True,
        needs_redis=False,
    ),
)
