from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from imagebatch_training.folds.deal import Fold
from imagebatch_training.folds.figures import (
    Answers,
    average_precision,
    best_threshold,
    by_cost,
    by_validation,
    certainty,
    gather,
    intervals,
    measure,
    mix,
    uncertain_gap,
)
from imagebatch_training.folds.run import Outcome
from imagebatch_training.images.labels import Example, Labels

TARGETS = np.array([0, 0, 1, 1, 0, 1, -1, -1])
BLOCKS = np.array([0, 0, 0, 1, 1, 1, 0, 1])


def answers(positive: list[list[float]]) -> Answers:
    """Two classes; a deal is given as the second one's probability of every image."""
    second = np.array(positive, np.float32)
    return Answers(
        probabilities=np.stack([1 - second, second], axis=2), targets=TARGETS, blocks=BLOCKS, positive=[1]
    )


RIGHT = [0.1, 0.2, 0.9, 0.8, 0.1, 0.7, 0.5, 0.6]
ONE_WRONG = [0.1, 0.6, 0.9, 0.8, 0.1, 0.7, 0.5, 0.6]


def test_figures_are_means_over_the_deals() -> None:
    """Each of all labelled images; the uncertain ones count nowhere."""
    figures = measure(answers([RIGHT, ONE_WRONG]))
    assert figures.accuracy == pytest.approx((1 + 5 / 6) / 2)
    assert figures.recall == 1
    assert figures.precision == pytest.approx((1 + 3 / 4) / 2)
    assert figures.macro_f1 == pytest.approx((1 + (2 * 3 / 7 + 0.8) / 2) / 2)
    assert figures.auroc == figures.average_precision == 1


def test_intervals_draw_blocks_and_compare_on_the_same_draws() -> None:
    """The second recipe is worse in one block of two: its loss is between nought and that block's."""
    better, worse = answers([RIGHT]), answers([ONE_WRONG])
    assert intervals(better)["accuracy"] == (1, 1)
    assert intervals(worse)["accuracy"] == pytest.approx((2 / 3, 1))
    assert intervals(worse, better)["accuracy"] == pytest.approx((-1 / 3, 0))
    assert intervals(better, better) == dict.fromkeys(("accuracy", "macro_f1", "recall", "precision"), (0, 0))


def test_a_threshold_by_cost_weighs_what_is_missed() -> None:
    """By hand: a missed image as dear as four false alarms sets the threshold at a fifth."""
    found = by_cost(answers([RIGHT, ONE_WRONG]), missed=4, false_alarm=1)
    assert found["threshold"] == pytest.approx(0.2)
    assert found["recall"] == 1
    # Of six images the second, at .2 and at .6, is called positive by both deals, by name by the second one.
    assert found["precision"] == pytest.approx(6 / 8)
    assert found["cost"] == pytest.approx(100 / 6)
    assert found["cost_of_names"] == pytest.approx(50 / 6)
    assert found["saved"] == pytest.approx(-50 / 6)
    low, high = found["interval"]  # by block: all of it in the first, nothing in the second
    assert (low, high) == pytest.approx((-100 / 6, 0))
    shy = by_cost(answers([[0.1, 0.1, 0.3, 0.3, 0.1, 0.3, 0.5, 0.6]]), missed=4, false_alarm=1)
    assert (shy["recall"], shy["cost"], shy["cost_of_names"]) == pytest.approx((1, 0, 200))


def test_average_precision_is_the_mean_precision_at_each_hit() -> None:
    """By hand: hits at ranks 1 and 3 of 4; and no order among ties."""
    found = np.array([True, False, True, False])
    assert average_precision(np.array([4.0, 3, 2, 1]), found) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.ones(4), found) == pytest.approx(0.5)


def test_certainty_is_of_every_labelled_image_and_deal() -> None:
    """One of twelve is wrong, and the uncertain images are not among them."""
    confidence, right = certainty(answers([RIGHT, ONE_WRONG]))
    assert len(confidence) == len(right) == 12
    assert right.sum() == 11
    assert confidence[~right] == pytest.approx([0.6])


def test_a_threshold_finds_as_many_as_a_precision_allows() -> None:
    """As low as it may be: all three, and the wrong one with them."""
    threshold, recall, precision = best_threshold(answers([ONE_WRONG]), 0.75)
    assert (recall, precision) == (1, 0.75)
    assert threshold == pytest.approx(0.6)
    assert best_threshold(answers([[0.1, 0.85, 0.9, 0.8, 0.1, 0.7, 0.5, 0.6]]), 0.75)[1:] == (1, 0.75)


def test_uncertain_images_are_told_apart_by_confidence() -> None:
    """Labelled ones are surer, in every draw of blocks."""
    found = uncertain_gap(answers([RIGHT]))
    assert found is not None
    labelled, uncertain, (low, high) = found
    assert labelled == pytest.approx(5.0 / 6)
    assert uncertain == pytest.approx(0.55)
    assert 0 < low <= labelled - uncertain <= high


def _outcome(fold: Fold, logits: npt.NDArray[np.float32], loss: float) -> Outcome:
    return Outcome(
        fold=fold,
        path=Path(),
        logits=logits,
        validation_loss=loss,
        validation_accuracy=0.5,
        temperature=1,
        penalty=0.1,
        cpu_seconds=1,
    )


def test_folds_are_put_together_and_the_choice_never_looks_at_them() -> None:
    """Chosen by the validation loss, even where the test images say the opposite."""
    examples = [Example(image_id=str(i), label=("a", "b")[i % 2], block=i) for i in range(4)]
    labels = Labels(examples=examples, classes=("a", "b"))
    parts = [np.array([0, 2]), np.array([1, 3])]
    folds = [
        Fold(deal=0, number=i, train=parts[1 - i], validation=parts[1 - i], test=part)
        for i, part in enumerate(parts)
    ]
    right = [np.array([[3, 0]] * 2, np.float32), np.array([[0, 3]] * 2, np.float32)]
    good = [_outcome(fold, logits, 0.2) for fold, logits in zip(folds, right, strict=True)]
    bad = [
        _outcome(fold, logits[:, ::-1], 0.1 if fold.number else 0.3)
        for fold, logits in zip(folds, right, strict=True)
    ]
    assert measure(gather(good, labels, ["b"])).accuracy == 1
    assert measure(gather(bad, labels, ["b"])).accuracy == 0
    chosen, times = by_validation({"good": good, "bad": bad})
    assert times == {"good": 1, "bad": 1}
    assert measure(gather(chosen, labels, ["b"])).accuracy == 0.5
    mixed = mix([gather(good, labels, ["b"]), gather(bad, labels, ["b"])])
    assert np.allclose(mixed.probabilities, 0.5)
