"""TIFF whose strips or tiles are in a coding that libtiff lacks: JPEG 2000, JPEG XL or LERC.

Each is decoded by imagecodecs, its own header compared with the directory's before, and the page is written
again without compression. So what its samples mean is decided in one place, whatever the coding.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from imagebatch_header import Data, ImageError, not_read
from imagebatch_jxl import jxl_header
from imagebatch_tiff import EXTRA_SAMPLES, INSIDE, PHOTOMETRIC, PLANAR, TiffPage, page_values

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _COUNTS = 256, 257, 258, 259, 277, 279
_OFFSETS, _ROWS, _ORIENTATION = 273, 278, 274
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_LERC_PARAMETERS = 50674
_LERC: Final = struct.Struct(
    "<6sii4i"
)  # magic, version, checksum; rows, columns, samples, those that are valid
_LERC_VERSIONS: Final = (4, 5, 6)
# More pieces than this are not decoded: a crafted file could name one of them again and again.
_MOST_PIECES: Final = 100_000
_CODESTREAM: Final = b"\xff\x4f\xff\x51"


class _Grid(NamedTuple):
    """How a page is cut into pieces.

    Attributes:
        width: Of a piece, pixels.
        height: The same.
        across: Pieces beside each other.
        down: Pieces below each other.
        planes: Samples of a pixel that are in one piece: all, or one.
        offsets: Tag that says where the pieces are.
        counts: Tag that says how long they are.
    """

    width: int
    height: int
    across: int
    down: int
    planes: int
    offsets: int
    counts: int

    @property
    def pieces(self) -> int:
        """Pieces of one plane, or of all where they are together."""
        return self.across * self.down


def is_inside(page: TiffPage) -> bool:
    """Tell whether a page is in one of these codings."""
    return page.tags.get(_COMPRESSION, (1,))[0] in INSIDE


def without_pixels(page: TiffPage) -> bytes:
    """Write the page's directory as one of a TIFF without compression, for a look at its header.

    Raises:
        ImageError: Its layout is not read.
    """
    name = INSIDE[page.tags[_COMPRESSION][0]]
    if page.tags.get(PHOTOMETRIC, (0,))[0] not in (0, 1, 2, 5):
        raise not_read(f"a TIFF with {name} inside, in colours other than grey, RGB or CMYK")
    if page.header.depth not in (8, 16):
        raise not_read(f"a TIFF with {name} inside, of {page.header.depth} bits")
    if page.tags.get(_LERC_PARAMETERS, (0, 0))[1:] not in ((), (0,)):
        raise not_read("a TIFF with LERC inside that is packed once more")
    _grid(page)
    return _written(page, b"")


def unpacked(data: Data, page: TiffPage) -> bytes:
    """Decode a page, and write it as a TIFF without compression.

    Args:
        data: The whole file.
        page: The page, which `without_pixels` has not refused.

    Raises:
        ImageError: A piece cannot be decoded, or is other than the directory promises.
    """
    grid, header = _grid(page), page.header
    deep = header.depth > 8  # noqa: PLR2004 - bits of a byte
    pixels = np.zeros((header.height, header.width, header.planes), np.uint16 if deep else np.uint8)
    for number, piece in enumerate(_pieces(data, page, grid)):
        plane, place = divmod(number, grid.pieces)
        top, left = place // grid.across * grid.height, place % grid.across * grid.width
        high, wide = min(grid.height, header.height - top), min(grid.width, header.width - left)
        found = _decoded(piece, page, grid)
        if found.shape[0] < high or found.shape[1] < wide or found.shape[2] != grid.planes:
            raise ImageError("decode_failed", f"a piece of the page is {found.shape}, more is promised")
        planes = slice(plane, plane + 1) if grid.planes < header.planes else slice(None)
        pixels[top : top + high, left : left + wide, planes] = found[:high, :wide]
    return _written(page, pixels.astype("<u2").tobytes() if deep else pixels.tobytes())


def _grid(page: TiffPage) -> _Grid:
    tags, header = page.tags, page.header
    planes = header.planes if tags.get(PLANAR, (1,))[0] == 1 else 1
    if _TILE_WIDTH in tags:
        width, height = tags[_TILE_WIDTH][0], tags.get(_TILE_HEIGHT, (0,))[0]
        places = (_TILE_OFFSETS, _TILE_COUNTS)
    else:
        width, height = header.width, min(header.height, tags.get(_ROWS, (header.height,))[0])
        places = (_OFFSETS, _COUNTS)
    if width < 1 or height < 1:
        raise ImageError("decode_failed", "the page's directory gives no size of its pieces")
    across, down = -(-header.width // width), -(-header.height // height)
    if (
        across * down * header.planes > _MOST_PIECES
        or width * height > 4 * header.width * header.height + 2**20
    ):
        raise not_read(f"a TIFF with {across * down} pieces of {width} x {height} pixels")
    return _Grid(width, height, across, down, planes, *places)


def _pieces(data: Data, page: TiffPage, grid: _Grid) -> Iterator[bytes]:
    """Yield the coded pieces of a page, in order."""
    count = grid.pieces * page.header.planes // grid.planes
    offsets, sizes = (page_values(data, page, tag, count) for tag in (grid.offsets, grid.counts))
    for offset, size in zip(offsets, sizes, strict=True):
        if offset + size > len(data):
            raise ImageError("truncated", "the file ends before the last piece of the page")
        yield bytes(data[offset : offset + size])


def _decoded(piece: bytes, page: TiffPage, grid: _Grid) -> Samples:
    """Decode one piece, after a look at its own header: uint8 or uint16 (rows, columns, planes)."""
    import imagecodecs  # noqa: PLC0415 - 80 MB, for these codings only

    name = INSIDE[page.tags[_COMPRESSION][0]]
    rows, columns, depth = {"JPEG 2000": _jpeg2000, "JPEG XL": _jpegxl, "LERC": _lerc}[name](piece, grid)
    if rows > grid.height or columns > grid.width or depth not in (0, page.header.depth):
        raise ImageError("decode_failed", f"{name} of {columns} x {rows} pixels in a piece that is smaller")
    try:
        decoders = {"JPEG 2000": "jpeg2k", "JPEG XL": "jpegxl", "LERC": "lerc"}
        found: Samples = getattr(imagecodecs, f"{decoders[name]}_decode")(piece)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what they like
        raise ImageError("decode_failed", f"{name}: {error}") from error
    if found.dtype != (np.uint8 if page.header.depth == 8 else np.uint16):  # noqa: PLR2004 - bits of a byte
        raise ImageError("decode_failed", f"{name} of {found.dtype} in a page of {page.header.depth} bits")
    return found if found.ndim == 3 else found[..., None]  # noqa: PLR2004 - one plane has no axis of planes


def _jpeg2000(piece: bytes, grid: _Grid) -> tuple[int, int, int]:
    """Return rows, columns and depth that a JPEG 2000 says it has (ISO/IEC 15444-1, SIZ)."""
    at = piece[:65536].find(_CODESTREAM)
    if at < 0 or len(piece) < at + 43:
        raise ImageError("decode_failed", "a piece of the page is no JPEG 2000")
    right, bottom, left, top = struct.unpack_from(">4I", piece, at + 8)
    samples = int.from_bytes(piece[at + 40 : at + 42], "big")
    if samples != grid.planes:
        raise ImageError("decode_failed", f"JPEG 2000 of {samples} samples where {grid.planes} are promised")
    return bottom - top, right - left, piece[at + 42] + 1


def _jpegxl(piece: bytes, _grid: _Grid) -> tuple[int, int, int]:
    """Return rows, columns and depth that a JPEG XL says it has."""
    header = jxl_header(piece).header
    if header.frames > 1:
        raise ImageError("decode_failed", "a piece of the page is an animation")
    return header.height, header.width, header.depth


def _lerc(piece: bytes, grid: _Grid) -> tuple[int, int, int]:
    """Return rows and columns that a LERC says it has; it says nothing of bits."""
    if len(piece) < _LERC.size:
        raise ImageError("truncated", "a piece of the page ends within its header")
    magic, version, _, rows, columns, samples, valid = _LERC.unpack_from(piece)
    if magic != b"Lerc2 " or version not in _LERC_VERSIONS or samples != grid.planes:
        raise not_read(
            f"a TIFF with LERC of another version or layout inside ({magic!r} {version}, {samples})"
        )
    if valid != rows * columns:
        raise not_read("a TIFF with LERC inside in which some pixels have no value")
    return rows, columns, 0


def _written(page: TiffPage, pixels: bytes) -> bytes:
    """Write a TIFF of one strip, little-endian."""
    header, tags = page.header, page.tags
    entries: dict[int, tuple[int, ...]] = {
        _WIDTH: (header.width,),
        _HEIGHT: (header.height,),
        _BITS: (header.depth,) * header.planes,
        _COMPRESSION: (1,),
        PHOTOMETRIC: tags.get(PHOTOMETRIC, (0,)),
        _SAMPLES: (header.planes,),
        _ROWS: (header.height,),
        _COUNTS: (header.width * header.height * header.planes * header.depth // 8,),
        PLANAR: (1,),
    } | {tag: tags[tag] for tag in (_ORIENTATION, EXTRA_SAMPLES) if tag in tags}
    start = 8 + 2 + (len(entries) + 1) * 12 + 4
    entries[_OFFSETS] = (0,)
    extra = b""
    end = start + sum(2 * len(values) for values in entries.values() if len(values) > 2)  # noqa: PLR2004 - that fit beside
    entries[_OFFSETS] = (end,)
    lines = b""
    for tag, values in sorted(entries.items()):
        long = tag in {_WIDTH, _HEIGHT, _ROWS, _COUNTS, _OFFSETS}
        packed = struct.pack(f"<{len(values)}{'I' if long else 'H'}", *values)
        if len(packed) > 4:  # noqa: PLR2004 - bytes that fit beside a tag
            packed, extra = struct.pack("<I", start + len(extra)), extra + packed
        lines += struct.pack("<HHI", tag, 4 if long else 3, len(values)) + packed.ljust(4, b"\0")
    directory = struct.pack("<H", len(entries)) + lines + b"\0\0\0\0"
    return b"".join([b"II\x2a\0\x08\0\0\0", directory, extra, pixels])
