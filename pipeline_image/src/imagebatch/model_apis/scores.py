"""Numbers per class, as servers of any kind answer them, into checked answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from imagebatch.errors import one_line
from imagebatch.model_apis.base import Answer, ApiFaultError, Fault

# One image's answer: numbers in the order of the classes, or an answer that names its labels, or a refusal.
Row = npt.NDArray[np.float32] | Answer

# Half precision carries three digits, and a thousand classes add their errors up.
_SUM_TOLERANCE = 0.01


class NoProbabilitiesError(ApiFaultError):
    """Numbers that are no probabilities: logits, perhaps."""

    def __init__(self, detail: str) -> None:
        super().__init__(Fault.BAD_REPLY, detail)
        self.detail = detail


def checked(row: Row, labels: Sequence[str], top_k: int, *, logits: bool) -> Answer:
    """Return the answer to one image: its `top_k` most probable labels, ties by class index.

    Args:
        row: What the server answered.
        labels: Class names by class index.
        top_k: Labels wanted; all, where there are fewer.
        logits: Whether the row's softmax is yet to be taken.

    Raises:
        ApiFaultError: It cannot be the answer of this model.
    """
    if isinstance(row, Answer):
        return row if row.reason else _named(row, min(top_k, len(labels)))
    values = probabilities(row, len(labels), logits=logits)
    best = np.argsort(-values, kind="stable")[:top_k]
    twins = len(set(labels)) < len(labels)  # then a name does not tell its class
    # str() of a float32 is its shortest exact form, as the handler writes it.
    return Answer(
        labels=tuple(labels[index] for index in best),
        probabilities=tuple(float(str(values[index])) for index in best),
        classes=tuple(map(int, best)) if twins else (),
    )


def probabilities(row: npt.NDArray[np.float32], classes: int, *, logits: bool) -> npt.NDArray[np.float32]:
    """Return a row of numbers as float32 probabilities (classes,).

    Raises:
        ApiFaultError: They are of another number, not finite, or no probabilities.
    """
    if row.shape != (classes,):
        raise ApiFaultError(Fault.BAD_REPLY, f"{row.shape} numbers for {classes} labels")
    if not np.isfinite(row).all():
        raise ApiFaultError(Fault.BAD_REPLY, f"numbers that are not finite: {row[:5].tolist()}")
    if logits:
        exponents = np.exp(row.astype(np.float64) - row.max())
        softmax: npt.NDArray[np.float64] = exponents / exponents.sum()
        return softmax.astype(np.float32)
    total = float(row.sum(dtype=np.float64))
    if row.min() < 0 or row.max() > 1 or abs(total - 1) > _SUM_TOLERANCE:
        raise NoProbabilitiesError(f"numbers that are no probabilities, their sum is {total:.4g}")
    return row.astype(np.float32)


def row_of(item: Any, output: str = "") -> Row:
    """Return one image's answer out of a reply's JSON: a list of numbers, or an object.

    An object has `labels` and `probabilities`, or `probabilities` alone, in the order of the classes, or
    `error` with `reason` and `detail`, as the handler writes them (docs/reference/wire.md).

    Args:
        item: The JSON.
        output: The object's field with a number per class; empty: `probabilities`, or its only field.

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
        item = item.get(output or "probabilities", None if output else only)
    return _numbers(item)


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


def _named(answer: Answer, top_k: int) -> Answer:
    labels, values = answer.labels[:top_k], answer.probabilities[:top_k]
    falling = all(a >= b for a, b in itertools.pairwise(values))
    in_range = all(0.0 <= value <= 1.0 for value in values)  # false for NaN too
    if not (len(values) == len(labels) == top_k and falling and in_range):
        raise ApiFaultError(Fault.BAD_REPLY, f"labels and probabilities that cannot be: {values[:5]}")
    return Answer(labels=labels, probabilities=values)
