"""Counts what a client asks an S3 server, by file and by kind of request."""

import threading
from collections import Counter
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.relay import Asked


class Counting:
    """Counts requests; `before` is a relay's.

    Attributes:
        asked: How often each (kind, key) was asked for: `GET`, `HEAD`, `PUT`, `DELETE`, or `LIST` with the
            listing's prefix.
    """

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def before(self, asked: Asked) -> None:
        """Counts a request, and lets it pass."""
        parts = urlsplit(asked.path)
        kind, key = asked.method, unquote(parts.path).lstrip("/")
        query = parse_qs(parts.query, keep_blank_values=True)
        if "list-type" in query:
            kind, key = "LIST", f"{key}/{query.get('prefix', [''])[0]}"
        with self._lock:
            self.asked[kind, key] += 1

    def take(self) -> Counter[tuple[str, str]]:
        """Returns what was counted since the last time."""
        with self._lock:
            taken, self.asked = self.asked, Counter()
        return taken


def by_kind(asked: Counter[tuple[str, str]]) -> dict[str, int]:
    """Requests by kind."""
    kinds: Counter[str] = Counter()
    for (kind, _), count in asked.items():
        kinds[kind] += count
    return dict(sorted(kinds.items()))


def by_file(asked: Counter[tuple[str, str]]) -> dict[str, int]:
    """Requests by file; a listing counts for what it lists."""
    files: Counter[str] = Counter()
    for (_, key), count in asked.items():
        files[key] += count
    return dict(files)
