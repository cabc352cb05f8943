"""An archive's graph as OpenVINO Model Server takes it: with names, by which a client asks for tensors."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov  # type: ignore[import-untyped]  # ships no type marker
import torch

from imagebatch_training.errors import DataError
from imagebatch_training.export.graphs import TOLERANCE, write_graph

INPUT = "image"
OUTPUTS = ("logits", "features")
_IMAGES = 5


def write_model(graph: ov.Model, path: Path, model: Any) -> float:
    """Name a graph's tensors, write it, and check what was written against the archive.

    An exported graph need not have names. It takes one image, as the archive's engine gives it: more at once
    are slower for each on a CPU, and the server computes several requests side by side.

    Args:
        graph: uint8 (1, 3, crop, crop) to float32 logits (1, classes), and features where there are any.
        path: Of `model.xml`; `model.bin` is written beside it.
        model: The loaded archive, whose answers are the reference.

    Returns:
        The largest difference of a logit.

    Raises:
        DataError: It exceeds the tolerance of an export.
    """
    graph.inputs[0].set_names({INPUT})
    for output, name in zip(graph.outputs, OUTPUTS, strict=False):
        output.set_names({name})
    write_graph(graph, path)
    options = {"INFERENCE_PRECISION_HINT": "f32"}  # as deploy/kserve/ tells the server
    compiled = ov.Core().compile_model(path, "CPU", options)
    crop, worst = model.settings.crop, 0.0
    for image in np.random.default_rng(0).integers(0, 256, (_IMAGES, 3, crop, crop), np.uint8):
        expected = model.infer(torch.from_numpy(image))
        answer = compiled({INPUT: image[None]})[OUTPUTS[0]][0]
        worst = max(worst, float(np.abs(answer - expected).max()))
    if worst > TOLERANCE:
        raise DataError(
            f"as OpenVINO Model Server would compute it, the graph differs by {worst:.2g}: do not serve it"
        )
    return worst
