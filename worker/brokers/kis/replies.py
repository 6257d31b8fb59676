"""What KIS answers: the envelope, and what an answer to an order proves. No I/O."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

from contracts import OrderResponse
from worker.brokers.kis.codes import CodeVerdict, Then, code_row, map_broker_error_to_safety
from worker.brokers.kis.numbers import OrderNumber
from worker.errors import NotSent, OutcomeUnknown, Rejected
from worker.redact import Redactor

_log = logging.getLogger(__name__)

#: Longer texts of the broker are cut. (``msg1`` has at most 80.)
_TEXT_MAX: Final = 120
#: The same for its codes, which have 8 characters, and for the gateway's numbers.
_CODE_MAX: Final = 40
#: ``ODNO``, without what pads it.
_NUMBER: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
#: In place of a value that an answer gives twice, and differently: it says neither.
_TORN: Final = object()
_OPEN: Final = Redactor()


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, read. ``fields`` have lower-case names: KIS is not of one mind about them."""

    status: int
    #: An answer may hold an access token.
    fields: Mapping[str, Any] = field(repr=False)
    #: The header: ``F`` and ``M`` say that there are more pages.
    tr_cont: str = ""
    #: The gateway's number of this transaction; KIS's support asks for it.
    gt_uid: str = ""
    #: Hides what the request was signed with: a gateway may quote it.
    redactor: Redactor = field(default=_OPEN, repr=False, compare=False)

    @property
    def is_success(self) -> bool:
        """KIS says that it did what it was asked."""
        return self.text("rt_cd") == "0"

    @property
    def code(self) -> str | None:
        """``msg_cd``; the OAuth calls name theirs ``error_code``."""
        return self._shown(self.text("msg_cd") or self.text("error_code"), _CODE_MAX) or None

    @property
    def message(self) -> str:
        return self._shown(self.text("msg1") or self.text("error_description"), _TEXT_MAX)

    @property
    def asks_for_a_token(self) -> bool:
        """The token it was asked with is not taken any more."""
        row = code_row(self.code)
        return row is not None and row.then is Then.REFRESH_TOKEN

    def text(self, name: str) -> str:
        """A field without the spaces around it; empty when it is missing or no text."""
        return _text(self.fields.get(name))

    def part(self, name: str) -> Mapping[str, str]:
        """An inner object; of a list, its first. Empty when there is none."""
        found = self.fields.get(name)
        if isinstance(found, list):
            found = found[0] if found else None
        return _row(found) if isinstance(found, dict) else {}

    def rows(self, name: str) -> list[Mapping[str, str]] | None:
        """The rows of a list; ``None`` when it is no list of objects."""
        found = self.fields.get(name)
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            return None
        return [_row(row) for row in found]

    @property
    def shown(self) -> str:
        """For people: status, code, text and the gateway's number."""
        uid = f", gt_uid {self._shown(self.gt_uid, _CODE_MAX)}" if self.gt_uid else ""
        return f"HTTP {self.status} {self.code or 'without a code'}: {self.message or 'no text'}{uid}"

    @property
    def told(self) -> str:
        """For the audit trail: how it begins, the order's number and the text."""
        cells = {
            "rt_cd": self.text("rt_cd"),
            "msg_cd": self.code or "",
            "odno": self.part("output").get("odno", ""),
            "gt_uid": self.gt_uid,
        }
        shown = [f"{name}={self._shown(value, _CODE_MAX)}" for name, value in cells.items() if value]
        return " ".join([f"HTTP {self.status}", *shown, self.message])

    # Hidden before it is cut: half a secret is one too.
    def _shown(self, text: str, length_max: int) -> str:
        return self.redactor.text(text)[:length_max]


class AnswersSeen:
    """The order numbers that answers have named lately. Two answers with one number are one answer that came twice."""

    def __init__(self, size: int = 4096) -> None:
        self._lock = threading.Lock()
        self._size = size
        self._seen: OrderedDict[str, None] = OrderedDict()

    def is_new(self, reply: Reply, day: date) -> bool | None:
        """Note an answer of that day. ``None`` when it names no order, and nothing tells it from another."""
        number = reply.part("output").get("odno", "")
        if not _is_number(number):
            return None
        name = f"{day} {number}"
        with self._lock:
            if name in self._seen:
                return False
            self._seen[name] = None
            if len(self._seen) > self._size:
                self._seen.popitem(last=False)
            return True


def read_reply(
    status: int, headers: Mapping[str, str], body: bytes, redactor: Redactor = _OPEN
) -> Reply | None:
    """The answer in a response; ``None`` when it is not KIS's envelope (a page of a gateway, half a document)."""
    try:
        found = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or _TORN in found.values():
        return None
    return Reply(
        status, found, headers.get("tr_cont", "").strip(), headers.get("gt_uid", "").strip(), redactor
    )


def parse_kis_place_response(reply: Reply, *, at: datetime, reference: str | None = None) -> OrderResponse:
    """
    What an answer to an order or a cancel proves. ``at`` is when it came.

    Success is ``rt_cd`` "0" and an order number, whatever the HTTP status; a refusal is a code on our own list.

    Raises:
        NotSent: the gateway turned it away before any order system saw it. It may be launched again.
        Rejected: KIS refused it. Never send it again.
        OutcomeUnknown: KIS may hold it. Never send it again; resolve it.
    """
    code, row = reply.code, code_row(reply.code)
    safety = map_broker_error_to_safety(code)
    output = reply.part("output")
    number = output.get("odno", "")
    if reply.is_success and row is None and _is_number(number):
        named = OrderNumber.received(
            output.get("krx_fwdg_ord_orgno", ""), number, output.get("ord_tmd", ""), at
        )
        return OrderResponse(str(named), reply.message, code, reference)
    if reply.is_success:
        raise OutcomeUnknown(
            f"KIS says success but names no order: {reply.shown}" if row is None else _doubtful(reply),
            code=code,
            safety_code=safety,
        )
    if row is None:
        _log.error("kis_code_unlisted code=%s http=%d text=%s", code, reply.status, reply.message)
        raise OutcomeUnknown(
            f"KIS's code is not on our list, so nothing is proved: {reply.shown}",
            code=code,
            safety_code=safety,
        )
    if row.verdict is CodeVerdict.NOT_SENT:
        raise NotSent(f"KIS's gateway turned it away: {reply.shown}", code=code, safety_code=safety)
    if row.verdict is CodeVerdict.REJECTED:
        raise Rejected(f"KIS refused: {reply.shown}", code=code, safety_code=safety)
    raise OutcomeUnknown(_doubtful(reply), code=code, safety_code=safety)


def _doubtful(reply: Reply) -> str:
    return f"KIS's answer proves nothing; it may hold the order: {reply.shown}"


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and int(text) != 0


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        lower = name.lower()
        found[lower] = _TORN if lower in found and found[lower] != value else value
    return found


def _row(found: Mapping[Any, Any]) -> dict[str, str]:
    return {str(name).lower(): _cell(value) for name, value in found.items()}


# What is there and no text must not pass for what is not there.
def _cell(value: Any) -> str:
    return _text(value) if value is None or isinstance(value, (str, int)) else f"<{type(value).__name__}>"


def _text(value: Any) -> str:
    if isinstance(value, str):
        # JSON can spell half a character, which nothing that we write can hold.
        return value.strip().encode("utf-8", "replace").decode()
    return str(value) if isinstance(value, int) else ""
