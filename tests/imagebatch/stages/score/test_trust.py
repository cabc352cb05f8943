"""What a killed attempt leaves is taken over as it was written, by bytes and by sense, or is asked again."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from imagebatch.contracts.records import ModelPin
from imagebatch.contracts.rows import ASKED_COLUMNS, MANIFEST_SCHEMA, SCORES_SCHEMA
from imagebatch.runs.folder import RunFolder, open_run, parquet_bytes
from imagebatch.stages.score.attempts import Attempt
from imagebatch.stages.score.journal import Journal
from imagebatch.stages.score.shard import ShardInProgress
from imagebatch.stages.score.threshold import Threshold
from imagebatch.stages.score.trust import Trust

from tests.support.calls import Call
from tests.support.model_server import LABELS, ModelServer

MODEL = ModelPin(name="m", version="1", digest="sha256:" + "ab" * 32, labels=[*LABELS, "twin", "twin"])
IMAGES = {f"{name}.jpg": name * 64 for name in "abc"}
MANIFEST = pa.Table.from_pylist(
    [{"image_id": name, "uri": name, "size": 1, "sha256": digest} for name, digest in IMAGES.items()],
    MANIFEST_SCHEMA,
)
TRUST = Trust(MODEL, 4)


def row(name: str = "a.jpg", **changes: Any) -> dict[str, Any]:
    """A whole score row, with some of it changed."""
    good = {
        "image_id": name,
        "sha256": IMAGES[name],
        "model_digest": MODEL.digest,
        "labels": LABELS,
        "probabilities": [0.5, 0.25, 0.125, 0.125],
        "embedding": [0.5, -2.0] if name == "a.jpg" else None,
        "classes": [0, 1, 2, 3],
    }
    return dict.fromkeys(SCORES_SCHEMA.names) | good | changes


ROWS = [row(name) for name in IMAGES]
FAILED = row(
    labels=None, probabilities=None, classes=None, reason="truncated", detail="half of it", embedding=None
)
IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "the same label twice": row(labels=[LABELS[0], *LABELS[:3]], classes=None),
    "a label of two classes three times": row(labels=["twin", "twin", "twin", LABELS[0]], classes=None),
    "a label that the model does not have": row(labels=["cat", *LABELS[:3]], classes=None),
    "too few labels": row(labels=LABELS[:3], probabilities=[0.5, 0.25, 0.125]),
    "more labels than probabilities": row(probabilities=[0.5, 0.25, 0.125]),
    "no labels": row(labels=None, probabilities=None, classes=None),
    "probabilities that rise": row(probabilities=[0.125, 0.5, 0.25, 0.125]),
    "a probability that is no number": row(probabilities=[math.nan, 0.25, 0.125, 0.125]),
    "an infinite probability": row(probabilities=[math.inf, 0.25, 0.125, 0.125]),
    "a probability above 1": row(probabilities=[1.5, 0.25, 0.125, 0.125]),
    "a negative probability": row(probabilities=[0.5, 0.25, 0.125, -0.125]),
    "an embedding that is not finite": row(embedding=[math.nan]),
    "a class of another name": row(classes=[1, 0, 2, 3]),
    "one class twice": row(labels=["twin", "twin", *LABELS[:2]], classes=[4, 4, 0, 1]),
    "a class that there is none": row(classes=[0, 1, 2, 6]),
    "fewer classes than labels": row(classes=[0, 1]),
    "another model": row(model_digest="sha256:" + "cd" * 32),
    "another file": row(sha256="d" * 64),
    "a reason beside labels": row(reason="truncated", detail=""),
    "a reason that there is none": FAILED | {"reason": "cursed"},
    "a detail without a reason": row(detail="why"),
}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """An empty run in memory, where nothing is flushed to a disk."""
    return open_run(f"memory://{tmp_path.name}", "r")


def left_behind(run: RunFolder, rows: list[dict[str, Any]]) -> str:
    """Publishes a part as an attempt does; returns its path."""
    return Attempt(run, 0, 1).write_part(0, pa.Table.from_pylist(rows, SCORES_SCHEMA)).path


def resumed(run: RunFolder) -> int:
    """Begins the shard again; returns how many images need not be asked about."""
    threshold = Threshold(allowed=100, rejected=0, in_a_row=0)
    shard = ShardInProgress.begin(run, 0, MANIFEST, trust=TRUST, threshold=threshold)
    run.remove(f"scores/shard-00000/attempt-{shard.attempt:05d}.json")
    return shard.resumed


def test_what_was_written_is_taken_over(run: RunFolder) -> None:
    """A whole part is, a failure in it too, and labels as often as the model has them."""
    left_behind(
        run, [FAILED, row("b.jpg", labels=["twin", "twin", *LABELS[:2]], classes=[5, 4, 0, 1]), row("c.jpg")]
    )
    assert resumed(run) == 3


def test_no_flipped_bit_of_a_part_is_taken_over(run: RunFolder) -> None:
    """One bit flipped at every byte, in turn: no part is taken over, and some would have been readable."""
    path = left_behind(run, ROWS)
    whole = run.read(path)
    other_answers = 0
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        run.write(path, bytes(damaged))
        assert resumed(run) == 0, at
        try:
            table = pq.ParquetFile(pa.BufferReader(bytes(damaged))).read()  # as one that compares nothing
            other_answers += table.schema.equals(SCORES_SCHEMA) and table.to_pylist() != ROWS
        except Exception:  # noqa: BLE001, S112 (whatever the reader raises, such a part was never in danger)
            continue
    run.write(path, whole)
    assert (resumed(run), other_answers > 0) == (3, True)


def test_no_flipped_bit_of_a_journal_is_taken_over(tmp_path: Path) -> None:
    """One bit flipped at every byte, in turn: each line is used as it was written, or not at all."""
    run = open_run(str(tmp_path), "r")
    run.write("scores/shard-00000/attempt-00001.json", b"{}")
    journal = Journal(run, 0, 1)
    journal.keep(0, ROWS[:2])  # type: ignore[arg-type]  # typed as plain dictionaries here
    journal.keep(0, ROWS[2:])  # type: ignore[arg-type]  # typed as plain dictionaries here
    (path,) = tmp_path.rglob("journal-*")
    whole = path.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        kept = [row for _, row in Journal(run, 0, 2).earlier()]
        assert kept in ([], ROWS[:2], ROWS[2:]), at


@pytest.mark.parametrize(
    ("more", "taken"), [({"endpoint": "http://a"}, 3), ({"endpoint": 7}, 2), ({"score": 0.5}, 2)]
)
def test_a_kept_row_may_tell_its_endpoint_and_nothing_else(
    tmp_path: Path, more: dict[str, Any], taken: int
) -> None:
    """Its address is a text; a key that no version writes was not written by one."""
    local = open_run(str(tmp_path), "r")
    local.write("scores/shard-00000/attempt-00001.json", b"{}")
    Journal(local, 0, 1).keep(0, [row(**more), *ROWS[1:]])  # type: ignore[list-item]  # wrong on purpose
    assert resumed(local) == taken


@pytest.mark.parametrize("wrong", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_row_that_cannot_be_is_not_taken_over(
    run: RunFolder, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    """However whole the file is: its part is not, and of a journal all rows but this one are."""
    left_behind(run, [wrong, *ROWS[1:]])
    assert resumed(run) == 0
    local = open_run(str(tmp_path), "r")
    local.write("scores/shard-00000/attempt-00001.json", b"{}")
    Journal(local, 0, 1).keep(0, [wrong, *ROWS[1:]])  # type: ignore[list-item]  # wrong on purpose
    assert resumed(local) == 2


@pytest.mark.parametrize(
    "ids", [["a.jpg", "c.jpg", "b.jpg"], ["a.jpg", "b.jpg"], ["a.jpg", "b.jpg", "b.jpg"]]
)
def test_a_part_of_other_images_is_not_taken_over(run: RunFolder, ids: list[str]) -> None:
    """It must hold exactly the images that it was cut for, in their order."""
    left_behind(run, [row(name) for name in ids])
    assert resumed(run) == 0


@pytest.mark.parametrize(
    "content", ["7", '{"a": 1}', "[1, null, [], {}]", '[{"image_id": []}]', "[" * 9999, "{"]
)
def test_a_journal_of_something_else_is_passed_over(tmp_path: Path, content: str) -> None:
    """A whole line of another form is no answer, and no traceback."""
    run = open_run(str(tmp_path), "r")
    text = content.encode()
    run.write("scores/shard-00000/attempt-00001.json", b"{}")
    run.append(
        "scores/shard-00000/journal-00000-attempt-00001.jsonl", b"%08x %s\n" % (zlib.crc32(text), text)
    )
    assert resumed(run) == 0


def test_a_part_of_the_version_before_is_scored_again(
    call: Call, images: Path, runs: Path, server: ModelServer
) -> None:
    """A run that was left unfinished by it goes on, and its parts, which carry no digest, are asked again."""
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    assert call("score", "--run-id", "r").code == 0
    (part,) = runs.glob("r/scores/*/part-*")
    done = json.loads((part.parent / "_DONE.json").read_text())
    assert part.stem.endswith(done["parts"][0]["sha256"])
    (part.parent / "_DONE.json").unlink()
    part.rename(part.with_name("part-00000-attempt-00001.parquet"))
    server.images.clear()
    assert call("score", "--run-id", "r").last["resumed"] == 0
    assert len(server.images) == 40
    assert call("postprocess", "--run-id", "r").code == 0
    assert call("verify", "--run-id", "r").code == 0


def test_a_damaged_record_of_a_shard_is_told(call: Call, images: Path, runs: Path) -> None:
    """`_DONE.json` that score did not write so: 65, one line that names it."""
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    assert call("score", "--run-id", "r").code == 0
    (done,) = runs.glob("r/scores/*/_DONE.json")
    done.write_bytes(done.read_bytes()[:-20])
    outcome = call("score", "--run-id", "r")
    assert (outcome.code, "_DONE.json is not what score wrote" in outcome.err) == (65, True)


def test_the_rows_of_these_tests_are_good() -> None:
    """What the tests above change is the only thing that is wrong."""
    table = pa.Table.from_pylist(ROWS, SCORES_SCHEMA)
    data = parquet_bytes(table)
    assert TRUST.part(data, "0" * 64, MANIFEST.select(ASKED_COLUMNS)) is None
    assert all(TRUST.row(one, IMAGES) for one in [*ROWS, FAILED])
