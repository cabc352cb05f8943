"""Heads: what the last numbers of a model mean, and how they become an image's entry of a reply.

A head is one class, chosen by `head` of `model-config.yaml`: `softmax` (one class of several), `multilabel`
(any number of them, each by its own probability) or `regression` (one number).

A new head is a subclass of `Head` with a `name`; defining it registers it.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float32]

_QUANTITY = ("name", "unit", "lowest", "highest")
_LONGEST_NAME = 60


class OutOfRangeError(ValueError):
    """A score that its quantity cannot have: the image's failure, with `reason` and `detail`."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.reason = "out_of_range"
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What `model-config.yaml` says of a head beside its name.

    Attributes:
        threshold: Probability from which on a label is one of an image's.
        thresholds: The same for single labels, by label.
        quantity: What a single score is: `name`, `unit`, `lowest`, `highest`.
    """

    threshold: float = 0.5
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    quantity: Mapping[str, Any] = field(default_factory=dict)


class Prediction(NamedTuple):
    """The most probable classes of one image, in falling order; probabilities are float32 softmax values.

    Two classes may have one name: `classes` are their indices.
    """

    labels: list[str]
    probabilities: list[float]
    classes: list[int]


class LabelSet(NamedTuple):
    """The labels of one image that reach their thresholds, and the probabilities of all, both by class."""

    labels: list[str]
    probabilities: list[float]


class Score(NamedTuple):
    """The one number of an image, in the unit of its quantity."""

    score: float


Predicted = Prediction | LabelSet | Score


class Head(ABC):
    """Turns logits into what is answered. Made once per model.

    Args:
        labels: Class names by class index.
        declared: The rest of what the archive declares.

    Raises:
        ValueError: The declaration does not fit the head.
    """

    name: ClassVar[str]
    registered: ClassVar[dict[str, type["Head"]]] = {}
    takes: ClassVar[frozenset[str]] = frozenset()  # what of `Declared` says something about this head

    def __init_subclass__(cls) -> None:
        Head.registered[cls.name] = cls

    def __init__(self, labels: list[str], declared: Declared) -> None:
        for key, default in vars(Declared()).items():
            if key not in self.takes and getattr(declared, key) != default:
                raise ValueError(f"model-config.yaml: imagebatch.{key} says nothing about head {self.name}")
        self.labels = labels

    @property
    def outputs(self) -> int:
        """How many numbers the model gives for an image."""
        return len(self.labels)

    def check(self, logits: Logits) -> None:
        """Raise ValueError unless these can be one image's logits: the model is at fault."""
        if logits.shape != (self.outputs,):
            raise ValueError(f"the model answers {logits.shape} logits for {self._wanted()}")
        if not np.isfinite(logits).all():
            raise ValueError("the model answers logits that are not finite")

    @abstractmethod
    def predict(self, logits: Logits, top_k: int) -> Predicted:
        """Answer for one image.

        Args:
            logits: float32 (outputs,).
            top_k: Labels wanted, where their number is the client's to choose.

        Raises:
            ValueError: See `check`.
            OutOfRangeError: The answer to this image cannot be.
        """

    def entry(self, predicted: Predicted) -> dict[str, Any]:
        """Make an image's entry of a reply."""
        return predicted._asdict()

    @property
    def kind(self) -> dict[str, Any]:
        """What each reply says, so that no client takes one kind of numbers for another."""
        return {"head": self.name}

    def describe(self) -> dict[str, Any]:
        """Say what the numbers mean; a client takes what says nothing for a softmax."""
        return self.kind

    def _wanted(self) -> str:
        return f"{self.outputs} labels"


class SoftmaxHead(Head):
    """One class of several."""

    name = "softmax"

    def __init__(self, labels: list[str], declared: Declared) -> None:
        super().__init__(labels, declared)
        self._named_once = len(set(labels)) == len(labels)

    def predict(self, logits: Logits, top_k: int) -> Prediction:
        """Choose the `top_k` most probable labels (all, where there are fewer); ties by class index."""
        self.check(logits)
        exponents = np.exp(logits.astype(np.float64) - logits.max())
        probabilities = (exponents / exponents.sum()).astype(np.float32)
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        shortest = _shortest(probabilities[best])
        return Prediction([self.labels[index] for index in best], shortest, [int(index) for index in best])

    def entry(self, predicted: Predicted) -> dict[str, Any]:
        """Make an image's entry of a reply; its classes are told where names alone do not tell them."""
        entry = predicted._asdict()
        if self._named_once:
            del entry["classes"]
        return entry

    @property
    def kind(self) -> dict[str, Any]:
        """Nothing: older archives do not say it either."""
        return {}


class MultilabelHead(Head):
    """Any number of labels: each has a probability of its own, the sigmoid of its logit, and a threshold."""

    name = "multilabel"
    takes = frozenset({"threshold", "thresholds"})

    def __init__(self, labels: list[str], declared: Declared) -> None:
        super().__init__(labels, declared)
        twins = sorted({label for label in labels if labels.count(label) > 1})
        if twins:
            raise ValueError(
                f"index_to_name.json: two classes of a multilabel head are named {json.dumps(twins[0])[:80]}"
            )
        unknown = [label for label in declared.thresholds if label not in labels]
        if unknown:
            raise ValueError(
                f"model-config.yaml: imagebatch.thresholds names {json.dumps(unknown[0], default=str)[:80]},"
                " which is no label of index_to_name.json"
            )
        found = [declared.thresholds.get(label, declared.threshold) for label in labels]
        for label, value in zip(labels, found, strict=True):
            if type(value) not in {int, float} or not 0 < value <= 1:
                raise ValueError(
                    "model-config.yaml: imagebatch.threshold and thresholds must be above 0 and at most 1:"
                    f" got {json.dumps(value, default=str)[:40]} for {json.dumps(label)[:80]}"
                )
        # Compared as float32, as clients keep probabilities: each must find the same labels.
        self.thresholds = np.array(found, np.float32)

    def predict(self, logits: Logits, top_k: int) -> LabelSet:
        """Give the probabilities of all classes, and the labels that reach their thresholds."""
        del top_k  # thresholds choose the labels
        self.check(logits)
        probabilities = np.exp(-np.logaddexp(0, -logits.astype(np.float64))).astype(np.float32)
        there = np.flatnonzero(probabilities >= self.thresholds)
        return LabelSet([self.labels[index] for index in there], _shortest(probabilities))

    def describe(self) -> dict[str, Any]:
        """Say from which probability on each label counts, by class index."""
        return super().describe() | {"thresholds": _shortest(self.thresholds)}


class RegressionHead(Head):
    """One number: the model's only output, as it is."""

    name = "regression"
    takes = frozenset({"quantity"})

    def __init__(self, labels: list[str], declared: Declared) -> None:
        super().__init__(labels, declared)
        if labels:
            raise ValueError("index_to_name.json: a regression head has no labels: leave it out, or empty")
        self.quantity = dict(declared.quantity)
        _require_quantity(self.quantity)
        self._lowest = np.float32(self.quantity.get("lowest", -math.inf))
        self._highest = np.float32(self.quantity.get("highest", math.inf))

    @property
    def outputs(self) -> int:
        """One."""
        return 1

    def predict(self, logits: Logits, top_k: int) -> Score:
        """Give the number, or refuse the image where it is not one that the quantity can have."""
        del top_k
        self.check(logits)
        (score,) = _shortest(logits)
        if not self._lowest <= logits[0] <= self._highest:
            known = {"lowest": "-", "highest": "-"} | self.quantity
            detail = (
                f"{self.quantity['name']} {score:g} is not within {known['lowest']} to {known['highest']}"
            )
            raise OutOfRangeError(detail)
        return Score(score)

    def describe(self) -> dict[str, Any]:
        """Say what is measured, in what unit, and what it can be."""
        return super().describe() | {"quantity": self.quantity}

    def _wanted(self) -> str:
        return "one score"


def make_head(name: str, labels: list[str], declared: Declared) -> Head:
    """Make the head of that name.

    Raises:
        ValueError: There is no such head, or the declaration does not fit it.
    """
    if name not in Head.registered:
        known = ", ".join(Head.registered)
        raise ValueError(f"model-config.yaml: imagebatch.head must be one of {known}: got {name!r}")
    return Head.registered[name](labels, declared)


def _shortest(values: npt.NDArray[np.float32]) -> list[float]:
    # str() of a float32 is its shortest exact form: 0.1 and not 0.10000000149011612.
    return [float(str(value)) for value in values]


def _require_quantity(quantity: Mapping[str, Any]) -> None:
    where = "model-config.yaml: imagebatch.quantity"
    unknown = [key for key in quantity if key not in _QUANTITY]
    if unknown:
        raise ValueError(f"{where}: unknown {unknown[0]}: use {', '.join(_QUANTITY)}")
    for key in ("name", "unit"):
        text = quantity.get(key, "")
        if not isinstance(text, str) or not text.isprintable() or len(text) > _LONGEST_NAME:
            raise ValueError(f"{where}.{key} must be printable text of at most {_LONGEST_NAME} characters")
    if not quantity.get("name", "").strip():
        raise ValueError(f"{where}.name must say what the score of head regression is, such as thickness")
    limits = [quantity[key] for key in ("lowest", "highest") if key in quantity]
    if any(type(limit) not in {int, float} or not math.isfinite(limit) for limit in limits):
        raise ValueError(f"{where}: lowest and highest must be numbers")
    if limits != sorted(limits) or len(set(limits)) < len(limits):
        raise ValueError(f"{where}: lowest must be below highest")
