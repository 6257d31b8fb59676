"""Who can be told, and how. A channel tells one event in one try, within `TIMEOUT`, or says why it could not."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Final, Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from worker import __version__
from worker.errors import ConfigError, WorkerError
from worker.settings import Settings, environ_of_others

#: Seconds that one try may take.
TIMEOUT: Final = 10.0
#: Of what a failing command wrote on standard error, so many bytes go into the log: the last ones.
_WORDS: Final = 300


class NotTold(WorkerError):
    """It could not be told, or nobody knows whether it was: tell it again. The text holds no secret of ours."""


class Channel(Protocol):
    """One way to tell. Used by one thread."""

    @property
    def name(self) -> str:
        """Stays the same over restarts; under it Redis keeps how far it was told."""

    def tell(self, body: bytes) -> None:
        """
        Tell one event, given as its JSON.

        Raises:
            NotTold: this try failed. Make another one later.
        """

    def close(self) -> None:
        """Called by another thread: end the try that may be under way, and leave nothing running."""


def build_channels(settings: Settings) -> list[Channel]:
    """
    The channels that are set; none by default.

    Raises:
        ConfigError: one of them cannot work on this machine; each fault is named.
    """
    channels: list[Channel] = []
    faults: list[str] = []
    if settings.told_command:
        program = settings.told_command[0]
        if shutil.which(program) is None:
            faults.append(f"EXECWORKER_TOLD_COMMAND: there is no program {program!r} that may be run here")
        channels.append(Command(settings.told_command, environ_of_others()))
    if settings.told_url is not None:
        channels.append(WebHook(settings.told_url, settings.told_header))
    if settings.told_apprise_urls:
        channels += _chats(settings.told_apprise_urls, faults)
    if faults:
        raise ConfigError(faults)
    return channels


def _chats(urls: Sequence[SecretStr], faults: list[str]) -> list[Channel]:
    try:
        from worker.told.chat import Chat
    except ModuleNotFoundError as error:
        faults.append(
            f"EXECWORKER_TOLD_APPRISE_URLS: needs {error.name}; install execution-worker[told], "
            "or use EXECWORKER_TOLD_URL or EXECWORKER_TOLD_COMMAND"
        )
        return []
    chats: list[Channel] = []
    for number, url in enumerate(urls, 1):
        try:
            # Told apart by digest, so that the position of one does not become another's when the list is changed.
            mark = hashlib.sha256(url.get_secret_value().encode()).hexdigest()[:12]
            chats.append(Chat(f"apprise-{mark}", url))
        except ValueError as error:
            faults.append(f"EXECWORKER_TOLD_APPRISE_URLS: number {number} {error}")
    return chats


class Command:
    """Runs a program for each event, with the event's JSON on its standard input. Exit code 0 means told."""

    name = "command"

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], timeout: float = TIMEOUT) -> None:
        """``environ`` is all that the program sees of the environment: our own settings hold secrets."""
        self._argv = list(argv)
        self._environ = dict(environ)
        self._timeout = timeout
        self._running: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        if self._running is not None:
            _end(self._running)

    def tell(self, body: bytes) -> None:
        # Files, not pipes: what the program left running in the background would hold a pipe open.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(body + b"\n")
            given.seek(0)
            code = self._run(given, said)
            if code != 0:
                raise NotTold(f"the command ended with {code}{_last_words(said)}")

    def _run(self, given: IO[bytes], said: IO[bytes]) -> int:
        try:
            process = self._running = subprocess.Popen(
                self._argv,
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=self._environ,
                start_new_session=True,
            )
        except OSError as error:
            raise NotTold(f"the command cannot be run: {error.strerror}") from error
        try:
            return process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            raise NotTold(f"the command was not done in {self._timeout:g} s, and was ended") from None
        finally:
            self._running = None
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_words(said: IO[bytes]) -> str:
    end = said.seek(0, os.SEEK_END)
    said.seek(max(0, end - _WORDS))
    words = said.read(_WORDS).decode("utf-8", "replace").strip()
    return f": {words}" if words else ""


class WebHook:
    """POSTs each event as JSON. An answer from 200 to 299 means told; redirects are not followed."""

    name = "url"

    def __init__(self, url: SecretStr, header: SecretStr | None = None, timeout: float = TIMEOUT) -> None:
        """``header`` is one more header as ``NAME: VALUE``, such as an authorization."""
        self._parts = urlsplit(url.get_secret_value())
        self._headers = {"Content-Type": "application/json", "User-Agent": f"execworker/{__version__}"}
        if header is not None:
            name, _, value = header.get_secret_value().partition(":")
            self._headers[name.strip()] = value.strip()
        self._timeout = timeout

    def tell(self, body: bytes) -> None:
        connection = self._connection()
        try:
            connection.connect()
            # The connection's own time-out starts anew with each byte.
            bound = threading.Timer(self._timeout, _shut, (connection.sock,))
            bound.daemon = True
            bound.start()
            try:
                connection.request("POST", self._target(), body, self._headers)
                status = connection.getresponse().status
            finally:
                bound.cancel()
        except (OSError, http.client.HTTPException) as error:
            # Its class and its system's words: other texts of it may repeat what the server wrote.
            why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            raise NotTold(f"the web hook did not answer: {why}") from error
        finally:
            connection.close()
        if not 200 <= status <= 299:
            raise NotTold(f"the web hook answered {status}")

    def close(self) -> None:
        """A request needs no end: it holds nothing."""

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout)

    def _target(self) -> str:
        query = f"?{self._parts.query}" if self._parts.query else ""
        return (self._parts.path or "/") + query


def _shut(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
