"""Numbers per class or one score, as servers of any kind answer them, into checked answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from imagebatch.errors import one_line
from imagebatch.heads.base import Head, NoProbabilitiesError, NotAnAnswerError
from imagebatch.model_apis.base import Answer, ApiFaultError, Fault

# One image's answer: numbers in the order of the classes, or an answer that names its labels, or a refusal.
Row = npt.NDArray[np.float32] | Answer


class NoProbabilitiesFaultError(ApiFaultError):
    """Numbers that are no probabilities: logits, perhaps."""

    def __init__(self, detail: str) -> None:
        super().__init__(Fault.BAD_REPLY, detail)
        self.detail = detail


def checked(row: Row, head: Head, *, logits: bool) -> Answer:
    """Return the answer to one image.

    Args:
        row: What the server answered.
        head: Of the model, with the labels wanted.
        logits: Whether the head is yet to be applied to the row.

    Raises:
        ApiFaultError: It cannot be the answer of this model.
    """
    try:
        if not isinstance(row, Answer):
            return head.answer(row, logits=logits)
        return row if row.reason else head.named(row)
    except NoProbabilitiesError as error:
        raise NoProbabilitiesFaultError(str(error)) from error
    except NotAnAnswerError as error:
        raise ApiFaultError(Fault.BAD_REPLY, str(error)) from error


def row_of(item: Any, output: str = "") -> Row:
    """Return one image's answer out of a reply's JSON: a number, a list of them, or an object.

    An object has `labels` and `probabilities`, or `probabilities` alone, in the order of the classes, or
    `score`, or `error` with `reason` and `detail`, as the handler writes them (docs/reference/wire.md).

    Args:
        item: The JSON.
        output: The object's field with the numbers; empty: `probabilities`, `score`, or its only field.

    Raises:
        ApiFaultError: It is none of these.
    """
    if isinstance(item, dict):
        error = item.get("error")
        if error:
            return _refusal(error)
        if "labels" in item and not output:
            return _with_labels(item)
        only = next(iter(item.values())) if len(item) == 1 else None
        item = item.get(output) if output else item.get("probabilities", item.get("score", only))
    return _numbers([item] if type(item) in {int, float} else item)


def refused(text: str) -> Answer:
    """Return a refusal out of one line, `reason: detail`."""
    reason, _, detail = text.partition(":")
    return Answer(reason=one_line(reason, 60), detail=one_line(detail, 200))


def _refusal(error: Any) -> Answer:
    if isinstance(error, dict) and isinstance(error.get("reason"), str) and error["reason"].strip():
        return Answer(reason=one_line(error["reason"], 60), detail=one_line(error.get("detail", ""), 200))
    if isinstance(error, str):
        return refused(error)
    raise ApiFaultError(Fault.BAD_REPLY, f"an error without a reason: {one_line(error, 80)}")


def _with_labels(item: dict[str, Any]) -> Answer:
    labels, values = item["labels"], _numbers(item.get("probabilities"))
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ApiFaultError(Fault.BAD_REPLY, f"labels that are no names: {one_line(labels, 80)}")
    return Answer(labels=tuple(labels), probabilities=tuple(float(str(value)) for value in values))


def _numbers(item: Any) -> npt.NDArray[np.float32]:
    # bool is an int to Python, and None becomes NaN.
    if isinstance(item, list) and all(type(value) in {int, float} for value in item):
        with np.errstate(over="ignore"):
            return np.array(item, np.float32)
    raise ApiFaultError(Fault.BAD_REPLY, f"no list of numbers: {one_line(item, 80)}")
