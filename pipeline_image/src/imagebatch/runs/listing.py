"""What preprocess listed, shard by shard, and the manifests that must hold exactly that."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from imagebatch.contracts.layout import LISTING, manifest_path
from imagebatch.contracts.records import LeftOutRecord
from imagebatch.contracts.rows import LISTING_SCHEMA, PAGE_FIELDS, carried_columns, manifest_schema
from imagebatch.errors import ConfigurationError, NotProvenError
from imagebatch.runs.folder import DAMAGED, RunFolder
from imagebatch.runs.parts import Files, parquet_table

_LEFT_OUT = "imagebatch.left_out"
_LATER = {"frames"}  # columns that runs of 0.1.0 do not have


class Listing:
    """What preprocess listed, shard by shard.

    Args:
        files: The run's files.
        file: Its listing, open. Its footer names every shard, so it is read once and not for each of them.

    Attributes:
        shards: Number of shards that preprocess planned.
        images: Number of images that it listed.
        left_out: The files of the input that it did not list; None in runs of a version that did not say.
    """

    def __init__(self, files: Files, file: pq.ParquetFile) -> None:
        self._files = files
        self._file = file
        self.shards = int(file.num_row_groups)
        self.images = int(file.metadata.num_rows)
        self._carried = carried_columns(file.schema_arrow)
        self._paged = all(field.name in file.schema_arrow.names for field in PAGE_FIELDS)
        self.left_out = left_out_record(file)

    def images_in(self, shards: Iterable[int]) -> int:
        """Count the images listed in some shards."""
        return sum(self._file.metadata.row_group(shard).num_rows for shard in shards)

    def manifests(self) -> Iterator[pa.Table]:
        """Read every shard's manifest, in the order of image ids."""
        return map(self.manifest, range(self.shards))

    def manifest(self, shard: int) -> pa.Table:
        """Read a shard's manifest, and check it against the listing.

        Raises:
            ConfigurationError: Preprocess has not finished it.
            NotProvenError: It does not hold the images that were listed.
        """
        path = manifest_path(shard)
        try:
            data = self._files.read(path)
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"shard {shard} has no manifest: finish imagebatch preprocess first"
            ) from error
        manifest = parquet_table(data, path)
        require_columns(manifest.schema, manifest_schema(paged=self._paged), path)
        if not manifest["image_id"].equals(self._ids(shard)):
            raise NotProvenError(f"{path} does not hold exactly the images that were listed")
        return manifest

    @property
    def carried(self) -> list[str]:
        """Name the columns that the list gives to the result, as it spells them."""
        return list(self._carried)

    def carried_by(self, shard: int) -> pa.Table:
        """Read what the list says about a shard's images: its carried columns, in the order of image ids."""
        if not self._carried:
            return pa.table({})
        try:
            found = self._file.read_row_group(shard, columns=list(self._carried.values()))
        except (*DAMAGED, OSError) as error:
            raise _unreadable(self._files, error) from error
        return found.select(list(self._carried.values())).rename_columns(self.carried)

    def _ids(self, shard: int) -> pa.ChunkedArray:
        try:
            return self._file.read_row_group(shard, columns=["image_id"])["image_id"]
        except (*DAMAGED, OSError) as error:
            raise _unreadable(self._files, error) from error


def require_columns(found: pa.Schema, wanted: pa.Schema, path: str) -> None:
    """Check that a table of preprocess has its columns: damage of a file's footer may rename one.

    Raises:
        NotProvenError: It has not.
    """
    for field in wanted:
        at = found.get_field_index(field.name)  # -1 also where several have the name
        if field.name not in _LATER and (at < 0 or found.field(at).type != field.type):
            raise NotProvenError(f"{path} is not what preprocess wrote: it has no column {field.name}")


def left_out_metadata(record: LeftOutRecord) -> dict[str, str]:
    """Return what a listing's metadata says about the files that are not in it."""
    return {_LEFT_OUT: record.model_dump_json()}


def left_out_record(file: pq.ParquetFile) -> LeftOutRecord | None:
    """Read what `left_out_metadata` wrote; None if nothing did.

    Raises:
        NotProvenError: It is something else.
    """
    data = (file.metadata.metadata or {}).get(_LEFT_OUT.encode())
    try:
        return None if data is None else LeftOutRecord.model_validate_json(data)
    except ValueError as error:
        raise NotProvenError(f"{LISTING} is not what preprocess wrote: {error}") from error


def _unreadable(files: Files, error: Exception) -> NotProvenError:
    return NotProvenError(f"{files.uri}/{LISTING} is not a readable Parquet file: {error}")


@contextlib.contextmanager
def open_listing(run: RunFolder, files: Files | None = None) -> Iterator[Listing]:
    """Open the run's listing.

    Args:
        run: The run's files.
        files: Where the manifests are read; the run's files themselves if not given.

    Raises:
        ConfigurationError: Preprocess has not written it.
        NotProvenError: It is not a readable file, or has other columns.
    """
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(run.reading(LISTING))
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            require_columns(file.schema_arrow, LISTING_SCHEMA, LISTING)
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"no listing at {run.uri}: finish imagebatch preprocess first"
            ) from error
        except (*DAMAGED, OSError) as error:
            raise _unreadable(run, error) from error
        yield Listing(files or run, file)
