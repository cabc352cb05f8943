"""Lists as tables: Parquet, one file at a time, and the sheets of a spreadsheet."""

from __future__ import annotations

import datetime as dt
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from imagebatch.errors import one_line
from imagebatch.stages.preprocess.list_columns import Asked, BadListError, shown

_ROWS = 10_000
# Of a spreadsheet's parts, unpacked: a reader holds the sheet in memory.
_MOST_UNPACKED = 1 << 30
_BLOCK = 1 << 20


class ParquetTable:
    """A Parquet file, of which only the columns asked for are read.

    Args:
        stream: The file, seekable.
        constant: Columns that the folder's names give, with their value in this file.

    Raises:
        BadListError: It is no Parquet file.
    """

    unit = "row"

    def __init__(self, stream: IO[bytes], constant: dict[str, str] | None = None) -> None:
        try:
            self._file = pq.ParquetFile(stream)
        except (pa.ArrowException, OSError) as error:
            raise_storage(error)
            raise BadListError(f"not a readable Parquet file: {error}") from error
        own = self._file.schema_arrow.names
        self._constant = {name: text for name, text in (constant or {}).items() if name not in own}
        self.names = [*own, *self._constant]

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Sequence[str | None]]]:
        """Yield each row's number, from 1, and its values of these columns as text."""
        number = 0
        wanted = [name for name in names if name not in self._constant]
        batches = self._file.iter_batches(_ROWS, columns=wanted)
        while (batch := self._next(batches, number)) is not None:
            columns = [
                [self._constant[name]] * batch.num_rows
                if name in self._constant
                else _text_column(batch.column(name), name, number)
                for name in names
            ]
            for values in zip(*columns, strict=True):
                number += 1
                yield number, values

    @staticmethod
    def _next(batches: Iterator[pa.RecordBatch], read: int) -> pa.RecordBatch | None:
        try:
            return next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise_storage(error)
            raise BadListError(f"after row {read}: the Parquet file is damaged: {error}") from error


def raise_storage(error: Exception) -> None:
    """Raise a failure of the disk or network again; Arrow reports damaged files by OSError, too."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _text_column(column: pa.Array, name: str, before: int) -> list[str | None]:
    try:
        return list(column.cast(pa.string()).to_pylist())
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise BadListError(
            f"rows {before + 1} to {before + len(column)}: column {one_line(name, 40)} of type"
            f" {one_line(column.type, 40)} cannot be read as text: {error}"
        ) from error


class SheetTable:
    """A spreadsheet's one sheet with the column that names the images.

    Args:
        stream: An XLSX, XLS or ODS file.
        asked: The columns asked for.

    Raises:
        BadListError: It cannot be read, or several sheets have that column.
    """

    unit = "row"

    def __init__(self, stream: IO[bytes], asked: Asked) -> None:
        _require_bounded(stream)
        found = [
            (name, rows)
            for name, rows in _sheets(stream)
            if rows and (asked.names_images(_texts(rows[0])) or len(rows) > 1)
        ]
        named = [(name, rows) for name, rows in found if asked.names_images(_texts(rows[0]))]
        if len(named) > 1:
            raise BadListError(
                f"its sheets {shown([name for name, _ in named])} all name images: keep one of them"
            )
        if not found:
            raise BadListError("it is empty")
        self._rows = (named or found)[0][1]
        self.names = [(text or "").strip() for text in _texts(self._rows[0])]

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Sequence[str | None]]]:
        """Yield each row's number, as the spreadsheet shows it, and its values of these columns."""
        places = [self.names.index(name) for name in names]
        for number, cells in enumerate(self._rows[1:], 2):
            values = _texts(cells)
            if any(text.strip() for text in values):
                yield number, [values[place] for place in places]


def _require_bounded(stream: IO[bytes]) -> None:
    """Unpack a spreadsheet's parts once, piece by piece: what they claim to hold need not be true."""
    if not zipfile.is_zipfile(stream):
        return  # XLS is not packed
    unpacked = 0
    with zipfile.ZipFile(stream) as parts:
        for part in parts.infolist():
            with parts.open(part) as content:
                while block := content.read(_BLOCK):
                    unpacked += len(block)
                    if unpacked > _MOST_UNPACKED:
                        raise BadListError(
                            f"it unpacks to more than {_MOST_UNPACKED} bytes: save it as CSV UTF-8"
                        )
    stream.seek(0)


def _sheets(stream: IO[bytes]) -> Iterator[tuple[str, list[list[Any]]]]:
    try:
        import python_calamine  # noqa: PLC0415 (an extra, for those who have spreadsheets)
    except ImportError as error:
        raise BadListError(
            "a spreadsheet: save it as CSV UTF-8, or install imagebatch[excel], which reads it"
        ) from error
    try:
        book = python_calamine.CalamineWorkbook.from_filelike(stream)
        for name in book.sheet_names:
            yield name, book.get_sheet_by_name(name).to_python(skip_empty_area=False)
    except python_calamine.CalamineError as error:
        raise BadListError(f"not a readable spreadsheet: {error}; save it as CSV UTF-8") from error


def _texts(cells: Sequence[Any]) -> list[str]:
    return [_cell_text(cell) for cell in cells]


def _cell_text(cell: Any) -> str:
    """Return a cell as the spreadsheet shows it: 7, not 7.0."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, dt.date | dt.time):
        return cell.isoformat()
    return str(cell)
