"""The command `labels`: what people said about a run's images, as training data and as the run's accuracy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from imagebatch.contracts.addresses import without_permission
from imagebatch.contracts.layout import LABELS, labels_path
from imagebatch.contracts.records import RunDescription
from imagebatch.errors import ConfigurationError, DataRefusedError
from imagebatch.history.summary import RunSummary, keep_summary, read_history, read_summary, stands_aside
from imagebatch.images.places import places
from imagebatch.log import get_logger
from imagebatch.observe.metrics import ACCURACY
from imagebatch.observe.push import push_of_run
from imagebatch.review import cvat, label_studio, table
from imagebatch.review.accuracy import measured, wilson
from imagebatch.review.labels import Label, as_csv, from_csv, matched
from imagebatch.review.queue import Predicted, predictions, require_one_class, sampled_ids
from imagebatch.review.record import Agreement, MeasuredAccuracy, keep_review, read_review
from imagebatch.review.said import Reading, Said
from imagebatch.review.training_csv import Folder, add_to_training_csv, image_folder
from imagebatch.runs.certificate import recorded_certificate
from imagebatch.runs.description import read_description
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.settings import LabelsSettings
from imagebatch.stages.report.history_page import write_history

log = get_logger()

_FORMER = 10
_RUNS_OF_HISTORY = 60


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What was read back.

    Attributes:
        imported: Labels of this file.
        changed: Of these, those that say something else than the model.
        without: Images of the file without a label.
        untouched: Images that still carry the model's label, and count as without one.
        labels: Where all labels of the run are kept.
        labelled: How many there are.
        images: Folder that their paths begin at; empty: they have none.
        training_csv: Where they were added; empty: nowhere.
        sample: Images of the random sample; 0: none was handed out.
        accuracy: Of the run, measured on the sample; None: none of it has a label.
        accuracy_low: Lower end of its 95 % interval.
        accuracy_high: Upper end.
    """

    imported: int
    changed: int
    without: int
    untouched: int
    labels: str
    labelled: int
    images: str
    training_csv: str
    sample: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None


def labels(settings: LabelsSettings) -> ReadBack:
    """Read labels back.

    Raises:
        ConfigurationError: The run has not finished, its model names no single class, or there is no file.
        DataRefusedError: The file is no export of this run, names unknown labels or holds no label.
        StorageError: Something cannot be read or written.
    """
    known = read_summary(settings.runs_uri, settings.run_id)
    if known and "pipeline" not in settings.model_fields_set:
        settings = settings.model_copy(update={"pipeline": known.pipeline})
    return _read_back(settings)


def _read_back(settings: LabelsSettings) -> ReadBack:
    run = open_run(settings.runs_uri, settings.run_id)
    recorded_certificate(run)
    description = read_description(run)
    require_one_class(description)
    reading, untouched = _counting(_reading(settings), settings)
    if not reading.said:
        raise DataRefusedError(f"{settings.file} holds no label of a person" + _hint(untouched))
    review = read_review(settings.runs_uri, settings.run_id)
    rows = (row for some in predictions(run) for row in some)
    found = matched(reading.said, rows, description)
    sampled = sampled_ids(run, settings.run_id, review.sample) if review.sample else set()
    folder, new = _labels(run, description, found, sampled, settings)
    kept = open_run(settings.runs_uri, LABELS)
    everything = _merged(kept, settings.run_id, new, sampled)
    if settings.training_csv:
        add_to_training_csv(Path(settings.training_csv), new)
    kept.write(labels_path(settings.run_id), as_csv(everything))
    accuracy = _measured(everything, sampled)
    queue = [label for label in everything if not label.sampled]
    agreement = Agreement(labelled=len(queue), right=sum(label.right for label in queue))
    update = {"imported": datetime.now(UTC), "queue": agreement, "accuracy": accuracy}
    keep_review(settings.runs_uri, review.model_copy(update=update))
    _into_history(settings, accuracy)
    _tell(accuracy, agreement)
    return ReadBack(
        imported=len(new),
        changed=sum(not label.right for label in new),
        without=reading.without,
        untouched=untouched,
        labels=f"{kept.uri}/{labels_path(settings.run_id)}",
        labelled=len(everything),
        images=folder.path,
        training_csv=settings.training_csv,
        sample=len(sampled),
        accuracy=accuracy.accuracy if accuracy else None,
        accuracy_low=accuracy.low if accuracy else None,
        accuracy_high=accuracy.high if accuracy else None,
    )


def _reading(settings: LabelsSettings) -> Reading:
    try:
        data = Path(settings.file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--file {settings.file}: {error.strerror}") from error
    read = {"label-studio": label_studio.read, "cvat": cvat.read, "csv": table.read}[settings.format]
    return read(data)


def _counting(reading: Reading, settings: LabelsSettings) -> tuple[Reading, int]:
    """Leave out what nobody has confirmed; return the rest, and how many that were."""
    if settings.accept_predictions:
        return reading, 0
    said = [one for one in reading.said if not one.untouched]
    return Reading(said, reading.without), len(reading.said) - len(said)


def _hint(untouched: int) -> str:
    if not untouched:
        return ": has anybody labelled, and was it saved before the export?"
    return (
        f": {untouched} images still carry the model's own; if people have looked at all of them, give"
        " --accept-predictions"
    )


def _labels(
    run: RunFolder,
    description: RunDescription,
    found: dict[str, tuple[Said, Predicted]],
    sampled: set[str],
    settings: LabelsSettings,
) -> tuple[Folder, list[Label]]:
    """Make a row of each label, with where it comes from."""
    uris = {name: place.uri for name, place in places(run, found)}
    folder = image_folder(settings.images, description, uris.values())
    model = description.model
    rows = [
        Label(
            image=folder.path_of(name, uris[name]),
            label=said.label,
            part="test" if name in sampled else "train",
            image_id=name,
            uri=without_permission(uris[name]),
            sha256=predicted.sha256,
            predicted=predicted.label,
            probability=f"{predicted.probability:.6f}",
            run_id=description.run_id,
            model=model.name,
            model_version=model.version,
            model_digest=model.digest,
            annotator=said.annotator,
            labelled_at=said.when,
            format=settings.format,
        )
        for name, (said, predicted) in found.items()
    ]
    return folder, rows


def _merged(kept: RunFolder, run_id: str, new: list[Label], sampled: set[str]) -> list[Label]:
    """Join the run's labels of before with new ones, of which one about the same image wins.

    A sample that was drawn since makes some of those of before its own.
    """
    path = labels_path(run_id)
    before = from_csv(kept.read(path), path) if kept.exists(path) else []
    before = [replace(one, part="test" if one.image_id in sampled else "train") for one in before]
    return list({label.image_id: label for label in [*before, *new]}.values())


def _measured(everything: list[Label], sampled: set[str]) -> MeasuredAccuracy | None:
    of_sample = [label for label in everything if label.sampled]
    return measured(len(sampled), len(of_sample), sum(label.right for label in of_sample))


def _into_history(settings: LabelsSettings, accuracy: MeasuredAccuracy | None) -> None:
    summary = read_summary(settings.runs_uri, settings.run_id)
    if accuracy is None:
        return
    if summary is None:  # a report that is made later takes it from the review's record
        log.warning(
            "the run has no report: its accuracy is in no history and no alert; make one, then import again"
        )
        return
    summary = summary.model_copy(update=accuracy.figures())
    keep_summary(settings.runs_uri, summary)
    write_history(settings.runs_uri, read_history(settings.runs_uri, _RUNS_OF_HISTORY))
    of_pipeline = read_history(settings.runs_uri, pipeline=summary.pipeline)
    bounds = _bounds(accuracy, summary, [run for run in of_pipeline if run.accuracy is not None])
    push_of_run(settings, [(ACCURACY, (bound,), value) for bound, value in bounds.items()])


def _bounds(accuracy: MeasuredAccuracy, summary: RunSummary, labelled: list[RunSummary]) -> dict[str, float]:
    """Return what Prometheus is shown, by bound; nothing of a run that is not its pipeline's newest with any.

    Args:
        accuracy: Of this run.
        summary: Its figures.
        labelled: Runs of its pipeline with an accuracy, oldest first, this one among them.
    """
    if labelled[-1].run_id != summary.run_id or stands_aside(summary.pipeline):
        return {}
    bounds = {"estimate": accuracy.accuracy, "low": accuracy.low, "high": accuracy.high}
    former = [run for run in labelled[:-1] if run.accuracy_labelled][-_FORMER:]
    if former:
        right = sum(run.accuracy_right or 0 for run in former)
        bounds["former_low"], _ = wilson(right, sum(run.accuracy_labelled or 0 for run in former))
    return bounds


def _tell(accuracy: MeasuredAccuracy | None, queue: Agreement) -> None:
    if accuracy:
        log.info("accuracy of the run, by its random sample", **accuracy.model_dump())
    if queue.labelled:
        log.info("the queue is no measure of the run: it was chosen because it is hard", **queue.model_dump())
