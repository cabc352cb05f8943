"""A run's files in an object store, or on any other file system that fsspec knows.

A large run has thousands of files, and a store asks money and time for every request: each file is read,
looked for or written with one.
"""

from __future__ import annotations

import contextlib
import errno
import io
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import fsspec
from typing_extensions import override

from imagebatch.errors import ConfigurationError
from imagebatch.runs.folder import RunFolder, translated
from imagebatch.stores import (
    already_there,
    conditions_unknown,
    create_object,
    keys_below,
    object_exists,
    read_beginning,
    read_object,
)

# A file up to this size is read with one request where it is read piece by piece; a larger one in blocks.
_ONE_READ = 8 << 20


def open_stored_run(runs_uri: str, run_id: str) -> FsspecRunFolder:
    """Open the folder of a run that is not on a local disk.

    Raises:
        ConfigurationError: The kind of URI is not known, or needs a package that is not installed.
    """
    try:
        filesystem, root = fsspec.core.url_to_fs(runs_uri)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(f"--runs-uri {runs_uri}: {error}") from error
    return FsspecRunFolder(filesystem, f"{root.rstrip('/')}/{run_id}", f"{runs_uri.rstrip('/')}/{run_id}")


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
        with translated("read", self._path(path)):
            return read_object(self._fs, self._path(path))

    @override
    def exists(self, path: str) -> bool:
        with translated("read", self._path(path)):
            return object_exists(self._fs, self._path(path))

    @override
    def remove(self, path: str) -> None:
        with translated("remove", self._path(path)), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(path))

    @override
    def list(self, folder: str) -> list[str]:
        with translated("list", self._path(folder)):
            found = keys_below(self._fs, self._path(folder).rstrip("/"))
        names = (key.removeprefix(f"{self._root}/") for key in found)
        return sorted(name for name in names if not name.endswith((".tmp", "/")))

    @override
    @contextlib.contextmanager
    def publishing(self, path: str, *, exclusive: bool = False) -> Iterator[IO[bytes]]:
        if exclusive and not self._proven:
            self._prove_conditional_writes()
        # Closing a remote file publishes it even after an error, so the pieces are gathered locally first.
        with tempfile.NamedTemporaryFile(prefix="imagebatch-") as stream:
            yield stream.file
            stream.flush()
            with translated("write", self._path(path)):
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
        with translated("write", probe), tempfile.NamedTemporaryFile(prefix="imagebatch-") as stream:
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
                    if not conditions_unknown(error):
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
            create_object(self._fs, source, target)
        except Exception as error:
            if not already_there(error):
                raise
            # A write whose reply was lost is sent again by the client, and then finds itself.
            if read_object(self._fs, target) != source.read_bytes():
                raise FileExistsError(errno.EEXIST, "there is such an object", target) from error

    @override
    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[IO[bytes]]:
        key = self._path(path)
        with translated("read", key):
            beginning = read_beginning(self._fs, key, _ONE_READ)
            if len(beginning) < _ONE_READ:
                yield io.BytesIO(beginning)
                return
            del beginning
            self._fs.invalidate_cache()
            with self._fs.open(key, "rb", block_size=_ONE_READ) as stream:
                yield stream
