"""Figures of a trained head, counted by hand, and the table that they are printed in."""

from typing import Any

import numpy as np
import pytest
from imagebatch_training.fit.assessment import assess, majority_accuracy
from imagebatch_training.fit.report import render_report
from imagebatch_training.images.labels import Example, Labels

# Class, block and part of every image; of an uncertain one the block's part.
ROWS = [
    *[("a", 0, "train")] * 3,
    ("b", 1, "train"),
    ("a", 2, "validation"),
    ("b", 2, "validation"),
    *[("a", 3, "test")] * 2,
    *[("b", 4, "test")] * 2,
    ("", 4, "test"),
    ("", 0, "train"),
]


def labels() -> Labels:
    examples = [
        Example(
            image_id=f"{number}.png",
            label=label,
            block=block,
            random_split=part if label else "",
            block_split=part,
        )
        for number, (label, block, part) in enumerate(ROWS)
    ]
    return Labels(examples=examples, classes=["a", "b"])


def logits(answers: str, sure: float = 4.0) -> Any:
    """Logits that name these classes, one letter an image, all of them equally sure."""
    return np.array([[sure, 0.0] if name == "a" else [0.0, sure] for name in answers], dtype=np.float32)


def test_only_images_of_the_part_are_counted() -> None:
    """Three of four test images are right; what is wrong on training images does not show."""
    validation, test = assess(logits("bbba" + "ab" + "aaba" + "aa"), labels(), "block")
    assert (test["images"], test["accuracy"], test["blocks"]) == (4, 0.75, 2)
    assert test["confusion"] == [[2, 0], [1, 1]]
    assert test["classes"]["b"] == pytest.approx({"images": 2, "precision": 1.0, "recall": 0.5, "f1": 2 / 3})
    assert validation == {"images": 2, "accuracy": 1.0, "log_loss": pytest.approx(np.log1p(np.exp(-4)))}


def test_a_class_that_is_never_named_is_told() -> None:
    """Whatever the accuracy: the report says which, and of how many images."""
    _, test = assess(logits("bbba" + "ab" + "aaaa" + "aa"), labels(), "block")
    assert test["never_predicted"] == ["b"]
    result = {"split": "block", "method": "probe", "test": test | {"confidence": None}}
    served = {"split": "block", "method": "probe", "chosen_by": "test accuracy"}
    text = render_report({"results": [result], "served": served})
    assert "**Never predicted on the test images: b (0 of 2).**" in text
    _, both = assess(logits("bbba" + "ab" + "aaba" + "aa"), labels(), "block")
    assert both["never_predicted"] == []


def test_losses_and_calibration_are_the_formulas() -> None:
    """Confidence is 1 / (1 + exp(-4)) everywhere: one of four wrong costs four nats more."""
    _, test = assess(logits("aaab" + "ab" + "aaba" + "aa"), labels(), "block")
    confidence = 1 / (1 + np.exp(-4))
    assert test["log_loss"] == pytest.approx(np.log1p(np.exp(-4)) + 4 / 4, abs=1e-6)
    assert test["calibration_error"] == pytest.approx(confidence - 0.75, abs=1e-6)
    assert test["confidence"] == pytest.approx(
        {
            "certain_images": 4,
            "certain_mean": confidence,
            "uncertain_images": 2,
            "uncertain_mean": confidence,
            "auroc": 0.5,
        }
    )
    assert test["confidence_in_test_blocks"]["uncertain_images"] == 1


def test_blocks_are_drawn_for_the_block_split_only() -> None:
    """The random split has no blocks to draw, so that it states no interval by blocks."""
    answers = logits("aaab" + "ab" + "aabb" + "aa")
    _, block = assess(answers, labels(), "block")
    _, random = assess(answers, labels(), "random")
    assert block["block_bootstrap"] == (1.0, 1.0)
    assert not {"blocks", "block_bootstrap", "confidence_in_test_blocks"} & set(random)


def test_the_baseline_names_the_commonest_training_class() -> None:
    """`a` in training, so that half of the test images are right by chance."""
    assert majority_accuracy(labels(), "block") == 0.5


def result(split: str, method: str, accuracy: float, **more: Any) -> dict[str, Any]:
    test = {"images": 40, "accuracy": accuracy, "wilson": [0.7, 0.9], "majority": 0.5, "confidence": None}
    return {"split": split, "method": method, "test": test | more}


def test_the_table_marks_what_is_served() -> None:
    """One row per result, the served accuracy in bold, an interval by blocks where there is one."""
    served = {"split": "block", "method": "fine-tune", "chosen_by": "test accuracy"}
    blocks = {"blocks": 11, "block_bootstrap": [0.6, 0.95]}
    results = [result("random", "fine-tune", 0.9), result("block", "fine-tune", 0.8, **blocks)]
    lines = render_report({"served": served, "results": results}).splitlines()
    assert lines[2:4] == [
        "| random | fine-tune | 40 | 0.900 | 0.700 to 0.900 | - | 0.500 |",
        "| block | fine-tune | 40, 11 blocks | **0.800** | 0.700 to 0.900 | 0.600 to 0.950 | 0.500 |",
    ]
    assert lines[5].startswith("Served: the fine-tune of the block split")
    assert len({line.count("|") for line in lines[:4]}) == 1


def test_uncertain_images_get_a_sentence_where_there_are_any() -> None:
    """Of the served model's confidence, not of another row's; none where nothing is uncertain."""
    figures = {
        "certain_images": 40,
        "certain_mean": 0.9,
        "uncertain_images": 7,
        "uncertain_mean": 0.6,
        "auroc": 0.75,
    }
    served = {"split": "block", "method": "linear-probe", "chosen_by": "test accuracy"}
    results = [result("block", "fine-tune", 0.7), result("block", "linear-probe", 0.8, confidence=figures)]
    text = render_report({"served": served, "results": results})
    assert "0.900 on the 40 test images, 0.600 on the 7 uncertain ones (AUROC 0.750)." in text
    without = [result("block", "linear-probe", 0.8)]
    assert "AUROC" not in render_report({"served": served, "results": without})
