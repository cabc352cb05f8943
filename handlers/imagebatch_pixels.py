"""The one function that turns an image file into a model's pixels.

Training, the TorchServe handler and the local backend all call `decode`, so a model is asked about exactly
the pixels that it was trained on. Whatever changes a single output byte must change `PIXELS_VERSION`.

What is decided here:

- Formats: JPEG, PNG, WebP, BMP, TIFF, GIF, recognised by their first bytes, never by a file name. Of an
  animation or a multi-page file the first frame is taken.
- Width x height is read from the header and bounded before anything is decoded.
- EXIF orientation is applied. Transparency is composited on white. Colour profiles are ignored (CMYK too).
- 16-bit grey is scaled from 0..65535 to 0..255 with rounding; 16-bit colour keeps its high byte. 32-bit and
  floating-point pixels are refused: their range is not in the file.
- The shorter side becomes `resize` with torch's antialiased bilinear filter on uint8, and the centre is kept.
- A file that ends early is an error, never an image with a grey rest.
"""

import io
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg  # type: ignore[import-untyped]  # ships no type marker
import torch
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

PIXELS_VERSION: Final = "1"

Reason = Literal[
    "empty", "not_an_image", "unsupported_format", "too_many_pixels", "truncated", "decode_failed"
]
REASONS: Final[tuple[Reason, ...]] = (
    "empty",
    "not_an_image",
    "unsupported_format",
    "too_many_pixels",
    "truncated",
    "decode_failed",
)

Data = bytes | bytearray | memoryview
Array = npt.NDArray[np.uint8]

_MAX_DETAIL: Final = 200
_ORIENTATION: Final = 0x0112
_PHOTOMETRIC: Final = 262

_READERS: Final[tuple[tuple[bytes, type[ImageFile]], ...]] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"GIF87a", GifImageFile),
    (b"GIF89a", GifImageFile),
    (b"II\x2a\x00", TiffImageFile),
    (b"MM\x00\x2a", TiffImageFile),
    (b"II\x2b\x00", TiffImageFile),
    (b"MM\x00\x2b", TiffImageFile),
)
_BMP_HEADER_SIZES: Final = frozenset({12, 40, 52, 56, 64, 108, 124})

# Known to be pictures, and not read here: the answer names them, so that nobody searches for a damaged file.
_UNSUPPORTED: Final[tuple[tuple[int, bytes, str], ...]] = (
    (4, b"ftyp", "HEIC, AVIF or a video"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "an icon"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"qoif", "QOI"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"<svg", "SVG"),
    (0, b"P5\n", "PGM"),
    (0, b"P6\n", "PPM"),
)


class ImageError(ValueError):
    """An image that cannot be turned into pixels.

    Attributes:
        reason: One of `REASONS`.
        detail: What was wrong, one printable line of at most 200 characters.
    """

    def __init__(self, reason: Reason, detail: object) -> None:
        text = "".join(c if c.isprintable() else " " for c in str(detail))
        self.reason: Reason = reason
        self.detail = " ".join(text.split())[:_MAX_DETAIL]
        super().__init__(f"{reason}: {self.detail}")


class Header(NamedTuple):
    """What an image file says about itself: width and height in pixels, as stored, before orientation."""

    format: str
    width: int
    height: int


def probe(data: Data, *, max_pixels: int = 100_000_000) -> Header:
    """Read an image's header without decoding it.

    Args:
        data: A whole image file.
        max_pixels: Largest width x height that is accepted.

    Returns:
        Format (`JPEG`, `PNG`, `GIF`, `TIFF`, `WEBP` or `BMP`), width and height.

    Raises:
        ImageError: The file is empty, is no supported image or is too large.
    """
    with _open(data, max_pixels) as image:
        return Header(str(image.format), image.width, image.height)


def decode(
    data: Data,
    *,
    resize: int = 256,
    crop: int = 224,
    max_pixels: int = 100_000_000,
) -> torch.Tensor:
    """Decode one image file to the pixels that a model is given.

    Args:
        data: A whole image file.
        resize: Length of the shorter side before cropping, in pixels.
        crop: Side of the square that is kept, in pixels, at most `resize`.
        max_pixels: Largest width x height that is accepted, of the file and of the resized image.

    Returns:
        uint8 tensor of shape (3, crop, crop), contiguous, RGB, 0..255.

    Raises:
        ImageError: The file cannot be decoded completely; `reason` says why.
        ValueError: `crop` is larger than `resize`, or not positive.
    """
    if not 0 < crop <= resize:
        raise ValueError(f"crop must be between 1 and resize: got crop={crop}, resize={resize}")
    with _open(data, max_pixels) as image:
        if isinstance(image, JpegImageFile):
            pixels = torch.from_numpy(_read_jpeg(image, data))
        else:
            pixels = torch.from_numpy(_read(image, data))
        # Only now: PNG may carry the orientation behind the pixels, and TIFF applies it while loading.
        pixels = _orient(pixels, image)
    return _resize_and_crop(pixels.permute(2, 0, 1), resize, crop, max_pixels)


def _open(data: Data, max_pixels: int) -> ImageFile:
    head = bytes(data[:32])
    if not head:
        raise ImageError("empty", "the file has no bytes")
    reader = _reader(head)
    # The reader is called directly: Image.open would consult every plugin installed, and its own limit on
    # pixels is a process-wide variable that warns before it refuses.
    try:
        image = reader(io.BytesIO(data))
    except MemoryError:  # says something about this machine, not about the image
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", error) from error
    except Exception as error:  # damaged headers raise whatever the field they break raises
        raise _failure(error, data) from error
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height} pixels, at most {max_pixels} are accepted"
        raise ImageError("too_many_pixels", size)
    return image


def _reader(head: bytes) -> type[ImageFile]:
    for magic, reader in _READERS:
        if head.startswith(magic):
            return reader
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImageFile
    # "BM" alone also begins many a text file.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return BmpImageFile
    for start, magic, name in _UNSUPPORTED:
        if head[start : start + len(magic)] == magic:
            raise ImageError("unsupported_format", f"{name}: convert it to JPEG, PNG, WebP, BMP, TIFF or GIF")
    raise ImageError("not_an_image", f"unknown file format, begins with {head[:16]!r}")


def _failure(error: Exception, data: Data) -> ImageError:
    """Name what a decoder raised: files that end early are told from files that are damaged."""
    text = str(error) or type(error).__name__
    early = (
        "truncated",
        "premature",
        "not enough",
        "unexpected end",
        "end of data",
        "index out of range",
        "requires a buffer",
        "but only got",
        "incomplete checksum",
    )
    eof = isinstance(error, EOFError) or isinstance(error.__cause__, EOFError | IndexError)
    ends_early = eof or len(data) < _promised_length(data) or any(word in text.lower() for word in early)
    return ImageError("truncated" if ends_early else "decode_failed", text)


def _promised_length(data: Data) -> int:
    """Bytes that a WebP or TIFF file must have by its own header; 0 for other formats."""
    head = bytes(data[:8])
    if head[:4] == b"RIFF":
        return int.from_bytes(head[4:8], "little") + 8
    if head[:4] in (b"II\x2a\x00", b"MM\x00\x2a"):  # the directory of tags, with at least its length
        return int.from_bytes(head[4:8], "little" if head[:2] == b"II" else "big") + 2
    return 0


def _read_jpeg(image: JpegImageFile, data: Data) -> Array:
    """Decode with simplejpeg, which is faster than Pillow and, unlike it, reports damaged pixel data."""
    try:
        return _decode_jpeg(image, data)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # mostly ValueError; an impossible subsampling is a KeyError
        text = str(error).lower()
        # Stray bytes between segments are common and harmless. Only the first complaint of the decoder is
        # reported, so Pillow, which notices a missing end, reads those files.
        if any(word in text for word in ("extraneous bytes", "adobe", "icc profile", "sos parameters")):
            return _read(image, data)
        raise _failure(error, data) from error


def _decode_jpeg(image: JpegImageFile, data: Data) -> Array:
    # The two libraries must agree on the size that was bounded: a crafted file may show each another one.
    height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
    if (width, height) != image.size:
        raise ImageError("decode_failed", "the headers contradict each other")
    colorspace = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[image.mode]
    array: Array = simplejpeg.decode_jpeg(data, colorspace, fastdct=False, fastupsample=False, strict=True)
    if colorspace == "CMYK":  # stored inverted, by Adobe's convention, which Pillow follows too
        array = np.array(Image.fromarray(255 - array, "CMYK").convert("RGB"))
    return array


def _read(image: ImageFile, data: Data) -> Array:
    """Decode with Pillow to uint8 (height, width, 1 or 3)."""
    inverted = isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0
    try:
        image.load()
        return _scale_16_bit(image, inverted) if image.mode.startswith("I;16") else _to_grey_or_rgb(image)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", error) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, zlib.error and more
        raise _failure(error, data) from error


def _to_grey_or_rgb(image: ImageFile) -> Array:
    if image.mode in ("I", "F"):
        raise ImageError("unsupported_format", "32-bit pixels have no defined range: convert to 8 or 16 bit")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return np.array(Image.alpha_composite(white, rgba).convert("RGB"))
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))[:, :, None]
    return np.array(image.convert("RGB"))


def _scale_16_bit(image: Image.Image, inverted: bool) -> Array:  # noqa: FBT001 - private, one caller
    wide = np.asarray(image).astype(np.uint32)
    if inverted:  # TIFF's "0 is white", which Pillow undoes for 8 bits only
        wide = 65535 - wide
    return ((wide + 128) // 257).astype(np.uint8)[:, :, None]


def _orient(pixels: torch.Tensor, image: Image.Image) -> torch.Tensor:
    """Undo the EXIF orientation of pixels of shape (height, width, channels)."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - broken metadata raises anything, and says nothing about the pixels
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return pixels.flip(flips) if flips else pixels


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
