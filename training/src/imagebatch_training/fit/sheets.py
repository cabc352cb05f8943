"""Sheets of test images, for MLflow: the worst mistakes, and where the model saw what it named."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imagebatch_training.backbone.mobilenet import ServedModel
from imagebatch_training.fit.assessment import Answers
from imagebatch_training.fit.gradcam import grad_cam
from imagebatch_training.fit.plots import plot_reliability
from imagebatch_training.images.labels import Labels
from imagebatch_training.images.pixels import Pixels
from imagebatch_training.metrics import Integers

_COLUMNS, _WORST = 6, 24
_ROWS, _EACH = 8, 3
_LONGEST = 22
"""Letters of a name that fit under a picture."""


def draw_answers(answers: Answers, labels: Labels, pixels: Pixels) -> dict[str, Figure]:
    """Draw one method's answers, by file name: see `plot_reliability` and `draw_worst`."""
    return {
        "reliability.png": plot_reliability(answers),
        "worst-mistakes.png": draw_worst(answers, labels, pixels),
    }


def draw_worst(answers: Answers, labels: Labels, pixels: Pixels) -> Figure:
    """Draw the wrong test images of the highest confidence, the most confident one first.

    Args:
        answers: On the test images.
        labels: Names of images and classes.
        pixels: uint8 (images, 1 or 3, side, side), of the whole data set: as the model sees them.

    Returns:
        At most 24 pictures, each with its name, its true class, and the class and probability it was given.
    """
    wrong = np.flatnonzero(~answers.correct)
    worst = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:_WORST]
    rows = max(1, -(-len(worst) // _COLUMNS))
    figure, grid = _sheet(rows, _COLUMNS)
    for axes, one in zip(grid, worst, strict=False):
        position = answers.positions[one]
        _show(axes, pixels[position])
        name = shorten(labels.examples[position].image_id)
        _write(axes, f"{name}\n{_verdict(answers, labels, one)}")
    figure.suptitle(f"{len(wrong)} of {len(answers.targets)} test images are wrong: the most confident ones")
    return figure


def draw_grad_cam(answers: Answers, labels: Labels, pixels: Pixels, model: ServedModel) -> Figure:
    """Draw where the model saw what it named, a row per true class: right ones, then wrong ones.

    Args:
        answers: Of `model` on the test images.
        labels: Names of classes.
        pixels: As for `draw_worst`.
        model: In evaluation mode.

    Returns:
        At most 8 classes, those with the most mistakes, in their order; the 3 most confident of each kind.
    """
    mistakes = np.bincount(answers.targets[~answers.correct], minlength=len(labels.classes))
    classes = sorted(np.argsort(-mistakes, kind="stable")[:_ROWS].tolist())
    figure, grid = _sheet(len(classes), 2 * _EACH)
    for row, wanted in enumerate(classes):
        for half, right in enumerate((True, False)):
            chosen = _most_confident(answers, wanted, right=right)
            named = answers.probabilities[chosen].argmax(1)
            for column, one in enumerate(chosen):
                axes = grid[row * 2 * _EACH + half * _EACH + column]
                picture = pixels[answers.positions[one]]
                _show(axes, picture)
                heat = grad_cam(model, picture[None], named[column : column + 1])[0]
                side = picture.shape[-1]
                axes.imshow(
                    heat, cmap="inferno", alpha=0.45, extent=(0, side, side, 0), interpolation="bilinear"
                )
                _write(axes, _verdict(answers, labels, one))
    figure.suptitle("where the model saw what it named: right on the left, wrong on the right")
    return figure


def shorten(text: str) -> str:
    """Cut a text to what fits under a picture, in its middle: what it ends with tells files apart."""
    if len(text) <= _LONGEST:
        return text
    half = (_LONGEST - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def _most_confident(answers: Answers, wanted: int, *, right: bool) -> Integers:
    found = np.flatnonzero((answers.targets == wanted) & (answers.correct == right))
    return found[np.argsort(-answers.confidence[found], kind="stable")][:_EACH]


def _verdict(answers: Answers, labels: Labels, one: int) -> str:
    named = labels.classes[int(answers.probabilities[one].argmax())]
    true = labels.classes[int(answers.targets[one])]
    return f"is {shorten(true)}\nsaid {shorten(named)} {answers.confidence[one]:.2f}"


def _sheet(rows: int, columns: int) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(1.7 * columns, 2.2 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in grid:
        axes.set_axis_off()
    return figure, grid


def _show(axes: Axes, picture: Pixels) -> None:
    axes.imshow(
        picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255
    )


def _write(axes: Axes, text: str) -> None:
    # A name may be anything: `$` is no formula.
    axes.set_title(text, fontsize=7, parse_math=False)
