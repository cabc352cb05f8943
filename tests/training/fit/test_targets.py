"""What is trained towards: labellers' doubts as probabilities, and classes that count the same."""

import numpy as np
import pytest
import torch
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.fit.assessment import assess
from imagebatch_training.fit.targets import class_index, class_weights, training_targets
from imagebatch_training.images.labels import Example, Labels

CLASSES = ["mono-sound", "mono-defective", "poly-sound", "poly-defective"]


def cell(number: int, label: str, part: str, probability: str = "", kind: str = "mono") -> Example:
    return Example(
        image_id=f"{number}.png",
        label=label,
        block=number,
        random_split=part if label else "",
        block_split=part,
        extra={"probability": probability, "type": kind},
    )


LABELS = Labels(
    examples=[
        cell(0, "mono-sound", "train", "0.0"),
        cell(1, "", "train", "0.3333"),
        cell(2, "poly-defective", "train", "1.0", "poly"),
        cell(3, "", "test", "0.6667", "poly"),
        cell(4, "mono-sound", "validation", "0.0"),
        cell(5, "mono-defective", "test", "1.0"),
    ],
    classes=CLASSES,
)


def test_doubtful_cells_of_the_training_blocks_are_trained_towards_what_was_said() -> None:
    """The labellers' probability is split over the two classes of the cell's kind; test blocks stay out."""
    targets, train = training_targets(LABELS, "block", "soft")
    assert train.tolist() == [0, 1, 2]
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets[1], [0.6667, 0.3333, 0, 0], atol=1e-6)
    np.testing.assert_allclose(targets[3], [0, 0, 0.3333, 0.6667], atol=1e-6)
    np.testing.assert_array_equal(targets[2], [0, 0, 0, 1])
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)


def test_left_out_they_have_no_target_and_no_place() -> None:
    """As before: a class per image, -1 for doubtful ones, which are not among the training images."""
    targets, train = training_targets(LABELS, "block", "leave-out")
    assert targets.tolist() == [0, -1, 3, -1, 0, 1]
    assert train.tolist() == [0, 2]


def test_the_random_split_gives_them_no_part() -> None:
    """There is no part of it that they could be trained in without standing beside a test image."""
    _, train = training_targets(LABELS, "random", "soft")
    assert train.tolist() == [0, 2]


def test_labels_without_a_probability_are_one_line() -> None:
    """It names the image and the words that leave such images out."""
    without = Labels(
        examples=[*LABELS.examples, Example(image_id="x.png", label="", block_split="train")], classes=CLASSES
    )
    with pytest.raises(ConfigurationError, match=r"^x\.png is uncertain and .*finetune\.uncertain=leave-out"):
        training_targets(without, "block", "soft")


def test_confidence_on_doubtful_cells_is_told_of_those_that_were_not_trained_on() -> None:
    """Of two doubtful cells one was trained on: the other one alone is compared with the test images."""
    logits = np.zeros((6, 4), np.float32)
    _, all_of_them = assess(logits, LABELS, "block")
    _, some = assess(logits, LABELS, "block", trained_on=training_targets(LABELS, "block", "soft")[1])
    assert all_of_them["confidence"]["uncertain_images"] == 2
    assert some["confidence"]["uncertain_images"] == 1


def test_the_class_of_probabilities_is_the_most_probable_one() -> None:
    """A class index stays what it is."""
    assert class_index(np.array([[0.2, 0.8], [0.7, 0.3]], np.float32)).tolist() == [1, 0]
    assert class_index(np.array([1, 0])).tolist() == [1, 0]


def test_balanced_classes_have_the_same_sum_of_weights() -> None:
    """Eight images of one class and two of another weigh the same together; one without images nothing."""
    targets = np.array([0] * 8 + [1] * 2)
    weights = class_weights(targets, 2, "balanced")
    assert weights is not None
    assert weights.tolist() == pytest.approx([10 / 16, 10 / 4])
    soft = class_weights(np.eye(3, dtype=np.float32)[targets], 3, "balanced")
    assert soft is not None
    assert soft.tolist() == pytest.approx([10 / 24, 10 / 6, 0])
    assert class_weights(targets, 2, "none") is None
    assert torch.isfinite(soft).all()
