"""The random split and the block split.

Neighbouring files often show neighbouring things (cells of one module, frames of one film). A random split
puts such twins on both sides and flatters; the block split keeps each run of neighbours on one side.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from imagebatch_training import settings as conf
from imagebatch_training.errors import DataError
from imagebatch_training.images.labels import PARTS, Example, Part
from imagebatch_training.images.sources import Listing

_FEWEST = 3
"""A stratum smaller than this cannot be in all three parts."""


def assign(listing: Listing, data: conf.Data) -> None:
    """Assign every image its block and its part of both splits.

    Args:
        listing: Its examples are changed in place.
        data: Block size, shares and seed.

    Raises:
        DataError: There are too few images or blocks for three parts, or a part of the block split has no
            labelled image.
    """
    examples = listing.examples
    blocks = number_blocks(listing.groups, data.block_size, whole=listing.whole)
    for example, block in zip(examples, blocks, strict=True):
        example.block = int(block)
    labelled = [i for i, example in enumerate(examples) if example.label]
    parts = split([examples[i].label for i in labelled], data)
    for position, part in zip(labelled, parts, strict=True):
        examples[position].random_split = part
    by_block = split_blocks(examples, data)
    for example in examples:
        example.block_split = by_block[example.block]
    held = {example.block_split for example in examples if example.label}
    absent = [part for part in PARTS if part not in held]
    if absent:
        raise DataError(
            f"no labelled image is in the {absent[0]} blocks: change data.seed, lower data.block_size "
            "or label more images"
        )


def number_blocks(groups: Sequence[str], size: int, *, whole: bool) -> npt.NDArray[np.int64]:
    """Assign each image to a block.

    Args:
        groups: A group name per image, in file order.
        size: Images per block, about.
        whole: True: a group is one block, wherever its images are. False: each unbroken run of one group is
            cut into equal blocks of about `size`.

    Returns:
        Block number per image, 0..n-1 in order of first appearance.
    """
    if whole:
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
    blocks = np.zeros(len(groups), dtype=np.int64)
    start = number = 0
    while start < len(groups):
        end = start
        while end < len(groups) and groups[end] == groups[start]:
            end += 1
        for run in np.array_split(np.arange(start, end), max(1, round((end - start) / size))):
            blocks[run] = number
            number += 1
        start = end
    return blocks


def split_blocks(examples: Sequence[Example], data: conf.Data) -> dict[int, Part]:
    """Assign whole blocks to parts, so that each part has blocks of every commonest class.

    Returns:
        The part of every block.

    Raises:
        DataError: There are fewer than three blocks.
    """
    labels: dict[int, list[str]] = defaultdict(list)
    for example in examples:
        labels[example.block] += [example.label] if example.label else []
    # A block's stratum is its commonest label, the first by name on a tie.
    strata = {block: max(sorted(set(names)), key=names.count, default="") for block, names in labels.items()}
    parts = split(list(strata.values()), data)
    return dict(zip(strata, parts, strict=True))


def split(strata: Sequence[str], data: conf.Data) -> list[Part]:
    """Assign items to train, validation and test, the same shares of every stratum.

    Args:
        strata: A stratum per item.
        data: Shares and seed.

    Returns:
        A part per item. Strata of fewer than three items are pooled.

    Raises:
        DataError: There are fewer than three items.
    """
    if len(strata) < _FEWEST:
        raise DataError(
            f"{len(strata)} blocks or images cannot be split in three: lower data.block_size or add images"
        )
    counts = {name: strata.count(name) for name in set(strata)}
    pooled = [name if counts[name] >= _FEWEST else "" for name in strata]
    random = np.random.default_rng(data.seed)
    parts: list[Part] = ["train"] * len(strata)
    for name in sorted(set(pooled)):
        items = random.permutation([i for i, stratum in enumerate(pooled) if stratum == name])
        test = max(1, round(data.test * len(items)))
        validation = max(1, round(data.validation * len(items)))
        for i in items[:test]:
            parts[i] = "test"
        for i in items[test : test + validation]:
            parts[i] = "validation"
    absent = [part for part in PARTS if part not in parts]
    if absent:
        raise DataError(f"no images or blocks are left for {absent[0]}: change data.test or data.validation")
    return parts
