"""The table of images and labels: `labels.csv`, in memory and on disk."""

import csv
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

import numpy as np
import numpy.typing as npt

from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.files import write_text

Split = Literal["random", "block"]
SPLITS: Final[tuple[Split, ...]] = ("random", "block")
Part = Literal["train", "validation", "test"]
PARTS: Final[tuple[Part, ...]] = ("train", "validation", "test")

_OWN = ("image_id", "label", "block", "random_split", "block_split")


@dataclass(kw_only=True)
class Example:
    """One image.

    Attributes:
        image_id: Path below the folder of images, encoded as in docs/reference/run-layout.md.
        label: Class name; empty: uncertain, never trained or scored on.
        block: Number of its block, 0..n-1.
        random_split: Its part of the random split; empty for uncertain images.
        block_split: Its block's part of the block split, also for uncertain images.
        extra: Further columns of the data set.
    """

    image_id: str
    label: str
    block: int = -1
    random_split: str = ""
    block_split: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    def path(self, images: Path) -> Path:
        """Return the image's path in a folder of images."""
        return images / unquote_to_bytes(self.image_id).decode("utf-8", "surrogateescape")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """All images of a data set.

    Attributes:
        examples: In file order.
        classes: Class names in the order of the model's outputs.
    """

    examples: Sequence[Example]
    classes: Sequence[str]

    def targets(self) -> npt.NDArray[np.int64]:
        """Return the class index of every image, -1 for uncertain ones."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[e.label] if e.label else -1 for e in self.examples], dtype=np.int64)

    def blocks(self) -> npt.NDArray[np.int64]:
        """Return the block of every image."""
        return np.array([example.block for example in self.examples], dtype=np.int64)

    def members(self, split: Split, part: Part) -> npt.NDArray[np.int64]:
        """Return the positions of the labelled images of one part of a split, in file order."""
        return np.array(
            [i for i, e in enumerate(self.examples) if e.label and _part(e, split) == part], dtype=np.int64
        )

    def uncertain(self, split: Split, part: Part) -> npt.NDArray[np.int64]:
        """Return the positions of the uncertain images of one part of a split, in file order.

        The random split has none: it gives them no part.
        """
        return np.array(
            [i for i, e in enumerate(self.examples) if not e.label and _part(e, split) == part],
            dtype=np.int64,
        )


def class_probabilities(labels: Labels) -> npt.NDArray[np.float32]:
    """Return what is known of every image as a probability per class.

    Args:
        labels: Of a data set whose uncertain images say in the column `probability` how probable a defect is,
            and in `type` of which kind the cell is: their classes are `<type>-sound` and `<type>-defective`.

    Returns:
        float32 (images, classes), rows that add up to 1; of a labelled image 1 at its class.

    Raises:
        ConfigurationError: An uncertain image has no such columns, or a class is not among the data set's.
    """
    index = {name: number for number, name in enumerate(labels.classes)}
    result = np.zeros((len(labels.examples), len(labels.classes)), dtype=np.float32)
    for row, example in zip(result, labels.examples, strict=True):
        try:
            for name, share in _shares(example).items():
                row[index[name]] = share
        except (KeyError, ValueError) as error:
            raise ConfigurationError(
                f"{example.image_id} is uncertain and its labels say no probability per class:"
                " soft targets need one; say probe.uncertain=leave-out finetune.uncertain=leave-out"
            ) from error
    return result


def _shares(example: Example) -> dict[str, float]:
    if example.label:
        return {example.label: 1.0}
    defective, kind = float(example.extra["probability"]), example.extra["type"]
    return {f"{kind}-sound": 1 - defective, f"{kind}-defective": defective}


def _part(example: Example, split: Split) -> str:
    return example.random_split if split == "random" else example.block_split


def encode_image_id(name: str) -> str:
    """Encode a path below the folder of images as an image_id (docs/reference/run-layout.md).

    Args:
        name: Path with `/`; bytes that are not UTF-8 as Python's surrogate escapes.

    Returns:
        Printable text; `unquote_to_bytes` gives the name back.
    """
    encoded = []
    for position, char in enumerate(name):
        category = unicodedata.category(char)
        formula = position == 0 and char in "=+-@"
        if char == "%" or formula or category in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            encoded.append("".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape")))
        else:
            encoded.append(char)
    return "".join(encoded)


def write_labels(path: Path, labels: Labels) -> None:
    """Write `labels.csv` atomically: image_id, extra columns, label, block, random_split, block_split."""
    extra = list(labels.examples[0].extra)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["image_id", *extra, *_OWN[1:]])
    for e in labels.examples:
        values = [e.extra[name] for name in extra]
        writer.writerow([e.image_id, *values, e.label, e.block, e.random_split, e.block_split])
    write_text(path, buffer.getvalue())


def read_labels(path: Path, classes: Sequence[str]) -> Labels:
    """Read `labels.csv`.

    Args:
        path: Written by `imagebatch-train data`.
        classes: Class names in order; empty: the sorted names that occur.

    Raises:
        ConfigurationError: The file is missing.
        DataError: It lacks a column, or names a class that is not in `classes`.
    """
    if not path.is_file():
        raise ConfigurationError(f"no {path}: run imagebatch-train data")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    missing = [name for name in _OWN if not rows or name not in rows[0]]
    if missing:
        raise DataError(f"{path} has no column {missing[0]}: delete it and run imagebatch-train data")
    extra = [name for name in rows[0] if name not in _OWN]
    examples = [
        Example(
            image_id=row["image_id"],
            label=row["label"],
            block=int(row["block"]),
            random_split=row["random_split"],
            block_split=row["block_split"],
            extra={name: row[name] for name in extra},
        )
        for row in rows
    ]
    return Labels(examples=examples, classes=check_classes(examples, classes))


def check_classes(examples: Sequence[Example], classes: Sequence[str]) -> list[str]:
    """Return the class names in order.

    Raises:
        DataError: There are fewer than two classes, or a label is not among `classes`.
    """
    found = sorted({e.label for e in examples if e.label})
    unknown = [name for name in found if classes and name not in classes]
    if unknown:
        raise DataError(f"label {unknown[0]!r} is not in data.classes: add it or correct the labels")
    names = list(classes) or found
    if len(found) < 2:  # noqa: PLR2004 - a classifier chooses between two at least
        raise DataError(f"{len(found)} class(es) occur in the labels: at least two are needed")
    return names
