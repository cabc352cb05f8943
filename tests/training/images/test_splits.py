"""Blocks and splits, on lists of labels whose right answer is known without looking at the code."""

from collections import Counter

import numpy as np
import pytest
from imagebatch_training.errors import DataError
from imagebatch_training.images.labels import Example
from imagebatch_training.images.sources import Listing
from imagebatch_training.images.splits import assign, number_blocks, split
from imagebatch_training.settings import Data

PARTS = ("train", "validation", "test")


def listing(labels: list[str], groups: list[str] | None = None) -> Listing:
    examples = [Example(image_id=f"{i}.png", label=label) for i, label in enumerate(labels)]
    return Listing(examples=examples, groups=groups or [""] * len(labels), whole=groups is not None)


def modules(count: int, size: int) -> Listing:
    """Modules of `size` images each, their images scattered over the files; two classes, some uncertain."""
    random = np.random.default_rng(7)
    groups = random.permutation(np.repeat(np.arange(count), size))
    labels = [["sound", "defective", ""][min(random.integers(0, 6), 2) % 3] for _ in groups]
    return listing(labels, [f"module {group}" for group in groups])


@pytest.mark.parametrize("seed", range(10))
def test_no_module_is_on_two_sides_of_the_block_split(seed: int) -> None:
    """Whatever the draw: all images of one module, uncertain ones too, have one block and one part."""
    found = modules(40, 9)
    assign(found, Data(seed=seed))
    sides: dict[str, set[tuple[int, str]]] = {}
    for example, group in zip(found.examples, found.groups, strict=True):
        sides.setdefault(group, set()).add((example.block, example.block_split))
    assert all(len(side) == 1 for side in sides.values())
    assert len({block for side in sides.values() for block, _ in side}) == 40
    assert {part for side in sides.values() for _, part in side} == set(PARTS)


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    """A split that is drawn again next year is the one that was reported."""

    def drawn(seed: int) -> list[tuple[str, str]]:
        found = modules(40, 9)
        assign(found, Data(seed=seed))
        return [(example.random_split, example.block_split) for example in found.examples]

    assert drawn(3) == drawn(3)
    random, other = zip(*drawn(3), strict=True), zip(*drawn(4), strict=True)
    for one, two in zip(random, other, strict=True):
        assert one != two


@pytest.mark.parametrize(("test", "validation"), [(0.25, 0.2), (0.1, 0.1), (0.5, 0.3)])
def test_every_class_has_the_shares_that_were_asked_for(test: float, validation: float) -> None:
    """To within the rounding of one image, also for a class of one in twenty."""
    labels = ["common"] * 380 + ["rare"] * 20
    parts = split(labels, Data(test=test, validation=validation))
    for name, size in Counter(labels).items():
        counts = Counter(part for label, part in zip(labels, parts, strict=True) if label == name)
        assert counts["test"] == pytest.approx(test * size, abs=0.5)
        assert counts["validation"] == pytest.approx(validation * size, abs=0.5)
        assert sum(counts.values()) == size


def test_a_class_of_three_is_in_every_part() -> None:
    """The smallest class that can be is: one image to learn from, one to choose by, one to judge by."""
    labels = ["common"] * 97 + ["rare"] * 3
    for seed in range(20):
        parts = split(labels, Data(seed=seed))
        assert sorted(parts[97:]) == sorted(PARTS)


def test_the_split_does_not_follow_the_order_of_the_files() -> None:
    """A split by position would put the first films into one part and the last ones into another."""
    positions = np.arange(400)
    parts = np.array(split(["a"] * 400, Data()))
    for part in PARTS:
        assert abs(positions[parts == part].mean() - positions.mean()) < 40


def test_uncertain_images_are_in_no_part_of_the_random_split() -> None:
    """They have no label to learn; on the block split they stay on the side of their neighbours."""
    found = listing(["a", "b", ""] * 40)
    assign(found, Data(block_size=5))
    for example in found.examples:
        assert (example.random_split == "") == (example.label == "")
        assert example.block_split in PARTS


def test_blocks_are_equal_runs_of_neighbours() -> None:
    """130 images at 60 a block are two of 65, not two of 60 and a rest of 10; order is kept."""
    blocks = number_blocks(["mono"] * 130, 60, whole=False)
    assert Counter(blocks.tolist()) == {0: 65, 1: 65}
    assert (np.diff(blocks) >= 0).all()


def test_a_block_never_spans_two_groups() -> None:
    """Where another kind begins, another block begins, however small; a kind that returns is a new run."""
    blocks = number_blocks(["mono"] * 4 + ["poly"] * 2 + ["mono"] * 4, 4, whole=False)
    assert blocks.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]


def test_a_whole_group_is_one_block_wherever_its_images_are() -> None:
    """A named group is never cut, whatever block_size says, and is numbered by its first image."""
    blocks = number_blocks(["b", "a", "b", "c", "a", "b"], 1, whole=True)
    assert blocks.tolist() == [0, 1, 0, 2, 1, 0]


def test_every_part_has_blocks_of_every_commonest_class() -> None:
    """Ten blocks of each class in order of the files: each class is learned, chosen by and judged by."""
    found = listing(["a"] * 100 + ["b"] * 100)
    assign(found, Data(block_size=10))
    for part in PARTS:
        assert {e.label for e in found.examples if e.block_split == part} == {"a", "b"}


def test_too_few_images_or_blocks_name_the_remedy() -> None:
    """Two images, or one block of a hundred, are refused with the setting that helps."""
    with pytest.raises(DataError, match=r"2 blocks or images .*: lower data\.block_size or add images"):
        split(["a", "b"], Data())
    with pytest.raises(DataError, match=r"2 blocks or images .*: lower data\.block_size"):
        assign(listing(["a", "b"] * 50), Data(block_size=50))


def test_shares_that_leave_nothing_to_learn_from_name_the_setting() -> None:
    """Three images with most of them asked for as test images."""
    with pytest.raises(DataError, match=r"left for train: change data\.test or data\.validation"):
        split(["a"] * 3, Data(test=0.6, validation=0.3))


def test_a_part_without_a_labelled_image_is_refused() -> None:
    """One of three modules is all uncertain: where it lies no figure can be computed."""
    found = listing(["a", "b", "", "", "a", "b"], ["m0", "m0", "m1", "m1", "m2", "m2"])
    with pytest.raises(DataError, match=r"no labelled image is in the \w+ blocks: change data\.seed"):
        assign(found, Data())
