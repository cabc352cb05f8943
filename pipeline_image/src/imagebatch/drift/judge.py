"""Compares a run with the baseline: every test, corrected for how many there are, and what it means."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imagebatch.contracts.records import ModelPin
from imagebatch.drift import two_sample
from imagebatch.drift.accuracy import estimate
from imagebatch.drift.baseline import Baseline
from imagebatch.drift.observations import OBSERVATION_SCHEMA
from imagebatch.heads import head_of
from imagebatch.heads.base import DriftTests
from imagebatch.heads.softmax import Softmax

Floats = npt.NDArray[np.float64]

# Fewer images than this say nothing.
LEAST_IMAGES = 30


@dataclass(frozen=True, slots=True)
class Compared:
    """One test: `effect` from 0 to 1; `before` and `now` are means, or texts for mixes."""

    name: str
    p: float
    effect: float
    before: float | str
    now: float | str


# What images look like, whatever is asked of them.
_NUMBERS: dict[str, Callable[[pa.Table], Floats]] = {
    "brightness": lambda table: _column(table, "brightness"),
    "contrast": lambda table: _column(table, "contrast"),
    "sharpness": lambda table: _column(table, "sharpness"),
    "saturation": lambda table: _column(table, "saturation"),
    "bytes per pixel": lambda table: _column(table, "size") / _pixels(table),
    "megapixels": lambda table: _pixels(table) / 1e6,
}
_MIXES = {"format mix": "format"}
_EMBEDDING = OBSERVATION_SCHEMA.field("embedding")
_VECTORS = {"layout": "layout", "embeddings": "embedding"}


def compare(
    before: pa.Table, now: pa.Table, seed: int, answers: DriftTests = Softmax.drift
) -> list[Compared]:
    """Make all tests between two tables of OBSERVATION_SCHEMA; the p-values are not yet corrected.

    Args:
        before: The baseline's.
        now: The run's.
        seed: Of the permutations.
        answers: What is compared of the answers.
    """
    found = []
    for name, column in (answers.mixes | _MIXES).items():
        texts = [table[column].to_pylist() for table in (before, now)]
        p, effect = two_sample.categories(*texts)
        found.append(Compared(name, p, effect, _mix(texts[0]), _mix(texts[1])))
    numbers = {name: partial(_column, name=column) for name, column in answers.numbers.items()}
    for name, values in (numbers | _NUMBERS).items():
        pair = values(before), values(now)
        p, effect = two_sample.numbers(*pair)
        found.append(Compared(name, p, effect, *(round(float(each.mean()), 4) for each in pair)))
    for name, column in (answers.vectors | _VECTORS).items():
        first, second = (_rows(table, column) for table in (before, now))
        if min(len(first), len(second)) >= LEAST_IMAGES:
            p, effect = two_sample.vectors(first, second, seed)
            found.append(Compared(name, p, effect, "", ""))
    return found


def judge(baseline: Baseline, now: pa.Table, *, run_id: str, model: ModelPin, alpha: float) -> dict[str, Any]:
    """Compare a run with its baseline and return the content of quality/drift.json.

    Args:
        baseline: To compare with.
        now: The run's OBSERVATION_SCHEMA.
        run_id: Seeds the permutations.
        model: The run's; estimates need the baseline's own.
        alpha: Probability of any alarm if nothing has drifted.

    Returns:
        `drifting` (null: too few images), `tests` in falling order of certainty, `left_out` (tests that were
        not made, and why), `estimated_accuracy`.
    """
    about = baseline.about
    same_model = model.digest == about.model.digest
    result: dict[str, Any] = {
        "baseline": {"run_id": about.run_id, "model_digest": about.model.digest, "same_model": same_model},
        "alpha": alpha,
        "images": now.num_rows,
        "baseline_images": baseline.observations.num_rows,
        "drifting": None,
        "tests": [],
        "left_out": {},
        "estimated_accuracy": None,
    }
    if min(now.num_rows, baseline.observations.num_rows) < LEAST_IMAGES:
        return result
    seed = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:4], "big")
    if why := _no_embeddings(baseline, now, same_model=same_model):
        result["left_out"] = {"embeddings": why}
        place = now.schema.names.index("embedding")
        now = now.set_column(place, _EMBEDDING, pa.nulls(now.num_rows, _EMBEDDING.type))
    comparable = (model.head, model.quantity) == (about.model.head, about.model.quantity)
    if not comparable:
        result["left_out"]["answers"] = "the baseline is of a model whose numbers mean something else"
    answers = head_of(model, 1).drift if comparable else DriftTests()
    compared = compare(baseline.observations, now, seed, answers)
    adjusted = two_sample.holm([test.p for test in compared])
    tests = [
        asdict(test) | {"adjusted_p": p, "drifting": p <= alpha}
        for test, p in zip(compared, adjusted, strict=True)
    ]
    result["tests"] = sorted(tests, key=lambda test: (test["adjusted_p"], -test["effect"]))
    result["drifting"] = any(test["drifting"] for test in tests)
    if about.calibration and same_model:
        result["estimated_accuracy"] = estimate(about.calibration, _column(now, "confidence"), seed)
    return result


def _no_embeddings(baseline: Baseline, now: pa.Table, *, same_model: bool) -> str:
    """Return why embeddings cannot be compared; empty if they can."""
    if not same_model:
        return "the baseline is of another model, whose embeddings mean something else"
    for whose, table in (("run", now), ("baseline", baseline.observations)):
        found = table.num_rows - table["embedding"].null_count
        if found < LEAST_IMAGES:
            return f"the {whose} has {found}: the model API gives none, or --embeddings asked for too few"
    return ""


def _column(table: pa.Table, name: str) -> Floats:
    values: Floats = table[name].to_numpy().astype(np.float64)
    return values[~np.isnan(values)]


def _pixels(table: pa.Table) -> Floats:
    return _column(table, "width") * _column(table, "height")


def _rows(table: pa.Table, column: str) -> Floats:
    rows = table[column].drop_null()
    return np.array(rows.to_pylist(), np.float64)


def _mix(texts: list[str]) -> str:
    names, counts = np.unique(np.array(texts, str), return_counts=True)
    order = np.argsort(-counts)[:3]
    return ", ".join(f"{names[at]} {counts[at] / max(len(texts), 1):.0%}" for at in order)
