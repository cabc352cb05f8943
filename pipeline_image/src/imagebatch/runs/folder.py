"""A run's files, on a local disk or any fsspec file system.

Nothing is visible half-written: a local file is written under a temporary name, flushed, and linked or
renamed into place; object stores publish whole objects. `create` succeeds for one caller only, which is
what fencing rests on.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from imagebatch.errors import ConfigurationError, ImagebatchError, StorageError

_NOT_IMPLEMENTED = 501


class RunFolder(ABC):
    """The files of one run, by path relative to the run's folder."""

    uri: str

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: There is no such file.
            StorageError: It cannot be read.
        """

    @abstractmethod
    @contextlib.contextmanager
    def publishing(self, path: str, *, exclusive: bool = False) -> Iterator[IO[bytes]]:
        """Open a file to write piece by piece, published whole when the block ends without an error.

        Args:
            path: Replaced as a whole if it exists.
            exclusive: Publish only if there is no such file.

        Raises:
            FileExistsError: `exclusive`, and there was such a file; nothing has changed.
            StorageError: It cannot be written.
        """

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file, if there is one."""

    @abstractmethod
    def list(self, folder: str) -> list[str]:
        """List the files below a folder by path, sorted; empty if there is no such folder."""

    @abstractmethod
    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file to read piece by piece, seekable."""

    def write(self, path: str, data: bytes) -> None:
        """Publish a file, replacing one of the same name as a whole."""
        with self.publishing(path) as stream:
            stream.write(data)

    def create(self, path: str, data: bytes) -> bool:
        """Publish a file unless there is one; false if there was."""
        try:
            with self.publishing(path, exclusive=True) as stream:
                stream.write(data)
        except FileExistsError:
            return False
        return True

    def append(self, path: str, data: bytes) -> bool:  # noqa: ARG002 (what an object store does not keep)
        """Add to the end of a file, making it if there is none; not flushed to the disk.

        What is appended survives the death of the process, not that of the machine.

        Returns:
            Whether it was kept: object stores cannot append.
        """
        return False

    def create_table(self, path: str, table: pa.Table) -> bool:
        """`create` with a Parquet file of `table`."""
        return self.create(path, parquet_bytes(table))

    def read_table(self, path: str) -> pa.Table:
        """Read the Parquet file at `path`, whole."""
        return parquet_rows(self.read(path))

    def publish_folder(self, folder: str, source: Path) -> None:
        """Copy a local folder's files below `folder`."""
        for file in sorted(source.rglob("*")):
            if file.is_file():
                self.write(f"{folder}/{file.relative_to(source).as_posix()}", file.read_bytes())


# What Arrow raises of a Parquet file whose footer is damaged.
DAMAGED = (pa.ArrowException, MemoryError, UnicodeDecodeError)


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file; its pages carry checksums."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def parquet_rows(data: bytes) -> pa.Table:
    """Return the table that `parquet_bytes` was given.

    Raises:
        pyarrow.ArrowInvalid, OSError: The bytes are not a readable Parquet file.
    """
    # pq.read_table goes through the dataset API, which takes three times as long for a small file.
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            return file.read()
    except DAMAGED as error:
        raise pa.ArrowInvalid(str(error)) from error


def open_run(runs_uri: str, run_id: str) -> RunFolder:
    """Open the folder of a run.

    Args:
        runs_uri: A local path, `file://` URI or any fsspec URI.
        run_id: Already checked to be one plain path component.

    Raises:
        ConfigurationError: The kind of URI is not known, or needs a package that is not installed.
    """
    if "://" not in runs_uri:
        return LocalRunFolder(Path(runs_uri) / run_id)
    parts = urlsplit(runs_uri)
    if parts.scheme == "file":
        return LocalRunFolder(Path(unquote(parts.path)) / run_id)
    try:
        filesystem, root = fsspec.core.url_to_fs(runs_uri)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(f"--runs-uri {runs_uri}: {error}") from error
    return FsspecRunFolder(filesystem, f"{root.rstrip('/')}/{run_id}", f"{runs_uri.rstrip('/')}/{run_id}")


class LocalRunFolder(RunFolder):
    """A run on a local disk."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.uri = str(self._root)

    def _path(self, path: str) -> Path:
        return self._root / PurePosixPath(path)

    @override
    def read(self, path: str) -> bytes:
        try:
            return self._path(path).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _storage_error("read", self._path(path), error) from error

    @override
    @contextlib.contextmanager
    def publishing(self, path: str, *, exclusive: bool = False) -> Iterator[IO[bytes]]:
        target = self._path(path)
        temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
        try:
            changed = _made(target.parent)
            try:
                with temporary.open("xb") as stream:
                    yield stream
                    stream.flush()
                    os.fsync(stream.fileno())
                if exclusive:
                    os.link(temporary, target)
                else:
                    temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            for folder in changed:
                _flush_names(folder)
        except OSError as error:
            if exclusive and isinstance(error, FileExistsError) and target.exists():
                raise
            raise _storage_error("write", target, error) from error

    @override
    def append(self, path: str, data: bytes) -> bool:
        try:
            with self._path(path).open("ab") as stream:
                stream.write(data)
        except OSError as error:
            raise _storage_error("write", self._path(path), error) from error
        return True

    @override
    def exists(self, path: str) -> bool:
        return self._path(path).exists()

    @override
    def remove(self, path: str) -> None:
        try:
            self._path(path).unlink(missing_ok=True)
        except OSError as error:
            raise _storage_error("remove", self._path(path), error) from error

    @override
    def list(self, folder: str) -> list[str]:
        base = self._path(folder)
        try:
            found = [file for file in base.rglob("*") if file.is_file() and not file.name.endswith(".tmp")]
        except OSError as error:
            raise _storage_error("list", base, error) from error
        return sorted(file.relative_to(self._root).as_posix() for file in found)

    @override
    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[IO[bytes]]:
        try:
            stream = self._path(path).open("rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _storage_error("read", self._path(path), error) from error
        with stream:
            yield stream


def _made(folder: Path) -> list[Path]:
    """Make a folder and those above it; return every folder that gets a new name in it, lowest first."""
    changed = [folder]
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
        changed.append(folder)
    changed[0].mkdir(parents=True, exist_ok=True)
    return changed


def _flush_names(folder: Path) -> None:
    """Make the names in a folder survive a power cut; a file that is flushed may still lack its name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FsspecRunFolder(RunFolder):
    """A run in an object store: objects appear whole, and `create` is a conditional write."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str, uri: str) -> None:
        self._fs = filesystem
        self._root = root
        self.uri = uri
        self._proven = False

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    @override
    def read(self, path: str) -> bytes:
        with _translated("read", self._path(path)):
            return bytes(self._fs.cat_file(self._path(path)))

    @override
    def exists(self, path: str) -> bool:
        with _translated("read", self._path(path)):
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._path(path)))

    @override
    def remove(self, path: str) -> None:
        with _translated("remove", self._path(path)), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(path))

    @override
    def list(self, folder: str) -> list[str]:
        with _translated("list", self._path(folder)):
            self._fs.invalidate_cache()
            found: Any = self._fs.find(self._path(folder))
        names = (str(file).removeprefix(f"{self._root}/") for file in found)
        return sorted(name for name in names if not name.endswith(".tmp"))

    @override
    @contextlib.contextmanager
    def publishing(self, path: str, *, exclusive: bool = False) -> Iterator[IO[bytes]]:
        if exclusive and not self._proven:
            self._prove_conditional_writes()
        # Closing a remote file publishes it even after an error, so the pieces are gathered locally first.
        with tempfile.NamedTemporaryFile(prefix="imagebatch-") as stream:
            yield stream.file
            stream.flush()
            with _translated("write", self._path(path)):
                if exclusive:
                    self._create(Path(stream.name), self._path(path))
                else:
                    self._fs.put_file(stream.name, self._path(path), mode="overwrite")

    def _prove_conditional_writes(self) -> None:
        """Create an object twice: a store that lets the second one through would let two runs share an id.

        Raises:
            ConfigurationError: The store ignores the condition, or does not know it.
            StorageError: It cannot be written to.
        """
        probe = self._path(f".probe-{uuid.uuid4().hex}.tmp")
        with _translated("write", probe), tempfile.NamedTemporaryFile(prefix="imagebatch-") as stream:
            for content in (b"first", b"second"):
                stream.seek(0)
                stream.truncate()
                stream.write(content)
                stream.flush()
                try:
                    self._create(Path(stream.name), probe)
                except FileExistsError:
                    self._proven = content == b"second"
                except Exception as error:
                    if not _not_known(error):
                        raise
                    break
            with contextlib.suppress(FileNotFoundError, PermissionError):  # it may be forbidden to remove
                self._fs.rm_file(probe)
        if not self._proven:
            raise ConfigurationError(
                f"the store of {self.uri} does not keep conditional writes (If-None-Match): two runs of one"
                " id could write into one folder, unnoticed; keep runs on a disk, or in a store that does, as"
                " S3, GCS, Azure, MinIO, Ceph and SeaweedFS"
            )

    def _create(self, source: Path, target: str) -> None:
        """Put an object unless there is one.

        Raises:
            FileExistsError: There is one, with other content.
        """
        try:
            self._fs.put_file(str(source), target, mode="create")
        except Exception as error:
            if not _already_there(error):
                raise
            # A write whose reply was lost is sent again by the client, and then finds itself.
            self._fs.invalidate_cache()
            if self._fs.cat_file(target) != source.read_bytes():
                raise FileExistsError(errno.EEXIST, "there is such an object", target) from error

    @override
    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[IO[bytes]]:
        with _translated("read", self._path(path)), self._fs.open(self._path(path), "rb") as stream:
            yield stream


def _already_there(error: BaseException | None) -> bool:
    """Tell whether a conditional write was refused by its condition; s3fs knows only the way AWS says it."""
    while error is not None:
        reply = getattr(error, "response", None) or {}
        if isinstance(error, FileExistsError) or reply.get("Error", {}).get("Code") == "PreconditionFailed":
            return True
        error = error.__cause__
    return False


def _not_known(error: BaseException | None) -> bool:
    """Tell whether a store says that it does not know conditional writes."""
    while error is not None:
        reply = getattr(error, "response", None) or {}
        status = reply.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(error, NotImplementedError) or status == _NOT_IMPLEMENTED:
            return True
        error = error.__cause__
    return False


def _storage_error(verb: str, path: Path | str, error: Exception) -> StorageError:
    text = error.strerror if isinstance(error, OSError) and error.strerror else error
    return StorageError(
        f"cannot {verb} {path}: {text}; check the disk or bucket and run the same command again"
    )


@contextlib.contextmanager
def _translated(verb: str, path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, FileExistsError, ImagebatchError, pa.ArrowInvalid):
        raise  # the last two are the caller's, raised while it reads
    except Exception as error:
        raise _storage_error(verb, path, error) from error
