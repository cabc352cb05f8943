"""The verb `evaluate --archive`: what an archive answers of labelled images, whichever they are."""

from pathlib import Path
from typing import Any

import numpy as np
from imagebatch_header import ImageError  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker

from imagebatch_training import metrics
from imagebatch_training.archive.loaded import load_archive, unpacked
from imagebatch_training.errors import DataError
from imagebatch_training.evaluate import class_lines, coverage_lines
from imagebatch_training.images.sources import read_source
from imagebatch_training.progress import progress
from imagebatch_training.settings import Settings


def evaluate_archive(settings: Settings, mar: Path) -> dict[str, Any]:
    """Ask an archive about every labelled image of a data set, and compare.

    The split of the data set does not matter: all of its images are test images here. Give images that the
    model was not trained on.

    Args:
        settings: Which data set (`data`): a folder per class, a CSV, the installed example.
        mar: An archive whose head names one class.

    Returns:
        `archive`, `images` (labelled and readable), `unreadable` (reason by image_id), `correct`, `accuracy`,
        `wilson` (95 %, counting images as independent), `classes` (recall, precision, F1, images of each) and
        `coverage` (see `metrics.coverage_curve`).

    Raises:
        ConfigurationError: The archive is missing, holds other code than this, or names no single class.
        DataError: There is no labelled image that can be read, or a label is no class of the model.
    """
    listing = read_source(settings.data)
    labelled = [example for example in listing.examples if example.label]
    with unpacked(settings, mar) as folder:
        model = load_archive(folder)
        classes = list(model.labels)
        foreign = sorted({example.label for example in labelled} - set(classes))
        if foreign:
            raise DataError(
                f"{foreign[0]!r} is no class of {mar.name}: it knows {', '.join(classes)[:200]};"
                " name the folders, or the labels of the CSV, as the model does"
            )
        logits, targets, unreadable = [], [], {}
        for example in progress(labelled, f"asking {mar.name}"):
            try:
                pixels = model.decode(example.path(Path(settings.data.images)).read_bytes())
            except ImageError as error:
                unreadable[example.image_id] = error.reason
                continue
            logits.append(model.infer(pixels))
            targets.append(classes.index(example.label))
    if not logits:
        raise DataError(f"none of the {len(labelled)} labelled images in {settings.data.images} can be read")
    return {"archive": str(mar), "unreadable": unreadable} | _compare(
        np.stack(logits).astype(np.float64), np.array(targets), classes
    )


def _compare(logits: metrics.Floats, targets: metrics.Integers, classes: list[str]) -> dict[str, Any]:
    correct = logits.argmax(1) == targets
    return {
        "images": len(targets),
        "correct": int(correct.sum()),
        "accuracy": float(correct.mean()),
        "wilson": metrics.wilson(int(correct.sum()), len(targets)),
        "classes": metrics.per_class(metrics.confusion(logits.argmax(1), targets, len(classes)), classes),
        "coverage": metrics.coverage_curve(metrics.softmax(logits).max(1), correct),
    }


def render(result: dict[str, Any]) -> str:
    """Render the result of `evaluate_archive` as a few lines of text."""
    low, high = result["wilson"]
    lines = [
        f"accuracy {result['accuracy']:.3f}: {result['correct']} of {result['images']} images",
        f"  95 % interval, counting images: {low:.3f}-{high:.3f}",
    ]
    lines += class_lines(result["classes"])
    lines += coverage_lines(result["coverage"])
    lines += [f"not read, and not counted: {name}: {why}" for name, why in result["unreadable"].items()]
    return "\n".join(lines)
