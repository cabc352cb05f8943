"""The images that a run is asked for: what lies in a folder or bucket, or what a manifest names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from imagebatch.contracts.ids import encode_id
from imagebatch.errors import ConfigurationError, DataRefusedError, InputNotFoundError, StorageError
from imagebatch.inputs.source import ImageSource, InputListing, is_web, to_uri
from imagebatch.settings import InputSettings
from imagebatch.stages.preprocess.listing import Entry

_CSV_BLOCK_BYTES = 1 << 18


class RequestedImages:
    """The images that a run is asked for, as rows (image_id, uri).

    Args:
        settings: Input or manifest, and the name patterns.
        source: Decides what may be read.

    Attributes:
        name: The input or manifest, as it was given.

    Raises:
        ConfigurationError: It is on a web server.
    """

    def __init__(self, settings: InputSettings, source: ImageSource) -> None:
        self.name = settings.input or settings.manifest
        if is_web(self.name):
            raise ConfigurationError(
                f"{self.name} cannot be listed: name a web server's images in a local --manifest,"
                " and the server in --allowed-roots"
            )
        self._manifest = settings.manifest
        self._listing = InputListing(settings.input, settings.include.split(","), source)

    def __iter__(self) -> Iterator[Entry]:
        """Yield (image_id, uri) in no particular order."""
        if self._manifest:
            return _manifest_rows(self._manifest)
        return ((encode_id(name), uri) for name, uri in self._listing)

    @property
    def ignored(self) -> int:
        """Files passed over so far because their name matches no pattern."""
        return self._listing.ignored


def _manifest_rows(manifest: str) -> Iterator[Entry]:
    base = to_uri(manifest)
    try:
        with fsspec.open(base, "rb") as stream:
            for batch in _batches(base, stream):
                yield from _rows_of(batch, base, manifest)
    except FileNotFoundError as error:
        raise InputNotFoundError(f"--manifest {manifest}: no such file") from error
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataRefusedError(f"--manifest {manifest}: {error}") from error
    except OSError as error:
        raise StorageError(f"--manifest {manifest}: {error}") from error


def _batches(uri: str, stream: IO[bytes]) -> Iterator[pa.RecordBatch]:
    if uri.lower().endswith((".parquet", ".pq")):
        yield from pq.ParquetFile(stream).iter_batches()
        return
    text = dict.fromkeys(("uri", "image_id"), pa.string())
    yield from pyarrow.csv.open_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=text),
    )


def _rows_of(batch: pa.RecordBatch, base: str, manifest: str) -> Iterator[Entry]:
    if "uri" not in batch.schema.names:
        raise DataRefusedError(
            f"--manifest {manifest}: no column uri; it has {', '.join(batch.schema.names)}"
        )
    uris = batch.column("uri").cast(pa.string()).to_pylist()
    named = "image_id" in batch.schema.names
    names = batch.column("image_id").cast(pa.string()).to_pylist() if named else uris
    for name, uri in zip(names, uris, strict=True):
        if not name or not uri:
            raise DataRefusedError(f"--manifest {manifest}: a row without a value for uri or image_id")
        yield encode_id(name.encode("utf-8", "surrogateescape")), _absolute(uri, base)


def _absolute(uri: str, base: str) -> str:
    if "://" in uri:
        return uri
    if uri.startswith("/"):
        return to_uri(uri)
    return base.rsplit("/", 1)[0] + "/" + to_uri("/" + uri).removeprefix("file:///")
