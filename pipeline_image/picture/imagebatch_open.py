"""A file opened at the page that is seen, and refused before anything is decoded if it is not read."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from imagebatch_formats import failure, format_of
from imagebatch_gif import gif_frames, gif_pages
from imagebatch_header import Data, Header, ImageError, View, not_read, require_page
from imagebatch_inside import is_inside, without_pixels
from imagebatch_jpeg import jpeg_frames, picture_within
from imagebatch_tiff import EXTRA_SAMPLES, PHOTOMETRIC, PLANAR, TiffPage, tiff_page
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


class Opened(NamedTuple):
    """A file opened at the page that is seen: the first of a TIFF's `data`, or its directory alone."""

    image: ImageFile
    header: Header
    page: TiffPage | None
    data: Data


def open_page(data: Data, view: View, max_pixels: int, *, only_look: bool = False) -> Opened:
    """Open a file and find its page, and refuse what is not read before anything is decoded.

    Args:
        data: The whole file.
        view: What the model declares.
        max_pixels: Largest width x height that is accepted.
        only_look: Whether the header is all that is wanted. To see a frame of an animation, all before
            it are decoded, and they are of one size.

    Raises:
        ImageError: It is not read.
    """
    name = format_of(data)
    page = tiff_page(data, view.page) if name == "TIFF" else None
    if page is not None:
        require_size(page.header.width, page.header.height, max_pixels)
        if is_inside(page):
            data = without_pixels(page)
        elif view.page > 1:
            data = _beginning_with(data, page)
    image = opened(name, data)
    try:
        require_size(image.width, image.height, max_pixels)
        header = page.header if page is not None else _header(image, name, data)
        _require_range(image, header, page, view)
        if view.page > 1 and header.format == "JPEG":
            within = picture_within(image, header, view.page, data)
            image.close()
            found = open_page(within, replace(view, page=1), max_pixels, only_look=only_look)
            return found._replace(header=found.header._replace(frames=header.frames))
        if page is None and view.page > 1:
            _require_frame(header, view.page, data)
            if only_look and header.format in _ONE_SIZE:
                return Opened(image, header, page, data)
            seek(image, header, view.page, data)
            require_size(image.width, image.height, max_pixels)
            if header.format != "PNG":  # each picture may be of another kind and size
                planes = len(image.getbands())
                header = header._replace(width=image.width, height=image.height, planes=planes)
    except BaseException:
        image.close()
        raise
    return Opened(image, header, page, data)


def opened(name: str, data: Data) -> ImageFile:
    """Open a file of this format with Pillow, at its first page.

    Raises:
        ImageError: Its header is damaged, or of a layout that is not read.
    """
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
        plain = without_text(data) if name == "PNG" else None
        if plain is not None:
            return opened(name, plain)
        raise failure(error, data) from error


_NAMELESS: Final = (
    "unknown pixel mode",
    "unknown data organization",
    "Invalid value for samples per pixel",
)


def _samples_of(data: Data) -> str:
    """Describe a page's samples that Pillow has no name for."""
    header, tags, _ = tiff_page(data, 1)
    colours = {0: "grey, 0 is white", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
    photometric, extra = tags.get(PHOTOMETRIC, (0,))[0], len(tags.get(EXTRA_SAMPLES, ()))
    others = f" with {extra} samples that are no colours" if extra else ""
    order = "little" if bytes(data[:2]) == b"II" else "big"
    return f"{header.planes} x {header.depth} bits ({colours[photometric]}{others}, {order}-endian)"


def _reader(name: str) -> Callable[[io.BytesIO], ImageFile]:
    if name != "HEIF":
        return _READERS[name]
    from pillow_heif import HeifImageFile  # noqa: PLC0415 - 30 MB, for phones' files only

    reader: Callable[[io.BytesIO], ImageFile] = HeifImageFile
    return reader


def require_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture that is too large.

    Raises:
        ImageError: It is.
    """
    if width * height > max_pixels:
        size = f"{width} x {height} pixels, at most {max_pixels} are accepted"
        raise ImageError("too_many_pixels", size)


def _header(image: ImageFile, name: str, data: Data) -> Header:
    width, height = image.size
    if isinstance(image, JpegImageFile):
        frames = jpeg_frames(image) if "mp" in image.info else 1
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


def jpeg2000_header(data: Data, width: int, height: int) -> Header:
    """Complete the header of a JPEG 2000 by its codestream's (ISO/IEC 15444-1, SIZ).

    Raises:
        ImageError: It is missing, or its samples are of a kind that is not read.
    """
    at = bytes(data[:65536]).find(b"\xff\x4f\xff\x51")
    planes = int.from_bytes(data[at + 40 : at + 42], "big")
    samples = bytes(data[at + 42 : at + 42 + 3 * planes : 3])
    if at < 0 or not samples:
        raise ImageError("truncated", "the file ends before the picture in it begins")
    depth = (max(samples) & 0x7F) + 1
    if max(samples) & 0x80:
        raise not_read("a JPEG 2000 of signed integers, whose range is not in the file")
    if depth > 16 or len(set(samples)) > 1 or (depth > 8 and planes in (2, 4)):  # noqa: PLR2004 - bits and planes
        raise not_read(f"a JPEG 2000 of {planes} x {depth} bits")
    return Header("JPEG2000", width, height, depth, planes)


def seek(image: ImageFile, header: Header, page: int, data: Data) -> None:
    """Go to a page, from 1, of a file that is open.

    Raises:
        ImageError: The page cannot be read.
    """
    try:
        # Of a HEIC the first page is its primary picture, wherever that stands.
        first = image.tell()
        image.seek([first, *(at for at in range(header.frames) if at != first)][page - 1])
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what they like
        raise failure(error, data) from error


_ONE_SIZE: Final = frozenset({"GIF", "PNG"})


def _require_frame(header: Header, page: int, data: Data) -> None:
    if header.format == "GIF" and header.frames < page <= gif_pages(data):
        raise ImageError("truncated", "the file ends without its end mark: there may have been more frames")
    require_page(header.frames, page)


def _beginning_with(data: Data, page: TiffPage) -> bytes:
    """Return the TIFF with another page as its first."""
    order: Literal["little", "big"] = "little" if bytes(data[:2]) == b"II" else "big"
    big = 43 in (data[2], data[3])  # noqa: PLR2004 - the number of BigTIFF
    start, size = (8, 8) if big else (4, 4)
    return bytes(data[:start]) + page.position.to_bytes(size, order) + bytes(data[start + size :])


def without_text(data: Data) -> bytes | None:
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


def _require_range(image: ImageFile, header: Header, page: TiffPage | None, view: View) -> None:
    """Refuse colour of more than 8 bits, of which only high bytes can be had, where a range is declared."""
    if view.value_range == "full" or header.depth <= 8 or image.mode.startswith("I"):  # noqa: PLR2004 - bits of a byte
        return
    separate = page is not None and page.tags.get(PLANAR, (1,))[0] == 2  # noqa: PLR2004 - TIFF's number for it
    order = order_of(image.tile[0]) if image.tile else ""
    known = order.startswith(("RGB;16", "RGBA;16", "RGBX;16", "LA;16"))
    if separate or not known or header.format not in {"PNG", "TIFF"}:
        stored = "in separate planes" if separate else f"as {order or image.mode}"
        raise not_read(f"value_range declared, and colour of {header.depth} bits stored {stored}")


def order_of(tile: _Tile) -> str:
    """Return Pillow's name for how the samples of a piece of a file are stored."""
    return tile.args if isinstance(tile.args, str) else str((tile.args or ("",))[0])
