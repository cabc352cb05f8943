"""Make what the suites look at: pandas frames of bounded size, and totals over all of them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

import pandas as pd
import pyarrow as pa

from imagebatch.heads.base import Head
from imagebatch.runs.finished import open_finished
from imagebatch.runs.folder import RunFolder
from imagebatch.runs.listing import open_listing
from imagebatch.runs.output_csv import REVIEW
from imagebatch.stages.check.words import Refusals

# Rows that a suite sees at once: memory does not grow with the run.
FRAME_ROWS = 20_000
# Different answers that are counted: one answer for all is among the first. Scores are all different.
_MOST_ANSWERS = 100_000


class Totals:
    """Figures that need all frames: counts, order of ids, shares of answers, reasons of failures.

    Args:
        counted: The column whose texts are counted; empty: none.

    Attributes:
        answers: Predictions by text, the first hundred thousand texts.
        answered: Predictions.
    """

    def __init__(self, counted: str = "") -> None:
        self._counted = counted
        self.rows = 0
        self.without_result = 0
        self.answers: Counter[str] = Counter()
        self.answered = 0
        self.refusals = Refusals()
        self._ids_not_rising = 0
        self._last_id = ""

    def add(self, frame: pd.DataFrame) -> None:
        """Count one frame; frames come in the order of their ids."""
        ids = frame["image_id"].to_list()
        self._ids_not_rising += sum(a >= b for a, b in itertools.pairwise([self._last_id, *ids]))
        self._last_id = ids[-1] if ids else self._last_id
        self.rows += len(frame)
        self.without_result += int(frame["without_result"].sum())
        if self._counted:
            texts = Counter(frame[self._counted].dropna().to_list())
            self.answered += texts.total()
            full = len(self.answers) >= _MOST_ANSWERS
            self.answers.update({text: n for text, n in texts.items() if not full or text in self.answers})

    def frame(self) -> pd.DataFrame:
        """Return one row: `rows`, `without_result`, `ids_not_rising` (0 means that each id occurs once)."""
        return pd.DataFrame(
            {
                "rows": [self.rows],
                "without_result": [self.without_result],
                "ids_not_rising": [self._ids_not_rising],
            }
        )

    def shares(self) -> pd.DataFrame:
        """Return the share of each answer among the predicted images: columns `label` and `share`."""
        items = sorted(self.answers.items())
        return pd.DataFrame(
            {"label": [name for name, _ in items], "share": [count / self.answered for _, count in items]}
        )


def manifest_frames(run: RunFolder, totals: Totals) -> Iterator[pd.DataFrame]:
    """Yield every listed image, with `pixels`, `without_result` (0 or 1), `complete` (header or reason)."""
    with open_listing(run) as listing:
        for table in _tables(listing.manifests()):
            totals.refusals.add(table)
            frame = table.drop_columns(["detail"]).to_pandas()
            frame["pixels"] = frame["width"] * frame["height"]
            has_header = frame[["size", "sha256", "format", "width", "height"]].notna().all(axis="columns")
            yield _judged(frame, has_header, totals)


def scores_frames(
    run: RunFolder, head: Head, totals: Totals, review_below: float | None = None
) -> Iterator[pd.DataFrame]:
    """Yield every scored image: what the head's rules are about, and the same two columns.

    Where predictions are marked for a person, `review` says which: one that cannot be told is not complete.
    """
    with open_finished(run) as finished:
        for table in _tables(finished.scores()):
            totals.refusals.add(table)
            frame = table.select(["image_id", "sha256", "model_digest", "reason"]).to_pandas()
            columns = head.frame(table)
            if review_below is not None:
                columns |= {REVIEW: head.doubtful(table, review_below)}
            for name, values in columns.items():
                frame[name] = values.to_pandas()
            answered = frame[list(columns)].notna().all(axis="columns")
            yield _judged(frame, answered, totals)


def _tables(shards: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join or cut shards to tables of at most FRAME_ROWS rows; yield at least one."""
    waiting: list[pa.Table] = []
    rows = yielded = 0
    for shard in shards:
        table = shard
        while rows + table.num_rows >= FRAME_ROWS:
            taken = FRAME_ROWS - rows
            yield pa.concat_tables([*waiting, table.slice(0, taken)])
            waiting, rows, table = [], 0, table.slice(taken)
            yielded += 1
        waiting.append(table)
        rows += table.num_rows
    if rows or not yielded:
        yield pa.concat_tables(waiting)


def _judged(frame: pd.DataFrame, has_result: pd.Series[bool], totals: Totals) -> pd.DataFrame:
    has_reason = frame["reason"].notna()
    frame["without_result"] = has_reason.astype(int)
    frame["complete"] = has_result ^ has_reason
    totals.add(frame)
    return frame
