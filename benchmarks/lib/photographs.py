"""The photographs that every contestant scores: 2,400 distinct JPEGs, cut out of 100 real ones.

    benchmarks/.venv/bin/python -m benchmarks.lib.photographs [--count 2400] [FOLDER]

PyPI's `ai-benchmark` brings 100 photographs of 512 x 512. Each gives crops of about 490 x 375 at different
places, encoded at qualities from 85 to 95: sizes and bytes as photographs have them, no two files alike.
Deterministic: the same Pillow gives the same bytes.
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

from PIL import Image

COUNT = 2400
NIGHT = 20_000  # of a night: the same files under more names, see `link`
_WIDTHS, _HEIGHTS, _QUALITIES = (470, 512), (350, 400), (85, 95)


def ensure(folder: Path, count: int = COUNT) -> list[Path]:
    """Make the photographs where they are missing; give their paths, sorted."""
    found = sorted(folder.glob("*.jpg"))
    if len(found) == count:
        return found
    # Two makers at once (two benchmarks waiting for the machine) must not mix their files.
    part = folder.with_name(f"{folder.name}.{os.getpid()}")
    part.mkdir(parents=True)
    for name, content in _photographs(count):
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


def _photographs(count: int) -> Iterator[tuple[str, bytes]]:
    sources = sorted(
        Path(str(file.locate()))
        for file in files("ai-benchmark") or ()
        if file.suffix == ".jpg" and file.parent.name == "classification"
    )
    if not sources:
        raise SystemExit("ai-benchmark brings no photographs: run `make bench`, which installs it")
    pictures = [Image.open(source).convert("RGB") for source in sources]
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("var/bench/photographs"))
    parser.add_argument("--count", type=int, default=COUNT)
    asked = parser.parse_args()
    made = ensure(asked.folder, asked.count)
    size = sum(path.stat().st_size for path in made)
    print(f"{len(made)} photographs of {size / len(made) / 1000:.0f} kB on average in {asked.folder}")
