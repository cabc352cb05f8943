"""The classifier, fitted again to the features that a cheap precision computes.

A cheap precision moves the 1,280 features by a third of their length, in much the same way for every image. A
ridge regression from the moved features to the float32 logits takes most of that back, at no cost in serving.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov  # type: ignore[import-untyped]  # ships no type marker

from imagebatch_training import metrics
from imagebatch_training.errors import ConfigurationError

Images = Iterable[npt.NDArray[np.uint8]]
Matrix = npt.NDArray[np.float64]

_PENALTIES = (0.01, 0.1, 1.0, 10.0)
"""Relative to the mean square of a feature times the number of images."""


@dataclass(frozen=True, kw_only=True)
class Refit:
    """A classifier for a cheap graph.

    Attributes:
        weights: Added to the classifier's weights, (features, classes).
        bias: Added to its bias, (classes,).
        held_out: Logits (images, classes) of every calibration image, by a fit that did not see its fold.
    """

    weights: Matrix
    bias: Matrix
    held_out: Matrix


def compute(graph: ov.Model, hint: str, images: Images, count: int) -> tuple[Matrix, Matrix]:
    """Compute logits and the classifier's input for many images, on every core.

    Args:
        graph: With a MatMul as its classifier; not changed.
        hint: `f32` or `bf16`.
        images: uint8 (1, 3, crop, crop) each.
        count: Number of images.

    Returns:
        Logits (count, classes) and features (count, width).

    Raises:
        ConfigurationError: This machine does not compute in the precision asked for.
    """
    graph = graph.clone()
    features = _classifier(graph).input(0).get_source_output()
    graph.add_outputs([features])
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "THROUGHPUT"}
    compiled = ov.Core().compile_model(graph, "CPU", options)
    if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != hint:
        raise ConfigurationError(f"this CPU does not compute in {hint}: make this archive on one that does")
    results = [np.zeros((count, output.shape[-1])) for output in compiled.outputs]

    def keep(request: ov.InferRequest, place: int) -> None:
        for number, result in enumerate(results):
            result[place] = request.get_output_tensor(number).data.reshape(-1)

    queue = ov.AsyncInferQueue(compiled)
    queue.set_callback(keep)
    for place, image in enumerate(images):
        queue.start_async([image], place)
    queue.wait_all()
    return results[0], results[1]


def refit(logits: Matrix, features: Matrix, wanted: Matrix, folds: metrics.Integers) -> Refit:
    """Fit what must be added to the classifier so that the cheap logits become the wanted ones.

    Args:
        logits: Of the cheap graph, (images, classes).
        features: Of the cheap graph, (images, width).
        wanted: Of the float32 graph, (images, classes).
        folds: Fold per image: the penalty is the one that predicts held-out folds best.
    """
    trials = [_held_out(logits, features, wanted, folds, penalty) for penalty in _PENALTIES]
    errors = [float(np.square(trial - wanted).mean()) for trial in trials]
    best = int(np.argmin(errors))
    weights, bias = _ridge(features, wanted - logits, _PENALTIES[best])
    return Refit(weights=weights, bias=bias, held_out=trials[best])


def install(graph: ov.Model, fitted: Refit) -> None:
    """Put the fitted classifier into the cheap graph, in place."""
    product = _classifier(graph)
    addition = next(iter(product.output(0).get_target_inputs())).get_node()
    weights, bias = product.input(1), addition.input(1)
    across = fitted.weights.T if product.get_attributes()["transpose_b"] else fitted.weights
    _replace(weights, across)
    _replace(bias, fitted.bias.reshape(1, -1))


def _held_out(
    logits: Matrix, features: Matrix, wanted: Matrix, folds: metrics.Integers, penalty: float
) -> Matrix:
    result = logits.copy()
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        weights, bias = _ridge(features[inside], (wanted - logits)[inside], penalty)
        result[outside] += features[outside] @ weights + bias
    return result


def _ridge(features: Matrix, wanted: Matrix, penalty: float) -> tuple[Matrix, Matrix]:
    centre, offset = features.mean(0), wanted.mean(0)
    moved = features - centre
    square = moved.T @ moved
    scale = penalty * np.trace(square) / len(square)
    weights = np.linalg.solve(square + (scale + 1e-9) * np.eye(len(square)), moved.T @ (wanted - offset))
    return weights, offset - centre @ weights


def _classifier(graph: ov.Model) -> Any:
    return [node for node in graph.get_ordered_ops() if node.get_type_name() == "MatMul"][-1]


def _replace(place: Any, change: Matrix) -> None:
    old = place.get_source_output().get_node()
    new = (old.get_data() + change).astype(np.float32)
    place.replace_source_output(ov.opset13.constant(new).output(0))
