"""The images that a run is asked for: what lies in a folder or bucket, or what a list names."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

from imagebatch.contracts.addresses import is_web
from imagebatch.contracts.ids import encode_id
from imagebatch.errors import ConfigurationError, one_line
from imagebatch.inputs.listing import InputListing
from imagebatch.inputs.source import ImageSource
from imagebatch.settings import InputSettings
from imagebatch.stages.preprocess.list_query import QueryList
from imagebatch.stages.preprocess.listing import Entry
from imagebatch.stages.preprocess.lists import ImageList, asked_columns
from imagebatch.stages.preprocess.sorter import LeftOutFiles


class RequestedImages:
    """The images that a run is asked for, as rows (image_id, uri, carried values …).

    Args:
        settings: Input, manifest or query, and the name patterns.
        source: Decides what may be read.
        left_out: Gets the files of a folder or bucket that are not asked for, while they are listed.

    Attributes:
        name: The input or manifest, as it was given; of a query, its first words.
        may_be_empty: Whether that is no error.

    Raises:
        ConfigurationError: It is on a web server.
    """

    def __init__(self, settings: InputSettings, source: ImageSource, left_out: LeftOutFiles) -> None:
        self.name = settings.input or settings.manifest or one_line(settings.query, 60)
        self.may_be_empty = settings.allow_empty
        if is_web(self.name):
            raise ConfigurationError(
                f"{self.name} cannot be listed: name a web server's images in a local --manifest,"
                " and the server in --allowed-roots"
            )
        self._listing = InputListing(settings.input, settings.include.split(","), source, left_out.add_file)
        asked = asked_columns(settings.uri_column, settings.id_column, settings.carry)
        self._list: ImageList | QueryList | None = None
        if settings.manifest:
            self._list = ImageList(settings.manifest, asked, settings.list_encoding, source)
        elif settings.query:
            self._list = QueryList(settings.query, asked)

    def __iter__(self) -> Iterator[Entry]:
        """Yield (image_id, uri, carried values …) in no particular order."""
        return self._rows()

    def _rows(self) -> Generator[Entry, None, None]:
        if self._list:
            yield from self._list
        else:
            yield from ((encode_id(name), uri) for name, uri in self._listing)

    def any(self) -> bool:
        """Tell whether there is an image."""
        with contextlib.closing(self._rows()) as rows:
            return next(rows, None) is not None

    def carried(self) -> list[str]:
        """Name the list's columns that are carried into the result."""
        return self._list.carried() if self._list else []
