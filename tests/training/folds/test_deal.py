import numpy as np
import pytest
from imagebatch_training.errors import DataError
from imagebatch_training.folds.deal import deal_folds
from imagebatch_training.images.labels import Example, Labels

CLASSES = ("bright", "dark")


def labels(blocks: int, each: int = 6) -> Labels:
    """Blocks of both classes and one uncertain image."""
    names = [*(CLASSES[i % 2] for i in range(each)), ""]
    examples = [
        Example(image_id=f"{block}/{i}", label=name, block=block)
        for block in range(blocks)
        for i, name in enumerate(names)
    ]
    return Labels(examples=examples, classes=CLASSES)


def test_every_block_is_tested_once_a_deal_and_in_one_part_only() -> None:
    """Images of one block never stand on two sides, uncertain ones included."""
    known = labels(20)
    folds = deal_folds(known, folds=5, deals=3, seed=0)
    assert [(fold.deal, fold.number) for fold in folds] == [(d, n) for d in range(3) for n in range(5)]
    blocks = known.blocks()
    for deal in range(3):
        tested = np.concatenate([fold.test for fold in folds if fold.deal == deal])
        assert sorted(tested.tolist()) == list(range(len(blocks)))
    for fold in folds:
        parts = [set(blocks[part].tolist()) for part in (fold.train, fold.validation, fold.test)]
        assert sum(len(part) for part in parts) == 20
        assert len(set.union(*parts)) == 20
        assert abs(len(parts[2]) - 4) <= 1


def test_deals_are_different_and_the_same_for_one_seed() -> None:
    """A second deal that repeated the first's folds would make intervals look smaller than they are."""
    known = labels(20)
    first, again, other = (deal_folds(known, folds=5, deals=2, seed=seed) for seed in (0, 0, 1))
    tested = [
        {frozenset(fold.test.tolist()) for fold in folds} for folds in (first[:5], first[5:], other[:5])
    ]
    assert not tested[0] & tested[1]
    assert not tested[0] & tested[2]
    assert all((a.test == b.test).all() for a, b in zip(first, again, strict=True))


def test_a_class_in_too_few_blocks_is_named() -> None:
    """No fold may lack a class: its figure would be of another problem."""
    known = labels(6)
    examples = [
        Example(image_id=e.image_id, label="rare" if e.block == 0 and e.label else e.label, block=e.block)
        for e in known.examples
    ]
    with pytest.raises(DataError, match=r"6 blocks cannot be dealt into 3 folds .*: rare is in too few"):
        deal_folds(Labels(examples=examples, classes=(*CLASSES, "rare")), folds=3, deals=1, seed=0)
