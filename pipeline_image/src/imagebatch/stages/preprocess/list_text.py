"""Lists as text: CSV with any usual separator, JSON lines, or one name a line."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from imagebatch.errors import one_line
from imagebatch.stages.preprocess.list_columns import Asked, BadListError, Table, usual_name

SEPARATORS = (",", ";", "\t", "|")
# A line this long is no line: a file without line ends would be read into memory as a whole.
_LONGEST_LINE = 1 << 20
_HEAD_LINES = 20
_HEAD_OBJECTS = 100  # whose keys are the columns of JSON lines
_MARKS = (  # the longer marks first, for that of UTF-16 is the beginning of that of UTF-32
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PLAIN = ("", ".txt", ".lst", ".list")
_JSON = (".json", ".jsonl", ".ndjson")
_SEPARATOR_LINE = "sep="  # how Excel is told


def encoding_of(head: bytes) -> str:
    """Tell a text's encoding from its first bytes: by its mark, or the zero bytes that UTF-16 is full of.

    Raises:
        BadListError: It is no text.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    even, odd = head[::2].count(0), head[1::2].count(0)
    if odd > len(head) // 4 and not even:
        return "utf-16-le"
    if even > len(head) // 4 and not odd:
        return "utf-16-be"
    if even or odd:
        raise BadListError(
            "a binary file of an unknown kind: lists are CSV, JSON lines, one name a line, Parquet or XLSX"
        )
    return "utf-8"


def decoded(stream: IO[bytes], encoding: str) -> io.TextIOWrapper:
    """Read a list as text; surrogates stand for bytes that are not of its encoding: their line is named."""
    return io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline="")


def text_table(text: io.TextIOWrapper, suffix: str, asked: Asked) -> Table:
    """Open a list that is text.

    Args:
        text: The list, from its beginning.
        suffix: Of its name, as `.csv`, in small letters.
        asked: The columns asked for.

    Raises:
        BadListError: It cannot be read.
    """
    lines = _lines(text)
    first = list(itertools.islice(lines, _HEAD_LINES))
    everything = itertools.chain(first, lines)
    opening = next((line for line in first if line.strip()), "")
    if suffix in _JSON or (suffix not in {".csv", ".tsv", ".txt"} and _is_object(opening)):
        return _JsonLines(everything, asked)
    if opening.lower().startswith(_SEPARATOR_LINE) and len(opening.strip()) <= len(_SEPARATOR_LINE) + 1:
        separator = opening.rstrip("\r\n")[len(_SEPARATOR_LINE) :][:1] or "\t"
        return _Separated(everything, separator, skipped=first.index(opening) + 1)
    headers = {separator: _header(first, separator) for separator in SEPARATORS}
    separator = max(headers, key=lambda key: (asked.names_images(headers[key]), len(headers[key])))
    if suffix in _PLAIN and not asked.names_images(headers[separator]):
        return _Plain(everything, opening, headers[separator])
    return _Separated(everything, separator)


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    try:
        while line := text.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE:
                raise BadListError(f"line {number} is longer than {_LONGEST_LINE} characters")
            yield line
    except UnicodeDecodeError as error:
        raise BadListError(f"after line {number}: not {error.encoding}: {error.reason}") from error


def _header(first: list[str], separator: str) -> list[str]:
    try:
        return next((row for row in csv.reader(first, delimiter=separator, strict=True) if any(row)), [])
    except csv.Error:
        return []


def _is_object(line: str) -> bool:
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _require_text(number: int, values: Iterable[str | None]) -> None:
    for value in values:
        if value and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise BadListError(
                    f"line {number} is not UTF-8 (near {one_line(value, 40)!a}): save the list as UTF-8, or"
                    " name its encoding by --list-encoding, as cp1252"
                ) from error


class _Separated:
    """CSV of RFC 4180 with any separator."""

    unit = "line"

    def __init__(self, lines: Iterator[str], separator: str, skipped: int = 0) -> None:
        self._skipped = skipped
        for _ in range(skipped):
            next(lines)
        csv.field_size_limit(_LONGEST_LINE)
        self._reader = csv.reader(lines, delimiter=separator, strict=True)
        _, header = next((row for row in self._records() if any(map(str.strip, row[1]))), (1, []))
        if not header:
            raise BadListError("it is empty")
        self.names = [name.strip() for name in header]
        _require_text(1, self.names)

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Sequence[str | None]]]:
        places = [self.names.index(name) for name in names]
        for number, values in self._records():
            if len(values) != len(self.names):
                if not any(map(str.strip, values)):
                    continue
                raise BadListError(
                    f"line {number} has {len(values)} values where the header has {len(self.names)}: put"
                    " quotes around a value that holds the separator"
                )
            chosen = [values[place] for place in places]
            if not any(map(str.strip, values)):
                continue  # a spreadsheet's empty rows
            _require_text(number, chosen)
            yield number, chosen

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            number = self._reader.line_num + self._skipped + 1
            try:
                values = next(self._reader, None)
            except csv.Error as error:
                raise BadListError(
                    f"the row that begins in line {number}: {error}; is a quote not closed or not doubled?"
                ) from error
            if values is None:
                return
            yield number, values


class _Plain:
    """One name a line, as `ls` and `find` print them: nothing is a quote or a separator."""

    unit = "line"

    def __init__(self, lines: Iterator[str], opening: str, header: list[str]) -> None:
        if usual := usual_name(header):
            raise BadListError(f"the first line reads like a header: say --uri-column {usual} if it is one")
        if not opening:
            raise BadListError("it is empty")
        self.names = ["uri"]
        self._lines = lines

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Sequence[str | None]]]:
        for number, line in enumerate(self._lines, 1):
            name = line.rstrip("\r\n")
            if name.strip():
                yield number, [name] * len(names)


class _JsonLines:
    """One object a line; numbers keep the digits that they are written with."""

    unit = "line"

    def __init__(self, lines: Iterator[str], asked: Asked) -> None:
        objects = _objects(lines)
        first = list(itertools.islice(objects, _HEAD_OBJECTS))
        if not first:
            raise BadListError("it is empty")
        self.names = list(dict.fromkeys(name for _, found in first for name in found))
        self._objects = itertools.chain(first, objects)
        self._asked = asked

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Sequence[str | None]]]:
        known = set(self.names)
        for number, found in self._objects:
            late = [name for name in found if name not in known and self._asked.concerns(name)]
            if late:
                raise BadListError(
                    f"line {number} is the first with a key {one_line(late[0], 40)}: give it to the first"
                    " line, too, if only as null"
                )
            values = [_as_text(found.get(name)) for name in names]
            _require_text(number, values)
            yield number, values


class _Number(float):
    """A number that knows how it was written: 1.10 is not 1.1 where it is a version."""

    def __init__(self, written: str) -> None:
        self.written = written


def _objects(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line, parse_float=_Number, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise BadListError(
                f"line {number} is no JSON object: {error}; write one object a line, as jq -c does"
            ) from error
        if not isinstance(found, dict):
            raise BadListError(
                f"line {number} is no JSON object: write one a line, as jq -c '.[]' does of an array"
            )
        yield number, found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "a key stands there twice"
        raise ValueError(msg)
    return found


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, _Number):
        return value.written
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
