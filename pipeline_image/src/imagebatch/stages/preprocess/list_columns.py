"""The columns of a list: which one names images, which their ids, and which are carried into the result."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from imagebatch.errors import one_line
from imagebatch.runs.output_csv import is_own_column

URI, IMAGE_ID = "uri", "image_id"
ALL = "all"
# What people call the column that we call `uri`: proposed, never taken by itself, for `image` may be an id.
OFTEN = (
    *("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_file"),
    *(
        "image_name",
        "image_uri",
        "image_url",
        "img",
        "img_path",
        "url",
        "urls",
        "s3_uri",
        "gcs_uri",
        "s3_path",
    ),
    *("location", "href", "link", "key", "object_key", "source", "src", "uris", "paths", "name", "fname"),
)
_MOST_NAMES = 12
_LONGEST_NAME = 40


class BadListError(Exception):
    """A list that cannot be read, or a row in it that cannot be; the text says where and what to do."""


class Table(Protocol):
    """A list, open: its header and its rows as text.

    Attributes:
        names: Its columns; may hold one twice.
        unit: What a row is counted in: `line` of a text, `row` of a table.
    """

    names: list[str]
    unit: str

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Sequence[str | None]]]:
        """Yield each row's number, as a person would count it, and its values of these columns.

        Rows without any value are left out.
        """


@dataclass(frozen=True, slots=True)
class Asked:
    """Which columns are asked for.

    Attributes:
        uri: The column that names the images; empty: `uri`.
        image_id: The column of ids; empty: `image_id`, if there is one.
        carry: Columns to carry, by name; `[ALL]` takes every other one.
    """

    uri: str = ""
    image_id: str = ""
    carry: tuple[str, ...] = ()

    def names_images(self, names: Sequence[str]) -> bool:
        """Tell whether a header has the column that names the images."""
        return bool(_alike(names, self.uri or URI))

    def concerns(self, name: str) -> bool:
        """Tell whether a column would be read."""
        wanted = (self.uri or URI, self.image_id or IMAGE_ID, *self.carry)
        return self.carry == (ALL,) or any(_alike([name], one) for one in wanted)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one list that are read, as its header spells them; `image_id` is empty without one."""

    uri: str
    image_id: str
    carry: tuple[str, ...]

    @property
    def read(self) -> list[str]:
        """Name them all, each once."""
        return list(dict.fromkeys([self.uri, *([self.image_id] if self.image_id else []), *self.carry]))


def columns_of(names: Sequence[str], asked: Asked) -> Columns:
    """Choose from a header.

    Raises:
        BadListError: A column is missing, stands there twice, or cannot be carried.
    """
    uri = _one(names, asked.uri or URI, "--uri-column")
    if not uri:
        raise BadListError(_no_uri(names, asked))
    image_id = _one(names, asked.image_id or IMAGE_ID, "--id-column")
    if asked.image_id and not image_id:
        raise BadListError(f"no column {asked.image_id}; it has {shown(names)}; see --id-column")
    if asked.carry == (ALL,):
        carry = [name for name in names if name != uri and not (image_id and name == image_id)]
    else:
        carry = [_carried(names, name) for name in asked.carry]
    _require_carriable(carry, names)
    return Columns(uri, image_id, tuple(carry))


def shown(names: Sequence[str]) -> str:
    """Name columns for a message: a few, on one line, whatever they hold."""
    some = [one_line(name, _LONGEST_NAME) or "(no name)" for name in names[:_MOST_NAMES]]
    more = [f"{len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return ", ".join(some + more)


def usual_name(names: Sequence[str]) -> str:
    """Return the column that is most probably meant by `uri`; empty if none is."""
    plain = {name.strip().casefold().replace(" ", "_").replace("-", "_"): name for name in reversed(names)}
    return next((plain[name] for name in OFTEN if name in plain), "")


def _alike(names: Sequence[str], wanted: str) -> list[str]:
    exact = [name for name in names if name == wanted]
    return exact or [name for name in names if name.strip().casefold() == wanted.strip().casefold()]


def _one(names: Sequence[str], wanted: str, flag: str) -> str:
    found = _alike(names, wanted)
    if len(found) > 1:
        raise BadListError(
            f"{len(found)} columns are named {' and '.join(dict.fromkeys(found))}: rename one, or say {flag}"
        )
    return found[0] if found else ""


def _no_uri(names: Sequence[str], asked: Asked) -> str:
    missing = f"no column {asked.uri or URI}; it has {shown(names)}"
    if usual := usual_name(names):
        return f"{missing}; say --uri-column {one_line(usual, _LONGEST_NAME)}, if that names the images"
    if any("/" in name or "\\" in name or "." in name.strip(".") for name in names):
        return (
            f"{missing}: is the header missing? Begin with a line of the columns' names, or give names alone,"
            " one a line, in a file .txt"
        )
    return f"{missing}; say which one names the images by --uri-column"


def _carried(names: Sequence[str], wanted: str) -> str:
    name = _one(names, wanted, "--carry")
    if not name:
        near = difflib.get_close_matches(wanted, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {shown(names)}"
        raise BadListError(f"no column {wanted} to carry; {hint}")
    return name


def _require_carriable(carry: Sequence[str], names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in carry:
        plain = name.strip().casefold()
        if not plain or not name.isprintable():
            raise BadListError(
                "a column to carry has no name that can be printed: name the others by --carry"
            )
        if is_own_column(plain):
            raise BadListError(
                f"the column {one_line(name, _LONGEST_NAME)} cannot be carried: predictions.csv has one of"
                " that name; rename it, or name the others by --carry"
            )
        if plain in seen or names.count(name) > 1:
            raise BadListError(
                f"two columns to carry are named {one_line(name, _LONGEST_NAME)}: rename one in the list"
            )
        seen.add(plain)
