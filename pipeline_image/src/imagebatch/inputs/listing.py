"""What an input holds: the files of a folder, the keys of a store, the members of archives."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import fsspec

from imagebatch.contracts.addresses import scheme_of, without_permission
from imagebatch.contracts.records import LeftOut
from imagebatch.errors import (
    ConfigurationError,
    DataRefusedError,
    ImagebatchError,
    InputNotFoundError,
    StorageError,
)
from imagebatch.inputs.archives import (
    DamagedArchiveError,
    archive_kind,
    members,
)
from imagebatch.inputs.left_out import NameFilter, is_snapshot
from imagebatch.inputs.names import local_path, require_this_machine, to_uri
from imagebatch.inputs.patience import PASSING, patiently, storage_failed
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.stores import keys_below, object_exists

# `zip://inside::file:///outside.zip`, as fsspec writes it.
_CHAIN = re.compile(r"(?:zip|tar|libarchive)://|[a-z0-9+.-]+://.*::[a-z0-9+.-]+://", re.IGNORECASE)
_BY_NAME = (LeftOut.NO_IMAGE_SUFFIX, LeftOut.NOT_INCLUDED)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder on the way down.

    Attributes:
        path: As it was reached.
        real: The same with links followed.
        above: The one that it was reached from.
        left_out: Why nothing in it is taken, if that is so.
    """

    path: str
    real: str
    above: _Folder | None = None
    left_out: LeftOut | None = None

    def leads_back(self, real: str) -> bool:
        """Tell whether a folder is this one or one above it: to enter it would never end."""
        folder: _Folder | None = self
        while folder and folder.real != real:
            folder = folder.above
        return folder is not None


def _forget(name: bytes, reason: LeftOut) -> None:
    """Take no note of a file that is left out."""


def _archive(path: str, status: os.stat_result) -> str:
    """Tell what kind of archive a local file is, if it is one."""
    if not stat.S_ISREG(status.st_mode):
        return ""
    try:
        with open(path, "rb") as stream:
            return archive_kind(path, stream.read(512))
    except OSError:
        return ""  # it becomes a reject


class InputListing:
    """Lists an input: a folder (with what is below it), one image, or any fsspec URI.

    Every file is either yielded or left out, which is told with its reason. An input that is one file is
    taken whatever its name.

    Args:
        uri: What to list.
        include: Name patterns (`*.jpg`), compared without regard to case; see `NameFilter`.
        source: Decides whether a linked folder may be entered.
        left_out: Is told of every other file: its name relative to the input, and why.
    """

    def __init__(
        self,
        uri: str,
        include: list[str],
        source: ImageSource,
        left_out: Callable[[bytes, LeftOut], None] = _forget,
    ) -> None:
        self._uri = to_uri(uri)
        self._names = NameFilter(include)
        self._source = source
        self._left_out = left_out

    def __iter__(self) -> Iterator[tuple[bytes, str]]:
        """Yield (name relative to the input, URI), in no particular order.

        Raises:
            InputNotFoundError: There is no such folder, file or object.
            ConfigurationError: The kind of URI is not known.
            StorageError: The storage itself failed; trying again may help.
        """
        require_this_machine("--input", self._uri)
        if _CHAIN.match(self._uri):
            raise ConfigurationError(
                f"--input {self._uri}: a chain of file systems is not read; give the archive itself, as"
                " --input /data/photographs.zip"
            )
        path = local_path(self._uri)
        return self._remote() if path is None else self._local(path)

    def _local(self, path: str) -> Iterator[tuple[bytes, str]]:
        try:
            status = patiently("read", path, lambda: os.stat(path))
        except OSError as error:
            raise InputNotFoundError(f"--input {path}: {error.strerror}; give an existing folder") from error
        if not stat.S_ISDIR(status.st_mode):
            if kind := _archive(path, status):
                yield from self._members(to_uri(path), kind, b"")
            else:
                yield os.fsencode(os.path.basename(path)), to_uri(path)
            return
        base = path.rstrip("/") + "/"
        if not os.access(path, os.R_OK | os.X_OK):
            raise InputNotFoundError(f"--input {path}: not readable; give this user read access")
        if shards := self._shards(path):
            for shard in shards:
                yield from self._shard(to_uri(base + shard), os.fsencode(shard))
            return
        for found, reason in self._walk(path):
            name = os.fsencode(found[len(base) :])
            if reason:
                self._left_out(name, reason)
            else:
                yield name, to_uri(found)

    def _walk(self, root: str) -> Iterator[tuple[str, LeftOut | None]]:
        """Yield every file below a folder, and why it is left out if it is.

        Folders wait in a list, for they may lie deeper than Python can call.
        """
        waiting = [_Folder(root, os.path.realpath(root))]
        while waiting:
            folder = waiting.pop()
            try:
                with patiently("list", folder.path, partial(os.scandir, folder.path)) as entries:
                    for entry in entries:
                        yield from self._entry(entry, folder, waiting)
            except StorageError:
                if folder.left_out is None:
                    raise
                yield folder.path, folder.left_out  # such as a dead mount in a hidden folder
            except OSError as error:
                if folder.left_out is None and error.errno in PASSING:
                    raise storage_failed("list", folder.path, error) from error
                if folder.path == root:
                    raise InputNotFoundError(f"--input {root}: {error.strerror}") from error
                # Becomes a reject, so that what lies below is not lost in silence.
                yield folder.path, folder.left_out

    def _entry(
        self, entry: os.DirEntry[str], folder: _Folder, waiting: list[_Folder]
    ) -> Iterator[tuple[str, LeftOut | None]]:
        linked = entry.is_symlink()
        if not linked and entry.is_dir(follow_symlinks=False):
            reason = folder.left_out or self._names.of_folder(entry.name)
            if reason and is_snapshot(entry.name):
                yield f"{entry.path}/", reason
            else:
                waiting.append(_Folder(entry.path, os.path.join(folder.real, entry.name), folder, reason))
            return
        if linked and os.path.isdir(entry.path):  # false, not an error, for a link that leads to itself
            reason = folder.left_out or self._names.of_folder(entry.name)
            real = os.path.realpath(entry.path)
            if reason or folder.leads_back(real) or not self._source.allows_path(real):
                yield entry.path, reason  # a loop or a way out of the roots: a reject, unless left out anyhow
            else:
                waiting.append(_Folder(entry.path, real, folder))
            return
        reason = folder.left_out or self._names.of_file(entry.name)
        if reason in _BY_NAME and not _is_file(entry):
            reason = LeftOut.NOT_A_FILE
        yield entry.path, reason

    def _shards(self, folder: str) -> list[str]:
        """Return the archives of a folder that holds nothing else to take: WebDataset's shards."""
        shards: list[str] = []
        others: list[tuple[bytes, LeftOut]] = []
        try:
            with patiently("list", folder, partial(os.scandir, folder)) as entries:
                for entry in entries:
                    is_folder = os.path.isdir(entry.path)  # false for a link that leads to itself
                    reason = (self._names.of_folder if is_folder else self._names.of_file)(entry.name)
                    if reason is None:
                        return []
                    if reason in _BY_NAME and archive_kind(entry.name) == "tar":
                        shards.append(entry.name)
                    else:
                        others.append((os.fsencode(entry.name) + b"/" * is_folder, reason))
        except OSError:
            return []  # what lists folders tells it
        for name, reason in others if shards else []:
            self._left_out(name, reason)
        return sorted(shards)

    def _shard(self, uri: str, name: bytes) -> Iterator[tuple[bytes, str]]:
        if self._source.allows(uri):
            yield from self._members(uri, archive_kind(os.fsdecode(name)), name + b"/")
        else:
            yield name, uri  # becomes a reject

    def _members(self, archive: str, kind: str, prefix: bytes) -> Iterator[tuple[bytes, str]]:
        shown = without_permission(archive)
        try:
            with self._source.opened(archive) as (stream, size, key):
                for member in members(archive, kind, stream, size, key):
                    name = member.name
                    while name.startswith(b"./"):
                        name = name[2:]
                    if reason := self._names.of_key(os.fsdecode(name)):
                        self._left_out(prefix + name, reason)
                    else:
                        yield prefix + name, member.uri
        except DamagedArchiveError as error:
            raise DataRefusedError(f"--input {shown}: {error}") from error
        except FileNotFoundError as error:
            raise InputNotFoundError(f"--input {shown}: no such file") from error
        except ImageUnavailableError as error:
            raise ConfigurationError(f"--input {shown}: {error.detail}") from error
        except ImagebatchError:
            raise
        except Exception as error:
            raise StorageError(f"cannot read {shown}: {error}; run the same command again") from error

    def _remote(self) -> Iterator[tuple[bytes, str]]:
        try:
            filesystem, root = fsspec.core.url_to_fs(self._uri)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"--input {self._uri}: {error}") from error
        try:
            found = keys_below(filesystem, root)
            asked = "/" in root and (not found or self._is_one_file(root))
            alone = asked and object_exists(filesystem, root)
        except FileNotFoundError as error:
            raise InputNotFoundError(f"--input {self._uri}: not found") from error
        except Exception as error:
            raise StorageError(f"cannot list {self._uri}: {error}; run the same command again") from error
        if alone and found not in ([], [root]):
            raise ConfigurationError(
                f"--input {self._uri}: there is an object of this key, and others whose keys go on with /;"
                " name the ones that are meant in a list (--manifest)"
            )
        found = [root] if alone else found
        kind = archive_kind(root)
        if kind and not found:
            raise InputNotFoundError(f"--input {self._uri}: no such archive")
        if kind and found == [root]:
            yield from self._members(self._uri, kind, b"")
        else:
            yield from self._keys(found, root.rstrip("/"))

    def _is_one_file(self, root: str) -> bool:
        """Tell whether the input's name is that of an image or an archive, not of a folder of them."""
        return bool(archive_kind(root)) or self._names.of_file(root.rpartition("/")[2]) is None

    def _keys(self, keys: list[str], base: str) -> Iterator[tuple[bytes, str]]:
        """Yield what is wanted of a store's keys; a store of shards alone is one input."""
        last = [key.rsplit("/", 1)[-1] for key in keys]
        wanted = any(self._names.of_file(name) is None for name in last)
        sharded = not wanted and any(archive_kind(name) == "tar" for name in last)
        for key, basename in zip(keys, last, strict=True):
            # One slash parts the input from a name: `in//a.jpg` and `in/a.jpg` are two images.
            name = key.removeprefix(base).removeprefix("/") or basename or "/"  # the folder's own marker
            encoded = name.encode("utf-8", "surrogateescape")
            uri = f"{scheme_of(self._uri)}://{key.removeprefix('/')}"
            reason = self._names.of_key(name) if keys != [base] else None
            if sharded and reason in _BY_NAME and archive_kind(basename) == "tar":
                yield from self._shard(uri, encoded)
            elif reason:
                self._left_out(encoded, reason)
            else:
                yield encoded, uri


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry, links followed, is a regular file; asks the disk about links alone."""
    try:
        return entry.is_file()
    except OSError:
        return False
