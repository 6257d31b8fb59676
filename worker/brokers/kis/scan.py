"""
Reading one order list of KIS, page by page, to its end.

A list is whole only when it was read to its end mark and nothing in it contradicts itself. One that is not whole can
show that an order is there, never that it is not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from worker.brokers.kis.client import ReadFailed
from worker.brokers.kis.payload import Call
from worker.brokers.kis.replies import Reply

_log = logging.getLogger(__name__)

#: More pages than any day has; a list that goes on is no list.
PAGES_MAX: Final = 500
_MORE: Final = frozenset({"F", "M"})
#: Digits of the largest total that is taken for one.
_DIGITS_MAX: Final = 30
#: A continuation key that means "no more", whatever the header says. (1src, 2026-09)
_END_KEY: Final = "^^"

Row = Mapping[str, str]


class Pages(Protocol):
    """What reading a list needs of `KISClient`."""

    def get(self, call: Call, *, continued: bool = False) -> Reply: ...


@dataclass(frozen=True, slots=True)
class ListShape:
    """Where a list keeps its rows, its continuation keys and its total."""

    rows: str
    #: ``100`` or ``200``, as in ``ctx_area_nk100``.
    suffix: str
    #: Names a row within the list.
    identity: tuple[str, ...]
    #: The sum of the ordered quantities, as the first page promises it: ``(part, field, field of a row)``.
    total: tuple[str, str, str] | None = None


DOMESTIC: Final = ListShape(
    "output1", "100", ("ord_dt", "ord_gno_brno", "odno"), ("output2", "tot_ord_qty", "ord_qty")
)
US: Final = ListShape("output", "200", ("dmst_ord_dt", "ord_gno_brno", "odno"))


@dataclass(frozen=True, slots=True)
class Listing:
    """The rows that were read, in the order of the pages, and why they are not all, if they are not."""

    rows: tuple[Row, ...]
    #: Empty when the list is whole.
    fault: str = ""


def read_list(
    client: Pages, call: Call, shape: ListShape, *, page_rows: int, is_filtered: bool = False
) -> Listing:
    """
    Every page of a list. ``page_rows`` is what a full page has; the totals of a list that ``is_filtered`` are of more
    than it shows.

    Raises:
        ReadFailed: not even the first page came.
    """
    rows: list[Row] = []
    fault = ""
    seen: set[tuple[str, ...]] = set()
    promised: int | None = None
    for page in _pages(client, call, shape):
        if isinstance(page, str):
            fault = page
            break
        found = page.rows(shape.rows)
        # A page without rows has an empty list or null in their place; one without the place is no page of this list.
        if found is None and page.fields.get(shape.rows, page) not in (None, ""):
            fault = f"a page has no list of rows in {shape.rows}"
            break
        found = found or []
        names = [tuple(row.get(name, "") for name in shape.identity) for row in found]
        rows += [row for row, name in zip(found, names, strict=True) if name not in seen]
        fault = _contradiction(page, names, seen, page_rows)
        if fault:
            break
        seen.update(names)
        if promised is None:
            promised = _promised(page, shape)
    if not fault and not is_filtered and shape.total and promised is not None:
        listed = sum(_whole(row.get(shape.total[2], "")) or 0 for row in rows)
        if listed < promised:
            fault = f"the list promises {promised} ordered shares and shows {listed}"
    if fault:
        _log.warning("kis_list_incomplete path=%s rows=%d why=%s", call.path, len(rows), fault)
    return Listing(tuple(rows), fault)


def _pages(client: Pages, call: Call, shape: ListShape) -> Iterator[Reply | str]:
    fk, nk = f"ctx_area_fk{shape.suffix}", f"ctx_area_nk{shape.suffix}"
    used: set[tuple[str, str]] = set()
    page = client.get(call)
    for _ in range(PAGES_MAX):
        yield page
        key = page.text(fk), page.text(nk)
        if page.tr_cont not in _MORE or key[1] == _END_KEY:
            return
        if not key[1]:
            yield "there are more pages, and no key to the next one"
            return
        if key in used:
            yield "a page's key leads to a page that was read"
            return
        used.add(key)
        following = dict(call.fields) | {fk.upper(): key[0], nk.upper(): key[1]}
        try:
            page = client.get(replace(call, fields=following), continued=True)
        except ReadFailed as error:
            yield f"page {len(used) + 1} did not come: {error.message}"
            return
    yield f"more than {PAGES_MAX} pages"


def _contradiction(
    page: Reply, names: list[tuple[str, ...]], seen: set[tuple[str, ...]], page_rows: int
) -> str:
    if any(name in seen for name in names) or len(set(names)) < len(names):
        return "a row came twice: the list changed while it was read"
    if page.tr_cont in _MORE and len(names) < page_rows:
        return f"a page says that more follow, and has {len(names)} rows of {page_rows}"
    return ""


def _promised(page: Reply, shape: ListShape) -> int | None:
    return None if shape.total is None else _whole(page.part(shape.total[0]).get(shape.total[1], ""))


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else None
