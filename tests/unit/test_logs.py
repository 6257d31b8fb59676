"""Logs: one line an event, no secret in any of them, nothing at all below the level."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from worker.clock import ManualClock
from worker.logs import Event, Logger, configure, silent
from worker.redact import Redactor, mask_url, smells_of_secret


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logger(stream: io.StringIO, **options: Any) -> Logger:
    return configure(options.pop("level", "info"), "json", stream=stream, clock=ManualClock(), **options)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_how_grave_what_who_and_where() -> None:
    stream = io.StringIO()

    log = logger(stream).bind(worker="w1", route="kis")
    log.info(Event.INTENT_SETTLED, intent_id="i-1", outcome="ACCEPTED", seconds=0.25)

    assert lines(stream) == [
        {
            "timestamp": "2026-11-23T01:00:00Z",
            "level": "info",
            "event": "intent_settled",
            "worker": "w1",
            "route": "kis",
            "intent_id": "i-1",
            "outcome": "ACCEPTED",
            "seconds": 0.25,
        }
    ]


def test_nothing_is_written_below_the_level() -> None:
    stream = io.StringIO()

    log = logger(stream, level="warning")
    log.debug(Event.INTENT_CLAIMED)
    log.info(Event.INTENT_SETTLED)
    log.warning(Event.LEASE_LOST)
    log.error(Event.GUARD_TRIPPED)

    assert [line["event"] for line in lines(stream)] == ["lease_lost", "guard_tripped"]


def test_a_terminal_gets_lines_for_people_and_no_secret_either() -> None:
    stream = Terminal()

    log = configure("info", "console", stream=stream, clock=ManualClock())
    log.info(Event.REDIS_AWAY, url="redis://:hunter22@h/0", app_key="PSkey123")

    assert "redis_away" in stream.getvalue()
    assert "2026-11-23T01:00:00.000+00:00" in stream.getvalue()
    assert "hunter22" not in stream.getvalue()
    assert "PSkey123" not in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_every_event_has_a_name_of_its_own_in_small_letters() -> None:
    assert all(event.value == event.name.lower() for event in Event)


@pytest.mark.parametrize(
    "name",
    [
        "secret",
        "app_secret",
        "appsecret",
        "access_token",
        "TOKEN",
        "password",
        "passwd",
        "appkey",
        "app_key",
        "AppKey",
        "api_key",
        "apikey",
        "api-key",
        "APCA-API-KEY-ID",
        "authorization",
        "Authorization",
        "credentials",
    ],
)
def test_a_field_whose_name_smells_of_a_secret_is_masked_wherever_it_stands(name: str) -> None:
    stream = io.StringIO()

    logger(stream).info(
        Event.BROKER_AUTHENTICATED,
        **{name: "hunter22"},
        headers={name: "hunter22", "deep": [{name: ["hunter22"]}]},
        text=f"asked with {name}=hunter22&x=1",
        body=json.dumps({"a": 1, name: "hunter22", "n": 2}),
    )

    (line,) = lines(stream)
    assert "hunter22" not in stream.getvalue()
    assert line[name] == "***"
    assert line["text"].endswith("&x=1")
    assert '"n": 2' in line["body"]


@pytest.mark.parametrize("name", ["intent_id", "order_key", "symbol", "reason", "monkey", "keys", "route"])
def test_a_field_that_is_no_secret_is_shown(name: str) -> None:
    stream = io.StringIO()

    logger(stream).info(Event.INTENT_SETTLED, **{name: "005930:BUY"})

    assert lines(stream)[0][name] == "005930:BUY"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("redis://:hunter22@h:6379/0", "redis://:***@h:6379/0"),
        ("rediss://me:hunter22@h", "rediss://me:***@h"),
        ("redis://me:hunt@er22@h/0 is away", "redis://me:***@h/0 is away"),
        ("'redis-streams://me:hunter22@h/0'", "'redis-streams://me:***@h/0'"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("unix:///run/redis.sock?password=hunter22", "unix:///run/redis.sock?password=***"),
        ("https://h:443/a?email=a@b.c", "https://h:443/a?email=a@b.c"),
    ],
)
def test_a_password_in_a_url_is_masked_and_the_rest_is_left(given: str, shown: str) -> None:
    stream = io.StringIO()

    logger(stream).warning(Event.REDIS_AWAY, url=given, nested=[given])

    assert lines(stream)[0]["url"] == shown
    assert lines(stream)[0]["nested"] == [shown]


def test_authorization_is_masked_whole_not_only_its_first_word() -> None:
    text = Redactor().text(
        "Authorization: Bearer eyJhbGciOi.x.y, then Bearer abcdef123456 and {'authorization': 'Basic YQ=='}"
    )

    assert text == "Authorization: ***, then Bearer *** and {'authorization': '***'}"


def test_a_known_secret_is_masked_where_nothing_gives_it_away() -> None:
    stream = io.StringIO()
    log = logger(stream, secrets=['q"uo\\te-비밀', "PSabcdef", "PSabcdef-longer", "1"])

    log.info(
        Event.REDIS_AWAY, error='refused: q"uo\\te-비밀 of PSabcdef-longer', attempts=1, many=("PSabcdef",)
    )

    line = lines(stream)[0]
    assert line["error"] == "refused: *** of ***"
    assert line["many"] == ["***"]
    assert line["attempts"] == 1


def test_a_traceback_is_one_field_and_shows_no_secret() -> None:
    stream = io.StringIO()
    log = logger(stream, secrets=["PSabcdef"])
    local = "local-value-never-shown"

    try:
        raise ValueError(f"POST with appsecret=hunter22 to https://me:hunter33@h by PSabcdef {len(local)}")
    except ValueError as error:
        log.error(Event.ADAPTER_FAULT, exc_info=True)
        log.error(Event.ADAPTER_FAULT, exc_info=error)
    log.error(Event.ADAPTER_FAULT, exc_info=None)

    first, second, third = lines(stream)
    assert len(stream.getvalue().splitlines()) == 3
    assert first["exception"].startswith("Traceback (most recent call last):\n")
    assert first["exception"].splitlines()[-1] == (
        "ValueError: POST with appsecret=*** to https://me:***@h by *** 23"
    )
    assert second["exception"] == first["exception"]
    assert "exception" not in third
    for secret in ("hunter22", "hunter33", "PSabcdef", "local-value"):
        assert secret not in stream.getvalue()


def test_the_cause_of_an_error_is_in_its_traceback_and_masked_as_well() -> None:
    stream = io.StringIO()

    try:
        try:
            raise KeyError("token=hunter22")
        except KeyError as error:
            raise RuntimeError("cannot log in") from error
    except RuntimeError:
        logger(stream).error(Event.ADAPTER_FAULT, exc_info=True)

    assert "KeyError" in lines(stream)[0]["exception"]
    assert "hunter22" not in stream.getvalue()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Decimal("10.50"), "10.50"),
        (datetime(2026, 11, 23, tzinfo=UTC), "2026-11-23T00:00:00Z"),
        (SecretStr("hunter22"), "**********"),
        (ValueError("a fault"), "a fault"),
        (float("nan"), "NaN"),
        (b"\xff\xfe", "b'\\xff\\xfe'"),
        ("half a pair \udcff", "half a pair \udcff"),
        ({1: {"a": (1, None)}}, {"1": {"a": [1, None]}}),
        ("한국투자증권", "한국투자증권"),
    ],
)
def test_whatever_a_field_holds_the_line_is_written(value: object, shown: object) -> None:
    stream = io.StringIO()

    logger(stream).info(Event.SETTINGS_NOTE, value=value)

    assert lines(stream)[0]["value"] == shown


def test_a_line_break_in_a_field_cannot_forge_a_line() -> None:
    stream = io.StringIO()

    logger(stream).warning(Event.INTENT_CONFLICT, error='x\n{"event":"guard_reset"}')

    assert len(stream.getvalue().splitlines()) == 1


def test_what_a_library_says_becomes_one_of_our_lines() -> None:
    stream = io.StringIO()
    logger(stream)

    library = logging.getLogger("kombu.test")
    library.info("chatter")
    library.warning("cannot reach %s", "redis://:hunter22@h/0")
    try:
        raise OSError("gone")
    except OSError:
        library.exception("failed")

    first, second = lines(stream)
    assert first["event"] == "library_message"
    assert (first["library"], first["level"]) == ("kombu.test", "warning")
    assert first["message"] == "cannot reach redis://:***@h/0"
    assert second["exception"].endswith("OSError: gone")


def test_setting_up_twice_says_nothing_twice() -> None:
    before, stream = io.StringIO(), io.StringIO()
    logger(before)
    logger(stream)

    logging.getLogger("kombu.test").warning("once")

    assert (len(lines(before)), len(lines(stream))) == (0, 1)


def test_a_silent_logger_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log = silent().bind(route="default")

    log.error(Event.GUARD_TRIPPED, reason="x")

    assert capsys.readouterr() == ("", "")


def test_masking_a_url_without_a_password_changes_nothing() -> None:
    assert mask_url("redis://me@h:6379/0?a=b@c") == "redis://me@h:6379/0?a=b@c"


def test_names_are_judged_alike_each_time() -> None:
    assert [smells_of_secret("app_key"), smells_of_secret("app_key"), smells_of_secret("symbol")] == [
        True,
        True,
        False,
    ]
