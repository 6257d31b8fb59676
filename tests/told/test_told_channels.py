"""A command, a web hook, chat services: each tells, fails in words, keeps its time, and shows no secret."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.conftest import AnyRedis
from tests.process.workers import wait_until
from tests.told.told_case import Desk, Hook, read, runs, web_hook
from worker.errors import ConfigError
from worker.settings import load_settings
from worker.told import Channel, NotTold, build_channels
from worker.told.channels import Command, WebHook

EVENT = b'{"type":"HALTED","route":"default","message":"halted","timestamp":"2026-11-23T01:00:00Z"}'


@pytest.fixture(name="hook")
def _hook() -> Iterator[Hook]:
    with web_hook() as found:
        yield found


@pytest.fixture(name="desk")
def _desk(any_redis: AnyRedis) -> Desk:
    return Desk(any_redis.connect)


def channel(**told: str) -> Channel:
    (found,) = build_channels(read(**told))
    return found


def script(folder: Path, text: str) -> str:
    file = folder / "tell"
    file.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


# --- A web hook ---------------------------------------------------------------------------------------------


def test_a_web_hook_that_fails_first_is_told_once_it_works(desk: Desk, hook: Hook) -> None:
    hook.answers = [503, 302]
    desk.happen("halt", "resume")

    desk.teller(channel(url=hook.url, header="Authorization: Bearer s3cr3t-header")).step()

    assert hook.told == ["HALTED", "RESUMED"]
    path, headers, body = hook.seen[0]
    assert path == "/hook/s3cr3t-path?sig=s3cr3t-query"
    assert headers["Authorization"] == "Bearer s3cr3t-header"
    assert headers["Content-Type"] == "application/json"
    assert (body["actor"], body["reason"], body["route"]) == ("kim@desk", "a drill", "default")
    assert [line["reason"] for line in desk.log[:2]] == [
        "the web hook answered 503",
        "the web hook answered 302",
    ]


def test_a_web_hook_that_is_not_there_is_named_without_its_address() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/s3cr3t-path"

        with pytest.raises(NotTold) as caught:
            channel(url=url).tell(EVENT)

    assert str(caught.value) == "the web hook did not answer: Connection refused"


def test_a_web_hook_that_answers_byte_by_byte_for_ever_is_cut_off() -> None:
    enough = threading.Event()

    def drip(listener: socket.socket) -> None:
        line, _ = listener.accept()
        with line:
            while not enough.wait(0.02):
                try:
                    line.sendall(b"H")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        url = SecretStr(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        try:
            with pytest.raises(NotTold):
                WebHook(url, timeout=0.3).tell(EVENT)
        finally:
            enough.set()
            thread.join()


# --- A command ----------------------------------------------------------------------------------------------


def test_a_command_that_fails_first_is_told_once_it_works(desk: Desk, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    text = f"[ -e {tmp_path}/up ] || {{ touch {tmp_path}/up; echo no network >&2; exit 7; }}; cat >> {heard}"
    desk.happen("halt", "resume")

    desk.teller(channel(command=script(tmp_path, text))).step()

    assert [json.loads(line)["type"] for line in heard.read_text().splitlines()] == ["HALTED", "RESUMED"]
    assert desk.log[0]["reason"] == "the command ended with 7: no network"


def test_a_command_gets_its_arguments_as_a_shell_would_give_them(tmp_path: Path) -> None:
    command = script(tmp_path, f'printf "%s|" "$@" > {tmp_path}/args')

    channel(command=f"{command} --to 'the desk' -v").tell(EVENT)

    assert (tmp_path / "args").read_text() == "--to|the desk|-v|"


def test_a_command_sees_the_environment_without_our_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXECWORKER_ROUTES__KIS__OPTIONS__APP_SECRET", "s3cr3t")
    monkeypatch.setenv("PAGER_KEY", "theirs")

    channel(command=script(tmp_path, f"env > {tmp_path}/env")).tell(EVENT)

    seen = (tmp_path / "env").read_text()
    assert "PAGER_KEY=theirs" in seen
    assert "EXECWORKER" not in seen and "s3cr3t" not in seen


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    text = f"sleep 600 & echo $! > {tmp_path}/child; wait"
    hanging = Command([script(tmp_path, text)], dict(os.environ), timeout=1.0)

    with pytest.raises(NotTold, match="was not done in 1 s, and was ended"):
        hanging.tell(EVENT)

    child = int((tmp_path / "child").read_text())
    wait_until(lambda: not runs(child), "the child is gone")


def test_a_program_that_is_not_there_stops_the_start_and_not_the_first_event() -> None:
    with pytest.raises(ConfigError) as caught:
        channel(command="/no/such/program --x")

    assert caught.value.faults == [
        "EXECWORKER_TOLD_COMMAND: there is no program '/no/such/program' that may be run here"
    ]


# --- Chat services -------------------------------------------------------------------------------------------

#: apprise 2.2 imports a module for PGP mail that Python 3.13 no longer has.
apprises_own = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@apprises_own
def test_a_chat_service_that_fails_first_is_told_once_it_works(desk: Desk, hook: Hook) -> None:
    pytest.importorskip("apprise")
    hook.answers = [500]
    desk.happen("halt")

    desk.teller(channel(apprise_urls=f"json://kim:s3cr3t-chat@127.0.0.1:{hook.port}/")).step()

    (_, _, body) = hook.seen[0]
    assert body["title"] == "HALTED on route default"
    assert "reason: a drill\nactor: kim@desk" in body["message"]
    assert [line["event"] for line in desk.log] == ["tell_failed", "told"]
    assert "s3cr3t-chat" not in desk.lines.getvalue()


@apprises_own
def test_every_chat_service_is_a_channel_of_its_own(hook: Hook) -> None:
    pytest.importorskip("apprise")
    urls = [f"json://127.0.0.1:{hook.port}/{name}" for name in "ab"]

    both = build_channels(read(apprise_urls="\n".join(urls)))
    (second,) = build_channels(read(apprise_urls=urls[1]))

    assert len({one.name for one in both}) == 2
    assert second.name == both[1].name


@apprises_own
def test_a_service_that_apprise_does_not_know_is_named_by_its_number() -> None:
    pytest.importorskip("apprise")

    with pytest.raises(ConfigError) as caught:
        channel(apprise_urls="json://127.0.0.1/ nosuch://s3cr3t-token")

    (fault,) = caught.value.faults
    assert "EXECWORKER_TOLD_APPRISE_URLS: number 2" in fault
    assert "s3cr3t" not in fault


def test_without_apprise_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    monkeypatch.delitem(sys.modules, "worker.told.chat", raising=False)

    with pytest.raises(ConfigError) as caught:
        channel(apprise_urls="json://127.0.0.1/")

    assert "install execution-worker[told]" in caught.value.faults[0]


# --- Settings and secrets -------------------------------------------------------------------------------------


def test_no_secret_of_any_channel_gets_into_a_line(desk: Desk, hook: Hook, tmp_path: Path) -> None:
    secrets = {"url": hook.url, "header": "X-Key: s3cr3t-header"}
    command = script(tmp_path, "echo could not reach /hook/s3cr3t-path with s3cr3t-header >&2; exit 1")
    hook.answers = [500] * 4
    desk.happen("halt")

    for one in build_channels(read(command=command, **secrets)):
        desk.teller(one, tries="2", **secrets).step()

    assert "tell_given_up" in desk.lines.getvalue()
    assert "s3cr3t" not in desk.lines.getvalue()


def test_no_secret_of_any_channel_is_shown_by_the_settings() -> None:
    settings = read(url="https://x/s3cr3t", header="X: s3cr3t", apprise_urls="slack://s3cr3t/x")

    assert "s3cr3t" not in repr(settings) + str(settings) + str(settings.model_dump())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("url", "ftp://s3cr3t/"),
        ("url", "s3cr3t"),
        ("url", "https://x:port/s3cr3t"),
        ("header", "s3cr3t"),
        ("header", "X-Key: s3cr3t\r\nX-Other: 1"),
        ("apprise_urls", "s3cr3t"),
    ],
)
def test_a_faulty_setting_is_named_without_its_secret(setting: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**{setting: value})

    (fault,) = caught.value.faults
    assert fault.startswith(f"EXECWORKER_TOLD_{setting.upper()} (told_{setting}): must be ")
    assert "s3cr3t" not in fault


def test_a_type_that_does_not_exist_is_a_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        read(types="HALTED,HLATED")

    assert caught.value.faults[0].startswith("EXECWORKER_TOLD_TYPES (told_types): must be types of failsafe")


def test_the_secrets_may_stand_in_files_and_the_rest_in_toml(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("https://x/s3cr3t\n")
    (tmp_path / "chats").write_text("slack://a\nmailto://b?to=c,d\n")
    (tmp_path / "w.toml").write_text('told_command = ["tell", "the desk"]\ntold_types = ["HALTED"]\n')
    environ: dict[str, Any] = {
        "EXECWORKER_CONFIG": str(tmp_path / "w.toml"),
        "EXECWORKER_TOLD_URL_FILE": str(tmp_path / "url"),
        "EXECWORKER_TOLD_APPRISE_URLS_FILE": str(tmp_path / "chats"),
    }

    settings = load_settings(environ)

    assert settings.told_command == ("tell", "the desk")
    assert settings.told_types == ("HALTED",)
    assert settings.told_url is not None
    assert settings.told_url.get_secret_value() == "https://x/s3cr3t"
    assert [one.get_secret_value() for one in settings.told_apprise_urls] == [
        "slack://a",
        "mailto://b?to=c,d",
    ]
