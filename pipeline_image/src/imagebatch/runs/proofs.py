"""Size and digest of a run's files: what a certificate says about each."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import IO

from pydantic import BaseModel, ConfigDict

from imagebatch.contracts.ids import sha256_hex
from imagebatch.errors import NotProvenError
from imagebatch.runs.folder import RunFolder

_BLOCK = 1 << 20


class FileProof(BaseModel):
    """A file of the run: path, size in bytes, SHA-256 (hex)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int
    sha256: str


class HashedStream:
    """A file that is hashed as it is read.

    Args:
        stream: The file, from its beginning.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest, self._size = hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, or what is left of them."""
        data = self._stream.read(size)
        self._digest.update(data)
        self._size += len(data)
        return data

    def drain(self) -> int:
        """Read to the end; return the number of bytes that were left."""
        before = self._size
        while self.read(_BLOCK):
            pass
        return self._size - before

    def proof(self, path: str) -> FileProof:
        """Return size and digest of what was read."""
        return FileProof(path=path, size=self._size, sha256=self._digest.hexdigest())


class ProvenFiles:
    """A run's files, each read once: the bytes that are counted are the bytes that are proven.

    Args:
        run: The run's files.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._proofs: dict[str, FileProof] = {}

    @property
    def uri(self) -> str:
        """Where the run is, for people."""
        return self.run.uri

    def read(self, path: str) -> bytes:
        """Return a file's content, and keep its size and digest.

        Raises:
            FileNotFoundError: There is no such file.
            StorageError: It cannot be read.
        """
        data = self.run.read(path)
        self._proofs[path] = FileProof(path=path, size=len(data), sha256=sha256_hex(data))
        return data

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[HashedStream]:
        """Open a file to be read piece by piece; its size and digest are kept when the block ends.

        Raises:
            NotProvenError: There is no such file.
        """
        with contextlib.ExitStack() as stack:
            try:
                stream = HashedStream(stack.enter_context(self.run.reading(path)))
            except FileNotFoundError as error:
                raise NotProvenError(f"{self.uri}/{path} is missing") from error
            yield stream
            stream.drain()
        self._proofs[path] = stream.proof(path)

    def proof(self, path: str) -> FileProof:
        """Return a file's size and digest, reading it unless it has been read.

        Raises:
            NotProvenError: There is no such file.
        """
        if path not in self._proofs:
            with self.reading(path):
                pass
        return self._proofs[path]
