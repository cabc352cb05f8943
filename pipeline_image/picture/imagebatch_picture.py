"""The one function that turns an image file into pixels: `read`.

The model (training, TorchServe's handler, the local backend), the check before scoring, the image checks,
thumbnails, drift statistics and golden images all call it, so all see the same picture. Whatever changes a
single byte of it must add a version to `PIXELS_VERSIONS`: a model keeps the one that it was trained on.

What is decided here, and which layouts are read at all, is the table in docs/reference/image-formats.md:

- Width x height is read from the header and bounded before anything is decoded, and what the decoder gives is
  compared with what the header promised.
- Orientation is applied, once. Transparency is laid on the model's background, white unless it says
  otherwise. Colour profiles are ignored (CMYK too).
- Grey of 9 to 16 bits is scaled to 0..255 with rounding, colour of 16 bits keeps its high byte; both by the
  model's value range where it declares one. Signed and floating-point samples are refused: their range is
  not in the file.
- A large JPEG may be decoded at a few eighths of its size, where whoever asks says so (`eighths`).
- A file that ends early is an error, never an image with a grey rest. Text and profiles never decide.
"""

from typing import Final, NamedTuple

import numpy as np
from imagebatch_colour import PLAIN, Array, channels
from imagebatch_deep import deep_colour, deep_grey, high_bits, scale, used_bits, wide_samples
from imagebatch_formats import failure, format_of
from imagebatch_gif import gif_pages
from imagebatch_header import MOST_PIXELS, Data, Header, ImageError, Reason, View, not_read, require_page
from imagebatch_inside import is_inside, unpacked
from imagebatch_jpeg import WHOLE, Eighths, eighths_for, jpeg_frames, read_jpeg
from imagebatch_jxl import JxlHeader, jxl_header
from imagebatch_open import FORMATS, open_page, opened, require_size, seek, without_text
from imagebatch_tiff import EXTRA_SAMPLES, PHOTOMETRIC, TiffPage, tiff_pages
from imagebatch_upright import orientation_of, upright
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

__all__ = [
    "FORMATS",
    "MOST_PIXELS",
    "PLAIN",
    "WHOLE",
    "Eighths",
    "Picture",
    "count_pages",
    "eighths_for",
    "probe",
    "read",
    "upright",
]


class Picture(NamedTuple):
    """An image as everything here sees it.

    Attributes:
        pixels: uint8 (height, width, 1 or 3), grey or RGB, 0 to 255; upright where they are the whole.
        header: What the file says of itself.
        mode: The kind of its colours, by Pillow's name: `RGB`, `L`, `P`, `CMYK`, `I;16`, ….
        used_bits: Of a file with more than 8 bits per sample: bits of its largest value, at least 1; else 0.
        eighths: Of the picture's height and width that were decoded, rounded up.
        orientation: EXIF's, which `upright` undoes: 1 where `pixels` are the whole picture. Of eighths, the
            last row and column may lie partly beyond its edge, so it is resized before it is turned.
    """

    pixels: Array
    header: Header
    mode: str
    used_bits: int = 0
    eighths: int = WHOLE
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture, as `pixels` lie, at whatever size it was decoded."""
        if self.eighths == WHOLE:
            return self.pixels.shape[0], self.pixels.shape[1]
        return self.header.height, self.header.width

    @property
    def extent(self) -> tuple[float, float]:
        """Rows and columns of `pixels` that the picture covers: the last may lie partly beyond its edge."""
        height, width = self.size
        return height * self.eighths / WHOLE, width * self.eighths / WHOLE


def probe(data: Data, *, view: View = PLAIN, max_pixels: int = MOST_PIXELS) -> Header:
    """Read an image's header without decoding it.

    Args:
        data: A whole image file.
        view: What the model declares.
        max_pixels: Largest width x height that is accepted.

    Raises:
        ImageError: The file is empty, is no image, is of a layout that is not read, or is too large.
    """
    if format_of(data) == "JXL":
        return _jxl(data, view, max_pixels).header
    found = open_page(data, view, max_pixels, only_look=True)
    found.image.close()
    return found.header


def count_pages(data: Data) -> int:
    """Count the pages or frames of a file, also of those that cannot be read.

    Raises:
        ImageError: The file is empty or no image, or is so damaged, or of such a kind, that nobody can tell.
    """
    name = format_of(data)
    if name == "TIFF":
        return tiff_pages(data)
    if name == "GIF":
        return gif_pages(data)
    if name == "JXL":
        if jxl_header(data).header.frames > 1:
            raise not_read("an animated JPEG XL, which does not say how many frames it has")
        return 1
    with opened(name, data) as image:
        if isinstance(image, JpegImageFile):
            return jpeg_frames(image) if "mp" in image.info else 1
        return int(getattr(image, "n_frames", 1))


def read(
    data: Data, *, view: View = PLAIN, max_pixels: int = MOST_PIXELS, eighths: Eighths | None = None
) -> Picture:
    """Decode one image file.

    Args:
        data: A whole image file.
        view: What the model declares about files that can be seen in more than one way.
        max_pixels: Largest width x height that is accepted, of the whole picture.
        eighths: Of how many eighths of its height and width a JPEG is decoded; None: whole.

    Raises:
        ImageError: The file cannot be decoded completely, or not as its header promised; `reason` says why.
    """
    if data[:1] in _JXL and format_of(data) == "JXL":
        return _read_jxl(data, _jxl(data, view, max_pixels), view)
    whole = data
    image, header, page, data = open_page(data, view, max_pixels)
    if page is not None and is_inside(page):
        image.close()
        data = unpacked(whole, page)
        image = opened("TIFF", data)
    with image:
        if header.format == "JPEG":
            picture = _read_jpeg(image, header, data, view, eighths)
        else:
            picture = _read(image, header, page, data, view)
            _require_promised(picture, page)
        if page is not None or header.format == "HEIF":  # turned while it was loaded
            return picture
        orientation = orientation_of(image)  # only now: PNG may carry it behind the pixels
    if picture.eighths < WHOLE:
        return picture._replace(orientation=orientation)
    return picture._replace(pixels=upright(picture.pixels, orientation))


def _read_jpeg(image: ImageFile, header: Header, data: Data, view: View, eighths: Eighths | None) -> Picture:
    whole = image.height, image.width
    few = eighths(*whole) if eighths else WHOLE
    pixels = read_jpeg(image, data, view, few)
    few = WHOLE if pixels.shape[:2] == whole else few  # where the quick decoder did not take the file, too
    return Picture(pixels, header, image.mode, eighths=few)


_JXL: Final = (b"\xff", b"\0")  # what it begins with
_JXL_MODES: Final = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def _jxl(data: Data, view: View, max_pixels: int) -> JxlHeader:
    """Read the header of a JPEG XL, and refuse what is not read."""
    found = jxl_header(data)
    require_size(found.header.width, found.header.height, max_pixels)
    require_page(found.header.frames, view.page)
    if view.page > 1:
        raise not_read(f"frame {view.page} of a JPEG XL")
    return found


def _read_jxl(data: Data, found: JxlHeader, view: View) -> Picture:
    """Decode a JPEG XL; its decoder turns it upright."""
    import imagecodecs  # noqa: PLC0415 - 80 MB, for this format only

    header = found.header
    try:
        array = imagecodecs.jpegxl_decode(bytes(data), index=0 if header.frames > 1 else None)
    except MemoryError:
        raise
    except Exception as error:
        reason: Reason = "truncated" if "NEED_MORE_INPUT" in str(error) else "decode_failed"
        raise ImageError(reason, error) from error
    array = array[:, :, None] if array.ndim == 2 else array  # noqa: PLR2004 - grey has no axis of channels
    size = (header.width, header.height) if found.swapped else (header.height, header.width)
    deep = header.depth > 8  # noqa: PLR2004 - bits of a byte
    if (
        array.shape[:2] != size
        or array.shape[2] not in _JXL_MODES
        or array.dtype != (np.uint16 if deep else np.uint8)
    ):
        raise ImageError("decode_failed", f"the decoder gave other than the header promises: {array.shape}")
    mode = _JXL_MODES[array.shape[2]]
    header = header._replace(planes=array.shape[2])
    array = scale(array, header, PLAIN)[array] if deep else array
    if mode in ("L", "RGB"):
        return Picture(array, header, mode)
    return Picture(channels(Image.fromarray(array), view), header, mode)


def _read(image: ImageFile, header: Header, page: TiffPage | None, data: Data, view: View) -> Picture:
    """Decode with Pillow."""
    mode = image.mode
    try:
        wide = wide_samples(image, header, data, view) if header.depth > 8 else None  # noqa: PLR2004 - bits of a byte
        image.load()
        if mode.startswith("I;16"):
            inverted = page is not None and page.tags.get(PHOTOMETRIC, (0,))[0] == 0
            values = 65535 - np.asarray(image) if inverted else np.asarray(image)
            if header.format == "JPEG2000":  # Pillow has brought them to 16 bits
                values = values >> (16 - header.depth)
            return Picture(deep_grey(values, image, header, view), header, mode, used_bits(int(values.max())))
        if wide is not None:
            return Picture(deep_colour(wide, image, view), header, mode, used_bits(int(wide[..., :3].max())))
        clear = image.info.get("transparency")
        if header.format == "PNG" and mode == "L" and header.depth in (2, 4) and isinstance(clear, int):
            top = (
                1 << header.depth
            ) - 1  # Pillow has scaled the pixels, and not the value that is transparent
            image.info["transparency"] = (clear & top) * 255 // top
        used = high_bits(image) if header.depth > 8 else 0  # noqa: PLR2004 - bits of a byte
        return Picture(channels(_filled(image, page), view), header, mode, used)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", error) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, zlib.error and more
        plain = without_text(data) if header.format == "PNG" else None
        if plain is not None:
            again = opened("PNG", plain)
            with again:
                if view.page > 1:
                    seek(again, header, view.page, plain)
                return _read(again, header, page, plain, view)
        raise failure(error, data) from error


def _filled(image: Image.Image, page: TiffPage | None) -> Image.Image:
    """Drop an alpha channel that was never filled: all zero, where a format does not say that it is alpha."""
    declared = page is not None and EXTRA_SAMPLES in page.tags
    if image.mode == "RGBA" and (image.format == "BMP" or page is not None) and not declared:
        low, high = image.getchannel("A").getextrema()
        if (low, high) == (0, 0):
            return image.convert("RGB")
    return image


def _require_promised(picture: Picture, page: TiffPage | None) -> None:
    """Refuse what a decoder gave if it is not what the header promised: a silent misreading."""
    height, width, _ = picture.pixels.shape
    header = picture.header
    # Pillow has turned a TIFF already.
    promised = {(header.width, header.height), *([(header.height, header.width)] if page is not None else [])}
    if (width, height) not in promised:
        promise = f"the header promises {header.width} x {header.height} pixels"
        raise ImageError("decode_failed", f"{promise}, the decoder gave {width} x {height}")
    grey = header.depth > 8 and header.planes <= 2  # noqa: PLR2004 - bits of a byte; a second plane may be no colour
    deep = picture.mode.startswith("I;16")
    wrong = not grey if deep else grey and header.planes == 1
    if wrong or header.planes not in _PLANES.get(picture.mode, (header.planes,)):
        raise ImageError(
            "decode_failed",
            f"the header promises {header.planes} x {header.depth} bits, the decoder gave {picture.mode}",
        )


# Samples per pixel in the file that a decoder may make each mode of.
_PLANES: Final = {
    "1": (1,),
    "L": (1, 2, 3),
    "P": (1, 2),
    "LA": (2,),
    "RGB": (2, 3, 4, 5, 6),
    "RGBA": (2, 4, 5, 6),
    "CMYK": (4, 5, 6),
    "YCbCr": (3,),
    "LAB": (3,),
}
