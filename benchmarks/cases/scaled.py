"""Pixels of version 2 against version 1: how far apart they are, and whether a model notices.

    python3.11 -m benchmarks.run scaled [-- --images 600]

Real photographs, enlarged with a sensor's noise (`lib/photographs.py`) to 12 megapixels, and to the
smallest size at which version 2 decodes otherwise, where most of what it leaves out is still in the
picture. Asked are the cells' model of the benchmarks, and two heads of 100 classes (which photograph is it?),
each fitted on half of the files, of version 1, on the same network's features, and asked about the other
half: together about every file. Needs the photographs of `peers`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from imagebatch_pixels import decode
from PIL import Image

from benchmarks.lib import photographs
from benchmarks.lib.model import MODEL
from benchmarks.lib.published import keep, show
from tools.paths import ROOT, VAR, say

PAGE = ROOT / "docs" / "reference" / "parity.md"
SIZES = {"12 megapixels": photographs.LARGE_SIZE, "the smallest that is scaled": (1366, 1024)}
SOURCES = 100  # different photographs that the files are cut out of, in turn
RIDGE = 10.0
VERSIONS = ("1", "2")
_COLUMNS = (
    *("enlarged to", "eighths", "mean difference, of 255", "largest", "same class: the cells' model"),
    *("same class: 100 classes", "accuracy of 100 classes, pixels 1 and 2"),
)
Found = dict[str, Any]
Rows = npt.NDArray[np.float64]


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=600, help="photographs")
    parser.add_argument("--publish", action="store_true", help="keep the result in results/ and in docs/")
    asked = parser.parse_args()
    files = sorted((VAR / "bench" / "photographs").glob("*.jpg"))[: asked.images]
    if not files:
        raise SystemExit("no photographs: run `make bench-quick` once")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(MODEL.require()) as archive:
            archive.extractall(folder)
        tasks = [(number, str(file)) for number, file in enumerate(files)]
        with get_context("spawn").Pool(2, _load, (folder,)) as pool:
            found = pool.map(_compare, tasks, chunksize=4)
    result = {
        "images": len(files),
        "sizes": {name: _summary([each[name] for each in found]) for name in SIZES},
    }
    say(_table(result))
    if asked.publish:
        keep("scaled", result)
        show("scaled", _table(result), PAGE)
    return 0


_MODEL: list[Any] = []


def _load(folder: str) -> None:
    import torch  # noqa: PLC0415 - in the workers alone
    import yaml  # noqa: PLC0415 - in the workers alone
    from imagebatch_model import ImageModel, Settings  # noqa: PLC0415 - in the workers alone

    torch.set_num_threads(1)
    config = yaml.safe_load(Path(folder, "model-config.yaml").read_text("utf-8"))
    _MODEL.append(ImageModel(folder, Settings.from_config(config)))


def _compare(task: tuple[int, str]) -> dict[str, Found]:
    number, file = task
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    found = {}
    for name, size in SIZES.items():
        data = photographs.encoded(photographs.enlarged(picture, number, size))
        found[name] = _of_file(data) | {"source": number % SOURCES, "eighths": _eighths(data)}
    return found


def _eighths(data: bytes) -> int:
    from imagebatch_picture import read  # noqa: PLC0415 - in the workers alone
    from imagebatch_pixels import Fit  # noqa: PLC0415 - in the workers alone

    return read(data, eighths=Fit().eighths(_MODEL[0].settings.resize, "2")).eighths


def _of_file(data: bytes) -> Found:
    model, pixels, found = _MODEL[0], {}, {}
    size = {"resize": model.settings.resize, "crop": model.settings.crop}
    for version in VERSIONS:
        pixels[version] = decode(data, **size, version=version, fit=model.settings.square)
        logits = np.array(model.infer(pixels[version]), np.float64)
        found[version] = {"class": int(logits.argmax()), "features": np.array(model.features(), np.float64)}
    apart = np.abs(pixels["1"].numpy().astype(np.int16) - pixels["2"].numpy().astype(np.int16))
    return found | {"mean": float(apart.mean()), "most": int(apart.max())}


def _summary(found: Sequence[Found]) -> dict[str, Any]:
    own = [each["1"]["class"] == each["2"]["class"] for each in found]
    fitted = _fitted(found)
    return {
        "eighths": sorted({each["eighths"] for each in found}),
        "mean": round(float(np.mean([each["mean"] for each in found])), 3),
        "most": max(each["most"] for each in found),
        "cells_agreement": round(float(np.mean(own)), 5),
        "fitted_agreement": round(float(np.mean(fitted["same"])), 5),
        "fitted_images": len(fitted["same"]),
        "fitted_accuracy": [round(float(np.mean(fitted[version])), 4) for version in VERSIONS],
    }


def _fitted(found: Sequence[Found]) -> dict[str, Any]:
    """Fit heads on every other round of the sources, of version 1, each asked about the other rounds."""
    sources = np.array([each["source"] for each in found])
    even = (np.arange(len(found)) // SOURCES) % 2 == 0
    rows = {
        version: _with_one(np.stack([each[version]["features"] for each in found])) for version in VERSIONS
    }
    told = {version: np.zeros(len(found), np.int64) for version in VERSIONS}
    for train in (even, ~even):
        known, wanted = rows["1"][train], np.eye(SOURCES)[sources[train]]
        head = known.T @ np.linalg.solve(known @ known.T + RIDGE * np.eye(len(known)), wanted)
        for version in VERSIONS:
            told[version][~train] = (rows[version][~train] @ head).argmax(1)
    right = {version: told[version] == sources for version in VERSIONS}
    return {"same": told["1"] == told["2"], **right}


def _with_one(features: Rows) -> Rows:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)


def _table(result: dict[str, Any]) -> str:
    lines = [
        "| " + " | ".join(_COLUMNS) + " |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["sizes"].items():
        eighths = ", ".join(map(str, row["eighths"]))
        first, second = row["fitted_accuracy"]
        lines.append(
            f"| {name} | {eighths} | {row['mean']:.2f} | {row['most']} | {row['cells_agreement']:.1%} of"
            f" {result['images']} | {row['fitted_agreement']:.1%} of {row['fitted_images']}"
            f" | {first:.1%}, {second:.1%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
