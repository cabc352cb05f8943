"""Everything that a run's page shows, in the form in which it shows it."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from imagebatch.contracts.account import suffix_words
from imagebatch.contracts.layout import FAILURES_CSV, LEFT_OUT_CSV, quality_path
from imagebatch.contracts.records import RunDescription
from imagebatch.errors import NotProvenError
from imagebatch.heads.base import Overview
from imagebatch.history.summary import RunSummary
from imagebatch.images.checks import SAYS, Check
from imagebatch.observe.timeline import StageRecord
from imagebatch.runs.certificate import Certificate
from imagebatch.runs.folder import RunFolder
from imagebatch.runs.listing import open_listing

Row = dict[str, Any]

_SHOWN = 24
_SLOWEST = 8
_PER_CHECK = 8
# More points than this cannot be told apart on any screen.
_POINTS = 120
_MOST_STAGES = 40
_NAMED = 6
# Rows of the table of what was left out that are looked through for names.
_LOOKED_THROUGH = 200_000


@dataclass(frozen=True)
class Facts:
    """A run's own records, and what the page makes of them.

    Attributes:
        ceiling: Images per second that the machine can do; 0: not known.
    """

    run: RunFolder
    description: RunDescription
    certificate: Certificate
    timeline: list[StageRecord]
    predictions: Overview
    sample: pa.Table
    findings: list[Row]
    drift: dict[str, Any] | None
    summary: RunSummary
    ceiling: float

    @cached_property
    def failures(self) -> list[Row]:
        """The first failures of each reason, at most 24 in all: `image_id`, `stage`, `reason`, `detail`."""
        text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(("image_id", "detail"), pa.string()))
        parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
        try:
            data = self.run.read(FAILURES_CSV)
            table = pyarrow.csv.read_csv(pa.BufferReader(data), parse_options=parsing, convert_options=text)
            reasons = Counter(table["reason"].to_pylist())
        except (FileNotFoundError, pa.ArrowInvalid, KeyError) as error:
            raise NotProvenError(f"{FAILURES_CSV} is not what postprocess wrote: {error}") from error
        each = max(1, _SHOWN // max(len(reasons), 1))
        taken: Counter[str] = Counter()
        chosen: list[int] = []
        for at, reason in enumerate(table["reason"].to_pylist()):
            if taken[reason] < each and len(chosen) < _SHOWN:
                taken[reason] += 1
                chosen.append(at)
        rows: list[Row] = table.take(pa.array(chosen, pa.int64())).to_pylist()
        return rows

    @cached_property
    def left_out(self) -> list[Row]:
        """What was left out, by reason, most first: `says`, `count`, `suffixes` (words), `names` (a few)."""
        counts = self.certificate.left_out
        names: dict[str, list[str]] = {reason: [] for reason in counts}
        if counts:
            with self.run.reading(LEFT_OUT_CSV) as stream:
                lines = (line.decode() for line in itertools.islice(stream, 1, _LOOKED_THROUGH))
                for name, reason, _ in csv.reader(lines):
                    if len(names[reason]) < _NAMED:
                        names[reason].append(name)
        rows = [
            {
                "says": reason.replace("_", " "),
                "count": sum(suffixes.values()),
                "suffixes": ", ".join(
                    f"{files:,} {suffix_words(suffix)}" for suffix, files in suffixes.items()
                ),
                "names": names[reason],
            }
            for reason, suffixes in counts.items()
        ]
        return sorted(rows, key=lambda row: -row["count"])

    @cached_property
    def several(self) -> Row | None:
        """Files with several pages: `files`, their `pages`, the `page` seen, 0 for all; None: no such."""
        files = pages = 0
        with open_listing(self.run) as listing:
            for manifest in listing.manifests():
                if "frames" not in manifest.column_names:  # a run begun before there was the column
                    continue
                if self.description.paged:
                    counted = manifest.filter(pc.greater(manifest["pages"], 1))
                    pages += counted.num_rows
                    files += counted.filter(pc.equal(counted["page"], 1)).num_rows
                    continue
                many = manifest.filter(pc.greater(manifest["frames"], 1))["frames"]
                files, pages = files + len(many), pages + (pc.sum(many).as_py() or 0)
        page = 0 if self.description.paged else self.description.model.seen.page
        return {"files": files, "pages": pages, "page": page} if files else None

    @cached_property
    def slowest(self) -> list[Row]:
        """Images of the sample that took longest to decode."""
        table = self.sample.drop_columns(["layout", "hash"]).sort_by([("decode_ms", "descending")])
        rows: list[Row] = [row for row in table.slice(0, _SLOWEST).to_pylist() if row["decode_ms"]]
        return rows

    @cached_property
    def checks(self) -> list[Row]:
        """Every image check: `name`, `says`, `count`, `rows` (some findings; twins side by side)."""
        return [
            {
                "name": check.value.replace("_", " "),
                "says": SAYS[check],
                "count": sum(row["check"] == check.value for row in self.findings),
                "rows": _shown([row for row in self.findings if row["check"] == check.value]),
            }
            for check in Check
        ]

    def stages(self) -> list[Row]:
        """Return the bars of the timeline, in per cent: `name`, `left`, `width`, `seconds`, `outcome`.

        Idle time between stages is cut to a twentieth of the whole, so that a retry after an hour does not
        make all the stages invisible.
        """
        records = self.timeline[-_MOST_STAGES:]
        busy = sum(record.seconds for record in records) or 1.0
        most_idle = busy / 20
        rows: list[Row] = []
        now: float | None = None
        offset = 0.0
        for record in records:
            begun = record.started.timestamp()
            if now is None:
                offset = begun
            elif begun - now > most_idle:
                offset += begun - now - most_idle
            now = max(now or begun, begun + record.seconds)
            rows.append(
                {
                    "name": record.stage,
                    "at": begun - offset,
                    "seconds": record.seconds,
                    "cpu": record.cpu_seconds,
                    "outcome": record.outcome,
                    "images": record.images,
                    "started": f"{record.started:%H:%M:%S}",
                }
            )
        whole = max((row["at"] + row["seconds"] for row in rows), default=1.0)
        for row in rows:
            row["left"] = round(row["at"] / whole * 100, 2)
            row["width"] = max(0.4, round(row["seconds"] / whole * 100, 2))
        return rows

    def throughput(self) -> Row | None:
        """Return images per second over the time of scoring, as points of a chart; None: not recorded."""
        records = [one for one in self.timeline if one.stage.startswith("score") and one.images]
        if not records:
            return None
        start = min(record.started.timestamp() for record in records)
        end = max(record.started.timestamp() + record.seconds for record in records)
        width = max(1.0, *(record.bucket_seconds for record in records), (end - start) / _POINTS)
        buckets = [0.0] * max(1, math.ceil((end - start) / width))
        for record in records:
            offset = record.started.timestamp() - start
            for at, images in enumerate(spread(record.series)):
                bucket = int((offset + at * record.bucket_seconds) / width)
                buckets[min(bucket, len(buckets) - 1)] += images
        seconds = [min(width, (end - start) - at * width) or width for at in range(len(buckets))]
        rates = _smoothed([count / span for count, span in zip(buckets, seconds, strict=True)])
        highest = max(*rates, self._ceiling or 0.0) * 1.08 or 1.0
        return {
            "rates": rates,
            "highest": highest,
            "seconds": end - start,
            "mean": self.summary.images_per_second,
            "ceiling": self._ceiling,
            "ceiling_at": 100 - (self._ceiling or 0) / highest * 100,
            "points": _points(rates, highest),
        }

    @cached_property
    def _ceiling(self) -> float | None:
        """The ceiling that the settings give, else the one that `--bench` has measured after scoring."""
        if self.ceiling:
            return self.ceiling
        for path in self.run.list("telemetry"):
            if path.startswith("telemetry/bench-"):
                with contextlib.suppress(ValueError, FileNotFoundError):
                    rates = json.loads(self.run.read(path)).get("images_per_second", {})
                    known = [rates[name] for name in ("in_process", "in-process", "server") if name in rates]
                    if known:
                        return float(known[0])
        return None

    def classes(self) -> list[Row]:
        """Return each class's share, now and in the baseline if there is one: at most 12, others together."""
        now = Counter(self.predictions.classes)
        before = Counter(self.drift["baseline"].get("classes", {})) if self.drift else Counter()
        predicted = self.drift["baseline"].get("predictions", 0) if self.drift else 0
        wholes = [
            self.predictions.share_of(classes, rows)
            for classes, rows in ((now, self.predictions.rows), (before, predicted))
        ]
        shown = [label for label, _ in now.most_common(12)]
        rows: list[Row] = [{"label": label, "now": now[label], "before": before[label]} for label in shown]
        if len(now) > len(shown):
            rest = {"now": now.total() - sum(row["now"] for row in rows)}
            rest["before"] = before.total() - sum(row["before"] for row in rows)
            rows.append({"label": f"{len(now) - len(shown)} others", **rest})
        for row in rows:
            row["share"] = row["now"] / max(wholes[0], 1) * 100
            row["share_before"] = row["before"] / wholes[1] * 100 if wholes[1] else None
        return rows

    def expectations(self) -> list[Row]:
        """Return Great Expectations' results by suite: `suite`, `total`, `failed` (their sentences)."""
        rows = []
        for suite in ("manifest", "predictions"):
            try:
                results = json.loads(self.run.read(quality_path(suite)))
                for name, found in results.items():
                    outcomes = [outcome for result in found for outcome in result["results"]]
                    failed = [_expectation(outcome) for outcome in outcomes if not outcome["success"]]
                    rows.append({"suite": name, "total": len(outcomes), "failed": failed})
            except (FileNotFoundError, ValueError, AttributeError, KeyError, TypeError):
                continue  # not checked, or not what the check wrote
        return rows

    def trouble(self) -> Counter[str]:
        """Add up what all attempts at scoring counted: faults by kind, retries, seconds waited.

        What no attempt counted is 0: a run without an outage has no `outage_seconds` in its files.
        """
        counts: Counter[str] = Counter()
        for path in self.run.list("telemetry"):
            if path.startswith("telemetry/score-"):
                with contextlib.suppress(ValueError, FileNotFoundError, AttributeError):
                    found = json.loads(self.run.read(path))
                    counts.update({name: n for name, n in found.items() if isinstance(n, int | float)})
        return counts


def _expectation(outcome: dict[str, Any]) -> str:
    config = outcome["expectation_config"]
    column = config["kwargs"].get("column", "")
    seen = outcome.get("result", {}).get("unexpected_count")
    return f"{config['type']} {column}".strip() + (f": {seen} unexpected" if seen is not None else "")


def _shown(found: list[Row]) -> list[Row]:
    rows: list[Row] = []
    for row in found:
        rows += [{"image_id": row["twin"], "detail": "the earlier one"}, row] if "twin" in row else [row]
    return rows[:_PER_CHECK]


def spread(series: list[int]) -> list[float]:
    """Return images by bucket of time, spread evenly.

    Progress is recorded when a part of 256 images is written, so those images are spread evenly over the time
    since the part before.
    """
    even: list[float] = []
    for images in series:
        even.append(0.0)
        if images:
            since = next((at for at in range(len(even) - 1, 0, -1) if even[at - 1]), 0)
            even[since:] = [images / (len(even) - since)] * (len(even) - since)
    return even


def _smoothed(rates: list[float]) -> list[float]:
    reach = 0 if len(rates) < 6 else 1 if len(rates) < 40 else 2  # noqa: PLR2004 (points on each side)
    windows = (rates[max(0, at - reach) : at + reach + 1] for at in range(len(rates)))
    return [sum(window) / len(window) for window in windows]


def _points(rates: list[float], highest: float) -> str:
    """Return the points of an SVG line in a box of 100 x 100."""
    last = max(len(rates) - 1, 1)
    steady = rates if len(rates) > 1 else rates * 2
    return " ".join(
        f"{at / last * 100:.2f},{100 - rate / highest * 100:.2f}" for at, rate in enumerate(steady)
    )
