"""Where images and labels come from: the installed example, a folder per class, or a CSV file."""

import csv
import filecmp
import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagebatch_training import settings as conf
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.files import publish
from imagebatch_training.images.labels import Example, Part, encode_image_id

_NAMES = """
    jpg jpeg jpe jfif jif jfi pjpeg pjp jpg_large mpo png apng webp bmp dib tif tiff btf tf8 gif
    heic heif hif avif avifs jxl jp2 j2k j2c jpc jpf jpx
"""
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
"""Of the formats that are read: those of `imagebatch/inputs/formats.py`."""
PART_NAMES: dict[str, Part] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""How people name the parts of a split."""
_SOUND, _DEFECTIVE = 0.0, 1.0


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Images in file order.

    Attributes:
        examples: Without blocks and splits.
        groups: A name per image: images of different groups never share a block; empty names: no groups.
        whole: Whether a group is one block (an explicit group), or may be cut into several.
        parts: The part of each image in the split that came with the data; empty: none did.
    """

    examples: Sequence[Example]
    groups: Sequence[str]
    whole: bool
    parts: Sequence[str] = ()


def read_source(data: conf.Data) -> Listing:
    """List the images of a data set, after copying them where the source is an installed package.

    Raises:
        ConfigurationError: A folder, file or package is missing.
        DataError: There are no images, or the CSV does not fit.
    """
    readers: dict[str, Callable[[conf.Data], Listing]] = {
        "elpv": _read_elpv,
        "image_folder": _read_image_folder,
        "csv": _read_csv,
    }
    listing = readers[data.kind](data)
    if not listing.examples:
        raise DataError(f"no images found in {data.images}: expected {', '.join(sorted(SUFFIXES))}")
    return listing


def _read_elpv(data: conf.Data) -> Listing:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise ConfigurationError("the package elpv-dataset is not installed: run uv sync --project training")
    source = Path(spec.origin).parent / "data"
    rows = [line.split() for line in (source / "labels.csv").read_text(encoding="ascii").splitlines()]
    copies = Path(data.images)
    examples, groups = [], []
    for name, text, cell in rows:
        file = source / name
        _copy(file, copies / file.name)
        probability = float(text)
        quality = {_SOUND: "sound", _DEFECTIVE: "defective"}.get(probability, "")
        extra = {"probability": f"{probability:.4f}", "type": cell}
        label = f"{cell}-{quality}" if quality else ""
        examples.append(Example(image_id=encode_image_id(file.name), label=label, extra=extra))
        groups.append(cell)
    # Where the kind of cell changes, another module begins: a block never spans that.
    return Listing(examples=examples, groups=groups, whole=False)


def _copy(source: Path, target: Path) -> None:
    if target.is_file() and filecmp.cmp(source, target, shallow=False):
        return
    with publish(target) as temporary:
        shutil.copyfile(source, temporary)


def _read_image_folder(data: conf.Data) -> Listing:
    root = _folder(data)
    folders = _folders_in(root)
    if not folders and (flat := sum(_is_image(file) for file in root.iterdir())):
        raise DataError(
            f"{root} has {flat} images and no folders: put each image into a folder named after its"
            " class, or name the classes in a CSV (data=csv)"
        )
    given = bool(folders) and all(folder.name.lower() in PART_NAMES for folder in folders)
    examples, parts = [], []
    for top in folders:
        for folder in _folders_in(top) if given else [top]:
            _check_class(folder.name)
            for file in images_below(folder):
                name = encode_image_id(file.relative_to(root).as_posix())
                examples.append(Example(image_id=name, label=folder.name))
                parts.append(PART_NAMES[top.name.lower()] if given else "")
    return Listing(
        examples=examples, groups=[e.label for e in examples], whole=False, parts=parts if given else ()
    )


def _folders_in(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def images_below(folder: Path) -> list[Path]:
    """List images in a folder and all below it, sorted; hidden ones (`._a.jpg`, `.thumbnails/`) are none."""
    return sorted(
        file
        for file in folder.rglob("*")
        if _is_image(file) and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.is_file()


def _check_class(name: str) -> None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"folder {name!r} is not UTF-8 and cannot name a class: rename it") from error


def _read_csv(data: conf.Data) -> Listing:
    root, path = _folder(data), Path(data.csv)
    if not path.is_file():
        raise ConfigurationError(f"no file {path}: correct data.csv")
    columns = (data.image_column, data.label_column, data.group_column, data.split_column)
    wanted = [*filter(None, columns)]
    rows = _read_rows(path, wanted)
    examples = [
        Example(image_id=encode_image_id(row[data.image_column]), label=row[data.label_column])
        for row in rows
    ]
    _check_files(examples, root, path)
    groups = [row[data.group_column] if data.group_column else "" for row in rows]
    parts = (
        [_part(path, line, row[data.split_column]) for line, row in enumerate(rows, 2)]
        if data.split_column
        else ()
    )
    return Listing(examples=examples, groups=groups, whole=bool(data.group_column), parts=parts)


def _part(path: Path, line: int, text: str) -> Part:
    part = PART_NAMES.get(text.strip().lower())
    if part is None:
        raise DataError(
            f"{path}, row {line}: {text[:40]!r} is no part of a split: it is one of {', '.join(PART_NAMES)}"
        )
    return part


def _read_rows(path: Path, wanted: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            for column in wanted:
                if column not in columns:
                    raise DataError(f"{path} has no column {column!r}: it has {', '.join(columns)[:200]}")
            rows = list(reader)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: save it as a CSV in UTF-8") from error
    for line, row in enumerate(rows, start=2):
        short = [
            column for column in wanted if row[column] is None
        ]  # what csv gives for a row that ends early
        if short:
            raise DataError(f"{path}, row {line}: no value for {short[0]!r}: the row has too few columns")
    return rows


def _check_files(examples: Sequence[Example], root: Path, path: Path) -> None:
    seen: set[str] = set()
    for line, example in enumerate(examples, start=2):
        if example.image_id in seen:
            raise DataError(f"{path}, row {line}: {example.image_id} is there twice")
        seen.add(example.image_id)
        if not example.path(root).is_file():
            raise DataError(f"{path}, row {line}: no file {example.image_id} in {root}")


def _folder(data: conf.Data) -> Path:
    root = Path(data.images)
    if not root.is_dir():
        raise ConfigurationError(f"no folder {root}: correct data.images")
    return root
