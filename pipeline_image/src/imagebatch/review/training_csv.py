"""Labels of a run as `imagebatch-train data data=csv` reads them: paths below a folder, and a table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from imagebatch.contracts.ids import FORMULA_START, encode_cell, file_of
from imagebatch.contracts.records import RunDescription
from imagebatch.errors import ConfigurationError, DataRefusedError, one_line
from imagebatch.inputs.names import local_path, to_uri
from imagebatch.review.labels import COLUMNS, Label
from imagebatch.runs.folder import LocalRunFolder

_NEEDED = ("image", "label")


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder that paths of images begin at.

    Attributes:
        path: Absolute; empty: the images are no files of this machine.
    """

    path: str

    def path_of(self, image_id: str, uri: str) -> str:
        """Return an image's path below the folder.

        Empty where it is no file below it, one page of several, or has a name that a CSV or a spreadsheet
        cannot hold safely.
        """
        path = local_path(uri) if self.path else None
        if path is None or file_of(image_id) != image_id:
            return ""
        relative = os.path.relpath(path, self.path)
        if relative.startswith(".."):
            return ""
        if relative[:1] in FORMULA_START:
            relative = f"./{relative}"  # the same file, and no formula
        try:
            return relative if encode_cell(relative) == relative and relative.encode() else ""
        except UnicodeEncodeError:
            return ""


def image_folder(asked: str, description: RunDescription, uris: Iterable[str]) -> Folder:
    """Find the folder that paths of a run's images begin at.

    Args:
        asked: The setting; empty: the run's input, if that is a folder, else the one that all images lie in.
        description: The run's run.json.
        uris: Of the images.

    Raises:
        ConfigurationError: There is no such folder.
    """
    if asked:
        if not Path(asked).is_dir():
            raise ConfigurationError(f"--images {asked}: there is no such folder")
        return Folder(str(Path(asked).absolute()))
    source = local_path(to_uri(description.input)) if description.input else None
    if source and Path(source).is_dir():
        return Folder(source)
    paths = [path for uri in uris if (path := local_path(uri)) is not None]
    return Folder(os.path.commonpath([Path(path).parent for path in paths]) if paths else "")


def add_to_training_csv(path: Path, labels: Iterable[Label]) -> int:
    """Add labels to a CSV of images and labels, or make it.

    Args:
        path: Of the CSV. One that is there keeps its columns, its order and what it says about other images.
        labels: Those without a path are left out.

    Returns:
        How many labels were added.

    Raises:
        DataRefusedError: It is no such CSV, or no label has a path.
        StorageError: It cannot be read or written.
    """
    new = {label.image: label for label in labels if label.image}
    if not new:
        raise DataRefusedError(
            "no labelled image is a file below the folder of images: give --images, or copy them here"
        )
    folder = LocalRunFolder(path.absolute().parent)
    columns, rows = list(COLUMNS), list[dict[str, str]]()
    if path.exists():
        columns, rows = _read(folder.read(path.name), path)
    replaced = set(map(os.path.normpath, new))
    rows = [row for row in rows if os.path.normpath(row["image"]) not in replaced]
    rows += [{name: str(getattr(label, name, "")) for name in columns} for label in new.values()]
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns)
    writer.writeheader()
    writer.writerows(rows)
    folder.write(path.name, stream.getvalue().encode())
    return len(new)


def _read(data: bytes, path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        columns = list(reader.fieldnames or [])
        missing = [name for name in _NEEDED if name not in columns]
        if missing:
            raise DataRefusedError(
                f"--training-csv {path} has no column {missing[0]}: it has"
                f" {one_line(', '.join(columns), 120)}"
            )
        rows = [{name: row[name] or "" for name in columns} for row in reader]
    except UnicodeDecodeError as error:
        raise DataRefusedError(f"--training-csv {path} is not UTF-8: save it as CSV UTF-8") from error
    return columns, rows
