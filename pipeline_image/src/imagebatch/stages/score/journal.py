"""What each request brought, from its answer until its part is written: what a killed attempt leaves behind.

One file per attempt and unfinished part, one line per request, written by the thread that got the answer.
Each line carries its checksum, because a machine that loses power may keep half of one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from imagebatch.contracts.layout import scores_folder
from imagebatch.contracts.rows import ScoreRow
from imagebatch.runs.folder import RunFolder

_JOURNAL = re.compile(r"journal-(\d{5})-attempt-\d{5}\.jsonl$")


class Journal:
    """The journals of one shard. `keep` is safe to call from several threads.

    Args:
        run: The run's files.
        shard: Number of the shard.
        attempt: Number of this attempt, whose journals nobody else writes.
        left: Paths of the files that earlier attempts left; listed here if not given.
    """

    def __init__(self, run: RunFolder, shard: int, attempt: int, left: Sequence[str] | None = None) -> None:
        self._run = run
        self._folder = scores_folder(shard)
        self._attempt = attempt
        self._kept: set[int] = set()
        self._earlier = _journals(self._listed() if left is None else left)

    def keep(self, part: int, rows: list[ScoreRow]) -> None:
        """Keep rows until `drop`, whatever happens to this process."""
        text = json.dumps(rows).encode()
        if self._run.append(self._path(part), b"%08x %s\n" % (zlib.crc32(text), text)):
            self._kept.add(part)

    def earlier(self) -> Iterator[tuple[int, Any]]:
        """Yield (part, row) of what earlier attempts kept; judge each row before using it."""
        for part, paths in self._earlier.items():
            for path in paths:
                with contextlib.suppress(FileNotFoundError):  # its part has been written meanwhile
                    for line in self._run.read(path).splitlines():
                        yield from ((part, row) for row in _rows(line))

    def drop(self, part: int) -> None:
        """Remove what this attempt and earlier ones kept of a part that is written."""
        own = [self._path(part)] if part in self._kept else []
        for path in self._earlier.pop(part, []) + own:
            self._run.remove(path)
        self._kept.discard(part)

    def clear(self) -> None:
        """Remove all journals of a shard that is finished, those of attempts that it has overtaken too."""
        if self._run.appends:  # else there can be none
            for path in itertools.chain(*_journals(self._listed()).values()):
                self._run.remove(path)

    def _listed(self) -> Sequence[str]:
        return self._run.list(self._folder)

    def _path(self, part: int) -> str:
        return f"{self._folder}/journal-{part:05d}-attempt-{self._attempt:05d}.jsonl"


def _journals(paths: Sequence[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for path in paths:
        if match := _JOURNAL.search(path):
            found.setdefault(int(match[1]), []).append(path)
    return found


def _rows(line: bytes) -> list[Any]:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return []
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):  # whole, and not what this module writes
        return []
    return rows if isinstance(rows, list) else []
