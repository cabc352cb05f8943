"""What a model answers through its own library, and what those answers are."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from imagebatch_training import metrics
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.imports.graph import input_shape
from imagebatch_training.imports.network import Floats, Network, Transform
from imagebatch_training.imports.preprocessing import Preprocessing

Doubles = metrics.Floats


def choose_output(network: Network, pre: Preprocessing, wanted: int | None) -> tuple[int, int]:
    """Find the output that holds the answer.

    Args:
        network: The model.
        pre: Gives the size of its input.
        wanted: Position that the user names.

    Returns:
        Its position, and how many values it has for an image.

    Raises:
        ConfigurationError: There are several, and none is named.
        DataError: The model does not take this input, or answers something else than a row of values.
    """
    outputs = _try(network, pre)
    shapes = ", ".join(f"{index}: {output.shape}" for index, output in enumerate(outputs))
    if wanted is None and len(outputs) > 1:
        raise ConfigurationError(
            f"the model has {len(outputs)} outputs ({shapes}): say by --output which holds the "
            "classes, or the score"
        )
    position = wanted or 0
    if not 0 <= position < len(outputs):
        raise ConfigurationError(f"--output {position}: the model has the outputs {shapes}")
    shape = outputs[position].shape
    if shape[:1] not in ((), (1,)) or sum(size != 1 for size in shape) > 1 or not outputs[position].size:
        raise DataError(
            f"output {position} is {shape}: a model of images answers (1, classes), or one number"
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
