"""When to stop early: more failures than the run allows, or too many in a row."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable

from imagebatch.errors import DataRefusedError


class Threshold:
    """Counts failures of one process in the order of the images.

    Args:
        allowed: Failures and rejects that the whole run tolerates.
        rejected: Images that preprocess rejected.
        in_a_row: Failures in a row that are tolerated; 0: any number.
    """

    def __init__(self, *, allowed: int, rejected: int, in_a_row: int) -> None:
        self._allowed = allowed
        self._rejected = rejected
        self._in_a_row = in_a_row
        self._now_in_a_row = 0
        self._reasons: Counter[str] = Counter()

    def add(self, reasons: Iterable[str | None]) -> None:
        """Count images; None stands for a prediction.

        Raises:
            DataRefusedError: A threshold is passed. What is scored is kept.
        """
        for reason in reasons:
            self._now_in_a_row = self._now_in_a_row + 1 if reason else 0
            if reason:
                self._reasons[reason] += 1
            if self._in_a_row and self._now_in_a_row > self._in_a_row:
                raise DataRefusedError(
                    f"stopped after {self._now_in_a_row} failures in a row ({self._summary()});"
                    " see --max-consecutive-failures"
                )
        failed = self._reasons.total()
        if failed and failed + self._rejected > self._allowed:
            raise DataRefusedError(
                f"stopped with {failed} failed ({self._summary()}) and {self._rejected} rejected images,"
                f" {self._allowed} are allowed; see --max-failures"
            )

    def tolerates(self, reasons: Iterable[str | None]) -> bool:
        """Tell whether `add` would go on; counts nothing."""
        try:
            copy.deepcopy(self).add(reasons)
        except DataRefusedError:
            return False
        return True

    def _summary(self) -> str:
        return ", ".join(f"{reason} {count}" for reason, count in self._reasons.most_common(5))
