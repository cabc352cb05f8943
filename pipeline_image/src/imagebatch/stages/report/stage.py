"""The stage `report`: look at the sample, judge drift, write the page, store the run's figures.

It comes after the certificate and changes nothing of it. What fails here never makes a finished run fail:
whoever calls it in the chain of stages ignores its exit code, and `imagebatch run` logs it.
"""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from imagebatch.contracts.account import total
from imagebatch.contracts.layout import DRIFT, REPORT, quality_path
from imagebatch.contracts.records import RunDescription
from imagebatch.drift.baseline import as_text, read_baseline
from imagebatch.drift.observations import observe
from imagebatch.errors import ImagebatchError
from imagebatch.heads.base import Overview
from imagebatch.history.mlflow_runs import log_run
from imagebatch.history.summary import RunSummary, keep_summary, read_history
from imagebatch.images.checks import findings, findings_json, suspects
from imagebatch.images.decoders import Decoders
from imagebatch.images.sample import image_sample
from imagebatch.log import get_logger
from imagebatch.observe.stage import observed
from imagebatch.observe.timeline import StageRecord, busy_seconds, read_timeline
from imagebatch.review.record import read_review
from imagebatch.runs.certificate import Certificate, recorded_certificate
from imagebatch.runs.description import read_description
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.settings import ReportSettings
from imagebatch.stages.report.facts import Facts
from imagebatch.stages.report.history_page import write_history
from imagebatch.stages.report.overview import overview
from imagebatch.stages.report.page import compile_templates, report_page

log = get_logger()

_RUNS_OF_HISTORY = 60


@dataclass(frozen=True, slots=True)
class ReportResult:
    """Where the page is, and what it says first."""

    report: str
    bytes: int
    drifting: bool | None
    suspect: int


def load(settings: ReportSettings) -> None:
    """Load and compile what a report will need."""
    compile_templates()
    if settings.baseline:
        importlib.import_module("imagebatch.drift.judge")


@observed("report", shown=False)
def report(settings: ReportSettings, decoders: Decoders | None = None) -> ReportResult:
    """Write report.html and quality/drift.json of a finished run, its figures, and history.html.

    Args:
        settings: Which run, and what to compare it with.
        decoders: What looks at images; started here if there is none yet.

    Raises:
        ConfigurationError: The run has not finished, or the baseline is not one.
        NotProvenError: The run's files are damaged.
        StorageError: Reading the inputs or writing the run failed.
    """
    run = open_run(settings.runs_uri, settings.run_id)
    certificate, description = recorded_certificate(run), read_description(run)
    with nullcontext(decoders) if decoders else Decoders() as looking:
        timeline, predictions = read_timeline(run), overview(run, description)
        sample = image_sample(run, description, settings.image_sample, looking)
        found = findings(sample)
        run.write(quality_path("images"), findings_json(sample.num_rows, found))
        drift = _drift(run, description, sample, settings)
        figures = _sample_figures(sample, found) | _drift_figures(drift) | _labelled_figures(settings)
        summary = _summary(settings.pipeline, certificate, timeline, predictions, figures)
        facts = Facts(
            run=run,
            description=description,
            certificate=certificate,
            timeline=timeline,
            predictions=predictions,
            sample=sample,
            findings=found,
            drift=drift,
            summary=summary,
            ceiling=settings.ceiling,
        )
        page = report_page(facts, looking).encode()
    run.write(REPORT, page)
    keep_summary(settings.runs_uri, summary)
    _history(settings.runs_uri)
    if settings.tracking_uri:
        log_run(settings.tracking_uri, settings.experiment, summary, description, f"{run.uri}/{REPORT}")
    log.info("report written", bytes=len(page), drifting=summary.drifting, suspect=summary.suspect)
    return ReportResult(f"{run.uri}/{REPORT}", len(page), summary.drifting, summary.suspect)


def report_if_possible(settings: ReportSettings, decoders: Decoders | None = None) -> None:
    """Make the report of a proven run; if that fails, log why and return."""
    try:
        report(settings, decoders)
    except Exception as error:  # noqa: BLE001 (nothing of a page is worth a finished run)
        log.warning("the run has no report", error=str(error), kind=type(error).__name__)


def _drift(
    run: RunFolder, description: RunDescription, sample: pa.Table, settings: ReportSettings
) -> dict[str, Any] | None:
    name = description.model.name
    baseline = read_baseline(settings.baseline, name) if settings.baseline else None
    if baseline is None:
        return None
    from imagebatch.drift.judge import judge  # noqa: PLC0415 (SciPy, only where there is something to judge)

    result = judge(
        baseline,
        observe(run, description, sample),
        run_id=description.run_id,
        model=description.model,
        alpha=settings.drift_alpha,
    )
    result["baseline"] |= {"classes": baseline.about.classes, "predictions": baseline.about.predictions}
    run.write(DRIFT, as_text(result))
    if result["drifting"]:
        certain = [test["name"] for test in result["tests"] if test["drifting"]]
        log.warning("the run has drifted from its baseline", tests=", ".join(certain))
    return result


def _history(runs_uri: str) -> None:
    try:
        write_history(runs_uri, read_history(runs_uri, _RUNS_OF_HISTORY))
    except ImagebatchError as error:
        log.warning("history.html is not up to date", error=str(error))


def _summary(
    pipeline: str,
    certificate: Certificate,
    timeline: list[StageRecord],
    predictions: Overview,
    figures: dict[str, Any],
) -> RunSummary:
    scoring = [record for record in timeline if record.stage.startswith("score") and record.images]
    seconds = busy_seconds(scoring)
    scored = sum(record.images for record in scoring if record.outcome == "done")
    model = certificate.model
    return RunSummary(
        run_id=certificate.run_id,
        pipeline=pipeline,
        started=timeline[0].started if timeline else datetime.now(UTC),
        model=f"{model.name} {model.version} {model.digest}",
        **certificate.counts.model_dump(),
        reasons=certificate.reasons,
        left_out=total(certificate.left_out),
        seconds=round(busy_seconds(timeline), 3) if timeline else None,
        cpu_seconds=round(sum(record.cpu_seconds for record in timeline), 3) if timeline else None,
        images_per_second=round(scored / seconds, 2) if seconds and scored else None,
        classes=predictions.classes,
        review=predictions.doubtful,
        **predictions.figures(),
        **figures,
    )


def _sample_figures(sample: pa.Table, found: list[dict[str, Any]]) -> dict[str, Any]:
    means = {name: _mean(sample, name) for name in ("brightness", "sharpness")}
    return {**means, "suspect": suspects(found), "looked_at": sample.num_rows}


def _drift_figures(drift: dict[str, Any] | None) -> dict[str, Any]:
    if drift is None:
        return {}
    return {
        "drifting": drift["drifting"],
        "drift": max((test["effect"] for test in drift["tests"]), default=None),
        "estimated_accuracy": (drift["estimated_accuracy"] or {}).get("accuracy"),
    }


def _labelled_figures(settings: ReportSettings) -> dict[str, float | int]:
    """Return the accuracy that people's labels gave, which a report that is made again must not lose."""
    accuracy = read_review(settings.runs_uri, settings.run_id).accuracy
    return accuracy.figures() if accuracy else {}


def _mean(sample: pa.Table, column: str) -> float | None:
    values = sample[column].drop_null().to_numpy()
    return round(float(np.mean(values)), 4) if len(values) else None
