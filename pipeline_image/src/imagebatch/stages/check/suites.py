"""The two suites as code: what must be true of a manifest, and of predictions."""

from __future__ import annotations

from collections.abc import Sequence

from imagebatch.contracts.records import Reason, RunDescription
from imagebatch.stages.check.gx import Expectation, gxe

# float32 probabilities of a softmax may add up to a little more than 1.
_SUM_TOLERANCE = 1e-4


def _each_row() -> list[Expectation]:
    """Return what must be true of any table with one row per image."""
    return [
        gxe.ExpectColumnValuesToNotBeNull(column="image_id"),
        gxe.ExpectColumnValuesToBeUnique(column="image_id"),
        gxe.ExpectColumnValuesToMatchRegex(column="sha256", regex=r"^[0-9a-f]{64}$"),
        gxe.ExpectColumnValuesToBeInSet(column="reason", value_set=[reason.value for reason in Reason]),
        # A row has a result or a reason, never both and never neither.
        gxe.ExpectColumnValuesToBeInSet(column="complete", value_set=[True]),
    ]


def manifest_suite(description: RunDescription) -> list[Expectation]:
    """Return what must be true of manifest rows before the model is asked."""
    return [
        *_each_row(),
        gxe.ExpectColumnValuesToNotBeNull(column="uri"),
        gxe.ExpectColumnValuesToBeBetween(column="size", min_value=0, max_value=description.max_image_bytes),
        gxe.ExpectColumnValuesToBeBetween(column="width", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="height", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(
            column="pixels", min_value=1, max_value=description.max_image_pixels
        ),
    ]


def predictions_suite(description: RunDescription) -> list[Expectation]:
    """Return what must be true of score rows before they are handed over."""
    ranks = range(1, description.top_k + 1)
    pairs = [(f"probability_{k}", f"probability_{k + 1}") for k in ranks[:-1]]
    return [
        *_each_row(),
        gxe.ExpectColumnValuesToBeInSet(column="model_digest", value_set=[description.model.digest]),
        *(_known_label(f"label_{k}", description.model.labels) for k in ranks),
        *(_in_range(f"probability_{k}", 1) for k in ranks),
        *(_not_rising(higher, lower) for higher, lower in pairs),
        _in_range("probability_sum", 1 + _SUM_TOLERANCE),
    ]


def totals_suite(rows: int, allowed: int) -> list[Expectation]:
    """Return what must be true of all rows together: as many as the stage before gave, few of them failed.

    Args:
        rows: Rows that there must be.
        allowed: Rows that may carry a reason instead of a result.
    """
    return [
        gxe.ExpectColumnValuesToBeInSet(column="rows", value_set=[rows]),
        gxe.ExpectColumnValuesToBeBetween(column="without_result", min_value=0, max_value=allowed),
        gxe.ExpectColumnValuesToBeInSet(column="ids_not_rising", value_set=[0]),
    ]


def shares_suite(labels: Sequence[str], max_share: float) -> list[Expectation]:
    """Return what must be true of each class's share: one class for all means a broken model or input."""
    return [
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(labels)),
        gxe.ExpectColumnValuesToBeBetween(column="share", min_value=0, max_value=max_share),
    ]


def _known_label(column: str, labels: Sequence[str]) -> Expectation:
    return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=list(labels))


def _in_range(column: str, highest: float) -> Expectation:
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=0, max_value=highest)


def _not_rising(higher: str, lower: str) -> Expectation:
    return gxe.ExpectColumnPairValuesAToBeGreaterThanB(
        column_A=higher, column_B=lower, or_equal=True, ignore_row_if="either_value_is_missing"
    )
