"""The layouts of image files, one cell each: how to write it, and what its pixels are by another decoder.

`python -m tests.support.layouts` prints the table of docs/reference/image-formats.md. The test walks the same
cells: each is read right, or refused for a cause that the header gives.
"""

from __future__ import annotations

import io
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import imagecodecs  # type: ignore[import-untyped]  # ships no type marker
import numpy as np
import numpy.typing as npt
import pillow_heif  # type: ignore[import-untyped]  # ships no type marker
import pyvips  # type: ignore[import-untyped]  # ships no type marker
import tifffile  # type: ignore[import-untyped]  # ships no type marker
from imagebatch_header import ImageError
from imagebatch_picture import probe, read
from PIL import Image, ImageOps

from tests.support.images import photograph

Array = npt.NDArray[Any]

SIZE = (64, 48)
SHADES = np.asarray(photograph(4, SIZE).convert("L"))
COLOUR = np.stack([np.asarray(photograph(seed, SIZE).convert("L")) for seed in (1, 2, 3)], axis=-1)
ALPHA = np.asarray(photograph(9, SIZE).convert("L"))


@dataclass(frozen=True)
class Cell:
    """One layout.

    Attributes:
        format: Of the file.
        colours: Photometric interpretation, and what alpha means.
        samples: Bits and kind.
        planes: How samples and pixels lie in the file.
        compression: Of the pixels; the last of what differs within one line of the table.
        data: A file of it.
        pixels: What its pixels are, by another decoder or by who wrote it: uint8 (height, width, 1 or 3).
        tolerance: By how much of 255 a rounding or a lossy coding may differ.
    """

    format: str
    colours: str
    samples: str
    planes: str
    compression: str
    data: bytes
    pixels: Callable[[bytes], Array]
    tolerance: int = 0

    @property
    def name(self) -> str:
        """All that it is, as one line."""
        return f"{self.format}, {self.colours}, {self.samples}, {self.planes}, {self.compression}"


@dataclass(frozen=True)
class Verdict:
    """What became of a cell: `read`, or the cause of its refusal, or what is wrong."""

    read: bool = False
    refused: str = ""
    wrong: str = ""


def judge(cell: Cell) -> Verdict:
    """Read a cell's file, and compare it with the other decoder."""
    data = cell.data
    try:
        probe(data)
    except ImageError as error:
        cause = error.detail.partition(": not read here")[0]
        return Verdict(refused=cause) if error.reason == "unsupported_format" else Verdict(wrong=str(error))
    try:
        found = read(data).pixels.astype(int)
    except ImageError as error:
        return Verdict(wrong=f"found only while decoding: {error}")
    expected = cell.pixels(data).astype(int)
    if found.shape[:2] != expected.shape[:2]:
        return Verdict(wrong=f"{found.shape} where {expected.shape} is right")
    worst = int(np.abs(found - expected).max())
    return Verdict(read=True) if worst <= cell.tolerance else Verdict(wrong=f"off by {worst} of 255")


def cells() -> Iterator[Cell]:
    """Yield every cell."""
    yield from _tiff()
    yield from _bilevel_tiff()
    yield from _png()
    yield from _jpeg()
    yield from _others()
    yield from _turned()


# --- what samples mean, by the formats' own documents


def on_white(colours: Array, alpha: Array) -> Array:
    """Lay colours of 8 bits on white."""
    clear = alpha.astype(float)[..., None] / 255
    return np.rint(colours * clear + 255 * (1 - clear))


def to_bytes(samples: Array) -> Array:
    """Scale unsigned samples of their whole range to 8 bits: grey rounded, colour by its high byte."""
    if samples.dtype == bool:
        return samples.astype(np.uint8) * 255
    if samples.dtype.itemsize == 1:
        return samples
    grey = samples.ndim == 2 or samples.shape[-1] == 1
    return np.rint(samples / 257) if grey else samples >> 8


def _meant(samples: Array, photometric: str, extra: str, palette: Array | None) -> Array:
    """Turn samples as tifffile gives them, planes last, into what they mean: (height, width, 1 or 3)."""
    samples = samples if samples.ndim == 3 else samples[..., None]
    if photometric == "palette":
        assert palette is not None
        return (palette >> 8).T[samples[..., 0]]
    count = {"minisblack": 1, "miniswhite": 1, "rgb": 3, "separated": 4, "cielab": 3, "ycbcr": 3}[photometric]
    colours, rest = to_bytes(samples[..., :count]).astype(float), samples[..., count:]
    if photometric == "miniswhite":
        colours = 255 - colours
    if photometric == "separated":
        colours = (255 - colours[..., :3]) * (255 - colours[..., 3:]) / 255
    if extra in ("unassalpha", "assocalpha"):
        alpha = (rest[..., 0] >> 8 if rest.dtype == np.uint16 else rest[..., 0]).astype(float)
        return colours + 255 - alpha[..., None] if extra == "assocalpha" else on_white(colours, alpha)
    return colours


def by_tifffile(data: bytes) -> Array:
    """Decode a TIFF's first page with tifffile, which decodes with imagecodecs."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        samples = page.asarray()
        separate = page.planarconfig == 2 and samples.ndim == 3
        extra = [kind.name.lower() for kind in page.extrasamples]
        return _meant(
            np.moveaxis(samples, 0, -1) if separate else samples,
            page.photometric.name.lower(),
            extra[0] if extra else "",
            page.colormap,
        )


def by_vips(data: bytes) -> Array:
    """Decode with libvips: 8 bits, sRGB, on white."""
    image = pyvips.Image.new_from_buffer(data, "")
    if image.interpretation in ("grey16", "rgb16"):
        image = (image / 257).rint().cast("uchar") if image.bands < 3 else (image >> 8).cast("uchar")
    elif image.interpretation not in ("srgb", "b-w", "multiband"):
        image = image.colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=255)
    pixels = np.asarray(image.numpy())
    return pixels if pixels.ndim == 3 else pixels[..., None]


def known(pixels: Array) -> Callable[[bytes], Array]:
    """Give what was written, of a coding that loses nothing."""
    whole = pixels if pixels.ndim == 3 else pixels[..., None]
    return lambda _: whole


def by_formula(data: bytes) -> Array:
    """Turn CIE L*a*b* (D50) into sRGB by their definitions, with Bradford's matrix between the whites."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        stored = file.pages[0].asarray()
    light = stored[..., 0].astype(float) * 100 / 255
    red, blue = (stored[..., at].astype(np.int8).astype(float) for at in (1, 2))
    height = (light + 16) / 116
    steps = np.stack([height + red / 500, height, height - blue / 200], axis=-1)
    xyz = np.where(steps > 6 / 29, steps**3, (steps - 4 / 29) * 3 * (6 / 29) ** 2) * [0.9642, 1, 0.8249]
    matrix = [[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]]
    linear = np.clip(xyz @ np.array(matrix).T, 0, 1)
    return np.rint(255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, linear * 12.92))


# --- TIFF

_CODINGS = {
    "none": {},
    "LZW": {"compression": "lzw"},
    "LZW, predictor": {"compression": "lzw", "predictor": True},
    "Deflate": {"compression": "zlib"},
    "Deflate, predictor": {"compression": "zlib", "predictor": True},
    "old Deflate": {"compression": "deflate"},
    "PackBits": {"compression": "packbits"},
    "Zstandard": {"compression": "zstd"},
    "LZMA": {"compression": "lzma"},
    "JPEG": {"compression": "jpeg", "compressionargs": {"level": 95}},
    "WebP": {"compression": "webp", "compressionargs": {"level": 95, "lossless": True}},
    "JPEG 2000": {"compression": "jpeg2000"},
    "JPEG XL": {"compression": "jpegxl"},
    "JPEG XR": {"compression": "jpegxr"},
    "LERC": {"compression": "lerc"},
    "PNG": {"compression": "png"},
}
_FEW = ("none", "Deflate", "LERC")
_OFTEN = ("grey", "RGB", "RGB and alpha")
_LIES = {
    "strips": {"rowsperstrip": 16},
    "tiles": {"tile": (16, 32)},
    "strips, big-endian": {"rowsperstrip": 16, "byteorder": ">"},
    "tiles, BigTIFF": {"tile": (16, 16), "bigtiff": True},
    "separate planes": {"planarconfig": "separate", "rowsperstrip": 16},
    "separate planes, tiles": {"planarconfig": "separate", "tile": (16, 32)},
}
_KINDS = {
    "8 bits": np.uint8,
    "16 bits": np.uint16,
    "32 bits": np.uint32,
    "8 bits, signed": np.int8,
    "16 bits, signed": np.int16,
    "16 bits, float": np.float16,
    "32 bits, float": np.float32,
}
_COLOURS: dict[str, tuple[str, int, str]] = {
    "grey": ("minisblack", 1, ""),
    "grey, 0 is white": ("miniswhite", 1, ""),
    "grey and alpha": ("minisblack", 1, "unassalpha"),
    "grey and premultiplied alpha": ("minisblack", 1, "assocalpha"),
    "grey and another sample": ("minisblack", 1, "unspecified"),
    "RGB": ("rgb", 3, ""),
    "RGB and alpha": ("rgb", 3, "unassalpha"),
    "RGB and premultiplied alpha": ("rgb", 3, "assocalpha"),
    "RGB and another sample": ("rgb", 3, "unspecified"),
    "CMYK": ("separated", 4, ""),
    "palette": ("palette", 1, ""),
}


def _samples(kind: str, count: int, extra: str) -> Array:
    planes = [COLOUR[..., index % 3] if count > 1 else SHADES for index in range(count)]
    if extra:
        planes.append(ALPHA)
    if extra == "assocalpha":
        planes[:-1] = [np.minimum(plane, ALPHA) for plane in planes[:-1]]
    whole = np.stack(planes, axis=-1)
    dtype = np.dtype(_KINDS[kind])
    if dtype.kind == "f":
        return (whole / 255).astype(dtype)
    return (whole.astype(np.int64) * {1: 1, 2: 257, 4: 16843009}[dtype.itemsize]).astype(dtype)


def _tiff() -> Iterator[Cell]:
    axes = itertools.product(_COLOURS.items(), _KINDS, _LIES.items(), _CODINGS.items())
    for (colours, (photometric, count, extra)), kind, (lies, where), (name, coding) in axes:
        if not _wanted(colours, kind, lies, name):
            continue
        samples = _samples(kind, count, extra)
        options = {"photometric": photometric, **where, **deepcopy(coding)}
        if extra:
            options["extrasamples"] = [extra]
        if samples.shape[-1] == 1:
            samples = samples[..., 0]
        elif "planarconfig" in where:
            samples = np.ascontiguousarray(np.moveaxis(samples, -1, 0))
        else:
            options["planarconfig"] = "contig"
        if colours == "palette":
            options["colormap"] = np.random.default_rng(3).integers(0, 256, (3, 256), np.uint16) * 257
        data = _written(samples, options)
        if data is not None:
            off = _TOLERANCE.get(extra, 0) + (1 if colours == "CMYK" else 0)
            if name == "JPEG":  # where alpha divides and multiplies, the loss grows
                off += 12 if extra == "assocalpha" else 3
            yield Cell("TIFF", colours, kind, lies, name, data, by_tifffile, off)


_TOLERANCE = {"unassalpha": 1, "assocalpha": 1}


def _wanted(colours: str, kind: str, lies: str, coding: str) -> bool:
    """Leave out what there is not, and of what is refused for its samples all but a few."""
    if ("separate" in lies and _COLOURS[colours][1] + bool(_COLOURS[colours][2]) == 1) or (
        colours == "palette" and kind != "8 bits"
    ):
        return False
    if kind not in ("8 bits", "16 bits"):
        return coding in _FEW and lies == "strips"
    return colours in _OFTEN or lies in ("strips", "separate planes", "strips, big-endian")


def _written(samples: Array, options: dict[str, Any]) -> bytes | None:
    """Write a TIFF; None where there is no such layout, or nothing writes it or reads it again."""
    stream = io.BytesIO()
    try:
        tifffile.imwrite(stream, samples, **options)
        by_tifffile(stream.getvalue())
    except Exception:  # noqa: BLE001 (a writer refuses what it does not know with what it likes)
        return None
    return stream.getvalue()


def _bilevel_tiff() -> Iterator[Cell]:
    bits = SHADES > 128
    black = Image.fromarray(bits)
    codings = {
        "none": None,
        "CCITT": "tiff_ccitt",
        "group 3": "group3",
        "group 4": "group4",
        "LZW": "tiff_lzw",
    }
    codings |= {"PackBits": "packbits", "Deflate": "tiff_adobe_deflate"}
    for name, compression in codings.items():
        data = _saved(black, "TIFF", compression=compression)
        yield Cell("TIFF", "grey", "1 bit", "strips", name, data, known(to_bytes(bits)))
    for kind, image in (("Lab", _lab()), ("YCbCr", Image.fromarray(COLOUR).convert("YCbCr"))):
        by = by_formula if kind == "Lab" else known(np.asarray(image.convert("RGB")))
        yield Cell("TIFF", kind, "8 bits", "strips", "none", _saved(image, "TIFF"), by, 3)


def _lab() -> Image.Image:
    """Colours that are within sRGB."""
    chroma = [(COLOUR[..., at] // 4 + 96).astype(np.uint8) for at in (0, 1)]
    return Image.merge("LAB", [Image.fromarray(plane) for plane in (SHADES, *chroma)])


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# --- PNG


def _png() -> Iterator[Cell]:
    colours = {"grey": SHADES[..., None], "RGB": COLOUR}
    for (name, base), alpha, bits, interlaced in itertools.product(
        colours.items(), (False, True), (8, 16), (False, True)
    ):
        samples = np.concatenate([base, ALPHA[..., None]], axis=-1) if alpha else base
        wide = samples.astype(np.uint16) * 257 if bits == 16 else samples
        vips = pyvips.Image.new_from_array(
            wide,
            interpretation={8: "srgb", 16: "rgb16"}[bits]
            if name == "RGB"
            else {8: "b-w", 16: "grey16"}[bits],
        )
        data = vips.pngsave_buffer(interlace=interlaced, bitdepth=bits)
        expected = on_white(base, ALPHA) if alpha else base
        yield Cell(
            "PNG",
            f"{name} and alpha" if alpha else name,
            f"{bits} bits",
            "interlaced" if interlaced else "rows",
            "Deflate",
            data,
            known(expected),
            1 if alpha else 0,
        )
    for bits, interlaced in itertools.product((1, 2, 4), (False, True)):
        levels = (SHADES >> (8 - bits)).astype(int) * 255 // ((1 << bits) - 1)
        vips = pyvips.Image.new_from_array(levels.astype(np.uint8), interpretation="b-w")
        data = vips.pngsave_buffer(interlace=interlaced, bitdepth=bits)
        lies = "interlaced" if interlaced else "rows"
        yield Cell("PNG", "grey", f"{bits} bits", lies, "Deflate", data, by_vips)
    for bits in (1, 2, 4, 8):
        image = Image.fromarray(COLOUR).quantize(1 << bits)
        for clear in (False, True):
            data = _saved(image, "PNG", bits=bits, **({"transparency": 1} if clear else {}))
            name = "palette, one entry clear" if clear else "palette"
            yield Cell("PNG", name, f"{bits} bits", "rows", "Deflate", data, by_vips)


# --- JPEG


def _jpeg() -> Iterator[Cell]:
    image = Image.fromarray(COLOUR)
    kinds = {"grey": (image.convert("L"), {}), "CMYK": (image.convert("CMYK"), {})}
    kinds |= {f"YCbCr {name}": (image, {"subsampling": name}) for name in ("4:4:4", "4:2:2", "4:2:0")}
    kinds["RGB"] = (image, {"keep_rgb": True})
    for (name, (source, options)), progressive in itertools.product(kinds.items(), (False, True)):
        data = _saved(source, "JPEG", quality=92, progressive=progressive, **options)
        lies = "progressive" if progressive else "baseline"
        yield Cell("JPEG", name, "8 bits", lies, "DCT", data, _by_jpeg8)
    for bits, samples in ((8, COLOUR), (12, COLOUR.astype(np.uint16) << 4)):
        data = imagecodecs.jpeg8_encode(samples, bitspersample=bits, lossless=True, predictor=1)
        yield Cell("JPEG", "RGB", f"{bits} bits", "lossless", "predictive", data, known(COLOUR))
    data = imagecodecs.jpeg8_encode(COLOUR.astype(np.uint16) << 4, bitspersample=12)
    yield Cell("JPEG", "YCbCr 4:2:0", "12 bits", "baseline", "DCT", data, known(COLOUR))


def _by_jpeg8(data: bytes) -> Array:
    pixels = imagecodecs.jpeg8_decode(data)
    if pixels.ndim == 3 and pixels.shape[-1] == 4:  # inverted, as Adobe's are
        return np.asarray(Image.fromarray(255 - pixels, "CMYK").convert("RGB"))
    return pixels if pixels.ndim == 3 else pixels[..., None]


# --- the others


def _others() -> Iterator[Cell]:
    image, grey = Image.fromarray(COLOUR), Image.fromarray(SHADES)
    clear = Image.fromarray(np.dstack([COLOUR, ALPHA]))
    for name, source, expected, off in (
        ("RGB", image, COLOUR, 0),
        ("RGB and alpha", clear, on_white(COLOUR, ALPHA), 1),
    ):
        data = _saved(source, "WEBP", lossless=True, exact=True)
        yield Cell("WebP", name, "8 bits", "-", "lossless", data, known(expected), off)
        data = _saved(source, "WEBP", quality=95)
        yield Cell("WebP", name, "8 bits", "-", "lossy", data, by_vips, 1)
    for interlace in (False, True):
        data = _saved(image.quantize(64), "GIF", interlace=interlace)
        lies = "interlaced" if interlace else "rows"
        yield Cell("GIF", "palette", "8 bits", lies, "LZW", data, by_vips)
    for name, source, expected in (
        ("RGB", image, COLOUR),
        ("grey", grey, SHADES),
        ("palette", image.quantize(64), np.asarray(image.quantize(64).convert("RGB"))),
        ("grey", Image.fromarray(SHADES > 128), to_bytes(SHADES > 128)),
    ):
        bits = "1 bit" if source.mode == "1" else "8 bits"
        yield Cell(
            "BMP",
            name,
            bits,
            "rows from below",
            "none",
            _saved(source, "BMP"),
            known(expected),
        )
    yield from _newer()


def _newer() -> Iterator[Cell]:
    opaque = np.full((*SHADES.shape, 1), 255, np.uint8)
    sources = {
        "grey": SHADES,
        "grey and alpha": np.dstack([SHADES, opaque]),
        "RGB": COLOUR,
        "RGB and alpha": np.dstack([COLOUR, opaque]),
    }
    for (name, samples), bits in itertools.product(sources.items(), (8, 10, 12, 16)):
        deep = samples if bits == 8 else (samples.astype(np.uint16) * 257 >> (16 - bits))
        data = imagecodecs.jpegxl_encode(deep, lossless=True, bitspersample=bits)
        expected = SHADES if name.startswith("grey") else COLOUR
        yield Cell("JPEG XL", name, f"{bits} bits", "-", "lossless", data, known(expected), 1)
    for (name, samples), bits in itertools.product(sources.items(), (8, 12, 16)):
        deep = samples if bits == 8 else (samples.astype(np.uint16) * 257 >> (16 - bits))
        data = imagecodecs.jpeg2k_encode(deep, level=0, reversible=True, bitspersample=bits)
        expected = SHADES if name.startswith("grey") else COLOUR
        yield Cell("JPEG 2000", name, f"{bits} bits", "-", "lossless", data, known(expected), 1)
    for bits in (8, 10, 12):
        deep = COLOUR if bits == 8 else (COLOUR.astype(np.uint16) * 257 >> (16 - bits))
        data = imagecodecs.avif_encode(deep, level=100, bitspersample=bits, speed=8)
        yield Cell("AVIF", "RGB", f"{bits} bits", "-", "AV1", data, known(COLOUR), 3)
    for name, mode in (("grey", "L"), ("RGB", "RGB"), ("RGB and alpha", "RGBA")):
        stream = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(COLOUR).convert(mode)).save(stream, quality=-1, chroma=444)
        data = stream.getvalue()
        expected = np.asarray(Image.fromarray(COLOUR).convert("L" if mode == "L" else "RGB"))
        yield Cell("HEIC", name, "8 bits", "-", "HEVC", data, known(expected), 3)


def _turned() -> Iterator[Cell]:
    for kind, orientation in itertools.product(("JPEG", "PNG", "WebP", "TIFF", "AVIF"), range(1, 9)):
        image, exif = Image.fromarray(COLOUR), Image.Exif()
        exif[0x0112] = orientation
        data = _saved(
            image, kind.upper(), exif=exif, quality=100, **({"lossless": True} if kind == "WebP" else {})
        )
        plain = _saved(image, kind.upper(), quality=100, **({"lossless": True} if kind == "WebP" else {}))
        shown = Image.open(io.BytesIO(plain)).convert("RGB")
        shown.getexif()[0x0112] = orientation
        expected = np.asarray(ImageOps.exif_transpose(shown))
        yield Cell(
            kind,
            "RGB",
            "8 bits",
            f"orientation {orientation}",
            "as above",
            data,
            known(expected),
            1,
        )


# --- the table


def table(verdicts: list[tuple[Cell, Verdict]]) -> str:
    """Return the table as Markdown, one line for what differs in nothing but the compression."""
    lines = [
        "| format | colours | samples | layout | read | refused |",
        "|---|---|---|---|---|---|",
    ]
    grouped: dict[tuple[str, ...], list[tuple[Cell, Verdict]]] = defaultdict(list)
    for cell, verdict in verdicts:
        grouped[cell.format, cell.colours, cell.samples, cell.planes].append((cell, verdict))
    merged: dict[tuple[str, str, str, str, str], list[str]] = defaultdict(list)
    for (kind, colours, samples, planes), group in grouped.items():
        good = ", ".join(cell.compression for cell, verdict in group if verdict.read)
        causes: dict[str, list[str]] = defaultdict(list)
        for cell, verdict in group:
            if not verdict.read:
                causes[verdict.refused or verdict.wrong].append(cell.compression)
        bad = "; ".join(f"{', '.join(names)}: {cause}" for cause, names in causes.items())
        merged[kind, colours, samples, good, bad].append(planes)
    for (kind, colours, samples, good, bad), planes in merged.items():
        lines.append(
            f"| {kind} | {colours} | {samples} | {'; '.join(planes)} | {good or '-'} | {bad or '-'} |"
        )
    proved = sum(verdict.read for _, verdict in verdicts)
    refused = sum(bool(verdict.refused) for _, verdict in verdicts)
    rest = len(verdicts) - proved - refused
    counts = f"{proved} proved, {refused} refused before scoring with their cause, {rest} untested"
    return f"{len(verdicts)} cells: {counts}.\n\n" + "\n".join(lines)


if __name__ == "__main__":
    print(table([(cell, judge(cell)) for cell in cells()]))  # noqa: T201 (a page is made of it)
