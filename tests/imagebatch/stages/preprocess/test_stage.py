"""The first stage: listing, hashing, refusing, planning, pinning."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.calls import Call
from tests.support.images import jpeg
from tests.support.model_server import DIGEST, ModelServer


def test_every_listed_image_has_one_manifest_row(call: Call, images: Path, runs: Path) -> None:
    """Shards are contiguous ranges of sorted ids, with the digest and size of each file."""
    outcome = call("preprocess", "--run-id", "r", "--input", images, "--shard-size", 15)
    assert outcome.last == {
        "run_id": "r", "stage": "preprocess", "listed": 40, "accepted": 40, "rejected": 0, "shards": 3,
        "left_out": {}, "account": "40 files: 40 accepted",
    }  # fmt: skip
    tables = [pq.read_table(runs / f"r/manifest/shard-{shard:05}.parquet") for shard in range(3)]
    rows = [row for table in tables for row in table.to_pylist()]
    names = [path.relative_to(images).as_posix() for path in images.rglob("*.jpg")]
    assert [row["image_id"] for row in rows] == sorted(names)
    for row in rows:
        data = (images / row["image_id"]).read_bytes()
        assert (row["sha256"], row["size"]) == (hashlib.sha256(data).hexdigest(), len(data))
        assert (row["format"], row["width"], row["height"]) == ("JPEG", 24, 16)


def test_run_json_says_what_was_asked(call: Call, images: Path, runs: Path) -> None:
    """The model's digest is pinned before the first image is scored."""
    call("preprocess", "--run-id", "r", "--input", images, "--top-k", 9)
    asked = json.loads((runs / "r/run.json").read_bytes())
    assert asked["model"]["digest"] == DIGEST
    assert asked["input"] == str(images)
    assert asked["top_k"] == 4  # the model knows no more classes


def test_again_is_the_same_and_other_inputs_are_refused(
    call: Call, images: Path, tmp_path: Path, server: ModelServer
) -> None:
    """A retry continues; the same run id for anything else is 78 and says what differs."""
    first = call("preprocess", "--run-id", "r", "--input", images)
    (images / "new.jpg").write_bytes(jpeg(77))
    again = call("preprocess", "--run-id", "r", "--input", images)
    assert again.last == first.last, again.err
    (tmp_path / "other").mkdir()
    other = call("preprocess", "--run-id", "r", "--input", tmp_path / "other")
    assert (other.code, "started with another input; use a new --run-id" in other.err) == (78, True)
    server.digest = "sha256:" + "cd" * 32
    swapped = call("preprocess", "--run-id", "r", "--input", images)
    assert (swapped.code, "another model" in swapped.err) == (78, True)


def test_inputs_that_cannot_be(call: Call, images: Path, tmp_path: Path, runs: Path) -> None:
    """A missing folder, an empty one, an unknown model: one line, the right code, nothing written."""
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "readme.txt").write_text("no image")
    cases = [
        (
            ("--input", tmp_path / "nothing"),
            78,
            "nothing: No such file or directory; give an existing folder",
        ),
        (("--input", empty), 65, "(1 left out: 1 TXT: readme.txt; see --include)"),
        (("--input", empty, "--allow-empty"), 99, "no image in"),
        (("--input", images, "--model", "unheard-of"), 78, "does not serve unheard-of"),
        (("--input", "nosuch://bucket"), 78, "--input nosuch://bucket"),
        (("--manifest", tmp_path / "nothing.csv"), 78, "nothing.csv: no such file"),
    ]
    for arguments, code, text in cases:
        outcome = call("preprocess", "--run-id", "r", *arguments)
        assert (outcome.code, text in outcome.err) == (code, True), outcome.err
        assert sum(line.startswith("imagebatch:") for line in outcome.err.splitlines()) == 1
    assert not list(runs.rglob("*.*"))


def test_relative_names_are_kept_absolute(
    call: Call, images: Path, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages may run in other folders; and the same words there are another input."""
    (tmp_path / "elsewhere/images").mkdir(parents=True)
    (tmp_path / "elsewhere/images/x.jpg").write_bytes(jpeg(1))
    monkeypatch.chdir(tmp_path)
    arguments = ("preprocess", "--run-id", "r", "--input", "images", "--allowed-roots", "images, ./elsewhere")
    assert call(*arguments).code == 0
    asked = json.loads((runs / "r/run.json").read_bytes())
    assert asked["input"] == str(images)
    assert asked["allowed_roots"] == f"{images},{tmp_path / 'elsewhere'}"
    monkeypatch.chdir(tmp_path / "elsewhere")
    other = call(*arguments)
    assert (other.code, "started with another input, allowed_roots; use a new --run-id" in other.err) == (
        78,
        True,
    )
    assert call("score", "--run-id", "r").code == 0
    assert call(*arguments[:3], "--input", images, "--allowed-roots", asked["allowed_roots"]).code == 0
    (tmp_path / "list.csv").write_text("uri\nimages/001.jpg\n")
    assert call("preprocess", "--run-id", "s", "--manifest", "../list.csv").code == 0
    assert json.loads((runs / "s/run.json").read_bytes())["manifest"] == str(tmp_path / "list.csv")


def test_a_relative_input_of_an_earlier_version_is_continued(
    call: Call, tmp_path: Path, images: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It kept the words; they mean what they say in the folder that the command is called in."""
    monkeypatch.chdir(tmp_path)
    assert call("preprocess", "--run-id", "r", "--input", "images").code == 0
    asked = json.loads((runs / "r/run.json").read_bytes())
    assert asked["input"] == str(images)
    (runs / "r/run.json").write_text(json.dumps(asked | {"input": "images"}))
    assert call("preprocess", "--run-id", "r", "--input", "images").code == 0


def test_a_wrong_input_is_told_at_once_without_a_server(
    call: Call, tmp_path: Path, server: ModelServer
) -> None:
    """Waiting for a model API that is away cannot help where there is nothing to score."""
    server.close()
    (tmp_path / "empty").mkdir()
    began = time.monotonic()
    assert call("preprocess", "--run-id", "r", "--input", tmp_path / "nothing").code == 78
    assert call("preprocess", "--run-id", "r", "--input", tmp_path / "empty").code == 65
    assert time.monotonic() - began < 2


def test_a_manifest_names_images(call: Call, images: Path, tmp_path: Path, runs: Path) -> None:
    """CSV with relative, absolute and URI names; ids are the user's own."""
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        f'image_id,uri,camera\nx,images/001.jpg,7\n=y,{images}/002.jpg,8\n"z,\n",file://{images}/004.jpg,9\n'
    )
    outcome = call("preprocess", "--run-id", "r", "--manifest", manifest)
    assert outcome.last["accepted"] == 3, outcome.err
    rows = pq.read_table(runs / "r/manifest/shard-00000.parquet").to_pylist()
    assert [row["image_id"] for row in rows] == ["%3Dy", "x", "z,%0A"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("path\na.jpg\n", "no column uri; it has path"),
        ("uri\na.jpg\na.jpg\n", "image_id a.jpg occurs twice"),
        ("uri,image_id\na.jpg,\n", "line 2: no value in column image_id"),
        ("uri\na.jpg,b.jpg\n", "--manifest"),
    ],
)
def test_manifests_that_cannot_be(call: Call, tmp_path: Path, text: str, error: str) -> None:
    """Refused as a whole, with what is wrong."""
    (tmp_path / "list.csv").write_text(text)
    outcome = call("preprocess", "--run-id", "r", "--manifest", tmp_path / "list.csv")
    assert (outcome.code, error in outcome.err) == (65, True), outcome.err


def test_a_manifest_cannot_lead_out(call: Call, images: Path, tmp_path: Path) -> None:
    """Only what lies under the allowed roots is read, whatever a manifest says."""
    manifest = images / "list.csv"
    manifest.write_text(f"uri\n001.jpg\n../secret.jpg\n{tmp_path}/secret.jpg\nhttp://127.0.0.1:9/x.jpg\n")
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    outcome = call("preprocess", "--run-id", "r", "--manifest", manifest)
    assert (outcome.last["accepted"], outcome.last["rejected"]) == (1, 3)


def test_an_input_outside_the_allowed_roots_is_refused(
    call: Call, images: Path, tmp_path: Path, runs: Path
) -> None:
    """Whoever may start a run cannot make it list, or read as a list, what is not open to it."""
    (tmp_path / "list.csv").write_text("uri\nimages/001.jpg\n")
    (images / "b" / "up").symlink_to(tmp_path)
    for source in (
        ("--input", tmp_path),
        ("--input", images / "b" / ".."),
        ("--input", images / "b" / "up"),
        ("--manifest", tmp_path / "list.csv"),
        ("--input", "memory://elsewhere"),
    ):
        outcome = call("preprocess", "--run-id", "r", *source, "--allowed-roots", images / "b")
        assert (outcome.code, "is outside the allowed roots" in outcome.err) == (78, True), source
    assert not runs.exists()
    assert call("preprocess", "--run-id", "r", "--input", images, "--allowed-roots", tmp_path).code == 0


def test_limit_takes_the_first_by_id(call: Call, images: Path) -> None:
    """A sample run."""
    assert call("preprocess", "--run-id", "r", "--input", images, "--limit", 7).last["listed"] == 7
