"""One shard on its way: what earlier attempts left of it, what is still to be asked, its parts, its end."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from imagebatch.contracts.records import DonePart, ShardDone
from imagebatch.contracts.rows import SCORES_SCHEMA, AskedRow, ScoreRow, asked_rows
from imagebatch.log import get_logger
from imagebatch.runs.folder import RunFolder
from imagebatch.stages.score.attempts import Attempt
from imagebatch.stages.score.cache import PredictionCache
from imagebatch.stages.score.journal import Journal
from imagebatch.stages.score.threshold import Threshold
from imagebatch.stages.score.trust import Trust

log = get_logger()

# Fixed: an attempt can adopt the parts and journals of an earlier one only if both cut a shard alike.
PART_ROWS = 256
# Under this key a part's file says how many of its rows came out of the cache.
_CACHED = b"imagebatch.cached"
# And under this one, as JSON, how many of them each of several endpoints has answered.
_ENDPOINTS = b"imagebatch.endpoints"


class ShardInProgress:
    """This process's attempt at one shard. Make one with `begin`.

    Args:
        run: The run's files.
        attempt: This attempt.
        journal: Its journals, and those of earlier attempts.
        manifest: The shard's images.
        trust: Judges what earlier attempts left.
        threshold: Counts its failures.
        cache: Predictions of other runs.
        embed: Ids of the images whose embeddings are wanted.

    Attributes:
        number: Of the shard.
        attempt: Number of this attempt.
        rejected: Images that preprocess has rejected.
        resumed: Images that an earlier attempt has scored.
        cached: Images that this attempt has found in the cache.
    """

    def __init__(
        self,
        run: RunFolder,
        attempt: Attempt,
        journal: Journal,
        manifest: pa.Table,
        *,
        trust: Trust,
        threshold: Threshold,
        cache: PredictionCache | None = None,
        embed: frozenset[str] = frozenset(),
    ) -> None:
        self._run = run
        self._trust = trust
        self._threshold = threshold
        self._cache = cache
        self._embed = embed
        self.cached = self.resumed = 0
        self._files = attempt
        self.number, self.attempt = attempt.shard, attempt.number
        self._journal = journal
        accepted = asked_rows(manifest.filter(pc.is_null(manifest["reason"])))
        self._images = accepted.num_rows
        self.rejected = manifest.num_rows - self._images
        self._parts = [accepted.slice(start, PART_ROWS) for start in range(0, self._images, PART_ROWS)]
        self._written: dict[int, tuple[DonePart, int]] = {}
        self._rows: dict[int, dict[str, ScoreRow]] = {}
        self._from_cache: dict[int, int] = {}
        self._answered_by: dict[int, Counter[str]] = {}

    @classmethod
    def begin(
        cls,
        run: RunFolder,
        number: int,
        manifest: pa.Table,
        *,
        trust: Trust,
        threshold: Threshold,
        cache: PredictionCache | None = None,
        embed: frozenset[str] = frozenset(),
    ) -> Self:
        """Claim a shard, and take over what earlier attempts left of it.

        Args:
            run: The run's files.
            number: Of the shard.
            manifest: Its images.
            trust: Judges what earlier attempts left.
            threshold: Counts its failures.
            cache: Predictions of other runs.
            embed: Ids of the images whose embeddings are wanted.
        """
        attempt = Attempt.claim(run, number)
        journal = Journal(run, number, attempt.number, attempt.left)
        shard = cls(
            run, attempt, journal, manifest, trust=trust, threshold=threshold, cache=cache, embed=embed
        )
        shard._adopt()
        shard.resumed = sum(part.rows for part, _ in shard._written.values())
        shard.resumed += sum(map(len, shard._rows.values()))
        if shard.resumed:
            log.info("earlier attempts go on", shard=number, attempt=attempt.number, images=shard.resumed)
        return shard

    def left(self) -> Iterator[tuple[int, list[AskedRow]]]:
        """Yield (part, rows to ask) of all images without an answer."""
        for number, part in enumerate(self._parts):
            if number not in self._written:
                known = self._rows.setdefault(number, {})
                rows: list[AskedRow] = [row for row in part.to_pylist() if row["image_id"] not in known]
                for row in rows:
                    row["embed"] = row["image_id"] in self._embed
                if self._cache:
                    found = {row["image_id"]: row for row in self._cache.find(rows)}
                    self._from_cache[number] = len(found)
                    self.cached += len(found)
                    known |= found
                    rows = [row for row in rows if row["image_id"] not in found]
                if rows:
                    yield number, rows
                else:
                    self.add(number, [])

    def keep(self, part: int, rows: list[ScoreRow]) -> None:
        """Keep what one request brought, whatever happens to this process; from any thread."""
        self._journal.keep(part, rows)

    def add(self, part: int, rows: list[ScoreRow]) -> None:
        """Take rows of a part, and write it when they are all there.

        Raises:
            RunHeldError: A newer attempt has taken over.
            DataRefusedError: More failures than allowed; what is scored is kept.
        """
        known = self._rows[part]
        known |= {row["image_id"]: row for row in rows}
        if self._cache and rows:
            self._cache.add(rows, self._pages_of(part))
        wanted = self._parts[part]["image_id"].to_pylist()
        if len(known) == len(wanted):
            table = pa.Table.from_pylist([known[image_id] for image_id in wanted], SCORES_SCHEMA)
            self._answered_by[part] = Counter(row["endpoint"] for row in known.values() if "endpoint" in row)
            table = table.replace_schema_metadata(self._metadata(part))
            self._written[part] = (self._files.write_part(part, table), _failures_in(table))
            self._journal.drop(part)
            del self._rows[part]
            self._threshold.add(table["reason"].to_pylist())

    def _metadata(self, part: int) -> dict[bytes, str]:
        about = {_CACHED: str(self._from_cache.get(part, 0))}
        if self._answered_by[part]:
            about[_ENDPOINTS] = json.dumps(self._answered_by[part], sort_keys=True)
        return about

    def _pages_of(self, part: int) -> dict[str, int]:
        """Return the page of each image of a part by its id; nothing where images are files."""
        table = self._parts[part]
        if "page" not in table.column_names:
            return {}
        return dict(zip(table["image_id"].to_pylist(), table["page"].to_pylist(), strict=True))

    def require_newest(self) -> None:
        """Raise RunHeldError if a newer attempt has taken the shard over."""
        self._files.require_newest()

    @property
    def complete(self) -> bool:
        """Whether every part is written."""
        return len(self._written) == len(self._parts)

    def finish(self) -> ShardDone:
        """Make the written parts the shard's result.

        Raises:
            RunHeldError: A newer attempt has taken over, or has finished already.
        """
        ordered = [self._written[number] for number in sorted(self._written)]
        failed = sum(failures for _, failures in ordered)
        done = ShardDone(
            attempt=self.attempt,
            parts=[part for part, _ in ordered],
            predicted=self._images - failed,
            failed=failed,
            cached=sum(self._from_cache.values()),
            endpoints=dict(sorted(sum(self._answered_by.values(), Counter()).items())),
        )
        self._files.finish(done)
        self._journal.clear()
        return done

    def _adopt(self) -> None:
        """Take over what earlier attempts left, where it is of the images and the model that it must be."""
        tables: dict[int, pa.Table] = {}
        for number, paths in self._files.earlier_parts().items():
            for path, digest in paths if number < len(self._parts) else []:
                table = self._trust.part(self._run.read(path), digest, self._parts[number])
                if table is None:
                    log.warning("a part that an earlier attempt left is scored again", path=path)
                else:
                    part = DonePart(path=path, sha256=digest, rows=table.num_rows)
                    self._written[number] = (part, _failures_in(table))
                    tables[number] = table
                    about = table.schema.metadata or {}
                    self._from_cache[number] = int(about.get(_CACHED, 0))
                    self._answered_by[number] = Counter(json.loads(about.get(_ENDPOINTS, "{}")))
        self._adopt_journals()
        kept = [row["reason"] for rows in self._rows.values() for row in rows.values()]
        if not self._threshold.tolerates(itertools.chain(*map(_reasons, tables.values()), kept)):
            self._forget_failures(tables)
        for number in self._written:
            self._threshold.add(_reasons(tables[number]))
            self._journal.drop(number)

    def _forget_failures(self, tables: dict[int, pa.Table]) -> None:
        """Leave the predictions only: these failures ended an attempt, and their cause may be gone."""
        log.info("images that failed are scored again", shard=self.number, attempt=self.attempt)
        for number, table in tables.items():
            if self._written[number][1]:
                del self._written[number], self._from_cache[number], self._answered_by[number]
                self._rows[number] = {row["image_id"]: row for row in table.to_pylist()}
        for number, rows in self._rows.items():
            self._rows[number] = {name: row for name, row in rows.items() if not row["reason"]}

    def _adopt_journals(self) -> None:
        digests: dict[int, dict[str, str]] = {}
        for number, row in self._journal.earlier():
            if number in self._written or number >= len(self._parts):
                continue
            if number not in digests:
                columns = (self._parts[number][name].to_pylist() for name in ("image_id", "sha256"))
                digests[number] = dict(zip(*columns, strict=True))
            if self._trust.row(row, digests[number]):
                self._rows.setdefault(number, {})[row["image_id"]] = row


def _reasons(table: pa.Table) -> list[str | None]:
    reasons: list[str | None] = table["reason"].to_pylist()
    return reasons


def _failures_in(table: pa.Table) -> int:
    return int(table.num_rows - table["reason"].null_count)
