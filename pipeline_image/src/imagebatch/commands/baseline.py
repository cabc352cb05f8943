"""The command `baseline`: make a finished run the one that later runs are compared with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from imagebatch.contracts.layout import PREDICTIONS_PARQUET
from imagebatch.contracts.records import HeadKind, RunDescription
from imagebatch.drift.accuracy import Calibration, calibrate
from imagebatch.drift.baseline import About, Baseline
from imagebatch.drift.judge import LEAST_IMAGES
from imagebatch.drift.observations import observe
from imagebatch.errors import ConfigurationError, DataRefusedError
from imagebatch.heads import head_of
from imagebatch.images.decoders import Decoders
from imagebatch.images.sample import measured_sample
from imagebatch.runs.certificate import recorded_certificate
from imagebatch.runs.description import read_description
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.settings import BaselineSettings


@dataclass(frozen=True, slots=True)
class MadeBaseline:
    """What a baseline holds; `accuracy` is that of the labelled images, if there are any."""

    baseline: str
    images: int
    labelled: int
    accuracy: float | None


def baseline(settings: BaselineSettings) -> MadeBaseline:
    """Write a baseline.

    Raises:
        ConfigurationError: The run has not finished, or the labels cannot be read.
        DataRefusedError: Too few images, or labels that the model does not know.
        StorageError: The inputs cannot be read or the file not written.
    """
    run = open_run(settings.runs_uri, settings.run_id)
    recorded_certificate(run)
    description = read_description(run)
    if settings.labels and description.model.head is not HeadKind.SOFTMAX:
        raise ConfigurationError(
            f"--labels calibrates the confidences of a softmax; the head of {description.model.name} is a"
            f" {description.model.head}: make the baseline without it"
        )
    with Decoders() as decoders:
        sample = measured_sample(run, description, settings.image_sample, decoders)
    observations = observe(run, description, sample)
    if observations.num_rows < LEAST_IMAGES:
        raise DataRefusedError(
            f"only {observations.num_rows} images have a prediction and can be decoded: a baseline needs"
            f" {LEAST_IMAGES}"
        )
    calibration = _calibration(run, description, settings.labels) if settings.labels else None
    classes, predictions = _classes(run, description)
    about = About(
        run_id=description.run_id,
        model=description.model,
        classes=classes,
        predictions=predictions,
        calibration=calibration,
    )
    place = settings.output.replace("{model}", description.model.name)
    Baseline(about, observations).write(place)
    return MadeBaseline(
        PurePosixPath(place).name if "://" not in place else place,
        observations.num_rows,
        calibration.images if calibration else 0,
        calibration.accuracy if calibration else None,
    )


def _classes(run: RunFolder, description: RunDescription) -> tuple[dict[str, int], int]:
    """Count predictions by label, and all of them."""
    head = head_of(description.model, description.top_k)
    counts: Counter[str] = Counter()
    predictions = 0
    with run.reading(PREDICTIONS_PARQUET) as stream:
        for batch in pq.ParquetFile(stream).iter_batches():
            counts.update(head.labels_in(pa.Table.from_batches([batch])))
            predictions += batch.num_rows
    return dict(sorted(counts.items())), predictions


def _calibration(run: RunFolder, description: RunDescription, labels: str) -> Calibration:
    truth = _truth(labels)
    unknown = set(truth["label"].unique().to_pylist()) - set(description.model.labels)
    if unknown:
        raise DataRefusedError(
            f"--labels {labels}: {min(map(str, unknown))} is no label of the model;"
            f" it has {', '.join(description.model.labels[:20])}"
        )
    wanted = truth["image_id"].combine_chunks()
    confidence, right = [], []
    with run.reading(PREDICTIONS_PARQUET) as stream:
        columns = ["image_id", "label_1", "probability_1"]
        for batch in pq.ParquetFile(stream).iter_batches(columns=columns):
            at = pc.index_in(batch["image_id"], wanted)
            known = batch.filter(pc.is_valid(at))
            expected = truth["label"].take(at.drop_null())
            right.append(pc.equal(known["label_1"], expected.combine_chunks()).to_numpy(zero_copy_only=False))
            confidence.append(known["probability_1"].to_numpy().astype(np.float64))
    found = np.concatenate(confidence)
    if len(found) < LEAST_IMAGES:
        raise DataRefusedError(
            f"--labels {labels}: {len(found)} of its images have a prediction in this run,"
            f" at least {LEAST_IMAGES} are needed"
        )
    return calibrate(found, np.concatenate(right).astype(bool))


def _truth(labels: str) -> pa.Table:
    text = dict.fromkeys(("image_id", "label"), pa.string())
    try:
        with fsspec.open(labels, "rb") as stream:
            # An empty label is an image whose truth is not known.
            options = pyarrow.csv.ConvertOptions(
                column_types=text, null_values=[""], strings_can_be_null=True
            )
            table = pyarrow.csv.read_csv(stream, convert_options=options)
        return table.select(["image_id", "label"]).drop_null()
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ConfigurationError(
            f"--labels {labels}: {error}; give a CSV with columns image_id and label"
        ) from error
