"""What a model's own code answers: labels or scores, read from the CSV of a user."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from imagebatch_training.errors import DataError
from imagebatch_training.imports.expected import read_label_sets, read_scores
from imagebatch_training.imports.pictures import Picture

PICTURES = [
    Picture(path=Path("/x/a/1.jpg"), name="a/1.jpg", folder=""),
    Picture(path=Path("/x/2.jpg"), name="2.jpg", folder=""),
    Picture(path=Path("/x/3.jpg"), name="3.jpg", folder=""),
]
NAMES = ("dent", "a|b", "rust")
HALVES = np.full(3, 0.5, np.float32)
TAGGED = np.array([[0.9, 0.8, 0.1], [0.2, 0.1, 0.3], [0.4, 0.9, 0.7]])


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("image,dent,a|b,rust\na/1.jpg,.9,.8,.1\n2.jpg,.2,.1,.3\n", 0.0),
        (
            "image,probability_dent,probability_a|b,probability_rust\n1.jpg,.9,.8,.11\n2.jpg,.2,.1,.315\n",
            0.0125,
        ),
        ("image,dent,a|b,rust\na/1.jpg,1,1,0\n2.jpg,0,0,0\n", None),
        ("image_id,labels\n1.jpg,dent|a%7Cb\n2.jpg,\n", None),
        ("image,labels,rust\n1.jpg,dent | a%7Cb,0.1\n2.jpg,,0.31\n", 0.005),
    ],
)
def test_expected_labels_of_several_forms_are_read(text: str, moved: float | None, tmp_path: Path) -> None:
    """Probabilities, 0 and 1, names; imagebatch's own predictions.csv; images without a row are left out."""
    path = tmp_path / "expected.csv"
    path.write_text(text)
    truth = read_label_sets(path, PICTURES, NAMES, HALVES, 0.995)
    assert truth.known.tolist() == [True, True, False]
    score = truth.score(TAGGED)
    assert (score.agreeing, score.images) == (2, 2)
    assert score.moved == (None if moved is None else pytest.approx(moved))
    assert truth.holds(TAGGED)
    other = TAGGED.copy()
    other[0, 2] = 0.9
    assert truth.part([1]).holds(other[[1]])
    assert not truth.holds(other)


def test_a_label_near_its_threshold_may_be_there_or_not(tmp_path: Path) -> None:
    """Rounding of pixels decides; one that is far off may not change."""
    path = tmp_path / "expected.csv"
    path.write_text("image,dent,a|b,rust\n1.jpg,.51,.8,.1\n2.jpg,.2,.1,.3\n")
    truth = read_label_sets(path, PICTURES, NAMES, HALVES, 0.995)
    score = truth.score(np.array([[0.495, 0.8, 0.1], [0.2, 0.1, 0.3], [0, 0, 0]]))
    assert (score.agreeing, score.ties) == (1, 1)
    assert truth.holds(np.array([[0.495, 0.8, 0.1], [0.2, 0.1, 0.3], [0, 0, 0]]))
    assert not truth.holds(np.array([[0.51, 0.49, 0.1], [0.2, 0.1, 0.3], [0, 0, 0]]))


def test_expected_scores_are_measured_by_their_spread(tmp_path: Path) -> None:
    """Or by the limits, where these are narrower."""
    path = tmp_path / "expected.csv"
    path.write_text("file,score\n1.jpg,10\n2.jpg,20\n")
    truth = read_scores(path, PICTURES, math.inf, 0.995)
    assert truth.scale == pytest.approx(9)  # 5th to 95th percentile
    assert read_scores(path, PICTURES, 4.0, 0.995).scale == 4
    assert truth.holds(np.array([[10.1], [20.1], [0]]))
    assert not truth.holds(np.array([[10.1], [20.6], [0]]))
    assert str(truth.score(np.array([[10.9], [20.0], [0]]))) == (
        "1 of 2 images (50.0%), a score moves by 0.050 of their spread on average"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,dent\n1.jpg,0.5\n", "a column for each class, such as 'a|b, rust', or labels with | between"),
        ("image,labels\n1.jpg,scratch\n", "'scratch' is none of the model's 3 labels, such as 'dent'"),
        ("image,dent,a|b,rust\n1.jpg,2.5,0,0\n", "'2.5' is no probability, 0 to 1: write them after"),
        ("image,labels\n9.jpg,dent\n", "tells of none of the 3 images"),
    ],
)
def test_expected_labels_that_tell_nothing_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """With what is missing, or what does not fit."""
    path = tmp_path / "expected.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(message)):
        read_label_sets(path, PICTURES, NAMES, HALVES, 0.995)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,thickness\n1.jpg,0.5\n", "must have a column image or image_id or file, and a column score"),
        ("image,score\n1.jpg,much\n", "'much' is no score: write a number"),
        ("image,score\n1.jpg,nan\n", "'nan' is no score: write a number"),
        ("image,score\n1.jpg,3\n2.jpg,3\n", "the score of all 2 images by expected.csv is 3"),
    ],
)
def test_expected_scores_that_tell_nothing_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """As above."""
    path = tmp_path / "expected.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(message)):
        read_scores(path, PICTURES, math.inf, 0.995)
