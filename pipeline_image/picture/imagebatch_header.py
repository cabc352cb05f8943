"""What an image file says about itself, read from its bytes without decoding a pixel.

Names the format by the first bytes, never by the file's name; counts pages and frames; and says of a layout
that is not read what the true cause is, so that nobody searches for a damaged file. Standard library only.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final, Literal, NamedTuple

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

_MAX_DETAIL: Final = 200
# More blocks than this are not counted: a crafted file could make the count itself expensive.
_MOST_BLOCKS: Final = 2_000_000

_MAGIC: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II\x2a\x00", "TIFF"),
    (b"MM\x00\x2a", "TIFF"),
    (b"II\x2b\x00", "TIFF"),
    (b"MM\x00\x2b", "TIFF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JXL"),
    (b"\xff\x0a", "JXL"),
)
_BMP_HEADER_SIZES: Final = frozenset({12, 40, 52, 56, 64, 108, 124})
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIF_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

# Known to be pictures, and not read here: the answer names them, so that nobody searches for a damaged file.
_UNSUPPORTED: Final[tuple[tuple[int, bytes, str], ...]] = (
    (4, b"ftypcrx", "a Canon camera's raw file"),
    (4, b"ftyp", "a video, or an image in a container of an unknown kind"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "an icon"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"qoif", "QOI"),
    (0, b"II\xbc\x01", "JPEG XR"),
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
    """What an image file says about itself.

    Attributes:
        format: `JPEG`, `PNG`, `GIF`, `TIFF`, `WEBP`, `BMP`, `HEIF`, `AVIF`, `JXL` or `JPEG2000`.
        width: Of the page that is seen, pixels, as stored: before any orientation.
        height: The same.
        depth: Bits per sample.
        planes: Samples per pixel: 1 for grey and for a palette.
        frames: Pages or frames in the file.
        reduced: Whether the page that is seen says that it is a reduced copy of another.
    """

    format: str
    width: int
    height: int
    depth: int = 8
    planes: int = 3
    frames: int = 1
    reduced: bool = False


@dataclass(frozen=True, kw_only=True)
class View:
    """What a model declares about files that can be seen in more than one way.

    Attributes:
        value_range: What becomes white in files with integers of 9 to 16 bits: `full` (the largest value that
            the file's depth allows), a camera's depth as `12-bit`, or `stretch` (half a percent of the
            values becomes black, half a percent white; each image on its own).
        background: What transparent pixels are laid on: `white`, `black`, `grey` or `#rrggbb`.
        page: Which page or frame is seen, from 1.
        end_marker: `strict` refuses a JPEG that does not end with its end marker, `lenient` reads one that
            lacks nothing else.
    """

    value_range: str = "full"
    background: str = "white"
    page: int = 1
    end_marker: str = "strict"

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ValueError: One is none of those above; the text begins with the attribute's name.
        """
        if self.value_range not in {"full", "stretch"} and self.bits is None:
            raise ValueError(
                f"value_range must be full, stretch or 9-bit to 16-bit: got {self.value_range!r}"
            )
        if self.page < 1:
            raise ValueError(f"page must be at least 1: got {self.page}")
        if self.end_marker not in {"strict", "lenient"}:
            raise ValueError(f"end_marker must be strict or lenient: got {self.end_marker!r}")
        _ = self.rgb

    @property
    def bits(self) -> int | None:
        """The declared depth, 9 to 16; None where the range is `full` or `stretch`."""
        number, _, unit = self.value_range.partition("-")
        bits = int(number) if unit == "bit" and number.isascii() and number.isdigit() else 0
        return bits if bits in range(9, 17) else None

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The background's red, green and blue, 0 to 255."""
        named = {"white": "#ffffff", "black": "#000000", "grey": "#808080"}
        text = named.get(self.background, self.background)
        try:
            red, green, blue = bytes.fromhex(text.removeprefix("#"))
        except ValueError as error:
            message = f"background must be white, black, grey or #rrggbb: got {self.background!r}"
            raise ValueError(message) from error
        return red, green, blue

    def declared(self) -> dict[str, str | int]:
        """Return what is not the default, by attribute."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}


def format_of(data: Data) -> str:
    """Name the format of a file that is read here by its first bytes.

    Raises:
        ImageError: The file is empty, is no image, or is an image that is not read.
    """
    head = bytes(data[:64])
    if not head:
        raise ImageError("empty", "the file has no bytes")
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    # "BM" alone also begins many a text file.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if head[4:8] == b"ftyp" and (brands := _brands(head)) & (_AVIF_BRANDS | _HEIF_BRANDS):
        return "AVIF" if brands & _AVIF_BRANDS else "HEIF"
    for start, magic, name in _UNSUPPORTED:
        if head[start : start + len(magic)] == magic:
            raise not_read(name)
    raise ImageError("not_an_image", f"unknown file format, begins with {head[:16]!r}")


def not_read(what: str) -> ImageError:
    """Make the refusal of an image that is sound, and of a kind that is not read."""
    return ImageError("unsupported_format", f"{what}: not read here, convert it to JPEG or PNG")


def _brands(head: bytes) -> set[bytes]:
    """Return the brands of an ISO media file, as far as they are in its first bytes."""
    end = min(int.from_bytes(head[:4], "big"), len(head) - 3)
    return {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}


# A marker; a byte 0xFF within coded pixels is followed by zero and is none.
_MARKER: Final = re.compile(rb"\xff+[^\x00\xff]")
_SCAN: Final = 0xDA
_RESTARTS: Final = range(0xD0, 0xD8)
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xDA)})
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


def jpeg_sizes(data: bytes) -> list[tuple[int, int]]:
    """Return the width and height of each frame header before a JPEG's first scan: of a sound file, one."""
    found = []
    for kind, at in _segments(data):
        if kind == _SCAN:
            break
        if kind in _FRAMES:
            found.append(
                (int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 3 : at + 5], "big"))
            )
    return found


def run_ends(data: bytes) -> Iterator[int]:
    """Yield where each run of a JPEG's coded pixels ends: at a marker, also at one of a restart."""
    for kind, end in _segments(data):
        if kind == _SCAN:
            after = end + int.from_bytes(data[end : end + 2], "big")
            found = _MARKER.search(data, after)
            while found:
                yield found.start()
                if data[found.end() - 1] not in _RESTARTS:
                    break
                found = _MARKER.search(data, found.end())


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker of a JPEG: its kind, and where what it marks begins."""
    at = 0
    while found := _MARKER.search(data, at):
        kind, at = data[found.end() - 1], found.end()
        yield kind, at
        if kind not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")


def gif_frames(data: Data) -> int:
    """Count the pictures of a GIF without decoding them."""
    found = steps = 0
    try:
        at = 13 + _table(data[10])
        while steps < _MOST_BLOCKS and data[at] in (0x21, 0x2C):
            if data[at] == 0x2C:  # noqa: PLR2004 - the mark of a picture
                found += 1
                at += 11 + _table(data[at + 9])
            else:
                at += 2
            while data[at] and steps < _MOST_BLOCKS:
                at, steps = at + data[at] + 1, steps + 1
            at, steps = at + 1, steps + 1
    except IndexError:  # the file ends early: whether that matters, the decoder finds out
        pass
    return max(found, 1)


def _table(flags: int) -> int:
    """Return the bytes of a GIF's colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def require_page(frames: int, number: int) -> None:
    """Refuse a file that has not so many pages.

    Raises:
        ImageError: It has fewer.
    """
    if number > frames:
        pages = "1 page or frame" if frames == 1 else f"{frames} pages or frames"
        raise ImageError("decode_failed", f"the file has {pages}, and the model looks at number {number}")


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


_JXL_SIGNATURE: Final = b"\xff\x0a"
_SIZES: Final = ((9, 1), (13, 1), (18, 1), (30, 1))
_RATIOS: Final = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


class JxlHeader(NamedTuple):
    """What a JPEG XL says of itself (ISO/IEC 18181-1): its header, and whether its sides are swapped."""

    header: Header
    swapped: bool


def jxl_header(data: Data) -> JxlHeader:
    """Read the header of a JPEG XL, bare or in a container.

    Raises:
        ImageError: It is damaged, or its samples are floating-point numbers.
    """
    bits = _Bits(_codestream(data))
    width, height = bits.size()
    orientation, depth, animated = 1, 8, False
    if not bits.take(1):  # not all is the default
        if bits.take(1):
            orientation = 1 + bits.take(3)
            if bits.take(1):
                bits.size()
            if bits.take(1):
                raise not_read("a JPEG XL with a preview in it")
            animated = bool(bits.take(1))
            if animated:
                for sizes in (((0, 100), (0, 1000), (10, 1), (30, 1)), ((0, 1), (0, 1001), (8, 1), (10, 1))):
                    bits.number(sizes)
                bits.number(((0, 0), (3, 0), (16, 0), (32, 0)))
                bits.take(1)
        if bits.take(1):
            raise not_read("a JPEG XL of floating-point numbers, whose range is not in the file")
        depth = bits.number(((0, 8), (0, 10), (0, 12), (6, 1)))
    header = Header("JXL", width, height, depth, 3, 2 if animated else 1)
    return JxlHeader(header, orientation > 4)  # noqa: PLR2004 - EXIF's numbers: from 5 on sides are swapped


def _codestream(data: Data) -> bytes:
    """Return the first kilobyte of a JPEG XL's codestream."""
    at = 0
    if bytes(data[:2]) == _JXL_SIGNATURE:
        return bytes(data[2:1026])
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        start = at + (16 if size == 1 else 8)
        if kind in (b"jxlc", b"jxlp"):
            start += 4 if kind == b"jxlp" else 0
            return bytes(data[start + 2 : start + 1026])
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size
        if size < 8:  # noqa: PLR2004 - a box's own header
            break
        at += size
    raise ImageError("truncated", "the file ends before the picture in it begins")


class _Bits:
    """A JPEG XL's codestream, bit by bit from the lowest on.

    Args:
        data: It, behind its signature.
    """

    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data, "little")
        self._left = len(data) * 8

    def take(self, count: int) -> int:
        """Take so many bits as a number.

        Raises:
            ImageError: There are not so many.
        """
        if count > self._left:
            raise ImageError("truncated", "the file ends within its header")
        found = self._number & ((1 << count) - 1)
        self._number >>= count
        self._left -= count
        return found

    def number(self, ways: tuple[tuple[int, int], ...]) -> int:
        """Take a number that is written in one of four ways: so many bits, and what is added to them."""
        count, added = ways[self.take(2)]
        return self.take(count) + added

    def size(self) -> tuple[int, int]:
        """Take a width and a height."""
        small = self.take(1)
        height = (self.take(5) + 1) * 8 if small else self.number(_SIZES)
        ratio = self.take(3)
        if ratio:
            over, under = _RATIOS[ratio]
            return height * over // under, height
        width = (self.take(5) + 1) * 8 if small else self.number(_SIZES)
        return width, height
