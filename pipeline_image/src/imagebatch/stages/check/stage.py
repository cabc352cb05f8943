"""The stage: load a suite's rows, validate them, keep the results, refuse the data if one fails."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebatch.contracts.allowance import allowed_failures
from imagebatch.contracts.layout import quality_path
from imagebatch.contracts.records import Plan, RunDescription
from imagebatch.errors import DataRefusedError
from imagebatch.log import get_logger
from imagebatch.observe.stage import observed
from imagebatch.runs.description import read_description, read_plan
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.settings import CheckSettings
from imagebatch.stages.check.images import check_images

if TYPE_CHECKING:
    from imagebatch.stages.check.validation import Validator

log = get_logger()

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
        validate(validator, run, description, plan)
        validator.write_docs()
        run.publish_folder(f"quality/docs/{settings.suite}", Path(folder))
    path = quality_path(settings.suite)
    run.write(path, (json.dumps(validator.results, indent=1, sort_keys=True) + "\n").encode())
    return _judge(settings.suite, validator.results, f"{run.uri}/{path}")


def _validate_manifest(validator: Validator, run: RunFolder, description: RunDescription, plan: Plan) -> None:
    from imagebatch.stages.check import frames, suites, validation  # noqa: PLC0415 (Great Expectations takes seconds to import)

    totals = frames.Totals()
    rows = validation.Suite("manifest", suites.manifest_suite(description))
    validator.validate(rows, frames.manifest_frames(run, totals))
    allowed = allowed_failures(description.max_failures, plan.listed)
    whole = validation.Suite("manifest totals", suites.totals_suite(plan.listed, allowed))
    validator.validate(whole, [totals.frame()])


def _validate_predictions(
    validator: Validator, run: RunFolder, description: RunDescription, plan: Plan
) -> None:
    from imagebatch.stages.check import frames, suites, validation  # noqa: PLC0415 (Great Expectations takes seconds to import)

    totals = frames.Totals()
    rows = validation.Suite("predictions", suites.predictions_suite(description))
    validator.validate(rows, frames.scores_frames(run, description.top_k, totals))
    allowed = max(0, allowed_failures(description.max_failures, plan.listed) - plan.rejected)
    whole = validation.Suite("prediction totals", suites.totals_suite(plan.accepted, allowed))
    validator.validate(whole, [totals.frame()])
    if totals.labels.total() >= _ENOUGH_FOR_SHARES:
        shares = suites.shares_suite(description.model.labels, description.max_class_share)
        validator.validate(validation.Suite("class shares", shares), [totals.shares()])


def _judge(suite: str, results: dict[str, list[dict[str, Any]]], report: str) -> CheckResult:
    outcomes = [outcome for found in results.values() for result in found for outcome in result["results"]]
    failed = [_sentence(outcome) for outcome in outcomes if not outcome["success"]]
    log.info("suite checked", suite=suite, expectations=len(outcomes), failed=len(failed))
    if failed:
        raise DataRefusedError(
            f"{suite}: {len(failed)} of {len(outcomes)} expectations failed:"
            f" {'; '.join(failed[:3])}; see {report}"
        )
    return CheckResult(suite, len(outcomes), 0, report)


def _sentence(outcome: dict[str, Any]) -> str:
    """Say in a few words what was expected of which column, and what was seen."""
    config = outcome["expectation_config"]
    wanted = {key: value for key, value in config["kwargs"].items() if key != "batch_id"}
    seen = {
        key: outcome["result"][key]
        for key in ("observed_value", "unexpected_count", "partial_unexpected_list")
        if key in outcome.get("result", {})
    }
    return f"{config['type']} {wanted} saw {seen or outcome.get('exception_info')}"
