"""The pixels that a model is given: the picture that `imagebatch_picture` reads, resized and cropped.

Training, the TorchServe handler and the local backend all call `decode`, so a model is asked about exactly
the pixels that it was trained on. Whatever changes a single output byte must change `PIXELS_VERSION`.

The shorter side becomes `resize` with torch's antialiased bilinear filter on uint8, and the centre is kept.
"""

import torch
from imagebatch_header import MOST_PIXELS, Data, ImageError, View
from imagebatch_picture import PIXELS_VERSION, PLAIN, read

__all__ = ["PIXELS_VERSION", "Data", "ImageError", "View", "decode"]


def decode(
    data: Data,
    *,
    resize: int = 256,
    crop: int = 224,
    max_pixels: int = MOST_PIXELS,
    view: View = PLAIN,
) -> torch.Tensor:
    """Decode one image file to the pixels that a model is given.

    Args:
        data: A whole image file.
        resize: Length of the shorter side before cropping, in pixels.
        crop: Side of the square that is kept, in pixels, at most `resize`.
        max_pixels: Largest width x height that is accepted, of the file and of the resized image.
        view: What the model declares about files that can be seen in more than one way.

    Returns:
        uint8 tensor of shape (3, crop, crop), contiguous, RGB, 0..255.

    Raises:
        ImageError: The file cannot be decoded completely; `reason` says why.
        ValueError: `crop` is larger than `resize`, or not positive.
    """
    if not 0 < crop <= resize:
        raise ValueError(f"crop must be between 1 and resize: got crop={crop}, resize={resize}")
    pixels = torch.from_numpy(read(data, view=view, max_pixels=max_pixels).pixels)
    return _resize_and_crop(pixels.permute(2, 0, 1), resize, crop, max_pixels)


def _resize_and_crop(pixels: torch.Tensor, resize: int, crop: int, max_pixels: int) -> torch.Tensor:
    """Resize uint8 (1 or 3, height, width) so that its shorter side is `resize`, and keep the centre."""
    height, width = pixels.shape[1:]
    short = min(height, width)
    # The longer side is rounded down, and the crop's corner rounded half to even, as torchvision does.
    high, wide = (resize * height) // short, (resize * width) // short
    if high * wide > max_pixels:
        size = f"{width} x {height} would become {wide} x {high} pixels, at most {max_pixels} are accepted"
        raise ImageError("too_many_pixels", size)
    resized = torch.nn.functional.interpolate(
        pixels[None], (high, wide), mode="bilinear", align_corners=False, antialias=True
    )[0]
    top, left = round((high - crop) / 2), round((wide - crop) / 2)
    cropped = resized[:, top : top + crop, left : left + crop]
    return cropped.expand(3, crop, crop).contiguous()
