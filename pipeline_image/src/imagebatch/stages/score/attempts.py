"""Attempts at one shard: the newest counts, and exactly one of them finishes the shard.

An attempt is a file `attempt-00001.json`, created exclusively; the next attempt takes the next number and
so supersedes it. Part files carry their attempt's number, and count only through `_DONE.json`, which can be
created once. Their names carry the SHA-256 of their content as well: one write publishes both, and what a
disk has changed since is found out. A superseded attempt (a container that its orchestrator has forgotten)
can therefore write files, but none that count.
"""

from __future__ import annotations

import json
import os
import re
import socket
import uuid
from collections.abc import Sequence
from typing import Self

import pyarrow as pa

from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.layout import done_path, scores_folder
from imagebatch.contracts.records import DonePart, ShardDone
from imagebatch.errors import RunHeldError
from imagebatch.log import get_logger
from imagebatch.runs.folder import RunFolder, parquet_bytes

log = get_logger()

_ATTEMPT = re.compile(r"attempt-(\d{5})\.json$")
_PART = re.compile(r"part-(\d{5})-attempt-\d{5}-([0-9a-f]{64})\.parquet$")


class Attempt:
    """This process's attempt at one shard. Make one with `claim`.

    Args:
        run: The run's files.
        shard: Number of the shard.
        number: 1 for the first attempt.
        left: The shard's files as they were listed before this attempt began.

    Attributes:
        shard: Number of the shard.
        number: 1 for the first attempt.
        left: Paths of the files that earlier attempts left.
    """

    def __init__(self, run: RunFolder, shard: int, number: int, left: Sequence[str] = ()) -> None:
        self._run = run
        self.shard = shard
        self._folder = scores_folder(shard)
        self.number = number
        self.left = left

    @classmethod
    def claim(cls, run: RunFolder, shard: int) -> Self:
        """Take the next number at a shard, and so supersede every earlier attempt at it."""
        # No two records are alike: that is how a store's lost reply is told from another attempt's record.
        who = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
        record = json.dumps(who).encode()
        # Listed once: what an attempt that is superseded writes after this is not taken over.
        left = run.list(scores_folder(shard))
        attempt = cls(run, shard, _newest(left) + 1, left)
        while not run.create(attempt._record(attempt.number), record):
            attempt.number += 1
        return attempt

    def earlier_parts(self) -> dict[int, list[tuple[str, str]]]:
        """List the part files that earlier attempts left, by number: path, and SHA-256 of the content.

        Those of version 0.1.0 have no digest in their names: they are not listed, and scored again.
        """
        found: dict[int, list[tuple[str, str]]] = {}
        for path in self.left:
            if match := _PART.search(path):
                found.setdefault(int(match[1]), []).append((path, match[2]))
        return found

    def write_part(self, part: int, table: pa.Table) -> DonePart:
        """Publish a part of this attempt.

        Raises:
            RunHeldError: A newer attempt has taken over.
        """
        self.require_newest()
        data = parquet_bytes(table)
        digest = sha256_hex(data)
        path = f"{self._folder}/part-{part:05d}-attempt-{self.number:05d}-{digest}.parquet"
        self._run.write(path, data)
        return DonePart(path=path, sha256=digest, rows=table.num_rows)

    def finish(self, done: ShardDone) -> None:
        """Make this attempt's parts the shard's result.

        Raises:
            RunHeldError: A newer attempt has taken over, or has finished already.
        """
        self.require_newest()
        if not self._run.create(done_path(self.shard), (done.model_dump_json(indent=1) + "\n").encode()):
            raise RunHeldError(f"shard {self.shard} was finished by another attempt; nothing is to be done")

    def require_newest(self) -> None:
        """Raise RunHeldError if this attempt has been superseded."""
        if self._run.exists(self._record(self.number + 1)):
            raise RunHeldError(
                f"attempt {self.number} at shard {self.shard} was superseded; the newer one goes on alone"
            )

    def _record(self, number: int) -> str:
        return f"{self._folder}/attempt-{number:05d}.json"


def _newest(paths: Sequence[str]) -> int:
    numbers = [int(match[1]) for path in paths if (match := _ATTEMPT.search(path))]
    return max(numbers, default=0)
