"""How many images of a run may fail."""

from __future__ import annotations

from decimal import Decimal


def allowed_failures(allowance: str, total: int) -> int:
    """Return how many of `total` images may fail: `"20"` is a count, `"5%"` a share, rounded down.

    Shares are computed as they are written: 29 % of 100 is 29, where binary floating point says 28.
    """
    if allowance.endswith("%"):
        return int(Decimal(allowance[:-1]) * total / 100)
    return int(allowance)
