"""Blocks dealt out at random into folds, several times over.

scikit-learn's `StratifiedGroupKFold(shuffle=True)` places the large blocks first, so that its seeds repeat
each other's folds; here each deal is another one.
"""

from dataclasses import dataclass

import numpy as np

from imagebatch_training.errors import DataError
from imagebatch_training.images.labels import Labels
from imagebatch_training.metrics import Integers

_TRIES = 1000


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One fold of one deal: every image of a block is in one part.

    Attributes:
        deal: Number of the deal, from 0.
        number: Of the fold in it, from 0.
        train: Positions of the images to fit on, uncertain ones among them.
        validation: Positions of the images to choose on: those of the next fold.
        test: Positions of the images that nothing is fitted to and nothing chosen on.
    """

    deal: int
    number: int
    train: Integers
    validation: Integers
    test: Integers


def deal_folds(labels: Labels, *, folds: int, deals: int, seed: int) -> list[Fold]:
    """Deal all blocks out, so that each is tested once a deal.

    Args:
        labels: With its blocks.
        folds: Folds of a deal, at least 3.
        deals: How often.
        seed: Of the order in which blocks are dealt.

    Returns:
        `deals` times `folds` folds, of about as many labelled images each.

    Raises:
        DataError: No deal was found in which every fold has every class.
    """
    random = np.random.default_rng(seed)
    blocks = labels.blocks()
    found = []
    for deal in range(deals):
        held = _dealt(labels, folds, random)[blocks]
        for number in range(folds):
            following = (number + 1) % folds
            found.append(
                Fold(
                    deal=deal,
                    number=number,
                    train=np.flatnonzero((held != number) & (held != following)),
                    validation=np.flatnonzero(held == following),
                    test=np.flatnonzero(held == number),
                )
            )
    return found


def _dealt(labels: Labels, folds: int, random: np.random.Generator) -> Integers:
    """Return the fold of each block."""
    blocks, targets = labels.blocks(), labels.targets()
    count = int(blocks.max()) + 1
    sizes = np.bincount(blocks[targets >= 0], minlength=count)
    for _ in range(_TRIES):
        held, filled = np.zeros(count, np.int64), np.zeros(folds, np.int64)
        for block in random.permutation(count):
            held[block] = filled.argmin()
            filled[held[block]] += sizes[block]
        seen = np.zeros((folds, len(labels.classes)), bool)
        seen[held[blocks][targets >= 0], targets[targets >= 0]] = True
        if seen.all():
            return held
    rare = labels.classes[int(np.bincount(targets[targets >= 0], minlength=len(labels.classes)).argmin())]
    raise DataError(
        f"{count} blocks cannot be dealt into {folds} folds with every class in each: {rare} is in too few;"
        " ask for fewer folds, or for smaller blocks (data.blocks, data.block_size)"
    )
