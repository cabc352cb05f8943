"""Large JPEGs, decoded at a few eighths of their size: as good as whole, as surely refused, for less."""

import io
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from imagebatch_header import FIRST_PIXELS, PIXELS_VERSION, ImageError, View
from imagebatch_picture import read
from imagebatch_pixels import Fit, decode
from PIL import Image

Encode = Callable[..., bytes]

SMALL = {"resize": 64, "crop": 56}
HEIGHT, WIDTH = 561, 743  # odd: no whole number of blocks, and none of eighths
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "4:2:0": ("RGB", {"subsampling": 2}),
    "4:2:2": ("RGB", {"subsampling": 1}),
    "4:4:4": ("RGB", {"subsampling": 0}),
    "progressive": ("RGB", {"progressive": True}),
    "progressive 4:4:4": ("RGB", {"progressive": True, "subsampling": 0}),
    "grey": ("L", {}),
    "grey progressive": ("L", {"progressive": True}),
    "CMYK": ("CMYK", {}),
    "restarts": ("RGB", {"restart_marker_rows": 2}),
    "profile": ("RGB", {"icc_profile": b"no profile at all"}),
}


@pytest.fixture(scope="module")
def large() -> Image.Image:
    """Structure down to some pixels of the result, as a lens leaves it, and a camera's noise."""
    chance = np.random.default_rng(11)
    pixels = np.zeros((HEIGHT, WIDTH, 3))
    for cells in (3, 9, 40):
        coarse = Image.fromarray(chance.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), float) / 3
    pixels += chance.normal(0, 4, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def files(large: Image.Image, encode: Encode) -> dict[str, bytes]:
    return {
        kind: encode(large.convert(mode), "JPEG", quality=90, **options)
        for kind, (mode, options) in KINDS.items()
    }


def outcome(data: bytes, version: str, **more: Any) -> torch.Tensor | str:
    try:
        return decode(data, **SMALL | more, version=version)
    except ImageError as error:
        return error.reason


def differences(data: bytes, **more: Any) -> tuple[float, int]:
    """Mean and largest difference, of 255, between scaled and whole decoding."""
    scaled, whole = (
        decode(data, **SMALL | more, version=version).to(torch.int16)
        for version in (PIXELS_VERSION, FIRST_PIXELS)
    )
    found = (scaled - whole).abs()
    return float(found.double().mean()), int(found.max())


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_jpeg_is_as_good_as_decoded_whole(kind: str, files: dict[str, bytes]) -> None:
    """Whatever it is made of, about one level of 255 lies between the two on average."""
    mean, most = differences(files[kind])
    assert 0 < mean < 1.2
    assert most <= 10


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_below_four_times_the_side_no_byte_changes(
    kind: str, fit: str, large: Image.Image, encode: Encode
) -> None:
    """The deciding side, one pixel short of four times what it becomes, is decoded whole; a PNG always."""
    side = min(large.size) if fit != "pad" else max(large.size)
    resize = side // 4
    data = encode(large, kind)
    of_fit = {"crop": 56, "fit": Fit(fit=fit)}
    same = [
        torch.equal(*(decode(data, resize=near, version=version, **of_fit) for version in ("1", "2")))
        for near in (resize + 1, resize)
    ]
    assert same == [True, kind == "PNG"]


@pytest.mark.parametrize(
    ("resize", "eighths"), [(140, 4), (105, 3), (106, 4), (70, 2), (71, 3), (35, 1), (36, 2), (141, 8)]
)
def test_twice_the_side_is_left(resize: int, eighths: int, files: dict[str, bytes]) -> None:
    """The fewest eighths that leave twice the side are decoded, rounded up; the own size is kept."""
    found = read(files["4:2:0"], eighths=Fit().eighths(resize, PIXELS_VERSION))
    assert found.pixels.shape == (-(-HEIGHT * eighths // 8), -(-WIDTH * eighths // 8), 3)
    assert found.size == (HEIGHT, WIDTH) == (found.header.height, found.header.width)
    assert eighths == 8 or HEIGHT * eighths / 8 >= 2 * resize


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_the_side_that_decides_depends_on_the_fit(fit: str, large: Image.Image, encode: Encode) -> None:
    """A long strip: squashed or cropped its short side counts, laid on a square its long one."""
    strip = encode(large.resize((1000, 130)), "JPEG", quality=90)
    scaled = read(strip, eighths=Fit(fit=fit).eighths(64, PIXELS_VERSION)).pixels.shape[1]
    assert scaled == (250 if fit == "pad" else 1000)
    assert differences(strip, fit=Fit(fit=fit))[0] < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_what_was_scaled(
    orientation: int, large: Image.Image, encode: Encode
) -> None:
    """Turned and mirrored as the whole picture is, after it is resized, and told at its own size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(large, "JPEG", quality=90, exif=exif)
    assert differences(data)[0] < 0.8
    scaled = read(data, eighths=Fit().eighths(64, PIXELS_VERSION))
    assert (scaled.orientation, scaled.size) == (orientation, (HEIGHT, WIDTH))
    assert read(data).orientation == 1


@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "progressive", "grey", "CMYK", "restarts"])
@pytest.mark.parametrize("resize", [35, 64, 140])
def test_no_cut_is_overlooked(kind: str, resize: int, files: dict[str, bytes]) -> None:
    """A file that ends anywhere before its end is refused for the same reason as whole."""
    data = files[kind]
    size = {"resize": resize, "crop": 32}
    chance = random.Random(resize)
    cuts = [len(data) - gone for gone in (1, 2, 3, 5, 20)]
    cuts += [chance.randrange(400, len(data)) for _ in range(15)]
    for cut in cuts:
        for end in (b"", b"\xff\xd9"):
            if data[:cut] + end == data:
                continue
            scaled, whole = (outcome(data[:cut] + end, version, **size) for version in ("2", "1"))
            assert isinstance(whole, str) == isinstance(scaled, str), (cut, end, whole, scaled)
            assert isinstance(scaled, torch.Tensor) or scaled == whole


@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "progressive", "grey", "restarts"])
def test_damage_is_told_as_by_the_whole(kind: str, files: dict[str, bytes]) -> None:
    """Bytes changed anywhere: what is refused whole is refused scaled, for the same reason, and no more."""
    chance = random.Random(7)
    refused = 0
    for _ in range(60):
        data = bytearray(files[kind])
        start = chance.randrange(2, len(data) - 40)
        wrong = chance.choice((b"\xff\xd9", b"\xff\xd3", chance.randbytes(1), chance.randbytes(32)))
        data[start : start + chance.choice((1, 4, 32))] = wrong
        scaled, whole = (outcome(bytes(data), version) for version in ("2", "1"))
        assert isinstance(whole, str) == isinstance(scaled, str), (start, whole, scaled)
        if isinstance(whole, str):
            refused += 1
            assert scaled == whole
    assert refused > 5


def test_the_limit_is_on_the_whole_picture(files: dict[str, bytes]) -> None:
    """A picture too large is refused by its header, however few eighths of it would be decoded."""
    limit = HEIGHT * WIDTH
    assert isinstance(outcome(files["4:2:0"], "2", max_pixels=limit), torch.Tensor)
    with pytest.raises(ImageError, match=f"{WIDTH} x {HEIGHT} pixels, at most {limit - 1}"):
        decode(files["4:2:0"], **SMALL, max_pixels=limit - 1)


def test_what_the_quick_decoder_complains_of_is_decoded_whole(files: dict[str, bytes]) -> None:
    """Stray bytes between two markers say nothing about the pixels, which only the slow decoder can tell."""
    data = files["4:2:0"]
    for at in (data.index(b"\xff\xdb"), len(data) - 2):
        strayed = data[:at] + b"\1\2\3" + data[at:]
        assert torch.equal(decode(strayed, **SMALL), decode(strayed, **SMALL, version="1"))


def test_a_missing_end_marker_is_forgiven_where_that_is_declared(files: dict[str, bytes]) -> None:
    """Scaled as whole: the declared view decides."""
    data = files["4:2:0"]
    assert outcome(data[:-2], "2") == "truncated"
    assert torch.equal(decode(data[:-2], **SMALL, view=View(end_marker="lenient")), decode(data, **SMALL))


def test_memory_is_a_small_part_of_the_wholes(large: Image.Image, encode: Encode) -> None:
    """Twelve megapixels: the decoded picture takes a sixteenth of the memory."""
    data = encode(large.resize((4032, 3024)), "JPEG", quality=90)
    peaks = []
    for version in ("1", "2"):
        tracemalloc.start()
        read(data, eighths=Fit().eighths(256, version))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > 36_000_000
    assert peaks[1] < 4_000_000


def test_a_version_that_there_is_not_is_refused(files: dict[str, bytes]) -> None:
    """No guess is made."""
    with pytest.raises(ValueError, match="pixels must be of version 1 or 2: got '3'"):
        decode(files["grey"], version="3")


def test_pillow_sees_the_same_picture(files: dict[str, bytes]) -> None:
    """Pillow scales a quarter as the decoder here does: only its conversion of colours rounds otherwise."""
    pillow = Image.open(io.BytesIO(files["4:4:4"]))
    pillow.draft("RGB", (WIDTH // 4, HEIGHT // 4))
    scaled = read(files["4:4:4"], eighths=lambda height, width: 2).pixels  # noqa: ARG005 - a quarter, always
    assert np.abs(scaled.astype(int) - np.asarray(pillow).astype(int)).max() <= 1


def test_a_row_that_is_partly_beyond_the_edge_shifts_nothing(encode: Encode) -> None:
    """A ramp stays the same ramp where its height and width are no whole number of what is decoded."""
    ramp = np.linspace(0, 255, WIDTH, dtype=np.float64) + np.linspace(0, 255, HEIGHT)[:, None]
    picture = Image.fromarray((ramp / 2).round().astype(np.uint8))
    for interpolation in ("bilinear", "bicubic"):
        mean, most = differences(encode(picture, "JPEG", quality=95), fit=Fit(interpolation=interpolation))
        assert mean < 0.3
        assert most <= 1
