"""The table of files that were left out: any name in it, its counts, and what is said of them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imagebatch.contracts.account import account, in_words, total
from imagebatch.contracts.ids import decode_id, encode_id
from imagebatch.contracts.layout import LEFT_OUT_CSV
from imagebatch.contracts.records import LeftOut, LeftOutRecord
from imagebatch.errors import NotProvenError
from imagebatch.runs.folder import open_run
from imagebatch.runs.left_out import Tally, counted_again, require_same_table, suffix_of, write_left_out
from imagebatch.runs.proofs import ProvenFiles


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a/b.HEIC", ".heic"),
        ("x.jpg.1", ".jpg.1"),
        ("x.0001", ".0001"),
        ("g.jpg_large", ".jpg_large"),
        ("folder.jpg/x", ""),
        (".bashrc", ""),
        ("a.", ""),
        ("What a long sentence. It has no suffix", ""),
        ("x.tar.gz", ".gz"),
        ("x.sehrlangersuffix", ""),
        ("x.j%FFpg", ""),
    ],
)
def test_suffixes(name: str, suffix: str) -> None:
    """What stands behind the last dot, if it looks like a suffix; a number with what stands before it."""
    assert suffix_of(name) == suffix


@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=30).map(encode_id), st.sampled_from(list(LeftOut)), max_size=30
    )
)
def test_any_name_comes_back_from_the_table(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, LeftOut]
) -> None:
    """Whatever bytes names are of, Python's csv reads them back, and counts made again are the same."""
    run = open_run(str(tmp_path_factory.mktemp("runs", numbered=True)), "r")
    rows = sorted((name, reason.value) for name, reason in files.items())
    record = write_left_out(run, rows, "1")
    assert total(record.counts) == len(files)
    proven = ProvenFiles(run)
    copy = io.BytesIO()
    assert counted_again(proven, record, copy) == record.counts
    if not files:
        assert record == LeftOutRecord(counts={}, names=None)
        return
    read = list(csv.DictReader(io.StringIO(copy.getvalue().decode(), newline="")))
    assert [(row["name"], row["reason"]) for row in read] == rows
    assert {decode_id(row["name"]) for row in read} == {decode_id(name) for name in files}


def test_a_table_of_many_blocks_is_counted_as_it_was_written(tmp_path: Path) -> None:
    """More rows than are read at once, with characters of several bytes at every place."""
    run = open_run(str(tmp_path), "r")
    rows = [(f"{number:06}-{'ü€𝄞' * (number % 7)}.heic", "no_image_suffix") for number in range(60_000)]
    record = write_left_out(run, rows, "1")
    assert record.names
    assert (record.names.rows, record.counts) == (60_000, {"no_image_suffix": {".heic": 60_000}})
    assert counted_again(ProvenFiles(run), record) == record.counts


def test_counts_stay_short_and_add_up() -> None:
    """However many suffixes there are, the most frequent are told and the others together."""
    tally = Tally()
    for number in range(3000):
        tally.add("no_image_suffix", f".s{number}")
    for _ in range(9):
        tally.add("no_image_suffix", "")
    counts = tally.counts()
    assert len(counts["no_image_suffix"]) <= 9
    assert total(counts) == tally.rows == 3009


def test_another_table_is_no_proof(tmp_path: Path) -> None:
    """A changed byte, a missing line, a missing file, a copy that differs: each is found."""
    run = open_run(str(tmp_path), "r")
    record = write_left_out(run, [("a.heic", "no_image_suffix"), ("b.txt", "no_image_suffix")], "1")
    assert record.names
    good = run.read(record.names.path)
    run.write(LEFT_OUT_CSV, good)
    require_same_table(ProvenFiles(run), record)
    run.write(LEFT_OUT_CSV, good.replace(b"a.heic", b"c.heic"))
    with pytest.raises(NotProvenError, match=LEFT_OUT_CSV):
        require_same_table(ProvenFiles(run), record)
    others = [
        good[:-1],
        good[:-3],
        good.replace(b"b", b"c"),
        good.replace(b",", b'"'),
        b"",
        good + good,
        b"\xff\r\n",
    ]
    for data in others:
        run.write(record.names.path, data)
        with pytest.raises(NotProvenError, match="left_out/names-1"):
            counted_again(ProvenFiles(run), record)
    run.remove(record.names.path)
    with pytest.raises(NotProvenError, match="is missing"):
        counted_again(ProvenFiles(run), record)
    assert counted_again(ProvenFiles(run), None) == {}


def test_what_people_are_told() -> None:
    """The sentence counts every file, names the most frequent kinds, and hides none."""
    assert account({"predicted": 40, "failed": 0}, {}) == "40 files: 40 predicted"
    assert account({"predicted": 1}, {}) == "1 file: 1 predicted"
    counts = {
        "no_image_suffix": {".heic": 6, "none": 1, "other": 2},
        "side_file": {".jpg": 11, ".db": 1},
        "hidden": {".jpg": 1},
    }
    assert account({"predicted": 2, "failed": 0, "rejected": 1}, counts) == (
        "25 files: 2 predicted, 1 rejected, 22 left out: 12 side files, 6 HEIC, 2 of other suffixes,"
        " 1 hidden, 1 without a suffix"
    )
    assert in_words(
        {"beyond_limit": {".jpg": 1000}, "not_included": {".png": 1}, "side_file": {"none": 1}}
    ) == ("1,002 left out: 1,000 beyond --limit, 1 PNG not in --include, 1 side file")
    many = {"no_image_suffix": {f".a{number}": 9 - number for number in range(8)}}
    assert in_words(many).endswith("4 A5, 5 others")
