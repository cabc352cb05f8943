"""The graph that an archive serves: uint8 pixels in, preprocessing inside, logits, or a score, out."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import openvino as ov  # type: ignore[import-untyped]  # ships no type marker
from openvino import opset13 as op

from imagebatch_training.errors import DataError
from imagebatch_training.imports.network import Network
from imagebatch_training.imports.preprocessing import Preprocessing

LEAST: Final = 1e-30
"""A probability of 0 is taken for this one, so that its logit is finite."""
LEAST_REST: Final = 2.0**-24
"""The same for what a probability lacks of 1: the smallest step of float32 below it."""
_WHITE: Final = 255.0
# Between the last layer and the logits nothing but these, where the layer's input shall be the features.
_SHAPES: Final = ("Convert", "Reshape", "Squeeze", "Unsqueeze", "Transpose")
_PASSED: Final = ("Add", "Convert", "Reshape", "Softmax", "Sigmoid", "Log", "Maximum", "Squeeze", "Subtract")


def input_shape(pre: Preprocessing) -> tuple[int, ...]:
    """Return the shape of the model's own input, with a batch of 1."""
    side = pre.crop
    return (1, side, side, 3) if pre.layout == "nhwc" else (1, 3, side, side)


def scaling(pre: Preprocessing) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return mean and standard deviation in units of uint8 pixels, (3,) each, in the model's order."""
    unit = _WHITE if pre.pixel_range == "0-1" else 1.0
    return np.array(pre.mean, np.float64) * unit, np.array(pre.std, np.float64) * unit


def served_graph(network: Network, pre: Preprocessing, output: int, head: str) -> ov.Model:
    """Make the graph.

    Args:
        network: The model.
        pre: What is put in front of it and behind it.
        output: Position of the output with the classes, or the score.
        head: Name of what its numbers mean.

    Returns:
        uint8 (1, 3, crop, crop) RGB to float32 logits (1, classes), or a score (1, 1), and, where the
        last layer is a linear one, its input as features (1, n).

    Raises:
        DataError: The model cannot be converted, or does not take this input.
    """
    model = network.graph(input_shape(pre))
    if len(model.inputs) != 1 or output >= len(model.outputs):
        raise DataError(
            f"the converted graph has {len(model.inputs)} inputs and {len(model.outputs)} outputs"
        )
    model.reshape(list(input_shape(pre)))
    parameter = model.input(0).get_node()
    pixels = op.parameter([1, 3, pre.crop, pre.crop], ov.Type.u8, name="pixels")
    given = _prepared(pixels, pre)
    if parameter.get_element_type() != ov.Type.f32:
        given = op.convert(given, parameter.get_element_type().get_type_name())
    for target in parameter.output(0).get_target_inputs():
        target.replace_source_output(given.output(0))
    answer = model.output(output).get_node().input_value(0)
    logits = HEADS[head, pre.outputs](_flat(answer))
    features = _features(answer)
    results = [op.result(value) for value in (logits, features) if value is not None]
    served = ov.Model(results, [pixels], "model")
    for place, name in zip(served.outputs, ("logits", "features"), strict=False):
        place.get_tensor().set_names({name})  # else named by a counter: other bytes every time
    return served


def _prepared(pixels: Any, pre: Preprocessing) -> Any:
    """Turn uint8 RGB (1, 3, side, side) into what the model wants."""
    given = op.convert(pixels, "f32")
    if pre.channel_order == "bgr":
        given = op.gather(given, op.constant([2, 1, 0]), op.constant(1))
    mean, std = (op.constant(value.astype(np.float32).reshape(1, 3, 1, 1)) for value in scaling(pre))
    given = op.divide(op.subtract(given, mean), std)
    return op.transpose(given, op.constant([0, 2, 3, 1])) if pre.layout == "nhwc" else given


def _flat(answer: Any) -> Any:
    """Turn the classes' output, whatever ones its shape has, into float32 (1, classes)."""
    values = answer if answer.get_element_type() == ov.Type.f32 else op.convert(answer, "f32")
    return op.reshape(values, op.constant([1, -1]), special_zero=False)


def _as_it_is(values: Any) -> Any:
    return values


def _log(values: Any) -> Any:
    """Undo a softmax: the softmax of a probability's logarithm is the probability."""
    return op.log(op.maximum(values, op.constant(np.float32(LEAST))))


def _log_odds(values: Any) -> Any:
    """Undo a sigmoid: the sigmoid of a probability's log odds is the probability."""
    one, least, rest = (op.constant(np.float32(number)) for number in (1, LEAST, LEAST_REST))
    against = op.log(op.maximum(op.subtract(one, values), rest))
    return op.subtract(op.log(op.maximum(values, least)), against)


HEADS: Final[Mapping[tuple[str, str], Callable[[Any], Any]]] = {
    ("softmax", "logits"): _as_it_is,
    ("softmax", "probabilities"): _log,
    ("multilabel", "logits"): _as_it_is,
    ("multilabel", "probabilities"): _log_odds,
    ("regression", "score"): _as_it_is,
}
"""What is put behind the model by head and `Preprocessing.outputs`, so that the handler's softmax or sigmoid
gives the classes' probabilities. Another kind of head is one more."""


def ends_with(network: Network, pre: Preprocessing, output: int) -> str:
    """Name the operation that the values of a model's output come from: `Softmax`, `Sigmoid`, `MatMul`.

    Raises:
        DataError: The model cannot be converted.
    """
    node = network.graph(input_shape(pre)).output(output).get_node().input_value(0).get_node()
    while node.get_type_name() in _SHAPES:
        node = node.input_value(0).get_node()
    name: str = node.get_type_name()
    return name


def _features(answer: Any) -> Any:
    """Find the input of the last linear layer, (1, n); None where there is no such layer."""
    node = answer.get_node()
    while node.get_type_name() in _PASSED:
        node = node.input_value(0).get_node()
    if node.get_type_name() != "MatMul":
        return None
    features = node.input_value(0)
    shape = features.get_partial_shape()
    fits = shape.rank.is_static and len(shape) == 2 and not shape.is_dynamic  # noqa: PLR2004 - one image's row
    return features if fits and features.get_element_type() == ov.Type.f32 else None
