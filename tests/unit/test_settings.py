"""Settings: read once, all faults together, no secret shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from worker.errors import ConfigError
from worker.settings import (
    LaneOnDoubt,
    LogFormat,
    Mode,
    RouteSettings,
    Settings,
    load_settings,
    settings_table,
)

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


def faults(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ)
    return caught.value.faults


def toml(tmp_path: Path, text: str) -> dict[str, str]:
    file = tmp_path / "worker.toml"
    file.write_text(text, encoding="utf-8")
    return {"EXECWORKER_CONFIG": str(file)}


def test_with_no_settings_there_is_one_simulated_route_that_sends_nothing() -> None:
    settings = load_settings({})

    assert list(settings.routes) == ["default"]
    assert settings.routes["default"].broker == "simulated"
    assert settings.routes["default"].mode is Mode.OFF
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert settings.metrics_port is None


def test_every_default_is_the_documented_one() -> None:
    route = RouteSettings()

    assert (route.lease, route.order_timeout, route.max_age, route.retention) == (10, 5, 60, 7 * 86400)
    assert (route.max_consecutive_failures, route.concurrency, route.prefetch) == (3, 8, 512)
    assert (route.max_entry_bytes, route.max_parked, route.not_sent_retries) == (65536, 100_000, 3)
    assert (route.doubt_escalate_after, route.orphan_scan_interval, route.future_skew) == (300, 30, 5)
    assert (route.rate_limit, route.account, route.options) == (None, None, {})
    assert route.lane_on_doubt is LaneOnDoubt.WAIT
    assert route.count_rejected is True
    assert not (route.live_allowed or route.allow_weak_durability or route.account_exclusive)


@pytest.mark.parametrize(
    ("redis_url", "queue_url"),
    [
        ("redis://:pw@h:1/2", "redis-streams://:pw@h:1/2"),
        ("rediss://h/0", "rediss-streams://h/0"),
        ("unix:///run/redis.sock?db=1", "redis-streams+unix:///run/redis.sock?db=1"),
    ],
)
def test_the_queue_is_on_the_same_server_unless_it_is_named(redis_url: str, queue_url: str) -> None:
    assert load_settings({"EXECWORKER_REDIS_URL": redis_url}).queue_url == queue_url
    elsewhere = load_settings({"EXECWORKER_REDIS_URL": redis_url, "EXECWORKER_QUEUE_URL": "amqp://q//"})
    assert elsewhere.queue_url == "amqp://q//"


@pytest.mark.parametrize("route", ["KIS_MAIN", "kis_main", "Kis_Main"])
def test_a_route_may_be_named_in_upper_or_lower_case_in_the_environment(route: str) -> None:
    settings = load_settings({f"EXECWORKER_ROUTES__{route}__MODE": "PAPER"})

    assert {name: each.mode for name, each in settings.routes.items()} == {"kis_main": Mode.PAPER}


@pytest.mark.parametrize("route", ["a__b", "_a", "a_", "options"])
def test_underscores_in_a_routes_name_lead_to_that_route(route: str) -> None:
    settings = load_settings(
        {f"EXECWORKER_ROUTES__{route}__LEASE": "30", f"EXECWORKER_ROUTES__{route}__OPTIONS__SEED": "7"}
    )

    assert list(settings.routes) == [route]
    assert settings.routes[route].lease == 30
    assert settings.routes[route].options == {"seed": "7"}


def test_the_environment_wins_over_the_file_setting_by_setting(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        """
        drain_timeout = 9
        [routes.kis]
        broker = "kis"
        lease = 20
        options = { app_key = "from-the-file", venue = "KRX" }
        """,
    )

    settings = load_settings(
        file
        | {"EXECWORKER_ROUTES__KIS__LEASE": "30", "EXECWORKER_ROUTES__KIS__OPTIONS__APP_KEY": "from-environ"}
    )

    route = settings.routes["kis"]
    assert (settings.drain_timeout, route.broker, route.lease) == (9, "kis", 30)
    assert route.options["app_key"].get_secret_value() == "from-environ"
    assert route.options["venue"] == "KRX"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load_settings({"EXECWORKER_DRAIN_TIMEOUT": "", "PORT": ""}) == load_settings({})


@pytest.mark.parametrize(
    ("environ", "port"),
    [
        ({"EXECWORKER_METRICS_PORT": "9000", "PORT": "5000"}, 9000),
        ({"PORT": "5000"}, 5000),
        ({"EXECWORKER_METRICS_PORT": "0"}, 0),
        ({}, None),
    ],
)
def test_the_port_is_ours_then_the_platforms(environ: dict[str, str], port: int | None) -> None:
    assert load_settings(environ).metrics_port == port


def test_the_platforms_port_wins_over_the_file_so_that_two_workers_may_share_a_file(tmp_path: Path) -> None:
    assert load_settings(toml(tmp_path, "metrics_port = 9000") | {"PORT": "5001"}).metrics_port == 5001


def test_a_bad_port_of_the_platform_is_called_by_its_name() -> None:
    (line,) = faults(PORT="http")

    assert line.startswith("PORT (metrics_port): must be a port from 1 to 65535")


def test_log_lines_are_json_unless_a_person_looks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings({}).log_format is LogFormat.JSON

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert load_settings({}).log_format is LogFormat.CONSOLE


# Faults


def test_all_faults_are_reported_together_each_with_its_variable_place_and_cure(tmp_path: Path) -> None:
    file = toml(tmp_path, "drain_timeout = -1\n[routes.kis]\nlease = 4\nprefetchh = 4")

    lines = faults(
        **file,
        EXECWORKER_REDDIS_URL="redis://h",
        EXECWORKER_LOG_LEVEL="loud",
        EXECWORKER_ROUTES__KIS__ORDER_TIMEOUT="8",
        EXECWORKER_QUEUE_URL_FILE="/nowhere/queue-url",
    )

    assert len(lines) == 6
    text = "\n".join(lines)
    assert (
        "EXECWORKER_REDDIS_URL (reddis_url): there is no such setting; did you mean EXECWORKER_REDIS_URL"
        in text
    )
    assert "EXECWORKER_LOG_LEVEL (log_level): must be debug, info, warning or error, not 'loud'" in text
    assert (
        f"EXECWORKER_DRAIN_TIMEOUT (drain_timeout in {file['EXECWORKER_CONFIG']}): must be seconds above 0"
        in text
    )
    assert "did you mean EXECWORKER_ROUTES__KIS__PREFETCH (routes.kis.prefetch)?" in text
    assert (
        "EXECWORKER_ROUTES__KIS__ORDER_TIMEOUT (routes.kis.order_timeout): must be less than lease (4), not 8"
        in text
    )
    assert "EXECWORKER_QUEUE_URL_FILE: cannot read /nowhere/queue-url: No such file or directory" in text


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("EXECWORKER_ROUTES__default__MOED", "EXECWORKER_ROUTES__DEFAULT__MODE"),
        ("EXECWORKER_ROUTE__DEFAULT__MODE", "EXECWORKER_ROUTES__DEFAULT__MODE"),
        ("EXECWORKER_METRICSPORT", "EXECWORKER_METRICS_PORT"),
        ("EXECWORKER_ROUTES__kis__RATELIMIT", "EXECWORKER_ROUTES__KIS__RATE_LIMIT"),
        ("EXECWORKER_ROUTES__MODE", "EXECWORKER_ROUTES__DEFAULT__MODE"),
        ("EXECWORKER_ROUTES__kis__HTS_ID", "EXECWORKER_ROUTES__KIS__OPTIONS__HTS_ID"),
    ],
)
def test_a_misspelt_variable_refuses_the_start_and_names_the_nearest(variable: str, meant: str) -> None:
    (line,) = faults(**{variable: "x"})

    assert line.startswith(variable)
    assert meant in line.removeprefix(variable)


def test_a_misspelling_in_the_file_refuses_the_start(tmp_path: Path) -> None:
    lines = faults(**toml(tmp_path, '[route.kis]\nmode = "paper"'))

    assert len(lines) == 1
    assert "did you mean EXECWORKER_ROUTES (routes)?" in lines[0]


@pytest.mark.parametrize("name", ["KIS", "kis-main", "k" * 33, "한국"])
def test_a_route_in_the_file_must_have_a_proper_name(tmp_path: Path, name: str) -> None:
    (line,) = faults(**toml(tmp_path, f'[routes."{name}"]\nlease = 20'))

    assert f"routes.{name} in" in line
    assert "a route's name is 1 to 32 of a-z, 0-9 and _" in line


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "true"])
def test_a_duration_is_seconds_above_zero(value: str) -> None:
    (line,) = faults(EXECWORKER_ROUTES__DEFAULT__MAX_AGE=value)

    assert "must be seconds above 0" in line


def test_yes_is_not_a_number_in_the_file(tmp_path: Path) -> None:
    (line,) = faults(**toml(tmp_path, "[routes.kis]\nconcurrency = true"))

    assert "must be a whole number from 1 to 1000, not True" in line


@pytest.mark.parametrize(("setting", "value"), [("CONCURRENCY", "1001"), ("MAX_CONSECUTIVE_FAILURES", "0")])
def test_numbers_have_bounds(setting: str, value: str) -> None:
    assert "a whole number from 1 to" in faults(**{f"EXECWORKER_ROUTES__DEFAULT__{setting}": value})[0]


def test_an_id_is_never_forgotten_while_it_could_still_trade() -> None:
    (line,) = faults(EXECWORKER_ROUTES__DEFAULT__RETENTION="60")

    assert "max_age): must be less than retention (60), not 60" in line


def test_routes_made_in_code_obey_the_same_relations() -> None:
    with pytest.raises(ValidationError, match="order_timeout must be less than lease"):
        RouteSettings(order_timeout=20)


def test_a_missing_or_broken_file_refuses_the_start(tmp_path: Path) -> None:
    (missing,) = faults(EXECWORKER_CONFIG=str(tmp_path / "none.toml"))
    (broken,) = faults(**toml(tmp_path, "lease = \n"))

    assert missing.startswith("EXECWORKER_CONFIG: cannot read ")
    assert "worker.toml is no TOML: Invalid value (at line 1" in broken


def test_a_setting_given_twice_is_a_fault_and_not_a_guess(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file")
    file = toml(tmp_path, f'[routes.kis.options]\napp_key = "x"\napp_key_file = "{tmp_path}/key"')

    (variables,) = faults(EXECWORKER_ROUTES__KIS__LEASE="20", EXECWORKER_ROUTES__kis__LEASE="30")
    (in_file,) = faults(**file)

    assert "is set a second time by EXECWORKER_ROUTES__KIS__LEASE" in variables
    assert "routes.kis.options.app_key" in in_file
    assert "is set a second time by app_key_file" in in_file


def test_a_text_where_a_table_belongs_is_a_fault() -> None:
    lines = faults(
        EXECWORKER_ROUTES__KIS__OPTIONS='{"app_secret": "hunter22"}',
        EXECWORKER_ROUTES__KIS__OPTIONS__SEED="1",
    )

    assert any("EXECWORKER_ROUTES__KIS__OPTIONS" in line and "one variable" in line for line in lines)
    assert "hunter22" not in "\n".join(lines)


def test_what_kubernetes_adds_for_a_service_of_our_name_is_let_pass() -> None:
    load_settings(
        {
            "EXECWORKER_SERVICE_HOST": "10.0.0.1",
            "EXECWORKER_SERVICE_PORT_HTTP": "9464",
            "EXECWORKER_PORT": "tcp://10.0.0.1:9464",
            "EXECWORKER_PORT_9464_TCP_ADDR": "10.0.0.1",
            "EXECWORKER_METRICS_PORT": "tcp://10.0.0.1:9464",
        }
    )


def test_settings_made_in_code_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECWORKER_DRAIN_TIMEOUT", "1")
    monkeypatch.setenv("drain_timeout", "2")

    assert Settings().drain_timeout == 45
    assert load_settings().drain_timeout == 1


def test_settings_cannot_be_changed() -> None:
    settings = load_settings({})

    with pytest.raises(ValidationError):
        settings.drain_timeout = 1
    with pytest.raises(ValidationError):
        settings.routes["default"].mode = Mode.LIVE


# Secrets


def test_a_secret_comes_from_a_file_without_its_last_newline(tmp_path: Path) -> None:
    for name, content in (
        ("url", "redis://:hunter22@h/0\n"),
        ("secret", " kept spaces \r\n"),
        ("account", "12-01\n"),
    ):
        (tmp_path / name).write_text(content, newline="")

    settings = load_settings(
        {
            "EXECWORKER_REDIS_URL_FILE": f"{tmp_path}/url",
            "EXECWORKER_ROUTES__KIS__OPTIONS__APP_SECRET_FILE": f"{tmp_path}/secret",
            "EXECWORKER_ROUTES__KIS__ACCOUNT_FILE": f"{tmp_path}/account",
        }
    )

    assert settings.redis_url == "redis://:hunter22@h/0"
    assert settings.routes["kis"].options["app_secret"].get_secret_value() == " kept spaces "
    assert settings.routes["kis"].account == "12-01"


def test_an_empty_secret_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")

    (line,) = faults(EXECWORKER_ROUTES__KIS__OPTIONS__APP_SECRET_FILE=f"{tmp_path}/secret")

    assert line.endswith("secret is empty; write the value into it")


def test_halt_file_is_a_path_and_is_not_read(tmp_path: Path) -> None:
    assert load_settings({"EXECWORKER_HALT_FILE": f"{tmp_path}/halt"}).halt_file == tmp_path / "halt"


def test_no_secret_is_shown_by_repr() -> None:
    settings = load_settings(
        {
            "EXECWORKER_REDIS_URL": "redis://me:hunter22@h/0",
            "EXECWORKER_ROUTES__KIS__OPTIONS__APP_KEY": "PSkey123",
            "EXECWORKER_ROUTES__KIS__OPTIONS__APPSECRET": "sssh1234",
            "EXECWORKER_ROUTES__KIS__OPTIONS__ACCESS_TOKEN": "tok12345",
            "EXECWORKER_ROUTES__KIS__OPTIONS__PASSWORD": "pass1234",
            "EXECWORKER_ROUTES__KIS__OPTIONS__HOST": "https://api.example",
        }
    )

    shown = f"{settings!r} {settings} {settings.redis_url.shown} {settings.routes}"
    assert not [secret for secret in settings.secrets() if secret in shown]
    assert sorted(settings.secrets()) == ["PSkey123", "hunter22", "pass1234", "sssh1234", "tok12345"]
    # An account number is nobody's business either: options are not shown at all.
    assert "https://api.example" not in shown
    assert "redis://me:***@h/0" in shown


def test_secrets_in_nested_options_are_hidden_too(tmp_path: Path) -> None:
    settings = load_settings(toml(tmp_path, '[routes.kis.options.paper]\napp_key = 12345678\nname = "p"'))

    paper: dict[str, Any] = settings.routes["kis"].options["paper"]
    assert isinstance(paper["app_key"], SecretStr)
    assert settings.secrets() == ("12345678",)


@pytest.mark.parametrize("url", ["http://me:hunter22@h", "me:hunter22@h/0", "redis://", "://me:hunter22@h"])
def test_a_fault_in_a_url_does_not_show_its_password(url: str) -> None:
    (line,) = faults(EXECWORKER_REDIS_URL=url)

    assert line.startswith("EXECWORKER_REDIS_URL (redis_url): must be a URL that begins with redis://")
    assert "hunter22" not in line


def test_a_password_with_escapes_is_known_in_both_spellings() -> None:
    assert load_settings({"EXECWORKER_REDIS_URL": "redis://:p%40ssword@h"}).secrets() == (
        "p%40ssword",
        "p@ssword",
    )


# Accounts and notes


def test_an_account_among_the_options_is_the_routes_account() -> None:
    settings = load_settings({"EXECWORKER_ROUTES__KIS__OPTIONS__ACCOUNT": "12345678-01"})

    assert settings.routes["kis"].account == "12345678-01"


def test_two_different_accounts_on_a_route_are_a_fault() -> None:
    (line,) = faults(EXECWORKER_ROUTES__KIS__OPTIONS__ACCOUNT="1", EXECWORKER_ROUTES__KIS__ACCOUNT="2")

    assert "routes.kis.account): differs from the account among the options; give it once" in line


def test_live_without_permission_starts_and_says_that_it_denies_everything() -> None:
    live = {"EXECWORKER_ROUTES__KIS__MODE": "live"}
    allowed = live | {"EXECWORKER_ROUTES__KIS__LIVE_ALLOWED": "true"}

    assert "EXECWORKER_ROUTES__KIS__LIVE_ALLOWED=true" in load_settings(live).notes()[0]
    assert load_settings(allowed).notes() == []
    weak = load_settings(allowed | {"EXECWORKER_ROUTES__KIS__ALLOW_WEAK_DURABILITY": "yes"})
    assert "may be placed twice" in weak.notes()[0]
    assert "no effect" in load_settings({"EXECWORKER_ROUTES__KIS__LIVE_ALLOWED": "1"}).notes()[0]


def test_the_docs_list_every_setting_as_it_is() -> None:
    head, begin, rest = DOCS.read_text(encoding="utf-8").partition("<!-- settings_table() -->\n")
    table, end, tail = rest.partition("<!-- end -->\n")
    if os.environ.get("UPDATE_DOCS"):
        DOCS.write_text(head + begin + settings_table() + end + tail, encoding="utf-8")
        return

    assert begin
    assert table == settings_table(), "run UPDATE_DOCS=1 pytest tests/unit/test_settings.py"
