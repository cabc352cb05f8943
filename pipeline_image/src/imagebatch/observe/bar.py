"""How far a stage is, for people: a bar on a terminal, a line every few seconds in a task's log."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime

from tqdm import tqdm

from imagebatch.log import get_logger

log = get_logger()

LOG_EVERY_SECONDS = 10.0


class Bar:
    """Shows the progress of one stage. One call at a time.

    Args:
        title: Of the stage.
        deadline: When the stage must be done, if there is such a time.
    """

    def __init__(self, title: str, deadline: datetime | None) -> None:
        self._deadline = deadline
        self._title = title
        self._total = self._done = self._failed = 0
        self._started = self._logged = time.monotonic()
        self._bar = tqdm(total=0, desc=title, unit="image", disable=not sys.stderr.isatty())

    def expect(self, images: int) -> None:
        """Make the bar longer."""
        self._total += images
        self._bar.total = self._total
        self._bar.refresh()

    def advance(self, images: int, failed: int, *, earlier: bool) -> None:  # noqa: ARG002 (done is done)
        """Move the bar, and write a line if the last one is old."""
        self._done += images
        self._failed += failed
        self._bar.update(images)
        if time.monotonic() - self._logged >= LOG_EVERY_SECONDS:
            self._logged = time.monotonic()
            self._log("progress")

    def end(self, error: BaseException | None) -> None:
        """Close the bar, and write a last line."""
        self._bar.close()
        self._log("stopped" if error else "finished")

    def _log(self, event: str) -> None:
        seconds = max(time.monotonic() - self._started, 1e-6)
        rate = self._done / seconds
        left = (self._total - self._done) / rate if rate else 0.0
        spare = {"spare_seconds": round(self._until_deadline() - left)} if self._deadline else {}
        log.info(
            event,
            stage=self._title,
            done=self._done,
            total=self._total,
            failed=self._failed,
            images_per_second=round(rate, 1),
            eta_seconds=round(left),
            **spare,
        )

    def _until_deadline(self) -> float:
        return (self._deadline - datetime.now(UTC)).total_seconds() if self._deadline else 0.0
