"""Which images of a run are looked at and asked more about: a random sample, the same for the same run id."""

from __future__ import annotations

import hashlib

import numpy as np

_BLOCK = 1024


def sampled_positions(run_id: str, total: int, images: int) -> list[int]:
    """Positions drawn without replacement.

    A smaller sample of a run is part of every larger one, so that stages which take different numbers of
    images still speak of the same ones.

    Args:
        run_id: Seeds the draw.
        total: Images that the run listed.
        images: How many to draw; 0, or more than there are: all.

    Returns:
        Rising positions in the listing, from 0.
    """
    if not images or images >= total:
        return list(range(total))
    chance = np.random.default_rng(int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], "big"))
    found: dict[int, None] = {}
    while len(found) < images:
        # Blocks of one size whatever is asked for: the stream is the same, and only its end differs.
        found |= dict.fromkeys(chance.integers(0, total, _BLOCK).tolist())
    return sorted(list(found)[:images])
