"""Rows in any order, read back in the order of their bytes: the same input gives the same files.

Memory does not grow with their number.
"""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from imagebatch.contracts.ids import encode_id
from imagebatch.contracts.records import LeftOut

Row = tuple[str, ...]

# Each chunk is one open file while the chunks are merged: 10 million rows make 500.
CHUNK_ROWS = 20_000


class Sorter:
    """Sorts rows of texts by their bytes; beyond `chunk_rows` they go to a temporary folder.

    Args:
        chunk_rows: Rows held in memory at once.
    """

    def __init__(self, chunk_rows: int = CHUNK_ROWS) -> None:
        self._chunk_rows = chunk_rows
        self._rows: list[Row] = []
        self._chunks: list[Path] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, row: Row) -> None:
        """Take one more row."""
        self._rows.append(row)
        if len(self._rows) == self._chunk_rows:
            self._spill()

    def sorted(self) -> Iterator[Row]:
        """Yield all rows in order."""
        with ExitStack() as opened:
            files = [opened.enter_context(path.open(encoding="ascii")) for path in self._chunks]
            yield from heapq.merge(*map(_read_back, files), sorted(self._rows))

    def _spill(self) -> None:
        if not self._chunks:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="imagebatch-listing-"))
            self._folder = Path(folder)
        path = self._folder / str(len(self._chunks))
        # Lines of JSON: a file is read back through one small buffer, however many there are.
        with path.open("w", encoding="ascii") as sink:
            sink.writelines(json.dumps(row) + "\n" for row in sorted(self._rows))
        self._chunks.append(path)
        self._rows.clear()


class LeftOutFiles(Sorter):
    """The files of an input that are not listed, each with its reason."""

    def add_file(self, name: bytes, reason: LeftOut) -> None:
        """Take a file by its name, relative to the input."""
        self.add((encode_id(name), reason.value))

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Yield (name as an image id, reason), sorted by name."""
        return ((row[0], row[1]) for row in self.sorted())


def _read_back(lines: Iterable[str]) -> Iterator[Row]:
    for line in lines:
        yield tuple(json.loads(line))
