"""How far two answers to one image lie apart."""

from __future__ import annotations

from collections.abc import Sequence

from imagebatch.conformance.subject import NotKeptError
from imagebatch.heads.base import Head
from imagebatch.model_apis.base import Answer

# A server whose sums depend on the batch answers a little differently each time; another image's answer, or
# another model's, lies farther off.
TOLERANCE = 0.02


def apart(head: Head, one: Answer, other: Answer) -> float:
    """Return how far two answers are from each other, at most 1: as where only one of them is a refusal.

    Of a softmax it is the largest difference of a label's probability; of other heads `Head.off`.
    """
    if one.reason or other.reason:
        return float(bool(one.reason) != bool(other.reason))
    if not head.chooses_labels:
        return min(1.0, head.off(one, other))
    mine, its = (dict(zip(each.labels, each.probabilities, strict=True)) for each in (one, other))
    # A label that is not among the first k has at most the probability of the last of them.
    return max(
        (
            abs(mine.get(label, min(mine.values())) - its.get(label, min(its.values())))
            for label in mine.keys() | its.keys()
        ),
        default=0.0,
    )


def require_alike(head: Head, expected: Sequence[Answer], answers: Sequence[Answer], when: str) -> str:
    """Compare the answers of the same images.

    Args:
        head: Of the model.
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
    distances = [apart(head, one, other) for one, other in zip(expected, answers, strict=True)]
    wrong = [position for position, distance in enumerate(distances) if distance > TOLERANCE]
    if wrong:
        raise NotKeptError(
            f"{len(wrong)} of {len(answers)} images are answered differently {when}, image {wrong[0]} first:"
            f" {_told(head, expected[wrong[0]])}, then {_told(head, answers[wrong[0]])}"
        )
    if list(expected) == list(answers):
        return f"{len(answers)} of {len(answers)} to the last digit"
    return f"{len(answers)} of {len(answers)}, up to {max(distances):.1g} apart"


def _told(head: Head, answer: Answer) -> str:
    return f"refused ({answer.reason})" if answer.reason else head.words(answer)
