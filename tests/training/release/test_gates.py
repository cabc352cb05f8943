"""Each gate stops what it is for, and nothing else."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from imagebatch_training.errors import DataError
from imagebatch_training.release.gates import Answers, Gate, Truth, as_json, judge, render, require_passed
from imagebatch_training.settings import Release

NAMES = ["mono", "poly"]
LIMITS = Release(overall_drop=0.03, class_drop=0.1, calibration=0.1, latency_ratio=1.5)
PARITY = {"passed": True, "threshold": {"agreement": 0.995}, "sets": [{"agreement": 1.0}]}


def truth(images: int = 200, blocks: int = 10) -> Truth:
    """Half of each class, in blocks of both."""
    classes = [NAMES[at % 2] for at in range(images)]
    return Truth(classes=classes, blocks=np.arange(images) * blocks // images)


def answers(known: Truth, wrong: set[int], *, sure: float = 0.95, ms: float = 4.0) -> Answers:
    """Right but for some images, each time as sure."""
    margin = np.log(sure / (1 - sure))
    right = np.array([NAMES.index(name) for name in known.classes])
    named = np.where([at in wrong for at in range(len(right))], 1 - right, right)
    logits = np.zeros((len(right), 2))
    logits[np.arange(len(right)), named] = margin
    return Answers(logits=logits, labels=NAMES, seconds=np.full(len(right), ms / 1000))


def gates(challenger: Answers, champion: Answers | None, known: Truth, **parity: Any) -> dict[str, Gate]:
    return {gate.name: gate for gate in judge(challenger, champion, known, PARITY | parity, LIMITS)}


def failed(found: dict[str, Gate]) -> set[str]:
    return {name for name, gate in found.items() if not gate.passed}


def test_a_model_like_the_champion_passes_all_gates() -> None:
    """Figure, limit and sentence of each; without a champion only those that need none."""
    known = truth()
    same = answers(known, set(range(10)))
    found = gates(same, same, known)
    assert not failed(found)
    assert list(found) == [
        "above chance",
        "not worse overall",
        "no class worse",
        "parity",
        "calibration",
        "latency",
    ]
    assert found["not worse overall"].figure == 0
    assert found["latency"].figure == 1.0
    assert list(gates(same, None, known)) == ["above chance", "parity", "calibration"]
    require_passed(list(found.values()), "solar-cells 1.1")
    assert render(list(found.values())).count("pass") == 6
    assert as_json(list(found.values()))[0]["passed"] is True


def test_worse_beyond_the_interval_is_stopped_and_noise_is_not() -> None:
    """Two more mistakes of 200 in one block are within the paired interval; one more in each block is not."""
    known = truth()
    champion = answers(known, set(), sure=0.98)
    assert "not worse overall" not in failed(gates(answers(known, {3, 4}), champion, known))
    everywhere = {block * 20 for block in range(10)}
    assert "not worse overall" in failed(gates(answers(known, everywhere), champion, known))


def test_a_drop_that_few_blocks_cannot_prove_is_bounded_too() -> None:
    """One block all wrong: the interval reaches 0, the drop is beyond what is allowed."""
    known = truth(images=60, blocks=3)
    found = gates(answers(known, set(range(10))), answers(known, set()), known)
    assert found["not worse overall"].figure == pytest.approx(-0.1667, abs=1e-3)
    assert "not worse overall" in failed(found)


def test_one_class_that_is_given_up_is_stopped() -> None:
    """Better overall, and one class worse: the class is named."""
    known = truth()
    champion = answers(known, {at for at in range(0, 200, 2) if at % 5})  # weak at mono
    challenger = answers(known, set(range(1, 60, 2)))
    found = gates(challenger, champion, known)
    assert "not worse overall" not in failed(found)
    assert "no class worse" in failed(found)
    assert "the recall of poly changes by -0.300 on 100 images" in found["no class worse"].sentence


def test_chance_is_stopped_without_any_champion() -> None:
    """Half right of two even classes is nothing, nor is a handful of images all right."""
    known = truth()
    chance = gates(answers(known, {at for at in range(200) if at % 4 < 2}, sure=0.55), None, known)
    assert "above chance" in failed(chance)
    few = Truth(classes=["mono", "poly", "mono"], blocks=np.array([0, 1, 2]))
    assert "above chance" in failed(gates(answers(few, set()), None, few))


def test_parity_calibration_and_latency_have_gates_of_their_own() -> None:
    """Each fails alone."""
    known = truth()
    good = answers(known, set(range(10)))
    broken = {"passed": False, "sets": [{"agreement": 1.0}, {"agreement": 0.9}]}
    assert failed(gates(good, good, known, **broken)) == {"parity"}
    assert failed(gates(answers(known, set(range(10)), sure=0.6), good, known)) == {"calibration"}
    assert failed(gates(answers(known, set(range(10)), ms=7.0), good, known)) == {"latency"}
    with pytest.raises(DataError, match=r"solar-cells 1.1 is not released: an image takes 7.0 ms"):
        require_passed(
            judge(replace(good, seconds=good.seconds * 1.75), good, known, PARITY, LIMITS), "solar-cells 1.1"
        )


def test_models_with_other_orders_of_classes_are_compared_by_name() -> None:
    """A champion may know the classes in another order, or one more."""
    known = truth()
    good = answers(known, set())
    other = Answers(
        logits=np.pad(good.logits[:, ::-1], ((0, 0), (1, 0)), constant_values=-9.0),
        labels=["thin", "poly", "mono"],
        seconds=good.seconds,
    )
    assert gates(good, other, known)["not worse overall"].figure == 0
