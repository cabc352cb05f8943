"""What a model answers through its own library, and what those answers are."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image

from imagebatch_training import metrics
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.imports.graph import LEAST, input_shape
from imagebatch_training.imports.network import Floats, Network, Transform
from imagebatch_training.imports.preprocessing import Preprocessing

Doubles = metrics.Floats
_NEAR_ONE: Final = 1e-2
_FEWEST: Final = 2


def choose_output(network: Network, pre: Preprocessing, wanted: int | None) -> tuple[int, int]:
    """Find the output that holds the classes.

    Args:
        network: The model.
        pre: Gives the size of its input.
        wanted: Position that the user names.

    Returns:
        Its position, and how many classes it has.

    Raises:
        ConfigurationError: There are several, and none is named.
        DataError: The model does not take this input, or answers something else than one value a class.
    """
    outputs = _try(network, pre)
    shapes = ", ".join(f"{index}: {output.shape}" for index, output in enumerate(outputs))
    if wanted is None and len(outputs) > 1:
        raise ConfigurationError(
            f"the model has {len(outputs)} outputs ({shapes}): say by --output which holds the classes"
        )
    position = wanted or 0
    if not 0 <= position < len(outputs):
        raise ConfigurationError(f"--output {position}: the model has the outputs {shapes}")
    shape = outputs[position].shape
    if len(shape) < _FEWEST or shape[0] != 1 or sum(size > 1 for size in shape) != 1:
        raise DataError(
            f"output {position} is {shape}: a classifier answers (1, classes), and two classes or more"
        )
    return position, outputs[position].size


def _try(network: Network, pre: Preprocessing) -> list[Floats]:
    from dataclasses import replace  # noqa: PLC0415 - only here

    try:
        return network.predict(np.zeros(input_shape(pre), np.float32))
    except DataError:
        other = replace(pre, layout="nchw" if pre.layout == "nhwc" else "nhwc")
        try:
            network.predict(np.zeros(input_shape(other), np.float32))
        except DataError:
            pass
        else:
            raise DataError(
                f"wrong layout: the model takes {input_shape(other)} and not {input_shape(pre)}: "
                f"--layout {other.layout}"
            ) from None
        raise


def raw_answers(
    network: Network, pre: Preprocessing, output: int, transform: Transform, pictures: Sequence[Image.Image]
) -> Doubles:
    """Ask the model's own library.

    Args:
        network: The model.
        pre: Gives the layout.
        output: Position of the classes' output.
        transform: Upright RGB picture to float32 (3, crop, crop).
        pictures: What is asked about.

    Returns:
        float64 (images, classes), as the model gives them.

    Raises:
        DataError: A value is not finite.
    """
    rows = [ask(network, pre, output, transform(picture)) for picture in pictures]
    answers = np.stack(rows).astype(np.float64)
    if not np.isfinite(answers).all():
        raise DataError(
            f"the model answers values that are not finite to {(~np.isfinite(answers)).any(1).sum()} of "
            f"{len(answers)} images: is --pixel-range {pre.pixel_range} right?"
        )
    return answers


def ask(network: Network, pre: Preprocessing, output: int, planes: Floats) -> Floats:
    """Compute the raw answer (classes,) to one input float32 (3, crop, crop)."""
    given = planes[None] if pre.layout == "nchw" else planes.transpose(1, 2, 0)[None]
    return network.predict(np.ascontiguousarray(given, np.float32))[output].reshape(-1)


def are_probabilities(raw: Doubles) -> bool:
    """Tell whether raw answers (images, classes) went through a softmax: all in 0..1, each row's sum 1."""
    return bool((raw >= 0).all() and (raw <= 1).all() and np.abs(raw.sum(1) - 1).max() < _NEAR_ONE)


def require_outputs(raw: Doubles, pre: Preprocessing, said_by: str) -> None:
    """Refuse what is declared of the outputs where they show the contrary.

    Raises:
        DataError: They do.
    """
    found = are_probabilities(raw)
    if found and pre.outputs == "logits":
        raise DataError(
            f"softmax twice: the model's outputs are probabilities already (they sum to 1 on each of "
            f"{len(raw)} images), and {said_by} says logits: --outputs probabilities"
        )
    if not found and pre.outputs == "probabilities":
        low, high = raw.min(), raw.max()
        raise DataError(
            f"softmax is missing: the model's outputs lie between {low:.4g} and {high:.4g} and do not sum to "
            f"1, and {said_by} says probabilities: --outputs logits"
        )


def as_logits(raw: Doubles, outputs: str) -> Doubles:
    """Return what a softmax makes probabilities of, (images, classes)."""
    return np.log(np.maximum(raw, LEAST)) if outputs == "probabilities" else raw


def as_probabilities(raw: Doubles, outputs: str) -> Doubles:
    """Return probabilities (images, classes)."""
    found: Doubles = metrics.softmax(as_logits(raw, outputs))
    return found
