"""How far a stage is: told once, passed on to everyone who observes the stage."""

from __future__ import annotations

import threading
from datetime import datetime
from types import TracebackType
from typing import Self

from imagebatch.observe.bar import Bar
from imagebatch.observe.stage import current


class Progress:
    """Tells the observers of the stage at work, and a bar, how far it is. Safe to use from several threads.

    Args:
        title: Of the stage, shown.
        total: Images to come.
        deadline: When the stage must be done, if there is such a time.
    """

    def __init__(self, title: str, total: int, deadline: datetime | None = None) -> None:
        self._bar = Bar(title, deadline)
        self._observers = [*current().observers, self._bar]
        self._lock = threading.Lock()
        for observer in self._observers:
            observer.expect(total)

    def advance(self, images: int, failed: int = 0, *, earlier: bool = False) -> None:
        """Tell that `images` more are done, `failed` of them without a prediction.

        Those of an `earlier` attempt tell nothing about speed.
        """
        with self._lock:
            for observer in self._observers:
                observer.advance(images, failed, earlier=earlier)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.end(error)
