"""Preprocessing as torchvision and Pillow do it: what an archive's own pixels and graph are compared with."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
from imagebatch_header import View  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms import InterpolationMode  # type: ignore[import-untyped]  # ships no type marker
from torchvision.transforms import functional as F  # noqa: N812 - its usual name

from imagebatch_training.errors import DataError
from imagebatch_training.imports.network import Floats, Transform
from imagebatch_training.imports.preprocessing import Preprocessing

_ONE_WAY = ("1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr")
"""Modes of Pillow that everybody reads in one way: 8 bits per sample, transparency laid on a colour."""


def open_picture(path: Path, view: View) -> Image.Image | None:
    """Read an image with Pillow, upright, as RGB; None where Pillow cannot, or sees it in its own way."""
    try:
        with Image.open(path) as opened:
            if opened.mode not in _ONE_WAY or view.page != 1:
                return None
            picture = ImageOps.exif_transpose(opened)
            if picture.has_transparency_data:
                rgba = picture.convert("RGBA")
                ground = Image.new("RGBA", rgba.size, (*view.rgb, 255))
                return Image.alpha_composite(ground, rgba).convert("RGB")
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


class Opened(Sequence[Image.Image]):
    """Images that are opened one at a time: as many as there are, and memory for one.

    Args:
        paths: Of images that `open_picture` reads.
        view: How they are seen.
    """

    def __init__(self, paths: Sequence[Path], view: View) -> None:
        self._paths, self._view = paths, view

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Image.Image]: ...
    def __getitem__(self, index: int | slice) -> Image.Image | Sequence[Image.Image]:
        """Open one, or choose some.

        Raises:
            IndexError: There are fewer.
            DataError: It cannot be read any more.
        """
        if isinstance(index, slice):
            return Opened(self._paths[index], self._view)
        picture = open_picture(self._paths[index], self._view)
        if picture is None:
            raise DataError(f"{self._paths[index]} has changed since it was read first")
        return picture


def libraries() -> str:
    """Name what makes the reference's pixels."""
    return f"torchvision {version('torchvision')} on Pillow {version('pillow')}"


def square(pre: Preprocessing) -> Callable[[Image.Image], Image.Image]:
    """Make the function from a picture to the square that a model sees, by torchvision on Pillow's images."""
    mode = InterpolationMode(pre.interpolation)
    fit, resize = pre.square, pre.resize

    def apply(picture: Image.Image) -> Image.Image:
        high, wide = fit.size(picture.height, picture.width, resize)
        if (high, wide) != (picture.height, picture.width):
            picture = F.resize(picture, [high, wide], mode)
        if fit.fit == "pad":
            left, top = (resize - wide) // 2, (resize - high) // 2
            sides = [left, top, resize - wide - left, resize - high - top]
            picture = F.pad(picture, sides, fill=fit.rgb)
        cropped: Image.Image = F.center_crop(picture, [pre.crop, pre.crop])
        return cropped

    return apply


def reference(pre: Preprocessing) -> Transform:
    """Make the whole preprocessing but for the layout: RGB picture to float32 (3, crop, crop)."""
    to_square = square(pre)

    def apply(picture: Image.Image) -> Floats:
        return numbers(np.asarray(to_square(picture)), pre)

    return apply


def numbers(pixels: npt.NDArray[np.uint8], pre: Preprocessing) -> Floats:
    """Scale and order uint8 pixels (crop, crop, 3) as a model wants them: float32 (3, crop, crop)."""
    planes = pixels.transpose(2, 0, 1).astype(np.float32)
    if pre.channel_order == "bgr":
        planes = planes[::-1]
    if pre.pixel_range == "0-1":
        planes = planes / np.float32(255)
    mean, std = (np.array(value, np.float32).reshape(3, 1, 1) for value in (pre.mean, pre.std))
    return np.ascontiguousarray((planes - mean) / std)
