"""
How the audit trail is sealed. Values only.

The entries of the trail make one chain of hashes: ``h = SHA-256(h before || id || fields)``, each part behind its
length in eight bytes. A seal says how far the chain has come and what its hash is there. Whoever changes, removes or
inserts an entry must write all later seals anew, and is found out by any copy of one of them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import Final, NamedTuple

#: Before the first entry of a route's trail.
GENESIS: Final = sha256(b"the audit trail begins").hexdigest()

_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
#: As `Tip.text` writes it.
_TIP: Final = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64}):([0-9]{1,20}-[0-9]{1,20})", re.ASCII)
_LENGTH: Final = struct.Struct(">Q")
#: An id's milliseconds and its number among those, and a digest of the fields.
_MARK: Final = struct.Struct(">QQ8s")


class Entry(NamedTuple):
    """One entry of the audit stream, as Redis gives it."""

    id: bytes
    fields: Mapping[bytes, bytes]

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in the stream."""
        return place_of(self.id.decode())

    @property
    def mark(self) -> Mark:
        return Mark(self.place, sha256(b"".join(self._parts())).digest()[:8])

    def _parts(self) -> Iterator[bytes]:
        for part in chain.from_iterable(self.fields.items()):
            yield _LENGTH.pack(len(part))
            yield part

    def chained(self, previous: bytes) -> bytes:
        """The chain's hash with this entry."""
        link = (previous, _LENGTH.pack(len(self.id)), self.id, *self._parts())
        return sha256(b"".join(link)).digest()


class Mark(NamedTuple):
    """What a seal remembers of one entry, to tell which one was tampered with. The chain's hash is what proves."""

    place: tuple[int, int]
    digest: bytes

    @property
    def id(self) -> str:
        return f"{self.place[0]}-{self.place[1]}"

    @property
    def packed(self) -> bytes:
        return _MARK.pack(*self.place, self.digest)


@dataclass(frozen=True, slots=True)
class Tip:
    """Where the chain ends: all that the next seal needs of the one before it."""

    number: int
    #: The chain's hash there; hexadecimal.
    hash: str
    #: The id of the last entry that is sealed.
    last: str

    @property
    def name(self) -> str:
        """The seal's: ``NUMBER:HASH``."""
        return f"{self.number}:{self.hash}"

    @property
    def text(self) -> str:
        """As the route's state remembers it."""
        return f"{self.name}:{self.last}"

    @classmethod
    def read(cls, text: bytes) -> Tip:
        """
        Raises:
            ValueError: it is none.
        """
        found = _TIP.fullmatch(text.decode("utf-8", "replace"))
        if found is None:
            raise ValueError("no number, hash and id of an entry")
        return cls(int(found[1]), found[2], found[3])


@dataclass(frozen=True, slots=True)
class Seal:
    """What the trail was up to the entry ``last``."""

    #: From 1, without a gap.
    number: int
    #: The ids of the entries since the seal before, how many, and a mark of each.
    first: str
    last: str
    count: int
    marks: bytes
    #: The chain's hash at ``last``, and at the seal before; hexadecimal.
    hash: str
    previous: str

    @property
    def name(self) -> str:
        """What to keep a copy of: ``NUMBER:HASH``."""
        return self.tip.name

    @property
    def tip(self) -> Tip:
        return Tip(self.number, self.hash, self.last)

    def follows(self, before: Tip) -> bool:
        """Whether it is the next one after that, as far as its own words go."""
        is_next = (self.number, self.previous) == (before.number + 1, before.hash)
        return is_next and place_of(self.last) > place_of(before.last)

    def fields(self) -> dict[str, str | int | bytes]:
        """As an entry of the seals stream."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def read(cls, fields: Mapping[bytes, bytes]) -> Seal:
        """
        Raises:
            ValueError: it is no seal.
        """
        try:
            text = {name: fields[name.encode()] for name in cls.__slots__}
            for name in ("hash", "previous"):
                if _HASH.fullmatch(text[name].decode()) is None:
                    raise ValueError(f"no seal: its {name} is no hash")
            place_of(text["first"].decode()), place_of(text["last"].decode())
            return cls(
                int(text["number"]),
                text["first"].decode(),
                text["last"].decode(),
                int(text["count"]),
                text["marks"],
                text["hash"].decode(),
                text["previous"].decode(),
            )
        except (KeyError, UnicodeDecodeError) as error:
            raise ValueError(f"no seal: {error}") from error

    def unpacked(self) -> list[Mark]:
        """
        Raises:
            ValueError: the marks do not belong to this seal.
        """
        if not self.count or len(self.marks) != self.count * _MARK.size:
            raise ValueError("not one mark for each entry")
        found = [Mark((ms, seq), digest) for ms, seq, digest in _MARK.iter_unpack(self.marks)]
        if (found[0].id, found[-1].id) != (self.first, self.last):
            raise ValueError("the marks are of other entries")
        return found


def place_of(entry_id: str) -> tuple[int, int]:
    """
    An entry id as something that sorts.

    Raises:
        ValueError: it is no entry id.
    """
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)


def seal(before: Seal | Tip | None, entries: Sequence[Entry]) -> Seal:
    """The seal over these entries, at least one, which come right after those of ``before``."""
    previous = before.hash if before else GENESIS
    return Seal(
        number=before.number + 1 if before else 1,
        first=entries[0].id.decode(),
        last=entries[-1].id.decode(),
        count=len(entries),
        marks=b"".join(one.mark.packed for one in entries),
        hash=chained(previous, entries),
        previous=previous,
    )


def chained(previous: str, entries: Sequence[Entry]) -> str:
    """The chain's hash after these entries."""
    link = bytes.fromhex(previous)
    for one in entries:
        link = one.chained(link)
    return link.hex()
