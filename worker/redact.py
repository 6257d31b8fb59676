"""What must never be seen: which names smell of a secret, and how a secret is masked in a text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache

MASK = "***"

#: A value shorter than this is masked by its name only: hiding ``1`` everywhere would hide the log.
_SECRET_LENGTH_MIN = 6

# Names such as ``appkey``, ``app_secret``, ``access_token``, ``Authorization``, ``APCA-API-KEY-ID``.
# No leading wildcard: it would make a search quadratic, and what stands before the word may stay.
_NAME = r"(?:secret|token|passw|passphrase|credential|authorization|(?:app|api|access|private)[_-]?key)[\w-]*"
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE | re.ASCII)
#: ``scheme://user:password@`` and ``scheme://:password@``. The password may itself hold an ``@``.
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@'\"]*):[^\s/'\"]*@")
#: ``appkey=…``, ``"appkey": "…"``, ``Authorization: Bearer …``; a value ends with its quote, or with the word.
_NAMED_VALUE = re.compile(
    rf"(?P<name>{_NAME})(?P<sep>\\?[\"']?\s*[:=]\s*)"
    r"(?:b?(?P<quote>\\?[\"']).*?(?P=quote)|(?:bearer\s+|basic\s+)?[^\s,;&)}\]\"']+)",
    re.IGNORECASE | re.ASCII,
)
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE | re.ASCII)

#: In lower case. A text without any of them holds no named secret.
_TELLTALES = (
    "secret",
    "token",
    "passw",
    "passphrase",
    "credential",
    "authorization",
    "key",
    "bearer",
    "basic",
)


@lru_cache(maxsize=1024)
def smells_of_secret(name: str) -> bool:
    """Whether a value under this name must not be shown."""
    return _SECRET_NAME.search(name) is not None


def mask_url(url: str) -> str:
    """The URL with its password masked, and everything else as it was."""
    return _URL_PASSWORD.sub(rf"\1:{MASK}@", url)


class Redactor:
    """Masks secrets in texts: those it is told of, wherever they stand, and those that stand beside a name."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first, so that a secret inside another one leaves no rest of it behind.
        known = sorted({s for s in secrets if len(s) >= _SECRET_LENGTH_MIN}, key=len, reverse=True)
        self._known = tuple(known)
        self._in_json = tuple(json.dumps(s, ensure_ascii=False)[1:-1] for s in known)

    def text(self, text: str) -> str:
        """The text without its secrets."""
        for secret in self._known:
            text = text.replace(secret, MASK)
        if "://" in text:
            text = mask_url(text)
        # Nine searches for a word cost a tenth of one search for the patterns.
        if any(map(text.lower().__contains__, _TELLTALES)):
            text = _NAMED_VALUE.sub(_masked_value, text)
            text = _BEARER.sub(rf"\1 {MASK}", text)
        return text

    def is_clean(self, line: str) -> bool:
        """Whether a line of JSON surely holds no secret. A doubtful one is not clean."""
        return not (
            any(map(line.lower().__contains__, _TELLTALES))
            or any(map(line.__contains__, self._in_json))
            or ("://" in line and "@" in line)
        )


def _masked_value(match: re.Match[str]) -> str:
    quote = match["quote"] or ""
    return f"{match['name']}{match['sep']}{quote}{MASK}{quote}"
