"""One run in figures: what history lists, trends look at, and MLflow keeps.

Kept beside the runs (`_history/<run-id>.json`), so that it stays when the run itself is pruned.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from imagebatch.contracts.layout import HISTORY, TRENDS
from imagebatch.log import get_logger
from imagebatch.runs.folder import RunFolder, open_run

log = get_logger()


class RunSummary(BaseModel):
    """Figures of one finished run; None: not known.

    Attributes:
        run_id: The run.
        pipeline: The pipeline that it is one of.
        started: Begin of its first stage, in UTC; of the certificate if no stage was recorded.
        model: Name, version and digest.
        listed: Number of images; `predicted`, `failed` and `rejected` count images too.
        reasons: Images without a prediction, by reason.
        left_out: Files of the input that were not listed.
        seconds: Wall clock of all stages, pauses between them left out.
        cpu_seconds: CPU time of the stages' processes, without the model server's.
        images_per_second: While scoring.
        classes: Predictions by label.
        confidence: Mean of the largest probability.
        entropy: Mean, in nats.
        unsure: Share of predictions with a confidence below one half.
        review: Predictions marked for a person; None: the run marks none.
        labels_per_image: Mean, of a multilabel head.
        unlabelled: Share of its predictions without a label.
        score_mean: Mean score of a regression, in its unit; so are `score_least`, `score_low` (5th
            percentile), `score_median`, `score_high` (95th) and `score_most`.
        brightness: Mean of the sample, 0 to 1; so is `sharpness`, in its own unit.
        suspect: Images of the sample with a finding that counts.
        looked_at: Images of the sample.
        drifting: What the drift tests say.
        drift: Largest effect of all drift tests, 0 to 1.
        estimated_accuracy: Without labels.
        accuracy: Measured on a random sample that people have labelled; its 95 % interval is from
            `accuracy_low` to `accuracy_high`.
        accuracy_labelled: Images of that sample with a label; `accuracy_right` of them are right.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: str
    pipeline: str
    started: datetime
    model: str
    listed: int
    predicted: int
    failed: int
    rejected: int
    reasons: dict[str, int]
    left_out: int = 0
    seconds: float | None = None
    cpu_seconds: float | None = None
    images_per_second: float | None = None
    classes: dict[str, int]
    confidence: float | None = None
    entropy: float | None = None
    unsure: float | None = None
    review: int | None = None
    labels_per_image: float | None = None
    unlabelled: float | None = None
    score_mean: float | None = None
    score_least: float | None = None
    score_low: float | None = None
    score_median: float | None = None
    score_high: float | None = None
    score_most: float | None = None
    brightness: float | None = None
    sharpness: float | None = None
    suspect: int = 0
    looked_at: int = 0
    drifting: bool | None = None
    drift: float | None = None
    estimated_accuracy: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    accuracy_labelled: int | None = None
    accuracy_right: int | None = None

    @property
    def failure_share(self) -> float:
        """Share of the listed images without a prediction."""
        return (self.failed + self.rejected) / self.listed if self.listed else 0.0

    @property
    def review_share(self) -> float | None:
        """Share of the predictions that are marked for a person; None: the run marks none."""
        return None if self.review is None or not self.predicted else self.review / self.predicted

    def share(self, label: str) -> float:
        """Return the share of one class among the predictions."""
        return self.classes.get(label, 0) / self.predicted if self.predicted else 0.0


def stands_aside(pipeline: str) -> bool:
    """Tell whether runs of a pipeline are trials or past nights of another, as the DAGs name them."""
    return pipeline.endswith((".trial", ".past"))


def keep_summary(runs_uri: str, summary: RunSummary) -> None:
    """Write the figures beside the runs."""
    folder = open_run(runs_uri, HISTORY)
    folder.write(f"{summary.run_id}.json", (summary.model_dump_json(indent=1) + "\n").encode())


def read_history(runs_uri: str, last: int = 0, model: str = "", pipeline: str = "") -> list[RunSummary]:
    """Read the runs' figures, oldest first.

    Args:
        runs_uri: Where runs are kept.
        last: Most runs to return, the newest; 0: all.
        model: Only runs of the model of this name; empty: all.
        pipeline: Only runs of this pipeline; empty: all.
    """
    known = [
        one
        for one in _all(open_run(runs_uri, HISTORY))
        if (not model or one.model.split()[0] == model) and (not pipeline or one.pipeline == pipeline)
    ]
    return sorted(known, key=lambda one: one.started)[-last:]


def read_summary(runs_uri: str, run_id: str) -> RunSummary | None:
    """Read the figures of one run; None: it has none."""
    try:
        return RunSummary.model_validate_json(open_run(runs_uri, HISTORY).read(f"{run_id}.json"))
    except (FileNotFoundError, ValidationError):
        return None


def _all(folder: RunFolder) -> Iterator[RunSummary]:
    for path in folder.list(""):
        if path.endswith(".json") and path != TRENDS:
            try:
                yield RunSummary.model_validate_json(folder.read(path))
            except ValidationError as error:
                log.warning("a run's figures are left out", path=path, errors=error.error_count())
