"""What a training image may look like as well: mirrored; if it is asked for, lighter, darker, less sharp."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torchvision.transforms import functional  # type: ignore[import-untyped]  # ships no type marker

from imagebatch_training.images.pixels import Pixels

MIRRORED = 4
"""As is, mirrored left to right, top to bottom, and both: what a cell in its module may look like as well."""
_WHITE = 255


def views(augment: Sequence[str]) -> list[Callable[[Pixels], Pixels]]:
    """Return the views of a training image; the first is the image as it is.

    Args:
        augment: Of `AUGMENTATIONS`, in any order.

    Returns:
        Functions of uint8 (channels, height, width) to the same shape. The order is that of `AUGMENTATIONS`,
        whatever the order of `augment`.
    """
    further = [one for name, several in AUGMENTATIONS.items() if name in augment for one in several]
    return [lambda pixels, number=number: mirror(pixels, number) for number in range(MIRRORED)] + further


def mirror(pixels: Pixels, number: int) -> Pixels:
    """Mirror (…, height, width): bit 0 of `number` left to right, bit 1 top to bottom."""
    if number & 1:
        pixels = pixels[..., ::-1]
    if number & 2:
        pixels = pixels[..., ::-1, :]
    return pixels


def _gamma(pixels: Pixels, exponent: float) -> Pixels:
    return _table(_WHITE * (np.arange(_WHITE + 1) / _WHITE) ** exponent)[pixels]


def _exposure(pixels: Pixels, factor: float) -> Pixels:
    return _table(np.arange(_WHITE + 1) * factor)[pixels]


def _table(values: np.ndarray) -> Pixels:
    rounded: Pixels = np.clip(np.rint(values), 0, _WHITE).astype(np.uint8)
    return rounded


def _blur(pixels: Pixels, deviation: float) -> Pixels:
    side = 2 * int(3 * deviation + 0.5) + 1
    blurred: Pixels = functional.gaussian_blur(
        torch.from_numpy(np.ascontiguousarray(pixels)), [side, side], [deviation, deviation]
    ).numpy()
    return blurred


# Mirrored as well, so that no view differs from the first one in its light or sharpness alone.
AUGMENTATIONS: dict[str, list[Callable[[Pixels], Pixels]]] = {
    "gamma": [lambda pixels: _gamma(mirror(pixels, 1), 0.7), lambda pixels: _gamma(mirror(pixels, 2), 1.4)],
    "exposure": [
        lambda pixels: _exposure(mirror(pixels, 3), 0.8),
        lambda pixels: _exposure(mirror(pixels, 1), 1.25),
    ],
    "blur": [lambda pixels: _blur(mirror(pixels, 2), 1.0), lambda pixels: _blur(mirror(pixels, 3), 1.5)],
}
"""By the name that `augment` gives: brightness curves, brightness itself, Gaussian blur (pixels)."""
