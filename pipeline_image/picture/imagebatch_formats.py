"""Formats by their first bytes, never by a file's name, and what a decoder's complaint means.

Standard library only.
"""

from typing import Final

from imagebatch_header import Data, ImageError, not_read

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


def _brands(head: bytes) -> set[bytes]:
    """Return the brands of an ISO media file, as far as they are in its first bytes."""
    end = min(int.from_bytes(head[:4], "big"), len(head) - 3)
    return {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}


def failure(error: Exception, data: Data) -> ImageError:
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
