"""One image's answer, as model APIs give it and score rows keep it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answer:
    """One image's answer: labels with probabilities, a score, or a reason.

    Attributes:
        labels: Of a softmax, the k most probable classes, most probable first; of a multilabel head, those
            that reach their thresholds, in the order of the classes; else empty.
        probabilities: In [0, 1]. Of a softmax, not increasing, one per label; of a multilabel head, one per
            class.
        classes: Class indices of the labels, where two classes of the model have one name; else empty.
        reason: Empty, or why the model API refused this image.
        detail: One line for a person.
        embedding: The model's features of the image, float32 little-endian; empty if not asked or not given.
        score: Of a regression, in the unit of its quantity.
        endpoint: Which of several endpoints gave it, as it may be shown; no part of what is compared.
    """

    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    classes: tuple[int, ...] = ()
    reason: str = ""
    detail: str = ""
    embedding: bytes = b""
    score: float | None = None
    endpoint: str = field(default="", compare=False)
