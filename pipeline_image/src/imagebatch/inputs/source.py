"""Where images come from: reading, confined to the allowed roots."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import IO, Protocol

import fsspec

from imagebatch.contracts.addresses import is_web, without_permission
from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.records import Reason
from imagebatch.errors import (
    StorageError,
)
from imagebatch.inputs.archives import (
    Member,
    content,
    is_member,
    member_of,
    ranges_of_packed,
)
from imagebatch.inputs.names import (
    about_missing,
    folder_of,
    in_one_spelling,
    local_path,
    other_machine,
    to_uri,
)
from imagebatch.inputs.patience import PASSING, patiently
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.inputs.web import WebSource
from imagebatch.stores import is_whole_key, read_beginning

_HELD = "/proc/self/fd" if hasattr(os, "O_PATH") and os.path.isdir("/proc/self/fd") else ""
# On Linux a held file is opened through its link in /proc; elsewhere its path may have become a link since.
_NO_LINK = 0 if _HELD else os.O_NOFOLLOW
# What a store, or its client, says of a single key that cannot be asked for, however well the store is.
_STATUSES_ABOUT_THE_KEY = {400, 403, 404, 405, 409, 410, 411, 414, 416}
_ABOUT_THE_KEY = {errno.EINVAL, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTSUP}


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
        return patiently("read", path, lambda: self._read_local_once(path))

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
            if error.errno in PASSING:
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
                f"cannot read {without_permission(member.archive)}: {error}; run the same command again"
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
        try:
            filesystem, path = fsspec.core.url_to_fs(uri)
            if not is_whole_key(filesystem, path, uri):  # another object would be read
                raise ImageUnavailableError(  # noqa: TRY301 (one place tells all)
                    Reason.UNREADABLE, f"the store's client takes this key for another: {path}"
                )
            data = read_beginning(filesystem, path, self._max_bytes + 1)
        except ImageUnavailableError:
            raise
        except FileNotFoundError as error:
            raise ImageUnavailableError(
                Reason.NOT_FOUND, f"no such object{about_missing(uri.split('://', 1)[1])}"
            ) from error
        except PermissionError as error:
            raise ImageUnavailableError(Reason.UNREADABLE, error) from error
        except Exception as error:
            if _about_the_key(error):
                raise ImageUnavailableError(Reason.UNREADABLE, error) from error
            raise StorageError(
                f"cannot read {without_permission(uri)}: {error}; run the same command again"
            ) from error
        if len(data) > self._max_bytes:
            raise ImageUnavailableError(
                Reason.TOO_MANY_BYTES, f"more than the {self._max_bytes} bytes that are taken"
            )
        return data


class ReadOnce:
    """Reads images, and one that is asked for again and again only once. For one thread.

    Args:
        source: What reads them.
    """

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self._uri = ""
        self._found: tuple[bytes, str] = (b"", "")

    def __call__(self, uri: str) -> tuple[bytes, str]:
        """Return an image's bytes and their SHA-256 (hex).

        Raises:
            ImageUnavailableError: This image cannot be had; others may.
            StorageError: The storage itself failed; trying again may help.
        """
        if uri != self._uri:
            self._uri = ""
            data = self._source.read(uri)
            self._uri, self._found = uri, (data, sha256_hex(data))
        return self._found


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


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")
