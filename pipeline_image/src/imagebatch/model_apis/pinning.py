"""A digest for a model whose server tells none: of its name, its labels, and its answers to fixed images."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from imagebatch.contracts.records import ModelPin
from imagebatch.model_apis.base import ImagePayload

# Probabilities are compared to two decimals: a server whose sums are not always in one order stays the same.
_DECIMALS = 2
_SIDE = 64


@functools.cache
def pictures(page: int = 1) -> tuple[ImagePayload, ...]:
    """Return the images that a model is known by, RGB as most models expect: a gradient, a board, noise.

    Args:
        page: The page of a file that the model sees; each is the same.
    """
    rows, columns = np.indices((_SIDE, _SIDE))
    gradient = np.stack([rows * 4, columns * 4, 255 - rows * 4], axis=-1)
    board = np.repeat((((rows // 8) + (columns // 8)) % 2 * 255)[..., None], 3, axis=-1)
    noise = np.random.Generator(np.random.PCG64(7)).integers(0, 256, (_SIDE, _SIDE, 3))
    drawn = [_file(pixels.astype(np.uint8), page) for pixels in (gradient, board, noise)]
    return tuple(ImagePayload(f"pin-{number}", data) for number, data in enumerate(drawn))


def digest_of(model: ModelPin, answers: Sequence[npt.NDArray[np.float32]]) -> str:
    """Return a digest that another model, or the same with other weights, does not have.

    Args:
        model: All that is known of it but its digest.
        answers: What `Head.known_by` makes of the answer to each of `pictures()`: probabilities (classes,) of
            a softmax; none for an image that it refuses.
    """
    rounded = [
        [[index, near] for index, value in enumerate(row) if (near := round(float(value), _DECIMALS))]
        for row in answers
    ]
    said = {"model": model.name, "version": model.version, "labels": model.labels, "answers": rounded}
    said |= model.declaration.model_dump(mode="json")  # nothing, of a softmax
    return "sha256:" + hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def alike(
    before: Sequence[npt.NDArray[np.float32]], now: Sequence[npt.NDArray[np.float32]], tolerance: float
) -> bool:
    """Tell whether two answers to `pictures()` are the same, to a tolerance of each probability."""
    return len(before) == len(now) and all(
        a.shape == b.shape and bool(np.all(np.abs(a - b) <= tolerance))
        for a, b in zip(before, now, strict=True)
    )


def _file(pixels: npt.NDArray[np.uint8], page: int) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    if page == 1:
        image.save(stream, "PNG")
    else:
        image.save(stream, "TIFF", save_all=True, append_images=[image] * (page - 1))
    return stream.getvalue()
