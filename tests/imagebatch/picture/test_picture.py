"""Files of kinds that people bring: the pixels that they mean, or a refusal that names the true cause."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs  # type: ignore[import-untyped]  # ships no type marker
import numpy as np
import numpy.typing as npt
import pytest
import tifffile  # type: ignore[import-untyped]  # ships no type marker
from imagebatch.images.measure import measure
from imagebatch.inputs.formats import SUFFIXES
from imagebatch_header import ImageError, View
from imagebatch_picture import FORMATS, count_pages, probe, read
from PIL import Image, ImageOps, PngImagePlugin
from pillow_heif import register_heif_opener  # type: ignore[import-untyped]  # ships no type marker

from tests.support.images import photograph

Pixels = npt.NDArray[np.uint8]

COLOUR = np.asarray(photograph(3, (96, 80)))
GREY = np.asarray(photograph(4, (96, 80)).convert("L"))
WHITE = 255


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(pixels: npt.NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def png(pixels: npt.NDArray[Any], depth: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of samples that are given as they are stored: rows of bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width = pixels.shape[:2]
    samples = pixels.astype(">u2") if depth == 16 else pixels.astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def refused(data: bytes, **declared: Any) -> str:
    """The refusal, which reading and looking at the header alone must agree on."""
    with pytest.raises(ImageError) as seen:
        probe(data, view=View(**declared))
    with pytest.raises(ImageError) as decoded:
        read(data, view=View(**declared))
    assert str(seen.value) == str(decoded.value)
    return str(seen.value)


def difference(pixels: Pixels, expected: npt.NDArray[Any]) -> int:
    assert pixels.shape[:2] == expected.shape[:2]
    return int(np.abs(pixels.astype(int) - expected.reshape(pixels.shape).astype(int)).max())


# A camera's values are the same picture in fewer bits; those of a full range have all 16.
KINDS: dict[str, Callable[[npt.NDArray[Any]], bytes]] = {
    "grey TIFF": lambda wide: tiff(wide[..., 0]),
    "grey TIFF, big-endian": lambda wide: tiff(wide[..., 0], byteorder=">"),
    "grey TIFF, Deflate": lambda wide: tiff(wide[..., 0], compression="zlib", predictor=True),
    "colour TIFF": lambda wide: tiff(wide, photometric="rgb"),
    "colour TIFF, big-endian": lambda wide: tiff(wide, photometric="rgb", byteorder=">"),
    "colour TIFF, LZW": lambda wide: tiff(wide, photometric="rgb", compression="lzw"),
    "grey PNG": lambda wide: png(wide[..., 0], 16, 0),
    "colour PNG": lambda wide: png(wide, 16, 2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_cameras_depth_is_told_and_seen_once_it_is_declared(kind: str, bits: int) -> None:
    """Right-aligned values are near black and said to be; declared or stretched, they are the picture."""
    grey = np.repeat(GREY[..., None], 3, axis=2)
    data = KINDS[kind](grey.astype(np.uint16) << (bits - 8))
    top = (1 << bits) - 1
    expected = ((grey.astype(int) << (bits - 8)) * 255 + top // 2) // top
    plain = read(data)
    assert plain.pixels.max() < 64
    assert measure(data)["low_depth"] == (
        f"its values use {bits} of 16 bits, so that it looks dark: declare value_range {bits}-bit"
    )
    declared = View(value_range=f"{bits}-bit")
    assert difference(read(data, view=declared).pixels, expected[..., : plain.pixels.shape[2]]) == 0
    assert measure(data, declared)["low_depth"] is None
    stretched = read(data, view=View(value_range="stretch")).pixels
    assert stretched.min() == 0
    assert stretched.max() == WHITE
    assert abs(int(np.corrcoef(stretched[..., 0].ravel(), GREY.ravel())[0, 1] * 1000)) >= 990


@pytest.mark.parametrize("kind", KINDS)
def test_all_16_bits_are_the_whole_range(kind: str) -> None:
    """A file that uses its whole depth is told nothing of, and a depth that it does not fit in is said."""
    data = KINDS[kind](COLOUR.astype(np.uint16) * 257)
    found = read(data)
    assert difference(found.pixels, COLOUR[..., : found.pixels.shape[2]]) == 0
    assert measure(data)["low_depth"] is None
    assert "need 16 bits" in str(measure(data, View(value_range="12-bit"))["low_depth"])


def test_a_declared_depth_reaches_colour_with_alpha_and_later_pages() -> None:
    """The value range holds for every layout of 16 bits, and together with the other declarations."""
    wide = COLOUR.astype(np.uint16) << 4
    alpha = np.full((*GREY.shape, 1), 65535, np.uint16)
    rgba = np.concatenate([wide, alpha], axis=2)
    expected = read(tiff(wide, photometric="rgb"), view=View(value_range="12-bit")).pixels
    declared = View(value_range="12-bit")
    assert difference(read(png(rgba, 16, 6), view=declared).pixels, expected) == 0
    grey_alpha = np.concatenate([wide[..., :1], alpha], axis=2)
    assert difference(read(png(grey_alpha, 16, 4), view=declared).pixels[..., 0], expected[..., 0]) == 0
    extra = tiff(rgba, photometric="rgb", extrasamples=["unassalpha"])
    assert difference(read(extra, view=declared).pixels, expected) == 0
    pages = tiff(np.stack([wide[::-1], wide]), photometric="rgb")
    assert difference(read(pages, view=View(value_range="12-bit", page=2)).pixels, expected) == 0


@pytest.mark.parametrize("kind", ["planes", "CMYK", "premultiplied"])
def test_a_range_that_cannot_be_applied_is_refused(kind: str) -> None:
    """Where only high bytes can be had, a declared range is not guessed from them."""
    wide = COLOUR.astype(np.uint16) << 4
    data = {
        "planes": lambda: tiff(
            np.moveaxis(wide, -1, 0), photometric="rgb", planarconfig="separate", compression="lzw"
        ),
        "CMYK": lambda: tiff(np.dstack([wide, wide[..., 0]]), photometric="separated"),
        "premultiplied": lambda: tiff(
            np.dstack([wide, wide[..., 0]]), photometric="rgb", extrasamples=["assocalpha"]
        ),
    }[kind]()
    assert probe(data).depth == 16
    assert "value_range declared" in refused(data, value_range="12-bit")


def test_12_bits_that_are_declared_by_the_file_are_its_whole_range() -> None:
    """TIFF's packed 12 bits say what they are: nothing need be declared."""
    values = GREY.astype(np.uint16) << 4 | GREY >> 4
    packed = imagecodecs.packints_encode(values.ravel(), 12)
    data = bytearray(tiff(values))
    page = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0]
    start = page.dataoffsets[0]
    data[start : start + len(packed)] = packed
    for tag, value in (("BitsPerSample", 12), ("StripByteCounts", len(packed))):
        size = struct.calcsize((page.tags[tag].dtype_name == "SHORT" and "<H") or "<I")
        at = page.tags[tag].valueoffset
        data[at : at + size] = value.to_bytes(size, "little")
    found = read(bytes(data))
    assert found.header.depth == 12
    assert difference(found.pixels, GREY) <= 1


@pytest.mark.parametrize("version", [3, 5])
def test_alpha_that_was_never_filled_is_none(version: int) -> None:
    """A 32-bit BMP whose alpha bytes are all zero is the picture; one that is filled counts."""

    def bmp(alpha: Pixels) -> bytes:
        size = {3: 56, 5: 124}[version]
        body = np.dstack([COLOUR[:, :, ::-1], alpha])[::-1].tobytes()
        head = struct.pack("<IiiHHIIiiII", size, 96, 80, 1, 32, 3, len(body), 2835, 2835, 0, 0)
        head += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        return (
            b"BM"
            + struct.pack("<IHHI", 14 + size + len(body), 0, 0, 14 + size)
            + head.ljust(size, b"\0")
            + body
        )

    assert difference(read(bmp(np.zeros_like(GREY))).pixels, COLOUR) == 0
    half = np.zeros_like(GREY)
    half[:40] = 255
    found = read(bmp(half)).pixels
    assert difference(found[:40], COLOUR[:40]) == 0
    assert found[40:].min() == WHITE


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_on_the_declared_background(kind: str) -> None:
    """White where nothing is declared, else the colour that is; the check looks at the same picture."""
    clear = np.dstack([COLOUR, np.where(GREY > 128, 255, 0).astype(np.uint8)])
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(clear), kind, **options)
    for background, rgb in (("white", (255, 255, 255)), ("black", (0, 0, 0)), ("#0a141e", (10, 20, 30))):
        expected = np.where((GREY > 128)[..., None], COLOUR, np.array(rgb, np.uint8))
        view = View(background=background)
        assert difference(read(data, view=view).pixels, expected) == 0
        assert measure(data, view)["brightness"] == pytest.approx(
            np.asarray(Image.fromarray(expected).convert("L")).mean() / 255, abs=0.01
        )


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_found_at_every_depth(depth: int) -> None:
    """The value that a PNG declares transparent is one of its own depth, also where pixels were scaled."""
    top = (1 << depth) - 1
    values = (np.arange(16 * 16).reshape(16, 16) * 257 % (top + 1)).astype(np.uint16)
    clear = int(values[3, 5])
    packed = np.packbits(
        np.unpackbits(values.astype(">u2")[..., None].view(np.uint8), axis=2)[..., 16 - depth :].reshape(
            16, -1
        ),
        axis=1,
    )
    stored = values if depth == 16 else packed
    data = bytearray(png(stored, depth, 0, (b"tRNS", struct.pack(">H", clear))))
    data[16:20] = struct.pack(">I", 16)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    expected = (values.astype(int) * 255 + top // 2) // top
    expected[values == clear] = 10
    found = read(bytes(data), view=View(background="#0a0a0a")).pixels[..., 0]
    assert difference(found[..., None], expected) == 0


def test_a_transparent_colour_of_16_bits_is_found() -> None:
    """All 16 bits of the three values are compared, not their high bytes."""
    wide = COLOUR.astype(np.uint16) * 257
    wide[3, 4], wide[5, 6] = (1000, 2000, 3000), (1001, 2000, 3000)
    found = read(png(wide, 16, 2, (b"tRNS", struct.pack(">3H", 1000, 2000, 3000)))).pixels
    assert found[3, 4].tolist() == [255, 255, 255]
    assert found[5, 6].tolist() == [1001 >> 8, 2000 >> 8, 3000 >> 8]


FACTORS = ["4x2,1x1,1x1", "2x4,1x1,1x1", "1x1,2x1,2x1", "1x1,1x2,1x2", "2x2,1x2,2x1", "3x1,1x1,1x1"]


def sampled(factors: str) -> bytes:
    """A JPEG with these sampling factors, coded by hand: steps of brightness, nothing else."""
    pairs = [tuple(int(digit) for digit in pair.split("x")) for pair in factors.split(",")]
    across, down = max(pair[0] for pair in pairs) * 8, max(pair[1] for pair in pairs) * 8
    units = -(-96 // across) * -(-80 // down)
    blocks = sum(high * wide for high, wide in pairs)
    frame = struct.pack(">BHHB", 8, 80, 96, 3)
    frame += b"".join(bytes([number, high << 4 | wide, 0]) for number, (high, wide) in enumerate(pairs, 1))
    # One table for all: code 0 is "no difference", 10 one bit of difference, and 0 for AC the end of a block.
    dc = b"\x00" + bytes([1, 1, *[0] * 14]) + bytes([0, 4])
    ac = b"\x10" + bytes([1, *[0] * 15]) + b"\x00"
    bits = "".join(
        ("10" + format((unit * 7 + block) % 16, "04b") if block % 2 == 0 else "0") + "0"
        for unit in range(units)
        for block in range(blocks)
    )
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    scan = bytes([3, 1, 0, 2, 0, 3, 0, 0, 63, 0])
    segments = [(0xDB, b"\0" + b"\x10" * 64), (0xC0, frame), (0xC4, dc), (0xC4, ac), (0xDA, scan)]
    head = b"".join(struct.pack(">BBH", 255, kind, len(content) + 2) + content for kind, content in segments)
    return b"\xff\xd8" + head + body + b"\xff\xd9"


@pytest.mark.parametrize("factors", FACTORS)
def test_sampling_factors_that_the_fast_decoder_has_no_name_for_are_read(factors: str) -> None:
    """They are Pillow's pixels; cut short, with or without an end marker behind, the file is refused."""
    data = sampled(factors)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert len(np.unique(expected)) > 8
    assert difference(read(data).pixels, expected) == 0
    start = data.index(b"\xff\xda") + 12
    for cut in range(start, len(data) - 4, max(1, (len(data) - start) // 25)):
        for end in (b"", b"\xff\xd9"):
            with pytest.raises(ImageError) as caught:
                read(data[:cut] + end)
            assert caught.value.reason == "truncated"


def test_a_second_size_in_such_a_file_is_refused() -> None:
    """The way round the fast decoder is no way round the comparison of sizes."""
    data = sampled(FACTORS[0])
    frame = data.index(b"\xff\xc0")
    size = 2 + struct.unpack(">H", data[frame + 2 : frame + 4])[0]
    twice = data[:frame] + data[frame : frame + size].replace(
        struct.pack(">HH", 80, 96), struct.pack(">HH", 8, 9)
    )
    with pytest.raises(ImageError, match="contradict"):
        read(twice + data[frame:])


@pytest.mark.parametrize(
    "where", ["text", "compressed text", "international text", "profile", "broken profile"]
)
def test_text_and_profiles_never_decide(where: str) -> None:
    """A PNG is its pixels, however much is written beside them, before or behind."""
    info, options = PngImagePlugin.PngInfo(), {}
    if where == "text":
        info.add_text("parameters", "x" * 70_000_000)
    elif where == "compressed text":
        info.add_text("parameters", "x" * 1_500_000, zip=True)
    elif where == "international text":
        info.add_itxt("workflow", '{"n":1}' * 300_000, zip=True)
    elif where == "profile":
        options["icc_profile"] = bytes(1_500_000)
    data = encoded(Image.fromarray(COLOUR), "PNG", pnginfo=info, **options)
    if where == "broken profile":
        chunk = b"iCCP" + b"a\0\1nothing"
        broken = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        data = data[:33] + broken + data[33:]
    assert difference(read(data).pixels, COLOUR) == 0
    assert probe(data).width == 96


def test_orientation_survives_where_text_is_left_out() -> None:
    """EXIF stays when text goes."""
    info, exif = PngImagePlugin.PngInfo(), Image.Exif()
    info.add_text("parameters", "x" * 1_500_000, zip=True)
    exif[0x0112] = 6
    data = encoded(Image.fromarray(COLOUR), "PNG", pnginfo=info, exif=exif)
    assert difference(read(data).pixels, np.rot90(COLOUR, -1)) == 0


CAUSES: dict[str, tuple[Callable[[], bytes], str]] = {
    "12-bit JPEG": (
        lambda: imagecodecs.jpeg8_encode(COLOUR.astype(np.uint16) * 16, bitspersample=12),
        "12-bit",
    ),
    "JPEG XR in TIFF": (lambda: tiff(COLOUR, photometric="rgb", compression="jpegxr"), "JPEG XR"),
    "PNG in TIFF": (lambda: tiff(COLOUR, photometric="rgb", compression="png"), "PNG inside"),
    "float colour": (lambda: tiff((COLOUR / 255).astype(np.float32), photometric="rgb"), "floating-point"),
    "float grey": (lambda: tiff((GREY / 255).astype(np.float32)), "floating-point"),
    "half floats": (lambda: tiff((GREY / 255).astype(np.float16)), "floating-point"),
    "signed 16 bits": (lambda: tiff(GREY.astype(np.int16) * 128), "signed"),
    "signed 8 bits": (lambda: tiff(GREY.astype(np.int8)), "signed"),
    "complex": (lambda: tiff(GREY.astype(np.complex64)), "complex"),
    "32 bits": (lambda: tiff(GREY.astype(np.uint32)), "32 bits"),
    "raw mosaic": (lambda: tiff(GREY.astype(np.uint16), photometric="cfa"), "raw mosaic"),
    "16-bit planes": (
        lambda: tiff(
            np.moveaxis(COLOUR.astype(np.uint16), -1, 0), photometric="rgb", planarconfig="separate"
        ),
        "planes of 16 bits",
    ),
    "float JPEG XL": (lambda: imagecodecs.jpegxl_encode((COLOUR / 255).astype(np.float32)), "floating-point"),
    "a raw file": (lambda: b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40), "Canon"),
    "many bands": (lambda: tiff(np.zeros((20, 20, 9), np.uint8), planarconfig="contig"), "9"),
    "a video": (lambda: b"\0\0\0\x18ftypisom\0\0\0\1isomavc1" + bytes(40), "a video"),
}


@pytest.mark.parametrize("kind", CAUSES)
def test_a_layout_that_is_not_read_is_named_before_scoring(kind: str) -> None:
    """The header alone gives the reason, and it is the true one."""
    make, cause = CAUSES[kind]
    said = refused(make())
    assert said.startswith("unsupported_format: ")
    assert cause in said


def test_a_missing_end_marker_is_forgiven_where_that_is_declared() -> None:
    """Strict by default; lenient takes a JPEG whose pixels are all there, and no other."""
    data = encoded(Image.fromarray(COLOUR), "JPEG", quality=92)
    lenient = View(end_marker="lenient")
    for ending in (data[:-2], data[:-1]):
        with pytest.raises(ImageError, match="truncated"):
            read(ending)
        assert np.array_equal(read(ending, view=lenient).pixels, read(data).pixels)
    for cut in range(700, len(data) - 6, 50):
        with pytest.raises(ImageError) as caught:
            read(data[:cut], view=lenient)
        assert caught.value.reason == "truncated"


def by_hand(tags: dict[int, tuple[int, ...]], content: bytes) -> bytes:
    """A little-endian TIFF with these tags, of 32 bits each; where 0 stands, the content's place is meant."""
    start = 8 + 2 + 12 * len(tags) + 4 + sum(4 * len(values) for values in tags.values() if len(values) > 1)
    entries, longer = b"", b""
    for tag, values in sorted(tags.items()):
        numbers = [value or start for value in values] if tag in (273, 513) else values
        packed = struct.pack(f"<{len(values)}I", *numbers)
        place = struct.pack("<I", 8 + 2 + 12 * len(tags) + 4 + len(longer))
        entries += struct.pack("<HHI", tag, 4, len(values)) + (packed if len(values) == 1 else place)
        longer += packed if len(values) > 1 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + longer + content


SIZES = {256: (96,), 257: (80,), 258: (8, 8, 8), 262: (6,), 273: (0,), 277: (3,), 278: (80,)}


def test_a_tiff_of_old_style_jpeg_is_read() -> None:
    """What scanners wrote before 1995: a JPEG file within the TIFF."""
    inside = encoded(Image.fromarray(COLOUR), "JPEG", quality=92)
    said = {259: (6,), 279: (len(inside),), 512: (1,), 513: (0,), 514: (len(inside),), 530: (2, 2)}
    data = by_hand(SIZES | said, inside)
    assert difference(read(data).pixels, np.asarray(Image.open(io.BytesIO(inside)))) == 0


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("sampling", [None, (1, 1), (2, 2)])
def test_chroma_of_a_tiff_is_read_or_refused(compression: int, sampling: tuple[int, int] | None) -> None:
    """With fewer samples of chroma it is read where libtiff unpacks it; raw, refused and not misread."""
    ycc = np.asarray(Image.fromarray(COLOUR).convert("YCbCr"))
    stored = ycc.tobytes()
    if sampling == (2, 2):
        light = ycc[..., 0].reshape(40, 2, 48, 2).swapaxes(1, 2).reshape(40, 48, 4)
        stored = np.concatenate([light, ycc[::2, ::2, 1:]], axis=-1).tobytes()
    stored = zlib.compress(stored) if compression == 8 else stored
    said = {259: (compression,), 279: (len(stored),)} | ({530: sampling} if sampling else {})
    data = by_hand(SIZES | said, stored)
    if compression == 1 and sampling == (2, 2):
        assert "fewer samples of chroma" in refused(data)
    elif compression == 1 or sampling:
        found = read(data).pixels
        assert np.abs(found.astype(int) - COLOUR.astype(int)).mean() < (14 if sampling == (2, 2) else 2)


def many(kind: str, pages: list[Image.Image]) -> bytes:
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(pages[0], kind, save_all=True, append_images=pages[1:], **options)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG", "AVIF", "MPO"])
def test_pages_and_frames_are_counted_and_one_can_be_chosen(kind: str) -> None:
    """The header counts them; the declared one is seen; a page that is not there is said not to be."""
    pages = [Image.fromarray(np.roll(GREY, 17 * number, 1)) for number in range(3)]
    data = many(kind, pages)
    assert probe(data).frames == count_pages(data) == 3
    for number, page in enumerate(pages, 1):
        found = read(data, view=View(page=number)).pixels
        lossy = {"AVIF": 40, "MPO": 60}.get(kind, 0)
        assert difference(found[..., 0], np.asarray(page)) <= lossy
    assert "3 pages or frames, and the model looks at number 4" in refused(data, page=4)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "MPO"])
@pytest.mark.parametrize("share", [5, 6, 7, 8, 9])
def test_a_cut_file_has_no_page_less(kind: str, share: int) -> None:
    """Wherever the file ends: what is left of its pages is seen whole or refused, never passed over."""
    pages = [Image.fromarray(np.roll(GREY, 17 * number, 1)) for number in range(3)]
    data = many(kind, pages)
    cut = data[: len(data) * share // 10]
    outcomes = [refused_or_read(cut, number + 1) for number in range(count_pages(cut))]
    whole = [refused_or_read(data, number + 1) for number in range(3)]
    assert outcomes[0] == whole[0]
    assert outcomes[-1] == "truncated"
    assert all(found in ("truncated", expected) for found, expected in zip(outcomes, whole, strict=False))


def refused_or_read(data: bytes, page: int) -> object:
    try:
        return read(data, view=View(page=page)).pixels.tobytes()
    except ImageError as error:
        return error.reason


def test_an_animation_that_ends_between_two_frames_is_not_whole() -> None:
    """A GIF says nowhere how many frames it has: only its end mark says that these are all."""
    pages = [Image.fromarray(np.roll(GREY, 17 * number, 1)) for number in range(3)]
    two, three = many("GIF", pages[:2]), many("GIF", pages)
    assert three.startswith(two[:-1])
    assert count_pages(two) == 2
    assert count_pages(two[:-1]) == 3
    assert "without its end mark" in refused(two[:-1], page=3)
    alone = many("GIF", pages[:1])
    assert count_pages(alone[:-1]) == 1


CODINGS = {"jpeg2000": "JPEG 2000", "jpegxl": "JPEG XL", "lerc": "LERC"}


def inside(coding: str, samples: npt.NDArray[Any] = COLOUR, **options: Any) -> bytes:
    """A TIFF whose pieces are in a coding that libtiff lacks, without loss."""
    stream = io.BytesIO()
    colours = "rgb" if samples.ndim == 3 else "minisblack"
    tifffile.imwrite(
        stream, samples, photometric=colours, compression=coding, **({"rowsperstrip": 32} | options)
    )
    return stream.getvalue()


@pytest.mark.parametrize("coding", CODINGS)
def test_codings_inside_a_tiff_give_what_was_put_in(coding: str) -> None:
    """Also turned, on a second page, in tiles at the edge, and of a camera's bits with a declared range."""
    assert difference(read(inside(coding)).pixels, COLOUR) == 0
    assert difference(read(inside(coding, tile=(48, 64), rowsperstrip=None)).pixels, COLOUR) == 0
    turned = read(inside(coding, extratags=[(274, "H", 1, 6, True)])).pixels
    assert difference(turned, np.rot90(COLOUR, -1)) == 0
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(COLOUR, photometric="rgb")
        writer.write(COLOUR[::-1], photometric="rgb", compression=coding)
    assert difference(read(stream.getvalue(), view=View(page=2)).pixels, COLOUR[::-1]) == 0
    deep = inside(coding, (GREY.astype(np.uint16) << 4))
    assert np.abs(read(deep, view=View(value_range="12-bit")).pixels[..., 0].astype(int) - GREY).max() <= 1
    assert probe(deep)[:5] == ("TIFF", 96, 80, 16, 1)


def coded(coding: str, samples: npt.NDArray[Any]) -> bytes:
    """One piece, without loss."""
    if coding == "jpegxl":
        return bytes(imagecodecs.jpegxl_encode(samples, lossless=True))
    return bytes({"jpeg2000": imagecodecs.jpeg2k_encode, "lerc": imagecodecs.lerc_encode}[coding](samples))


def one_piece(coding: str, content: bytes) -> bytes:
    """A TIFF of 96 x 80 pixels in one piece, which holds this content."""
    number = {"jpeg2000": 34712, "jpegxl": 50002, "lerc": 34887}[coding]
    return by_hand(SIZES | {259: (number,), 262: (2,), 279: (len(content),)}, content)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_damaged_piece_inside_a_tiff_is_refused(coding: str) -> None:
    """Cut off, smaller than its place, of other samples; or larger, as its header tells before decoding."""
    content = coded(coding, COLOUR)
    assert difference(read(one_piece(coding, content)).pixels, COLOUR) == 0
    with pytest.raises(ImageError, match="truncated: the file ends before the last piece"):
        read(one_piece(coding, content)[:-1])
    for length in (0, 5, 30, 60, len(content) // 2, len(content) - 20):
        with pytest.raises(ImageError):
            read(one_piece(coding, content[:length]))
    for other in (COLOUR[:40], GREY, COLOUR.astype(np.uint16)):
        with pytest.raises(ImageError):
            read(one_piece(coding, coded(coding, other)))
    bomb = one_piece(coding, coded(coding, np.zeros((4000, 4000, 3), np.uint8)))
    tracemalloc.start()
    with pytest.raises(ImageError, match="in a piece that is smaller"):
        read(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_what_is_not_read_inside_a_tiff_has_its_cause() -> None:
    """Palettes, values that are missing, and LERC that is packed once more."""
    mapped = {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}
    stream = io.BytesIO()
    tifffile.imwrite(stream, GREY, compression="jpegxl", **mapped)
    assert "JPEG XL inside, in colours other than" in refused(stream.getvalue())
    stream = io.BytesIO()
    tifffile.imwrite(stream, GREY, compression="lerc", compressionargs={"compression": "zstd"})
    assert "packed once more" in refused(stream.getvalue())
    data = bytearray(inside("lerc", GREY, rowsperstrip=80))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        start = file.pages[0].dataoffsets[0]
    struct.pack_into("<i", data, start + 26, 5)
    with pytest.raises(ImageError, match="some pixels have no value"):
        read(bytes(data))


def test_a_page_is_its_own_size_and_may_say_that_it_is_a_reduced_one() -> None:
    """Of a thumbnail that comes first the check tells; the second page is the picture."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(COLOUR[::4, ::4], photometric="rgb", subfiletype=1)
        writer.write(COLOUR, photometric="rgb")
    data = stream.getvalue()
    assert probe(data)[1:3] == (24, 20)
    assert measure(data)["reduced"] is True
    second = read(data, view=View(page=2))
    assert difference(second.pixels, COLOUR) == 0
    assert not second.header.reduced


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_format_is_turned_once_and_its_size_is_told_as_stored(kind: str, orientation: int) -> None:
    """Upright is what the camera meant. A HEIC's turns are part of its picture, and so of its size."""
    image, exif = Image.fromarray(COLOUR), Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    if kind == "HEIF":
        register_heif_opener()  # which also teaches Pillow to write it
        data = encoded(image, kind, quality=95)
    else:
        data = encoded(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    upright = ImageOps.exif_transpose(image)
    assert np.abs(read(data).pixels.astype(int) - np.asarray(upright).astype(int)).mean() < 6
    assert probe(data)[1:3] == (upright.size if kind == "HEIF" else (96, 80))


@pytest.mark.parametrize("layout", ["L", "LA", "RGB", "RGBA", "16 bits", "12 bits", "container", "animation"])
def test_jpeg_xl_is_read(layout: str) -> None:
    """Every layout of JPEG XL is the pixels that were put in, and its header is bounded before decoding."""
    wide = COLOUR.astype(np.uint16) * 257
    opaque = np.full((*GREY.shape, 1), 255, np.uint8)
    source, options = {
        "L": (GREY, {}),
        "LA": (np.dstack([GREY, opaque]), {}),
        "RGB": (COLOUR, {}),
        "RGBA": (np.dstack([COLOUR, opaque]), {}),
        "16 bits": (wide, {}),
        "12 bits": (wide >> 4, {"bitspersample": 12}),
        "container": (COLOUR, {"usecontainer": True}),
        "animation": (np.stack([COLOUR, COLOUR[::-1]]), {}),
    }[layout]
    data = imagecodecs.jpegxl_encode(source, lossless=True, **options)
    found = read(data)
    grey = layout.startswith("L")
    assert difference(found.pixels[..., 0] if grey else found.pixels, GREY if grey else COLOUR) == 0
    assert (found.header.format, found.header.width, found.header.height) == ("JXL", 96, 80)
    with pytest.raises(ImageError, match="too_many_pixels"):
        probe(data, max_pixels=96 * 80 - 1)
    with pytest.raises(ImageError, match="truncated"):
        read(data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF", "HEIF", "JXL"])
def test_no_cut_gives_other_pixels(kind: str) -> None:
    """Wherever a file is cut it is refused, unless only bytes behind the last pixel are missing."""
    register_heif_opener()  # which also teaches Pillow to write it
    image = Image.fromarray(COLOUR)
    data = imagecodecs.jpegxl_encode(COLOUR, level=90) if kind == "JXL" else encoded(image, kind)
    whole = read(data).pixels
    refusals = 0
    for cut in [*range(1, len(data) - 20, max(1, len(data) // 60)), *range(len(data) - 20, len(data))]:
        try:
            assert np.array_equal(read(data[:cut]).pixels, whole)
        except ImageError as error:
            refusals += 1
            assert error.reason in {"truncated", "decode_failed", "not_an_image"}  # noqa: PT017 (or none at all)
    assert refusals > 50


def test_every_format_has_ends_of_names() -> None:
    """What is taken from a folder is what the decoder reads."""
    assert set(SUFFIXES) == set(FORMATS)


def test_a_view_says_what_it_does_not_know() -> None:
    """Every declaration is checked when it is made, and names what it could be."""
    for wrong, said in (
        ({"value_range": "8-bit"}, "9-bit to 16-bit"),
        ({"value_range": "12"}, "full, stretch"),
        ({"background": "#12345"}, "#rrggbb"),
        ({"page": 0}, "at least 1"),
        ({"end_marker": "yes"}, "strict or lenient"),
    ):
        with pytest.raises(ValueError, match=said):
            View(**wrong)  # type: ignore[arg-type]  # values of several types
    assert View().declared() == {}
    assert View(page=2, background="black").declared() == {"page": 2, "background": "black"}
