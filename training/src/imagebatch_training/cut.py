"""Where MobileNetV2 ends, and what becomes features there; no torch, which takes seconds to load."""

from dataclasses import dataclass

LAST = 18
"""The last entry of its `features`."""
POOLINGS = ("mean", "max", "std")


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where a network ends, and how what it computes there becomes features.

    Attributes:
        layer: Entry of MobileNetV2's `features` that is the last one used, 0 to 18; or `N.expansion`, N from
            2 to 17: of block N the first convolution alone, which widens it sixfold.
        pooling: Statistics over the places of a channel, in this order: `mean`, `max`, `std`.
    """

    layer: str = "18"
    pooling: tuple[str, ...] = ("mean",)

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            ValueError: One is none of those above; the text begins with the attribute's name.
        """
        number, _, part = self.layer.partition(".")
        known = range(2, LAST) if part else range(LAST + 1)
        if part not in ("", "expansion") or not (number.isdecimal() and int(number) in known):
            raise ValueError(f"layer must be 0 to 18, or 2.expansion to 17.expansion: got {self.layer!r}")
        if not self.pooling or len(set(self.pooling)) < len(self.pooling) or {*self.pooling} - {*POOLINGS}:
            raise ValueError(f"pooling must be some of {', '.join(POOLINGS)}: got {list(self.pooling)}")

    @property
    def last(self) -> int:
        """The last entry of `features` that is used, or used in part."""
        return int(self.layer.partition(".")[0])


WHOLE = Cut()
