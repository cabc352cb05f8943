"""Parquet files of a run, read with suspicion."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.records import DonePart
from imagebatch.errors import NotProvenError
from imagebatch.runs.folder import parquet_rows


class Files(Protocol):
    """Where files of a run are read: its folder, or `ProvenFiles`."""

    @property
    def uri(self) -> str:
        """Where the run is, for people."""

    def read(self, path: str) -> bytes:
        """Return a file's content.

        Raises:
            FileNotFoundError: There is no such file.
            StorageError: It cannot be read.
        """


def read_part(files: Files, part: DonePart) -> pa.Table:
    """Read a recorded Parquet file, and compare it with its digest.

    Raises:
        NotProvenError: It is missing, another file, or not readable.
    """
    try:
        data = files.read(part.path)
    except FileNotFoundError as error:
        raise NotProvenError(f"{part.path} is missing") from error
    if sha256_hex(data) != part.sha256:
        raise NotProvenError(f"{part.path} is not the file that was recorded: its SHA-256 differs")
    return parquet_table(data, part.path)


def parquet_table(data: bytes, path: str) -> pa.Table:
    """Return a Parquet file's table.

    Raises:
        NotProvenError: The bytes are not a readable Parquet file.
    """
    try:
        return parquet_rows(data)
    except (pa.ArrowInvalid, OSError) as error:
        raise NotProvenError(f"{path} is not a readable Parquet file: {error}") from error
