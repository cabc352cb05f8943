"""The verb `evaluate`: a finished run's predictions against the known labels."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imagebatch_training import metrics
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.images.data import require_data
from imagebatch_training.images.labels import Example, Labels
from imagebatch_training.settings import Settings

Prediction = tuple[str, float]
"""Most probable label and its probability."""

_COLUMNS = ("image_id", "label_1", "probability_1")
_COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)
"""Of the curve, those that are printed."""


def evaluate(settings: Settings, predictions: Path) -> dict[str, Any]:
    """Compare predictions with labels.

    Args:
        settings: Which data set.
        predictions: A run's `predictions.csv` (docs/reference/run-layout.md).

    Returns:
        See `compare`.

    Raises:
        ConfigurationError: A file is missing.
        DataError: The file is no `predictions.csv`, or none of its images is known.
    """
    return compare(require_data(settings).labels, read_predictions(predictions))


def read_predictions(path: Path) -> dict[str, Prediction]:
    """Read label and probability of every image_id.

    Raises:
        ConfigurationError: The file is missing.
        DataError: A column is missing, or a probability is no number.
    """
    if not path.is_file():
        raise ConfigurationError(f"no file {path}: give a finished run's output/predictions.csv")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise DataError(f"{path} has no column {missing[0]}: give a run's output/predictions.csv")
        try:
            return {row["image_id"]: (row["label_1"], float(row["probability_1"])) for row in reader}
        except ValueError as error:
            raise DataError(f"{path} has a probability that is no number: {error}") from error


def compare(labels: Labels, predictions: Mapping[str, Prediction]) -> dict[str, Any]:
    """Compute accuracy on the test blocks, and confidence on certain and uncertain images.

    Args:
        labels: With the block split.
        predictions: By image_id; images that are not in `labels` are counted and ignored.

    Returns:
        `known`, `unknown`, `missing` (test images without a prediction: not counted as wrong), `test`
        (images, blocks, correct, accuracy, wilson, block_bootstrap, per-class figures), `coverage` (accuracy
        of the test images that are sure enough, see `metrics.coverage_curve`) and `confidence`.

    Raises:
        DataError: No test image is among the predictions.
    """
    by_id = {example.image_id: example for example in labels.examples}
    known = {name: prediction for name, prediction in predictions.items() if name in by_id}
    test = [e for e in labels.examples if e.label and e.block_split == "test"]
    scored = [example for example in test if example.image_id in known]
    if not scored:
        raise DataError(
            "none of the test images is among the predictions: is this run's input this data set?"
        )
    certain = np.array([known[example.image_id][1] for example in scored])
    uncertain = [e for e in labels.examples if not e.label and e.image_id in known]
    held_out = [example for example in uncertain if example.block_split == "test"]
    return {
        "known": len(known),
        "unknown": len(predictions) - len(known),
        "missing": len(test) - len(scored),
        "test": _accuracy(labels, scored, known),
        "coverage": metrics.coverage_curve(
            certain, np.array([known[e.image_id][0] == e.label for e in scored])
        ),
        "confidence": metrics.compare_confidence(certain, _probabilities(uncertain, known)),
        "confidence_in_test_blocks": metrics.compare_confidence(certain, _probabilities(held_out, known)),
    }


def _probabilities(examples: list[Example], known: Mapping[str, Prediction]) -> metrics.Floats:
    return np.array([known[example.image_id][1] for example in examples])


def _accuracy(labels: Labels, scored: list[Example], known: Mapping[str, Prediction]) -> dict[str, Any]:
    index = {name: number for number, name in enumerate(labels.classes)}
    foreign = sorted({known[e.image_id][0] for e in scored} - set(index))
    if foreign:
        raise DataError(f"the predictions name {foreign[0]!r}, which is no class of this data set")
    predicted = np.array([index[known[e.image_id][0]] for e in scored])
    targets = np.array([index[e.label] for e in scored])
    correct, blocks = predicted == targets, np.array([e.block for e in scored])
    counts = metrics.confusion(predicted, targets, len(index))
    return {
        "images": len(scored),
        "blocks": len(set(blocks.tolist())),
        "correct": int(correct.sum()),
        "accuracy": float(correct.mean()),
        "wilson": metrics.wilson(int(correct.sum()), len(scored)),
        "block_bootstrap": metrics.block_bootstrap(correct, blocks),
        "classes": metrics.per_class(counts, list(labels.classes)),
    }


def render(result: dict[str, Any]) -> str:
    """Render the result of `compare` as a few lines of text."""
    test = result["test"]
    low, high = test["wilson"]
    block_low, block_high = test["block_bootstrap"]
    lines = [
        f"accuracy {test['accuracy']:.3f}: {test['images']} labelled images of {test['blocks']} test blocks",
        f"  95 % interval, counting images: {low:.3f}-{high:.3f}",
        f"  95 % interval, drawing blocks:  {block_low:.3f}-{block_high:.3f}",
    ]
    lines += class_lines(test["classes"])
    lines += coverage_lines(result["coverage"])
    confidence = result["confidence"]
    if confidence is not None:
        lines.append(
            f"mean top-1 probability {confidence['certain_mean']:.3f} on these, "
            f"{confidence['uncertain_mean']:.3f} on the {confidence['uncertain_images']} uncertain images "
            f"(AUROC {confidence['auroc']:.3f})"
        )
    lines += [f"{result[name]} {text}" for name, text in _REMARKS.items() if result[name]]
    return "\n".join(lines)


def class_lines(classes: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Say recall, precision and number of images of every class."""
    return [
        f"  {name}: recall {one['recall']:.3f}, precision {one['precision']:.3f}, {one['images']} images"
        for name, one in classes.items()
    ]


def coverage_lines(curve: list[dict[str, Any]]) -> list[str]:
    """Say how right the surest images are, at a few shares that are left to the model."""
    lines = ["accuracy of the surest, the others left to people:"]
    for wanted in _COVERAGES:
        point = min(curve, key=lambda one: abs(one["coverage"] - wanted))
        low, high = point["wilson"]
        text = (
            f"  {point['coverage']:.0%} of the images, probability {point['threshold']:.3f} or more: accuracy"
            f" {point['accuracy']:.3f} ({low:.3f}-{high:.3f})"
        )
        if text not in lines:
            lines.append(text)
    return lines


def require_drawable(picture: Path | None) -> None:
    """Refuse a picture that `draw_coverage` could not write, before anything is computed.

    Raises:
        ConfigurationError: It is neither .png nor .svg.
    """
    if picture and picture.suffix not in {".png", ".svg"}:
        raise ConfigurationError(f"--picture {picture}: give a file that ends in .png or .svg")


def draw_coverage(curve: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy against coverage, with its 95 % interval.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - a second, and not for all

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    coverage = [point["coverage"] for point in curve]
    low, high = zip(*(point["wilson"] for point in curve), strict=True)
    axes.fill_between(coverage, low, high, alpha=0.2, label="95 % interval, counting images")
    axes.plot(coverage, [point["accuracy"] for point in curve], marker=".", label="accuracy of the surest")
    axes.set_xlim(0, 1)
    axes.set_xlabel("coverage: share of the test images left to the model")
    axes.set_ylabel("accuracy on those")
    axes.legend()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ConfigurationError(f"--picture {path}: {error.strerror}") from error


_REMARKS = {
    "missing": "test images have no prediction and are not counted",
    "unknown": "predictions are of images without a label entry",
}
