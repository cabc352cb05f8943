"""The heads that a model may have, a class for each, and what is declared of them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import imagebatch_heads as handler  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker
import numpy as np
import numpy.typing as npt

from imagebatch_training import metrics
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.imports.answers import Doubles
from imagebatch_training.imports.expected import read_expected, read_label_sets, read_scores
from imagebatch_training.imports.graph import LEAST, LEAST_REST
from imagebatch_training.imports.head import EndsWith, Head
from imagebatch_training.imports.label_sets import LabelSets
from imagebatch_training.imports.labels import Labels as Names
from imagebatch_training.imports.pictures import Picture
from imagebatch_training.imports.preprocessing import Declared
from imagebatch_training.imports.request import HEAD_KEYS, HEAD_NAMES
from imagebatch_training.imports.scores import SAME, Scores, spread
from imagebatch_training.imports.truth import MOVED, Answers, Score, Truth

_NEAR_ONE: Final = 1e-2
_FEWEST: Final = 2
_SQUASH: Final = ("Sigmoid", "Softmax")


class SoftmaxHead(Head):
    """One class of several."""

    name = "softmax"
    does, same, ends = "names the class of", "the same class", "softmax"
    one_class = True

    @classmethod
    def require(cls, values: int) -> None:
        """Refuse one, see `Head.require`."""
        if values < _FEWEST:
            raise DataError(
                "the model answers one number to an image, and a softmax needs two classes or more: "
                "--head regression for a score, --head multilabel for the sigmoid of one label"
            )

    def config(self) -> dict[str, Any]:
        """Say nothing: older archives do not say it either."""
        return {}

    def logits(self, raw: Doubles, outputs: str) -> Doubles:
        """Undo the softmax, see `Head.logits`."""
        return np.log(np.maximum(raw, LEAST)) if outputs == "probabilities" else raw

    def values(self, logits: Doubles) -> Doubles:
        """Compute probabilities, see `Head.values`."""
        found: Doubles = metrics.softmax(logits)
        return found

    def outputs(self, raw: Doubles, said: str | None, said_by: str, ends_with: EndsWith) -> str:
        """See by their sum, see `Head.outputs`."""
        del ends_with
        found = "probabilities" if _within(raw) and _sum_to_one(raw) else "logits"
        if said == "logits" != found:
            raise DataError(
                f"softmax twice: the model's outputs are probabilities already (they sum to 1 on each of "
                f"{len(raw)} images), and {said_by} says logits: --outputs probabilities"
            )
        if said == "probabilities" != found:
            raise DataError(
                f"softmax is missing: the model's outputs lie {_between(raw)} and do not sum to "
                f"1, and {said_by} says probabilities: --outputs logits"
            )
        return found

    def notes(self, raw: Doubles, outputs: str) -> list[str]:
        """See sigmoids, see `Head.notes`."""
        if outputs == "probabilities" or not _within(raw):
            return []
        return ["the model's outputs lie between 0 and 1 and do not sum to 1: of sigmoids, --head multilabel"]

    def truth(self, by: str, values: Doubles, agreement: float) -> Truth:
        """Take the best class for known, see `Head.truth`."""
        return Answers(by, values.argmax(1), values, agreement)

    def read(self, path: Path, pictures: Sequence[Picture], agreement: float) -> Truth:
        """Read classes, see `Head.read`."""
        return read_expected(path, pictures, self.names[0], agreement)


class MultilabelHead(Head):
    """Any number of labels: each by its own sigmoid and threshold."""

    name = "multilabel"
    does, same, ends = "gives the labels of", "the same labels", "sigmoid"

    @classmethod
    def require(cls, values: int) -> None:
        """Take any number, see `Head.require`."""

    def logits(self, raw: Doubles, outputs: str) -> Doubles:
        """Undo the sigmoids, see `Head.logits`."""
        if outputs != "probabilities":
            return raw
        found: Doubles = np.log(np.maximum(raw, LEAST)) - np.log(np.maximum(1 - raw, LEAST_REST))
        return found

    def values(self, logits: Doubles) -> Doubles:
        """Compute probabilities, see `Head.values`."""
        found: Doubles = np.exp(-np.logaddexp(0, -logits))
        return found

    def outputs(self, raw: Doubles, said: str | None, said_by: str, ends_with: EndsWith) -> str:
        """See by their range, and by the model's end where it tells nothing, see `Head.outputs`."""
        if not _within(raw):
            if said == "probabilities":
                raise DataError(
                    f"sigmoid is missing: the model's outputs lie {_between(raw)}, and {said_by} says "
                    "probabilities: --outputs logits"
                )
            return "logits"
        if said == "probabilities":
            return said
        last = ends_with()
        if said is None and last not in _SQUASH:
            raise ConfigurationError(
                f"the model's outputs lie {_between(raw)} on {len(raw)} images: say --outputs probabilities "
                "where it ends with sigmoids, --outputs logits where not"
            )
        if said == "logits" and last in _SQUASH:
            raise DataError(
                f"{last.lower()} twice: the model ends with one, and {said_by} says logits: "
                "--outputs probabilities"
            )
        return said or "probabilities"

    def notes(self, raw: Doubles, outputs: str) -> list[str]:
        """See a softmax, see `Head.notes`."""
        if outputs == "probabilities" and raw.shape[1] >= _FEWEST and _sum_to_one(raw):
            return ["the model's outputs sum to 1 on every image: of a softmax, --head softmax"]
        return []

    def truth(self, by: str, values: Doubles, agreement: float) -> Truth:
        """Take the labels at their thresholds for known, see `Head.truth`."""
        members = values.astype(np.float32) >= self._served.thresholds
        known = np.ones(len(values), np.bool_)
        thresholds = self._served.thresholds
        return LabelSets(by, known, members, values, thresholds=thresholds, agreement=agreement)

    def read(self, path: Path, pictures: Sequence[Picture], agreement: float) -> Truth:
        """Read sets of labels, see `Head.read`."""
        return read_label_sets(path, pictures, self.names[0], self._served.thresholds, agreement)


class RegressionHead(Head):
    """One number."""

    name = "regression"
    does, same, has_labels = "gives the score of", "the same score", False
    off = "a score is another by {:.3f} of their spread"
    limits = {"score_change": MOVED, "same_score": SAME}  # noqa: RUF012 - declared a ClassVar above

    def __init__(self, said: Mapping[str, Any], names: Names) -> None:
        super().__init__(said, names)
        quantity = said.get("quantity", {})
        self._lowest = float(quantity.get("lowest", -math.inf))
        self._highest = float(quantity.get("highest", math.inf))

    @classmethod
    def require(cls, values: int) -> None:
        """Refuse several, see `Head.require`."""
        if values > 1:
            raise DataError(
                f"the model answers {values} numbers to an image, and a regression has one: leave --head "
                "regression out for classes"
            )

    def logits(self, raw: Doubles, outputs: str) -> Doubles:
        """Leave scores as they are, see `Head.logits`."""
        del outputs
        return raw

    def values(self, logits: Doubles) -> Doubles:
        """Leave scores as they are, see `Head.values`."""
        return logits

    def outputs(self, raw: Doubles, said: str | None, said_by: str, ends_with: EndsWith) -> str:
        """Say that it is a score, see `Head.outputs`."""
        del raw, said, said_by, ends_with
        return "score"

    def possible(self, values: Doubles) -> npt.NDArray[np.bool_]:
        """Compare with the limits as the handler does, see `Head.possible`."""
        scores = values[:, 0].astype(np.float32)
        within: npt.NDArray[np.bool_] = (scores >= np.float32(self._lowest)) & (
            scores <= np.float32(self._highest)
        )
        return within

    def truth(self, by: str, values: Doubles, agreement: float) -> Truth:
        """Take scores for known, see `Head.truth`.

        Raises:
            DataError: They are all alike.
        """
        scores = values[:, 0]
        return Scores(by, scores, spread(scores, self._highest - self._lowest, by), agreement)

    def read(self, path: Path, pictures: Sequence[Picture], agreement: float) -> Truth:
        """Read scores, see `Head.read`."""
        return read_scores(path, pictures, self._highest - self._lowest, agreement)

    def _moved(self, score: Score, truth: Truth) -> dict[str, Any]:
        moved, most = (score.moved or 0.0) * truth.scale, (score.most or 0.0) * truth.scale
        figures = {"largest": most, "mean": moved, "spread": truth.scale}
        return {"score_change": {name: float(f"{value:.6g}") for name, value in figures.items()}}


HEADS: Final[Mapping[str, type[Head]]] = {
    head.name: head for head in (SoftmaxHead, MultilabelHead, RegressionHead)
}


def settle_head(declared: Sequence[Declared]) -> tuple[type[Head], dict[str, Any], dict[str, str]]:
    """Put what is declared of a head on top of each other, and check it.

    Args:
        declared: Later ones win; keys that are not of a head are left alone.

    Returns:
        The head, what is said of it, and by key who said so.

    Raises:
        ConfigurationError: There is no such head, or what is said is not about it.
    """
    said: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for by, values in declared:
        found = {key: _checked(key, value, by) for key, value in values.items() if key in HEAD_KEYS}
        said |= found
        origins |= dict.fromkeys(found, by)
    head = HEADS[said.pop("head", SoftmaxHead.name)]
    other = next((key for key in said if key not in handler.Head.registered[head.name].takes), None)
    if other is not None:
        raise ConfigurationError(
            f"{origins[other]}: {other} says nothing about head {head.name}: leave it out, or give --head "
            f"{_whose(other)}"
        )
    if head is RegressionHead and "quantity" not in said:
        raise ConfigurationError("nobody says what the score is: give --quantity name=thickness,unit=mm")
    return head, said, origins


def _whose(key: str) -> str:
    return next(name for name in HEADS if key in handler.Head.registered[name].takes)


def _checked(key: str, value: Any, by: str) -> Any:
    if key == "head":
        if value not in HEAD_NAMES:
            raise ConfigurationError(f"{by}: head must be {' or '.join(HEAD_NAMES)}: got {value!r}")
        return value
    if key == "threshold":
        if type(value) not in {int, float}:
            raise ConfigurationError(f"{by}: threshold must be a number above 0, at most 1: got {value!r}")
        return float(value)  # the handler takes no int
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{by}: {key} must hold keys and values: got {value!r}")
    return {str(name): part for name, part in value.items()}


def _within(raw: Doubles) -> bool:
    return bool((raw >= 0).all() and (raw <= 1).all())


def _sum_to_one(raw: Doubles) -> bool:
    return bool(np.abs(raw.sum(1) - 1).max() < _NEAR_ONE)


def _between(raw: Doubles) -> str:
    return f"between {raw.min():.4g} and {raw.max():.4g}"
