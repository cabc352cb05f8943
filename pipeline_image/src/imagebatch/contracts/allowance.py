"""How many images of a run may fail."""

from __future__ import annotations


def allowed_failures(allowance: str, total: int) -> int:
    """Failures tolerated among `total` images, from `"20"` (a count) or `"5%"` (a share, rounded down)."""
    if allowance.endswith("%"):
        return int(float(allowance[:-1]) / 100 * total)
    return int(allowance)
