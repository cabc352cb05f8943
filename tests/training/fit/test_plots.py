"""The pictures of a training: the right marks in the right places, in files that can be opened."""

import io
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from imagebatch_training.fit.assessment import Assessment
from imagebatch_training.fit.plots import plot_confusion, plot_history
from matplotlib.figure import Figure
from PIL import Image

CLASSES = ["sound", "cracked & dark", "broken"]
COUNTS = [[90, 7, 1], [12, 40, 3], [0, 2, 25]]


@pytest.fixture
def assessment() -> Assessment:
    history = [
        {
            "learning_rate": rate,
            "epoch": epoch,
            "train_loss": rate * 1e3 / epoch,
            "validation_loss": 1 / epoch,
        }
        for rate in (2e-4, 5e-5)
        for epoch in (1, 2, 3)
    ]
    return Assessment(
        split="block",
        method="fine-tune",
        validation={},
        test={"confusion": COUNTS, "images": 180},
        chosen={},
        history=history,
    )


def saved(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)


def test_the_confusion_matrix_has_the_true_class_in_rows(assessment: Assessment) -> None:
    """Twelve cracked cells called sound stand in the row of the cracked and the column of the sound."""
    (axes,) = plot_confusion(assessment, CLASSES).axes
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(c, r): str(COUNTS[r][c]) for r in range(3) for c in range(3)}
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES
    assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")
    assert axes.get_title() == "fine-tune, block split, 180 test images"


def test_numbers_can_be_read_on_their_squares(assessment: Assessment) -> None:
    """White on the dark squares, black on the light ones: measured on the colours that are drawn."""
    figure = plot_confusion(assessment, CLASSES)
    (axes,) = figure.axes
    (matrix,) = axes.images
    for text in axes.texts:
        column, row = text.get_position()
        red, green, blue, _ = matrix.to_rgba(COUNTS[int(row)][int(column)])
        bright = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        assert text.get_color() == ("black" if bright > 0.5 else "white")


def test_the_pictures_are_files_that_open(assessment: Assessment) -> None:
    """PNG as MLflow shows it: of the figure's size, and with marks on it, not an empty sheet."""
    for figure, size in (
        (plot_confusion(assessment, CLASSES), (600, 500)),
        (plot_history(assessment), (600, 400)),
    ):
        picture = saved(figure)
        assert (picture.format, picture.size) == ("PNG", size)
        grey = np.asarray(picture.convert("L"))
        assert 0.02 < (grey < 200).mean() < 0.6


def test_class_names_reach_the_picture_as_they_are(assessment: Assessment) -> None:
    """Also one that would be markup in an SVG."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        plot_confusion(assessment, CLASSES).savefig(buffer, format="svg")
    assert "cracked &amp; dark" in buffer.getvalue()


def test_the_history_has_a_pair_of_lines_for_every_rate(assessment: Assessment) -> None:
    """Smallest rate first, training dashed, each with its own epochs and losses."""
    (axes,) = plot_history(assessment).axes
    lines = {str(line.get_label()): line for line in axes.lines}
    assert list(lines) == ["train, 5e-05", "validation, 5e-05", "train, 0.0002", "validation, 0.0002"]
    for name, line in lines.items():
        rate = float(name.split(", ")[1])
        expected = [rate * 1e3, rate * 1e3 / 2, rate * 1e3 / 3] if "train" in name else [1, 1 / 2, 1 / 3]
        assert list(line.get_xdata()) == [1, 2, 3]
        assert list(line.get_ydata()) == pytest.approx(expected)
        assert line.get_linestyle() == ("--" if "train" in name else "-")
    assert all(tick == int(tick) for tick in axes.get_xticks())  # there is no epoch 1.25
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(lines)


def test_one_class_that_is_never_confused_can_be_drawn(assessment: Assessment) -> None:
    """A perfect matrix, with zeros beside its diagonal."""
    perfect = replace(assessment, test={"confusion": [[5, 0], [0, 5]], "images": 10})
    (axes,) = plot_confusion(perfect, ["a", "b"]).axes
    assert [text.get_text() for text in axes.texts] == ["5", "0", "0", "5"]
