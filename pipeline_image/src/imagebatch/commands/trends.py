"""The command `trends`: find what has changed in each pipeline, store it, and print the new changes first."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from imagebatch.contracts.layout import HISTORY, TRENDS
from imagebatch.errors import NothingToDoError, one_line
from imagebatch.history.change_points import LEAST_RUNS
from imagebatch.history.findings import findings
from imagebatch.history.reported import ReportedChange, remembered
from imagebatch.history.summary import RunSummary, read_history, stands_aside
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.settings import TrendsSettings

# The last line of standard output is bounded; all of it is in the file.
_MOST_CHANGES = 5
_LONGEST_TEXT = 220


@dataclass(frozen=True, slots=True)
class TrendsResult:
    """What was found.

    Attributes:
        runs: Number of runs looked at.
        figures: Number of figures looked at, over all pipelines.
        found: Number of changes found.
        changes: At most five, the newest first: `text`, and `key`, which stays the same every night.
    """

    runs: int
    figures: int
    found: int
    changes: list[dict[str, str]]


def trends(settings: TrendsSettings) -> TrendsResult:
    """Find what has changed, write it to `_history/_trends.json` and print it on standard error.

    Raises:
        NothingToDoError: No pipeline has 14 runs with figures.
    """
    pipelines = by_pipeline(settings)
    folder = open_run(settings.runs_uri, HISTORY)
    before = _reported_before(folder)
    sentences: list[tuple[float, str]] = []
    news: list[tuple[str, float, dict[str, str]]] = []
    memory: list[ReportedChange] = []
    steps: list[dict[str, str]] = []
    figures = 0
    for name, runs in pipelines.items():
        looked_at, found = findings(runs, settings.trend_alpha / len(pipelines))
        figures += looked_at
        entries, known = remembered(before, name, found, [run.run_id for run in runs])
        memory += known
        levels = [one for one in found if one.kind == "level"]
        steps += [{"pipeline": name, "figure": one.figure, "run_id": one.run_id} for one in levels]
        started = {run.run_id: run.started.isoformat() for run in runs}
        for finding, entry in zip(found, entries, strict=True):
            text = f"{name}: {finding.text}" if len(pipelines) > 1 else finding.text
            sentences.append((finding.p, text))
            change = {"key": entry.key, "text": one_line(text, _LONGEST_TEXT)}
            news.append((started.get(entry.since, ""), -finding.p, change))
    texts = [text for _, text in sorted(sentences)]
    content = {"sentences": texts, "steps": steps, "told": [one.model_dump() for one in memory]}
    folder.write(TRENDS, (json.dumps(content, indent=1) + "\n").encode())
    for text in texts:
        print(text, file=sys.stderr)  # noqa: T201 (a person asked for it)
    newest = [change for *_, change in sorted(news, key=lambda one: one[:2], reverse=True)]
    return TrendsResult(sum(map(len, pipelines.values())), figures, len(texts), newest[:_MOST_CHANGES])


def by_pipeline(settings: TrendsSettings) -> dict[str, list[RunSummary]]:
    """Return the newest runs of each pipeline that has enough of them, oldest first.

    Trials and past nights change whenever somebody wants them to: only if asked for by name.

    Raises:
        NothingToDoError: None has.
    """
    runs = read_history(settings.runs_uri, model=settings.model, pipeline=settings.pipeline)
    grouped: dict[str, list[RunSummary]] = defaultdict(list)
    for run in runs:
        if settings.pipeline or not stands_aside(run.pipeline):
            grouped[run.pipeline].append(run)
    found = {name: its[-settings.last :] for name, its in sorted(grouped.items())}
    enough = {name: its for name, its in found.items() if len(its) >= LEAST_RUNS}
    if not enough:
        most = max(map(len, found.values()), default=0)
        raise NothingToDoError(
            f"{most} runs of one pipeline at {settings.runs_uri} have figures, trends need {LEAST_RUNS}:"
            " they are kept by imagebatch report"
        )
    return enough


def _reported_before(folder: RunFolder) -> list[ReportedChange]:
    try:
        content = json.loads(folder.read(TRENDS))
        return TypeAdapter(list[ReportedChange]).validate_python(content["told"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, ValidationError):
        return []  # the first time, or a file of an earlier version: every change counts as new
