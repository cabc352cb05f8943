"""False alarms and detections of the drift tests, on real images and a real model: docs/reference/drift.md.

    pipeline_image/.venv/bin/python -m benchmarks.cases.drift [--publish]

Every trial draws a baseline and a batch anew, without an image in common. Quiet batches are batches as they
are; shifted ones are the same photographs darkened, blurred, compressed, turned, in another class mix, or
mixed with those of another product (the photographs of the other benchmarks: run `make bench peers` or
`benchmarks.lib.photographs` once). Needs the extra `local`: the archive's own handler answers.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from imagebatch.drift.accuracy import calibrate, estimate
from imagebatch.drift.judge import compare
from imagebatch.drift.observations import OBSERVATION_SCHEMA
from imagebatch.drift.two_sample import holm
from imagebatch.heads.softmax import entropy
from imagebatch.images.decoders import Decoders
from imagebatch.model_apis.base import ImagePayload
from imagebatch.model_apis.local import pool
from imagebatch.scorer.projection import project
from imagebatch.settings import ApiSettings
from PIL import Image, ImageFilter

from benchmarks.lib import published
from benchmarks.lib.model import MODEL
from tools.paths import ROOT, VAR

PAGE = ROOT / "docs" / "reference" / "drift.md"
ALPHA = 0.01
QUIET = 200
TRIALS = 20
BASELINE = 1200
SIZES = (100, 400)
SHIFTED = 420
PACK = 16

Integers = npt.NDArray[np.int64]
Change = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, slots=True)
class Shift:
    """One kind of shift at one size.

    Attributes:
        kind: What was done to the images.
        size: How much of it.
        detected: Batches that alarmed, by their number of images.
        embedded: Of the larger batches, those in which the embeddings alarmed.
        accuracy: Share of right answers; None where there is no truth.
        estimated: The same, estimated without labels.
    """

    kind: str
    size: str
    detected: dict[int, int]
    embedded: int
    accuracy: float | None
    estimated: float | None


def main() -> int:
    """Measures, prints, publishes; exits 1 if more than 5 % of the quiet batches alarm."""
    asked = _arguments()
    truth = {row["image_id"]: row["label"] for row in csv.DictReader(asked.labels.open(encoding="utf-8"))}
    paths = sorted(path for path in asked.images.iterdir() if path.name in truth)[: asked.limit or None]
    chance = np.random.default_rng(20261122)
    if asked.archive == MODEL.archive:
        MODEL.require()
    with Judge(asked.archive) as judge:
        plain = judge.observe((path.name, path.read_bytes()) for path in paths)
        print(f"{plain.num_rows} images observed", flush=True)
        quiet = {size: _quiet(plain, size, chance) for size in SIZES}
        print("quiet", quiet, flush=True)
        shifts = list(_shifts(judge, plain, paths, truth=truth, other=asked.other, chance=chance))
    result = {"alpha": ALPHA, "images": plain.num_rows, "baseline": BASELINE, "quiet_batches": QUIET}
    result |= {"quiet_alarms": quiet, "trials": TRIALS, "shifts": [_as_json(shift) for shift in shifts]}
    page = table(quiet, shifts)
    print(page)
    if asked.publish:
        published.keep("drift", result)
        published.show("drift", page, PAGE)
    return 0 if max(quiet.values()) <= 0.05 * QUIET else 1


class Judge:
    """Observes images as a run does: statistics in confined processes, answers by the archive's handler."""

    def __init__(self, archive: Path) -> None:
        settings = ApiSettings(model_archive=str(archive), request_timeout=600)
        self._model = pool.connect(settings, archive.stem, "")
        self._labels = self._model.describe().labels
        self._decoders = Decoders()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._model.close()
        self._decoders.__exit__(None, None, None)

    def observe(self, images: Iterable[tuple[str, bytes]]) -> pa.Table:
        """OBSERVATION_SCHEMA of (name, file) pairs."""
        packs = _packs(list(images), PACK)
        rows = [row for pack in self._decoders.map(self._pack, packs) for row in pack]
        return pa.Table.from_pylist(rows, OBSERVATION_SCHEMA)

    def _pack(self, pack: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
        payloads = [ImagePayload(str(at), data, embed=True) for at, (_, data) in enumerate(pack)]
        reply = self._model.predict(payloads, len(self._labels))
        rows = []
        for (name, data), answer in zip(pack, reply.answers, strict=True):
            with Image.open(io.BytesIO(data)) as header:
                size = {"format": header.format, "width": header.width, "height": header.height}
            by_label = dict(zip(answer.labels, answer.probabilities, strict=True))
            vector = [by_label[label] for label in self._labels]
            rows.append(
                {"image_id": name, "size": len(data), "label": answer.labels[0]}
                | {"confidence": answer.probabilities[0], "entropy": float(entropy(np.array([vector]))[0])}
                | {"answer": vector, "embedding": project(np.frombuffer(answer.embedding, "<f4"))}
                | {**size, **self._decoders.measure(data)}
            )
        return rows


def alarms(before: pa.Table, now: pa.Table, seed: int) -> set[str]:
    """Return the tests for which a run would be called drifting."""
    tests = compare(before, now, seed)
    adjusted = holm([test.p for test in tests])
    return {test.name for test, p in zip(tests, adjusted, strict=True) if p <= ALPHA}


def _quiet(plain: pa.Table, size: int, chance: np.random.Generator) -> int:
    found = 0
    for trial in range(QUIET):
        order = chance.permutation(plain.num_rows)
        baseline = min(BASELINE, plain.num_rows - size)
        found += bool(alarms(plain.take(order[size : size + baseline]), plain.take(order[:size]), trial))
    return found


def _shifts(
    judge: Judge,
    plain: pa.Table,
    paths: list[Path],
    *,
    truth: dict[str, str],
    other: Path,
    chance: np.random.Generator,
) -> Iterator[Shift]:
    chosen = chance.permutation(len(paths))[:SHIFTED]
    rest = np.setdiff1d(np.arange(len(paths)), chosen)
    for kind, size, change in _changes():
        changed = judge.observe((paths[at].name, _changed(paths[at], change)) for at in chosen)
        yield _judged(kind, size, (plain.take(rest), changed), truth, chance)
    for factor in (1.25, 1.5, 2.0):
        mixed = plain.take(_more_defective(plain.take(chosen), truth, factor, chance, chosen))
        yield _judged("more defective cells", f"x {factor:g}", (plain.take(rest), mixed), truth, chance)
    photographs = sorted(other.glob("*.jpg"))[:SHIFTED]
    if len(photographs) < SHIFTED:
        raise SystemExit(f"{other} needs {SHIFTED} photographs: make them with benchmarks.lib.photographs")
    foreign = judge.observe((path.name, path.read_bytes()) for path in photographs)
    for share in (0.02, 0.1, 0.5):
        count = round(SHIFTED * share)
        mixed = pa.concat_tables([plain.take(chosen[count:]), foreign.slice(0, count)])
        yield _judged("another product among them", f"{share:.0%}", (plain.take(rest), mixed), {}, chance)


def _judged(
    kind: str,
    size: str,
    tables: tuple[pa.Table, pa.Table],
    truth: dict[str, str],
    chance: np.random.Generator,
) -> Shift:
    before, now = tables
    detected, embedded = dict.fromkeys(SIZES, 0), 0
    for batch in SIZES:
        for trial in range(TRIALS):
            baseline = before.take(
                chance.choice(before.num_rows, min(BASELINE, before.num_rows), replace=False)
            )
            rows = now.take(chance.choice(now.num_rows, min(batch, now.num_rows), replace=False))
            found = alarms(baseline, rows, trial)
            detected[batch] += bool(found)
            embedded += batch == SIZES[-1] and "embeddings" in found
    accuracy = estimated = None
    if truth:
        calibration = calibrate(*_answers(before, truth))
        confidence, right = _answers(now, truth)
        accuracy, estimated = float(right.mean()), estimate(calibration, confidence)["accuracy"]
    print(kind, size, detected, embedded, accuracy, estimated, flush=True)
    return Shift(kind, size, detected, embedded, accuracy, estimated)


def _answers(table: pa.Table, truth: dict[str, str]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Confidence, and whether the answer was right, of the images whose truth is known."""
    names, labels = table["image_id"].to_pylist(), table["label"].to_pylist()
    known = [at for at, name in enumerate(names) if truth[name]]
    right = np.array([truth[names[at]] == labels[at] for at in known])
    return table["confidence"].to_numpy()[known].astype(np.float64), right


def _changes() -> Iterator[tuple[str, str, Change]]:
    for factor in (0.95, 0.85, 0.6):
        yield "darker", f"x {factor:g}", lambda image, f=factor: image.point(lambda v: v * f)
    for sigma in (0.5, 1.0, 2.0):
        yield (
            "blurred",
            f"sigma {sigma:g} px",
            lambda image, s=sigma: image.filter(ImageFilter.GaussianBlur(s)),
        )
    for quality in (85, 50, 20):
        yield (
            "compressed as JPEG, stored as before",
            f"quality {quality}",
            lambda image, q=quality: _jpeg(image, q),
        )
    for angle in (1, 3, 90):
        yield "camera turned", f"{angle} degrees", lambda image, a=angle: _turned(image, a)


def _changed(path: Path, change: Change) -> bytes:
    stream = io.BytesIO()
    with Image.open(path) as image:
        # The same format as before: a change of format alone would be seen at once.
        change(image).save(stream, image.format)
    return stream.getvalue()


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def _turned(image: Image.Image, angle: float) -> Image.Image:
    """Turn an image, and crop it so that no corner is empty."""
    if angle % 90 == 0:
        return image.rotate(angle, expand=True)
    turned = image.rotate(angle, Image.Resampling.BICUBIC)
    lost = math.ceil(max(image.size) / 2 * math.sin(math.radians(angle)))
    return turned.crop((lost, lost, image.width - lost, image.height - lost)).resize(image.size)


def _more_defective(
    table: pa.Table, truth: dict[str, str], factor: float, chance: np.random.Generator, positions: Integers
) -> Integers:
    weights = np.array([factor if "defective" in truth[n] else 1.0 for n in table["image_id"].to_pylist()])
    return positions[chance.choice(len(positions), SHIFTED, p=weights / weights.sum())]


def _packs(items: list[tuple[str, bytes]], size: int) -> list[list[tuple[str, bytes]]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def table(quiet: dict[int, int], shifts: list[Shift]) -> str:
    """Return the table that is published."""
    head = ["| | size of the shift | " + " | ".join(f"alarms, {size} images" for size in SIZES)]
    head[0] += f" | by embeddings, {SIZES[-1]} | accuracy | estimated without labels |"
    lines = [*head, "|---|---|" + "---|" * (len(SIZES) + 3)]
    rates = " | ".join(f"**{quiet[size]} of {QUIET}** ({quiet[size] / QUIET:.1%})" for size in SIZES)
    lines.append(f"| **no shift** | | {rates} | | | |")
    for shift in shifts:
        cells = [f"{count} of {TRIALS}" for count in (*shift.detected.values(), shift.embedded)]
        cells += ["" if value is None else f"{value:.1%}" for value in (shift.accuracy, shift.estimated)]
        lines.append(f"| {shift.kind} | {shift.size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _as_json(shift: Shift) -> dict[str, Any]:
    return {name: getattr(shift, name) for name in shift.__slots__}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    places = {
        "archive": MODEL.archive,
        "images": VAR / "data" / "solar-cells" / "images",
        "labels": VAR / "data" / "solar-cells" / "labels.csv",
        "other": VAR / "bench" / "photographs",
    }
    for name, place in places.items():
        parser.add_argument(f"--{name}", type=Path, default=place)
    parser.add_argument("--limit", type=int, default=0, help="only the first images; 0: all")
    parser.add_argument("--publish", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
