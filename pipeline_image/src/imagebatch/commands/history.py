"""The command `history`: list and compare runs, and write history.html over all of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from imagebatch.errors import NothingToDoError
from imagebatch.history.summary import RunSummary, read_history
from imagebatch.settings import HistorySettings
from imagebatch.stages.report.history_page import write_history

_LISTED = 20
_COLUMNS = ("run", "started", "listed", "unpredicted", "images/s", "confidence", "drift", "model", "pipeline")


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """Where the page is, and how the newest run compares with the mean of those before it."""

    runs: int
    page: str
    newest: str
    compared: dict[str, float]


def history(settings: HistorySettings) -> HistoryResult:
    """Print the newest runs as a table on standard error, and write the page.

    Raises:
        NothingToDoError: No run has figures.
        StorageError: They cannot be read.
    """
    runs = read_history(settings.runs_uri, settings.last, settings.model, settings.pipeline)
    if not runs:
        raise NothingToDoError(
            f"no run at {settings.runs_uri} has figures: they are kept by imagebatch report"
        )
    page = write_history(settings.runs_uri, runs)
    print(as_table(runs[-_LISTED:]), file=sys.stderr)  # noqa: T201 (a person asked for it)
    return HistoryResult(len(runs), page, runs[-1].run_id, compared(runs))


def compared(runs: list[RunSummary]) -> dict[str, float]:
    """Compare the newest run with the mean of the others of its pipeline: 0.1 is ten per cent more."""
    found = {}
    runs = [run for run in runs if run.pipeline == runs[-1].pipeline]
    for name in ("listed", "images_per_second", "failure_share", "confidence", "cpu_seconds"):
        before = [value for run in runs[:-1] if (value := getattr(run, name)) is not None]
        now = getattr(runs[-1], name)
        mean = sum(before) / len(before) if before else 0.0
        if mean and now is not None:
            found[name] = round(now / mean - 1, 4)
    return found


def as_table(runs: list[RunSummary]) -> str:
    """Return the runs as lines of text, oldest first."""
    rows = [_COLUMNS, *map(_cells, runs)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cells(run: RunSummary) -> tuple[str, ...]:
    drift = {True: "drift", False: "none", None: "-"}[run.drifting]
    return (
        run.run_id,
        f"{run.started:%Y-%m-%d %H:%M}",
        str(run.listed),
        f"{run.failed + run.rejected} ({run.failure_share:.2%})",
        _number(run.images_per_second, 1),
        _number(run.confidence, 3),
        drift,
        " ".join(run.model.split()[:2]),
        run.pipeline,
    )


def _number(value: Any, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
