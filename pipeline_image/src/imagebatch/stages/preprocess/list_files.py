"""The files of a list, wherever they lie: one, or the parts that a job has written into a folder."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, cast
from urllib.parse import unquote

import fsspec

from imagebatch.errors import ConfigurationError, InputNotFoundError
from imagebatch.inputs.names import local_path, require_this_machine, to_uri
from imagebatch.inputs.source import ImageSource
from imagebatch.stages.preprocess.list_columns import Asked, BadListError, Table
from imagebatch.stages.preprocess.list_tables import ParquetTable, SheetTable
from imagebatch.stages.preprocess.list_text import decoded, encoding_of, text_table

_HEAD = 8192
_PARTITION_NULL = "__HIVE_DEFAULT_PARTITION__"
# What a table with a history of its own keeps beside its files, some of which do not count any more.
_WITH_HISTORY = {"_delta_log": "Delta", ".hoodie": "Hudi", "metadata": "Iceberg"}
_SPREADSHEET_NAMES = (
    b"[Content_Types].xml",
    b"xl/",
    b"mimetypeapplication/vnd.oasis.opendocument",
    b"_rels/",
)
_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a list: its URI, and the columns that the folders above it give (`date=2026-01-31/`)."""

    uri: str
    columns: dict[str, str]


def parts_of(flag: str, manifest: str, source: ImageSource) -> list[Part]:
    """Find the files of a list.

    Args:
        flag: What it was given by, for messages.
        manifest: A file or folder, as a path or URI.
        source: Says what may be read.

    Raises:
        BadListError: A folder without parts, or of a table whose files alone do not say what it holds.
        InputNotFoundError: There is nothing of this name.
        ConfigurationError: The kind of URI is not known.
    """
    uri = to_uri(manifest)
    require_this_machine(flag, uri)
    path = local_path(uri)
    names = _stored_names(flag, uri) if path is None else _local_names(flag, path)
    if names is None:
        return [Part(uri, {})]
    _require_plain(names)
    found = [name for name in names if not any(part[:1] in {"_", "."} for part in name.split("/"))]
    if not found:
        raise BadListError("a folder without a part of a list in it")
    parts = [Part(_below(uri, name), _partition(name)) for name in sorted(found)]
    outside = [part.uri for part in parts if not source.allows(part.uri)]
    if outside:
        raise ConfigurationError(f"{outside[0]} is outside the allowed roots")
    return parts


def _local_names(flag: str, path: str) -> list[str] | None:
    if "\0" in path:
        raise InputNotFoundError(f"{flag} {path}: no file has a zero byte in its name")
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputNotFoundError(f"{flag} {path}: no such file") from error
    if stat.S_ISREG(mode):
        return None
    if not stat.S_ISDIR(mode):
        raise InputNotFoundError(f"{flag} {path}: neither a file nor a folder; a list is read twice")
    return [
        os.path.relpath(os.path.join(folder, name), path)
        for folder, _, names in os.walk(path)
        for name in names
    ]


def _stored_names(flag: str, uri: str) -> list[str] | None:
    try:
        filesystem, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(f"{flag} {uri}: {error}") from error
    filesystem.invalidate_cache()
    if filesystem.info(root)["type"] != "directory":
        return None
    base = root.rstrip("/") + "/"
    return [str(key).removeprefix(base) for key in filesystem.find(root)]


def _below(uri: str, name: str) -> str:
    path = local_path(uri)
    return f"{uri.rstrip('/')}/{name}" if path is None else to_uri(f"{path.rstrip('/')}/{name}")


def _partition(name: str) -> dict[str, str]:
    """Read the columns of Hive's folder names."""
    pairs = (folder.split("=", 1) for folder in name.split("/")[:-1] if "=" in folder)
    return {unquote(key): "" if value == _PARTITION_NULL else unquote(value) for key, value in pairs}


def _require_plain(names: list[str]) -> None:
    for name in names:
        first = name.split("/", 1)[0]
        kind = _WITH_HISTORY.get(first, "")
        if kind and (kind != "Iceberg" or name.endswith(".metadata.json")):
            raise BadListError(
                f"a {kind} table, whose older files do not count: write the rows wanted as Parquet or CSV"
            )
        if first == "_temporary":
            raise BadListError("a job is still writing it, or has failed: _temporary is there")


@contextlib.contextmanager
def open_part(part: Part, encoding: str, asked: Asked) -> Iterator[Table]:
    """Open a file of a list; what it is, its first bytes say.

    Args:
        part: The file.
        encoding: Of text; empty: found out.
        asked: The columns asked for.

    Raises:
        BadListError: It is no list, or damaged.
        OSError: It cannot be read.
    """
    path = local_path(part.uri)
    packed = False
    with contextlib.ExitStack() as stack:
        opened = fsspec.open(part.uri, "rb") if path is None else open(path, "rb")  # noqa: SIM115 (the stack closes it)
        stream: IO[bytes] = stack.enter_context(opened)
        try:
            suffixes = [suffix.lower() for suffix in PurePosixPath(part.uri).suffixes]
            if unpacked := _unpacked(_head(stream), stream):
                packed, stream, suffixes = True, stack.enter_context(unpacked), suffixes[:-1]
            yield _table(stack, stream, part, encoding, asked, suffix=suffixes[-1] if suffixes else "")
        except _DAMAGED as error:
            raise BadListError(f"damaged: {error}; copy it again") from error
        except OSError as error:
            if not packed or error.errno is not None:  # bzip2's own way to say it
                raise
            raise BadListError(f"damaged: {error}; copy it again") from error


def _table(
    stack: contextlib.ExitStack, stream: IO[bytes], part: Part, encoding: str, asked: Asked, *, suffix: str
) -> Table:
    head = _head(stream)
    if head.startswith(b"PAR1"):
        return ParquetTable(stream, part.columns)
    if head.startswith((b"\xd0\xcf\x11\xe0", b"PK\x03\x04")):
        if head.startswith(b"PK") and not any(name in head for name in _SPREADSHEET_NAMES):
            raise BadListError("an archive: give an archive of images as --input")
        return SheetTable(stream, asked)
    text = stack.enter_context(decoded(stream, encoding or encoding_of(head)))
    return text_table(text, suffix, asked)


def _head(stream: IO[bytes]) -> bytes:
    head = stream.read(_HEAD)
    stream.seek(0)
    return head


def _unpacked(head: bytes, stream: IO[bytes]) -> IO[bytes] | None:
    """Return what unpacks a stream, by its first bytes; None if it is not packed."""
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=stream))
    if head.startswith(b"BZh"):
        return bz2.BZ2File(stream)
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(stream)
    return None
