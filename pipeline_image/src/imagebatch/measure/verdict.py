"""Which ceiling binds: where the time of an image goes, at the rate that was reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from imagebatch.measure.clock import Figure


class Ceiling(StrEnum):
    """What is measured, in the order of the table."""

    STORAGE = "storage"
    DECODE = "decode"
    MODEL = "model"
    IN_PROCESS = "in_process"
    SERVER = "server"
    ACHIEVED = "achieved"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the figures come to.

    Attributes:
        ratio: Achieved rate over the reference's.
        reference: The in-process ceiling, or the server's where that was not measured.
        bound_by: `decode`, `model`, `server`, `storage` or `scorer`.
        milliseconds: Wall time per image, the whole machine at work, by what it goes to; sums to the
            achieved time unless a part was faster than what it contains.
        coded: What nearly all images are, such as `JPEG`; empty where they are of several formats.
    """

    ratio: float
    reference: Ceiling
    bound_by: str
    milliseconds: dict[str, float]
    coded: str = ""

    @property
    def line(self) -> str:
        """The one line that says it all."""
        name = self.reference.value.replace("_", "-")
        bound = f"{self.coded} {self.bound_by}".strip() if self.bound_by == "decode" else self.bound_by
        share = self.milliseconds[self.bound_by] / (sum(self.milliseconds.values()) or 1.0)
        return f"{100 * self.ratio:.0f} % of the {name} ceiling; bound by: {bound}, {100 * share:.0f} %"


def verdict(figures: Mapping[Ceiling, Figure], coded: str = "") -> Verdict:
    """Split the time of an image into its parts.

    Decoding and model share the cores, so their times add up to the in-process time; what the server needs
    beyond that is its own, and what the run needs beyond the server is the scorer's, or the storage's where
    reading alone would take longer than the server does. The largest part is what binds.

    Args:
        figures: At least `ACHIEVED`, and `SERVER` or `IN_PROCESS`.
        coded: Format of the images, from `coded_as`.
    """
    each = {name: 1000 / figure.rate for name, figure in figures.items() if figure.rate > 0}
    reference = Ceiling.IN_PROCESS if Ceiling.IN_PROCESS in each else Ceiling.SERVER
    served = each.get(Ceiling.SERVER, each[reference])
    parts: dict[str, float] = {}
    if reference is Ceiling.IN_PROCESS:
        parts = {"decode": each[Ceiling.DECODE], "model": each[Ceiling.MODEL]}
    if Ceiling.SERVER in each:
        parts["server"] = max(0.0, served - each.get(Ceiling.IN_PROCESS, 0.0))
    last = "storage" if each.get(Ceiling.STORAGE, 0.0) > served else "scorer"
    parts[last] = max(0.0, each[Ceiling.ACHIEVED] - served)
    ratio = figures[Ceiling.ACHIEVED].rate / figures[reference].rate
    rounded = {name: round(value, 3) for name, value in parts.items()}
    return Verdict(ratio, reference, max(parts, key=parts.__getitem__), rounded, coded)
