"""The images that an import is proved on: the user's, or drawn ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.images.sources import SUFFIXES, images_below

DRAWN: Final = 16


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image file.

    Attributes:
        path: Of the file.
        name: Below the folder of the images, with `/`.
        folder: The folder that it lies in, where that is a class's as ImageFolder has them; else empty.
    """

    path: Path
    name: str
    folder: str


def find_pictures(root: Path, most: int) -> tuple[list[Picture], list[str]]:
    """List images, evenly spread over the folder where there are more than wanted.

    Args:
        root: Folder, searched with all below it.
        most: Images wanted.

    Returns:
        The images by name, and the folders of classes, sorted; none where images lie in `root` itself.

    Raises:
        ConfigurationError: There is no such folder.
        DataError: There are no images in it.
    """
    if not root.is_dir():
        raise ConfigurationError(f"--images {root} is no folder")
    found = images_below(root)
    if not found:
        raise DataError(f"no images in {root}: expected {', '.join(sorted(SUFFIXES))}")
    folders = sorted({path.relative_to(root).parts[0] for path in found if path.parent != root})
    if any(path.parent == root for path in found):
        folders = []
    chosen = [found[index * len(found) // most] for index in range(most)] if len(found) > most else found
    pictures = [
        Picture(
            path=path,
            name=path.relative_to(root).as_posix(),
            folder=path.relative_to(root).parts[0] if folders else "",
        )
        for path in chosen
    ]
    return pictures, folders


def draw_pictures(root: Path) -> list[Picture]:
    """Draw images where the user gives none: gradients, shapes and grain, of several sizes, PNG and JPEG."""
    paths = [path for path, picture in _drawn(root) if not picture.save(path)]  # type: ignore[func-returns-value]  # it returns None
    return [Picture(path=path, name=path.name, folder="") for path in paths]


def _drawn(root: Path) -> Iterator[tuple[Path, Image.Image]]:
    random = np.random.default_rng(7)
    sizes: Sequence[tuple[int, int]] = ((320, 240), (240, 320), (400, 400), (511, 300))
    for index in range(DRAWN):
        wide, high = sizes[index % len(sizes)]
        corners = random.integers(0, 256, (2, 2, 3)).astype(np.uint8)
        picture = Image.fromarray(corners).resize((wide, high), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(picture)
        for _ in range(int(random.integers(1, 9))):
            left, top = int(random.integers(0, wide)), int(random.integers(0, high))
            size = int(random.integers(20, 160))
            colour = tuple(int(value) for value in random.integers(0, 256, 3))
            shape = draw.ellipse if random.random() < 0.5 else draw.rectangle  # noqa: PLR2004 - the toss of a coin
            shape((left, top, left + size, top + size // 2 + 10), fill=colour)
        grain = random.normal(0, 6, (high, wide, 1)) + np.asarray(picture)
        suffix = ".jpg" if index % 2 else ".png"
        yield root / f"drawn-{index:02}{suffix}", Image.fromarray(grain.clip(0, 255).astype(np.uint8))
