"""Columns of a list carried into the result."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow.parquet as pq

from tests.support.calls import Call, Outcome

ROWS = [
    ["image_id", "uri", "site; name", "note", "price"],
    ["b", "images/001.jpg", "Köln, Nord", 'the "old" one', "-5"],
    ["a", "images/002.jpg", "100%", "=1+1", "007"],
    ["d", "images/004.jpg", "", "two\nlines", "1e5"],
    ["c", "images/none.jpg", "x", "never seen", "1"],
]
# What differs in the CSV: harmless there, and as it was in Parquet.
SAFE = {"=1+1": "%3D1+1", "two\nlines": "two%0Alines"}


def finished(call: Call, tmp_path: Path, run_id: str, *options: str) -> Outcome:
    with (tmp_path / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(ROWS)
    asked = ("--manifest", tmp_path / "list.csv", "--shard-size", 2, *options)
    assert call("preprocess", "--run-id", run_id, *asked).code == 0
    assert call("score", "--run-id", run_id).code == 0
    return call("postprocess", "--run-id", run_id)


def test_what_a_list_says_stands_beside_the_answer(
    call: Call, images: Path, tmp_path: Path, runs: Path
) -> None:
    """Each value beside its own image, as text, after today's columns; and the certificate covers it."""
    assert images.exists()
    assert finished(call, tmp_path, "r", "--carry", "all", "--max-failures", "50%").code == 0
    with (runs / "r/output/predictions.csv").open(newline="") as stream:
        found = list(csv.reader(stream))
    assert found[0][-4:] == ["model_digest", "site; name", "note", "price"]
    expected = {row[0]: row[2:] for row in ROWS[1:4]}
    assert {row[0]: row[-3:] for row in found[1:]} == {
        name: [SAFE.get(value, value) for value in values] for name, values in expected.items()
    }
    table = pq.read_table(runs / "r/output/predictions.parquet")
    assert {row["image_id"]: list(row.values())[-3:] for row in table.to_pylist()} == expected
    assert call("verify", "--run-id", "r").code == 0


def test_nothing_is_carried_unless_asked(call: Call, images: Path, tmp_path: Path, runs: Path) -> None:
    """Without --carry the bytes are those of always, and with it the columns before are."""
    assert images.exists()
    assert finished(call, tmp_path, "plain").code == 0
    assert finished(call, tmp_path, "carried", "--carry", "price,uri").code == 0
    plain = (runs / "plain/output/predictions.csv").read_bytes().splitlines()
    carried = list(
        csv.reader(io.StringIO((runs / "carried/output/predictions.csv").read_bytes().decode(), newline=""))
    )
    assert carried[0][-2:] == ["price", "uri"]
    assert [",".join(row[:-2]).encode() for row in carried] == plain
    other = call("preprocess", "--run-id", "plain", "--manifest", tmp_path / "list.csv", "--carry", "all")
    assert (other.code, "another carry" in other.err) == (78, True)


def test_a_redrive_keeps_what_was_carried(call: Call, images: Path, tmp_path: Path, runs: Path) -> None:
    """An image that has an answer only later has its own values beside it."""
    assert finished(call, tmp_path, "r", "--carry", "note", "--max-failures", "50%").code == 0
    (images / "none.jpg").write_bytes((images / "001.jpg").read_bytes())
    assert call("redrive", "--run-id", "r").code == 0
    with (runs / "r/output/predictions.csv").open(newline="") as stream:
        found = {row["image_id"]: row["note"] for row in csv.DictReader(stream)}
    assert found == {row[0]: SAFE.get(row[3], row[3]) for row in ROWS[1:]}
    assert call("verify", "--run-id", "r").code == 0
