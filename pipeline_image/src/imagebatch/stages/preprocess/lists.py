"""The images that a list names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from imagebatch.contracts.addresses import public_name, without_permission
from imagebatch.contracts.ids import encode_id
from imagebatch.errors import (
    ConfigurationError,
    DataRefusedError,
    ImagebatchError,
    InputNotFoundError,
    StorageError,
    one_line,
)
from imagebatch.inputs.names import folder_of, is_relative, local_path, resolved, to_uri
from imagebatch.inputs.source import ImageSource
from imagebatch.log import get_logger
from imagebatch.stages.preprocess.list_columns import Asked, BadListError, Columns, Table, columns_of
from imagebatch.stages.preprocess.list_files import open_part, parts_of
from imagebatch.stages.preprocess.listing import Entry

log = get_logger()

FLAG = "--manifest"


class ImageList:
    """A list of images: a file or folder of one, as `--manifest` names it.

    Args:
        manifest: Path or URI.
        asked: The columns asked for.
        encoding: Of text; empty: found out.
        source: Says what may be read.
    """

    def __init__(self, manifest: str, asked: Asked, encoding: str, source: ImageSource) -> None:
        self._manifest = manifest
        self._asked = asked
        self._encoding = encoding
        self._source = source

    def carried(self) -> list[str]:
        """Name the columns that are carried, as the list spells them.

        Raises:
            DataRefusedError: The list lacks a column, or cannot be read.
            InputNotFoundError: There is no such list.
            StorageError: Its storage fails.
        """
        if not self._asked.carry:
            return []
        with self._told():
            for part in parts_of(FLAG, self._manifest, self._source):
                with open_part(part, self._encoding, self._asked) as table:
                    return list(columns_of(table.names, self._asked).carry)
        return []

    def __iter__(self) -> Iterator[Entry]:
        """Yield (image_id, uri, carried values …) in the order of the list.

        Raises:
            DataRefusedError: The list, or a row of it, cannot be read.
            InputNotFoundError: There is no such list.
            StorageError: Its storage fails.
        """
        with self._told():
            first: Columns | None = None
            for part in parts_of(FLAG, self._manifest, self._source):
                with self._in(part.uri), open_part(part, self._encoding, self._asked) as table:
                    columns = columns_of(table.names, self._asked)
                    if first and columns.carry != first.carry:
                        raise BadListError(
                            f"it has other columns to carry than the first part: {', '.join(columns.carry)}"
                        )
                    first = first or columns
                    yield from entries(table, columns, folder_of(self._manifest))

    @contextlib.contextmanager
    def _in(self, uri: str) -> Iterator[None]:
        """Name the part of a list that is a folder."""
        try:
            yield
        except BadListError as error:
            if uri.rstrip("/") == to_uri(self._manifest).rstrip("/"):
                raise
            raise BadListError(f"{uri.rsplit('/', 1)[-1]}: {error}") from error

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what goes wrong into one line with the right exit code."""
        shown = without_permission(self._manifest)
        try:
            yield
        except ImagebatchError:
            raise
        except BadListError as error:
            raise DataRefusedError(f"{FLAG} {shown}: {error}") from error
        except FileNotFoundError as error:
            raise InputNotFoundError(f"{FLAG} {shown}: no such file") from error
        except PermissionError as error:
            raise InputNotFoundError(
                f"{FLAG} {shown}: not readable ({error}); give this user read access"
            ) from error
        except Exception as error:
            # A store's client has errors of its own kinds; on a disk anything but OSError is a fault of ours.
            if not isinstance(error, OSError) and local_path(to_uri(self._manifest)) is not None:
                raise
            raise StorageError(f"cannot read {FLAG} {shown}: {error}; run the same command again") from error


def entries(table: Table, columns: Columns, folder: str) -> Iterator[Entry]:
    """Make a listing's rows of a table's.

    Args:
        table: The list.
        columns: What is read of it.
        folder: URI of the folder that relative names start at; empty: there is none.

    Raises:
        BadListError: A row has no name or id, or none that can be.
    """
    read = columns.read
    uri_at = read.index(columns.uri)
    id_at = read.index(columns.image_id) if columns.image_id else None
    carry_at = [read.index(name) for name in columns.carry]
    for number, values in table.rows(read):
        where = f"{table.unit} {number}"
        name = values[uri_at]
        if not name:
            raise BadListError(f"{where}: no value in column {columns.uri}; give one, or remove the row")
        image_id = public_name(name) if id_at is None else values[id_at]
        if not image_id:
            raise BadListError(f"{where}: no value in column {columns.image_id}; give one, or remove the row")
        if not folder and is_relative(name):
            raise BadListError(
                f"{where}: {one_line(name, 40)} lies nowhere: give whole paths, from /, or URIs"
            )
        carried = [without_permission(values[at] or "") for at in carry_at]
        try:
            encoded = encode_id(without_permission(image_id).encode("utf-8", "surrogateescape"))
            yield (encoded, resolved(name, folder), *carried)
        except UnicodeEncodeError as error:
            raise BadListError(f"{where}: {one_line(name, 40)!a} is no name in UTF-8") from error


def asked_columns(uri_column: str, id_column: str, carry: str) -> Asked:
    """Read the settings that choose columns.

    Raises:
        ConfigurationError: `all` stands beside other names.
    """
    names = tuple(dict.fromkeys(name.strip() for name in carry.split(",") if name.strip()))
    if "all" in names and len(names) > 1:
        raise ConfigurationError("--carry: all takes every column; give it alone, or names without it")
    return Asked(uri_column.strip(), id_column.strip(), names)
