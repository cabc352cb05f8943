"""The two suites as code: what must be true of a manifest, and of predictions."""

from __future__ import annotations

from imagebatch.contracts.records import Reason, RunDescription
from imagebatch.heads import head_of
from imagebatch.heads.base import Head, Rule
from imagebatch.runs.output_csv import REVIEW
from imagebatch.stages.check.gx import Expectation, gxe


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
    return [
        *_each_row(),
        gxe.ExpectColumnValuesToBeInSet(column="model_digest", value_set=[description.model.digest]),
        *map(_expected, head_of(description.model, description.top_k).rules()),
        *([] if description.review_below is None else [_expected(Rule(REVIEW, within=[True, False]))]),
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


def shares_suite(head: Head, max_share: float) -> list[Expectation]:
    """Return what must be true of each answer's share: one for all means a broken model or input."""
    return [
        *map(_expected, head.share_rules()),
        gxe.ExpectColumnValuesToBeBetween(column="share", min_value=0, max_value=max_share),
    ]


def _expected(rule: Rule) -> Expectation:
    if rule.within is not None:
        return gxe.ExpectColumnValuesToBeInSet(column=rule.column, value_set=list(rule.within))
    if rule.at_most:
        return gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A=rule.at_most,
            column_B=rule.column,
            or_equal=True,
            ignore_row_if="either_value_is_missing",
        )
    return gxe.ExpectColumnValuesToBeBetween(column=rule.column, min_value=rule.least, max_value=rule.most)
