"""The local backend on the demo's model and photographs: TorchServe's bytes without TorchServe."""

import csv
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

from tools.paths import ROOT

ARCHIVE = ROOT / "model_store" / "solar-cells.mar"
PHOTOGRAPHS = 200
MARK = b"this image makes the worker exit"

_HANDLER = f"""
import os

from imagebatch_handler import ImageBatchHandler


class ExitingHandler(ImageBatchHandler):
    def inference(self, request):
        for _, content in request.images:
            if {MARK!r} in content:
                os._exit(1)
        return super().inference(request)
"""


def run(stack: Any, tmp_path: Path, run_id: str, *flags: str) -> Path:
    """Score to the end and return the run's output folder."""
    done: subprocess.CompletedProcess[str] = stack.cli(
        "run", "--run-id", run_id, "--runs-uri", str(tmp_path / "runs"), *flags
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return tmp_path / "runs" / run_id / "output"


def test_without_a_server_the_csv_is_the_same_bytes(stack: Any, first: Any, tmp_path: Path) -> None:
    """The demo's predictions, made again by worker processes here, with other shards and packs."""
    photographs = str(stack.var / "data" / "solar-cells" / "images")
    flags = ["--backend", "local", "--model-archive", str(ROOT / "model_store" / "{model}.mar")]
    made = run(stack, tmp_path, "local", "--input", photographs, *flags, "--pack-size", "17")
    served = (first.run / "output" / "predictions.csv").read_bytes()
    assert (made / "predictions.csv").read_bytes() == served
    assert served.count(b"\r\n") > PHOTOGRAPHS


def test_an_image_that_kills_workers_is_alone_in_quarantine(stack: Any, first: Any, tmp_path: Path) -> None:
    """Every worker that is asked about it exits; all other images are predicted, and the run balances."""
    assert first.run.is_dir()
    folder = tmp_path / "photographs"
    folder.mkdir()
    found = sorted((stack.var / "data" / "solar-cells" / "images").iterdir())[::44]
    for photograph in found:
        shutil.copy(photograph, folder)
    (folder / "poison.png").write_bytes(found[0].read_bytes() + MARK)
    archive = _exiting(tmp_path / "exiting.mar")
    flags = ["--backend", "local", "--model-archive", str(archive), "--pack-size", "8"]
    output = run(stack, tmp_path, "poison", "--input", str(folder), *flags)
    with (output / "failures.csv").open(encoding="utf-8", newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert (row["image_id"], row["reason"]) == ("poison.png", "quarantined")
    assert "worker died, exit code 1" in row["detail"]
    counts = json.loads((output / "certificate.json").read_text())["counts"]
    assert (counts["predicted"], counts["failed"]) == (len(found), 1)


def _exiting(target: Path) -> Path:
    """Copy the demo's archive with a handler that exits on the mark."""
    with zipfile.ZipFile(ARCHIVE) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "MAR-INF/MANIFEST.json":
                manifest = json.loads(content)
                manifest["model"]["handler"] = "exiting_handler.py"
                content = json.dumps(manifest).encode()
            new.writestr(name, content)
        new.writestr("exiting_handler.py", _HANDLER)
    return target
