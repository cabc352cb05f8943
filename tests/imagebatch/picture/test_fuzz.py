"""Valid files of all layouts, varied at random: right pixels, or a refusal whose reason is documented."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import tifffile  # type: ignore[import-untyped]  # ships no type marker
from hypothesis import given
from hypothesis import strategies as st
from imagebatch_header import REASONS, ImageError, View
from imagebatch_picture import probe, read
from PIL import Image

from tests.support.layouts import by_tifffile, to_bytes

REFUSED = {"unsupported_format"}


@st.composite
def tiffs(draw: st.DrawFn) -> bytes:
    """A TIFF as cameras, scanners and microscopes write them, of small size and any layout."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    dtype = np.dtype(draw(st.sampled_from(["u1", "u2", "u4", "i1", "i2", "f2", "f4"])))
    photometric = draw(st.sampled_from(["minisblack", "miniswhite", "rgb", "separated"]))
    extra = draw(st.sampled_from([[], ["unassalpha"], ["unspecified"]]))
    count = {"rgb": 3, "separated": 4}.get(photometric, 1) + len(extra)
    pages = draw(st.integers(1, 3))
    separate = count > 1 and draw(st.booleans())
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (pages, height, width, count))
    samples = (values * (257 if dtype == np.uint16 else 1)).astype(dtype)
    samples = np.moveaxis(samples, -1, 1) if separate else samples if count > 1 else samples[..., 0]
    options: dict[str, Any] = {
        "photometric": photometric,
        "byteorder": draw(st.sampled_from("<>")),
        "bigtiff": draw(st.booleans()),
        "compression": draw(
            st.sampled_from([None, "lzw", "zlib", "packbits", "zstd", "lzma", "lerc", "png"])
        ),
    }
    if count > 1:
        options["planarconfig"] = "separate" if separate else "contig"
    if extra:
        options["extrasamples"] = extra
    if draw(st.booleans()):
        options["tile"] = (16 * draw(st.integers(1, 3)), 16 * draw(st.integers(1, 3)))
    elif draw(st.booleans()):
        options["rowsperstrip"] = draw(st.integers(1, height))
    if dtype.kind == "u" and options["compression"] in ("lzw", "zlib") and draw(st.booleans()):
        options["predictor"] = True
    stream = io.BytesIO()
    with tifffile.TiffWriter(
        stream, bigtiff=options.pop("bigtiff"), byteorder=options.pop("byteorder")
    ) as writer:
        for page in np.ascontiguousarray(samples):
            try:
                writer.write(page, contiguous=False, **options)
            except (ValueError, TypeError, RuntimeError):  # there is no such layout
                options["compression"] = None
                options.pop("predictor", None)
                writer.write(page, contiguous=False, **options)
    return stream.getvalue()


@given(tiffs())
def test_a_tiff_is_read_as_the_other_decoder_reads_it(data: bytes) -> None:
    """Either every pixel is right, of the page that is asked for, or the header gives the cause."""
    try:
        header = probe(data)
    except ImageError as error:
        assert error.reason in REFUSED  # noqa: PT017 (both ways are right, each for its files)
        return
    found = read(data)
    assert found.header == header
    assert np.abs(found.pixels.astype(int) - by_tifffile(data).astype(int)).max() <= 1
    last = read(data, view=View(page=header.frames))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert len(file.pages) == header.frames
        alone = io.BytesIO()
        page = file.pages[-1]
        tifffile.imwrite(
            alone,
            page.asarray(),
            photometric=page.photometric,
            planarconfig=page.planarconfig if page.samplesperpixel > 1 else None,
            extrasamples=page.extrasamples or None,
            compression="zlib",  # planes of 16 bits are refused without one
        )
    assert np.array_equal(last.pixels, read(alone.getvalue()).pixels)


@given(tiffs(), st.floats(0, 1))
def test_a_tiff_that_is_cut_is_never_called_one_that_is_not_read(data: bytes, share: float) -> None:
    """Its pixels stay the same or it is refused, and for its layout only if the whole file is."""
    try:
        whole = read(data).pixels
    except ImageError:
        return
    try:
        assert np.array_equal(read(data[: int(len(data) * share)]).pixels, whole)
    except ImageError as error:
        assert error.reason in {"empty", "not_an_image", "truncated", "decode_failed"}  # noqa: PT017 (or none at all)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[bytes, np.ndarray]:
    """A file of a format that loses nothing, and its pixels."""
    mode = draw(st.sampled_from(["1", "L", "RGB", "I;16"]))
    kind = draw(st.sampled_from(["PNG", "BMP", "TIFF", "JPEG2000", "WEBP"]))
    if (mode, kind) in {("I;16", "BMP"), ("I;16", "WEBP"), ("1", "JPEG2000"), ("1", "WEBP"), ("L", "WEBP")}:
        kind = "PNG"
    size = (draw(st.integers(1, 50)), draw(st.integers(1, 50)), *([3] if mode == "RGB" else []))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, size)
    samples = {"1": values > 127, "I;16": (values * 257).astype(np.uint16)}.get(mode, values.astype(np.uint8))
    exif = Image.Exif()
    if draw(st.booleans()) and kind not in {"BMP", "JPEG2000"}:
        exif[0x0112] = 3
    options: dict[str, Any] = {"exif": exif} if len(exif) else {}
    if kind == "WEBP":
        options["lossless"] = True
    if kind == "JPEG2000":
        options["irreversible"] = False
    stream = io.BytesIO()
    Image.fromarray(samples).save(stream, kind, **options)
    upright = samples[::-1, ::-1] if len(exif) else samples
    return stream.getvalue(), to_bytes(upright)


@given(pictures())
def test_what_was_written_is_what_is_read(made: tuple[bytes, np.ndarray]) -> None:
    """Of every size down to one pixel, upright, to the byte."""
    data, expected = made
    found = read(data).pixels
    assert np.array_equal(found.astype(int), expected.reshape(found.shape).astype(int))


@given(
    st.binary(max_size=400),
    st.sampled_from(
        [
            b"\xff\xd8\xff",
            b"II\x2a\0\x08\0\0\0",
            b"II\x2b\0\x08\0\0\0",
            b"GIF89a",
            b"BM",
            b"\xff\x0a",
            b"\0\0\0\x0cJXL \r\n\x87\n",
            b"\0\0\0\x0cjP  \r\n\x87\n",
            b"\xff\x4f\xff\x51",
            b"\0\0\0\x18ftypheic\0\0\0\0",
            b"\0\0\0\x18ftypavif\0\0\0\0",
            b"RIFF\0\0\0\0WEBP",
            b"\x89PNG\r\n\x1a\n",
            b"",
        ]
    ),
)
def test_no_bytes_raise_anything_else(rest: bytes, magic: bytes) -> None:
    """Whatever follows a format's first bytes, the answer is pixels or a documented reason."""
    for look in (probe, read):
        try:
            look(magic + rest, max_pixels=1 << 20)
        except ImageError as error:
            assert error.reason in REASONS  # noqa: PT017 (no error is right as well)
