"""Archives as inputs: the images inside zip and tar files, listed once and read by themselves.

A member's URI says where its bytes lie, as `tar:file:///data/x.tar!/a/b.jpg?at=1536&size=812`. So each is
read by one look at one range, by any number of threads and machines, and no archive is searched per image.
Nothing is ever extracted to a name that an archive gives.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import parse_qsl, quote_from_bytes, unquote_to_bytes, urlencode

from imagebatch.contracts.records import Reason
from imagebatch.errors import StorageError
from imagebatch.inputs.unavailable import ImageUnavailableError

Ranges = Callable[[int, int], bytes]  # (first byte, number of bytes) → that many bytes, or fewer at the end

_SUFFIXES = {
    ".zip": "zip",
    ".tar": "tar",
    **dict.fromkeys((".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"), "tar"),
}
_OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    "": lambda stream: stream,
    "gz": lambda stream: cast("IO[bytes]", gzip.GzipFile(fileobj=stream)),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}
_PACKINGS = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
_BLOCK = 1 << 20
_TAR_BLOCK = 512
_TAR_NAME = 100  # bytes that the header itself has for it
_MOVED = "the archive has changed or is cut: the image is not where it was"
# Images hardly shrink. What grows more than this while it is unpacked is a bomb, or no archive of images.
_MOST_GROWTH, _ALWAYS_FINE = 100, 1 << 28
_LARGEST = 1 << 62
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_LOCAL_EXTRA = 1024  # bytes of a zip's local header that are read ahead of what its name takes
_ENCRYPTED = 0x1
_UTF8 = 0x800
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
    *(struct.error, ValueError, NotImplementedError, OverflowError),
)


class DamagedArchiveError(Exception):
    """An archive that cannot be listed to its end; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Member:
    """An image in an archive.

    Attributes:
        archive: URI of the archive.
        name: As the archive says it.
        kind: `zip` or `tar`.
        at: Where it begins: its header in a zip, its content in a tar, once that is unpacked.
        size: Bytes of content.
        packed: Bytes that the content takes in a zip.
        method: A zip's number of its compression.
        crc: A zip's checksum of the content.
        packing: How the whole tar is packed: `gz`, `bz2`, `xz` or empty.
        refused: Why it cannot be read: `link`, `encrypted` …; empty if it can.
    """

    archive: str
    name: bytes
    kind: str
    at: int = 0
    size: int = 0
    packed: int = 0
    method: int = 0
    crc: int = 0
    packing: str = ""
    refused: str = ""

    @property
    def uri(self) -> str:
        """Write it as a URI."""
        fields = ("at", "size", "packed", "method", "crc", "packing", "refused")
        query = urlencode({field: value for field in fields if (value := getattr(self, field))})
        return f"{self.kind}:{self.archive}!/{quote_from_bytes(self.name)}{'?' if query else ''}{query}"


def is_member(uri: str) -> bool:
    """Tell whether a URI names a member of an archive."""
    return uri.startswith(("zip:", "tar:")) and not uri.startswith(("zip://", "tar://")) and "!/" in uri


def member_of(uri: str) -> Member:
    """Read a member's URI.

    Raises:
        ImageUnavailableError: It is none that this program has written.
    """
    kind, _, rest = uri.partition(":")
    archive, _, inside = rest.rpartition("!/")
    name, _, query = inside.partition("?")
    try:
        found: dict[str, Any] = dict(parse_qsl(query, strict_parsing=bool(query)))
        numbers = {key: int(found.pop(key, 0)) for key in ("at", "size", "packed", "method", "crc")}
        found |= numbers
        member = Member(archive, unquote_to_bytes(name), kind, **found)
    except (ValueError, TypeError) as error:
        raise ImageUnavailableError(Reason.NOT_FOUND, "no member of an archive") from error
    if not all(0 <= number < _LARGEST for number in numbers.values()) or member.packing not in _OPENERS:
        raise ImageUnavailableError(Reason.NOT_FOUND, "no member of an archive")
    return member


def archive_kind(name: str, head: bytes = b"") -> str:
    """Tell what an archive is by its name or first 262 bytes: `zip`, `tar`, or nothing."""
    low = name.lower()
    for suffix, kind in _SUFFIXES.items():
        if low.endswith(suffix):
            return kind
    return "zip" if head.startswith(b"PK\x03\x04") else "tar" if head[257:262] == b"ustar" else ""


def members(archive: str, kind: str, stream: IO[bytes], size: int, key: object) -> Iterator[Member]:
    """List an archive's files.

    Args:
        archive: Its URI.
        kind: `zip` or `tar`.
        stream: The archive, seekable.
        size: Its bytes.
        key: Changes when the archive does.

    Raises:
        DamagedArchiveError: It cannot be listed to its end.
        StorageError: There is no room to unpack it.
    """
    try:
        if kind == "zip":
            yield from _of_zip(archive, stream)
            return
        head = stream.read(8)
        stream.seek(0)
        packing = next((name for mark, name in _PACKINGS.items() if head.startswith(mark)), "")
        if packing:
            descriptor = _unpacked(archive, packing, stream, size, key)
            with open(descriptor, "rb", closefd=False) as whole:
                whole.seek(0)
                yield from _of_tar(archive, packing, whole)
        else:
            yield from _of_tar(archive, "", stream)
    except _DAMAGED as error:
        raise DamagedArchiveError(f"the archive is damaged, or none: {error}; copy it again") from error


def _of_zip(archive: str, stream: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(stream) as packed:
        for info in packed.infolist():
            if info.is_dir():
                continue
            name = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
            mode = info.external_attr >> 16
            odd = "encrypted" if info.flag_bits & _ENCRYPTED else ""
            if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
                odd = "link" if stat.S_ISLNK(mode) else "special"
            yield Member(
                *(archive, name, "zip", info.header_offset, info.file_size, info.compress_size),
                *(info.compress_type, info.CRC),
                refused=odd,
            )


def _of_tar(archive: str, packing: str, stream: IO[bytes]) -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # its stubs lack it; it keeps every header otherwise
            if info.isdir():
                continue
            odd = "" if info.isreg() else "link" if info.issym() or info.islnk() else "special"
            odd = "sparse" if info.issparse() else odd
            name = info.name.encode("utf-8", "surrogateescape")
            place = (info.offset_data, info.size)
            yield Member(archive, name, "tar", *place, packing=packing, refused=odd)
        _require_end(stream, tar.offset)


def _require_end(stream: IO[bytes], at: int) -> None:
    """Check that nothing follows: a reader stops without a word where a header is damaged or missing."""
    stream.seek(at)
    padding = 0
    while block := stream.read(_BLOCK):
        if block.count(0) != len(block):
            raise DamagedArchiveError(
                f"the archive is damaged at byte {at}, or two were joined into one: what follows is not read;"
                " copy it again, or pack it anew"
            )
        padding += len(block)
    if padding < _TAR_BLOCK:
        raise DamagedArchiveError("the archive has no end: it was cut short; copy it again")


def content(member: Member, read: Ranges, max_bytes: int) -> bytes:
    """Return a member's content.

    Args:
        member: As it was listed.
        read: Reads the archive; what a packed tar unpacks to, if it is one.
        max_bytes: Larger ones are refused, whatever the archive says about their size.

    Raises:
        ImageUnavailableError: It cannot be had.
    """
    _require_readable(member, max_bytes)
    if member.kind == "tar":
        return _tar_bytes(member, read)
    packed = _zip_bytes(member, read)
    data = _inflated(member, packed, max_bytes)
    if len(data) > max_bytes:
        raise ImageUnavailableError(
            Reason.TOO_MANY_BYTES, f"unpacks to more than the {max_bytes} bytes that are taken"
        )
    if len(data) != member.size or zlib.crc32(data) != member.crc:
        raise ImageUnavailableError(Reason.UNREADABLE, "damaged in the archive: its checksum differs")
    return data


def _require_readable(member: Member, max_bytes: int) -> None:
    if member.name.startswith(b"/") or b".." in member.name.split(b"/"):
        raise ImageUnavailableError(Reason.OUTSIDE_ALLOWED_ROOTS, "its name leads out of the archive")
    if member.refused == "encrypted":
        raise ImageUnavailableError(Reason.UNREADABLE, "encrypted in the archive; pack it without a password")
    if member.refused:
        raise ImageUnavailableError(
            Reason.NOT_A_FILE, f"a {member.refused} in the archive, not a regular file"
        )
    if max(member.size, member.packed - _BLOCK) > max_bytes:
        raise ImageUnavailableError(
            Reason.TOO_MANY_BYTES, f"{member.size} bytes, at most {max_bytes} are taken"
        )


def _tar_bytes(member: Member, read: Ranges) -> bytes:
    """Read a member's content, if the header before it is its own: the archive may have been replaced."""
    found = read(member.at - _TAR_BLOCK, _TAR_BLOCK + member.size) if member.at >= _TAR_BLOCK else b""
    try:
        header = tarfile.TarInfo.frombuf(found[:_TAR_BLOCK], "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise ImageUnavailableError(Reason.UNREADABLE, _MOVED) from error
    name = header.name.encode("utf-8", "surrogateescape")
    # Long names, and those of other scripts, stand in a header of their own before this one.
    plain = member.name.isascii() and len(member.name) < _TAR_NAME
    if len(found) != _TAR_BLOCK + member.size or (
        plain and (name, header.size) != (member.name, member.size)
    ):
        raise ImageUnavailableError(Reason.UNREADABLE, _MOVED)
    return found[_TAR_BLOCK:]


def _zip_bytes(member: Member, read: Ranges) -> bytes:
    """Read a member's compressed bytes: its local header says how long it is itself."""
    ahead = _LOCAL_HEADER.size + len(member.name) + _LOCAL_EXTRA
    found = read(member.at, ahead + member.packed)
    if len(found) >= _LOCAL_HEADER.size:
        mark, *_, name_length, extra_length = _LOCAL_HEADER.unpack_from(found)
        begin = _LOCAL_HEADER.size + name_length + extra_length
        data = found[begin : begin + member.packed]
        if len(data) < member.packed and begin > ahead:
            data = read(member.at + begin, member.packed)
        name = found[_LOCAL_HEADER.size :][:name_length]
        if (mark, name, len(data)) == (b"PK\x03\x04", member.name, member.packed):
            return data
    raise ImageUnavailableError(Reason.UNREADABLE, _MOVED)


def _inflated(member: Member, packed: bytes, max_bytes: int) -> bytes:
    try:
        if member.method == zipfile.ZIP_STORED:
            return packed
        if member.method == zipfile.ZIP_DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, max_bytes + 1)
        if member.method == zipfile.ZIP_BZIP2:
            return bz2.BZ2Decompressor().decompress(packed, max_bytes + 1)
    except (zlib.error, OSError, ValueError) as error:
        raise ImageUnavailableError(Reason.UNREADABLE, f"damaged in the archive: {error}") from error
    raise ImageUnavailableError(
        Reason.UNREADABLE, f"compressed by method {member.method}; deflate, bzip2 and none are read"
    )


_unpacking = threading.Lock()
# Descriptors of files without a name, which live as long as this process.
_copies: dict[tuple[str, object], int] = {}


def ranges_of_packed(member: Member, stream: IO[bytes], size: int, key: object) -> Ranges:
    """Return a reader of what a packed tar unpacks to, once in a process, into a temporary file.

    Raises:
        ImageUnavailableError: It is damaged.
        StorageError: There is no room.
    """
    try:
        copy = _unpacked(member.archive, member.packing, stream, size, key)
    except (DamagedArchiveError, *_DAMAGED) as error:
        raise ImageUnavailableError(Reason.UNREADABLE, error) from error
    return lambda at, length: os.pread(copy, length, at)


def _unpacked(archive: str, packing: str, stream: IO[bytes], size: int, key: object) -> int:
    with _unpacking:
        if (archive, key) in _copies:
            return _copies[archive, key]
        most = max(_ALWAYS_FINE, size * _MOST_GROWTH)
        descriptor, name = tempfile.mkstemp(prefix="imagebatch-unpacked-")
        Path(name).unlink()
        try:
            _copy(_OPENERS[packing](stream), descriptor, most)
        except BaseException:
            os.close(descriptor)
            raise
        _copies[archive, key] = descriptor
        return descriptor


def _copy(packed: IO[bytes], descriptor: int, most: int) -> None:
    written = 0
    while block := _next_block(packed):
        written += len(block)
        if written > most:
            raise DamagedArchiveError(
                f"the archive unpacks to more than {most} bytes: a bomb? If not, give it unpacked"
            )
        try:
            left = memoryview(block)
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError as error:
            raise StorageError(
                f"cannot unpack an archive into {tempfile.gettempdir()}: {error.strerror}; let TMPDIR name a"
                " folder with room, or give the archive unpacked"
            ) from error


def _next_block(packed: IO[bytes]) -> bytes:
    try:
        return packed.read(_BLOCK)
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedArchiveError(
            f"the archive is damaged: {error}; copy it again"
        ) from error  # bzip2 says so
