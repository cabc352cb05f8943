"""How far a stage is: a bar on a terminal, a line every few seconds in a task's log."""

from __future__ import annotations

import sys
import threading
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from tqdm import tqdm

from imagebatch.log import get_logger
from imagebatch.observe import timeline
from imagebatch.observe.metrics import STAGE_IMAGES
from imagebatch.observe.stage_metrics import current

log = get_logger()

LOG_EVERY_SECONDS = 10.0


class Progress:
    """Counts images of one stage. Safe to use from several threads.

    Args:
        stage: Its name, shown.
        total: Images to come.
        deadline: When the stage must be done, if there is such a time.
    """

    def __init__(self, stage: str, total: int, deadline: datetime | None = None) -> None:
        self._deadline = deadline
        self._stage = stage
        self._total = total
        self._done = 0
        self._failed = 0
        self._started = self._logged = time.monotonic()
        self._lock = threading.Lock()
        self._shown = current()
        self._shown.expect(total)
        self._bar = tqdm(total=total, desc=stage, unit="image", disable=not sys.stderr.isatty())

    def advance(self, images: int, failed: int = 0, *, earlier: bool = False) -> None:
        """Notes that `images` more are done, `failed` of them without a prediction.

        Those of an `earlier` attempt tell nothing about speed.
        """
        self._shown.add(STAGE_IMAGES, images - failed, "earlier" if earlier else "ok")
        self._shown.add(STAGE_IMAGES, failed, "failed")
        with self._lock:
            self._done += images
            self._failed += failed
            timeline.note(images, failed)
            self._bar.update(images)
            if time.monotonic() - self._logged >= LOG_EVERY_SECONDS:
                self._logged = time.monotonic()
                self._log("progress")

    def _log(self, event: str) -> None:
        seconds = max(time.monotonic() - self._started, 1e-6)
        rate = self._done / seconds
        left = (self._total - self._done) / rate if rate else 0.0
        spare = {"spare_seconds": round(self._until_deadline() - left)} if self._deadline else {}
        log.info(
            event,
            stage=self._stage,
            done=self._done,
            total=self._total,
            failed=self._failed,
            images_per_second=round(rate, 1),
            eta_seconds=round(left),
            **spare,
        )

    def _until_deadline(self) -> float:
        return (self._deadline - datetime.now(UTC)).total_seconds() if self._deadline else 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._log("stopped" if error else "finished")
