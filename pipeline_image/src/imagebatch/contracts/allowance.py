"""How many images of a run may fail."""

from __future__ import annotations


def allowed_failures(allowance: str, total: int) -> int:
    """Return how many of `total` images may fail: `"20"` is a count, `"5%"` a share, rounded down."""
    if allowance.endswith("%"):
        return int(float(allowance[:-1]) / 100 * total)
    return int(allowance)
