"""What a model can have answered: the one rule for replies, for answers kept, and for what attempts left."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence


class PossibleAnswers:
    """Tells an answer that a model can have given from one that no model gives.

    Args:
        labels: The model's class names by class index.
        top_k: Labels per image.
    """

    def __init__(self, labels: Sequence[str], top_k: int) -> None:
        self._names = list(labels)
        self._times = Counter(labels)
        self._top_k = top_k

    @property
    def need_classes(self) -> bool:
        """Whether two classes have one name, so that a label does not tell which of them it is."""
        return len(self._times) < len(self._names)

    def problem(self, labels: object, probabilities: object, classes: object = None) -> str:
        """Say what is impossible about an answer; empty if nothing is.

        Args:
            labels: Must be `top_k` of the model's labels, each at most as often as the model has it.
            probabilities: Must be as many numbers in [0, 1], not rising.
            classes: If there are any, must be the indices of as many different classes of these names.
        """
        if not isinstance(labels, list | tuple) or not isinstance(probabilities, list | tuple):
            return "no labels"
        if not len(labels) == len(probabilities) == self._top_k:
            return f"{len(labels)} labels and {len(probabilities)} probabilities in place of {self._top_k}"
        return (
            _problem_of(probabilities)
            or self._unknown(labels)
            or (
                f"classes that are not those of the labels: {classes}" if self._wrong(classes, labels) else ""
            )
        )

    def _unknown(self, labels: Sequence[object]) -> str:
        unknown = [label for label in labels if not isinstance(label, str) or label not in self._times]
        if unknown:
            return f"labels that the model does not have: {unknown[:3]}"
        if len(set(labels)) == len(labels):
            return ""
        often = [label for label, count in Counter(map(str, labels)).items() if count > self._times[label]]
        return f"labels more often than the model has them: {often[:3]}" if often else ""

    def _wrong(self, classes: object, labels: Sequence[object]) -> bool:
        if classes is None:
            return False
        if not isinstance(classes, list | tuple) or len(classes) != len(labels):
            return True
        if not all(type(index) is int and 0 <= index < len(self._names) for index in classes):
            return True
        return len(set(classes)) < len(classes) or [self._names[index] for index in classes] != list(labels)


def _problem_of(probabilities: Sequence[object]) -> str:
    values = [value for value in probabilities if isinstance(value, float | int) and 0.0 <= value <= 1.0]
    if len(values) < len(probabilities):  # NaN among them
        return f"probabilities that cannot be: {probabilities[:5]}"
    if any(a < b for a, b in itertools.pairwise(values)):
        return f"probabilities that rise: {probabilities[:5]}"
    return ""
