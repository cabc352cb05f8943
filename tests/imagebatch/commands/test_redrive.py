"""Redrive: only the failures, merged into the same run, with a certificate that names both."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from imagebatch.runs.folder import open_run

from tests.support.calls import Call
from tests.support.images import jpeg
from tests.support.model_server import ModelServer, Wrong


def certificate(runs: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((runs / "r/output/certificate.json").read_bytes())
    return content


@pytest.fixture
def flawed(call: Call, images: Path, server: ModelServer) -> str:
    """A finished run with a quarantined image, a rejected file and a truncated one."""
    poison = (images / "001.jpg").read_bytes()
    (images / "empty.jpg").write_bytes(b"")
    (images / "broken.jpg").write_bytes(jpeg(7) + b"BROKEN")
    server.faults = lambda _number, pack: (
        Wrong(500, b"Worker died.") if any(data == poison for _, data in pack) else None
    )
    arguments = ("--run-id", "r", "--input", images, "--shard-size", 20, "--max-failures", "20%")
    assert call("run", *arguments).last["predicted"] == 39
    server.faults = lambda _number, _images: None
    return "r"


def test_repaired_images_are_merged(
    call: Call, flawed: str, images: Path, runs: Path, server: ModelServer
) -> None:
    """After the cause is gone the CSV is that of an undisturbed run; only three images were asked about."""
    before = (runs / "r/output/certificate.json").read_bytes()
    (images / "empty.jpg").write_bytes(jpeg(80))
    (images / "broken.jpg").write_bytes(jpeg(7))
    server.images.clear()
    outcome = call("redrive", "--run-id", flawed)
    assert (outcome.code, outcome.last["predicted"], outcome.last["failed"]) == (0, 42, 0)
    assert sorted(server.images) == sorted([jpeg(7), jpeg(80), (images / "001.jpg").read_bytes()])

    after = certificate(runs)
    (entry,) = after["redrives"]
    assert (entry["number"], entry["redriven"], entry["recovered"]) == (1, 3, 3)
    assert (runs / "r/redrives/00001/previous-certificate.json").read_bytes() == before
    assert call("verify", "--run-id", flawed).code == 0

    assert call("run", "--run-id", "calm", "--input", images).code == 0
    assert (runs / "calm/output/predictions.csv").read_bytes() == (
        runs / "r/output/predictions.csv"
    ).read_bytes()


def test_what_fails_again_stays_a_failure(call: Call, flawed: str, runs: Path) -> None:
    """Nothing repaired but the server: one image comes back, two keep their reasons, also the next time."""
    assert call("redrive", "--run-id", flawed).last["predicted"] == 40
    assert call("redrive", "--run-id", flawed).last["predicted"] == 40
    with (runs / "r/output/failures.csv").open(newline="") as stream:
        assert {row["image_id"]: row["reason"] for row in csv.DictReader(stream)} == {
            "broken.jpg": "truncated",
            "empty.jpg": "empty",
        }
    assert [entry["recovered"] for entry in certificate(runs)["redrives"]] == [1, 0]
    assert call("verify", "--run-id", flawed).code == 0


def test_only_the_reasons_asked_for(call: Call, flawed: str, runs: Path) -> None:
    """`--reasons` leaves the others alone; reasons that nobody has are nothing to do."""
    assert call("redrive", "--run-id", flawed, "--reasons", "quarantined").last["predicted"] == 40
    assert certificate(runs)["redrives"][0]["redriven"] == 1
    assert call("redrive", "--run-id", flawed, "--reasons", "quarantined").code == 99


def test_a_redrive_that_stopped_before_its_outputs(call: Call, flawed: str, runs: Path) -> None:
    """Between its rows and its outputs the run is not finished; doing it again finishes it."""
    run = open_run(str(runs), flawed)
    old = {path: run.read(path) for path in run.list("output")}
    assert call("redrive", "--run-id", flawed).code == 0
    new = (runs / "r/output/predictions.csv").read_bytes()
    for path, data in old.items():
        run.write(path, data)
    run.remove("_SUCCESS")
    assert call("verify", "--run-id", flawed).code == 78
    assert call("redrive", "--run-id", flawed, "--reasons", "none-such").code == 99
    assert call("verify", "--run-id", flawed).code == 0
    assert (runs / "r/output/predictions.csv").read_bytes() == new


def test_a_run_without_failures_or_without_an_end(call: Call, images: Path) -> None:
    """Nothing to redrive is 99; an unfinished run is 78."""
    call("preprocess", "--run-id", "r", "--input", images)
    assert call("redrive", "--run-id", "r").code == 78
    call("run", "--run-id", "whole", "--input", images)
    assert call("redrive", "--run-id", "whole").code == 99


def test_changed_redrive_files_are_found(call: Call, flawed: str, runs: Path) -> None:
    """The certificate covers the redrive's own files."""
    call("redrive", "--run-id", flawed)
    for path in sorted((runs / "r/redrives/00001").iterdir()):
        if path.name != "previous-certificate.json":
            data = path.read_bytes()
            path.write_bytes(data[:-3] + b"x" + data[-2:])
            assert call("verify", "--run-id", flawed).code == 65, path
            path.write_bytes(data)
