"""A query as a list: the rows that a database answers with.

Where the database is, and who asks, stands in a variable of the environment and nowhere else: it may hold a
password, and run.json, process lists and logs are read by many.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from imagebatch.errors import ConfigurationError, DataRefusedError, StorageError, one_line
from imagebatch.stages.preprocess.list_columns import Asked, BadListError, columns_of
from imagebatch.stages.preprocess.listing import Entry
from imagebatch.stages.preprocess.lists import entries

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult

VARIABLE = "IMAGEBATCH_DATABASE_URL"
_ROWS = 1000


class QueryList:
    """The images that a SQL query names; each look at it asks the database anew.

    Args:
        query: SQL that gives a column uri (or `asked.uri`) of whole paths and URIs.
        asked: The columns asked for.
    """

    def __init__(self, query: str, asked: Asked) -> None:
        self._query = query
        self._asked = asked

    def carried(self) -> list[str]:
        """Name the columns that are carried, as the query does.

        Raises:
            DataRefusedError: The answer lacks a column.
            ConfigurationError: The query, or the address of the database, is wrong.
            StorageError: The database does not answer.
        """
        if not self._asked.carry:
            return []
        with _told(), _answer(self._query) as result:
            return list(columns_of(_Answer(result).names, self._asked).carry)

    def __iter__(self) -> Iterator[Entry]:
        """Yield (image_id, uri, carried values …) in the order of the answer.

        Raises:
            DataRefusedError: A row has no name or id, or a column is missing.
            ConfigurationError: The query, or the address of the database, is wrong.
            StorageError: The database does not answer.
        """
        with _told(), _answer(self._query) as result:
            table = _Answer(result)
            yield from entries(table, columns_of(table.names, self._asked), "")


class _Answer:
    """A query's answer as a list."""

    unit = "row"

    def __init__(self, result: CursorResult[Any]) -> None:
        if not result.returns_rows:
            raise BadListError("it gives no rows: begin with SELECT")
        self.names = list(result.keys())
        self._result = result

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Sequence[str | None]]]:
        places = [self.names.index(name) for name in names]
        number = 0
        for some in self._result.partitions(_ROWS):
            for row in some:
                number += 1
                yield number, [_text(row[place], number) for place in places]


def _text(value: Any, row: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes | memoryview):
        raise BadListError(f"row {row}: bytes where text is wanted; cast them in the query")
    return str(value).lower() if isinstance(value, bool) else str(value)


@contextlib.contextmanager
def _answer(query: str) -> Iterator[CursorResult[Any]]:
    try:
        import sqlalchemy as sa  # noqa: PLC0415 (an extra, for those who keep names in a database)
    except ImportError as error:
        raise ConfigurationError("--query needs imagebatch[sql]") from error
    url = os.environ.get(VARIABLE, "")
    if not url:
        raise ConfigurationError(f"--query: {VARIABLE} is not set: let it say where the database is")
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
    except ImportError as error:
        raise ConfigurationError(f"--query: install the driver of {VARIABLE}: {error}") from error
    except (sa.exc.ArgumentError, ValueError) as error:  # what they say would show the address
        raise ConfigurationError(f"--query: {VARIABLE} is no address of a database that is known") from error
    with contextlib.ExitStack() as stack:
        try:
            connection: Connection = stack.enter_context(engine.connect())
        except sa.exc.DBAPIError as error:
            raise StorageError(
                f"--query: the database does not answer: {_said(error, engine.url.password)}; run the same"
                " command again"
            ) from error
        try:
            yield stack.enter_context(
                connection.execution_options(stream_results=True).execute(sa.text(query))
            )
        except sa.exc.DBAPIError as error:
            text = f"--query: {_said(error, engine.url.password)}"
            if error.connection_invalidated:
                raise StorageError(f"{text}; run the same command again") from error
            raise ConfigurationError(text) from error
        except sa.exc.SQLAlchemyError as error:  # a parameter without a value: a colon in the text
            raise ConfigurationError(f"--query: {one_line(error, 200)}; write \\: for a colon") from error


def _said(error: Any, password: object) -> str:
    """Return the driver's own words, without the statement, and never with the password."""
    said = one_line(error.orig, 200)
    return said.replace(str(password), "***") if password else said


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BadListError as error:
        raise DataRefusedError(f"--query: {error}") from error
