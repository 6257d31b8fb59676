"""A KIS route's options: the keys with their environment, and how the calls are made."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, field_validator

from worker.brokers.base import ClosedOptions
from worker.brokers.kis.facts import HOSTS, Environment
from worker.brokers.kis.payload import KR_VENUES, US_VENUES, Account
from worker.errors import ConfigError

#: What a credentials file may hold. They stand in one place, or the other, together.
_KEPT_TOGETHER: Final = ("environment", "app_key", "app_secret")

Seconds = Annotated[float, Field(gt=0, le=60)]


def _revealed(value: Any) -> Any:
    # Settings hide every option whose name speaks of a key or a credential, a path too.
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _listed(value: Any) -> Any:
    # An environment variable has no lists: 069500,114800.
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Credentials:
    """An app key with its secret, the server that they are for, and the account."""

    environment: Environment
    app_key: SecretStr
    app_secret: SecretStr
    account: Account
    #: Where to call; the environment's own host unless a simulator was named.
    base_url: str = field(default="")

    def __post_init__(self) -> None:
        if not self.base_url:
            object.__setattr__(self, "base_url", HOSTS[self.environment])


class KISOptions(ClosedOptions):
    """The options of a route with ``broker = "kis"``. Durations are seconds."""

    # What was given may be a key in the wrong place.
    model_config = ConfigDict(hide_input_in_errors=True)

    #: ``real`` or ``paper``: the server that issued the keys. It is stored with them, and the host follows from it.
    environment: Annotated[Environment | None, BeforeValidator(_revealed)] = None
    app_key: SecretStr | None = None
    app_secret: SecretStr | None = None
    #: A TOML file with ``environment``, ``app_key`` and ``app_secret``, instead of the three here.
    credentials: Annotated[Path | None, BeforeValidator(_revealed)] = None
    #: ``12345678-01``.
    account: Annotated[str, Field(repr=False)]
    #: The HTS id of the account's owner, to whom KIS tells executions at once. Without it orders are followed by the
    #: list alone.
    hts_id: Annotated[str | None, Field(repr=False, pattern=r"^[!-~]{1,40}$")] = None
    #: A simulator's address, on this machine. KIS's own hosts need none.
    base_url: str | None = None
    #: Where an order goes that names no venue.
    venue: str | None = None
    #: Take orders for US stocks, and read their lists.
    us: bool = False
    #: Deny what comes outside of the venue's sessions. Off only in front of a simulator, which may be always open.
    check_hours: bool = True
    #: Codes of ETFs and ETNs, which have a tick grid of their own, over and above those that are known.
    funds: Annotated[frozenset[str], BeforeValidator(_listed)] = frozenset()
    #: Hours of single days over the built-in calendar: ``{KR = {2027-06-01 = "closed"}}``.
    calendar: dict[str, dict[str, str]] = Field(default_factory=dict)
    connect_timeout: Seconds = 2.0
    #: Until the answer to an order or a page of a list is there, counted from the request's last byte.
    reply_timeout: Seconds = 5.0
    #: Connections that are kept open, and the most that there are at once.
    connections: Annotated[int, Field(ge=1, le=256)] = 32
    #: Until an order shows in KIS's lists for certain; the dated default of the environment when absent. Never less.
    visibility_lag: Annotated[float | None, Field(ge=0, le=600)] = None

    @field_validator("venue")
    @classmethod
    def _venue_is_known(cls, venue: str | None) -> str | None:
        if venue is not None and venue not in (*KR_VENUES, *US_VENUES):
            raise ValueError(f"must be one of {', '.join((*KR_VENUES, *US_VENUES))}")
        return venue


def credentials_of(options: KISOptions, mode: str) -> Credentials:
    """
    The credentials that the options give, fit for the mode: live takes real ones, paper those of paper trading.

    Raises:
        ConfigError: every fault, with its cure and without the secrets.
    """
    faults: list[str] = []
    given = _given(options, faults)
    environment = _environment(given.get("environment"), faults)
    key, secret = (_secret(given.get(name), name, faults) for name in ("app_key", "app_secret"))
    account = _account(options.account, faults)
    if environment is not None:
        _check_mode(environment, mode, faults)
        _check_base_url(options.base_url, environment, faults)
    if not options.check_hours and not _is_loopback(options.base_url):
        faults.append("check_hours: may be off only in front of a simulator on this machine (base_url)")
    if faults or environment is None or key is None or secret is None or account is None:
        raise ConfigError(faults)
    return Credentials(environment, key, secret, account, (options.base_url or "").rstrip("/"))


def _given(options: KISOptions, faults: list[str]) -> Mapping[str, Any]:
    inline = {name: found for name in _KEPT_TOGETHER if (found := getattr(options, name)) is not None}
    if options.credentials is None:
        return inline
    if inline:
        faults.append(
            f"{', '.join(inline)}: given beside a credentials file; keep them there, with their environment"
        )
    try:
        found = tomllib.loads(options.credentials.read_text("utf-8"))
    except (OSError, ValueError) as error:
        # A parser's text may quote a line of the file.
        why = error.strerror if isinstance(error, OSError) else "it is no TOML"
        faults.append(f"credentials: {options.credentials} cannot be read: {why}")
        return {}
    unknown = sorted(set(found) - set(_KEPT_TOGETHER))
    if unknown:
        faults.append(
            f"credentials: the file may hold {', '.join(_KEPT_TOGETHER)} only, not {', '.join(unknown)}"
        )
    return found


def _environment(given: Any, faults: list[str]) -> Environment | None:
    if given in tuple(Environment):
        return Environment(given)
    faults.append(
        "environment: say with the keys which server issued them: real (실전투자) or paper (모의투자)"
    )
    return None


def _secret(given: Any, name: str, faults: list[str]) -> SecretStr | None:
    value = given.get_secret_value() if isinstance(given, SecretStr) else given
    # Both go into headers: a line break from a file would break the request.
    if not isinstance(value, str) or not value.strip() or not value.strip().isascii():
        faults.append(f"{name}: required; KIS's portal shows it beside the account (KIS Developers)")
        return None
    return SecretStr(value.strip())


def _account(given: str, faults: list[str]) -> Account | None:
    try:
        return Account.parse(given)
    except ValueError as error:
        faults.append(f"account: {error}")
        return None


def _check_mode(environment: Environment, mode: str, faults: list[str]) -> None:
    if mode == "live" and environment is not Environment.REAL:
        faults.append("environment: mode live needs real credentials, and these are for paper trading")
    if mode == "paper" and environment is not Environment.PAPER:
        faults.append("environment: mode paper needs credentials of paper trading, and these are real")


def _check_base_url(base_url: str | None, environment: Environment, faults: list[str]) -> None:
    if base_url is None or base_url.rstrip("/") == HOSTS[environment]:
        return
    host = urlsplit(base_url).hostname
    for other, url in HOSTS.items():
        if host == urlsplit(url).hostname:
            cure = (
                "leave it out" if other is environment else f"these keys are for {environment}; leave it out"
            )
            faults.append(
                f"base_url: {host} is KIS's {other} server, but {cure}: the host follows from the keys"
            )
            return
    if urlsplit(base_url).scheme not in ("http", "https") or not _is_loopback(base_url):
        faults.append(
            f"base_url: {host or base_url} is neither KIS nor a simulator on this machine (http://127.0.0.1:9443); "
            "the keys go nowhere else"
        )


def _is_loopback(base_url: str | None) -> bool:
    host = urlsplit(base_url or "").hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
