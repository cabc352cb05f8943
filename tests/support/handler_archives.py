"""A real archive for the local backend, small enough to load in a moment."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

HANDLERS = Path(__file__).parents[2] / "handlers"
PICTURE = HANDLERS.parent / "pipeline_image" / "picture"
LABELS = ["mono-sound", "mono-defective", "poly-sound", "poly-defective"]

# What a worker does to itself on an image with these bytes, as native code or an endless loop would.
DIES = b"this image makes the worker exit"
HANGS = b"this image takes for ever"
RAISES = b"this image makes the handler raise"

_HANDLER = f"""
import os
import time

from imagebatch_handler import ImageBatchHandler


class MarkedHandler(ImageBatchHandler):
    def inference(self, request):
        for _, content in request.images:
            if {DIES!r} in content:
                os._exit(3)
            if {HANGS!r} in content:
                time.sleep(60)
            if {RAISES!r} in content:
                raise RuntimeError("the handler's own fault")
        return super().inference(request)
"""


def _numbered(labels: object) -> object:
    return dict(enumerate(labels)) if isinstance(labels, list) else labels


def write_archive(
    folder: Path,
    *,
    name: str = "solar-cells",
    version: str = "1.0",
    labels: object = LABELS,
    features: bool = True,
    **head: object,
) -> Path:
    """Packs the handler's modules with a model of four classes, as torch-model-archiver would.

    Its features, where it gives any, are the three channels' means. `head` goes into its model-config.yaml;
    the score of a regression is the mean of the image's red. `labels` that are null cannot be loaded.
    """
    import openvino  # type: ignore[import-untyped]  # noqa: PLC0415 (half a second, for the tests that need it)
    import yaml  # noqa: PLC0415 (of the same extra)
    from openvino import opset13 as op  # type: ignore[import-untyped]  # noqa: PLC0415 (half a second, for the tests that need it)

    pixels = op.parameter([1, 3, 224, 224], openvino.Type.u8, name="pixels")
    numbers = op.convert(pixels, "f32")
    means = op.reduce_mean(numbers, op.constant([2, 3]), keep_dims=False)
    measures = head.get("head") == "regression"
    weights = [[0.03, -0.02, 0.01, 0.002], [-0.01, 0.03, -0.02, 0.001], [0.01, -0.01, 0.02, -0.003]]
    weights = [[1.0], [0.0], [0.0]] if measures else weights
    logits = op.matmul(means, op.constant(weights, dtype="float32"), transpose_a=False, transpose_b=False)
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    outputs = [logits, means] if features else [logits]
    openvino.save_model(openvino.Model(outputs, [pixels]), unpacked / "model.xml", compress_to_fp16=False)
    for sources in (HANDLERS, PICTURE):
        for module in sources.glob("imagebatch_*.py"):
            shutil.copy(module, unpacked)
    config = (HANDLERS / "model-config.yaml").read_text()
    if head:
        content = yaml.safe_load(config)
        config = yaml.safe_dump(content | {"imagebatch": content["imagebatch"] | head})
    (unpacked / "model-config.yaml").write_text(config)
    (unpacked / "marked_handler.py").write_text(_HANDLER)
    if not measures:
        (unpacked / "index_to_name.json").write_text(json.dumps(_numbered(labels)))
    (unpacked / "MAR-INF").mkdir()
    model = {"modelName": name, "modelVersion": version, "configFile": "model-config.yaml"}
    manifest = {"model": model | {"handler": "marked_handler.py"}}
    (unpacked / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    target = folder / (f"{name}.mar" if version == "1.0" else f"{name}-{version}.mar")
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(unpacked.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(unpacked).as_posix())
    return target
