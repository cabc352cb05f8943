"""The served graph in two formats, each checked against the model that was trained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov  # type: ignore[import-untyped]  # ships no type marker
import torch
from imagebatch_engines import load_engine  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker
from torch import nn

from imagebatch_training.backbone.mobilenet import (
    CutNetwork,
    ServedModel,
    build,
    pool,
    read_cut,
    read_weights,
)
from imagebatch_training.errors import DataError

EXACT = ("openvino", "torch")
"""Engines whose formats every archive holds."""
TOLERANCE = 1e-3
"""Largest difference of a logit between a format and eager torch: float32 sums in another order."""


class WithFeatures(nn.Module):
    """The served model with its pooled features as a second output, from the same pass.

    Args:
        model: What is served.
    """

    # The exported program records the name of this class, and the archive's digest covers the program: naming
    # the room keeps the digest when the class moves to another file of it.
    __module__ = "imagebatch_training.export"

    def __init__(self, model: ServedModel) -> None:
        super().__init__()
        self.normalise = model.normalise
        self.network = model.network

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn uint8 (batch, 3, crop, crop) into float32 logits (batch, classes), features (batch, width)."""
        activations = self.network.features(self.normalise(x))
        if isinstance(self.network, CutNetwork):
            features = pool(activations, self.network.pooling)
            return self.network.classifier(features), features
        # torchvision's own forward, cut in two before the classifier.
        features = torch.flatten(nn.functional.adaptive_avg_pool2d(activations, (1, 1)), 1)
        return self.network.classifier(features), features


def load_served_model(path: Path) -> ServedModel:
    """Load the trained weights as one graph, normalisation included.

    Args:
        path: Written by `imagebatch-train train`.

    Returns:
        The model in evaluation mode: uint8 (batch, 3, crop, crop) to float32 logits (batch, classes).
    """
    state, convention = read_weights(path)
    network = build(convention.padding, len(state["classifier.1.bias"]), read_cut(path))
    network.load_state_dict(state, strict=True)
    # The exported program records strides: plain ones are understood by every reader.
    return ServedModel(network.to(memory_format=torch.contiguous_format), convention).eval()


def export_model(model: ServedModel, crop: int, folder: Path) -> None:
    """Write `model.pt2` (torch.export), `model.xml` and `model.bin` (OpenVINO, float32), logits and features.

    Args:
        model: In evaluation mode.
        crop: Side of the input, pixels: uint8 (1, 3, crop, crop).
        folder: Where to.
    """
    example = torch.zeros((1, 3, crop, crop), dtype=torch.uint8)
    program = torch.export.export(WithFeatures(model).eval(), (example,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names the files of this checkout: other paths, other bytes
    torch.export.save(program, folder / "model.pt2")
    graph = ov.convert_model(program)
    graph.reshape(list(example.shape))  # the conversion forgets the sizes
    write_graph(graph, folder / "model.xml")


def write_graph(graph: ov.Model, path: Path) -> None:
    """Write an OpenVINO graph, `.xml` and `.bin`; the same graph gives the same bytes."""
    # OpenVINO numbers nodes by a counter of the process: the same model would get another file every time.
    graph.set_friendly_name("model")
    for number, node in enumerate(graph.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    # Without the flag OpenVINO stores weights in half precision, and the formats would disagree.
    ov.save_model(graph, path, compress_to_fp16=False)


def export_onnx(model: ServedModel, crop: int, path: Path) -> None:
    """Write `model.onnx`, weights inside, with logits and features as its outputs.

    Args:
        model: In evaluation mode.
        crop: Side of the input, pixels: uint8 (1, 3, crop, crop).
        path: Of the file.
    """
    example = torch.zeros((1, 3, crop, crop), dtype=torch.uint8)
    both = WithFeatures(model).eval()
    program = torch.onnx.export(both, (example,), dynamo=True, verbose=False, external_data=False)
    assert program is not None  # noqa: S101 - it is, with dynamo; the annotation covers the older exporter
    graph = program.model_proto
    for node in graph.graph.node:
        node.ClearField("metadata_props")  # stack traces: they name the files of this checkout
        node.ClearField("doc_string")
    path.write_bytes(graph.SerializeToString(deterministic=True))


def check_export(
    model: ServedModel, folder: Path, images: Sequence[torch.Tensor], engines: Sequence[str] = EXACT
) -> float:
    """Compare the formats, through the engines that serve them, with the trained model.

    Args:
        model: What was exported.
        folder: With the exported files.
        images: uint8 (3, crop, crop).
        engines: Those whose files are there; each computes in float32.

    Returns:
        The largest absolute difference of a logit.

    Raises:
        DataError: It exceeds `TOLERANCE`, or a class differs.
    """
    threads = torch.get_num_threads()
    worst = 0.0
    with torch.inference_mode():
        expected = [model(image[None])[0].numpy() for image in images]
    for name in engines:
        engine = load_engine(name, folder)
        for image, logits in zip(images, expected, strict=True):
            answer = engine.infer(image)
            difference = float(np.abs(answer - logits).max())
            worst = max(worst, difference)
            if difference > TOLERANCE or answer.argmax() != logits.argmax():
                raise DataError(
                    f"engine {name} differs from the trained model by {difference:.2g} on an image: "
                    "do not serve this export"
                )
    torch.set_num_threads(threads)  # the torch engine takes it down to one
    return worst
