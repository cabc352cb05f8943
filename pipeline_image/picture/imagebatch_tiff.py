"""What a TIFF says about each of its pages, and which of their layouts are read. Standard library only."""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from imagebatch_header import Data, Header, ImageError, not_read, require_page

Tags = dict[int, tuple[int, ...]]

# More pages than this are not counted: a crafted file could make the count itself expensive.
_MOST_PAGES: Final = 100_000
_MOST_VALUES: Final = 64


class TiffPage(NamedTuple):
    """One page of a TIFF.

    Attributes:
        header: What it says of itself.
        tags: Its numbers, by tag.
        position: Where its directory begins in the file.
    """

    header: Header
    tags: Tags
    position: int


PHOTOMETRIC, PLANAR, EXTRA_SAMPLES = 262, 284, 338
_WIDTH, _HEIGHT, _BITS, _COMPRESSION = 256, 257, 258, 259
_SUBFILE, _FILL, _SAMPLES, _FORMAT = 254, 266, 277, 339
_YCBCR_SAMPLING, _COUNTS = 530, 279
_DECISIVE: Final = frozenset({_BITS, EXTRA_SAMPLES, _FORMAT})  # may have more values than fit beside them
_COMPRESSIONS: Final = {
    32766: "NeXT's run lengths",
    32895: "CCITT, IT8",
    32908: "PIXAR's run lengths",
    32909: "PIXAR's log",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34713: "Nikon's raw",
    34715: "JBIG2",
    34892: "lossy JPEG of a DNG",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    52546: "JPEG XL",
}
INSIDE: Final = {34712: "JPEG 2000", 34887: "LERC", 50002: "JPEG XL"}
"""Codings that libtiff lacks, and imagecodecs has (`imagebatch_inside`)."""

_READ_COMPRESSIONS: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000})
_PHOTOMETRICS: Final = {
    4: "a transparency mask",
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "a camera's raw mosaic",
    32844: "LogL",
    32845: "LogLuv",
    34892: "a camera's linear raw",
}
_SAMPLE_FORMATS: Final = {
    2: "signed integers",
    3: "floating-point numbers",
    4: "samples of no declared kind",
    5: "complex integers",
    6: "complex numbers",
}


def tiff_page(data: Data, number: int) -> TiffPage:
    """Read what one page of a TIFF says of itself.

    Args:
        data: The whole file, classic or BigTIFF.
        number: Of the page, from 1.

    Raises:
        ImageError: There is no such page, its directory is damaged, or its layout is not read.
    """
    directories = _Directories(data)
    positions = directories.positions()
    position = _chosen(positions, number, broken=directories.broken)
    tags = directories.tags(position)
    width, height = (tags.get(tag, (0,))[0] for tag in (_WIDTH, _HEIGHT))
    if width < 1 or height < 1:
        raise ImageError("decode_failed", "the page's directory gives no width and height")
    depth, planes = _samples(tags)
    _require_read(tags, depth, planes)
    reduced = bool(tags.get(_SUBFILE, (0,))[0] & 1)
    header = Header("TIFF", width, height, max(depth), planes, len(positions), reduced)
    return TiffPage(header, tags, position)


def tiff_pages(data: Data) -> int:
    """Count the pages of a TIFF; one whose directory lies beyond the file's end counts, and cannot be read.

    Raises:
        ImageError: It has none.
    """
    directories = _Directories(data)
    positions = directories.positions()
    if not positions:
        raise ImageError("truncated", "the file ends before its first directory")
    return len(positions) + directories.broken


def page_values(data: Data, page: TiffPage, tag: int, count: int) -> tuple[int, ...]:
    """Read a tag of a page that may have more values than `TiffPage.tags` keeps.

    Raises:
        ImageError: The page has it not, or not so many times.
    """
    found = _Directories(data).values(page.position, tag, count)
    if len(found) != count:
        raise ImageError("decode_failed", f"tag {tag} of the page has not {count} values")
    return found


def _chosen(positions: list[int], number: int, *, broken: bool) -> int:
    if not positions:
        raise ImageError("truncated", "the file ends before its first directory")
    if broken and number == len(positions) + 1:
        raise ImageError("truncated", f"the file ends before the directory of page {number}")
    require_page(len(positions), number)
    return positions[number - 1]


class _Directories:
    """The directories of a TIFF, one for each page.

    Args:
        data: The whole file.

    Attributes:
        broken: Whether the last of `positions` names a next one that lies beyond the file's end.
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        self.broken = False
        self._order = "<" if bytes(data[:2]) == b"II" else ">"
        self._big = 43 in (data[2], data[3])  # noqa: PLR2004 - the number of BigTIFF
        if self._big and self._order == ">":
            raise not_read("a big-endian BigTIFF")
        self._count, self._entry, self._offset = ("Q", 20, "Q") if self._big else ("H", 12, "I")

    def positions(self) -> list[int]:
        """Return where each directory begins, in order; a chain that breaks ends there."""
        found: dict[int, None] = {}
        self.broken = False
        try:
            at = self._number(self._offset, 8 if self._big else 4)
            while at and at not in found and len(found) < _MOST_PAGES:
                entries = self._number(self._count, at)
                after = self._number(self._offset, self._first(at) + entries * self._entry)
                found[at] = None
                at = after
        except struct.error:  # the file ends here: whether that matters, the decoder finds out
            self.broken = bool(found)
        return list(found)

    def tags(self, position: int) -> Tags:
        """Return the integers of one directory by tag, where they are few.

        Raises:
            ImageError: The file ends before all of them.
        """
        found: Tags = {}
        first = self._first(position)
        end = first + self._number(self._count, position) * self._entry
        if end > len(self._data):
            raise ImageError("truncated", "the file ends within its directory")
        for at in range(first, end, self._entry):
            tag, kind = struct.unpack_from(f"{self._order}HH", self._data, at)
            count = self._number(self._offset, at + 4)
            code = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}.get(kind)
            if code is None or not 0 < count <= _MOST_VALUES:
                continue
            inside = struct.calcsize(f"{self._order}{count}{code}") <= (8 if self._big else 4)
            values = at + (12 if self._big else 8)
            try:
                place = values if inside else self._number(self._offset, values)
                found[tag] = struct.unpack_from(f"{self._order}{count}{code}", self._data, place)
            except struct.error as error:
                if tag in _DECISIVE:
                    raise ImageError(
                        "truncated", "the file ends before what its directory points to"
                    ) from error
        return found

    def values(self, position: int, tag: int, most: int) -> tuple[int, ...]:
        """Return the integers of one tag, at most so many; none where it has none.

        Raises:
            ImageError: The file ends before all of them.
        """
        first = self._first(position)
        try:
            for at in range(first, first + self._number(self._count, position) * self._entry, self._entry):
                found, kind = struct.unpack_from(f"{self._order}HH", self._data, at)
                code = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}.get(kind)
                if found != tag or code is None:
                    continue
                count = min(most, self._number(self._offset, at + 4))
                place = at + (12 if self._big else 8)
                if struct.calcsize(f"{self._order}{count}{code}") > (8 if self._big else 4):
                    place = self._number(self._offset, place)
                return struct.unpack_from(f"{self._order}{count}{code}", self._data, place)
        except struct.error as error:
            raise ImageError("truncated", "the file ends before what its directory points to") from error
        return ()

    def _first(self, position: int) -> int:
        return position + (8 if self._big else 2)

    def _number(self, code: str, at: int) -> int:
        try:
            (number,) = struct.unpack_from(f"{self._order}{code}", self._data, at)
        except OverflowError as error:  # an offset beyond what an index can be
            raise struct.error(str(error)) from error
        return int(number)


def _samples(tags: Tags) -> tuple[tuple[int, ...], int]:
    """Return the bits of each sample of a pixel, and how many samples there are."""
    bits = tags.get(_BITS, (1,))
    old_jpeg = tags.get(_COMPRESSION, (1,))[0] == 6  # noqa: PLR2004 - TIFF's number of old-style JPEG
    planes = tags.get(_SAMPLES, (3 if old_jpeg else 1,))[0]
    return (bits * planes if len(bits) == 1 else bits[:planes]) or bits, planes


def _require_read(tags: Tags, bits: tuple[int, ...], planes: int) -> None:
    """Refuse a layout that is not read, by the first cause in it.

    Raises:
        ImageError: It is not read.
    """
    compression = tags.get(_COMPRESSION, (1,))[0]
    if compression not in _READ_COMPRESSIONS and compression not in INSIDE:
        name = _COMPRESSIONS.get(compression, "an unknown compression")
        raise not_read(f"a TIFF with {name} inside (compression {compression})")
    photometric = tags.get(PHOTOMETRIC, (0,))[0]
    if photometric in _PHOTOMETRICS or photometric not in (0, 1, 2, 3, 5, 6, 8):
        name = _PHOTOMETRICS.get(photometric, "colours of an unknown kind")
        raise not_read(f"a TIFF of {name} (photometric interpretation {photometric})")
    for kind in tags.get(_FORMAT, (1,)):
        if kind != 1:
            name = _SAMPLE_FORMATS.get(kind, f"samples of kind {kind}")
            raise not_read(f"a TIFF of {name} ({max(bits)} bits), whose range is not in the file")
    if len(set(bits)) > 1 or max(bits) not in (1, 2, 4, 8, 12, 16):
        sizes = " and ".join(str(number) for number in sorted(set(bits)))
        raise not_read(f"a TIFF with {sizes} bits per sample")
    layout = _layout(tags, photometric, max(bits), planes, compression)
    if layout:
        raise not_read(f"a TIFF with {layout}")


def _layout(tags: Tags, photometric: int, bits: int, planes: int, compression: int) -> str:
    """Say what of a page's layout is not read; nothing where all is."""
    separate = planes > 1 and tags.get(PLANAR, (1,))[0] == 2 and compression not in INSIDE  # noqa: PLR2004 - TIFF's number for it
    kinds = tags.get(EXTRA_SAMPLES, ())
    extra = len(kinds)
    rules: tuple[tuple[bool, Callable[[], str]], ...] = (
        (
            separate and bits != 8 and (compression == 1 or bits != 16),  # noqa: PLR2004 - bits of one byte and two
            lambda: f"planes of {bits} bits, stored one after the other",
        ),
        (
            separate
            and extra > 0
            and ((planes - extra == 1 and any(kinds)) or (compression == 1 and 2 not in kinds)),  # noqa: PLR2004 - TIFF's number of alpha
            lambda: f"{planes} planes, stored one after the other, of which {extra} no colours",
        ),
        (
            photometric == 6 and compression == 1 and planes > 1 and not _whole_chroma(tags),  # noqa: PLR2004 - TIFF's number of YCbCr
            lambda: "fewer samples of chroma than of brightness, uncompressed",
        ),
        (
            planes - extra > 1 and photometric in (0, 1, 3),
            lambda: f"{planes} samples per pixel in grey or palette",
        ),
    )
    return next((said() for wrong, said in rules if wrong), "")


def _whole_chroma(tags: Tags) -> bool:
    """Tell whether YCbCr has as many samples of each; where the file does not say, its length does."""
    pixels = tags[_WIDTH][0] * tags[_HEIGHT][0]
    unsaid = (1, 1) if sum(tags.get(_COUNTS, ())) == 3 * pixels else (2, 2)
    return tags.get(_YCBCR_SAMPLING, unsaid) == (1, 1)
