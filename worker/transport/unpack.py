"""Bodies that a kombu producer compressed: unpacked, but never to more than an entry may hold."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Final, Protocol

#: Bytes that LZMA may take for its dictionary, which a header of a few bytes asks for.
_LZMA_MEMORY: Final = 32 * 1024 * 1024


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


#: kombu's own spellings (kombu.compression, 5.6).
_UNPACKERS: Final[dict[tuple[str, ...], Callable[[], _Unpacker]]] = {
    ("application/x-gzip", "gzip", "zlib"): zlib.decompressobj,
    ("application/x-bz2", "bzip2", "bzip"): bz2.BZ2Decompressor,
    ("application/x-lzma", "lzma", "xz"): lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY),
}
_BY_NAME: Final = {name: make for names, make in _UNPACKERS.items() for name in names}


def unpacked(body: bytes, compression: str, bytes_max: int) -> bytes:
    """
    The body as it was before it was compressed. A few hundred bytes can hold gigabytes, so it is unpacked only as
    far as the limit; no more memory is taken however large it would become.

    Raises:
        ValueError: of an unknown kind, damaged, or larger than ``bytes_max``.
    """
    make = _BY_NAME.get(compression)
    if make is None:
        raise ValueError("it is compressed in a way that is not known here; send it as it is, or as zlib")
    unpacker = make()
    try:
        found = unpacker.decompress(body, bytes_max + 1)
    except (zlib.error, OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(f"damaged: {error}") from None
    if len(found) > bytes_max:
        raise ValueError(f"it would take more than {bytes_max} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("damaged: it ends too early, or something follows its end")
    return found
