"""The two suites as code: what must hold of a manifest, and of predictions."""

from __future__ import annotations

from collections.abc import Sequence

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation

from imagebatch.contracts import Reason, RunDescription

# float32 probabilities of a softmax may add up to a little more than 1.
_SUM_TOLERANCE = 1e-4


def rows_suite(rows: int, allowed: int) -> list[Expectation]:
    """What holds of any table with one row per image.

    Args:
        rows: Rows that there must be: the counts reconcile.
        allowed: Rows that may carry a reason instead of a result.
    """
    return [
        gxe.ExpectTableRowCountToEqual(value=rows),
        gxe.ExpectColumnValuesToNotBeNull(column="image_id"),
        gxe.ExpectColumnValuesToBeUnique(column="image_id"),
        gxe.ExpectColumnValuesToMatchRegex(column="sha256", regex=r"^[0-9a-f]{64}$"),
        gxe.ExpectColumnValuesToBeInSet(column="reason", value_set=[reason.value for reason in Reason]),
        gxe.ExpectColumnSumToBeBetween(column="without_result", min_value=0, max_value=allowed),
        # A row has a result or a reason, never both and never neither.
        gxe.ExpectColumnValuesToBeInSet(column="complete", value_set=[True]),
    ]


def manifest_suite(description: RunDescription, rows: int, allowed: int) -> list[Expectation]:
    """What must hold of a manifest before the model is asked."""
    return [
        *rows_suite(rows, allowed),
        gxe.ExpectColumnValuesToNotBeNull(column="uri"),
        gxe.ExpectColumnValuesToBeBetween(column="size", min_value=0, max_value=description.max_image_bytes),
        gxe.ExpectColumnValuesToBeBetween(column="width", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="height", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(
            column="pixels", min_value=1, max_value=description.max_image_pixels
        ),
    ]


def predictions_suite(description: RunDescription, rows: int, allowed: int) -> list[Expectation]:
    """What must hold of predictions before they are handed over."""
    ranks = range(1, description.top_k + 1)
    return [
        *rows_suite(rows, allowed),
        gxe.ExpectColumnValuesToBeInSet(column="model_digest", value_set=[description.model.digest]),
        *(
            gxe.ExpectColumnValuesToBeInSet(column=f"label_{k}", value_set=description.model.labels)
            for k in ranks
        ),
        *(
            gxe.ExpectColumnValuesToBeBetween(column=f"probability_{k}", min_value=0, max_value=1)
            for k in ranks
        ),
        *(
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A=f"probability_{k}",
                column_B=f"probability_{k + 1}",
                or_equal=True,
                ignore_row_if="either_value_is_missing",
            )
            for k in ranks[:-1]
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="probability_sum", min_value=0, max_value=1 + _SUM_TOLERANCE
        ),
    ]


def shares_suite(labels: Sequence[str], max_share: float) -> list[Expectation]:
    """What must hold of the share of each class: one class for all images means a broken model or input."""
    return [
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(labels)),
        gxe.ExpectColumnValuesToBeBetween(column="share", min_value=0, max_value=max_share),
    ]
