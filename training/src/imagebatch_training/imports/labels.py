"""The names of the classes, from a text, JSON or CSV file, or from where the model came."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from imagebatch_training.errors import ConfigurationError, DataError

Labels = tuple[tuple[str, ...], str]
"""Names in the order of the model's outputs, and who says so."""
_PAIR: Final = 2
_INDEX: Final = ("index", "class_index", "class_id", "id", "idx")
_NAME: Final = ("label", "name", "class", "class_name", "category")


def settle_labels(file: Path | None, told: Labels | None, folders: Sequence[str], classes: int) -> Labels:
    """Choose the names of a model's classes.

    Args:
        file: That the user gives; wins.
        told: By the model's library or file.
        folders: Of the images, one a class, as ImageFolder sorts them.
        classes: Outputs of the model.

    Raises:
        ConfigurationError: Nobody names them.
        DataError: There are more or fewer names than classes, or the file holds none.
    """
    if file is not None:
        found: Labels | None = (read_labels(file), file.name)
    elif told is not None and len(told[0]) == classes:
        found = told
    elif len(folders) == classes:
        found = (tuple(folders), "folders of --images, sorted")
    else:
        found = told
    if found is None:
        raise ConfigurationError(
            f"nobody names the model's {classes} classes: give --labels FILE, a name a line in the order of "
            "its outputs"
        )
    if len(found[0]) != classes:
        raise DataError(f"the model has {classes} classes, {found[1]} names {len(found[0])}: give --labels")
    return _checked(found[0], found[1]), found[1]


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names: a name a line, JSON or CSV.

    Args:
        path: JSON holds a list, `{"0": "name"}`, `{"0": ["id", "name"]}` or `{"name": 0}`; CSV one column, or
            two with a header, of which one is the index.

    Raises:
        ConfigurationError: The file cannot be read.
        DataError: It holds no such names.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"--labels {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8: save it as UTF-8") from error
    try:
        names = _READERS.get(path.suffix.lower(), _lines)(text)
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path.name} holds no names of classes: {error}") from error
    return _checked(names, path.name)


def _checked(names: Sequence[str], by: str) -> tuple[str, ...]:
    """Return names that can be written anywhere.

    Raises:
        DataError: One is empty or cannot be printed, or there is none.
    """
    bad = [index for index, name in enumerate(names) if not name.strip() or not name.isprintable()]
    if bad or not names:
        raise DataError(f"{by} names no class{f' {bad[0]}' if bad else ''}: give each one printable name")
    return tuple(names)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _json(text: str) -> list[str]:
    saved = json.loads(text)
    if isinstance(saved, Mapping):
        turned = all(isinstance(value, int) for value in saved.values())
        by_index = (
            {int(index): name for name, index in saved.items()}
            if turned
            else {int(i): n for i, n in saved.items()}
        )
        return [_name(name) for name in _in_order(by_index)]
    if not isinstance(saved, list):
        raise TypeError("a list, or a mapping with indices from 0")
    return [_name(name) for name in saved]


def _name(value: Any) -> str:
    """Take text, or the second of a pair of an id and text, as in TorchServe's own example."""
    if isinstance(value, list) and len(value) == _PAIR:
        value = value[1]
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no name")
    return value


def _in_order(by_index: Mapping[int, Any]) -> list[Any]:
    if sorted(by_index) != list(range(len(by_index))):
        raise ValueError("the indices must run from 0 without a gap")
    return [by_index[index] for index in range(len(by_index))]


def _csv(text: str) -> list[str]:
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    index = next((head.index(name) for name in _INDEX if name in head), None)
    name = next((head.index(name) for name in _NAME if name in head), None)
    if name is None:
        if any(len(row) != 1 for row in rows):
            raise ValueError(f"its header must name a column {' or '.join(_NAME)}")
        return [row[0].strip() for row in rows]
    body = rows[1:]
    if any(len(row) != len(head) for row in body):
        raise ValueError("a row has more or fewer columns than the header")
    if index is None:
        return [row[name].strip() for row in body]
    if len({int(row[index]) for row in body}) < len(body):
        raise ValueError("two rows have one index")
    return _in_order({int(row[index]): row[name].strip() for row in body})


_READERS: Final = {".json": _json, ".csv": _csv}
