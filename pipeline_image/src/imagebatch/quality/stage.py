"""The stage: loads a suite's rows, validates them, keeps the results, refuses the data if one fails."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagebatch.contracts import RunDescription, allowed_failures, quality_path
from imagebatch.errors import DataRefusedError
from imagebatch.ledger import listed_count, read_description
from imagebatch.log import get_logger
from imagebatch.settings import CheckSettings
from imagebatch.storage.runs import RunFolder, open_run

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


def check(settings: CheckSettings) -> CheckResult:
    """Runs a suite and keeps its results in the run, whether it passes or not.

    Raises:
        DataRefusedError: An expectation does not hold.
        ConfigurationError: The stage before has not finished.
    """
    # Imported here: Great Expectations takes seconds, and the other commands do without it.
    from imagebatch.quality import validation  # noqa: PLC0415

    run = open_run(settings.runs_uri, settings.run_id)
    description = read_description(run)
    build = _manifest_suites if settings.suite == "manifest" else _prediction_suites
    with tempfile.TemporaryDirectory(prefix="imagebatch-quality-") as folder:
        results = validation.validate(build(run, description), Path(folder))
        run.publish_folder(f"quality/docs/{settings.suite}", Path(folder))
    path = quality_path(settings.suite)
    run.write(path, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    return _judge(settings.suite, results, f"{run.uri}/{path}")


def _manifest_suites(run: RunFolder, description: RunDescription) -> list[Any]:
    from imagebatch.quality import frames, suites, validation  # noqa: PLC0415

    listed = listed_count(run)
    expectations = suites.manifest_suite(
        description, listed, allowed_failures(description.max_failures, listed)
    )
    return [validation.Suite("manifest", frames.manifest_frame(run), expectations)]


def _prediction_suites(run: RunFolder, description: RunDescription) -> list[Any]:
    from imagebatch.quality import frames, suites, validation  # noqa: PLC0415

    manifest, scores = frames.manifest_frame(run), frames.scores_frame(run, description.top_k)
    rejected = int(manifest["without_result"].sum())
    allowed = allowed_failures(description.max_failures, len(manifest)) - rejected
    expectations = suites.predictions_suite(description, len(manifest) - rejected, max(0, allowed))
    built = [validation.Suite("predictions", scores, expectations)]
    if int(scores["label_1"].notna().sum()) >= _ENOUGH_FOR_SHARES:
        shares = suites.shares_suite(description.model.labels, description.max_class_share)
        built.append(validation.Suite("class_shares", frames.class_shares(scores), shares))
    return built


def _judge(suite: str, results: dict[str, Any], report: str) -> CheckResult:
    outcomes = [outcome for result in results.values() for outcome in result["results"]]
    failed = [_sentence(outcome) for outcome in outcomes if not outcome["success"]]
    log.info("suite checked", suite=suite, expectations=len(outcomes), failed=len(failed))
    if failed:
        raise DataRefusedError(
            f"{suite}: {len(failed)} of {len(outcomes)} expectations failed:"
            f" {'; '.join(failed[:3])}; see {report}"
        )
    return CheckResult(suite, len(outcomes), 0, report)


def _sentence(outcome: dict[str, Any]) -> str:
    """One failed expectation in a few words: what was expected of which column, and what was seen."""
    config = outcome["expectation_config"]
    wanted = {key: value for key, value in config["kwargs"].items() if key != "batch_id"}
    seen = {
        key: outcome["result"][key]
        for key in ("observed_value", "unexpected_count", "partial_unexpected_list")
        if key in outcome.get("result", {})
    }
    return f"{config['type']} {wanted} saw {seen or outcome.get('exception_info')}"
