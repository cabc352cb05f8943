"""What the modules of this folder speak of: versions, a header, a model's view of files, why one is refused.

Standard library only.
"""

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
PIXELS_VERSIONS: Final = ("1", "2")
"""What can be made: `1` decodes every file whole; `2` decodes large JPEGs at a few eighths of their size."""
FIRST_PIXELS: Final = PIXELS_VERSIONS[0]
"""Of a model that does not say which: none that did not was trained on another."""
PIXELS_VERSION: Final = PIXELS_VERSIONS[-1]
"""What a new model is trained on unless its configuration says otherwise."""
Data = bytes | bytearray | memoryview
MOST_PIXELS: Final = 1 << 26
"""Largest width x height that is accepted unless somebody says otherwise: 8192 x 8192, 67 million.

It covers cameras and telephones of up to 64 megapixels. No picture takes more than 2.2 GB then (the table in
docs/reference/image-formats.md). Settings, archives and training take their default from here.
"""
_MAX_DETAIL: Final = 200


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


def not_read(what: str) -> ImageError:
    """Make the refusal of an image that is sound, and of a kind that is not read."""
    return ImageError("unsupported_format", f"{what}: not read here, convert it to JPEG or PNG")


def require_page(frames: int, number: int) -> None:
    """Refuse a file that has not so many pages.

    Raises:
        ImageError: It has fewer.
    """
    if number > frames:
        pages = "1 page or frame" if frames == 1 else f"{frames} pages or frames"
        raise ImageError("decode_failed", f"the file has {pages}, and the model looks at number {number}")


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
