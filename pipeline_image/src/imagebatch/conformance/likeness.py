"""How far two answers to one image lie apart."""

from __future__ import annotations

from collections.abc import Sequence

from imagebatch.conformance.subject import NotKeptError
from imagebatch.model_apis.base import Answer

# A server whose sums depend on the batch answers a little differently each time; another image's answer, or
# another model's, lies farther off.
TOLERANCE = 0.02


def apart(one: Answer, other: Answer) -> float:
    """Return the largest difference of a label's probability, 1 where only one of them is a refusal."""
    if one.reason or other.reason:
        return float(bool(one.reason) != bool(other.reason))
    mine, its = (dict(zip(each.labels, each.probabilities, strict=True)) for each in (one, other))
    # A label that is not among the first k has at most the probability of the last of them.
    return max(
        (
            abs(mine.get(label, min(mine.values())) - its.get(label, min(its.values())))
            for label in mine.keys() | its.keys()
        ),
        default=0.0,
    )


def require_alike(expected: Sequence[Answer], answers: Sequence[Answer], when: str) -> str:
    """Compare the answers of the same images.

    Args:
        expected: What they were at first.
        answers: What they are now.
        when: What has changed in between, for the error.

    Returns:
        How well they agree, in words.

    Raises:
        NotKeptError: They do not.
    """
    if len(answers) != len(expected):
        raise NotKeptError(f"{len(answers)} answers to {len(expected)} images {when}")
    distances = [apart(one, other) for one, other in zip(expected, answers, strict=True)]
    wrong = [position for position, distance in enumerate(distances) if distance > TOLERANCE]
    if wrong:
        raise NotKeptError(
            f"{len(wrong)} of {len(answers)} images are answered differently {when}, image {wrong[0]} first:"
            f" {_told(expected[wrong[0]])}, then {_told(answers[wrong[0]])}"
        )
    if list(expected) == list(answers):
        return f"{len(answers)} of {len(answers)} to the last digit"
    return f"{len(answers)} of {len(answers)}, probabilities up to {max(distances):.1g} apart"


def _told(answer: Answer) -> str:
    if answer.reason:
        return f"refused ({answer.reason})"
    return f"{answer.labels[0]!r} {answer.probabilities[0]:.4f}"
