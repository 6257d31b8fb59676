"""Keys are stored with their environment, and go to no other place than theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kis_bench import APP_KEY, APP_SECRET, options
from pydantic import SecretStr, ValidationError

from worker.brokers.kis import Credentials, Environment, KISBrokerAdapter, KISOptions
from worker.brokers.kis.options import credentials_of
from worker.clock import ManualClock
from worker.errors import ConfigError

REAL_HOST = "https://openapi.koreainvestment.com:9443"
PAPER_HOST = "https://openapivts.koreainvestment.com:29443"


def read(mode: str = "live", **changes: Any) -> Credentials:
    return credentials_of(KISOptions(**options(check_hours=True, **changes)), mode)


def test_the_host_follows_from_the_environment_of_the_keys() -> None:
    assert read("live").base_url == REAL_HOST
    assert read("paper", environment="paper").base_url == PAPER_HOST


@pytest.mark.parametrize(
    ("mode", "environment", "cure"),
    [
        ("live", "paper", "mode live needs real credentials"),
        ("paper", "real", "mode paper needs credentials of paper"),
    ],
)
def test_keys_of_the_other_environment_do_not_start(mode: str, environment: str, cure: str) -> None:
    with pytest.raises(ConfigError, match=cure):
        read(mode, environment=environment)


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ("real", PAPER_HOST),
        ("paper", REAL_HOST),
        ("real", PAPER_HOST + "/"),
        ("paper", "http://openapi.koreainvestment.com"),
    ],
)
def test_the_address_of_the_other_server_is_refused(environment: str, url: str) -> None:
    with pytest.raises(ConfigError, match="the host follows from the keys"):
        read("live" if environment == "real" else "paper", environment=environment, base_url=url)


@pytest.mark.parametrize(
    "url", ["https://example.com", "http://10.0.0.7:9443", "ftp://127.0.0.1", "127.0.0.1:9443"]
)
def test_keys_go_to_no_foreign_host(url: str) -> None:
    with pytest.raises(ConfigError, match="the keys go nowhere else"):
        read(base_url=url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9443", "http://localhost:1/", "http://[::1]:9443"])
def test_a_simulator_on_this_machine_may_be_named(url: str) -> None:
    assert read(base_url=url).base_url == url.rstrip("/")


def test_the_hours_count_in_front_of_the_real_broker() -> None:
    with pytest.raises(ConfigError, match="check_hours"):
        credentials_of(KISOptions(**options(check_hours=False)), "live")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        read(environment=None, app_key=None, app_secret=" ", account="123")

    assert [fault.partition(":")[0] for fault in refused.value.faults] == [
        "environment",
        "app_key",
        "app_secret",
        "account",
    ]


def test_keys_may_stand_in_a_file_with_their_environment(tmp_path: Path) -> None:
    file = tmp_path / "kis.toml"
    file.write_text(f'environment = "paper"\napp_key = "{APP_KEY}"\napp_secret = "{APP_SECRET}"\n')

    # As the settings give it: a name that speaks of credentials is hidden.
    found = credentials_of(KISOptions(account="12345678-01", credentials=SecretStr(str(file))), "paper")  # type: ignore[arg-type]

    assert found.environment is Environment.PAPER
    assert found.app_secret.get_secret_value() == APP_SECRET


def test_a_file_that_cannot_be_read_is_named_without_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "kis.toml"
    file.write_text(f'app_key = "{APP_KEY}\n')

    with pytest.raises(ConfigError) as refused:
        credentials_of(KISOptions(account="12345678-01", credentials=file), "paper")

    assert "it is no TOML" in str(refused.value)
    assert APP_KEY not in str(refused.value)


def test_options_can_come_as_texts_of_the_environment() -> None:
    read_in = KISOptions(
        **options(us="true", check_hours="false", funds="069500, 114800", connect_timeout="1.5")
    )

    assert (read_in.us, read_in.check_hours, read_in.connect_timeout) == (True, False, 1.5)
    assert read_in.funds == {"069500", "114800"}


def test_a_misspelt_option_is_a_fault() -> None:
    with pytest.raises(ValidationError, match="app_secrt"):
        KISOptions(**options(), app_secrt="x")


def test_a_key_in_the_wrong_place_is_not_told() -> None:
    with pytest.raises(ValidationError) as refused:
        KISOptions(**options(), venue=APP_SECRET, connections=APP_KEY)

    assert APP_SECRET not in str(refused.value)
    assert APP_KEY not in str(refused.value)


def test_no_secret_shows_in_any_repr() -> None:
    adapter = KISBrokerAdapter.from_options(options(check_hours=True), mode="live", clock=ManualClock())

    shown = f"{read()!r} {KISOptions(**options())!r} {adapter.client!r} {adapter.client.credentials!r}"

    assert APP_KEY not in shown
    assert APP_SECRET not in shown
    assert "12345678" not in shown
    adapter.close()
