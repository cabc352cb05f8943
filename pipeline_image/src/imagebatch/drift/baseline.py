"""The baseline: what images and answers looked like when all was well. One Parquet file."""

from __future__ import annotations

import io
import json
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from imagebatch.contracts.records import ModelPin
from imagebatch.drift.accuracy import Calibration
from imagebatch.drift.observations import OBSERVATION_SCHEMA
from imagebatch.errors import ConfigurationError, StorageError

_ABOUT = b"imagebatch"


class About(BaseModel):
    """What a baseline was made of.

    Attributes:
        run_id: The run.
        model: The model that answered.
        classes: Predictions of all its images by label.
        predictions: Number of them; 0 in a baseline that does not say.
        calibration: Fitted on labelled images of the run, if there were any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    run_id: str
    model: ModelPin
    classes: dict[str, int]
    predictions: int = 0
    calibration: Calibration | None = None


class Baseline:
    """A baseline, read.

    Attributes:
        about: What it was made of.
        observations: OBSERVATION_SCHEMA.
    """

    def __init__(self, about: About, observations: pa.Table) -> None:
        self.about = about
        self.observations = observations

    def write(self, uri: str) -> None:
        """Write the file; on local disks and object stores it replaces an old one in one step.

        Raises:
            StorageError: It cannot be written.
        """
        table = self.observations.replace_schema_metadata({_ABOUT: self.about.model_dump_json()})
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        try:
            filesystem, path = fsspec.core.url_to_fs(uri, auto_mkdir=True)
            with filesystem.transaction, filesystem.open(path, "wb") as stream:
                stream.write(sink.getvalue())
        except Exception as error:
            raise StorageError(f"cannot write the baseline {uri}: {error}") from error


def read_baseline(uri: str, model: str) -> Baseline | None:
    """Read a baseline; None if `uri` contains `{model}` and there is no such file.

    Raises:
        ConfigurationError: There is no such file, or it is no baseline.
        StorageError: It cannot be read.
    """
    place = uri.replace("{model}", model)
    try:
        with fsspec.open(place, "rb") as stream:
            table = pq.ParquetFile(io.BytesIO(stream.read())).read()
        about = About.model_validate_json((table.schema.metadata or {})[_ABOUT])
    except FileNotFoundError as error:
        if "{model}" in uri:
            return None
        raise ConfigurationError(f"no --baseline {place}: make one with imagebatch baseline") from error
    except (pa.ArrowInvalid, ValidationError, KeyError) as error:
        raise ConfigurationError(f"--baseline {place} is no file of imagebatch baseline") from error
    except OSError as error:
        raise StorageError(f"cannot read --baseline {place}: {error}") from error
    for newer in map(OBSERVATION_SCHEMA.field, ("embedding", "label_count", "score")):
        if newer.name not in table.schema.names:  # made before there was the column: all else still compares
            table = table.append_column(newer, pa.nulls(table.num_rows, newer.type))
    if sorted(table.schema.names) != sorted(OBSERVATION_SCHEMA.names):
        raise ConfigurationError(f"--baseline {place} is of another version: make it again")
    return Baseline(about, table.select(OBSERVATION_SCHEMA.names))


def as_text(content: dict[str, Any]) -> bytes:
    """Return JSON in the form in which it is kept in a run."""
    return (json.dumps(content, indent=1) + "\n").encode()
