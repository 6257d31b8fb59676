"""
Every setting, read once. No other module reads the environment.

The environment comes first (``EXECWORKER_…``, nested with ``__``, upper or lower case), then the TOML file
that ``EXECWORKER_CONFIG`` names. The URLs, an account, ``told_header`` and every broker option may also be
given as ``…_FILE`` (``…_file`` in TOML): the name of a file that holds the value. An empty variable counts as not set.
Durations are seconds.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from contracts import FailsafeType
from worker.errors import ConfigError
from worker.redact import Redactor, smells_of_secret

PREFIX: Final = "EXECWORKER_"

#: The place of a setting: ``("routes", "kis_main", "lease")``.
Place = tuple[str, ...]


class Mode(StrEnum):
    #: Every intent is denied.
    OFF = "off"
    PAPER = "paper"
    #: Real money, and only where ``live_allowed`` says so as well.
    LIVE = "live"


class LaneOnDoubt(StrEnum):
    #: Later intents of the symbol wait until the doubt ends.
    WAIT = "wait"
    CONTINUE = "continue"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    JSON = "json"
    CONSOLE = "console"


class SecretUrl(str):
    """A URL whose ``repr`` shows no password. Put ``shown`` into messages, never the URL itself."""

    __slots__ = ()

    @property
    def shown(self) -> str:
        return Redactor().text(str(self))

    def __repr__(self) -> str:
        return repr(self.shown)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(strip_whitespace=True)
        )


def _with_scheme(*schemes: str) -> AfterValidator:
    def check(url: SecretUrl) -> SecretUrl:
        scheme, found, rest = url.partition("://")
        if not (found and rest and scheme and (not schemes or scheme in schemes)):
            raise ValueError("not such a URL")
        return url

    return AfterValidator(check)


def _argv(value: Any) -> Any:
    return shlex.split(value) if isinstance(value, str) else value


def _listed(value: Any) -> Any:
    # An environment variable has no lists.
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _event_types(value: Any) -> Any:
    # Here and not by pydantic, so that the fault names the setting and not one of its items.
    return [FailsafeType(one.upper()) for one in _listed(value)]


def _secret_lines(value: Any) -> Any:
    # Such URLs hold commas.
    lines = value.split() if isinstance(value, str) else value
    if not all(isinstance(one, str) and "://" in one for one in lines):
        raise ValueError("not such URLs")
    return [SecretStr(one) for one in lines]


def _is_web_url(value: SecretStr) -> SecretStr:
    # Each way out of here shows as the setting's own words, without the value.
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1:
        raise ValueError("not such a URL")
    return value


def _is_header(value: SecretStr) -> SecretStr:
    if _HEADER.fullmatch(value.get_secret_value().strip()) is None:
        raise ValueError("not such a header")
    return value


_HEADER = re.compile(r"[A-Za-z0-9-]+\s*:[ -~]+")


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number")
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _hide_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _hidden(name, value) for name, value in options.items()}


def _hidden(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _hide_secrets(value)
    if value is None or isinstance(value, (bool, SecretStr)) or not _is_secret_option(name):
        return value
    return SecretStr(str(value))


def _is_secret_option(name: str) -> bool:
    return smells_of_secret(name) or "key" in name.lower()


_Seconds = Annotated[float, BeforeValidator(_no_bool), Field(gt=0, allow_inf_nan=False)]
_Whole = Annotated[int, BeforeValidator(_no_bool)]
_RouteName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]
_Options = Annotated[dict[str, Any], AfterValidator(_hide_secrets)]


def _setting(give: str, meaning: str, *, shown: str | None = None, **field: Any) -> Any:
    # ``give`` completes "must be …"; ``shown`` is what the table says of a default that is worked out.
    return Field(**field, description=meaning, json_schema_extra={"give": give, "shown": shown})


_SECONDS = "seconds above 0"
_YES_OR_NO = "true or false"


#: The scheme of each Redis URL, and that of the queue on the same server.
QUEUE_SCHEMES: Final = {
    "redis": "redis-streams",
    "rediss": "rediss-streams",
    "unix": "redis-streams+unix",
    "redis+sentinel": "redis-streams+sentinel",
    "rediss+sentinel": "rediss-streams+sentinel",
    "redis+cluster": "redis-streams+cluster",
    "rediss+cluster": "rediss-streams+cluster",
}


class RouteSettings(BaseModel):
    """One route: a queue bound to a broker, an account, a guard and limits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    broker: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")] = _setting(
        "a broker's name such as simulated", "Which broker's adapter places the orders.", default="simulated"
    )
    mode: Annotated[Mode, BeforeValidator(_lower)] = _setting(
        "off, paper or live",
        "`off` denies every intent. `paper` trades on paper credentials. `live` trades real money, "
        "if `live_allowed` says so as well.",
        default=Mode.OFF,
    )
    live_allowed: bool = _setting(
        _YES_OR_NO, "The second key: without it a route in mode `live` denies every intent.", default=False
    )
    options: _Options = _setting(
        "a table: one variable …__OPTIONS__<NAME> for each option",
        "The broker's own options, one by one: credentials, hosts, `venue` and so on. Those whose name speaks "
        "of a secret, key, token or password are never shown. `…__OPTIONS__APP_KEY_FILE` reads `app_key` "
        "from a file.",
        default_factory=dict,
        shown="none",
        repr=False,
    )
    account: Annotated[str, Field(min_length=1)] | None = _setting(
        "text (in quotes, in TOML)",
        "The account that the route trades on. An account belongs to one route only.",
        default_factory=lambda data: _text(data.get("options", {}).get("account")),
        shown="`account` of the options",
        repr=False,
    )
    account_exclusive: bool = _setting(
        _YES_OR_NO,
        "Nobody and nothing else trades on the account. Only then does a matching order row end a doubt by "
        "itself at a broker that takes no client order id.",
        default=False,
    )
    max_consecutive_failures: Annotated[_Whole, Field(ge=1, le=100)] = _setting(
        "a whole number from 1 to 100", "So many counted failures in a row trip the guard.", default=3
    )
    count_rejected: bool = _setting(
        _YES_OR_NO, "Whether a broker's refusal counts as a failure for the guard.", default=True
    )
    max_age: _Seconds = _setting(
        f"{_SECONDS}, less than retention", "An intent older than this is answered EXPIRED.", default=60.0
    )
    future_skew: _Seconds = _setting(
        _SECONDS, "How far ahead of Redis's clock `created_at` may be.", default=5.0
    )
    concurrency: Annotated[_Whole, Field(ge=1, le=1000)] = _setting(
        "a whole number from 1 to 1000",
        "Orders of the route that one worker has on their way at a time, each of another symbol.",
        default=8,
    )
    prefetch: Annotated[_Whole, Field(ge=1, le=100_000)] = _setting(
        "a whole number from 1 to 100000",
        "Intents that one worker takes off the queue ahead of their turn.",
        default_factory=lambda data: max(512, 4 * data.get("concurrency", 0)),
        shown="4 × `concurrency`, at least 512",
    )
    rate_limit: _Seconds | None = _setting(
        "calls a second, above 0",
        "Calls a second to the broker that all workers of the route make together: orders, cancels and look-ups.",
        default=None,
        shown="what the broker takes",
    )
    lease: _Seconds = _setting(
        _SECONDS,
        "How long a silent worker keeps an intent before another one takes over. Renewed while the work goes on.",
        default=10.0,
    )
    order_timeout: _Seconds = _setting(
        f"{_SECONDS}, less than lease", "How long the broker may take to answer one order.", default=5.0
    )
    not_sent_retries: Annotated[_Whole, Field(ge=0, le=100)] = _setting(
        "a whole number from 0 to 100",
        "How often an order that provably never left this machine is launched again.",
        default=3,
    )
    lane_on_doubt: Annotated[LaneOnDoubt, BeforeValidator(_lower)] = _setting(
        "wait or continue",
        "Whether later intents of a symbol wait while one of it is in doubt.",
        default=LaneOnDoubt.WAIT,
    )
    doubt_escalate_after: _Seconds = _setting(
        _SECONDS, "A doubt older than this is announced again as DOUBT_ESCALATED.", default=300.0
    )
    orphan_scan_interval: _Seconds = _setting(
        _SECONDS, "How often the broker's order list is compared with the ledger.", default=30.0
    )
    order_list_interval: _Seconds = _setting(
        _SECONDS,
        "How often the broker's order list is read for what became of accepted orders, at most.",
        default=10.0,
    )
    canary_interval: Annotated[float, BeforeValidator(_no_bool), Field(ge=0, allow_inf_nan=False)] = _setting(
        "seconds, or 0 for never",
        "How often one worker of the route sends a NOOP through it and measures the way (docs/metrics.md).",
        default=0.0,
    )
    dead_man_after: Annotated[float, BeforeValidator(_no_bool), Field(ge=0, allow_inf_nan=False)] = _setting(
        "seconds, or 0 for never",
        "NO_LIVE_WORKER is published when no worker of the route was alive for so long while its market is open.",
        default=60.0,
    )
    dead_man_cancel: bool = _setting(
        "true or false",
        "Then halt the route and cancel its working orders, by whoever is left.",
        default=False,
    )
    retention: _Seconds = _setting(
        _SECONDS,
        "How long a settled intent, its response and events are kept, and a repeated intent_id is recognised.",
        default=7 * 86400.0,
    )
    max_entry_bytes: Annotated[_Whole, Field(ge=1024, le=16 * 1024 * 1024)] = _setting(
        "a whole number from 1024 to 16777216", "A queue entry above this is dead-lettered.", default=65536
    )
    max_parked: Annotated[_Whole, Field(ge=1)] = _setting(
        "a whole number above 0",
        "Intents that may wait for their lanes in Redis; at that number the workers stop taking more.",
        default=100_000,
    )
    allow_weak_durability: bool = _setting(
        _YES_OR_NO,
        "Lets a live route start on a Redis that may forget a launched order when it crashes. One order can "
        "then be placed twice.",
        default=False,
    )

    @property
    def digest(self) -> str:
        """The same for the same settings. Secrets are left out: a digest would help whoever guesses them."""
        told = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults: list[tuple[str, str]] = []
        for lower, upper in (("order_timeout", "lease"), ("max_age", "retention")):
            low, high = getattr(self, lower), getattr(self, upper)
            if low >= high:
                text = f"must be less than {upper} ({high:g}), not {low:g}; lower it or raise {upper}"
                faults.append((lower, text))
        if "account" in self.options and _text(self.options["account"]) != self.account:
            faults.append(("account", "differs from the account among the options; give it once"))
        if faults:
            summary = "; ".join(f"{name} {text}" for name, text in faults)
            raise PydanticCustomError("together", "{summary}", {"summary": summary, "faults": faults})
        return self


class Settings(BaseSettings):
    """Everything that can be set. `load_settings` makes it; made directly, it reads nothing by itself."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    redis_url: Annotated[SecretUrl, _with_scheme(*QUEUE_SCHEMES)] = _setting(
        "a URL that begins with redis://, unix://, redis+sentinel:// or redis+cluster:// (rediss… with TLS)",
        "The Redis that holds the ledger, the guard and the streams. With sentinels: "
        "`redis+sentinel://a:26379,b:26379,c:26379/SERVICE/DB`; a cluster, by some of its nodes: "
        "`redis+cluster://a:6379,b:6379`.",
        default=SecretUrl("redis://127.0.0.1:6379/0"),
    )
    queue_url: Annotated[SecretUrl, _with_scheme()] = _setting(
        "a URL such as redis-streams://127.0.0.1:6379/0",
        "Where intents are taken from, as a kombu URL.",
        default_factory=lambda data: _queue_beside(data.get("redis_url")),
        shown="the same server through `redis-streams://`",
    )
    confirm_replicas: Annotated[_Whole, Field(ge=0, le=5)] = _setting(
        "a whole number from 0 to 5",
        "So many replicas must have a launch, an answer, a trip or a halt before it counts (`WAIT`). "
        "What they do not confirm is not sent and not acknowledged.",
        default=0,
    )
    confirm_fsync: bool = _setting(
        _YES_OR_NO,
        "It must be on the disk as well, of the primary and of those replicas (`WAITAOF`, Redis 7.2 or newer). "
        "For servers without `appendfsync always`.",
        default=False,
    )
    confirm_timeout: Annotated[_Seconds, Field(le=4)] = _setting(
        "seconds above 0, at most 4", "How long one such confirmation may take.", default=1.0
    )
    metrics_host: Annotated[str, Field(min_length=1)] = _setting(
        "an address of this machine", "Where `/metrics` and the probes are served.", default="127.0.0.1"
    )
    metrics_port: Annotated[_Whole, Field(ge=0, le=65535)] | None = _setting(
        "a port from 1 to 65535, or 0 for any free one",
        "The port of `/metrics` and the probes; `PORT` counts when it is not set. A configured port must be free.",
        default=None,
        shown="9464, or the next free one",
    )
    drain_timeout: _Seconds = _setting(
        _SECONDS, "How long a worker that was asked to leave may finish what is on its way.", default=45.0
    )
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = _setting(
        "debug, info, warning or error", "The least important log lines to write.", default=LogLevel.INFO
    )
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = _setting(
        "json or console",
        "JSON lines for machines, or coloured lines for people, on standard error.",
        default_factory=lambda: LogFormat.CONSOLE if _stderr_is_a_terminal() else LogFormat.JSON,
        shown="`console` on a terminal, else `json`",
    )
    halt_file: Path | None = _setting(
        "a path",
        "While this file exists the worker launches nothing, even when Redis is away.",
        default=None,
        shown="none",
    )
    told_command: Annotated[tuple[str, ...], BeforeValidator(_argv)] = _setting(
        "a command with its arguments (in TOML a list)",
        "Run for each failsafe event, with the event's JSON on standard input. Exit code 0 means told; it has 10 s. "
        "It sees no `EXECWORKER_…` variable.",
        default=(),
        shown="none",
    )
    told_url: Annotated[SecretStr, AfterValidator(_is_web_url)] | None = _setting(
        "a URL that begins with https:// or http://",
        "Each failsafe event is sent there by POST, as JSON. Kept secret.",
        default=None,
        shown="none",
    )
    told_header: Annotated[SecretStr, AfterValidator(_is_header)] | None = _setting(
        "a header as `NAME: VALUE`",
        "One more header of those requests, such as an authorization. Kept secret.",
        default=None,
        shown="none",
    )
    told_apprise_urls: Annotated[tuple[SecretStr, ...], BeforeValidator(_secret_lines)] = _setting(
        "URLs of apprise, with blanks between (in TOML a list)",
        "Chat services, mail and push that are told; needs execution-worker[told]. Kept secret.",
        default=(),
        shown="none",
    )
    told_types: Annotated[tuple[FailsafeType, ...], BeforeValidator(_event_types)] = _setting(
        "types of failsafe events, with commas between (in TOML a list)",
        "Only these are told, over any channel.",
        default=(),
        shown="all",
    )
    told_tries: Annotated[_Whole, Field(ge=1, le=1000)] = _setting(
        "a whole number from 1 to 1000",
        "How often it is tried to tell an event, after 1, 2, 4, … and at most 60 s, before it is given up.",
        default=10,
    )
    config: Path | None = _setting("a path", "The TOML file to read.", default=None, shown="none")
    routes: Annotated[dict[_RouteName, RouteSettings], Field(min_length=1)] = _setting(
        "a table of routes, each named with 1 to 32 of a-z, 0-9 and _",
        "The routes, each with the settings below.",
        default_factory=lambda: {"default": RouteSettings()},
        shown="one route `default`, simulated, mode off",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    def notes(self) -> list[str]:
        """What is allowed but worth saying at start, a line each."""
        return [note for name, route in self.routes.items() for note in _route_notes(name, route)]

    def secrets(self) -> tuple[str, ...]:
        """Every secret among the settings, for `worker.redact.Redactor`."""
        urls = (secret for url in (self.redis_url, self.queue_url) for secret in _passwords(url))
        options = (secret for route in self.routes.values() for secret in _revealed(route.options))
        told = (secret for one in self._told_secrets() for secret in _pieces(one.get_secret_value()))
        accounts = (text for route in self.routes.values() for text in _account_texts(route.account))
        return tuple(dict.fromkeys((*urls, *options, *accounts, *told)))

    def _told_secrets(self) -> tuple[SecretStr, ...]:
        return tuple(one for one in (self.told_url, self.told_header, *self.told_apprise_urls) if one)


def secret_files(environ: Mapping[str, str] | None = None) -> list[tuple[str, Path]]:
    """The files that settings and secrets are read from, each with the setting that names it; none twice."""
    reading = _Reading()
    variables = reading.environment(os.environ if environ is None else environ)
    reading.toml(variables.get("config"))
    return list(dict.fromkeys(reading.files))


def environ_of_others() -> dict[str, str]:
    """This process's environment without our own settings, for programs that must not see them."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """
    The settings of this process, from the environment and the TOML file that it names.

    Raises:
        ConfigError: names every fault at once, with its cure. Start nothing.
    """
    reading = _Reading()
    variables = reading.environment(os.environ if environ is None else environ)
    table = reading.toml(variables.get("config"))
    try:
        settings = _merged(variables, table)
    except ValidationError as error:
        details = error.errors(include_url=False)
        details += _faults_behind(details, variables, table)
        raise ConfigError(
            reading.faults + [line for detail in details for line in reading.explain(detail)]
        ) from None
    if reading.faults:
        raise ConfigError(reading.faults)
    return settings


def _merged(variables: dict[str, Any], table: dict[str, Any]) -> Settings:
    sources = InitSettingsSource(Settings, variables), InitSettingsSource(Settings, table)
    return Settings(_build_sources=(sources, {}))  # type: ignore[call-arg]  # mypy sees fields only


def _faults_behind(
    details: list[ErrorDetails], variables: dict[str, Any], table: dict[str, Any]
) -> list[ErrorDetails]:
    # Relations are checked once all names are known: look again without the unknown ones, so that nobody has to
    # correct one fault to be told of the next.
    unknown = [detail["loc"] for detail in details if detail["type"] == "extra_forbidden"]
    for place in unknown:
        _drop(variables, place)
        _drop(table, place)
    try:
        if unknown:
            _merged(variables, table)
    except ValidationError as error:
        return [detail for detail in error.errors(include_url=False) if detail["type"] == "together"]
    return []


def _drop(values: Any, place: tuple[int | str, ...]) -> None:
    *tables, last = place
    for name in tables:
        values = values.get(name, {})
    values.pop(last, None)


class _Reading:
    # One reading of the environment and the file: remembers where each value came from, and what was wrong.

    def __init__(self) -> None:
        self.faults: list[str] = []
        #: What secrets were read from, under the names that say so.
        self.files: list[tuple[str, Path]] = []
        self._origins: dict[Place, str] = {}
        self._file = ""

    def environment(self, environ: Mapping[str, str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in sorted(environ.items()):
            upper = name.upper()
            if not upper.startswith(PREFIX) or value == "" or _is_service_link(upper, value):
                continue
            path, value_read = self._from_file(_path_of(upper), value, name)
            if path in self._origins:
                self.faults.append(f"{name}: is set a second time by {self._origins[path]}; give one of them")
            elif value_read is not None:
                self._origins[path] = name
                _put(values, path, value_read)
        if "metrics_port" not in values and environ.get("PORT"):
            self._origins["metrics_port",] = "PORT"
            values["metrics_port"] = environ["PORT"]
        return values

    def toml(self, file: str | None) -> dict[str, Any]:
        if file is None:
            return {}
        self._file = file
        try:
            data = tomllib.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, UnicodeError) as error:
            self.faults.append(f"{PREFIX}CONFIG: {_cannot_read(file, error)}")
            return {}
        except tomllib.TOMLDecodeError as error:
            self.faults.append(f"{PREFIX}CONFIG: {file} is no TOML: {error}; correct that line")
            return {}
        return self._without_files(data, ())

    def _without_files(self, table: dict[str, Any], above: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in table.items():
            if isinstance(value, dict):
                values[key] = self._without_files(value, (*above, key))
                continue
            path, value_read = self._from_file((*above, key), value, ".".join((*above, key)))
            if path[-1] == key and _is_secret(path, value):
                self.files.append((f"{PREFIX}CONFIG", Path(self._file)))
            if path[-1] in values or (path[-1] != key and path[-1] in table):
                self.faults.append(
                    f"{'.'.join(path)} in {self._file}: is set a second time by {key}; give one of them"
                )
            elif value_read is not None:
                values[path[-1]] = value_read
        return values

    def _from_file(self, path: Place, value: Any, name: str) -> tuple[Place, Any]:
        # A value named …_file becomes what the file holds. None: it could not be read, and that is noted.
        target = (*path[:-1], path[-1].removesuffix("_file"))
        if target == path or not _may_be_in_a_file(target):
            return path, value
        try:
            content = Path(value).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeError, TypeError) as error:
            self.faults.append(f"{name}: {_cannot_read(value, error)}")
            return target, None
        self.files.append((name, Path(value)))
        if not content:
            self.faults.append(f"{name}: {value} is empty; write the value into it")
            return target, None
        return target, content

    def explain(self, detail: ErrorDetails) -> Iterator[str]:
        path = tuple(str(part) for part in detail["loc"])
        match detail["type"]:
            case "default_factory_not_called":
                return  # it depends on a setting that has a fault of its own
            case "together":
                for name, text in detail["ctx"]["faults"]:
                    yield f"{self._subject((*path, name))}: {text}"
            case "extra_forbidden":
                yield f"{self._subject(path)}: there is no such setting; {_nearest(path)}"
            case _ if path[-1] == "[key]":
                yield f"{self._subject(path[:-1])}: a route's name is 1 to 32 of a-z, 0-9 and _; rename it"
            case _:
                yield f"{self._subject(path)}: {_must_be(_settings_path(path), detail['input'])}"

    def _subject(self, path: Place) -> str:
        dotted = ".".join(path)
        if path in self._origins:
            return f"{self._origins[path]} ({dotted})"
        return (
            f"{_variable(path)} ({dotted} in {self._file})" if self._file else f"{_variable(path)} ({dotted})"
        )


def _path_of(variable: str) -> Place:
    # EXECWORKER_ROUTES__A__B__LEASE is the lease of route a__b: a setting's name holds no two underscores.
    name = variable.removeprefix(PREFIX).lower()
    if not name.startswith("routes__"):
        return (name,)
    rest = name.removeprefix("routes__")
    route, found, option = rest.partition("__options__")
    if found:
        return ("routes", route, "options", option)
    route, found, field = rest.rpartition("__")
    return ("routes", route, field) if found else ("routes", rest)


def _variable(path: Place) -> str:
    return PREFIX + "__".join(path).upper()


def _put(values: dict[str, Any], path: Place, value: Any) -> None:
    *tables, last = path
    for name in tables:
        inner = values.setdefault(name, {})
        # A text where a table belongs is itself a fault, found later: keep it and leave this one out.
        if not isinstance(inner, dict):
            return
        values = inner
    values[last] = value


def _is_secret(path: Place, value: Any) -> bool:
    if path[:1] == ("routes",) and path[2:3] == ("options",):
        # `credentials` names the file that they are in, and a switch is no secret whatever its name.
        names_no_secret = path[-1] == "credentials" or isinstance(value, bool) or value == ""
        return _is_secret_option(path[-1]) and not names_no_secret
    return (path[0].startswith("told_") and path[0] in _NOT_REPEATED) or bool(list(_passwords(str(value))))


def _may_be_in_a_file(path: Place) -> bool:
    match path:
        case ("redis_url" | "queue_url" | "told_url" | "told_header" | "told_apprise_urls",):
            return True
        case ("routes", _, "account"):
            return True
        case ("routes", _, "options", *names):
            return bool(names)
        case _:
            return False


#: What Kubernetes puts into every container when a service is called ``execworker``. Not ours to judge.
_SERVICE_LINK = re.compile(r".*_SERVICE_(HOST|PORT(_.*)?)|.*_PORT_[0-9]+_(TCP|UDP|SCTP)(_.*)?")


def _is_service_link(name: str, value: str) -> bool:
    return _SERVICE_LINK.fullmatch(name) is not None or (name.endswith("PORT") and "://" in value)


def _field_at(path: Place) -> FieldInfo | None:
    match path:
        case (name,):
            return Settings.model_fields.get(name)
        case ("routes", _, name):
            return RouteSettings.model_fields.get(name)
        case _:
            return None


def _settings_path(path: Place) -> Place:
    # pydantic's places may reach into a value; the setting is what holds it.
    return path[:3] if path[0] == "routes" else path[:1]


def _must_be(path: Place, value: Any) -> str:
    field = _field_at(path)
    if field is None and path[-1] in RouteSettings.model_fields:
        return f"belongs to a route; name the route: {_variable(('routes', 'default', path[-1]))}"
    if field is None:
        return f"must be a table of settings; give {_variable((*path, 'mode'))} and so on, one by one"
    # What may hold a secret is not repeated.
    shown = "what was given" if path[-1] in _NOT_REPEATED else repr(value)
    return f"must be {_give(field)}, not {shown}; leave it out for {_shown_default(field).replace('`', '')}"


_NOT_REPEATED: Final = frozenset(
    {"redis_url", "queue_url", "options", "routes", "told_url", "told_header", "told_apprise_urls"}
)


def _give(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra["give"]) if isinstance(extra, dict) else ""


def _nearest(path: Place) -> str:
    *tables, name = path
    above = tuple(tables) or ("routes", "default")
    routes: dict[str, Place] = {field: (*above, field) for field in RouteSettings.model_fields}
    places: dict[str, Place] = {field: (field,) for field in Settings.model_fields}
    # What stands at the top may be a setting, or all of a route's written with a slip in `routes`.
    places |= {"__".join(place): place for place in routes.values()}
    places = routes if tables else places
    close = difflib.get_close_matches(name.lower(), places, n=1)
    if close:
        place = places[close[0]]
        return f"did you mean {_variable(place)} ({'.'.join(place)})?"
    if tables:
        return f"a broker's own option goes to {_variable((*tables, 'options', name))}"
    return "docs/settings.md lists them all"


def _cannot_read(file: object, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no text"
    return f"cannot read {file}: {reason}; name a file that this user may read"


def _queue_beside(redis_url: SecretUrl | None) -> SecretUrl:
    scheme, _, rest = (redis_url or SecretUrl("redis://")).partition("://")
    return SecretUrl(f"{QUEUE_SCHEMES[scheme]}://{rest}")


def _stderr_is_a_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _route_notes(name: str, route: RouteSettings) -> Iterator[str]:
    if route.mode is Mode.LIVE and not route.live_allowed:
        cure = f"set {_variable(('routes', name, 'live_allowed'))}=true to trade"
        yield f"route {name}: mode is live but live_allowed is not set, so every intent is denied; {cure}"
    if route.mode is not Mode.LIVE and route.live_allowed:
        yield f"route {name}: live_allowed has no effect while mode is {route.mode}"
    if route.mode is Mode.LIVE and route.allow_weak_durability:
        yield f"route {name}: allow_weak_durability is set: if Redis crashes, an order may be placed twice"


def _passwords(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        found = [parts.password, *(value for name, value in _query(parts.query) if smells_of_secret(name))]
    except ValueError:
        return
    for password in filter(None, found):
        yield password
        yield unquote(password)


def _query(query: str) -> Iterator[tuple[str, str]]:
    # As it stands, not unquoted: whoever repeats the URL repeats it so.
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        yield unquote(name), value


def _account_texts(account: str | None) -> Iterator[str]:
    digits = re.sub("[^0-9]", "", account or "")
    # A name without a number, such as one of a simulated account, is no secret, and may be a word of any line.
    if account and len(digits) >= 6:
        yield from (account, digits, digits[:8])


def _pieces(secret: str) -> Iterator[str]:
    # Whole, and whatever may be a token of its own: a library may log a path without its host.
    yield secret
    yield from (piece for piece in re.split(r"[\s/:@?&=,#]+", secret) if len(piece) >= _PIECE_LENGTH)
    yield from (unquote(piece) for piece in re.split(r"[\s/:@?&=,#]+", secret) if "%" in piece)


#: Shorter pieces of a URL are words, such as ``https`` or ``api``.
_PIECE_LENGTH: Final = 8


def _revealed(options: Mapping[str, Any]) -> Iterator[str]:
    for value in options.values():
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, dict):
            yield from _revealed(value)


def settings_table() -> str:
    """Every setting as a markdown table, for ``docs/settings.md``."""
    route: Place = ("routes", "<route>")
    rows = [*_rows((), Settings.model_fields), *_rows(route, RouteSettings.model_fields)]
    head = ["| variable | in TOML | default | give | meaning |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _rows(above: Place, fields: Mapping[str, FieldInfo]) -> Iterable[str]:
    for name, field in fields.items():
        place = (*above, name)
        variable = _variable(place).replace("<ROUTE>", "<route>")
        dotted = "the environment only" if name == "config" else f"`{'.'.join(place)}`"
        yield f"| `{variable}` | {dotted} | {_shown_default(field)} | {_give(field)} | {field.description} |"


def _shown_default(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and extra["shown"]:
        return str(extra["shown"])
    default = field.default
    if isinstance(default, bool):
        return "`true`" if default else "`false`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
