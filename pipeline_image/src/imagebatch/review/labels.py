"""Labels that people gave, matched with a run's predictions: rows with where each comes from."""

from __future__ import annotations

import csv
import difflib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from imagebatch.contracts.ids import encode_cell
from imagebatch.contracts.records import RunDescription
from imagebatch.errors import DataRefusedError, NotProvenError, one_line
from imagebatch.review.bundle import key_in, key_of
from imagebatch.review.queue import Predicted
from imagebatch.review.said import Said

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Label:
    """A row of a run's labels: what a person said about an image, beside what the model had said.

    Attributes:
        image: Path of the file below the folder of images, for training; empty where there is none, or
            where a CSV cannot hold it safely.
        label: What the person said.
        part: `test` for an image of the random sample, else `train`: what was chosen because it is hard must
            not be tested on.
        image_id: The image.
        uri: Where it lies, without a permission to read it.
        sha256: Of the file that was scored.
        predicted: What the model had said.
        probability: With which probability.
        run_id: The run.
        model: Name of its model.
        model_version: Its version.
        model_digest: Its digest.
        annotator: Who said it; empty: not known.
        labelled_at: When; empty: not known.
        format: Of the export that it was read from.
    """

    image: str
    label: str
    part: str
    image_id: str
    uri: str
    sha256: str
    predicted: str
    probability: str
    run_id: str
    model: str
    model_version: str
    model_digest: str
    annotator: str
    labelled_at: str
    format: str

    @property
    def right(self) -> bool:
        """Whether the person said what the model had said."""
        return self.label == self.predicted

    @property
    def sampled(self) -> bool:
        """Whether the image is of the random sample."""
        return self.part == "test"


COLUMNS = tuple(field.name for field in fields(Label))


def matched(
    said: Sequence[Said], predicted: Iterable[Predicted], description: RunDescription
) -> dict[str, tuple[Said, Predicted]]:
    """Match what people said with a run's predictions.

    Args:
        said: With a label each.
        predicted: All predictions of the run.
        description: Its run.json.

    Returns:
        By image id; of several answers about one image the last counts.

    Raises:
        DataRefusedError: It is about another run, about images that this one has no prediction of, or names
            labels that the model does not have.
    """
    _require_run(said, description.run_id)
    names = {label: label for label in description.model.labels}
    names |= {encode_cell(label): label for label in description.model.labels}  # as a CSV shows them
    _require_labels(said, names)
    by_id = {one.image_id: one for one in said if one.image_id}
    by_key = {key_in(one.picture): one for one in said if not one.image_id}
    found: dict[str, tuple[Said, Predicted]] = {}
    for row in predicted:
        one = by_id.get(row.image_id) or by_key.get(key_of(row.image_id))
        if one is not None:
            found[row.image_id] = replace(one, label=names[one.label.strip()]), row
    keys = {key_of(name) for name in found}
    missing = [one for one in said if one.image_id not in found and key_in(one.picture) not in keys]
    if missing:
        some = ", ".join(one_line(one.image_id or one.picture or "(no name)", 60) for one in missing[:_NAMED])
        raise DataRefusedError(
            f"{len(missing)} of {len(said)} labels are of images that run {description.run_id} has no"
            f" prediction of, such as {some}; is this the run that they were handed out of?"
        )
    return found


def _require_run(said: Iterable[Said], run_id: str) -> None:
    others = sorted({one.run_id for one in said if one.run_id} - {run_id})
    if others:
        raise DataRefusedError(
            f"the export is of run {one_line(others[0], 130)}, not of {run_id}: give --run-id with the run"
            " that it was handed out of"
        )


def _require_labels(said: Iterable[Said], names: Mapping[str, str]) -> None:
    unknown = Counter(one.label.strip() for one in said if one.label.strip() not in names)
    if not unknown:
        return
    told = []
    for label, images in unknown.most_common(_NAMED):
        near = difflib.get_close_matches(label, names, n=1)
        hint = f", did you mean {one_line(near[0], 60)}?" if near else ""
        told.append(f"{one_line(label, 60)!r} ({images} image{'s' if images > 1 else ''}{hint})")
    known = ", ".join(one_line(name, 40) for name in list(dict.fromkeys(names.values()))[:20])
    raise DataRefusedError(
        f"{len(unknown)} label{'s' if len(unknown) > 1 else ''} that the model does not have:"
        f" {'; '.join(told)}; it has {known}"
    )


def as_csv(labels: Iterable[Label]) -> bytes:
    """Write labels as CSV, sorted by image id."""
    stream = io.StringIO(newline="")
    lines = csv.writer(stream)
    lines.writerow(COLUMNS)
    for label in sorted(labels, key=lambda one: one.image_id):
        # Others have written who and when; what else could be more than text is safe already.
        safe = {"annotator": encode_cell(label.annotator), "labelled_at": encode_cell(label.labelled_at)}
        row = {name: getattr(label, name) for name in COLUMNS} | safe
        lines.writerow([row[name] for name in COLUMNS])
    return stream.getvalue().encode()


def from_csv(data: bytes, path: str) -> list[Label]:
    """Read what `as_csv` wrote.

    Raises:
        NotProvenError: It is something else.
    """
    try:
        rows = csv.DictReader(io.StringIO(data.decode(), newline=""))
        return [Label(**{name: row[name] for name in COLUMNS}) for row in rows]
    except (KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise NotProvenError(f"{path} is not what imagebatch labels wrote: {one_line(error, 80)}") from error
