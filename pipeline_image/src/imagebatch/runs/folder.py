"""A run's files, on a local disk or any fsspec file system.

Nothing is visible half-written: a local file is written under a temporary name, flushed, and linked or
renamed into place; object stores publish whole objects. `create` succeeds for one caller only, which is
what fencing rests on.
"""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from imagebatch.errors import ImagebatchError, StorageError


class RunFolder(ABC):
    """The files of one run, by path relative to the run's folder.

    Attributes:
        uri: Where it is, for people.
        appends: Whether `append` keeps anything.
    """

    uri: str
    appends = False

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
    from imagebatch.runs.object_store import open_stored_run  # noqa: PLC0415 (it is made of what is here)

    return open_stored_run(runs_uri, run_id)


class LocalRunFolder(RunFolder):
    """A run on a local disk."""

    appends = True

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
            raise storage_error("read", self._path(path), error) from error

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
            raise storage_error("write", target, error) from error

    @override
    def append(self, path: str, data: bytes) -> bool:
        try:
            with self._path(path).open("ab") as stream:
                stream.write(data)
        except OSError as error:
            raise storage_error("write", self._path(path), error) from error
        return True

    @override
    def exists(self, path: str) -> bool:
        return self._path(path).exists()

    @override
    def remove(self, path: str) -> None:
        try:
            self._path(path).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error("remove", self._path(path), error) from error

    @override
    def list(self, folder: str) -> list[str]:
        base = self._path(folder)
        try:
            found = [file for file in base.rglob("*") if file.is_file() and not file.name.endswith(".tmp")]
        except OSError as error:
            raise storage_error("list", base, error) from error
        return sorted(file.relative_to(self._root).as_posix() for file in found)

    @override
    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[IO[bytes]]:
        try:
            stream = self._path(path).open("rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise storage_error("read", self._path(path), error) from error
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


def storage_error(verb: str, path: Path | str, error: Exception) -> StorageError:
    """Say that a file cannot be read or written, and what to do."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else error
    return StorageError(
        f"cannot {verb} {path}: {text}; check the disk or bucket and run the same command again"
    )


@contextlib.contextmanager
def translated(verb: str, path: str) -> Iterator[None]:
    """Raise whatever a store's client raises as a StorageError; what the caller's block raises stays."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, ImagebatchError, pa.ArrowInvalid):
        raise  # the last two are the caller's, raised while it reads
    except Exception as error:
        raise storage_error(verb, path, error) from error
