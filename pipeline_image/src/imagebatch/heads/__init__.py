"""Heads: all that depends on what a model's numbers mean, one class for each kind (docs/reference/heads.md).

Whether an answer can be, its columns, what the checks expect of them, what drift compares and what the report
shows: other rooms ask a `Head` and do not know its kind.
"""

from __future__ import annotations

from typing import Final

from imagebatch.contracts.records import HeadKind, ModelPin
from imagebatch.heads.base import Head
from imagebatch.heads.multilabel import Multilabel
from imagebatch.heads.regression import Regression
from imagebatch.heads.softmax import Softmax

_HEADS: Final[dict[HeadKind, type[Head]]] = {
    HeadKind.SOFTMAX: Softmax,
    HeadKind.MULTILABEL: Multilabel,
    HeadKind.REGRESSION: Regression,
}


def head_of(model: ModelPin, top_k: int) -> Head:
    """Return the head of a model.

    Args:
        model: The run's model.
        top_k: Labels per image, where their number can be chosen.
    """
    return _HEADS[model.head](model, top_k)
