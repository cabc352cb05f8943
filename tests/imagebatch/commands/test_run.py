"""All stages together: hostile files, byte-identical results, gates, and proof."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from tests.support.calls import Call
from tests.support.images import jpeg, png_bomb
from tests.support.model_server import ModelServer

HOSTILE_NAMES = [
    b"comma,.jpg",
    b'quote".jpg',
    b"new\nline.jpg",
    b"=HYPERLINK(1).jpg",
    b"n" * 236 + b".jpg",
    b"\xff\xfe.jpg",
    b"<script>.jpg",
    b"100%41.jpg",
]


def with_bad_files(folder: Path) -> set[str]:
    """Adds one of each kind of file that cannot be predicted; returns their names."""
    (folder / "bad-empty.jpg").write_bytes(b"")
    (folder / "bad-text.jpg").write_text("hello\n")
    (folder / "bad-truncated.jpg").write_bytes(jpeg(1)[:-40] + b"BROKEN")
    (folder / "bad-bomb.png").write_bytes(png_bomb())
    (folder / "bad-unreadable.jpg").write_bytes(jpeg(2))
    (folder / "bad-unreadable.jpg").chmod(0)
    os.mkfifo(folder / "bad-fifo.jpg")
    (folder / "bad-link.jpg").symlink_to("nothing")
    return {path.name for path in folder.glob("bad-*")}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def run_without_privilege(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the command without root's right to read everything, where the tests run as root."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*drop, sys.executable, "-m", "imagebatch", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_bad_file_costs_one_row_and_hostile_names_none(call: Call, images: Path, runs: Path) -> None:
    """Seven bad files are seven failure rows; hostile names are predicted and come back as they were."""
    bad = with_bad_files(images)
    for number, name in enumerate(HOSTILE_NAMES):
        with open(os.path.join(os.fsencode(images), name), "wb") as stream:  # noqa: PTH118, PTH123 (bytes names)
            stream.write(jpeg(1000 + number))
    done = run_without_privilege("run", "--run-id", "r", "--input", images, "--max-failures", "20%")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["listed"], last["predicted"], last["failed"], last["rejected"]) == (55, 48, 1, 6)

    failures = read_csv(runs / "r/output/failures.csv")
    assert {row["image_id"]: row["reason"] for row in failures} == {
        "bad-empty.jpg": "empty",
        "bad-text.jpg": "not_an_image",
        "bad-truncated.jpg": "truncated",
        "bad-bomb.png": "too_many_pixels",
        "bad-unreadable.jpg": "unreadable",
        "bad-fifo.jpg": "not_a_file",
        "bad-link.jpg": "not_found",
    }
    assert {row["image_id"] for row in failures} == bad
    predicted = [row["image_id"] for row in read_csv(runs / "r/output/predictions.csv")]
    assert predicted == sorted(predicted)
    assert set(HOSTILE_NAMES) <= {unquote_to_bytes(image_id) for image_id in predicted}
    assert not any(image_id.startswith("=") for image_id in predicted)
    assert call("verify", "--run-id", "r").code == 0


def test_bytes_do_not_depend_on_how_the_work_was_cut(call: Call, images: Path, runs: Path) -> None:
    """Other shard sizes, packs and concurrency give the same CSV, and the same Parquet file."""
    cuts = [(512, 32, 3), (7, 1, 8), (40, 5, 1)]
    results = set()
    for number, (shard, pack, flights) in enumerate(cuts):
        cut = ("--shard-size", shard, "--pack-size", pack, "--in-flight", flights)
        assert call("run", "--run-id", f"r{number}", "--input", images, *cut).code == 0
        output = runs / f"r{number}/output"
        results.add(tuple((output / f"predictions.{kind}").read_bytes() for kind in ("csv", "parquet")))
    assert len(results) == 1


def test_the_certificate_balances(call: Call, images: Path, runs: Path) -> None:
    """Counts, reasons and a digest of every file that the result hangs on."""
    (images / "broken.jpg").write_bytes(jpeg(5) + b"BROKEN")
    assert call("run", "--run-id", "r", "--input", images).code == 0
    certificate = json.loads((runs / "r/output/certificate.json").read_bytes())
    assert certificate["counts"] == {"listed": 41, "predicted": 40, "failed": 1, "rejected": 0}
    assert certificate["balanced"] is True
    assert certificate["reasons"] == {"truncated": 1}
    paths = {entry["path"] for entry in certificate["files"]}
    on_disk = {path.relative_to(runs / "r").as_posix() for path in (runs / "r").rglob("*") if path.is_file()}
    assert paths <= on_disk
    left = {path for path in on_disk - paths if not path.startswith(("quality/", "telemetry/"))}
    uncertified = {"_SUCCESS", "output/certificate.json", "output/report.html"}
    assert left == uncertified | {"scores/shard-00000/attempt-00001.json"}


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_any_changed_byte_is_found(call: Call, images: Path, runs: Path, tmp_path: Path, where: str) -> None:
    """`verify` passes on the run as it is, and fails with 65 after a byte of any file has changed."""
    assert call("run", "--run-id", "r", "--input", images, "--shard-size", 25).code == 0
    assert call("verify", "--run-id", "r").code == 0
    certified = json.loads((runs / "r/output/certificate.json").read_bytes())["files"]
    paths = [entry["path"] for entry in certified] + ["output/certificate.json", "_SUCCESS"]
    assert len(paths) >= 14
    for path in paths:
        shutil.copytree(runs / "r", tmp_path / "runs2/r", dirs_exist_ok=True)
        victim = tmp_path / "runs2/r" / path
        data = bytearray(victim.read_bytes())
        position = {"first": 0, "middle": len(data) // 2, "last": len(data) - 1}[where]
        data[position] ^= 0x01
        victim.write_bytes(data)
        outcome = call("verify", "--run-id", "r", "--runs-uri", tmp_path / "runs2")
        assert outcome.code == 65, (path, outcome.err)


def test_a_missing_line_or_file_is_found(call: Call, images: Path, runs: Path) -> None:
    """A CSV that is a line short, and a part that is gone, fail the proof."""
    assert call("run", "--run-id", "r", "--input", images).code == 0
    path = runs / "r/output/predictions.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\r\n", 0, -2) + 2])
    assert call("verify", "--run-id", "r").code == 65
    path.write_bytes(whole)
    next((runs / "r/scores/shard-00000").glob("part-*")).unlink()
    assert call("verify", "--run-id", "r").code == 65


def test_too_many_failures_stop_the_run_before_a_csv(call: Call, images: Path, runs: Path) -> None:
    """Scoring stops with 65 and a summary by reason, keeps what is scored, and writes failures alone."""
    for number in range(4):
        (images / f"broken{number}.jpg").write_bytes(jpeg(number + 50) + b"BROKEN")
    outcome = call("run", "--run-id", "r", "--input", images, "--max-failures", "3")
    assert outcome.code == 65
    assert "stopped with 4 failed (truncated 4) and 0 rejected images, 3 are allowed" in outcome.err
    assert list((runs / "r/scores/shard-00000").glob("part-*"))
    assert [path.name for path in (runs / "r/output").iterdir()] == ["failures.csv"]
    assert f"failures: {runs / 'r/output/failures.csv'}" in outcome.err
    failures = read_csv(runs / "r/output/failures.csv")
    assert [(row["image_id"], row["stage"], row["reason"]) for row in failures] == [
        (f"broken{number}.jpg", "score", "truncated") for number in range(4)
    ]


def test_s3_and_other_stores_hold_runs(call: Call, images: Path, runs: Path) -> None:
    """A run in an object store gives the bytes of a run on disk (fsspec's store in memory)."""
    assert call("run", "--run-id", "r", "--input", images, "--runs-uri", "memory://runs").code == 0
    assert call("run", "--run-id", "r", "--input", images).code == 0
    assert call("verify", "--run-id", "r", "--runs-uri", "memory://runs").code == 0
    import fsspec  # noqa: PLC0415 (only this test)

    stored = fsspec.filesystem("memory").cat("/runs/r/output/predictions.csv")
    assert stored == (runs / "r/output/predictions.csv").read_bytes()


def test_a_second_postprocess_changes_nothing(
    call: Call, images: Path, runs: Path, server: ModelServer
) -> None:
    """Outputs are a function of the run's files; only the stage's times are added to what was there."""

    def files() -> dict[Path, bytes]:
        found = (path for path in (runs / "r").rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in found if "telemetry" not in path.parts}

    call("run", "--run-id", "r", "--input", images)
    before = files()
    server.close()
    assert call("postprocess", "--run-id", "r").code == 0
    assert files() == before


def test_verify_needs_a_finished_run(call: Call, images: Path) -> None:
    """An unfinished run is told from a wrong one."""
    call("preprocess", "--run-id", "r", "--input", images)
    outcome = call("verify", "--run-id", "r")
    assert (outcome.code, "is not a finished run" in outcome.err) == (78, True)
