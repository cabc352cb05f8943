"""The files of an input that were not listed: their table, and their counts.

The table is CSV (RFC 4180): `name, reason, suffix`, sorted by the bytes of the name, which is written as an
image id is. So a line of the file is a row, whatever the name.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO

from imagebatch.contracts.account import NO_SUFFIX, OTHER_SUFFIXES
from imagebatch.contracts.ids import file_of
from imagebatch.contracts.layout import LEFT_OUT_CSV, left_out_path
from imagebatch.contracts.records import DonePart, LeftOutCounts, LeftOutRecord
from imagebatch.errors import NotProvenError
from imagebatch.runs.folder import RunFolder
from imagebatch.runs.proofs import ProvenFiles

COLUMNS = ("name", "reason", "suffix")
_HEADER = (",".join(COLUMNS) + "\r\n").encode()
_SUFFIX = re.compile(r"(?:\.[a-z][a-z0-9_+-]{0,9})?\.[0-9]{1,9}|\.[a-z0-9_+-]{1,10}")
_BLOCK = 1 << 20
_ROWS = 10_000
_MOST_SUFFIXES = 8  # of each reason, in the counts; the table has all
_MOST_COUNTED = 1000


class Tally:
    """Counts of files by reason and suffix: the most frequent suffixes of each reason, the others together.

    Memory is bounded, and the same rows in the same order give the same counts.

    Attributes:
        rows: Files counted.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._counts: dict[str, Counter[str]] = {}

    def add(self, reason: str, suffix: str) -> None:
        """Count a file."""
        self.rows += 1
        suffixes, suffix = self._counts.setdefault(reason, Counter()), suffix or NO_SUFFIX
        known = suffix in suffixes or len(suffixes) < _MOST_COUNTED
        suffixes[suffix if known else OTHER_SUFFIXES] += 1

    def counts(self) -> LeftOutCounts:
        """Return files by reason and suffix, the most frequent first within a reason."""
        return {reason: _shortened(self._counts[reason]) for reason in sorted(self._counts)}


def _shortened(suffixes: Counter[str]) -> dict[str, int]:
    order = sorted(suffixes.items(), key=lambda item: (item[0] == OTHER_SUFFIXES, -item[1], item[0]))
    kept = dict(order[:_MOST_SUFFIXES])
    rest = sum(files for _, files in order[_MOST_SUFFIXES:])
    if rest:
        kept[OTHER_SUFFIXES] = kept.get(OTHER_SUFFIXES, 0) + rest
    return kept


def suffix_of(name: str) -> str:
    """Return a name's suffix in small letters with its dot, `.jpg.1` as one; empty where it has none.

    Of a page (`scan.tif#page=3`) it is its file's.
    """
    file = file_of(name).rpartition("/")[2].lower()
    at = file.rfind(".")
    if at < 1:
        return ""
    before = file.rfind(".", 0, at)
    for start in (before, at):
        if start > 0 and _SUFFIX.fullmatch(file, start):
            return file[start:]
    return ""


def write_left_out(run: RunFolder, rows: Iterable[tuple[str, str]], attempt: str) -> LeftOutRecord:
    """Write the table, if there is a row.

    Args:
        run: The run's files.
        rows: (name as an image id, reason), sorted.
        attempt: Tells this attempt's file from those of others.
    """
    tally, digest, path = Tally(), hashlib.sha256(), left_out_path(attempt)
    pieces = _pieces(rows, tally)
    first = next(pieces, None)
    if first is None:
        return LeftOutRecord(counts={}, names=None)
    with run.publishing(path) as stream:
        for piece in itertools.chain([_HEADER, first], pieces):
            stream.write(piece)
            digest.update(piece)
    part = DonePart(path=path, sha256=digest.hexdigest(), rows=tally.rows)
    return LeftOutRecord(counts=tally.counts(), names=part)


def counted_again(
    files: ProvenFiles, record: LeftOutRecord | None, copy: IO[bytes] | None = None
) -> LeftOutCounts:
    """Count the table's rows, and compare it with what was recorded.

    Args:
        files: The run's files.
        record: None: a run made before there was one.
        copy: Gets the table's bytes.

    Raises:
        NotProvenError: The table is missing or another one.
    """
    if record is None or record.names is None:
        return {}
    tally = Tally()
    path = record.names.path
    try:
        for _, reason, suffix in _read_rows(files, path, copy):
            tally.add(reason, suffix)
    except (csv.Error, ValueError) as error:
        raise NotProvenError(f"{path} is not what preprocess wrote: {error}") from error
    if files.proof(path).sha256 != record.names.sha256 or tally.rows != record.names.rows:
        raise NotProvenError(f"{path} is not the file that was recorded: its SHA-256 differs")
    return tally.counts()


def require_same_table(files: ProvenFiles, record: LeftOutRecord | None) -> None:
    """Compare the table that people read with the one that preprocess wrote.

    Raises:
        NotProvenError: They differ.
    """
    if record and record.names and files.proof(LEFT_OUT_CSV).sha256 != record.names.sha256:
        raise NotProvenError(f"{LEFT_OUT_CSV} is not what preprocess wrote")


def _pieces(rows: Iterable[tuple[str, str]], tally: Tally) -> Iterator[bytes]:
    lines: list[str] = []
    for name, reason in rows:
        suffix = suffix_of(name)
        tally.add(reason, suffix)
        text = '"' + name.replace('"', '""') + '"' if '"' in name or "," in name else name
        lines.append(f"{text},{reason},{suffix}\r\n")
        if len(lines) == _ROWS:
            yield "".join(lines).encode()
            lines.clear()
    if lines:
        yield "".join(lines).encode()


def _read_rows(files: ProvenFiles, path: str, copy: IO[bytes] | None) -> Iterator[list[str]]:
    with files.reading(path) as stream:
        rest = b""
        while block := stream.read(_BLOCK):
            if copy:
                copy.write(block)
            lines = (rest + block).decode("utf-8", "surrogateescape").split("\r\n")
            rest = lines.pop().encode("utf-8", "surrogateescape")
            yield from (row for row in csv.reader(lines, strict=True) if row != list(COLUMNS))
        if rest:
            raise ValueError("its last line is not whole")
