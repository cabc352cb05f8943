"""What a run says of the files that it did not list, from its listing to its report."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from imagebatch.contracts.layout import LEFT_OUT_CSV
from imagebatch.contracts.records import LeftOutRecord

from tests.support.calls import Call, scored
from tests.support.images import jpeg

COUNTS = {
    "hidden": {".jpg": 1},
    "no_image_suffix": {".heics": 6, "none": 2, ".jpg.1": 1},
    "side_file": {".jpg": 2, ".db": 1},
}
ACCOUNT = "6 HEICS, 3 side files, 2 without a suffix, 1 JPG.1, 1 hidden"


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of 17 files: four images, of which one is broken, and thirteen that are left out."""
    folder = tmp_path / "mixed"
    for name in (
        "a.jpg",
        "b.JFIF",
        "c/d.jpe",
        ".e.jpg",
        "@eaDir/a.jpg/thumb.jpg",
        "._a.jpg",
        "f.jpg.1",
        "no",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(len(name)))
    (folder / "broken.jpg").write_bytes(b"no image")
    for number in range(6):
        (folder / f"{number}.HEICS").write_bytes(b"0")
    (folder / "Thumbs.db").write_bytes(b"0")
    with open(os.path.join(os.fsencode(folder), b'=1,\n"\xff'), "wb") as stream:  # noqa: PTH118, PTH123 (bytes names)
        stream.write(b"0")
    return folder


def names(path: Path) -> dict[str, str]:
    """Reasons by name, as left_out.csv has them."""
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["name"]: row["reason"] for row in csv.DictReader(stream)}


def test_every_file_is_told_of_everywhere(call: Call, mixed: Path, runs: Path) -> None:
    """Counts by reason and suffix in listing, run.json, last lines, certificate, page; names in a table."""
    outcome = call("preprocess", "--run-id", "r", "--input", mixed, "--max-failures", 1)
    assert outcome.last["left_out"] == COUNTS
    assert outcome.last["account"] == f"17 files: 3 accepted, 1 rejected, 13 left out: {ACCOUNT}"
    assert f"17 files: 4 listed, 13 left out: {ACCOUNT}" in outcome.err
    assert json.loads((runs / "r/run.json").read_bytes())["left_out"] == COUNTS
    metadata = pq.read_metadata(runs / "r/listing.parquet").metadata or {}
    record = LeftOutRecord.model_validate_json(metadata[b"imagebatch.left_out"])
    assert record.counts == COUNTS
    assert record.names
    assert record.names.rows == 13

    assert call("score", "--run-id", "r").code == 0
    outcome = call("postprocess", "--run-id", "r")
    assert outcome.last["left_out"] == COUNTS
    assert outcome.last["account"] == f"17 files: 3 predicted, 1 rejected, 13 left out: {ACCOUNT}"
    assert f"17 files: 3 predicted, 1 rejected, 13 left out: {ACCOUNT}" in outcome.err
    certificate = json.loads((runs / "r/output/certificate.json").read_bytes())
    assert certificate["left_out"] == COUNTS
    assert {record.names.path, LEFT_OUT_CSV} <= {file["path"] for file in certificate["files"]}
    assert (runs / "r" / record.names.path).read_bytes() == (runs / "r" / LEFT_OUT_CSV).read_bytes()
    table = names(runs / "r" / LEFT_OUT_CSV)
    assert table['%3D1,%0A"%FF'] == "no_image_suffix"
    assert len(table) == 13

    assert call("report", "--run-id", "r").code == 0
    page = (runs / "r/output/report.html").read_text()
    assert "17 files: 4 listed, all accounted for" in page
    assert "13 left out" in page
    assert "Nothing lost" not in page
    for wanted in ("no image suffix", "6 HEICS", "%40eaDir/a.jpg/thumb.jpg", "%3D1,%0A&#34;%FF"):
        assert wanted in page
    history = json.loads((runs / "_history/r.json").read_bytes())
    assert history["left_out"] == 13


def test_the_last_line_stays_short_whatever_lies_there(call: Call, tmp_path: Path) -> None:
    """Suffixes of every kind in every reason: the line gives up suffixes before it cuts a path."""
    folder = tmp_path / "many"
    for number in range(20):
        suffix = f".suffix{number:03}"
        for name in (f"n{suffix}", f".h{suffix}", f"._s{suffix}"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"0")
        os.mkfifo(folder / f"f{number}{suffix}")
    for number in range(9):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    deep = tmp_path / "/".join(["runs" * 20] * 3)
    arguments = ("--run-id", "r", "--runs-uri", deep)
    assert call("preprocess", "--input", folder, "--limit", 8, *arguments).code == 0
    assert call("score", *arguments).code == 0
    done = call("postprocess", *arguments)
    line = done.out.splitlines()[-1]
    assert len(line) <= 2000
    assert done.last["certificate"] == f"{deep}/r/output/certificate.json"
    assert {reason: sum(found.values()) for reason, found in done.last["left_out"].items()} == {
        **dict.fromkeys(("hidden", "no_image_suffix", "not_a_file", "side_file"), 20),
        "beyond_limit": 1,
    }
    recorded = json.loads((deep / "r/output/certificate.json").read_bytes())["left_out"]
    assert all(len(found) <= 9 for found in recorded.values())
    assert sum(recorded["hidden"].values()) == 20


def test_verify_proves_the_names(call: Call, mixed: Path, runs: Path) -> None:
    """A name that is changed or missing, in either file, is found."""
    scored(call, "r", mixed, "--max-failures", 1)
    assert call("verify", "--run-id", "r").last["left_out"] == COUNTS
    (part,) = (runs / "r/left_out").iterdir()
    for path in (part, runs / "r" / LEFT_OUT_CSV):
        good = path.read_bytes()
        path.write_bytes(good.replace(b"0.HEICS", b"7.HEICS"))
        outcome = call("verify", "--run-id", "r")
        assert (outcome.code, path.name in outcome.err) == (65, True)
        path.unlink()
        assert call("verify", "--run-id", "r").code == 65
        path.write_bytes(good)
    assert call("verify", "--run-id", "r").code == 0


def test_a_bucket_is_told_of_like_a_folder(call: Call, mixed: Path) -> None:
    """The same names as keys of a store, and the run kept in one: the same counts, the same proof."""
    store = fsspec.filesystem("memory")
    for path in mixed.rglob("*"):
        name = path.relative_to(mixed).as_posix()
        if path.is_file() and name.isascii() and name.isprintable():
            store.pipe(f"/mixed/{name}", path.read_bytes())
    arguments = ("--run-id", "bucket", "--runs-uri", "memory://left-out-runs")
    assert call("preprocess", "--input", "memory://mixed", "--max-failures", 1, *arguments).code == 0
    assert call("score", *arguments).code == 0
    told = call("postprocess", *arguments).last
    assert told["account"] == (
        "16 files: 3 predicted, 1 rejected, 12 left out: 6 HEICS, 3 side files, 1 JPG.1, 1 hidden,"
        " 1 without a suffix"
    )
    assert call("verify", *arguments).last["left_out"] == told["left_out"]
    table = "/left-out-runs/bucket/output/left_out.csv"
    store.pipe(table, store.cat(table).replace(b"hidden", b"hiding"))
    assert call("verify", *arguments).code == 65


def test_where_nothing_is_left_out_nothing_is_written(call: Call, images: Path, runs: Path) -> None:
    """No table, an empty count, and the page says that nothing is lost."""
    assert scored(call, "r", images).last["left_out"] == {}
    assert call("report", "--run-id", "r").code == 0
    assert not (runs / "r/left_out").exists()
    assert not (runs / "r" / LEFT_OUT_CSV).exists()
    assert "Nothing lost: 40 of 40 accounted for" in (runs / "r/output/report.html").read_text()


def test_images_beyond_the_limit_are_left_out_by_name(call: Call, images: Path, runs: Path) -> None:
    """A sample says of how many it is one, also of a list."""
    outcome = scored(call, "r", images, "--limit", 7)
    assert outcome.last["account"] == "40 files: 7 predicted, 33 left out: 33 beyond --limit"
    assert set(names(runs / "r" / LEFT_OUT_CSV).values()) == {"beyond_limit"}
    (images / "list.csv").write_text("image_id,uri\n=a,001.jpg\nb,002.jpg\n")
    outcome = call("preprocess", "--run-id", "s", "--manifest", images / "list.csv", "--limit", 1)
    assert outcome.last["account"] == "2 files: 1 accepted, 1 left out: 1 beyond --limit"


def test_patterns_of_ones_own(call: Call, mixed: Path) -> None:
    """`--include` takes what is asked for; images that it passes over have a reason of their own."""
    outcome = call("preprocess", "--run-id", "r", "--input", mixed, "--include", "images,*.jpg.1")
    assert outcome.last["listed"] == 5
    outcome = call("preprocess", "--run-id", "s", "--input", mixed, "--include", "*")
    assert outcome.last["listed"] == 13
    assert set(outcome.last["left_out"]) == {"hidden", "side_file"}
    outcome = call("preprocess", "--run-id", "t", "--input", mixed, "--include", "*.jfif")
    assert outcome.last["left_out"]["not_included"] == {".jpg": 2, ".jpe": 1}


def test_run_json_counts_what_the_listing_counts(call: Call, mixed: Path, runs: Path) -> None:
    """An attempt was killed between run.json and its listing, and the folder has changed since."""
    assert call("preprocess", "--run-id", "r", "--input", mixed).code == 0
    for path in ("listing.parquet", "manifest/_DONE.json", "manifest/shard-00000.parquet"):
        (runs / "r" / path).unlink()
    (mixed / "0.HEICS").unlink()
    now = call("preprocess", "--run-id", "r", "--input", mixed).last["left_out"]
    assert now["no_image_suffix"][".heics"] == 5
    assert json.loads((runs / "r/run.json").read_bytes())["left_out"] == now
    assert len(list((runs / "r/left_out").iterdir())) == 2  # the first attempt's is not the listing's
    assert call("score", "--run-id", "r").code == 0
    assert call("postprocess", "--run-id", "r").code == 0
    assert len(names(runs / "r" / LEFT_OUT_CSV)) == 12
    assert call("verify", "--run-id", "r").code == 0


def test_a_run_of_an_earlier_version_is_continued_and_proven(call: Call, images: Path, runs: Path) -> None:
    """Its listing says nothing of what was left out, patterns and limit were others: it goes on as begun."""
    arguments = ("preprocess", "--run-id", "r", "--input", images)
    assert call(*arguments).code == 0
    listing = pq.ParquetFile(runs / "r/listing.parquet")
    with pq.ParquetWriter(runs / "r/old", listing.schema_arrow) as writer:
        for number in range(listing.num_row_groups):
            writer.write_table(listing.read_row_group(number))
    (runs / "r/old").replace(runs / "r/listing.parquet")
    asked = json.loads((runs / "r/run.json").read_bytes())
    del asked["left_out"]
    asked["include"] = "*.jpg,*.jpeg,*.png,*.webp,*.bmp,*.tif,*.tiff,*.gif"
    asked["max_image_pixels"] = 100_000_000
    (runs / "r/run.json").write_text(json.dumps(asked))
    assert call(*arguments).last["listed"] == 40
    assert json.loads((runs / "r/run.json").read_bytes()) == asked
    assert call("score", "--run-id", "r").code == 0
    assert call("postprocess", "--run-id", "r").last["left_out"] == {}
    assert call("verify", "--run-id", "r").code == 0
    assert call(*arguments, "--include", "*.jpg").code == 78
