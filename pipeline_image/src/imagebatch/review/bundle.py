"""What is handed to people: a folder with pictures, named so that each can be told again, in their order."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from imagebatch.contracts.records import ModelPin
from imagebatch.review.queue import Predicted

PICTURES = "images"  # as CVAT's own exports have it
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_TAIL = 40
_KEY = re.compile(r"(?:^|[/\\])\d+-([0-9a-f]{16})(?:-[A-Za-z0-9_-]*)?\.jpg$")


@dataclass(frozen=True, slots=True)
class Asked:
    """A picture that people are asked about.

    Attributes:
        predicted: What the model says.
        name: Of its file in PICTURES; sorted by it, the least certain come first.
        width: Of that file, pixels.
        height: Of that file, pixels.
    """

    predicted: Predicted
    name: str
    width: int
    height: int

    @property
    def why(self) -> str:
        """Say why people are asked: `review`, `sample`, or both."""
        reasons = {"review": self.predicted.queued, "sample": self.predicted.sampled}
        return " ".join(name for name, holds in reasons.items() if holds)


@dataclass(frozen=True, slots=True)
class Bundle:
    """All that is handed out.

    Attributes:
        run_id: The run.
        model: Its model.
        asked: In the order in which people shall see them.
        shows_predictions: Whether people see what the model says.
    """

    run_id: str
    model: ModelPin
    asked: list[Asked]
    shows_predictions: bool

    @property
    def labels(self) -> list[str]:
        """Name every label once, in the order of the classes."""
        return list(dict.fromkeys(self.model.labels))


def picture_name(rank: int, image_id: str) -> str:
    """Name the picture of an image: its place in the order, a key to its id, and what people know it by.

    Nothing in it needs escaping anywhere.
    """
    stem = image_id.rpartition("/")[2].rpartition(".")[0] or image_id
    tail = _UNSAFE.sub("-", stem)[-_LONGEST_TAIL:].strip("-")
    return f"{rank:05d}-{key_of(image_id)}{f'-{tail}' if tail else ''}.jpg"


def key_of(image_id: str) -> str:
    """Return 16 hex digits that stand for an image's id in the names of pictures."""
    return hashlib.sha256(image_id.encode()).hexdigest()[:16]


def key_in(name: str) -> str:
    """Return the key in a picture's name, whatever folders stand before it; empty if it is no such name."""
    found = _KEY.search(name)
    return found[1] if found else ""
