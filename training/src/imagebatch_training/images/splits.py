"""The random split and the block split.

Neighbouring files often show neighbouring things (cells of one module, frames of one film), and pictures are
kept twice. A random split puts such twins on both sides and flatters; the block split keeps each block on one
side. Every class is in every part of both, or there is no split.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from imagebatch_training import settings as conf
from imagebatch_training.errors import DataError
from imagebatch_training.images.labels import PARTS, Example, Part
from imagebatch_training.images.sources import Listing

log = logging.getLogger(__name__)

Blocks = npt.NDArray[np.int64]

_FEWEST = 3
"""A stratum smaller than this cannot be in all three parts."""
_DRAWS = 2000
"""So many draws are tried for one that has every class in every part; nearly always the first one does."""


def assign(listing: Listing, data: conf.Data, duplicates: Callable[[], Blocks] | None = None) -> None:
    """Assign every image its block and its part of both splits.

    Args:
        listing: Its examples are changed in place.
        data: How blocks are made, block size, shares and seed.
        duplicates: Numbers the images so that near-duplicates share a number; asked only where the blocks are
            made of them. None: all images differ.

    Raises:
        DataError: A class cannot be in all three parts, or there are too few images or blocks.
    """
    examples = listing.examples
    for example, block in zip(examples, _blocks(listing, data, duplicates), strict=True):
        example.block = int(block)
    if any(listing.parts):
        _assign_given(listing, data)
        return
    labelled = [[example] for example in examples if example.label]
    for (example,), part in zip(labelled, _draw(labelled, data, "images"), strict=True):
        example.random_split = part
    for members, part in zip(blocks := _by_block(examples), _draw(blocks, data, "blocks"), strict=True):
        for example in members:
            example.block_split = part


def _blocks(listing: Listing, data: conf.Data, duplicates: Callable[[], Blocks] | None) -> Blocks:
    kind = data.blocks
    if kind == "auto":
        kind = "groups" if listing.whole else "duplicates"
    if kind == "duplicates":
        return duplicates() if duplicates else np.arange(len(listing.examples), dtype=np.int64)
    return number_blocks(listing.groups, data.block_size, whole=kind == "groups")


def number_blocks(groups: Sequence[str], size: int, *, whole: bool) -> Blocks:
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


def _by_block(examples: Sequence[Example]) -> list[list[Example]]:
    members: dict[int, list[Example]] = defaultdict(list)
    for example in examples:
        members[example.block].append(example)
    return list(members.values())


def _assign_given(listing: Listing, data: conf.Data) -> None:
    """Take the given split as both splits; what it lacks is cut out of its training images."""
    examples = listing.examples
    for example, part in zip(examples, _three_parts(listing), strict=True):
        example.block_split = part
    spanning = [each for each in _by_block(examples) if len({e.block_split for e in each}) > 1]
    if spanning:
        images = sum(map(len, spanning))
        log.warning("%d images of %d blocks are on several sides of the given split", images, len(spanning))
    if "validation" not in {example.block_split for example in examples if example.label}:
        train = _by_block([example for example in examples if example.block_split == "train"])
        share = data.validation / (1 - data.test)
        parts = _draw(train, data, "blocks of training images", {"validation": share, "train": 1 - share})
        for members, part in zip(train, parts, strict=True):
            for example in members:
                example.block_split = part
    if absent := _absent([[e] for e in examples], [e.block_split for e in examples], PARTS):
        name, part = absent[0]
        raise DataError(f"the given split has no image of class {name!r} in {part}: correct it")
    for example in examples:
        example.random_split = example.block_split if example.label else ""


def _three_parts(listing: Listing) -> list[str]:
    """Return the given part of each image, where what is held out is the test if nothing else is."""
    given = {part for e, part in zip(listing.examples, listing.parts, strict=True) if e.label}
    if "train" not in given or len(given) == 1:
        held = " and ".join(sorted(given)) or "no"
        raise DataError(f"the given split has {held} images only: it wants train and test")
    if "test" in given:
        return list(listing.parts)
    log.info("the given split has no test images: its validation images are the test images")
    return ["test" if part == "validation" else part for part in listing.parts]


def _draw(
    items: Sequence[Sequence[Example]], data: conf.Data, what: str, shares: Mapping[Part, float] | None = None
) -> list[Part]:
    """Assign images or whole blocks to parts, so that every class is in every part.

    Args:
        items: The images of each.
        data: Shares and seed.
        what: They are, for complaints.
        shares: Of the parts, in place of the data's.

    Returns:
        A part per item: of the first draw that has every class in every part.

    Raises:
        DataError: There is none.
    """
    shares = shares or _shares(data)
    if len(items) < len(shares):
        raise DataError(
            f"{len(items)} {what} cannot be split in {len(shares)}: add images, or say how blocks are"
            " made (data.blocks)"
        )
    holding = Counter(name for item in items for name in {e.label for e in item if e.label})
    rarest = min(holding, key=lambda name: (holding[name], name))
    images = sum(e.label == rarest for item in items for e in item)
    if holding[rarest] >= len(shares):
        # An item's stratum is its commonest label, the first by name on a tie.
        names = [[e.label for e in item if e.label] for item in items]
        strata = [max(sorted(set(each)), key=each.count, default="") for each in names]
        for attempt in range(_DRAWS):
            random = np.random.default_rng([data.seed, attempt] if attempt else data.seed)
            parts = deal(strata, shares, random)
            if left := [part for part in shares if part not in parts]:
                raise DataError(f"no {what} are left for {left[0]}: change data.test or data.validation")
            if not _absent(items, parts, shares):
                return parts
    raise DataError(
        f"class {rarest!r} has {images} images, in {holding[rarest]} of {len(items)} {what}: it cannot be in"
        f" {' and '.join(shares)} each; add images of it, take it out, or give a split (data.split_column)"
    )


def _absent(
    items: Sequence[Sequence[Example]], parts: Sequence[str], wanted: Sequence[Part] | Mapping[Part, float]
) -> list[tuple[str, Part]]:
    """List the classes that a part has no image of."""
    held = {(e.label, part) for item, part in zip(items, parts, strict=True) for e in item if e.label}
    return [
        (name, part)
        for name in sorted({name for name, _ in held})
        for part in wanted
        if (name, part) not in held
    ]


def _shares(data: conf.Data) -> dict[Part, float]:
    return {"test": data.test, "validation": data.validation, "train": 1 - data.test - data.validation}


def deal(strata: Sequence[str], shares: Mapping[Part, float], random: np.random.Generator) -> list[Part]:
    """Deal items out to parts, the same shares of every stratum.

    Args:
        strata: A stratum per item; those of fewer than three items are pooled.
        shares: Of the parts, together 1; training gets what the others leave.
        random: Shuffles each stratum.

    Returns:
        A part per item.
    """
    counts = Counter(strata)
    pooled = [name if counts[name] >= _FEWEST else "" for name in strata]
    dealt: list[Part] = ["train"] * len(strata)
    for name in sorted(set(pooled)):
        items = random.permutation([i for i, stratum in enumerate(pooled) if stratum == name])
        start = 0
        for part, share in shares.items():
            if part == "train":
                continue
            end = start + max(1, round(share * len(items)))
            for i in items[start:end]:
                dealt[i] = part
            start = end
    return dealt
