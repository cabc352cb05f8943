"""An archive's graph as OpenVINO Model Server takes it: named tensors, any number of images in a request."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov  # type: ignore[import-untyped]  # ships no type marker
import torch

from imagebatch_training.errors import DataError
from imagebatch_training.export.graphs import TOLERANCE, write_graph

INPUT = "image"
OUTPUTS = ("logits", "features")
_IMAGES = 5


def write_model(graph: ov.Model, path: Path, model: Any) -> float:
    """Name a graph's tensors, let it take any number of images, check it against the archive, and write it.

    A client of the Open Inference Protocol asks for tensors by name, and an exported graph need not have any.

    Args:
        graph: uint8 (1, 3, crop, crop) to float32 logits (1, classes), and features where there are any.
        path: Of `model.xml`; `model.bin` is written beside it.
        model: The loaded archive, whose answers are the reference.

    Returns:
        The largest difference of a logit, over several images in one request and alone.

    Raises:
        DataError: It exceeds the tolerance of an export.
    """
    crop = model.settings.crop
    graph.inputs[0].set_names({INPUT})
    for output, name in zip(graph.outputs, OUTPUTS, strict=False):
        output.set_names({name})
    graph.reshape({INPUT: [-1, 3, crop, crop]})
    write_graph(graph, path)
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, 3, crop, crop), np.uint8)
    expected = np.stack([model.infer(torch.from_numpy(image)) for image in images])
    worst = max(float(np.abs(rows - expected).max()) for rows in _served(path, images))
    if worst > TOLERANCE:
        raise DataError(
            f"as OpenVINO Model Server would compute it, the graph differs by {worst:.2g}: do not serve it"
        )
    return worst


def _served(path: Path, images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    """Return the logits of the written files: all images at once, and one by one."""
    options = {"INFERENCE_PRECISION_HINT": "f32"}  # as deploy/kserve/ tells the server
    compiled = ov.Core().compile_model(path, "CPU", options)
    together = compiled({INPUT: images})[OUTPUTS[0]]
    alone = [compiled({INPUT: image[None]})[OUTPUTS[0]].copy() for image in images]
    return [together, np.concatenate(alone)]
