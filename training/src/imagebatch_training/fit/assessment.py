"""How good a trained head is on one split."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imagebatch_training import metrics
from imagebatch_training.images.labels import Labels, Split

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """One line of the report.

    Attributes:
        split: `random` or `block`.
        method: `linear-probe` or `fine-tune`.
        validation: Accuracy and log loss on the validation images.
        test: The figures on the test images, see `assess`.
        chosen: Hyperparameters, chosen on the validation images.
        history: Rows of a fine-tune's history.
    """

    split: Split
    method: str
    validation: dict[str, float]
    test: dict[str, Any]
    chosen: dict[str, float]
    history: list[dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one method answers on the test images of one split.

    Attributes:
        positions: int64 (images,), of the images in the data set.
        targets: int64 (images,), true classes.
        probabilities: float32 (images, classes), calibrated.
    """

    positions: metrics.Integers
    targets: metrics.Integers
    probabilities: npt.NDArray[np.float32]

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """The probability of the class that is named, per image."""
        confidence: npt.NDArray[np.float32] = self.probabilities.max(1)
        return confidence

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the true class is named, per image."""
        correct: npt.NDArray[np.bool_] = self.probabilities.argmax(1) == self.targets
        return correct


def assess(
    logits: Logits, labels: Labels, split: Split, trained_on: npt.ArrayLike = ()
) -> tuple[dict[str, float], dict[str, Any]]:
    """Compute the figures of one method on one split.

    Args:
        logits: float32 (images, classes), calibrated, of all images in file order.
        labels: The data set.
        split: Which split.
        trained_on: Positions of the images that were trained on, uncertain ones among them or not.

    Returns:
        Figures on the validation and on the test images. Test: number of images and blocks, accuracy, its
        95 % interval (`wilson` counts images as independent; `block_bootstrap`, on the block split, not),
        the accuracy of always naming the commonest training class, the classes that are never named, log
        loss, calibration error, per-class figures, confusion matrix (rows: true class), confidence on certain
        (test) and uncertain images that were not trained on.
    """
    targets = labels.targets()
    validation = labels.members(split, "validation")
    return _validation(logits[validation], targets[validation]), _test(logits, labels, split, trained_on)


def _validation(logits: Logits, targets: metrics.Integers) -> dict[str, float]:
    accuracy = float((logits.argmax(1) == targets).mean())
    return {"images": len(targets), "accuracy": accuracy, "log_loss": metrics.log_loss(logits, targets)}


def _test(logits: Logits, labels: Labels, split: Split, trained_on: npt.ArrayLike) -> dict[str, Any]:
    targets, blocks, test = labels.targets(), labels.blocks(), labels.members(split, "test")
    uncertain = np.setdiff1d(np.flatnonzero(targets < 0), trained_on)
    probabilities = metrics.softmax(logits)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    correct = predicted[test] == targets[test]
    counts = metrics.confusion(predicted[test], targets[test], len(labels.classes))
    figures: dict[str, Any] = {
        "images": len(test),
        "accuracy": float(correct.mean()),
        "wilson": metrics.wilson(int(correct.sum()), len(test)),
        "majority": majority_accuracy(labels, split),
        "never_predicted": [
            name for name, count in zip(labels.classes, counts.sum(0), strict=True) if not count
        ],
        "log_loss": metrics.log_loss(logits[test], targets[test]),
        "calibration_error": metrics.calibration_error(confidence[test], correct),
        "classes": metrics.per_class(counts, list(labels.classes)),
        "confusion": counts.tolist(),
        "confidence": metrics.compare_confidence(confidence[test], confidence[uncertain]),
    }
    if split == "block":
        figures["blocks"] = len(set(blocks[test].tolist()))
        figures["block_bootstrap"] = metrics.block_bootstrap(correct, blocks[test])
        held_out = np.isin(blocks, blocks[test]) & (targets < 0)
        figures["confidence_in_test_blocks"] = metrics.compare_confidence(
            confidence[test], confidence[held_out]
        )
    return figures


def answers_on_test(logits: Logits, labels: Labels, split: Split) -> Answers:
    """Take the test images of a split out of calibrated logits (images, classes) of all images."""
    test = labels.members(split, "test")
    return Answers(
        positions=test,
        targets=labels.targets()[test],
        probabilities=metrics.softmax(logits[test]).astype(np.float32),
    )


def majority_accuracy(labels: Labels, split: Split) -> float:
    """Compute the test accuracy of always naming the commonest class of the training images."""
    targets = labels.targets()
    commonest = np.bincount(targets[labels.members(split, "train")]).argmax()
    return float((targets[labels.members(split, "test")] == commonest).mean())
