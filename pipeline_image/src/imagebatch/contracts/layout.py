"""File names of a run, and of what stands beside the runs (docs/reference/run-layout.md; tests pin them)."""

from __future__ import annotations

RUN_JSON = "run.json"
LISTING = "listing.parquet"
PLAN = "manifest/_DONE.json"
PREDICTIONS_CSV = "output/predictions.csv"
PREDICTIONS_PARQUET = "output/predictions.parquet"
FAILURES_CSV = "output/failures.csv"
LEFT_OUT_CSV = "output/left_out.csv"
CERTIFICATE = "output/certificate.json"
REPORT = "output/report.html"
IMAGE_SAMPLE = "quality/images.parquet"
DRIFT = "quality/drift.json"
EMBEDDINGS = "quality/embeddings.parquet"
STAGES = "telemetry/stages"
ERRORS = "telemetry/errors"
SUCCESS = "_SUCCESS"

# Beside the runs, not a run's name: what stays of a run when it is pruned.
HISTORY = "_history"
HISTORY_PAGE = "history.html"
TRENDS = "_trends.json"  # no run's name either
LABELS = "_labels"  # what people said about a run's images: their work stays, too


def labels_path(run_id: str) -> str:
    """Return the path, below LABELS, of the labels that people gave to a run's images."""
    return f"{run_id}.csv"


def review_path(run_id: str) -> str:
    """Return the path, below LABELS, of what was handed out of a run and what came back."""
    return f"{run_id}.json"


def manifest_path(shard: int) -> str:
    """Return the path of a shard's manifest inside the run."""
    return f"manifest/shard-{shard:05d}.parquet"


def rejects_path(shard: int) -> str:
    """Return the path of a shard's rejects inside the run."""
    return f"rejects/shard-{shard:05d}.parquet"


def left_out_path(attempt: str) -> str:
    """Return the path of the names that an attempt at listing left out; the listing says which one counts."""
    return f"left_out/names-{attempt}.csv"


def scores_folder(shard: int) -> str:
    """Return the folder of a shard's score parts inside the run."""
    return f"scores/shard-{shard:05d}"


def done_path(shard: int) -> str:
    """Return the path of the file that says which of a shard's score parts count."""
    return f"{scores_folder(shard)}/_DONE.json"


def redrive_folder(number: int) -> str:
    """Return the folder of a redrive inside the run."""
    return f"redrives/{number:05d}"


def redrive_done_path(number: int) -> str:
    """Return the path of the file that makes a redrive count."""
    return f"{redrive_folder(number)}/_DONE.json"


def telemetry_path(shard: int, attempt: int) -> str:
    """Return the path of what an attempt at a shard counted."""
    return f"telemetry/score-shard-{shard:05d}-attempt-{attempt:05d}.json"


def quality_path(suite: str) -> str:
    """Return the path of a suite's JSON result inside the run."""
    return f"quality/{suite}.json"
