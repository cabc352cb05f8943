"""One image before scoring."""

from __future__ import annotations

import io
import tracemalloc

import pytest
from imagebatch.contracts.records import Reason
from imagebatch.inputs.header import read_header
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.settings import PreprocessSettings
from imagebatch_header import MOST_PIXELS
from PIL import Image

from tests.support.images import png_bomb


def encoded(kind: str, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (7, 5)).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_known_formats(kind: str) -> None:
    """Format and size of every format that the handler decodes."""
    header = read_header(encoded(kind), 100)
    assert (header.format, header.width, header.height) == (kind, 7, 5)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY),
        (b"hello, I am a text\n", Reason.NOT_AN_IMAGE),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", Reason.UNSUPPORTED_FORMAT),
        (encoded("JPEG")[:10], Reason.TRUNCATED),
        (png_bomb(), Reason.TOO_MANY_PIXELS),
    ],
)
def test_refusals(data: bytes, reason: Reason) -> None:
    """What is no image of a format that is read, or too large, has a reason; PostScript starts no program."""
    with pytest.raises(ImageUnavailableError) as caught:
        read_header(data, 100_000_000)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("camera", "taken"), [((9248, 6936), True), ((9504, 6336), True), ((11648, 8736), False)]
)
def test_what_cameras_make_is_taken(camera: tuple[int, int], taken: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    """The default of settings and archives alike lets 64 megapixels in; more is told the setting."""
    default = PreprocessSettings.model_fields["max_image_pixels"].default
    assert default == MOST_PIXELS
    stream = io.BytesIO()
    Image.new("1", camera).save(stream, "PNG")
    if taken:
        assert read_header(stream.getvalue(), default)[1:3] == camera
        return
    with pytest.raises(ImageUnavailableError, match=r"at most 67108864 are accepted; see --max-image-pixels"):
        read_header(stream.getvalue(), default)


def test_a_bomb_costs_no_memory() -> None:
    """50,000 x 50,000 pixels would be 7.5 GB; refusing them takes less than a megabyte."""
    data = png_bomb()
    tracemalloc.start()
    with pytest.raises(ImageUnavailableError):
        read_header(data, 100_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
