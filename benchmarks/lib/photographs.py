"""The photographs that every contestant scores: 2,400 JPEGs, cut out of 100 real ones, and 60 large ones.

    benchmarks/.venv/bin/python -m benchmarks.lib.photographs [--count 2400] [FOLDER]

PyPI's `ai-benchmark` brings 100 photographs of 512 x 512. Each gives crops of about 490 x 375 at different
places, encoded at qualities from 85 to 95: sizes and bytes as photographs have them, no two files alike.
The large ones are the same photographs enlarged to 4032 x 3024, with noise as a camera's sensor leaves it: no
package brings photographs of 12 megapixels. What a lens would have drawn finer is not in them.
Deterministic: the same Pillow and numpy give the same bytes.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

COUNT = 2400
NIGHT = 20_000  # of a night: the same files under more names, see `link`
LARGE, LARGE_NAMES = 60, 480  # of 12 megapixels, and the names that a measurement has of them
LARGE_SIZE = (4032, 3024)
_LARGE_QUALITY = 90
_READ_NOISE, _SHOT_NOISE = (
    1.5,
    0.06,
)  # levels of 255, and levels squared for each level: a small sensor by day
_WIDTHS, _HEIGHTS, _QUALITIES = (470, 512), (350, 400), (85, 95)


def ensure(folder: Path, count: int = COUNT) -> list[Path]:
    """Make the photographs where they are missing; give their paths, sorted."""
    return _ensured(folder, count, _photographs(count))


def ensure_large(folder: Path, count: int = LARGE) -> list[Path]:
    """Make the photographs of 12 megapixels where they are missing; give their paths, sorted."""
    return _ensured(folder, count, _large(count))


def _ensured(folder: Path, count: int, made: Iterator[tuple[str, bytes]]) -> list[Path]:
    found = sorted(folder.glob("*.jpg"))
    if len(found) == count:
        return found
    # Two makers at once (two benchmarks waiting for the machine) must not mix their files.
    part = folder.with_name(f"{folder.name}.{os.getpid()}")
    part.mkdir(parents=True)
    for name, content in made:
        (part / name).write_bytes(content)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return sorted(folder.glob("*.jpg"))


def link(photographs: list[Path], folder: Path, count: int) -> Path:
    """Fill a folder with `count` names of the same files (hard links), for runs of any length."""
    if folder.is_dir() and len(os.listdir(folder)) == count:  # noqa: PTH208 - names are all that is wanted
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number in range(count):
        source = photographs[number % len(photographs)]
        os.link(source, folder / f"{number:07d}.jpg")
    return folder


def _sources() -> list[Image.Image]:
    sources = sorted(
        Path(str(file.locate()))
        for file in files("ai-benchmark") or ()
        if file.suffix == ".jpg" and file.parent.name == "classification"
    )
    if not sources:
        raise SystemExit("ai-benchmark brings no photographs: run `make bench`, which installs it")
    return [Image.open(source).convert("RGB") for source in sources]


def _photographs(count: int) -> Iterator[tuple[str, bytes]]:
    pictures = _sources()
    seen: set[bytes] = set()
    chance = random.Random(20261122)  # noqa: S311 - the same crops every time, no secrets
    for number in range(count):
        content = _crop(pictures[number % len(pictures)], chance)
        while content in seen:
            content = _crop(pictures[number % len(pictures)], chance)
        seen.add(content)
        yield f"photograph-{number:04d}.jpg", content


def _crop(picture: Image.Image, chance: random.Random) -> bytes:
    width, height = chance.randint(*_WIDTHS), chance.randint(*_HEIGHTS)
    left = chance.randint(0, picture.width - width)
    top = chance.randint(0, picture.height - height)
    buffer = io.BytesIO()
    cropped = picture.crop((left, top, left + width, top + height))
    cropped.save(buffer, "JPEG", quality=chance.randint(*_QUALITIES))
    return buffer.getvalue()


def _large(count: int) -> Iterator[tuple[str, bytes]]:
    pictures = _sources()
    for number in range(count):
        picture = enlarged(pictures[number % len(pictures)], number)
        yield f"large-{number:04d}.jpg", encoded(picture)


def enlarged(picture: Image.Image, seed: int, size: tuple[int, int] = LARGE_SIZE) -> Image.Image:
    """Enlarge a part of a photograph, of 4 to 3, with a sensor's noise.

    Args:
        picture: RGB.
        seed: Of the noise, and of which part is taken.
        size: Width and height that it is enlarged to, pixels.
    """
    chance = np.random.default_rng(20261201 + seed)
    wide = min(picture.width, picture.height * size[0] // size[1])
    high = wide * size[1] // size[0]
    left, top = (int(chance.integers(0, most + 1)) for most in (picture.width - wide, picture.height - high))
    part = picture.crop((left, top, left + wide, top + high))
    large = np.asarray(part.resize(size, Image.Resampling.BICUBIC), np.float32)
    # Noise grows with light, and a camera's own processing smears it over neighbours.
    noise = _grain(chance, size)[..., None]
    deviation = np.sqrt(_READ_NOISE**2 + _SHOT_NOISE * large)
    return Image.fromarray((large + noise * deviation + 0.5).clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image) -> bytes:
    """Write a large photograph as a camera does: quality 90, 4:2:0."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_LARGE_QUALITY, subsampling=2)
    return buffer.getvalue()


def _grain(chance: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Make noise of mean 0 and deviation 1, a little smeared: (height, width)."""
    width, height = size
    grain = Image.fromarray(chance.integers(0, 256, (height, width), np.uint8))
    smeared = np.asarray(grain.filter(ImageFilter.BoxBlur(0.5)), np.float32)
    noise: npt.NDArray[np.float32] = (smeared - smeared.mean()) / smeared.std()
    return noise


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("var/bench/photographs"))
    parser.add_argument("--count", type=int, default=COUNT)
    asked = parser.parse_args()
    made = ensure(asked.folder, asked.count)
    size = sum(path.stat().st_size for path in made)
    print(f"{len(made)} photographs of {size / len(made) / 1000:.0f} kB on average in {asked.folder}")
