"""What every head can do: say what a model's numbers mean, compare them, and declare itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import imagebatch_heads as handler  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker
import numpy as np
import numpy.typing as npt

from imagebatch_training import metrics
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.imports.answers import Doubles
from imagebatch_training.imports.labels import Labels as Names
from imagebatch_training.imports.pictures import Picture
from imagebatch_training.imports.truth import MOVED, TIE, Score, Truth

EndsWith = Callable[[], str]
"""Names the last operation of the model that changes values, see `graph.ends_with`."""


class Head(ABC):
    """One head.

    Attributes:
        name: As `model-config.yaml` has it.
        does: What the archive does to an image, in words; whose it is follows.
        same: What is the same where two answers agree, in words.
        ends: What gives its probabilities, in words; empty where there are none.
        off: How far two libraries are apart, in words.
        limits: How far answers may be, as certificates have it.
        has_labels: Whether it has classes that have names.
        one_class: Whether an image has one class, so that folders can tell it.

    Args:
        said: What is declared of it: `threshold`, `thresholds`, `quantity`.
        names: Of the classes, and who says so.

    Raises:
        ConfigurationError: The declaration does not fit head or names.
    """

    name: ClassVar[str]
    does: ClassVar[str]
    same: ClassVar[str]
    ends: ClassVar[str] = ""
    off: ClassVar[str] = "a probability is another by {:.3f}"
    limits: ClassVar[Mapping[str, float]] = {"probability_change": MOVED, "near_tie": TIE}
    has_labels: ClassVar[bool] = True
    one_class: ClassVar[bool] = False

    def __init__(self, said: Mapping[str, Any], names: Names) -> None:
        self._said, self.names = dict(said), names
        try:
            self._served = handler.make_head(self.name, list(names[0]), handler.Declared(**said))
        except ValueError as error:
            text = str(error).removeprefix("model-config.yaml: ").removeprefix("index_to_name.json: ")
            text = text.replace("imagebatch.", "").replace("index_to_name.json", names[1])
            raise ConfigurationError(text) from error

    @classmethod
    @abstractmethod
    def require(cls, values: int) -> None:
        """Refuse a model that answers so many values to an image.

        Raises:
            DataError: It is none of this head.
        """

    @abstractmethod
    def logits(self, raw: Doubles, outputs: str) -> Doubles:
        """Turn what the model gives, (images, classes), into what the handler wants of it."""

    @abstractmethod
    def values(self, logits: Doubles) -> Doubles:
        """Turn what the archive gives, (images, classes), into what is answered: probabilities or scores."""

    @abstractmethod
    def outputs(self, raw: Doubles, said: str | None, said_by: str, ends_with: EndsWith) -> str:
        """Settle what the model's outputs are.

        Args:
            raw: Its answers (images, classes).
            said: What is declared; None where nothing is.
            said_by: Who declares it.
            ends_with: The model's last operation.

        Raises:
            ConfigurationError: They may be one or the other.
            DataError: They show the contrary of what is declared.
        """

    @abstractmethod
    def truth(self, by: str, values: Doubles, agreement: float) -> Truth:
        """Take answers for what is known."""

    @abstractmethod
    def read(self, path: Path, pictures: Sequence[Picture], agreement: float) -> Truth:
        """Read what a model's own code answers, see `expected`."""

    def config(self) -> dict[str, Any]:
        """Return what `model-config.yaml` says of it: nothing of a softmax."""
        return {"head": self.name} | self._said

    def possible(self, values: Doubles) -> npt.NDArray[np.bool_]:
        """Tell which images a run can have these answers to, (images,)."""
        return np.ones(len(values), np.bool_)

    def notes(self, raw: Doubles, outputs: str) -> list[str]:
        """Say what is odd about a model's raw answers."""
        del raw, outputs
        return []

    def figures(self, score: Score, truth: Truth) -> dict[str, Any]:
        """Write a comparison as certificates have it."""
        agreeing, images = score.agreeing, score.images
        result: dict[str, Any] = {
            "images": images,
            "agreeing": agreeing,
            "agreement": round(agreeing / images, 6),
            "interval": [round(end, 6) for end in metrics.wilson(agreeing, images)],
        }
        return result | self._moved(score, truth)

    def _moved(self, score: Score, truth: Truth) -> dict[str, Any]:
        del truth
        if score.moved is None:
            return {}
        most = {} if score.most is None else {"largest": round(score.most, 6)}
        moved = most | {"mean": round(score.moved, 6)}
        return {"probability_change": moved, "near_ties": score.ties}
