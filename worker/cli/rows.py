"""
Intents from a JSONL or CSV file, row by row.

A row without an ``intent_id`` gets one from the digest of the file's bytes and its own number, so the same file
sent again is a replay. What cannot be read is a fault with the row's number and the field's name, never a gap.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import IO, Any, BinaryIO, Self, cast

from contracts import ContractError, ExecutionIntent, load_intent
from worker.cli.context import nearest
from worker.errors import Refused

#: A line of JSONL above this is refused before it is read to its end.
LINE_BYTES_MAX = 1024 * 1024
_SPOOL_BYTES = 16 * 1024 * 1024
_FIELDS = list(ExecutionIntent.model_fields)
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
#: Where codes have six characters, as spreadsheets forget.
_SIX_DIGIT_VENUES = (None, "KRX", "NXT", "SOR")


class Format(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: an intent, or the faults that keep it from being one."""

    number: int
    intent: ExecutionIntent | None
    faults: tuple[str, ...] = ()
    #: The row named its own intent_id.
    named: bool = False


class Source:
    """A file of intents, copied aside: what was checked is what is sent, and a pipe can be read twice."""

    def __init__(self, stream: BinaryIO, form: Format) -> None:
        self._form = form
        spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115  # __exit__ closes it
        self._copy = cast("IO[bytes]", spool)
        digest = hashlib.sha256()
        while chunk := stream.read(1024 * 1024):
            digest.update(chunk)
            self._copy.write(chunk)
        #: Of the bytes, as intent_ids carry it.
        self.digest = digest.hexdigest()[:12]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._copy.close()

    def rows(self, now: Callable[[], datetime], expires_in: float | None = None) -> Iterator[Row]:
        """
        Every row, from the first one. Rows without ``created_at`` are created now.

        Raises:
            Refused: the file as a whole cannot be read; the text says what to do.
        """
        self._copy.seek(0)
        if self._copy.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise Refused("the file is UTF-16; save it as UTF-8 (in Excel: 'CSV UTF-8')")
        self._copy.seek(0)
        read = _csv_rows if self._form is Format.CSV else _jsonl_rows
        for number, fields, faults in read(self._copy):
            yield self._row(number, fields, faults, now, expires_in)

    def _row(
        self,
        number: int,
        fields: dict[str, Any],
        faults: list[str],
        now: Callable[[], datetime],
        expires_in: float | None,
    ) -> Row:
        if faults:
            return Row(number, None, tuple(faults))
        named = fields.get("intent_id") is not None
        if not named:
            fields["intent_id"] = f"{self.digest}-{number:06d}"
        if fields.get("created_at") is None:
            fields["created_at"] = now().isoformat()
        try:
            intent = load_intent(json.dumps(fields))
        except ContractError as error:
            return Row(number, None, tuple(error.faults))
        return Row(number, expiring(intent, expires_in), named=named)


def expiring(intent: ExecutionIntent, expires_in: float | None) -> ExecutionIntent:
    """The intent, to expire so many seconds after it was created unless it says when itself."""
    if expires_in is None or intent.expires_at is not None:
        return intent
    return intent.model_copy(update={"expires_at": intent.created_at + timedelta(seconds=expires_in)})


_Raw = tuple[int, dict[str, Any], list[str]]


def _jsonl_rows(file: IO[bytes]) -> Iterator[_Raw]:
    number = 0
    while line := file.readline(LINE_BYTES_MAX):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) == LINE_BYTES_MAX and not line.endswith(b"\n"):
            raise Refused(f"line {number} is longer than {LINE_BYTES_MAX} bytes; give one intent a line")
        if line.strip():
            yield (number, *_json_object(line))


def _json_object(line: bytes) -> tuple[dict[str, Any], list[str]]:
    try:
        found = json.loads(line.decode("utf-8"), object_pairs_hook=_each_name_once)
    except UnicodeDecodeError as error:
        return {}, [f"not UTF-8 at byte {error.start + 1}; save the file as UTF-8"]
    except json.JSONDecodeError as error:
        return {}, [f"no JSON: {error.msg} at column {error.colno}; give one object a line"]
    except (ValueError, RecursionError) as error:
        return {}, [str(error)]
    if not isinstance(found, dict):
        return {}, ['must be a JSON object such as {"symbol": …}, one a line']
    return found, []


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        raise ValueError(f"{twice}: given twice")
    return fields


def _csv_rows(file: IO[bytes]) -> Iterator[_Raw]:
    # Bytes that are not UTF-8 become lone surrogates, and so a fault of their own cell.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        reader = csv.reader(text, strict=True)
        names = _header(reader)
        for number, cells, fault in _records(reader):
            if fault:
                yield number, {}, [fault]
            elif any(cell.strip() for cell in cells):
                yield (number, *_csv_fields(names, cells))
    finally:
        text.detach()


def _header(reader: Any) -> list[str]:
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise Refused(f"the header cannot be read: {error}") from None
    if not any(names):
        raise Refused(
            "the file has no header; its first line must name the fields, such as symbol,side,quantity"
        )
    for name in names:
        if name not in _FIELDS and not (name.startswith("metadata.") and name != "metadata."):
            raise Refused(f"header: {name!r} is no field of an intent{nearest(name, _FIELDS)}")
        if names.count(name) > 1:
            raise Refused(f"header: {name} is there twice")
    return names


def _records(reader: Any) -> Iterator[tuple[int, list[str], str | None]]:
    number = 0
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, [], f"(line {reader.line_num}) not CSV: {error}; look at its quotes"
        else:
            yield number, cells, None


def _csv_fields(names: list[str], cells: list[str]) -> tuple[dict[str, Any], list[str]]:
    if len(cells) != len(names):
        return {}, [f"has {len(cells)} cells where the header has {len(names)}"]
    fields: dict[str, Any] = {}
    faults: list[str] = []
    metadata: dict[str, Any] = {}
    for name, cell in zip(names, (cell.strip() for cell in cells), strict=True):
        if _NOT_UTF8.search(cell):
            faults.append(f"{name}: not UTF-8; save the file as UTF-8 (in Excel: 'CSV UTF-8')")
        elif cell and name.startswith("metadata."):
            metadata[name.removeprefix("metadata.")] = cell
        elif cell:
            fields[name] = _csv_value(name, cell, faults)
    if metadata:
        fields["metadata"] = {**fields.get("metadata", {}), **metadata}
    if _lost_its_zeros(fields):
        faults.append(
            f"symbol: {fields['symbol']} looks like a code of six digits that a spreadsheet has cut; write "
            f"{fields['symbol']:0>6}, or name the venue where it is traded"
        )
    return fields, faults


def _csv_value(name: str, cell: str, faults: list[str]) -> Any:
    if name == "schema_version" and cell.isascii() and cell.isdigit():
        return int(cell)
    if name != "metadata":
        return cell
    found, why = _json_object(cell.encode())
    faults += [f"metadata: {fault}" for fault in why]
    return found


def _lost_its_zeros(fields: dict[str, Any]) -> bool:
    symbol = str(fields.get("symbol", ""))
    short = symbol.isascii() and symbol.isdigit() and len(symbol) < 6
    return short and fields.get("venue") in _SIX_DIGIT_VENUES
