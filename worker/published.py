"""Reads what the workers have published. What a stranger has put into such a stream is no message, and stops no reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from contracts import ContractError

_M = TypeVar("_M")


def messages(
    load: Callable[[bytes], _M],
    rows: Iterable[tuple[bytes, Mapping[bytes, bytes]]],
    strangers: list[str] | None = None,
) -> Iterator[_M]:
    """The messages of some entries. The ids of those that are none are added to ``strangers``."""
    for entry_id, fields in rows:
        try:
            message = load(fields.get(b"body", b""))
        except ContractError:
            if strangers is not None:
                strangers.append(entry_id.decode())
            continue
        yield message
