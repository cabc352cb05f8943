"""Predictions kept from run to run: exact, checked, and never in the way."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.calls import Call
from tests.support.images import jpeg
from tests.support.model_server import Images, ModelServer, Wrong


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def scored(call: Call, runs: Path, run_id: str, images: Path, *flags: object) -> tuple[bytes, dict[str, Any]]:
    """A run's CSV and its certificate."""
    assert call("preprocess", "--run-id", run_id, "--input", images, "--shard-size", 15).code == 0
    assert call("score", "--run-id", run_id, *flags).code == 0
    assert call("postprocess", "--run-id", run_id).code == 0
    assert call("verify", "--run-id", run_id).code == 0
    output = runs / run_id / "output"
    certificate = json.loads((output / "certificate.json").read_bytes())
    return (output / "predictions.csv").read_bytes(), certificate


def test_a_warm_cache_gives_the_same_bytes_and_asks_nothing(
    call: Call, images: Path, runs: Path, server: ModelServer, folder: Path
) -> None:
    """The hits are counted in certificate and telemetry; the CSV does not know of them."""
    plain, _ = scored(call, runs, "plain", images)
    cold, filled = scored(call, runs, "cold", images, "--cache", folder)
    server.images.clear()
    warm, certificate = scored(call, runs, "warm", images, "--cache", folder)
    assert plain == cold == warm
    assert server.images == []
    assert (filled["cached"], certificate["cached"]) == (0, 40)
    assert certificate["counts"]["predicted"] == 40
    counts = [json.loads(path.read_bytes()) for path in (runs / "warm/telemetry").glob("score-*.json")]
    assert sum(one.get("cached", 0) for one in counts) == 40


def test_only_what_is_the_same_is_a_hit(
    call: Call, images: Path, runs: Path, server: ModelServer, folder: Path
) -> None:
    """A changed file is asked about, one under another name is not; another model or top-k asks about all."""
    scored(call, runs, "first", images, "--cache", folder)
    (images / "001.jpg").write_bytes(jpeg(500))
    (images / "002.jpg").rename(images / "renamed.jpg")
    server.images.clear()
    scored(call, runs, "changed", images, "--cache", folder)
    assert server.images == [jpeg(500)]
    server.images.clear()
    assert call("preprocess", "--run-id", "k", "--input", images, "--top-k", 2).code == 0
    assert call("score", "--run-id", "k", "--cache", folder).code == 0
    assert len(server.images) == 40
    server.images.clear()
    server.digest = "sha256:" + "cd" * 32
    scored(call, runs, "other", images, "--cache", folder)
    assert len(server.images) == 40


def test_answers_under_other_class_names_are_no_hits(
    call: Call, images: Path, runs: Path, server: ModelServer, folder: Path
) -> None:
    """A model card whose labels were in a wrong order and are corrected is no other digest to a server."""
    wrong, _ = scored(call, runs, "wrong", images, "--cache", folder)
    server.labels = server.labels[::-1]
    plain, _ = scored(call, runs, "plain", images)
    right, certificate = scored(call, runs, "right", images, "--cache", folder)
    assert (right, certificate["cached"]) == (plain, 0)
    assert right != wrong


def test_embeddings_are_kept_too(
    call: Call, images: Path, runs: Path, server: ModelServer, folder: Path
) -> None:
    """Only images of the sample that were kept without one are asked again; later samples find theirs."""
    scored(call, runs, "before", images, "--cache", folder)
    server.embedding = 7
    server.images.clear()
    scored(call, runs, "a", images, "--cache", folder, "--embeddings", 10)
    assert len(server.images) == 10
    assert sorted(server.images) == sorted(server.embedded)
    server.images.clear()
    scored(call, runs, "all", images, "--cache", folder, "--embeddings", 0)
    assert server.images == []
    assert not (runs / "all/quality/embeddings.parquet").exists()
    scored(call, runs, "sample", images, "--cache", folder, "--embeddings", 40)
    assert len(server.images) == 30
    tables = [pq.read_table(runs / run / "quality/embeddings.parquet") for run in ("a", "sample")]
    assert [table.num_rows for table in tables] == [10, 40]
    first, every = (dict(zip(*table.to_pydict().values(), strict=True)) for table in tables)
    assert first.items() <= every.items()


def test_failures_are_not_kept(
    call: Call, images: Path, runs: Path, server: ModelServer, folder: Path
) -> None:
    """An image that the model API has refused is asked about in every run."""
    broken = (images / "001.jpg").read_bytes() + b"BROKEN"
    (images / "001.jpg").write_bytes(broken)
    for run_id in ("first", "second"):
        server.images.clear()
        _, certificate = scored(call, runs, run_id, images, "--cache", folder)
        assert certificate["counts"]["failed"] == 1
    assert server.images == [broken]


def _whole(digest: str, answer: str) -> tuple[str, str]:
    return answer, hashlib.sha256(f"{digest} {answer}".encode()).hexdigest()


def _answer(labels: list[str], probabilities: list[float]) -> str:
    return json.dumps({"labels": labels, "probabilities": probabilities})


GOOD = ["mono-sound", "mono-defective", "poly-sound", "poly-defective"]


@pytest.mark.parametrize(
    "changed",
    [
        lambda _digest, answer, checksum: (answer.replace("0.", "0.0", 1), checksum),
        lambda _digest, answer, checksum: (answer[:-9], checksum),
        lambda _digest, _answer, _checksum: (b"\xff\xfe", b"\x00"),
        lambda digest, _answer, _checksum: _whole("other" + digest, _ANSWER),
        lambda digest, _old, _checksum: _whole(digest, _answer(["cat", *GOOD[1:]], [0.4, 0.3, 0.2, 0.1])),
        lambda digest, _old, _checksum: _whole(digest, _answer(GOOD, [0.1, 0.2, 0.3, 0.4])),
        lambda digest, _old, _checksum: _whole(digest, _answer(GOOD, [float("nan")] * 4)),
        lambda digest, _old, _checksum: _whole(digest, _answer(GOOD, [1.5, 0.3, 0.2, 0.1])),
        lambda digest, _old, _checksum: _whole(digest, _answer(GOOD[:2], [0.4, 0.3])),
        lambda digest, _old, _checksum: _whole(digest, _answer(GOOD[:1] * 4, [0.25] * 4)),
        lambda digest, _old, _checksum: _whole(digest, "[" * 100_000),
    ],
)
def test_an_entry_that_cannot_be_is_asked_about(  # noqa: PLR0917 (fixtures)
    call: Call, images: Path, runs: Path, server: ModelServer, folder: Path, changed: Callable[..., Any]
) -> None:
    """Damaged, moved to another image, or whole and impossible: it never becomes a prediction."""
    before, _ = scored(call, runs, "first", images, "--cache", folder)
    (file,) = folder.glob("*.sqlite")
    with sqlite3.connect(file) as database:
        digest, answer, checksum = database.execute("SELECT * FROM predictions LIMIT 1").fetchone()
        new = changed(digest, answer, checksum)
        database.execute("UPDATE predictions SET answer = ?, checksum = ? WHERE sha256 = ?", (*new, digest))
    database.close()
    server.images.clear()
    after, certificate = scored(call, runs, "second", images, "--cache", folder)
    assert before == after
    assert [hashlib.sha256(data).hexdigest() for data in server.images] == [digest]
    assert certificate["cached"] == 39


@pytest.mark.parametrize("damage", ["text", "middle"])
def test_a_damaged_file_is_put_aside_and_begun_again(  # noqa: PLR0917 (fixtures)
    call: Call, images: Path, runs: Path, server: ModelServer, folder: Path, damage: str
) -> None:
    """It is told once, the run is scored as without a cache, and the next one finds all in the new file."""
    before, _ = scored(call, runs, "first", images, "--cache", folder)
    (file,) = folder.glob("*.sqlite")
    content = file.read_bytes()
    text = b"no database " * 1000
    file.write_bytes(text if damage == "text" else content[:4096] + b"\xaa" * (len(content) - 4096))
    spoilt = file.read_bytes()
    server.images.clear()
    assert call("preprocess", "--run-id", "second", "--input", images, "--shard-size", 15).code == 0
    told = call("score", "--run-id", "second", "--cache", folder)
    assert (told.code, told.err.count("the cache was damaged: it is begun again")) == (0, 1)
    assert "the cache is not used" not in told.err
    assert len(server.images) == 40
    assert file.with_suffix(".damaged").read_bytes()[4096:] == spoilt[4096:]
    server.images.clear()
    after, certificate = scored(call, runs, "third", images, "--cache", folder)
    assert before == after
    assert (server.images, certificate["cached"]) == ([], 40)


def test_a_file_that_cannot_be_used_costs_the_cache_alone(
    call: Call, images: Path, runs: Path, server: ModelServer, folder: Path
) -> None:
    """The run is scored as without a cache, with one warning, where no file can be made."""
    before, _ = scored(call, runs, "first", images, "--cache", folder)
    (file,) = folder.glob("*.sqlite")
    file.unlink()
    file.mkdir()
    server.images.clear()
    after, certificate = scored(call, runs, "second", images, "--cache", folder)
    assert before == after
    assert (len(server.images), certificate["cached"]) == (40, 0)


def test_a_killed_run_counts_its_hits_once(
    call: Call, images: Path, runs: Path, server: ModelServer, folder: Path
) -> None:
    """What the attempt before took out of the cache is still counted, also in a part that is adopted."""
    scored(call, runs, "first", images, "--cache", folder)
    for number in range(1000, 1020):
        (images / f"z{number}.jpg").write_bytes(jpeg(number))
    assert call("preprocess", "--run-id", "r", "--input", images, "--shard-size", 15).code == 0
    completing = [jpeg(number) for number in range(1000, 1005)]

    def answer_what_completes_the_third_shard(_number: int, pack: Images) -> Wrong | None:
        if [data for _, data in pack] != completing:
            return Wrong(503)
        server.key = "secret"  # from now on a key is wanted
        return None

    server.faults = answer_what_completes_the_third_shard
    assert call("score", "--run-id", "r", "--cache", folder).code == 78
    server.key, server.faults = "", lambda _number, _images: None
    assert call("score", "--run-id", "r").code == 0
    assert call("postprocess", "--run-id", "r").code == 0
    certificate = json.loads((runs / "r/output/certificate.json").read_bytes())
    assert certificate["counts"]["predicted"] == 60
    assert certificate["cached"] == 40


def test_runs_at_once_share_a_file(call: Call, images: Path, runs: Path, folder: Path) -> None:
    """Four processes fill and read the same file; each has the same CSV."""
    ids = [f"r{number}" for number in range(4)]
    for run_id in ids:
        assert call("preprocess", "--run-id", run_id, "--input", images).code == 0
    flags = ["--cache", str(folder), "--pack-size", "2"]
    program = [sys.executable, "-m", "imagebatch", "score", *flags]
    started = [subprocess.Popen([*program, "--run-id", run_id], stdout=subprocess.DEVNULL) for run_id in ids]
    assert [one.wait(60) for one in started] == [0] * 4
    for run_id in ids:
        assert call("postprocess", "--run-id", run_id).code == 0
    assert len({(runs / run_id / "output/predictions.csv").read_bytes() for run_id in ids}) == 1


_ANSWER = _answer(GOOD, [0.4, 0.3, 0.2, 0.1])
