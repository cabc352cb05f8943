import numpy as np
import pytest
from imagebatch_training import metrics


def test_wilson_is_the_textbook_interval() -> None:
    """81 of 263 gives .2553 to .3662 (Newcombe 1998, table I), and the ends stay in 0..1."""
    assert metrics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert metrics.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert metrics.wilson(20, 20)[1] == 1.0


def test_drawing_blocks_widens_the_interval_when_blocks_differ() -> None:
    """Ten blocks, all right or all wrong: 500 images say no more than ten."""
    blocks = np.repeat(np.arange(10), 50)
    correct = blocks < 7
    low, high = metrics.block_bootstrap(correct, blocks)
    narrow_low, narrow_high = metrics.wilson(int(correct.sum()), len(correct))
    assert low < narrow_low - 0.1
    assert high > narrow_high + 0.1
    assert (low, high) == metrics.block_bootstrap(correct, blocks)


def test_temperature_undoes_overconfidence() -> None:
    """Logits that were multiplied by four get the temperature four back."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 3)) * 2
    probabilities = metrics.softmax(logits)
    targets = (probabilities.cumsum(1) > random.random((20_000, 1))).argmax(1)
    assert metrics.fit_temperature(logits * 4, targets) == pytest.approx(4, rel=0.05)


def test_per_class_figures_are_precision_and_recall() -> None:
    """Counted by hand on six images; a class that is never named has precision 0."""
    counts = metrics.confusion(np.array([0, 0, 1, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 2]), 3)
    assert counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    figures = metrics.per_class(counts, ["a", "b", "c"])
    assert figures["a"] == pytest.approx({"images": 3, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    assert figures["b"] == pytest.approx({"images": 2, "precision": 1 / 3, "recall": 1 / 2, "f1": 0.4})
    assert figures["c"] == {"images": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_auroc_counts_pairs() -> None:
    """Of six pairs four are in order and one is tied."""
    assert metrics.auroc(np.array([0.9, 0.5, 0.4]), np.array([0.5, 0.3])) == pytest.approx(4.5 / 6)


def test_calibration_error_is_zero_for_honest_confidence() -> None:
    """80 % confidence with 8 of 10 right is calibrated; with 5 of 10 right it is off by 0.3."""
    confidence = np.full(10, 0.8)
    assert metrics.calibration_error(confidence, np.arange(10) < 8) == pytest.approx(0, abs=1e-9)
    assert metrics.calibration_error(confidence, np.arange(10) < 5) == pytest.approx(0.3)


def test_accuracy_against_coverage() -> None:
    """The surest images come first; equally sure ones stay together; the last point is all images."""
    confidence = np.array([0.9, 0.8, 0.8, 0.6, 0.5])
    correct = np.array([True, True, False, True, False])
    curve = metrics.coverage_curve(confidence, correct, points=5)
    assert [(one["threshold"], one["images"]) for one in curve] == [(0.9, 1), (0.8, 3), (0.6, 4), (0.5, 5)]
    assert [one["accuracy"] for one in curve] == pytest.approx([1, 2 / 3, 0.75, 0.6])
    assert [one["coverage"] for one in curve] == pytest.approx([0.2, 0.6, 0.8, 1])
    assert curve[-1]["wilson"] == metrics.wilson(3, 5)


def test_the_threshold_for_an_accuracy() -> None:
    """The least threshold that reaches it, with enough images above; none where it is out of reach."""
    confidence = np.linspace(0.5, 1, 101)
    correct = confidence >= 0.6
    found = metrics.threshold_for(confidence, correct, 1.0, images=30)
    assert found is not None
    assert (found["threshold"], found["images"], found["accuracy"]) == (0.596, 81, 1.0)
    assert metrics.threshold_for(confidence, correct, 1.0, images=82) is None
    everything = metrics.threshold_for(confidence, correct, 0.5, images=30)
    assert everything is not None
    assert everything["coverage"] == 1
