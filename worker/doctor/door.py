"""Who gets into the Redis: found out by knocking, on a connection of its own that has no credentials."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import redis
from redis.exceptions import NoPermissionError

from worker.connection import SENTINEL_SCHEMES, is_cluster, is_unavailable
from worker.doctor.findings import Ailment, Check, Found, Severity, unknown, well
from worker.doctor.patient import Patient

_OPEN = Ailment(
    "open",
    Severity.WARNING,
    "Whoever reaches it gets in without a password, and may enqueue orders.",
    "Set users and passwords, with `user default off`: deploy/redis/users.acl. On one machine: bind 127.0.0.1 -::1.",
)
_PLAIN = Ailment(
    "plain",
    Severity.INFO,
    "Passwords and intents cross the network unencrypted.",
    "Use rediss://, or a network of your own.",
)

_CLOSE: Final = "Close it: redis-cli ACL SETUSER default off, as in deploy/redis/users.acl."
#: What the query of a URL may bring along besides the login in front of the host.
_CREDENTIALS: Final = ("username=", "password=")


def _door(patient: Patient) -> Iterator[Found]:
    url = str(patient.settings.redis_url)
    is_local = _is_local(url)
    if not is_local and not url.startswith("rediss"):
        yield _PLAIN.found(f"{url.partition('://')[0]}://")
    try:
        why_not = _knock(patient, url)
    except NoPermissionError as error:
        yield unknown(f"the user `default` needs no password, and may do little: {error}", _CLOSE)
        return
    if why_not:
        yield well(f"without credentials it says: {why_not}")
    elif is_local:
        yield _on_this_machine(patient)
    else:
        yield _OPEN.found(f"{patient.settings.redis_url.shown} answered a PING without credentials")


def _knock(patient: Patient, url: str) -> str:
    """
    Why nobody gets in without credentials; empty where they do.

    Raises:
        redis.RedisError: it cannot be told.
    """
    # Without a name too: a user who may do little may not even set one.
    client = patient.connect(_without_credentials(url), client_name="")
    try:
        client.ping()
    except redis.AuthenticationError as error:
        return str(error)
    except redis.ResponseError as error:
        if str(error).startswith("DENIED"):
            return "protected-mode keeps others out"
        # It refuses for another reason than that nobody knows us, such as a disk that is full.
        if not is_unavailable(error):
            raise
    except redis.BusyLoadingError:
        pass
    finally:
        client.close()
    return ""


def _on_this_machine(patient: Patient) -> Found:
    """Whether others reach a server that is asked over this machine's own address, and lets everybody in."""
    bind, protected, port, tls = map(patient.config, ("bind", "protected-mode", "port", "tls-port"))
    if bind is None or protected is None:
        evidence = "it needs no password, and does not tell bind and protected-mode: who reaches it?"
        return unknown(evidence, patient.way_to_ask("bind"))
    if port == "0" and tls in (None, "0"):
        return well("it needs no password, and listens on a socket of this machine only")
    # A minus says: go on where there is no such address. Empty was "all" once.
    listens = bind.replace("-", " ").split() if bind else ["*"]
    if all(map(_is_loopback, listens)):
        return well(f"it needs no password, and listens on this machine only: bind {bind}")
    if protected == "yes":
        return well("it needs no password, and protected-mode keeps others out")
    return _OPEN.found(f"it needs no password, bind is {bind or 'empty'}, protected-mode is {protected}")


def _without_credentials(url: str) -> str:
    scheme, _, rest = url.partition("://")
    place = urlsplit(url).netloc
    hosts = place.rpartition("@")[2]
    if is_cluster(url):
        # Its nodes know the same users, and a single one says why it refuses; a client of them all does not.
        scheme, hosts = scheme.partition("+")[0], hosts.partition(",")[0]
    path, _, query = rest[len(place) :].partition("?")
    kept = "&".join(one for one in query.split("&") if one and not one.startswith(_CREDENTIALS))
    return f"{scheme}://{hosts}{path}{'?' if kept else ''}{kept}"


def _is_local(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return True
    hosts = [urlsplit(f"//{one}").hostname or "" for one in parts.netloc.rpartition("@")[2].split(",")]
    # What sentinels name may be anywhere.
    return parts.scheme not in SENTINEL_SCHEMES and all(map(_is_loopback, hosts))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


CHECKS: Final = (
    Check(
        "redis.door",
        "Nobody gets in without a password, or nobody but this machine.",
        _door,
        (_OPEN, _PLAIN),
    ),
)
