"""Engines in one process: images per CPU-second, agreement on held-out images, batches."""

from __future__ import annotations

import statistics
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
import yaml
from imagebatch_engines import CascadeEngine, Engine, Logits, load_engine
from imagebatch_model import Settings
from imagebatch_pixels import decode
from imagebatch_training.archive.reference import reference_logits
from imagebatch_training.images.data import require_data

MARGINS = (0.1, 0.25, 0.45, 0.9, 1.4)
BATCHES = (1, 8, 32)
THRESHOLD = 0.995
Sets = dict[str, Any]


def measure(settings: Any, store: Path, folder: Path, rounds: int, images: int) -> dict[str, Any]:
    """Measure every archive of a store, and each cascade with several margins.

    Args:
        settings: Of the training.
        store: With `<name>.mar`.
        folder: For the unpacked archives.
        rounds: Interleaved.
        images: Per round and engine.

    Returns:
        `decode`, `engines`, `batches`: images per CPU-second; agreement with float32 torch on Pillow pixels.
    """
    torch.set_num_threads(1)
    models = {mar.stem: _load(mar, folder / mar.stem) for mar in sorted(store.glob("*.mar"))}
    sets = _held_out(settings, models["solar-cells"])
    data = require_data(settings)
    files = [example.path(data.images).read_bytes() for example in data.labels.examples]
    sample = files[:: max(1, len(files) // images)][:images]
    variants = [variant for model in models.values() for variant in _variants(model)]
    logits = {name: _logits(model, sets) for name, model in models.items() if not _is_cascade(model)}
    times = _race(variants, sample, rounds)
    engines = [
        {
            "name": variant["name"],
            "label": variant["label"],
            "margin": variant["margin"],
            **_agreement(variant, logits, sets),
            "speed": _spread(times[variant["label"]]),
        }
        for variant in variants
    ]
    decode = _spread(times["decode"])
    counts = {name: len(one["wanted"]) for name, one in sets.items()}
    pixels = [models["solar-cells"].decode(data) for data in islice(cycle(sample), 3 * max(BATCHES))]
    batches = _batches(folder, pixels, rounds)
    return {
        "images": len(sample),
        "rounds": rounds,
        "held_out": counts,
        "decode": decode,
        "engines": engines,
        "batches": batches,
    }


@dataclass(frozen=True)
class _Unpacked:
    """An archive's pixels and engine, without what the handler does around them."""

    settings: Settings
    engine: Engine

    def decode(self, data: bytes) -> torch.Tensor:
        limits = self.settings
        return decode(data, resize=limits.resize, crop=limits.crop, max_pixels=limits.max_pixels)

    def infer(self, pixels: torch.Tensor) -> Logits:
        return self.engine.infer(pixels)


def _load(mar: Path, folder: Path) -> _Unpacked:
    with zipfile.ZipFile(mar) as archive:
        archive.extractall(folder)
    config = yaml.safe_load((folder / "model-config.yaml").read_text("utf-8"))
    settings = Settings.from_config(config)
    return _Unpacked(settings, load_engine(settings.engine, folder))


def _is_cascade(model: _Unpacked) -> bool:
    return isinstance(model.engine, CascadeEngine)


def _variants(model: _Unpacked) -> list[dict[str, Any]]:
    name = model.settings.engine
    if not _is_cascade(model):
        return [{"name": name, "label": f"`{name}`", "model": model, "margin": None}]
    fitted = model.engine.margin
    labels = [(fitted, f"**`{name}`**, fitted margin {fitted:.2f}")]
    labels += [(margin, f"`{name}`, margin {margin}") for margin in MARGINS]
    return [{"name": name, "label": label, "model": model, "margin": margin} for margin, label in labels]


def _held_out(settings: Any, model: _Unpacked) -> Sets:
    data = require_data(settings)
    examples = data.labels.examples
    uncertain = np.array([i for i, example in enumerate(examples) if not example.label])
    sets = {}
    for name, members in (
        ("test images", data.labels.members("block", "test")),
        ("uncertain images", uncertain),
    ):
        paths = [examples[i].path(data.images) for i in members]
        pixels = [model.decode(path.read_bytes()) for path in paths]
        sets[name] = {"wanted": reference_logits(settings, paths).argmax(1), "pixels": pixels}
    return sets


def _logits(model: _Unpacked, sets: Sets) -> dict[str, Any]:
    return {name: np.stack([model.infer(one) for one in part["pixels"]]) for name, part in sets.items()}


def _agreement(variant: dict[str, Any], logits: dict[str, Any], sets: Sets) -> dict[str, Any]:
    """Agreement on both sets; a cascade's follows from its two precisions' logits and the margin."""
    name = variant["name"].removeprefix("openvino-").removesuffix("-cascade")
    own = "solar-cells" if variant["name"] == "openvino" else f"solar-cells-{name}"
    shares, repeated, count = {}, 0, 0
    for title, part in sets.items():
        answers = logits[own][title]
        if variant["margin"] is not None:
            ordered = np.sort(answers, 1)
            close = ordered[:, -1] - ordered[:, -2] < variant["margin"]
            answers = np.where(close[:, None], logits["solar-cells"][title], answers)
            repeated += int(close.sum())
        count += len(answers)
        shares[title] = round(float((answers.argmax(1) == part["wanted"]).mean()), 5)
    return {
        "agreement": shares,
        "repeated": round(repeated / count, 4),
        "passes": min(shares.values()) >= THRESHOLD,
    }


def _race(variants: Sequence[dict[str, Any]], sample: Sequence[bytes], rounds: int) -> dict[str, list[float]]:
    decode = variants[0]["model"].decode
    times: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        times["decode"].append(_rate(lambda: [decode(data) for data in sample], len(sample)))
        for variant in variants:
            model = variant["model"]
            if variant["margin"] is not None:
                model.engine.margin = variant["margin"]
            count = len(sample) // (5 if variant["name"] == "torch" else 1)  # the slowest by far
            part = sample[:count]
            rate = _rate(
                lambda model=model, part=part: [model.infer(model.decode(one)) for one in part], count
            )
            times[variant["label"]].append(rate)
        if number == 0:
            times.clear()  # the first round only warms up
    return times


def _rate(work: Callable[[], object], count: int) -> float:
    begun = time.process_time()
    work()
    return count / (time.process_time() - begun)


def _batches(folder: Path, pixels: Sequence[Any], rounds: int) -> list[dict[str, Any]]:
    graphs = {
        "float32": ("solar-cells/model.xml", "f32"),
        "bfloat16": ("solar-cells-bf16/bf16.xml", "bf16"),
        "8 bits": ("solar-cells-int8/int8.xml", "f32"),
    }
    runs: dict[tuple[str, int], Any] = {}
    for name, (path, hint) in graphs.items():
        for size in BATCHES:
            graph = _for_batches(ov.Core().read_model(folder / path))
            graph.reshape([size, *pixels[0].shape])
            options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1"}
            runs[name, size] = ov.Core().compile_model(graph, "CPU", options).create_infer_request()
    times = defaultdict(list)
    for _ in range(rounds):
        for (name, size), request in runs.items():
            inputs = [torch.stack(list(pixels[i : i + size])).numpy() for i in range(0, len(pixels), size)]
            request.infer([inputs[0]])

            def work(request: Any = request, inputs: Any = inputs) -> None:
                for one in inputs:
                    request.infer([one])

            times[name, size].append(_rate(work, len(pixels)))
    return [{"graph": name, "batch": size, "speed": _spread(rates)} for (name, size), rates in times.items()]


def _for_batches(graph: Any) -> Any:
    """Change an archive's graph, which flattens the features of one image, to take any number of them."""
    for node in graph.get_ops():
        if node.get_type_name() == "Reshape" and list(node.output(0).shape)[:1] == [1]:
            rest = list(node.output(0).shape)[1:]
            if len(rest) == 1:
                node.input(1).replace_source_output(ov.opset13.constant([-1, *rest]).output(0))
    return graph


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: round(value, 2) for name, value in found.items()}
