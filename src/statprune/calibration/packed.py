"""A compressed file -> the bytes it holds, unless it breaks off, or is made to fill the memory."""

import gzip
import io
import lzma
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard

from statprune.errors import DataError

COMPRESSIONS = (".gz", ".xz", ".zst")

UNSUSPECTED = 2**30
"""Bytes that any file may hold, however small it is."""

TIMES = 100
"""How many times its size a file beyond that may hold: text is packed four to twenty times smaller."""

_PIECE = 2**20
_PACKED_PIECE = 2**12
_DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError)


def unpacked(packed: bytes, path: Path) -> bytes:
    """What `packed`, the content of the file `path`, is by the extension: itself, or decompressed.

    Raises:
        DataError: it breaks off or is damaged, or it holds more than a GiB and 100 times its own size.
    """
    pieces = {".gz": _of_gzip, ".xz": _of_xz, ".zst": _of_zstandard}.get(path.suffix.lower())
    if pieces is None:
        return packed
    try:
        return _joined(pieces(packed), max(UNSUSPECTED, TIMES * len(packed)), path)
    except _DAMAGE as failure:
        message = f"{path}: the compressed file is damaged or incomplete ({failure}); fetch or pack it again"
        raise DataError(message) from failure


def _joined(pieces: Iterable[bytes], most: int, path: Path) -> bytes:
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > most:
            raise DataError(
                f"{path}: it unpacks to more than {most} bytes, as no text does that is packed so small; "
                "if it is what you mean, unpack it, or give a part of it"
            )
    return bytes(content)


def _of_gzip(packed: bytes) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        yield from iter(lambda: file.read(_PIECE), b"")


def _of_xz(packed: bytes) -> Iterator[bytes]:
    # LZMAFile stops silently at what is no stream: hence stream by stream; zeros may lie between.
    while packed:
        stream = lzma.LZMADecompressor()
        yield stream.decompress(packed, max_length=_PIECE)
        while not stream.eof:
            if stream.needs_input:
                raise EOFError("the last stream has no end")
            yield stream.decompress(b"", max_length=_PIECE)
        rest = stream.unused_data.lstrip(b"\0")
        if (len(stream.unused_data) - len(rest)) % 4:
            raise EOFError("what follows a stream is none")
        packed = rest


def _of_zstandard(packed: bytes) -> Iterator[bytes]:
    # stream_reader and open() stop silently at a frame's end and at a missing end: hence frame by frame.
    frame, place = zstandard.ZstdDecompressor().decompressobj(), 0
    while place < len(packed):
        if frame.eof:
            frame = zstandard.ZstdDecompressor().decompressobj()
        piece = packed[place : place + _PACKED_PIECE]
        yield frame.decompress(piece)
        place += len(piece) - len(frame.unused_data)
    if packed and not frame.eof:
        raise EOFError("the last frame has no end")
