"""What a JPEG XL says of itself (ISO/IEC 18181-1), read bit by bit. Standard library only."""

from typing import Final, NamedTuple

from imagebatch_header import Data, Header, ImageError, not_read

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
