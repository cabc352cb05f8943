"""How often the server fails requests whatever is in them: what an image's failures are held against.

One of two processes behind a server may be broken for good, with the server's own routes calling it ready:
then every other request fails. An image that was unlucky must not be taken for a bad one.
"""

from __future__ import annotations

import threading
from collections import deque

# Requests known to be good, the last ones: a server that has recovered is soon a good one again.
_WINDOW = 64
# Fewer of them say too little: a chance below `_CHANCE` could not be told after four failures.
_FEWEST = 15
# An image is blamed when its failures in a row would happen to a good one less often than this.
_CHANCE = 1e-6


class Reliability:
    """What became of requests whose images are known to be good. Safe to use from several threads."""

    def __init__(self) -> None:
        self._outcomes: deque[bool] = deque(maxlen=_WINDOW)
        self._lock = threading.Lock()

    def answered(self) -> None:
        """Note a good answer."""
        with self._lock:
            self._outcomes.append(True)

    def failed(self, times: int = 1) -> None:
        """Note failures of a request that was answered later, unchanged, or of a probe."""
        with self._lock:
            self._outcomes.extend([False] * times)

    @property
    def known(self) -> bool:
        """Whether enough is known to blame an image."""
        return len(self._outcomes) >= _FEWEST

    @property
    def share(self) -> float:
        """Share of good requests that fail, 0 to 1 without the ends (Krichevsky and Trofimov's estimate)."""
        with self._lock:
            return (self._outcomes.count(False) + 0.5) / (len(self._outcomes) + 1)

    def blames(self, failures: int) -> bool:
        """Tell whether an image that failed so often in a row, alone, is the reason for it."""
        return self.known and self.share**failures <= _CHANCE
