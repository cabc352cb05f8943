"""The pixels against plain Pillow, format by format, and everything that must be refused."""

import io
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import imagebatch_header
import numpy as np
import numpy.typing as npt
import pytest
import torch
from imagebatch_header import ImageError
from imagebatch_picture import probe
from imagebatch_pixels import Fit, decode
from PIL import Image, ImageOps

Encode = Callable[..., bytes]

# Pillow warns of damage that it can live with; elsewhere in these tests no warning is expected.
survives_warnings = pytest.mark.filterwarnings("ignore::UserWarning")


def plain(image: Image.Image) -> npt.NDArray[np.int64]:
    """Resize and crop with Pillow alone: what a model's textbook preprocessing does."""
    wide, high = ((256 * side) // min(image.size) for side in image.size)
    left, top = round((wide - 224) / 2), round((high - 224) / 2)
    resized = image.convert("RGB").resize((wide, high), Image.Resampling.BILINEAR)
    cropped = resized.crop((left, top, left + 224, top + 224))
    return np.asarray(cropped).transpose(2, 0, 1).astype(np.int64)


def assert_like(data: bytes, expected: Image.Image) -> None:
    """Rounding alone may differ: at most 1 of 255 anywhere, and in less than one value of fifty."""
    difference = np.abs(decode(data).numpy().astype(np.int64) - plain(expected))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


def reason(data: bytes, **limits: int) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, **limits)
    assert caught.value.reason in imagebatch_header.REASONS
    assert len(caught.value.detail) <= 200
    assert caught.value.detail.isprintable()
    return caught.value.reason


FORMATS = {
    "jpeg": ("JPEG", {"quality": 90}),
    "jpeg-progressive": ("JPEG", {"progressive": True}),
    "jpeg-444": ("JPEG", {"subsampling": 0}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "webp-lossless": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "tiff": ("TIFF", {}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff-jpeg": ("TIFF", {"compression": "jpeg"}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_colour_image_of_every_format_is_what_pillow_shows(
    name: str, photograph: Image.Image, encode: Encode
) -> None:
    """Whatever the format, the pixels are those of plain Pillow but for rounding."""
    kind, options = FORMATS[name]
    data = encode(photograph, kind, **options)
    assert_like(data, Image.open(io.BytesIO(data)))
    assert probe(data)[:3] == (kind, 320, 280)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
def test_a_grey_image_has_three_equal_channels(kind: str, photograph: Image.Image, encode: Encode) -> None:
    """One channel in the file becomes the same channel three times."""
    data = encode(photograph.convert("L"), kind)
    assert_like(data, Image.open(io.BytesIO(data)))
    red, green, blue = decode(data)
    assert torch.equal(red, green)
    assert torch.equal(red, blue)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind: str, encode: Encode) -> None:
    """0..65535 becomes 0..255 with rounding: Pillow's own conversion would turn all but the darkest white."""
    wide = np.linspace(0, 65535, 224 * 224).round().astype(np.uint16).reshape(224, 224)
    narrow = np.rint(wide / 257).astype(np.uint8)
    data = encode(Image.fromarray(wide), kind)
    assert np.array_equal(decode(data, resize=224)[0].numpy(), narrow)


def test_16_bit_tiff_where_0_is_white_is_turned_round(encode: Encode) -> None:
    """A TIFF that says "0 is white" is a negative, also with 16 bits."""
    wide = np.linspace(0, 65535, 224 * 224).astype(np.uint16).reshape(224, 224)
    data = encode(Image.fromarray(wide), "TIFF")
    entry = struct.pack("<HHIH", 262, 3, 1, 1)
    assert data.count(entry) == 1
    negative = data.replace(entry, struct.pack("<HHIH", 262, 3, 1, 0))
    assert np.array_equal(decode(negative, resize=224).numpy(), 255 - decode(data, resize=224).numpy())


def test_16_bit_colour_keeps_its_high_byte() -> None:
    """A PNG with 16 bits per channel is read, at the precision that a model sees."""
    values = np.random.default_rng(1).integers(0, 65536, (224, 224, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = png(224, 224, depth=16, colour=2, body=zlib.compress(rows))
    assert np.array_equal(decode(data, resize=224).permute(1, 2, 0).numpy(), (values >> 8).astype(np.uint8))


def test_a_palette_is_looked_up(photograph: Image.Image, encode: Encode) -> None:
    """Palette indices are never taken for brightness."""
    data = encode(photograph.quantize(64), "PNG")
    assert_like(data, Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA"), ("TIFF", "RGBA")]
)
def test_transparency_shows_white(kind: str, mode: str, photograph: Image.Image, encode: Encode) -> None:
    """Transparent pixels are composited on white, whatever colour hides below them."""
    clear = photograph.convert(mode)
    clear.putalpha(Image.linear_gradient("L").resize(photograph.size))
    white = Image.new("RGBA", clear.size, "white")
    data = encode(clear, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    assert_like(data, Image.alpha_composite(white, clear.convert("RGBA")))


def test_a_transparent_palette_entry_shows_white(encode: Encode) -> None:
    """Transparency declared for one palette entry counts like an alpha channel."""
    image = Image.new("P", (300, 300), 0)
    image.putpalette([200, 0, 0, 0, 200, 0])
    assert decode(encode(image, "PNG", transparency=0)).min() == 255
    assert decode(encode(image, "GIF", transparency=0)).min() == 255
    assert decode(encode(image, "PNG"))[1].max() == 0


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str, photograph: Image.Image, encode: Encode) -> None:
    """Print files are converted as Pillow does, inverted Adobe JPEGs included."""
    data = encode(photograph.convert("CMYK"), kind)
    assert_like(data, Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("mode", ["1", "LAB", "YCbCr"])
def test_rarer_modes_of_tiff_are_read(mode: str, photograph: Image.Image, encode: Encode) -> None:
    """Bilevel, Lab and YCbCr files are images too."""
    image = photograph.convert(mode) if mode != "LAB" else Image.merge("LAB", photograph.split())
    data = encode(image, "TIFF")
    assert_like(data, Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(kind: str, orientation: int, photograph: Image.Image, encode: Encode) -> None:
    """A photograph is seen as its camera says it was held, in every format that can say so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photograph, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert_like(data, ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


def test_the_first_frame_of_an_animation_counts(photograph: Image.Image, encode: Encode) -> None:
    """Animations and multi-page files are their first picture."""
    other = photograph.transpose(Image.Transpose.ROTATE_180)
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        many = encode(photograph, kind, save_all=True, append_images=[other], **options)
        assert torch.equal(decode(many), decode(encode(photograph, kind, **options)))


@pytest.mark.parametrize(
    "size", [(1, 1), (7, 5), (224, 224), (256, 256), (257, 255), (1500, 300), (300, 1501)]
)
def test_every_size_is_brought_to_the_crop(
    size: tuple[int, int], photograph: Image.Image, encode: Encode
) -> None:
    """Small, odd and long images give the same shape, with Pillow's pixels."""
    data = encode(photograph.resize(size), "PNG")
    assert decode(data).shape == (3, 224, 224)
    assert_like(data, photograph.resize(size))


def test_resize_and_crop_are_what_was_asked_for(photograph: Image.Image, encode: Encode) -> None:
    """Other sizes than the default are possible, and impossible ones are refused."""
    data = encode(photograph, "PNG")
    result = decode(data, resize=160, crop=128)
    assert (result.shape, result.dtype, result.is_contiguous()) == ((3, 128, 128), torch.uint8, True)
    with pytest.raises(ValueError, match="crop must be between 1 and resize"):
        decode(data, resize=100, crop=101)


def test_the_answer_depends_on_nothing_else(photograph: Image.Image, encode: Encode) -> None:
    """Number of threads, kind of buffer and repetition change no byte."""
    data = encode(photograph.resize((1900, 1400)), "JPEG")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = decode(data)
        torch.set_num_threads(4)
        assert torch.equal(decode(bytearray(data)), alone)
        assert torch.equal(decode(memoryview(data)), alone)
    finally:
        torch.set_num_threads(threads)


@survives_warnings
@pytest.mark.parametrize("name", FORMATS)
def test_no_cut_gives_other_pixels(name: str, photograph: Image.Image, encode: Encode) -> None:
    """Wherever a file is cut it is refused, unless only bytes behind the last pixel are missing."""
    kind, options = FORMATS[name]
    data = encode(photograph.resize((120, 100)), kind, **options)
    whole = decode(data)
    cuts = [
        *range(40),
        *range(40, len(data) - 40, max(1, len(data) // 60)),
        *range(len(data) - 40, len(data)),
    ]
    refused = []
    for cut in cuts:
        try:
            assert torch.equal(decode(data[:cut]), whole)
        except ImageError as error:
            refused.append(error.reason)
    assert set(refused) <= {"empty", "not_an_image", "truncated", "decode_failed"}
    assert len(refused) > len(cuts) / 2
    assert reason(data[: len(data) * 2 // 3]) == "truncated"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_cut_jpeg_is_not_saved_by_an_end_marker(mode: str, photograph: Image.Image, encode: Encode) -> None:
    """A JPEG whose missing rest was closed with an end marker would be half grey in Pillow: it is refused."""
    data = encode(photograph.convert(mode), "JPEG")
    closed = data[: len(data) // 2] + b"\xff\xd9"
    Image.open(io.BytesIO(closed)).load()  # Pillow sees nothing wrong
    assert reason(closed) == "truncated"


def test_stray_bytes_in_a_jpeg_are_harmless(photograph: Image.Image, encode: Encode) -> None:
    """Bytes before the end marker or behind the image, which cameras do leave, cost nothing."""
    data = encode(photograph, "JPEG")
    assert_like(data[:-2] + b"\0\0\0\xff\xd9", photograph_of(data))
    assert torch.equal(decode(data + b"more"), decode(data))


def photograph_of(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, body: bytes = b"") -> bytes:
    """Write a PNG chunk by chunk."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    """Small files whose headers promise 50,000 x 50,000 pixels (WebP: the most it can)."""
    side = 50_000
    gif = b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0)
    gif += b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x08\x01\x00\x00;"
    bmp = (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, *[0] * 6)
    )
    tags = [
        (256, side),
        (257, side),
        (258, 8),
        (259, 5),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, side),
        (279, 10),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    tiff = b"II\x2a\x00\x08\x00\x00\x00" + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
    frame = struct.pack(">HBHHB", 17, 8, side, side, 3) + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    scan = b"\xff\xda" + struct.pack(">HB", 12, 3) + b"\x01\x00\x02\x00\x03\x00\x00\x3f\x00"
    most = (16383 - 1).to_bytes(3, "little")
    webp = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + most + most
    webp += b"VP8L" + struct.pack("<I", 8) + b"\x2f" + (16382 | 16382 << 14).to_bytes(4, "little") + b"\0\0\0"
    return {
        "PNG": png(side, side, body=zlib.compress(bytes(1000))),
        "GIF": gif,
        "BMP": bmp,
        "TIFF": tiff,
        "JPEG": b"\xff\xd8\xff\xc0" + frame + scan + b"\xff\xd9",
        "WEBP": b"RIFF" + struct.pack("<I", len(webp)) + webp,
    }


@pytest.mark.parametrize("kind", bombs())
def test_a_header_that_promises_too_much_is_refused(kind: str) -> None:
    """In every format the header alone decides."""
    assert reason(bombs()[kind]) == "too_many_pixels"


def test_a_refused_bomb_costs_no_memory() -> None:
    """A process that may hold 200 MB more than it has survives a file that would need 7,500 MB."""
    program = """
import resource, sys
import imagebatch_pixels
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
try:
    imagebatch_pixels.decode(sys.stdin.buffer.read())
except imagebatch_pixels.ImageError as error:
    print(error.reason)
"""
    bomb = bombs()["PNG"]
    done = subprocess.run([sys.executable, "-I", "-c", program], input=bomb, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "too_many_pixels"


def test_limits_are_inclusive_and_hold_for_the_resized_image(photograph: Image.Image, encode: Encode) -> None:
    """320 x 280 is 89,600 pixels; and a thread-thin image may not grow into a huge one."""
    data = encode(photograph, "PNG")
    assert probe(data, max_pixels=89_600).width == 320
    with pytest.raises(ImageError):
        probe(data, max_pixels=89_599)
    assert reason(data, max_pixels=89_599) == "too_many_pixels"
    assert reason(encode(Image.new("L", (50_000, 1)), "PNG")) == "too_many_pixels"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"\0", "not_an_image"),
        (b"this is a text file", "not_an_image"),
        (b"BMW builds cars in Munich since 1928", "not_an_image"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "not_an_image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "decode_failed"),
        (b"8BPS\0\1" + bytes(20), "unsupported_format"),
        (b"8BPS\0\1", "unsupported_format"),
        (b"%PDF-1.7\n", "unsupported_format"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (png(10, 10, body=b"no zlib stream"), "decode_failed"),
        (png(0, 10), "decode_failed"),
        (png(10, 10, depth=3), "decode_failed"),
        (b"\xff\xd8\xff\xd9", "decode_failed"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, expected: str) -> None:
    """Each kind of failure has its own reason."""
    assert reason(data) == expected


def test_pixels_without_a_defined_range_are_refused(encode: Encode) -> None:
    """32-bit and floating-point images could mean anything; guessing would be silent nonsense."""
    for values in (np.zeros((20, 20), np.int32), np.zeros((20, 20), np.float32)):
        assert reason(encode(Image.fromarray(values), "TIFF")) == "unsupported_format"


@survives_warnings
def test_damage_never_escapes_as_another_error(photograph: Image.Image, encode: Encode) -> None:
    """2,200 files with random bytes changed: each gives pixels or an ImageError, nothing else."""
    chance = random.Random(5)
    failures = 0
    for kind, options in FORMATS.values():
        data = encode(photograph.resize((60, 50)), kind, **options)
        for _ in range(200):
            damaged = bytearray(data)
            for _ in range(chance.randint(1, 8)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            try:
                assert decode(damaged).shape == (3, 224, 224)
            except ImageError:
                failures += 1
    assert failures > 200


@survives_warnings
def test_broken_metadata_does_not_cost_the_image(photograph: Image.Image, encode: Encode) -> None:
    """An EXIF block that cannot be read says nothing about the pixels."""
    broken = encode(photograph, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert torch.equal(decode(broken), decode(encode(photograph, "JPEG")))


def test_details_are_one_bounded_printable_line() -> None:
    """Whatever a decoder says, the message stays fit for a table."""
    error = ImageError("decode_failed", "a\nb\x1b[31m\t" + "c" * 500)
    assert error.detail.startswith("a b [31m c")
    assert len(error.detail) == 200
    assert str(error).startswith("decode_failed: ")


def fitted(image: Image.Image, fit: Fit, resize: int, crop: int) -> npt.NDArray[np.int64]:
    """Do what the options say with Pillow alone."""
    kind = Image.Resampling.BICUBIC if fit.interpolation == "bicubic" else Image.Resampling.BILINEAR
    if fit.fit == "squash":
        square = image.resize((resize, resize), kind)
    elif fit.fit == "pad":
        # Its own rounding of the shorter side is another one.
        size = tuple((resize * side) // max(image.size) for side in image.size)
        small = image.resize(size, kind)
        square = Image.new("RGB", (resize, resize), fit.rgb)
        square.paste(small, tuple((resize - side) // 2 for side in small.size))
    else:
        square = image.resize(tuple((resize * side) // min(image.size) for side in image.size), kind)
    corner = [round((side - crop) / 2) for side in square.size]
    cut = square.crop((*corner, corner[0] + crop, corner[1] + crop))
    return np.asarray(cut).transpose(2, 0, 1).astype(np.int64)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(320, 280), (280, 321), (90, 300)])
def test_a_picture_becomes_a_square_as_the_model_declares(
    fit: str, interpolation: str, size: tuple[int, int], photograph: Image.Image, encode: Encode
) -> None:
    """Each way is what Pillow makes but for rounding, and the colour that fills is the declared one."""
    declared = Fit(fit=fit, interpolation=interpolation, padding="#10c020")
    picture = photograph.resize(size)
    pixels = decode(encode(picture, "PNG"), resize=72, crop=64, fit=declared)
    assert pixels.shape == (3, 64, 64)
    difference = np.abs(pixels.numpy().astype(np.int64) - fitted(picture, declared, 72, 64))
    assert difference.max() <= 2
    assert (difference > 1).mean() < 0.001
    if fit == "pad" and size == (90, 300):
        assert pixels[:, 30, 0].tolist() == [0x10, 0xC0, 0x20]


def test_a_grey_picture_is_filled_with_a_colour(encode: Encode) -> None:
    """One channel in the file, three in what surrounds it."""
    data = encode(Image.new("L", (10, 40), 200), "PNG")
    pixels = decode(data, resize=16, crop=16, fit=Fit(fit="pad", padding="#ff0000"))
    assert pixels[:, 8, 0].tolist() == [255, 0, 0]
    assert pixels[:, 8, 8].tolist() == [200, 200, 200]


def test_what_is_not_declared_changes_no_byte(photograph: Image.Image, encode: Encode) -> None:
    """The default `Fit` is the pixels of before."""
    data = encode(photograph, "JPEG")
    assert torch.equal(decode(data), decode(data, fit=Fit()))
    assert Fit().declared() == {}


def stretched(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """What the option says, in floats, from numpy's percentiles."""
    low, high = np.percentile(values, [1, 99], method="inverted_cdf").astype(float)
    return np.clip(np.floor((values - low) * 255 / (high - low) + 0.5), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_contrast_is_spread_from_percentile_to_percentile(
    mode: str, photograph: Image.Image, encode: Encode
) -> None:
    """Over the square that the model sees, all channels alike, to the bit; grey saved in colour is the
    same picture.
    """
    dull = photograph.convert(mode).point(lambda value: value // 3 + 60)
    declared = Fit(contrast="percentiles-1-99")
    before = decode(encode(dull, "PNG"), resize=72, crop=63)
    after = decode(encode(dull, "PNG"), resize=72, crop=63, fit=declared)
    seen = before.numpy() if mode == "RGB" else before.numpy()[:1]
    assert np.array_equal(after.numpy(), np.broadcast_to(stretched(seen), after.shape))
    assert (int(after.min()), int(after.max())) == (0, 255)
    if mode == "L":
        coloured = decode(encode(dull.convert("RGB"), "PNG"), resize=72, crop=63, fit=declared)
        assert torch.equal(after, coloured)


def test_a_square_of_one_value_has_no_contrast_to_spread(encode: Encode) -> None:
    """It stays as it is, and is told to be so declared."""
    data = encode(Image.new("L", (20, 20), 7), "PNG")
    fit = Fit(contrast="percentiles-1-99")
    assert decode(data, resize=16, crop=16, fit=fit).unique().tolist() == [7]
    assert fit.declared() == {"contrast": "percentiles-1-99"}
    with pytest.raises(ValueError, match="contrast must be as-is or percentiles-1-99: got 'more'"):
        Fit(contrast="more")
