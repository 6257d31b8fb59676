"""What every call has in common on the wire: what was asked, what is answered, and how lists are paged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from worker.simulate.kis.calls import Call
from worker.simulate.kis.codes import GATEWAY, Code

#: The continuation keys are padded to these widths, domestic and overseas.
KEY_WIDTH, OVERSEAS_KEY_WIDTH = 100, 200


class Refused(Exception):
    """The call is answered with a code, and nothing was done."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.code)
        self.code = code


def refused(code: str) -> Refused:
    """A refusal of the gateway."""
    return Refused(GATEWAY[code])


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, read."""

    call: Call
    #: Query or body.
    params: Mapping[str, Any]
    #: Names in lower case.
    headers: Mapping[str, str]

    @property
    def tr_id(self) -> str:
        return self.headers.get("tr_id", "")

    @property
    def is_continued(self) -> bool:
        return self.headers.get("tr_cont", "").strip() == "N"

    def text(self, name: str, otherwise: str | None = None) -> str:
        """
        The value of a parameter, without the spaces around it.

        Raises:
            Refused: it is missing and there is nothing to take otherwise, or it is no string.
        """
        value = self.params.get(name, otherwise)
        if not isinstance(value, str):
            raise refused("IGW00007")
        return value.strip()


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: Mapping[str, Any]
    #: ``F`` or ``M``: more pages; ``D``: the last one.
    tr_cont: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def answered(code: Code, **payload: Any) -> Reply:
    """An answer with the usual envelope."""
    envelope = {"rt_cd": code.rt_cd, "msg_cd": code.code, "msg1": code.message}
    return Reply(code.status, payload | envelope)


def oauth_refused(code: str, message: str) -> Reply:
    """The OAuth calls say no in words of their own."""
    return Reply(403, {"error_code": code, "error_description": message})


def hash_of(body: Mapping[str, Any]) -> str:
    """The hashkey of an order's body: 64 hex digits, blind to spaces in the JSON."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest().upper()


# --- Pages ------------------------------------------------------------------------------------------------

#: Where a row stands in a list: the Korean date and the number.
Place = tuple[date, str]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list."""

    rows: Sequence[Any]
    #: The place of its last row, when there are more.
    ends_at: Place | None


def page_of(places: Sequence[tuple[Place, Any]], size: int, after: Place | None, newest_first: bool) -> Page:
    """The rows behind a place, which are at most ``size``. The list is oldest first; pages may not be."""
    if newest_first:
        left = [one for one in reversed(places) if after is None or one[0] < after]
    else:
        left = [one for one in places if after is None or one[0] > after]
    shown = left[:size]
    return Page([row for _, row in shown], shown[-1][0] if len(left) > size else None)


def continued_after(asked: Asked, suffix: str) -> Place | None:
    """
    The place that the client's continuation key names; none on a first page.

    Raises:
        Refused: it asks for a following page with a key that is none of ours.
    """
    key = asked.text(f"CTX_AREA_NK{suffix}", "")
    if not asked.is_continued or not key:
        return None
    day, _, number = key.partition("^")
    try:
        return date.fromisoformat(day), number
    except ValueError:
        raise refused("IGW00007") from None


def paged(asked: Asked, page: Page, suffix: str, code: Code, **payload: Any) -> Reply:
    """The answer that carries a page, with its continuation keys and header."""
    width = OVERSEAS_KEY_WIDTH if suffix == "200" else KEY_WIDTH
    key = "" if page.ends_at is None else f"{page.ends_at[0].isoformat()}^{page.ends_at[1]}"
    query = "!^".join(value for name, value in asked.params.items() if not name.startswith("CTX_"))
    body = answered(
        code,
        **{f"ctx_area_fk{suffix}": query[:width].ljust(width), f"ctx_area_nk{suffix}": key.ljust(width)},
        **payload,
    )
    more = page.ends_at is not None
    tr_cont = "D" if not more else "M" if asked.is_continued else "F"
    return Reply(body.status, body.body, tr_cont)
