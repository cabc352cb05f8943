"""Random lists: the right rows or a documented refusal, never a traceback, never silence."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imagebatch.contracts.ids import encode_id
from imagebatch.errors import MAX_MESSAGE, DataRefusedError, ExitCode, ImagebatchError
from imagebatch.inputs.names import local_path, resolved, to_uri
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.stages.preprocess.lists import ImageList, asked_columns

Row = tuple[str, ...]

PACKS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
# Names without a scheme: what those mean is the next test's. A list of names alone cannot hold line ends.
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
TEXT = st.text(CHARACTERS, max_size=12)
NAME = st.text(
    st.one_of(st.sampled_from(list(",;\t|\"' \r\n=\\#?%&[]{}*~é漢😀")), CHARACTERS), min_size=1, max_size=12
).filter(lambda name: name.strip() and ":/" not in name)
HEADER = st.sampled_from(["uri", "URI", "Uri", " uri "])


@dataclass(frozen=True)
class Case:
    """A list: its file, what it says, and whether it may be refused."""

    name: str
    data: bytes
    rows: list[Row]
    refusable: str = ""


@st.composite
def separated(draw: st.DrawFn) -> Case:
    """CSV in every usual dialect and encoding."""
    separator = draw(st.sampled_from(",;\t|"))
    with_id = draw(st.booleans())
    rows = draw(st.lists(st.tuples(NAME, NAME if with_id else TEXT, TEXT), min_size=1, max_size=6))
    order = draw(st.permutations(range(3)))
    header = [draw(HEADER), "image_id" if with_id else "other", "note"]
    text = io.StringIO(newline="")
    end, quoting = draw(
        # Python's writer leaves a carriage return bare where it is not in the line's end.
        st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)])
    )
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end)
    for row in [header, *rows]:
        writer.writerow([row[at] for at in order])
        if draw(st.integers(0, 9)) == 0:
            writer.writerow(["", "", ""])
    written = list(csv.reader(io.StringIO(text.getvalue(), newline=""), delimiter=separator))
    kept = [row for row in written[1:] if any(value.strip() for value in row)]
    uri_at, id_at, note_at = (order.index(at) for at in range(3))
    truth = [(row[id_at] if with_id else row[uri_at], row[uri_at], row[note_at]) for row in kept]
    encoding, refusable = draw(
        st.sampled_from(
            [
                *(("utf-8", ""), ("utf-8-sig", ""), ("utf-16", ""), ("utf-32", "")),
                # Without a mark it is known by its zero bytes, which text of other scripts lacks.
                *(("utf-16-le", "binary"), ("utf-16-be", "binary")),
            ]
        )
    )
    pack = draw(st.sampled_from(list(PACKS)))
    return Case(f"list.csv{pack}", PACKS[pack](text.getvalue().encode(encoding)), truth, refusable)


@st.composite
def objects(draw: st.DrawFn) -> Case:
    """JSON lines."""
    rows = draw(st.lists(st.tuples(NAME, NAME, TEXT), min_size=1, max_size=6))
    ascii_only = draw(st.booleans())
    names = [draw(HEADER), "image_id", "note"]
    lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=ascii_only) for row in rows]
    name = draw(st.sampled_from(["list.jsonl", "list.ndjson", "list"]))
    return Case(name, "\n".join(lines).encode(), [(row[1], row[0], row[2]) for row in rows])


@st.composite
def tables(draw: st.DrawFn) -> Case:
    """Parquet, with types that the text must come out of."""
    rows = draw(st.lists(st.tuples(NAME, st.integers(-(2**40), 2**40), TEXT), min_size=1, max_size=6))
    columns = dict(zip([draw(HEADER), "image_id", "note"], zip(*rows, strict=True), strict=True))
    data = io.BytesIO()
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), data)
    return Case(
        draw(st.sampled_from(["list.parquet", "list", "list.csv"])),
        data.getvalue(),
        [(str(row[1]), row[0], row[2]) for row in rows],
    )


def outcome(folder: Path, case: Case, carry: str = "note") -> tuple[list[Row], ImagebatchError | None]:
    """Read a list: its rows, or the refusal."""
    (folder / case.name).write_bytes(case.data)
    source = ImageSource([str(folder)], 10)
    try:
        return list(ImageList(str(folder / case.name), asked_columns("", "", carry), "", source)), None
    except ImagebatchError as error:
        return [], error


def meant(name: str, folder: Path) -> str:
    """What `open` in the list's folder would be given."""
    return os.path.normpath(name if name.startswith("/") else f"{folder}/{name}")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@given(case=st.one_of(separated(), objects(), tables()))
def test_the_right_rows_or_a_refusal(folder: Path, case: Case) -> None:
    """Ids, places and carried text are those that were written, whatever the list is written in."""
    found, refusal = outcome(folder, case)
    if refusal:
        assert isinstance(refusal, DataRefusedError), refusal
        assert case.refusable, refusal
        assert case.refusable in str(refusal), refusal
        return
    assert [(row[0], row[2]) for row in found] == [
        (encode_id(image_id.encode()), note) for image_id, _, note in case.rows
    ]
    for (_, uri, _), (_, name, _) in zip(found, case.rows, strict=True):
        path = local_path(uri)
        assert path is not None
        assert (os.path.normpath(path), ".." in path.split("/")) == (
            meant(name, folder),
            ".." in name.split("/"),
        )


@given(names=st.lists(NAME.filter(lambda name: not set("\r\n") & set(name)), min_size=1, max_size=6))
def test_names_alone(folder: Path, names: list[str]) -> None:
    """A file .txt is its lines, unless its first line is a header or something else."""
    case = Case("list.txt", "\n".join(names).encode(), [])
    found, refusal = outcome(folder, case, carry="")
    if refusal:
        assert any(word in str(refusal) for word in ("header", "archive", "damaged", "binary")), refusal
        return
    if not names[0].strip().casefold().startswith(("uri", "sep=", "{")):
        assert [row[0] for row in found] == [encode_id(name.encode()) for name in names]


@given(
    case=st.one_of(separated(), objects(), tables()),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 400),
)
def test_a_damaged_list_has_a_documented_end(
    folder: Path, case: Case, changes: list[tuple[int, int]], cut: int
) -> None:
    """Bytes changed and cut off anywhere: rows, or one printable line with an exit code."""
    data = bytearray(case.data)
    for at, value in changes:
        data[at % len(data)] = value
    damaged = Case(case.name, bytes(data[: len(data) - cut] if cut < len(data) else data), [])
    _, refusal = outcome(folder, damaged)
    if refusal:
        assert refusal.exit_code in {ExitCode.DATA_REFUSED, ExitCode.CONFIGURATION}
        assert str(refusal).isprintable()
        assert len(str(refusal)) <= MAX_MESSAGE


PARTS = [
    "..",
    ".",
    "",
    "images",
    "x.jpg",
    "y.jpg",
    "lists",
    "%2e%2e",
    "a\\b.jpg",
    "C:",
    "~",
    "linked",
    "\0",
    "?",
]


@given(
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=5),
    prefix=st.sampled_from(
        ["", "/", "file://", "file:///", "s3://", "zip:", "tar:file:///x!/", "http://[", "memory://"]
    ),
)
def test_a_name_is_the_file_that_open_finds_or_a_reason(folder: Path, parts: list[str], prefix: str) -> None:
    """No name ends in a traceback, and what is read is what `open` in the list's folder would read."""
    for place in ("images", "lists/images", "far/images", "far/lists", "lists"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for name in ("x.jpg", "y.jpg", "a\\b.jpg"):
            (folder / place / name).write_bytes(f"{place}/{name}".encode())
    if not (folder / "lists/linked").is_symlink():
        (folder / "lists/linked").symlink_to("../far/lists")
    name = prefix + "/".join(parts)
    source = ImageSource([str(folder), "memory://none"], 100)
    found = None
    with contextlib.suppress(ImageUnavailableError):
        found = source.read(resolved(name, to_uri(str(folder / "lists"))))
    if not prefix:
        # A name that begins with a slash is whole: the list's folder has nothing to do with it.
        assert found == _opened(os.path.join(f"{folder}/lists", name), folder)  # noqa: PTH118 - keeps the dots


def _opened(path: str, folder: Path) -> bytes | None:
    with contextlib.suppress(OSError, ValueError):
        if os.path.realpath(path).startswith(f"{folder}/"):
            plain = path if ".." in path.split("/") else os.path.normpath(path)
            with open(plain, "rb") as stream:  # noqa: PTH123 (pathlib would change the name)
                return stream.read()
    return None
