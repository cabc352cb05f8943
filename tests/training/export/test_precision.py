"""Margins and fitted classifiers, from figures whose answers are known."""

import numpy as np
import pytest
from imagebatch_training.export.calibration import load_calibration
from imagebatch_training.export.cascade import fit_margin
from imagebatch_training.export.refit import refit
from imagebatch_training.images.data import require_data
from imagebatch_training.settings import Settings


def test_the_margin_is_the_smallest_that_agrees_often_enough() -> None:
    """Of ten images two differ, with gaps of 0.2 and 0.5: nine of ten need the first, ten of ten both."""
    gaps = np.array([0.2, 0.5, 0.1, 0.3, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4])
    cheap = np.stack([gaps, np.zeros(10)], axis=1)
    exact = cheap.copy()
    exact[:2] = exact[:2, ::-1]
    assert fit_margin(cheap, exact, 0.9)["margin"] == pytest.approx(0.2001)
    assert fit_margin(cheap, exact, 1.0) == {
        "margin": pytest.approx(0.5001),
        "agreement": 1.0,
        "images": 10,
        "repeated": 0.4,
    }
    assert fit_margin(cheap, exact, 0.8)["margin"] == 0.0


def test_a_fitted_classifier_takes_back_what_the_precision_moved() -> None:
    """Logits that are off by a linear function of the features come out right, also in folds not seen."""
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 12))
    wanted = random.normal(size=(300, 3)) * 3
    shift = features @ random.normal(size=(12, 3)) + np.array([1.0, -2.0, 0.5])
    fitted = refit(wanted - shift, features, wanted, np.arange(300) % 5)
    np.testing.assert_allclose(features @ fitted.weights + fitted.bias, shift, atol=0.3)
    np.testing.assert_allclose(fitted.held_out, wanted, atol=0.3)


def test_held_out_logits_do_not_see_their_own_fold() -> None:
    """Where there is nothing to learn, the fit looks better than it is: held-out figures do not."""
    random = np.random.default_rng(1)
    features, wanted = random.normal(size=(60, 50)), random.normal(size=(60, 3))
    fitted = refit(np.zeros((60, 3)), features, wanted, np.arange(60) % 5)
    seen = np.square(features @ fitted.weights + fitted.bias - wanted).mean()
    assert np.square(fitted.held_out - wanted).mean() > max(1.0, seen) * 0.95
    assert np.square(fitted.held_out - wanted).mean() > seen


def test_calibration_never_sees_a_test_image(trained: Settings) -> None:
    """Members are of training and validation blocks, ranges of training blocks, a block is in one fold."""
    labels = require_data(trained).labels
    calibration = load_calibration(trained, require_data(trained))
    splits = [labels.examples[i].block_split for i in calibration.members]
    assert set(splits) == {"train", "validation"}
    assert {labels.examples[i].block_split for i in calibration.statistics} == {"train"}
    folds: dict[int, set[int]] = {}
    for position, fold in zip(calibration.members, calibration.folds, strict=True):
        folds.setdefault(labels.examples[position].block, set()).add(int(fold))
    assert all(len(found) == 1 for found in folds.values())
    (image,) = calibration.images(calibration.members[:1])
    assert (image.shape, image.dtype) == ((1, 3, 64, 64), np.uint8)
