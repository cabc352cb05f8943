"""The one function that turns an image file into pixels: `read`.

The model (training, TorchServe's handler, the local backend), the check before scoring, the image checks,
thumbnails, drift statistics and golden images all call it, so all see the same picture. Whatever changes a
single byte of it must change `PIXELS_VERSION`.

What is decided here, and which layouts are read at all, is the table in docs/reference/image-formats.md:

- Width x height is read from the header and bounded before anything is decoded, and what the decoder gives is
  compared with what the header promised.
- Orientation is applied, once. Transparency is laid on the model's background, white unless it says
  otherwise. Colour profiles are ignored (CMYK too).
- Grey of 9 to 16 bits is scaled to 0..255 with rounding, colour of 16 bits keeps its high byte; both by the
  model's value range where it declares one. Signed and floating-point samples are refused: their range is
  not in the file.
- A file that ends early is an error, never an image with a grey rest. Text and profiles never decide.
"""

import io
import sys
from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg  # type: ignore[import-untyped]  # ships no type marker
from imagebatch_header import (
    Data,
    Header,
    ImageError,
    JxlHeader,
    Reason,
    View,
    format_of,
    gif_frames,
    jpeg2000_header,
    jpeg_sizes,
    jxl_header,
    not_read,
    require_page,
    run_ends,
)
from imagebatch_tiff import TiffPage, tiff_page
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile, _Tile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

PIXELS_VERSION: Final = "1"
MOST_PIXELS: Final = 100_000_000
PLAIN: Final = View()

Array = npt.NDArray[np.uint8]
Wide = npt.NDArray[np.uint16]

_ORIENTATION: Final = 0x0112
_PHOTOMETRIC: Final = 262
_PLANAR: Final = 284
_EXTRA_SAMPLES: Final = 338
_READERS: Final[dict[str, type[ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "AVIF": AvifImageFile,
    "JPEG2000": Jpeg2KImageFile,
}
FORMATS: Final = (*_READERS, "HEIF", "JXL")
# Pixels that are converted at once: what lies between the decoder's picture and ours stays this small.
_BAND: Final = 1 << 22
# Of a thousand values that are stretched: so many become black, so many white.
_STRETCHED: Final = 5


class Picture(NamedTuple):
    """An image as everything here sees it.

    Attributes:
        pixels: uint8 (height, width, 1 or 3), upright, grey or RGB, 0 to 255.
        header: What the file says of itself.
        mode: The kind of its colours, by Pillow's name: `RGB`, `L`, `P`, `CMYK`, `I;16`, ….
        used_bits: Of a file with more than 8 bits per sample: bits of its largest value, at least 1; else 0.
    """

    pixels: Array
    header: Header
    mode: str
    used_bits: int = 0


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
    opened = _open(data, view, max_pixels)
    opened.image.close()
    return opened.header


def read(data: Data, *, view: View = PLAIN, max_pixels: int = MOST_PIXELS) -> Picture:
    """Decode one image file.

    Args:
        data: A whole image file.
        view: What the model declares about files that can be seen in more than one way.
        max_pixels: Largest width x height that is accepted.

    Raises:
        ImageError: The file cannot be decoded completely, or not as its header promised; `reason` says why.
    """
    if data[:1] in _JXL and format_of(data) == "JXL":
        return _read_jxl(data, _jxl(data, view, max_pixels), view)
    image, header, page, data = _open(data, view, max_pixels)
    with image:
        if header.format == "JPEG":
            picture = Picture(_read_jpeg(image, data, view), header, image.mode)
        else:
            picture = _read(image, header, page, data, view)
            _require_promised(picture, page)
        if page is not None or header.format == "HEIF":  # turned while it was loaded
            return picture
        # Only now: PNG may carry the orientation behind the pixels.
        turned = _upright(picture.pixels, image)
    return picture if turned is picture.pixels else picture._replace(pixels=turned)


class _Opened(NamedTuple):
    """A file opened at the page that is seen; `data` has a TIFF's page as its first."""

    image: ImageFile
    header: Header
    page: TiffPage | None
    data: Data


def _open(data: Data, view: View, max_pixels: int) -> _Opened:
    """Open a file and find its page, and refuse what is not read before anything is decoded."""
    name = format_of(data)
    page = tiff_page(data, view.page) if name == "TIFF" else None
    if page is not None:
        _require_size(page.header.width, page.header.height, max_pixels)
        data = _beginning_with(data, page) if view.page > 1 else data
    image = _opened(name, data)
    try:
        _require_size(image.width, image.height, max_pixels)
        header = page.header if page is not None else _header(image, name, data)
        _require_range(image, header, page, view)
        if page is None and view.page > 1:
            _seek(image, header, view.page, data)
            _require_size(image.width, image.height, max_pixels)
            if header.format != "PNG":  # each picture may be of another kind and size
                planes = len(image.getbands())
                header = header._replace(width=image.width, height=image.height, planes=planes)
    except BaseException:
        image.close()
        raise
    return _Opened(image, header, page, data)


def _opened(name: str, data: Data) -> ImageFile:
    # The reader is called directly: Image.open would consult every plugin installed, and its own limit on
    # pixels is a process-wide variable that warns before it refuses.
    try:
        return _reader(name)(io.BytesIO(data))
    except MemoryError:  # says something about this machine, not about the image
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", error) from error
    except Exception as error:  # damaged headers raise whatever the field they break raises
        if str(error).startswith("cannot handle "):  # Pillow, of a JPEG's frame header
            raise not_read(f"a JPEG with {str(error).removeprefix('cannot handle ')}") from error
        if name == "TIFF" and str(error) in _NAMELESS:
            raise not_read(f"a TIFF of {_samples_of(data)}") from error
        plain = _without_text(data) if name == "PNG" else None
        if plain is not None:
            return _opened(name, plain)
        raise _failure(error, data) from error


_NAMELESS: Final = (
    "unknown pixel mode",
    "unknown data organization",
    "Invalid value for samples per pixel",
)


def _samples_of(data: Data) -> str:
    """Describe a page's samples that Pillow has no name for."""
    header, tags, _ = tiff_page(data, 1)
    colours = {0: "grey, 0 is white", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
    photometric, extra = tags.get(_PHOTOMETRIC, (0,))[0], len(tags.get(_EXTRA_SAMPLES, ()))
    others = f" with {extra} samples that are no colours" if extra else ""
    order = "little" if bytes(data[:2]) == b"II" else "big"
    return f"{header.planes} x {header.depth} bits ({colours[photometric]}{others}, {order}-endian)"


def _reader(name: str) -> Callable[[io.BytesIO], ImageFile]:
    if name != "HEIF":
        return _READERS[name]
    from pillow_heif import HeifImageFile  # noqa: PLC0415 - 30 MB, for phones' files only

    reader: Callable[[io.BytesIO], ImageFile] = HeifImageFile
    return reader


def _require_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        size = f"{width} x {height} pixels, at most {max_pixels} are accepted"
        raise ImageError("too_many_pixels", size)


def _header(image: ImageFile, name: str, data: Data) -> Header:
    width, height = image.size
    if isinstance(image, JpegImageFile):
        frames = _jpeg_frames(image) if "mp" in image.info else 1
        return Header(name, width, height, image.bits, image.layers, frames)
    if isinstance(image, PngImageFile):
        depth, colour = data[24], data[25]
        planes = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 0)
        return Header(name, width, height, depth, planes, image.n_frames)
    if isinstance(image, BmpImageFile):
        bits = int.from_bytes(data[24:26] if data[14] == 12 else data[28:30], "little")  # noqa: PLR2004 - the size of the oldest header
        return Header(name, width, height, min(bits, 8), max(1, bits // 8))
    frames = gif_frames(data) if name == "GIF" else int(getattr(image, "n_frames", 1))
    depth, planes = 16 if image.mode.startswith("I;16") else 8, len(image.getbands())
    if name == "JPEG2000":
        return jpeg2000_header(data, width, height)
    if name == "HEIF":  # what is deeper, libheif brings to 8 bits by the file's own range
        depth = 8
    return Header(name, width, height, depth, planes, frames)


def _jxl(data: Data, view: View, max_pixels: int) -> JxlHeader:
    """Read the header of a JPEG XL, and refuse what is not read."""
    found = jxl_header(data)
    _require_size(found.header.width, found.header.height, max_pixels)
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
    array = _scale(array, header, PLAIN)[array] if deep else array
    if mode in ("L", "RGB"):
        return Picture(array, header, mode)
    return Picture(_channels(Image.fromarray(array), view), header, mode)


_JXL: Final = (b"\xff", b"\0")  # what it begins with
_JXL_MODES: Final = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def _jpeg_frames(image: JpegImageFile) -> int:
    """Count the pictures of a phone's or a stereo camera's file; one that is damaged has the first."""
    try:
        found = image._getmp()  # noqa: SLF001 - Pillow's own reader of such files calls it
        return max(1, int((found or {}).get(0xB001, 1)))
    except Exception:  # noqa: BLE001 - broken metadata raises anything, and says nothing about the pixels
        return 1


def _seek(image: ImageFile, header: Header, page: int, data: Data) -> None:
    require_page(header.frames, page)
    if header.format == "JPEG":
        raise not_read(f"picture {page} of a JPEG that holds several")
    try:
        # Of a HEIC the first page is its primary picture, wherever that stands.
        first = image.tell()
        image.seek([first, *(at for at in range(header.frames) if at != first)][page - 1])
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what they like
        raise _failure(error, data) from error


def _beginning_with(data: Data, page: TiffPage) -> bytes:
    """Return the TIFF with another page as its first."""
    order: Literal["little", "big"] = "little" if bytes(data[:2]) == b"II" else "big"
    big = 43 in (data[2], data[3])  # noqa: PLR2004 - the number of BigTIFF
    start, size = (8, 8) if big else (4, 4)
    return bytes(data[:start]) + page.position.to_bytes(size, order) + bytes(data[start + size :])


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


def _without_text(data: Data) -> bytes | None:
    """Return a PNG without the chunks that say nothing about its pixels; None where it has none of them.

    A megabyte of text or a broken profile makes Pillow refuse the file. Kept are the pixels, the palette,
    transparency, frames and, for the orientation, EXIF and XMP of ordinary size.
    """
    kept = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT"}
    parts, at, dropped = [bytes(data[:8])], 8, False
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big") + 12, bytes(data[at + 4 : at + 8])
        packet = kind == b"iTXt" and bytes(data[at + 8 : at + 27]) == b"XML:com.adobe.xmp\0\0"
        if kind in kept or kind[:1].isupper() or (packet and size < _MOST_XMP):
            parts.append(bytes(data[at : at + size]))
        else:
            dropped = True
        at += size
    return b"".join([*parts, bytes(data[at:])]) if dropped else None


_MOST_XMP: Final = 1 << 20


# What the fast decoder complains of that says nothing about the pixels. Only its first complaint is reported,
# so there may be others: Pillow reads those files, and `_load_jpeg` finds out whether all pixels are there.
_HARMLESS: Final = ("extraneous bytes", "adobe", "icc profile", "sos parameters", "subsampling")


def _read_jpeg(image: ImageFile, data: Data, view: View) -> Array:
    """Decode with simplejpeg, which is faster than Pillow and, unlike it, reports damaged pixel data."""
    try:
        return _decode_jpeg(image, data)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # mostly ValueError; an impossible subsampling is a KeyError
        text = str(error).lower()
        if any(word in text for word in _HARMLESS):
            return _load_jpeg(image, bytes(data))
        if view.end_marker == "lenient" and "premature end of jpeg" in text:
            return _read_jpeg(image, bytes(data).rstrip(b"\xff") + b"\xff\xd9", PLAIN)
        raise _failure(error, data) from error


def _decode_jpeg(image: ImageFile, data: Data) -> Array:
    # The two libraries must agree on the size that was bounded: a crafted file may show each another one.
    height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
    if (width, height) != image.size:
        raise ImageError("decode_failed", _CONTRADICTION)
    colorspace = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[image.mode]
    array: Array = simplejpeg.decode_jpeg(data, colorspace, fastdct=False, fastupsample=False, strict=True)
    if colorspace == "CMYK":  # stored inverted, by Adobe's convention, which Pillow follows too
        array = np.array(Image.fromarray(255 - array, "CMYK").convert("RGB"))
    return array


_CONTRADICTION: Final = "the headers contradict each other"


def _load_jpeg(image: ImageFile, data: bytes) -> Array:
    """Decode with Pillow, and find out in another way what it is silent about: pixel data that ends early."""
    if jpeg_sizes(data) != [image.size]:
        raise ImageError("decode_failed", _CONTRADICTION)
    pixels = _loaded(image, data)
    with JpegImageFile(io.BytesIO(_lengthened(data))) as longer:
        if not np.array_equal(pixels, _loaded(longer, data)):
            raise ImageError("truncated", "the pixel data ends before the last pixel")
    return pixels


def _loaded(image: ImageFile, data: Data) -> Array:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what they like
        raise _failure(error, data) from error
    return _channels(image, PLAIN)


def _lengthened(data: bytes) -> bytes:
    """Return a JPEG with stray bytes behind each run of coded pixels.

    A decoder that has all pixels skips them; one that lacks some takes the bytes for pixels, where before it
    made them up: the picture is another one then.
    """
    ends = list(run_ends(data))
    pieces = zip([0, *ends], [*ends, len(data)], strict=True)
    return _STRAY.join(data[start:end] for start, end in pieces)


_STRAY: Final = bytes(range(1, 97))


def _read(image: ImageFile, header: Header, page: TiffPage | None, data: Data, view: View) -> Picture:
    """Decode with Pillow."""
    mode = image.mode
    try:
        wide = _wide(image, header, data, view) if header.depth > 8 else None  # noqa: PLR2004 - bits of a byte
        image.load()
        if mode.startswith("I;16"):
            inverted = page is not None and page.tags.get(_PHOTOMETRIC, (0,))[0] == 0
            values = 65535 - np.asarray(image) if inverted else np.asarray(image)
            if header.format == "JPEG2000":  # Pillow has brought them to 16 bits
                values = values >> (16 - header.depth)
            return Picture(_deep_grey(values, image, header, view), header, mode, _bits(int(values.max())))
        if wide is not None:
            return Picture(_deep_colour(wide, image, view), header, mode, _bits(int(wide[..., :3].max())))
        clear = image.info.get("transparency")
        if header.format == "PNG" and mode == "L" and header.depth in (2, 4) and isinstance(clear, int):
            top = (
                1 << header.depth
            ) - 1  # Pillow has scaled the pixels, and not the value that is transparent
            image.info["transparency"] = (clear & top) * 255 // top
        used = _high_bits(image) if header.depth > 8 else 0  # noqa: PLR2004 - bits of a byte
        return Picture(_channels(_filled(image, page), view), header, mode, used)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", error) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, zlib.error and more
        plain = _without_text(data) if header.format == "PNG" else None
        if plain is not None:
            again = _opened("PNG", plain)
            with again:
                if view.page > 1:
                    _seek(again, header, view.page, plain)
                return _read(again, header, page, plain, view)
        raise _failure(error, data) from error


def _bits(largest: int) -> int:
    return max(1, largest.bit_length())


def _high_bits(image: Image.Image) -> int:
    """Return the bits of the largest 16-bit value of an image of which Pillow has kept the high bytes."""
    bands = image.getextrema()[: min(3, len(image.getbands()))]
    return _bits(max(int(high) for _, high in bands)) + 8  # type: ignore[misc]  # a pair per band: it has several


def _bands(width: int, height: int) -> Iterator[slice]:
    """Cut the rows of an image into pieces of a bounded number of pixels."""
    rows = max(1, _BAND // max(1, width))
    return (slice(top, min(height, top + rows)) for top in range(0, height, rows))


def _channels(image: Image.Image, view: View) -> Array:
    """Convert a loaded image of up to 8 bits per sample to uint8 (height, width, 1 or 3)."""
    width, height = image.size
    image = image.convert("LA") if image.mode == "La" else image
    grey = image.mode in ("1", "L") and not image.has_transparency_data
    pixels = np.empty((height, width, 1 if grey else 3), np.uint8)
    for rows in _bands(width, height):
        band = image if height == rows.stop - rows.start else image.crop((0, rows.start, width, rows.stop))
        if image.has_transparency_data:
            rgba = band.convert("RGBA")
            below = Image.new("RGBA", rgba.size, (*view.rgb, 255))
            pixels[rows] = np.asarray(Image.alpha_composite(below, rgba).convert("RGB"))
        elif grey:
            pixels[rows, :, 0] = np.asarray(band.convert("L"))
        else:
            pixels[rows] = np.asarray(band.convert("RGB"))
    return pixels


def _filled(image: Image.Image, page: TiffPage | None) -> Image.Image:
    """Drop an alpha channel that was never filled: all zero, where a format does not say that it is alpha."""
    declared = page is not None and _EXTRA_SAMPLES in page.tags
    if image.mode == "RGBA" and (image.format == "BMP" or page is not None) and not declared:
        low, high = image.getchannel("A").getextrema()
        if (low, high) == (0, 0):
            return image.convert("RGB")
    return image


def _deep_grey(values: Wide, image: Image.Image, header: Header, view: View) -> Array:
    """Scale grey of 9 to 16 bits to uint8 (height, width, 1 or 3)."""
    table = _scale(values[..., None], header, view)
    grey = table[values][:, :, None]
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    return np.where((values == clear)[:, :, None], np.array(view.rgb, np.uint8), grey)


def _scale(values: Wide, header: Header, view: View) -> Array:
    """Make the table that turns each 16-bit value into 0..255."""
    low, high = 0, (1 << (view.bits or header.depth)) - 1
    if view.value_range == "stretch":
        low, high = _spread(values)
    steps = np.clip(np.arange(65536, dtype=np.int64) - low, 0, high - low)
    return ((steps * 255 + (high - low) // 2) // (high - low)).astype(np.uint8)


def _spread(values: Wide) -> tuple[int, int]:
    """Return the values that half a percent of the samples lie below, and above; two that differ."""
    counts = np.zeros(65536, np.int64)
    for rows in _bands(values.shape[1] * values.shape[2], values.shape[0]):
        counts += np.bincount(values[rows].ravel(), minlength=65536)
    below = counts.cumsum()
    total = int(below[-1])
    low = int(np.searchsorted(below, total * _STRETCHED // 1000, side="right"))
    high = int(np.searchsorted(below, total - total * _STRETCHED // 1000))
    return (low, high) if low < high else (0, 65535)


def _wide(image: ImageFile, header: Header, data: Data, view: View) -> Wide | None:
    """Read colour of 16 bits whole, where its low bytes count; None elsewhere.

    Pillow keeps one byte of each sample, by the name of the samples' order. Asked with either order, it gives
    both.
    """
    clear = isinstance(image.info.get("transparency"), tuple)
    if image.mode.startswith("I") or not image.tile or not (clear or view.value_range != "full"):
        return None
    tile = image.tile[0]
    order = _order(tile)
    if order == "LA;16B":
        return _grey_with_alpha(image, tile)
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}[order[-1]]
    with _opened(header.format, data) as twin:
        if view.page > 1 and header.format != "TIFF":
            _seek(twin, header, view.page, data)
        twin.tile = [_other_bytes(part, order[:-1] + other) for part in twin.tile]
        twin.load()
        low = np.asarray(twin, np.uint16)
    image.load()
    high = np.asarray(image, np.uint16)
    wide: Wide = np.left_shift(high, 8, dtype=np.uint16) | low
    return wide


def _order(tile: _Tile) -> str:
    """Return Pillow's name for how the samples of a piece of a file are stored."""
    return tile.args if isinstance(tile.args, str) else str((tile.args or ("",))[0])


def _require_range(image: ImageFile, header: Header, page: TiffPage | None, view: View) -> None:
    """Refuse colour of more than 8 bits, of which only high bytes can be had, where a range is declared."""
    if view.value_range == "full" or header.depth <= 8 or image.mode.startswith("I"):  # noqa: PLR2004 - bits of a byte
        return
    separate = page is not None and page.tags.get(_PLANAR, (1,))[0] == 2  # noqa: PLR2004 - TIFF's number for it
    order = _order(image.tile[0]) if image.tile else ""
    known = order.startswith(("RGB;16", "RGBA;16", "RGBX;16", "LA;16"))
    if separate or not known or header.format not in {"PNG", "TIFF"}:
        stored = "in separate planes" if separate else f"as {order or image.mode}"
        raise not_read(f"value_range declared, and colour of {header.depth} bits stored {stored}")


def _other_bytes(tile: _Tile, order: str) -> _Tile:
    """Return a piece of a file whose samples are taken for stored in another order."""
    args = order if isinstance(tile.args, str) else (order, *(tile.args or ())[1:])
    return tile._replace(args=args)


def _grey_with_alpha(image: ImageFile, tile: _Tile) -> Wide:
    """Read grey and alpha of 16 bits each as four planes of 8 bits; give RGBA with three equal colours."""
    image.tile = [_other_bytes(tile, "RGBA")]
    image.load()
    planes = np.asarray(image, np.uint16)
    grey, alpha = planes[..., 0] << 8 | planes[..., 1], planes[..., 2] << 8 | planes[..., 3]
    return np.stack([grey, grey, grey, alpha], axis=-1)


def _deep_colour(wide: Wide, image: Image.Image, view: View) -> Array:
    """Scale colour of 16 bits by the model's value range, and lay it on the background."""
    colours = wide[..., :3]
    if view.value_range == "full":
        pixels = (colours >> 8).astype(np.uint8)
    else:
        pixels = _scale(colours, Header("", 0, 0, 16), view)[colours]
    clear = image.info.get("transparency")
    if isinstance(clear, tuple):
        hidden = (colours == np.array(clear, np.uint16)).all(axis=-1, keepdims=True)
        return np.where(hidden, np.array(view.rgb, np.uint8), pixels)
    if wide.shape[-1] == 4 and image.mode == "RGBA":  # noqa: PLR2004 - colours and alpha
        rgba = np.concatenate([pixels, (wide[..., 3:] >> 8).astype(np.uint8)], axis=-1)
        return _channels(Image.fromarray(rgba, "RGBA"), view)
    return pixels


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


def _upright(pixels: Array, image: Image.Image) -> Array:
    """Undo the EXIF orientation of pixels of shape (height, width, channels)."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - broken metadata raises anything, and says nothing about the pixels
        return pixels
    if orientation not in (2, 3, 4, 5, 6, 7, 8):
        return pixels
    # Of those that also swap the sides, what is flipped is the stored picture.
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation in (2, 3, 7, 8):
        flipped = np.empty(pixels.shape, np.uint8)
        for channel in range(pixels.shape[2]):  # three bytes at once are no number: one by one is quicker
            flipped[..., channel] = pixels[:, ::-1, channel]
        pixels = flipped
    pixels = np.ascontiguousarray(pixels)
    return pixels.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else pixels
