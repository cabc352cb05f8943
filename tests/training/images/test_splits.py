"""Blocks and splits, on lists of labels whose right answer is known without looking at the code."""

from collections import Counter

import numpy as np
import pytest
from imagebatch_training.errors import DataError
from imagebatch_training.images.labels import Example, Part
from imagebatch_training.images.sources import Listing
from imagebatch_training.images.splits import assign, deal, number_blocks
from imagebatch_training.settings import Data

PARTS = ("train", "validation", "test")
FILES = Data(blocks="files")


def split(labels: list[str], data: Data) -> list[Part]:
    rest = 1 - data.test - data.validation
    shares: dict[Part, float] = {"test": data.test, "validation": data.validation, "train": rest}
    return deal(labels, shares, np.random.default_rng(data.seed))


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
    assign(found, Data(blocks="files", block_size=5))
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
    assign(found, Data(blocks="files", block_size=10))
    for part in PARTS:
        assert {e.label for e in found.examples if e.block_split == part} == {"a", "b"}


def held(found: Listing, split: str) -> dict[str, set[str]]:
    """The classes of every part."""
    return {
        part: {e.label for e in found.examples if e.label and getattr(e, split) == part} for part in PARTS
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("classes", "size"), [(3, 50), (6, 120), (20, 3)])
def test_every_class_is_in_every_part(classes: int, size: int, seed: int) -> None:
    """Also where the files are sorted by class, as they are in folders: a class is no block."""
    names = [f"class {number}" for number in range(classes)]
    found = listing([name for name in names for _ in range(size)])
    assign(found, Data(seed=seed))
    for split_name in ("random_split", "block_split"):
        assert held(found, split_name) == {part: set(names) for part in PARTS}


def test_a_rare_class_is_in_every_part_whatever_its_groups_hold() -> None:
    """Three of forty patients have it, mostly beside something else: the draw is repeated."""
    found = modules(40, 9)
    for group in (3, 17, 31):
        next(
            e for e, name in zip(found.examples, found.groups, strict=True) if name == f"module {group}"
        ).label = "rare"
    assign(found, Data())
    assert held(found, "block_split") == {part: {"sound", "defective", "rare"} for part in PARTS}


@pytest.mark.parametrize(
    ("labels", "groups", "data", "said"),
    [
        (["a", "b"], None, Data(), "2 images cannot be split in 3: add images"),
        (["a", "b"] * 50, None, Data(blocks="files", block_size=50), "2 blocks cannot be split in 3"),
        (["a"] * 30 + ["b"] * 2, None, Data(), "class 'b' has 2 images, in 2 of 32 images"),
        (["a", "b", "", "", "a", "b"], list("001122"), Data(), "class 'a' has 2 images, in 2 of 4 images"),
        (["a"] * 60 + ["b"] * 60, None, FILES, "2 blocks cannot be split in 3"),
        (["a"] * 60 + ["b"] * 120, None, FILES, "class 'a' has 60 images, in 1 of 3 blocks"),
        (
            ["a"] * 50 + ["b"] * 50,
            list("0" * 50 + "1" * 25 + "2" * 25),
            Data(),
            "class 'a' has 50 images, in 1 of 3",
        ),
        (["a"] * 3 + ["b"] * 3, None, Data(test=0.6, validation=0.3), "left for train: change data.test"),
    ],
)
def test_what_cannot_be_split_names_the_class_and_its_count(
    labels: list[str], groups: list[str] | None, data: Data, said: str
) -> None:
    """No training begins whose figures leave a class out; the message says what helps."""
    with pytest.raises(DataError, match=said):
        assign(listing(labels, groups), data)


def given_parts(labels: list[str], parts: list[str]) -> Listing:
    examples = [Example(image_id=f"{i}.png", label=label) for i, label in enumerate(labels)]
    return Listing(examples=examples, groups=[""] * len(labels), whole=False, parts=parts)


def test_a_given_split_is_taken_as_it_is() -> None:
    """Both splits are the one that came with the data; uncertain images stay on their side."""
    parts = [*PARTS, *PARTS, "test"]
    found = given_parts(["a", "a", "a", "b", "b", "b", ""], parts)
    assign(found, Data())
    assert [e.block_split for e in found.examples] == parts
    assert [e.random_split for e in found.examples] == [*parts[:-1], ""]


@pytest.mark.parametrize("other", ["test", "validation"])
def test_what_a_given_split_lacks_is_cut_out_of_its_training_images(other: str) -> None:
    """What was held out stays held out; images to choose by come from those to learn from."""
    found = given_parts(["a", "b"] * 50, ["train"] * 80 + [other] * 20)
    assign(found, Data(test=0.2, validation=0.2))
    counts = Counter(e.block_split for e in found.examples)
    assert counts == {"train": 60, "validation": 20, "test": 20}
    assert {e.block_split for e in found.examples[80:]} == {"test"}
    assert held(found, "block_split") == {part: {"a", "b"} for part in PARTS}


@pytest.mark.parametrize(
    ("labels", "parts", "said"),
    [
        (["a", "b", "a"], ["train", "train", "test"], "no image of class 'b' in test"),
        (["a", "b"], ["train", "train"], "has train images only"),
        (["a", "b"], ["validation", "test"], "has test and validation images only"),
    ],
)
def test_a_given_split_that_leaves_something_out_is_refused(
    labels: list[str], parts: list[str], said: str
) -> None:
    """Nothing is moved between the sides that somebody has given."""
    labels, parts = labels + ["a", "b"] * 9, parts + [parts[0]] * 18
    with pytest.raises(DataError, match=said):
        assign(given_parts(labels, parts), Data())
