"""The pixels that a model is given: the picture that `imagebatch_picture` reads, resized and cropped.

Training, the TorchServe handler and the local backend all call `decode`, so a model is asked about exactly
the pixels that it was trained on. Whatever changes a single output byte must add a version to
`PIXELS_VERSIONS`: a model declares the one that it was trained on, and gets it.

Unless the model declares another `Fit`, the shorter side becomes `resize` with torch's antialiased bilinear
filter on uint8, and the centre is kept. Of version 2 on, a JPEG whose deciding side is at least four times as
long as it becomes is decoded at so many eighths that twice that is left (`imagebatch_jpeg.eighths_for`); all
else is as in version 1, to the bit.
"""

from dataclasses import dataclass, fields
from typing import Final

import torch
from imagebatch_header import (
    FIRST_PIXELS,
    MOST_PIXELS,
    PIXELS_VERSION,
    PIXELS_VERSIONS,
    Data,
    ImageError,
    View,
)
from imagebatch_picture import PLAIN, Eighths, eighths_for, read, upright

__all__ = [
    "FIRST_PIXELS",
    "PIXELS_VERSION",
    "PIXELS_VERSIONS",
    "Data",
    "Fit",
    "ImageError",
    "View",
    "decode",
]

FITS: Final = ("crop", "squash", "pad")
FILTERS: Final = ("bilinear", "bicubic")
CONTRASTS: Final = ("as-is", "percentiles-1-99")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a model declares about how a picture becomes a square.

    Attributes:
        fit: `crop`: the shorter side becomes `resize` pixels; `squash`: both sides do, whatever the picture's
            shape; `pad`: the longer side does, and the rest of the square is filled on both sides. The centre
            of `crop` pixels is kept then.
        interpolation: `bilinear` or `bicubic`, both antialiased.
        padding: The colour that `pad` fills with: `white`, `black`, `grey` or `#rrggbb`.
        contrast: What becomes of the square's values: `as-is`, or `percentiles-1-99`: the value below which a
            hundredth of them lies becomes 0, the one above which a hundredth lies 255, all channels alike.
    """

    fit: str = "crop"
    interpolation: str = "bilinear"
    padding: str = "black"
    contrast: str = "as-is"

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ValueError: One is none of those above; the text begins with the attribute's name.
        """
        if self.fit not in FITS:
            raise ValueError(f"fit must be {', '.join(FITS[:-1])} or {FITS[-1]}: got {self.fit!r}")
        if self.interpolation not in FILTERS:
            raise ValueError(f"interpolation must be {' or '.join(FILTERS)}: got {self.interpolation!r}")
        if self.contrast not in CONTRASTS:
            raise ValueError(f"contrast must be {' or '.join(CONTRASTS)}: got {self.contrast!r}")
        try:
            _ = self.rgb
        except ValueError as error:
            message = f"padding must be white, black, grey or #rrggbb: got {self.padding!r}"
            raise ValueError(message) from error

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The padding's red, green and blue, 0 to 255."""
        return View(background=self.padding).rgb

    def declared(self) -> dict[str, str | int]:
        """Return what is not the default, by attribute."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    def side(self, height: int, width: int) -> int:
        """Return the side of a picture that decides how far it is made smaller: the least shrunk one."""
        return max(height, width) if self.fit == "pad" else min(height, width)

    def eighths(self, resize: int, version: str) -> Eighths | None:
        """Return what says at how many eighths a JPEG is decoded to be resized so; None: always whole."""
        if version == FIRST_PIXELS:
            return None
        return lambda height, width: eighths_for(self.side(height, width), resize)

    def size(self, height: int, width: int, resize: int) -> tuple[int, int]:
        """Return the height and width that a picture is resized to, at least 1 pixel each."""
        if self.fit == "squash":
            return resize, resize
        side = self.side(height, width)
        # The other side is rounded down, as torchvision does.
        return max(1, (resize * height) // side), max(1, (resize * width) // side)


CENTRE: Final = Fit()


def decode(
    data: Data,
    *,
    resize: int = 256,
    crop: int = 224,
    max_pixels: int = MOST_PIXELS,
    view: View = PLAIN,
    fit: Fit = CENTRE,
    version: str = PIXELS_VERSION,
) -> torch.Tensor:
    """Decode one image file to the pixels that a model is given.

    Args:
        data: A whole image file.
        resize: Length of the shorter side before cropping, in pixels; of what `fit` says, where it does.
        crop: Side of the square that is kept, in pixels, at most `resize`.
        max_pixels: Largest width x height that is accepted, of the file and of the resized image.
        view: What the model declares about files that can be seen in more than one way.
        fit: What the model declares about how a picture becomes a square.
        version: Of the pixels, one of `PIXELS_VERSIONS`: what the model was trained on.

    Returns:
        uint8 tensor of shape (3, crop, crop), contiguous, RGB, 0..255.

    Raises:
        ImageError: The file cannot be decoded completely; `reason` says why.
        ValueError: `crop` is larger than `resize`, or not positive; or there is no such version.
    """
    if version not in PIXELS_VERSIONS:
        raise ValueError(f"pixels must be of version {' or '.join(PIXELS_VERSIONS)}: got {version!r}")
    if not 0 < crop <= resize:
        raise ValueError(f"crop must be between 1 and resize: got crop={crop}, resize={resize}")
    picture = read(data, view=view, max_pixels=max_pixels, eighths=fit.eighths(resize, version))
    size = fit.size(*picture.size, resize)
    _require_size(picture.size, size, max_pixels)
    resized = _resize(torch.from_numpy(picture.pixels).permute(2, 0, 1), size, fit, picture.extent)
    if picture.orientation != 1:
        turned = upright(resized.permute(1, 2, 0).numpy(), picture.orientation)
        resized = torch.from_numpy(turned).permute(2, 0, 1)
    if fit.fit == "pad":
        resized = _pad(resized, resize, fit.rgb)
    high, wide = resized.shape[1:]
    # The corner is rounded half to even, as torchvision does.
    top, left = round((high - crop) / 2), round((wide - crop) / 2)
    square = resized[:, top : top + crop, left : left + crop]
    if fit.contrast != "as-is":
        square = _stretch(square)
    return square.expand(3, crop, crop).contiguous()


def _require_size(whole: tuple[int, int], resized: tuple[int, int], max_pixels: int) -> None:
    """Refuse a picture that would become too large."""
    (height, width), (high, wide) = whole, resized
    if high * wide > max_pixels:
        size = f"{width} x {height} would become {wide} x {high} pixels, at most {max_pixels} are accepted"
        raise ImageError("too_many_pixels", size)


def _resize(
    pixels: torch.Tensor, size: tuple[int, int], fit: Fit, extent: tuple[float, float]
) -> torch.Tensor:
    """Resize uint8 (1 or 3, height, width) to a height and width, with the filter of `fit`.

    `extent` is how many of the rows and columns the picture covers: of one decoded at some eighths, the last
    may lie partly beyond its edge. The whole of it would be a little too large a picture, and shift all.
    """
    if extent != tuple(pixels.shape[1:]):
        scales = [length / covered for length, covered in zip(size, extent, strict=True)]
        resized: torch.Tensor = _RESIZERS[fit.interpolation](pixels[None], size, False, *scales)  # noqa: FBT003 - an operator of torch takes no names
        return resized[0]
    return torch.nn.functional.interpolate(
        pixels[None], size, mode=fit.interpolation, align_corners=False, antialias=True
    )[0]


# What `interpolate` calls, which takes either a size or a scale, and here both are known.
_RESIZERS: Final = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa,  # noqa: SLF001 - torch's own name for it
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa,  # noqa: SLF001 - torch's own name for it
}


def _pad(pixels: torch.Tensor, side: int, rgb: tuple[int, int, int]) -> torch.Tensor:
    """Lay uint8 (1 or 3, height, width) on the middle of a square of one colour: (3, side, side)."""
    high, wide = pixels.shape[1:]
    square = torch.tensor(rgb, dtype=torch.uint8).view(3, 1, 1).repeat(1, side, side)
    top, left = (side - high) // 2, (side - wide) // 2
    square[:, top : top + high, left : left + wide] = pixels
    return square


def _stretch(square: torch.Tensor) -> torch.Tensor:
    """Spread uint8 (1 or 3, height, width) so that its 1st percentile becomes 0 and its 99th 255.

    Whole numbers throughout, and one table for all values: the same bits on every machine. A square of one
    value stays as it is.
    """
    values = square.flatten().to(torch.int64)
    reached = 100 * torch.bincount(values, minlength=256).cumsum(0)  # a hundred times the values up to each
    low = int((reached >= len(values)).nonzero()[0])
    high = int((reached > 99 * len(values)).nonzero()[0])
    if high <= low:
        return square
    spread = (torch.arange(256) - low) * 510 + (high - low)  # twice, so that halves are rounded up
    table = (spread // (2 * (high - low))).clamp(0, 255).to(torch.uint8)
    return table[square.to(torch.int64)]
