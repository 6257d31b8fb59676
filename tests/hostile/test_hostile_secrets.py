"""No secret in anything that anybody can see: every path is flooded with marked ones, and all output is searched."""

from __future__ import annotations

import json
import shutil
import socket
import traceback
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from pydantic import SecretStr

from tests.conftest import RedisServer, make_intent, start_redis
from tests.desk import KEYS
from tests.kis.kis_bench import TAKEN, QuickClock, RawServer, http, raw_server, request
from tests.process.workers import Floor, wait_until
from worker.brokers.kis import Account, Credentials, Environment, KISBrokerAdapter, KISClient
from worker.brokers.kis.auth import AccessTokenPayload
from worker.brokers.kis.options import KISOptions
from worker.brokers.live import LiveBroker
from worker.connection import connect
from worker.errors import BrokerError, ConfigError
from worker.intake import Intake
from worker.logs import Event, configure
from worker.producer import IntentProducer
from worker.settings import load_settings

PASSWORD = "MARK-redis/pass word"
#: As it stands in a URL.
IN_URL = "MARK-redis%2Fpass%20word"
APP_KEY = "MARKkeyPS0123456789abcdefghijklmnopq"
APP_SECRET = "MARKsecret" + "x+/=" * 40
ACCOUNT = "86420975-01"
TOKEN = "token-of-the-tests-abcdef"
APPROVAL = "MARK-approval-0a1b2c3d"
MARKS = (PASSWORD, IN_URL, APP_KEY, APP_SECRET, ACCOUNT, "8642097501", "86420975", TOKEN, APPROVAL)


def leaks(text: str) -> list[str]:
    """What of the secrets shows in a text, and where."""
    plain = text.replace("\\/", "/")
    return [plain[max(0, plain.find(mark) - 150) : plain.find(mark) + 60] for mark in MARKS if mark in plain]


class Parrot:
    """A broker that answers with what it was told, secrets and all."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def __call__(self, asked: bytes, connection: socket.socket) -> bytes | None:
        text = asked.decode("latin-1")
        known = (TOKEN, APP_KEY, ACCOUNT, "86420975", APP_SECRET)
        quoted = " ".join(one for one in known if one.split("-")[0] in text)
        if "order-cash" not in text:
            return http({"rt_cd": "1", "msg_cd": quoted, "msg1": quoted})
        number = next(self._numbers)
        output = TAKEN["output"] | {"ODNO": f"{number:010}"}  # type: ignore[operator]
        match number % 8:
            case 0:
                return http(f"<html><pre>{text}</pre></html>".encode(), 500)
            case 1:
                return http(
                    {"rt_cd": "0", "msg_cd": "APBK0013", "msg1": quoted, "output": output}, gt_uid=TOKEN
                )
            case 2:
                return http({"rt_cd": "7", "msg_cd": "APBK0952", "msg1": quoted}, gt_uid=APP_KEY)
            case 3:
                return http({"rt_cd": "1", "msg_cd": "ZZZZ9999", "msg1": f"Bearer {TOKEN} 앱키 {APP_KEY}"})
            case 4:
                return http({"rt_cd": "1", "msg_cd": TOKEN, "msg1": APP_SECRET})
            case 5:
                return http(TAKEN, tr_id=TOKEN)
            case 6:
                return http({"rt_cd": "1", "msg_cd": "EGW00201", "msg1": quoted})
            case _:
                return None


@pytest.fixture(name="parrot")
def _parrot() -> Iterator[RawServer]:
    with raw_server(Parrot()) as server:
        yield server


def settings_by(way: str, url: str, base_url: str, folder: Path) -> dict[str, str]:
    """The same settings, given in one way or another; ``mixed``: each secret in its own."""
    route = "EXECWORKER_ROUTES__DEFAULT__OPTIONS__"
    plain = {"base_url": base_url, "check_hours": "false", "environment": "real", "reply_timeout": "0.4"}
    secret = {"app_key": APP_KEY, "app_secret": APP_SECRET, "account": ACCOUNT}
    given = {f"{route}{name.upper()}": value for name, value in plain.items()}
    in_files = {"files": ("redis_url", *secret), "mixed": ("redis_url", "app_secret")}.get(way, ())
    in_toml = {"toml": ("redis_url", *secret), "mixed": ("app_key",)}.get(way, ())
    for name, value in {"redis_url": url, **secret}.items():
        variable = "EXECWORKER_REDIS_URL" if name == "redis_url" else f"{route}{name.upper()}"
        if name in in_files:
            (folder / name).write_text(value)
            given[f"{variable}_FILE"] = str(folder / name)
        elif name not in in_toml:
            given[variable] = value
    if in_toml:
        options = [f"{name} = {json.dumps(secret[name])}" for name in in_toml if name in secret]
        top = [f"redis_url = {json.dumps(url)}"] if "redis_url" in in_toml else []
        (folder / "worker.toml").write_text("\n".join([*top, "[routes.default.options]", *options]))
        given["EXECWORKER_CONFIG"] = str(folder / "worker.toml")
    return given


class SecretFloor(Floor):
    """A floor whose workers are given these settings."""

    def __init__(self, server: RedisServer, folder: Path, given: dict[str, str]) -> None:
        super().__init__(
            server,
            folder,
            broker="kis",
            mode="live",
            live_allowed=True,
            allow_weak_durability=True,
            max_consecutive_failures=100,
        )
        self.given = given

    def environ(self, **route: Any) -> dict[str, str]:
        base = {name: value for name, value in super().environ(**route).items() if "BOOK" not in name}
        base.pop("EXECWORKER_REDIS_URL")
        return base | {"EXECWORKER_LOG_LEVEL": "debug"} | self.given

    @property
    def client(self) -> Any:
        return connect(secret_url(self.server), client_name="test")


def secret_url(server: RedisServer) -> str:
    return f"redis://:{IN_URL}@127.0.0.1:{server.port}/0"


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[RedisServer]:
    server = start_redis("--appendonly", "no")
    client = connect(server.url, client_name="test")
    client.config_set("requirepass", PASSWORD)
    client.close()
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.mark.real_redis
@pytest.mark.process
def test_a_worker_and_its_tools_show_no_secret_whatever_the_broker_quotes(
    server: RedisServer, parrot: RawServer, tmp_path: Path
) -> None:
    floor = SecretFloor(server, tmp_path, settings_by("mixed", secret_url(server), parrot.url, tmp_path))
    client = floor.client
    client.flushall()
    try:
        worker = floor.worker()
        wait_until(lambda: "worker_started" in worker.log, "the worker has registered")
        resumed = floor.run("resume", "--reason", "a live route starts halted")
        assert resumed.returncode == 0, resumed.stderr
        with IntentProducer(secret_url(server)) as producer:
            producer.enqueue_many(
                [make_intent(intent_id=f"s{n}", symbol=f"{n:05}0", limit_price=60_000) for n in range(1, 10)]
            )
        client.xadd(KEYS.intents, {"body": "not an intent"})
        wait_until(
            lambda: client.xlen(KEYS.responses) >= 3 and client.zcard(KEYS.doubts) >= 3,
            "they had their turns",
        )
        wait_until(lambda: client.xlen(KEYS.dead), "what is no intent is buried")
        seen = [" ".join(process.cmdline()) for process in psutil.Process(worker.pid).children() or ()]
        seen += [" ".join(psutil.Process(worker.pid).cmdline())]
        seen += [worker.get(page)[1] for page in ("/metrics", "/livez", "/readyz", "/state")]
        verbs = (
            ("status", "--json"),
            ("doubt", "list"),
            ("intent", "s3"),
            ("watch", "all", "--from", "0", "--count", "5"),
        )
        for verb in verbs:
            done = floor.run(*verb)
            seen += [done.stdout, done.stderr]
        seen += [repr(dumped(client, key)) for key in client.scan_iter()]
        worker.kill()
        seen += [worker.output, worker.log]
    finally:
        floor.close()
        client.close()

    assert len(parrot.requests) >= 7
    for text in seen:
        assert leaks(text) == []


def dumped(client: Any, key: bytes) -> Any:
    match client.type(key):
        case b"stream":
            return client.xrange(key)
        case b"hash":
            return client.hgetall(key)
        case b"zset":
            return client.zrange(key, 0, -1)
        case b"list":
            return client.lrange(key, 0, -1)
        case b"set":
            return client.smembers(key)
        case _:
            return client.get(key)


@pytest.mark.real_redis
@pytest.mark.process
def test_a_wrong_password_is_not_repeated(server: RedisServer, parrot: RawServer, tmp_path: Path) -> None:
    for url in (
        f"redis://:{IN_URL}WRONG@127.0.0.1:{server.port}/0",
        f"redis://127.0.0.1:{server.port}/0?password={IN_URL}WRONG",
        f"redis://user:{IN_URL}@127.0.0.1:1/0",
        f"redis://:{PASSWORD}@127.0.0.1:{server.port}:x/0",
    ):
        floor = SecretFloor(server, tmp_path, settings_by("environment", url, parrot.url, tmp_path))
        done = floor.run("status")

        assert done.returncode in (69, 78), done.stderr
        assert leaks(done.stdout + done.stderr) == []
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("way", ["environment", "files", "toml", "mixed"])
def test_settings_know_their_secrets_and_show_none_however_they_are_given(way: str, tmp_path: Path) -> None:
    given = settings_by(way, f"redis://:{IN_URL}@h/0", "http://127.0.0.1:1", tmp_path)

    settings = load_settings(given)

    assert {PASSWORD, IN_URL, APP_KEY, APP_SECRET, ACCOUNT, "86420975"} <= set(settings.secrets())
    assert leaks(repr(settings) + str(settings) + repr(settings.redis_url) + settings.redis_url.shown) == []


def test_settings_that_are_wrong_are_refused_without_their_secrets(tmp_path: Path) -> None:
    for name, value in (
        ("EXECWORKER_REDIS_URL", f"http://:{IN_URL}@host"),
        ("EXECWORKER_QUEUE_URL", f"//{IN_URL}"),
        ("EXECWORKER_ROUTES__DEFAULT__OPTIONS", APP_KEY),
        ("EXECWORKER_ROUTES__DEFAULT__OPTIONS__APP_KEY_FILE", str(tmp_path / "none")),
        ("EXECWORKER_ROUTES__DEFAULT__LEASE", "-1"),
    ):
        given = settings_by("environment", f"redis://:{IN_URL}@h/0", "http://127.0.0.1:1", tmp_path)
        given.pop("EXECWORKER_ROUTES__DEFAULT__OPTIONS__APP_KEY")
        with pytest.raises(ConfigError) as caught:
            load_settings(given | {name: value})

        assert leaks(told(caught.value)) == []

    for wrong in (
        {"account": APP_SECRET},
        {"environment": APP_KEY},
        {"app_key": [APP_KEY]},
        {"typo": APP_SECRET},
    ):
        options = {"app_key": APP_KEY, "app_secret": APP_SECRET, "account": ACCOUNT, "environment": "paper"}
        with pytest.raises(Exception, match=next(iter(wrong))) as refused:
            KISBrokerAdapter.from_options(options | wrong, mode="paper", clock=QuickClock())

        assert leaks(told(refused.value)) == []


def told(error: BaseException) -> str:
    """All that an error says, with its causes."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


def things(base_url: str) -> Iterator[object]:
    """Everything that holds a secret."""
    settings = load_settings(settings_by("environment", f"redis://:{IN_URL}@h/0", base_url, Path()))
    yield from (
        settings,
        settings.redis_url,
        settings.queue_url,
        settings.routes,
    )
    given = {"app_key": APP_KEY, "app_secret": APP_SECRET, "account": ACCOUNT, "environment": "paper"}
    yield KISOptions.model_validate(given)
    account = Account.parse(ACCOUNT)
    credentials = Credentials(Environment.PAPER, SecretStr(APP_KEY), SecretStr(APP_SECRET), account, base_url)
    client = KISClient(credentials, clock=QuickClock())
    yield from (account, credentials, client, client.tokens)
    yield client.tokens.token()
    yield AccessTokenPayload.model_validate(
        {"access_token": TOKEN, "expires_in": 1, "expires_at": "2026-11-23T00:00:00Z"}
    )
    adapter = KISBrokerAdapter.from_options(
        given | {"base_url": base_url, "check_hours": False}, mode="paper", clock=QuickClock()
    )
    yield from (adapter, adapter.client, adapter._rules, LiveBroker(adapter))  # type: ignore[attr-defined]
    for make in (client._issue_token, client.approval_key):
        try:
            yield make()
        except BrokerError as error:
            yield told(error)
    redis_client = connect(f"redis://:{IN_URL}@127.0.0.1:1/0", client_name="x")
    yield from (redis_client, redis_client.connection_pool, redis_client.connection_pool.make_connection())
    try:
        redis_client.ping()
    except redis.RedisError as error:
        yield told(error)
    url = f"redis-streams://:{IN_URL}@127.0.0.1:1/0"
    intake = Intake(
        url,
        ["q"],
        deliver=lambda _: None,
        want=lambda: True,
        prefetch=1,
        transport_options={},
        clock=QuickClock(),
    )
    intake.turn(0.01)
    yield from (intake, intake.error, intake._line.connection(), IntentProducer(f"redis://:{IN_URL}@h/0"))
    intake.close()
    client.close()
    adapter.close()


def test_nothing_that_holds_a_secret_shows_it(parrot: RawServer) -> None:
    for one in things(parrot.url):
        assert leaks(f"{one!r} {one}" if not isinstance(one, str) else repr(one)) == [], type(one)


def test_an_order_that_fails_in_any_way_tells_no_secret(parrot: RawServer) -> None:
    given = {"app_key": APP_KEY, "app_secret": APP_SECRET, "account": ACCOUNT, "environment": "paper"}
    adapter = KISBrokerAdapter.from_options(
        given | {"base_url": parrot.url, "check_hours": False}, mode="paper", clock=QuickClock()
    )
    calls: list[Callable[[], object]] = [lambda: adapter.place_order(request())] * 8
    for call in [*calls, lambda: adapter.client.approval_key()]:
        try:
            shown = repr(call())
        except BrokerError as error:
            shown = told(error)
        assert leaks(shown) == []
    adapter.close()


def test_an_exception_that_quotes_secrets_is_logged_without_them() -> None:
    settings = load_settings(
        settings_by("environment", f"redis://:{IN_URL}@h/0", "http://127.0.0.1:1", Path())
    )
    for form in ("json", "console"):
        out = StringIO()
        log = configure("debug", form, secrets=settings.secrets(), stream=out)
        try:
            raise RuntimeError(
                f"{PASSWORD} {IN_URL} {APP_KEY} {APP_SECRET} redis://:{IN_URL}@h Bearer {TOKEN} {ACCOUNT}"
            )
        except RuntimeError:
            log.error(Event.ADAPTER_FAULT, exc_info=True, reason=f"{APP_SECRET}")

        assert leaks(out.getvalue()) == []
        assert "adapter_fault" in out.getvalue()


def test_a_password_in_the_query_of_the_url_is_masked_in_logs_too() -> None:
    settings = load_settings(
        {"EXECWORKER_REDIS_URL": f"redis://h/0?password={IN_URL}&ssl_password={APPROVAL}"}
    )

    assert {PASSWORD, APPROVAL} <= set(settings.secrets())
    assert leaks(repr(settings)) == []
