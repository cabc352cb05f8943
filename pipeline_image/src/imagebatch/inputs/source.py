"""Where images come from: listing and reading, confined to the allowed roots."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Protocol, TypeVar

import fsspec

from imagebatch.contracts.records import LeftOut, Reason
from imagebatch.errors import (
    ConfigurationError,
    DataRefusedError,
    ImagebatchError,
    InputNotFoundError,
    StorageError,
)
from imagebatch.inputs.archives import (
    DamagedArchiveError,
    Member,
    archive_kind,
    content,
    is_member,
    member_of,
    members,
    ranges_of_packed,
)
from imagebatch.inputs.left_out import NameFilter, is_snapshot
from imagebatch.inputs.names import (
    about_missing,
    folder_of,
    in_one_spelling,
    is_web,
    local_path,
    other_machine,
    require_this_machine,
    scheme_of,
    to_uri,
)
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.inputs.web import WebSource

T = TypeVar("T")

_HELD = "/proc/self/fd" if hasattr(os, "O_PATH") and os.path.isdir("/proc/self/fd") else ""
# On Linux a held file is opened through its link in /proc; elsewhere its path may have become a link since.
_NO_LINK = 0 if _HELD else os.O_NOFOLLOW
# `zip://inside::file:///outside.zip`, as fsspec writes it.
_CHAIN = re.compile(r"(?:zip|tar|libarchive)://|[a-z0-9+.-]+://.*::[a-z0-9+.-]+://", re.IGNORECASE)
# What a store, or its client, says of a single key that cannot be asked for, however well the store is.
_STATUSES_ABOUT_THE_KEY = {400, 403, 404, 405, 409, 410, 411, 414, 416}
_ABOUT_THE_KEY = {errno.EINVAL, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTSUP}

# Errors that are the storage's and not the file's: the next try may succeed. A network share that went away
# and came back gives the first few.
_PASSING = frozenset(
    {
        *(
            errno.EIO,
            errno.ESTALE,
            errno.ETIMEDOUT,
            errno.ENOTCONN,
            errno.EREMOTEIO,
            errno.ENOLCK,
            errno.EBUSY,
        ),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET),
        *(errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR),
    }
)
_BY_NAME = (LeftOut.NO_IMAGE_SUFFIX, LeftOut.NOT_INCLUDED)
_PAUSES = (0.1, 0.5, 1.5)  # seconds before a local file is tried again


class ImageSource:
    """Reads images, and only those that lie under the allowed roots.

    Args:
        roots: Paths or URIs; a local image's real path (links followed) must lie under one of them. Only a
            root on a web server allows any reading from the web.
        max_bytes: Larger images are refused.
    """

    def __init__(self, roots: list[str], max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._local_roots: list[str] = []
        self._remote_roots: list[str] = []
        self._web = WebSource([root for root in roots if is_web(root)], max_bytes)
        for root in map(to_uri, roots):
            path = local_path(root)
            if is_web(root):
                continue
            if path is None:
                self._remote_roots.append(in_one_spelling(root).rstrip("/"))
            else:
                self._local_roots.append(os.path.realpath(path))

    def read(self, uri: str) -> bytes:
        """Return an image's bytes.

        Raises:
            ImageUnavailableError: This image cannot be had; others may.
            StorageError: The storage itself failed; trying again may help.
        """
        if is_web(uri):
            return self._web.read(uri)
        if is_member(uri):
            return self._read_member(member_of(uri))
        if host := other_machine(uri):
            raise ImageUnavailableError(
                Reason.NOT_FOUND, f"names the machine {host}; a file here has three slashes: file:///"
            )
        path = local_path(uri)
        return self._read_remote(uri) if path is None else self._read_local(path)

    def allows(self, uri: str) -> bool:
        """Tell whether a URI, local links followed, is an allowed root or lies under one."""
        if is_web(uri):
            return self._web.allows(uri)
        path = local_path(uri)
        if path is not None:
            return not other_machine(uri) and self.allows_path(path)
        uri = in_one_spelling(uri)
        inside = any(uri.rstrip("/") == root or uri.startswith(root + "/") for root in self._remote_roots)
        return inside and "::" not in uri and ".." not in uri.split("/")

    def allows_path(self, path: str) -> bool:
        """Tell whether a local path, links followed, lies under an allowed root."""
        return "\0" not in path and self._inside(os.path.realpath(path))

    def _inside(self, real: str) -> bool:
        return any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._local_roots)

    def _read_local(self, path: str) -> bytes:
        if "\0" in path:
            raise ImageUnavailableError(Reason.NOT_FOUND, "no file has a zero byte in its name")
        return _patiently("read", path, lambda: self._read_local_once(path))

    def _read_local_once(self, path: str) -> bytes:
        """Read a file; an error of the storage itself, which may pass, comes as it is."""
        try:
            with _found(path) as (real, readable, found):
                if not self._inside(real):
                    # Where a link that lies inside leads to may be told; what a list names elsewhere may not.
                    where = f"links to {real}" if self._inside(os.path.abspath(path)) else "leads outside"
                    raise ImageUnavailableError(Reason.OUTSIDE_ALLOWED_ROOTS, f"{where}; see --allowed-roots")
                self._require_regular(found)
                # Not blocking, in case the name has become a FIFO since.
                descriptor = os.open(readable, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | _NO_LINK)
                try:
                    status = os.fstat(descriptor)
                    self._require_regular(status)
                    return self._content(descriptor, status.st_size)
                finally:
                    os.close(descriptor)
        except FileNotFoundError as error:
            dangling = os.path.islink(path)
            raise ImageUnavailableError(
                Reason.NOT_FOUND, "a link to nothing" if dangling else f"no such file{about_missing(path)}"
            ) from error
        except OSError as error:
            if error.errno in _PASSING:
                raise
            raise ImageUnavailableError(Reason.UNREADABLE, error.strerror) from error

    @contextlib.contextmanager
    def opened(self, uri: str) -> Iterator[tuple[IO[bytes], int, object]]:
        """Open an archive inside the roots.

        Yields:
            It, seekable; its bytes; something that changes when it does.

        Raises:
            ImageUnavailableError: It is outside.
            OSError: It cannot be opened; a store's client has errors of its own kinds.
        """
        if not self.allows(uri):
            raise ImageUnavailableError(Reason.OUTSIDE_ALLOWED_ROOTS, "see --allowed-roots")
        path = local_path(uri)
        if path is None:
            filesystem, key = fsspec.core.url_to_fs(uri)
            with filesystem.open(key, "rb") as stream:
                info = stream.details if isinstance(getattr(stream, "details", None), dict) else {}
                yield stream, stream.size, (stream.size, str(info.get("ETag") or info.get("mtime")))
            return
        with _found(path) as (real, readable, found):
            if not self._inside(real):
                raise ImageUnavailableError(
                    Reason.OUTSIDE_ALLOWED_ROOTS, "leads outside; see --allowed-roots"
                )
            if not stat.S_ISREG(found.st_mode):
                raise ImageUnavailableError(Reason.NOT_A_FILE, f"a {_kind(found.st_mode)}, not an archive")
            descriptor = os.open(readable, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | _NO_LINK)
            with open(descriptor, "rb") as stream:
                yield stream, found.st_size, (found.st_ino, found.st_size, found.st_mtime_ns)

    def _read_member(self, member: Member) -> bytes:
        try:
            if member.packing:
                return self._read_packed(member)
            if local_path(member.archive) is None:
                if not self.allows(member.archive):
                    raise ImageUnavailableError(Reason.OUTSIDE_ALLOWED_ROOTS, "see --allowed-roots")  # noqa: TRY301 (one place tells all)
                return content(
                    member, lambda at, size: self._range(member.archive, at, size), self._max_bytes
                )
            with self.opened(member.archive) as (stream, _, _):
                descriptor = stream.fileno()
                return content(member, lambda at, size: os.pread(descriptor, size, at), self._max_bytes)
        except FileNotFoundError as error:
            raise ImageUnavailableError(Reason.NOT_FOUND, "its archive is gone") from error
        except PermissionError as error:
            raise ImageUnavailableError(Reason.UNREADABLE, error) from error
        except (ImageUnavailableError, StorageError):
            raise
        except Exception as error:
            if _about_the_key(error):
                raise ImageUnavailableError(Reason.UNREADABLE, error) from error
            raise StorageError(
                f"cannot read {member.archive}: {error}; run the same command again"
            ) from error

    def _read_packed(self, member: Member) -> bytes:
        with self.opened(member.archive) as (stream, size, key):
            ranges = ranges_of_packed(member, stream, size, key)
            return content(member, ranges, self._max_bytes)

    @staticmethod
    def _range(uri: str, at: int, size: int) -> bytes:
        filesystem, key = fsspec.core.url_to_fs(uri)
        return bytes(filesystem.cat_file(key, start=at, end=at + size)) if size else b""

    def _content(self, descriptor: int, size: int) -> bytes:
        """Read a file's bytes, in one system call unless it is being written to."""
        data = os.read(descriptor, size + 1)
        while len(data) != size and (more := os.read(descriptor, self._max_bytes + 1 - len(data))):
            data += more
            size = -1
        if len(data) > self._max_bytes:
            raise ImageUnavailableError(
                Reason.TOO_MANY_BYTES, f"more than {self._max_bytes} bytes, and growing"
            )
        return data

    def _require_regular(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise ImageUnavailableError(Reason.NOT_A_FILE, f"a {_kind(status.st_mode)}, not a regular file")
        if status.st_size > self._max_bytes:
            raise ImageUnavailableError(
                Reason.TOO_MANY_BYTES, f"{status.st_size} bytes, at most {self._max_bytes} are taken"
            )

    def _read_remote(self, uri: str) -> bytes:
        if not self.allows(uri):
            raise ImageUnavailableError(Reason.OUTSIDE_ALLOWED_ROOTS, "see --allowed-roots")
        if "?versionId=" in uri and in_one_spelling(uri).startswith("s3:"):
            # Another object would be read.
            raise ImageUnavailableError(Reason.UNREADABLE, "the client of S3 cuts a key at ?versionId=")
        try:
            with fsspec.open(uri, "rb") as stream:
                data: bytes = stream.read(self._max_bytes + 1)
        except FileNotFoundError as error:
            raise ImageUnavailableError(
                Reason.NOT_FOUND, f"no such object{about_missing(uri.split('://', 1)[1])}"
            ) from error
        except PermissionError as error:
            raise ImageUnavailableError(Reason.UNREADABLE, error) from error
        except Exception as error:
            if _about_the_key(error):
                raise ImageUnavailableError(Reason.UNREADABLE, error) from error
            raise StorageError(f"cannot read {uri}: {error}; run the same command again") from error
        if len(data) > self._max_bytes:
            raise ImageUnavailableError(
                Reason.TOO_MANY_BYTES, f"more than the {self._max_bytes} bytes that are taken"
            )
        return data


def _about_the_key(error: Exception) -> bool:
    """Tell whether a store's client refuses this one key: others can be read, and trying again is vain."""
    # adlfs hands on Azure's errors, gcsfs has its own, each with the status of HTTP.
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    return (
        isinstance(error, UnicodeError)
        or (type(error).__name__ in {"HttpResponseError", "HttpError"} and status in _STATUSES_ABOUT_THE_KEY)
        or type(error).__name__ == "ParamValidationError"  # botocore's, which is loaded only where S3 is used
        or (isinstance(error, OSError) and error.errno in _ABOUT_THE_KEY)
    )


class SourceOptions(Protocol):
    """The settings, or the run.json, that say what may be read."""

    input: str
    manifest: str
    allowed_roots: str
    max_image_bytes: int


def image_source(options: SourceOptions) -> ImageSource:
    """Return a source confined to the allowed roots, else the input folder, else the manifest's folder."""
    roots = [root.strip() for root in options.allowed_roots.split(",") if root.strip()]
    fallback = options.input or folder_of(options.manifest)
    return ImageSource(roots or [fallback], options.max_image_bytes)


@contextlib.contextmanager
def _found(path: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield a file's real path (links followed), a name that opens exactly that file, and its status.

    The name is valid while the block runs. On Linux the kernel holds the file open and tells where it is, so
    that nobody can put another file in its place between the check and the reading.
    """
    if not _HELD:
        real = os.path.realpath(path, strict=True)
        yield real, real, os.stat(real)
        return
    held = os.open(path, os.O_PATH | os.O_CLOEXEC)  # opens nothing: no device notices
    try:
        name = f"{_HELD}/{held}"
        yield os.readlink(name), name, os.fstat(held)
    finally:
        os.close(held)


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry, links followed, is a regular file; asks the disk about links alone."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _patiently(verb: str, path: str, attempt: Callable[[], T]) -> T:
    """Do what may meet an error of the storage itself, a few times.

    Raises:
        OSError: Another error.
        StorageError: It did not pass.
    """
    for pause in (*_PAUSES, None):
        try:
            return attempt()
        except OSError as error:
            if error.errno not in _PASSING:
                raise
            if pause is None:
                raise _storage_failed(verb, path, error) from error
            time.sleep(pause)
    raise AssertionError  # the last pause is None


def _storage_failed(verb: str, path: str, error: OSError) -> StorageError:
    return StorageError(
        f"cannot {verb} {path}: {error.strerror}; check the disk or share and run the same command again"
    )


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


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
            status = _patiently("read", path, lambda: os.stat(path))
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
                with _patiently("list", folder.path, partial(os.scandir, folder.path)) as entries:
                    for entry in entries:
                        yield from self._entry(entry, folder, waiting)
            except StorageError:
                if folder.left_out is None:
                    raise
                yield folder.path, folder.left_out  # such as a dead mount in a hidden folder
            except OSError as error:
                if folder.left_out is None and error.errno in _PASSING:
                    raise _storage_failed("list", folder.path, error) from error
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
            with _patiently("list", folder, partial(os.scandir, folder)) as entries:
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
            raise DataRefusedError(f"--input {archive}: {error}") from error
        except FileNotFoundError as error:
            raise InputNotFoundError(f"--input {archive}: no such file") from error
        except ImageUnavailableError as error:
            raise ConfigurationError(f"--input {archive}: {error.detail}") from error
        except ImagebatchError:
            raise
        except Exception as error:
            raise StorageError(f"cannot read {archive}: {error}; run the same command again") from error

    def _remote(self) -> Iterator[tuple[bytes, str]]:
        try:
            filesystem, root = fsspec.core.url_to_fs(self._uri)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"--input {self._uri}: {error}") from error
        try:
            filesystem.invalidate_cache()
            found: list[str] = filesystem.find(root)
            if in_one_spelling(self._uri).startswith("gs:"):
                # In what its client remembers of a listing it does not find keys with an empty part again.
                filesystem.invalidate_cache()
        except FileNotFoundError as error:
            raise InputNotFoundError(f"--input {self._uri}: not found") from error
        except Exception as error:
            raise StorageError(f"cannot list {self._uri}: {error}; run the same command again") from error
        kind = archive_kind(root)
        if kind and not found:
            raise InputNotFoundError(f"--input {self._uri}: no such archive")
        if kind and found == [root]:
            yield from self._members(self._uri, kind, b"")
        else:
            yield from self._keys(found, root.rstrip("/"))

    def _keys(self, keys: list[str], base: str) -> Iterator[tuple[bytes, str]]:
        """Yield what is wanted of a store's keys; a store of shards alone is one input."""
        last = [key.rsplit("/", 1)[-1] for key in keys]
        wanted = any(self._names.of_file(name) is None for name in last)
        sharded = not wanted and any(archive_kind(name) == "tar" for name in last)
        for key, basename in zip(keys, last, strict=True):
            # One slash parts the input from a name: `in//a.jpg` and `in/a.jpg` are two images.
            name = key.removeprefix(base).removeprefix("/") or basename
            encoded = name.encode("utf-8", "surrogateescape")
            uri = f"{scheme_of(self._uri)}://{key.removeprefix('/')}"
            reason = self._names.of_key(name) if keys != [base] else None
            if sharded and reason in _BY_NAME and archive_kind(basename) == "tar":
                yield from self._shard(uri, encoded)
            elif reason:
                self._left_out(encoded, reason)
            else:
                yield encoded, uri
