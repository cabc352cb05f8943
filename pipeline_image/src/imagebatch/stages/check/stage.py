"""The stage: load a suite's rows, validate them, keep the results, refuse the data if one fails."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebatch.contracts.allowance import allowed_failures
from imagebatch.contracts.layout import quality_path
from imagebatch.contracts.records import Plan, RunDescription
from imagebatch.errors import DataRefusedError, one_line
from imagebatch.heads import head_of
from imagebatch.heads.base import Head
from imagebatch.log import get_logger
from imagebatch.observe.stage import observed
from imagebatch.runs.description import read_description, read_plan
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.runs.unfinished import write_failures_so_far
from imagebatch.settings import CheckSettings
from imagebatch.stages.check.images import check_images
from imagebatch.stages.check.words import Refusals, sentence

if TYPE_CHECKING:
    from imagebatch.stages.check.frames import Totals
    from imagebatch.stages.check.validation import Validator

log = get_logger()

# By suite and column, how to say in plain words that an expectation failed.
Words = dict[tuple[str, str], Callable[[], str]]

# Below this many predictions a class's share says nothing about the model.
_ENOUGH_FOR_SHARES = 100


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How a suite ended; `result` is the path of the full report in the run."""

    suite: str
    expectations: int
    failed_expectations: int
    result: str


def _title(settings: CheckSettings) -> str:
    return f"check {settings.suite}"


@observed("check", title=_title)
def check(settings: CheckSettings) -> CheckResult:
    """Run a suite and keep its results in the run, whether it passes or not.

    Raises:
        DataRefusedError: An expectation does not hold, or too many images are suspect.
        ConfigurationError: The stage before has not finished.
    """
    if settings.suite == "images":
        run = open_run(settings.runs_uri, settings.run_id)
        checks, path = check_images(run, read_description(run), settings)
        return CheckResult(settings.suite, checks, 0, path)
    # Imported here: Great Expectations takes seconds, and the other commands do without it.
    from imagebatch.stages.check.validation import Validator  # noqa: PLC0415 (Great Expectations takes seconds to import)

    run = open_run(settings.runs_uri, settings.run_id)
    description, plan = read_description(run), read_plan(run)
    validate = _validate_manifest if settings.suite == "manifest" else _validate_predictions
    with tempfile.TemporaryDirectory(prefix="imagebatch-quality-") as folder:
        validator = Validator(Path(folder))
        words = validate(validator, run, description, plan)
        validator.write_docs()
        run.publish_folder(f"quality/docs/{settings.suite}", Path(folder))
    path = quality_path(settings.suite)
    run.write(path, (json.dumps(validator.results, indent=1, sort_keys=True) + "\n").encode())
    return _judge(run, settings.suite, validator.results, words)


def _validate_manifest(
    validator: Validator, run: RunFolder, description: RunDescription, plan: Plan
) -> Words:
    from imagebatch.stages.check import frames, suites, validation  # noqa: PLC0415 (Great Expectations takes seconds to import)

    totals = frames.Totals()
    rows = validation.Suite("manifest", suites.manifest_suite(description))
    validator.validate(rows, frames.manifest_frames(run, totals))
    allowed = allowed_failures(description.max_failures, plan.listed)
    whole = validation.Suite("manifest totals", suites.totals_suite(plan.listed, allowed))
    validator.validate(whole, [totals.frame()])
    refused = (
        f"{totals.without_result} of {plan.listed} images were refused, {allowed} are allowed"
        f" (--max-failures {description.max_failures})"
    )
    return {("manifest totals", "without_result"): lambda: _refused(refused, totals.refusals, description)}


def _validate_predictions(
    validator: Validator, run: RunFolder, description: RunDescription, plan: Plan
) -> Words:
    from imagebatch.stages.check import frames, suites, validation  # noqa: PLC0415 (Great Expectations takes seconds to import)

    head = head_of(description.model, description.top_k)
    totals = frames.Totals(head.shares.column)
    rows = validation.Suite("predictions", suites.predictions_suite(description))
    validator.validate(rows, frames.scores_frames(run, head, totals, description.review_below))
    allowed = allowed_failures(description.max_failures, plan.listed)
    whole = validation.Suite(
        "prediction totals", suites.totals_suite(plan.accepted, max(0, allowed - plan.rejected))
    )
    validator.validate(whole, [totals.frame()])
    if totals.answered >= _ENOUGH_FOR_SHARES:
        shares = suites.shares_suite(head, description.max_class_share)
        validator.validate(validation.Suite("class shares", shares), [totals.shares()])
    failed = (
        f"{totals.without_result} of {plan.accepted} images failed and {plan.rejected} were refused before,"
        f" {allowed} are allowed together (--max-failures {description.max_failures})"
    )
    return {
        ("prediction totals", "without_result"): lambda: _refused(failed, totals.refusals, description),
        ("class shares", "share"): lambda: _one_answer(totals, head, description.max_class_share),
    }


def _refused(text: str, refusals: Refusals, description: RunDescription) -> str:
    roots = description.allowed_roots or description.input or description.manifest.rpartition("/")[0]
    return (
        f"{text}: {refusals.by_reason()}; such as {refusals.some()}; to do: {refusals.remedy(roots)},"
        " or allow more with --max-failures"
    )


def _one_answer(totals: Totals, head: Head, most: float) -> str:
    ((text, images),) = totals.answers.most_common(1)
    total = totals.answered
    return (
        f"{images} of {total} predictions ({images / total:.2%}) {head.alike(one_line(text, 60))}, at most"
        f" {most:.2%} may be {head.shares.alike} (--max-class-share {most:g}): look at some of them. If that"
        " is right, start a new run with a higher --max-class-share; with --cache nothing is asked twice"
    )


def _judge(run: RunFolder, suite: str, results: dict[str, list[dict[str, Any]]], words: Words) -> CheckResult:
    report = f"{run.uri}/{quality_path(suite)}"
    outcomes = [
        (name, outcome)
        for name, found in results.items()
        for result in found
        for outcome in result["results"]
    ]
    failed = [_said(name, outcome, words) for name, outcome in outcomes if not outcome["success"]]
    log.info("suite checked", suite=suite, expectations=len(outcomes), failed=len(failed))
    if failed:
        known = {text for text, plain in failed if plain}
        others = [text for text, plain in failed if not plain]
        more = f"; {len(failed) - len(known)} of {len(outcomes)} expectations failed" if others else ""
        said = "; ".join([*sorted(known), *others[: 3 - len(known)]])
        raise DataRefusedError(
            f"{suite}: {said}{more}; failures: {write_failures_so_far(run)}; report: {report}"
        )
    return CheckResult(suite, len(outcomes), 0, report)


def _said(name: str, outcome: dict[str, Any], words: Words) -> tuple[str, bool]:
    """Say how an expectation failed, and whether that is in plain words."""
    known = words.get((name, outcome["expectation_config"]["kwargs"].get("column", "")))
    return (known(), True) if known else (sentence(outcome), False)
